//! Keeping an eye on trunks and phones: OPTIONS out, verdicts in.
//!
//! Owns: which OPTIONS is whose.
//! Never: judges; the trunk's health machine does.

use super::{Core, Shard};
use crate::{
    call::{Ask, By, Effect, Owner, ResolveFor, advertised_ip, contact},
    config::PublicIp,
    dialog::is_global,
    ids::Flow,
    sip::{Builder, HeaderName, Message, Method},
    transaction::ClientId,
    trunk::{
        Configured, Evidence, Told,
        health::{self, Input},
        routes::{AddressState, Hop, News, Place, authority},
    },
};
use bytes::Bytes;
use std::{net::SocketAddr, time::Instant};

/// An OPTIONS on its way to a trunk.
#[derive(Debug)]
pub(super) struct Probe {
    trunk: Box<str>,
    number: u64,
    to: SocketAddr,
    sent_at: Instant,
}

impl Shard {
    /// Takes the configuration's trunks; new places are asked for at once.
    pub(super) fn configure_trunks(&mut self, now: Instant) {
        let config = self.core.shared.config.clone();
        let is_leaving = self.family.is_leaving();
        let trunks = config.trunks.iter().map(|(name, trunk)| Configured {
            name: name.clone(),
            pace: trunk.qualify.filter(|_| !is_leaving),
            edges: trunk.edges(),
        });
        self.core.trunks.configure(trunks, now);
    }

    /// Resolves and probes whatever is due.
    pub(super) fn fire_trunks(&mut self, now: Instant) {
        for (name, place) in self.core.trunks.handle_timeout(now) {
            let Place { host, port, transport } = place.clone();
            let token = ResolveFor::Trunk(name, place);
            let ask = Ask::Resolve { token, host, port, transport };
            self.core.effects.push_back(Effect::Ask(ask));
        }
    }

    /// Does and logs what has come of what happened to trunks.
    pub(super) fn hear_of_trunks(&mut self, now: Instant) {
        for (trunk, Told { health, addresses }) in self.core.trunks.take_told() {
            let _entered = crate::observe::log::trunk_span(&trunk).entered();
            for news in addresses {
                log_address(&news);
            }
            for effect in health {
                match effect {
                    health::Effect::Probe(number) => self.probe(&trunk, number, now),
                    health::Effect::GiveUp(number) => self.give_up_probe(&trunk, number),
                    health::Effect::Changed { from, to } => {
                        tracing::info!(from = %from, to = %to, "trunk state changed");
                    }
                }
            }
        }
    }

    fn give_up_probe(&mut self, trunk: &str, number: u64) {
        self.probes.retain(|tx, probe| {
            let is_it = *probe.trunk == *trunk && probe.number == number;
            if is_it {
                self.core.tx.give_up(*tx);
            }
            !is_it
        });
    }

    /// Sends OPTIONS to one of the trunk's addresses, with the termination URI of its edge.
    fn probe(&mut self, name: &str, number: u64, now: Instant) {
        let config = self.core.shared.config.clone();
        let hop = self.core.trunks.take_probe(name, now);
        let (Some(trunk), Some(Hop { edge, flow })) = (config.trunks.get(name), hop) else {
            return;
        };
        let uri = format!("sip:{}", edge.host);
        let route = trunk
            .routing
            .proxy
            .as_ref()
            .map(|proxy| format!("<sip:{};lr>", authority(&proxy.host, proxy.port)).into());
        let (bytes, branch) = self.core.options(&uri, &uri, route.as_slice(), flow);
        let tx =
            self.core.tx.request(bytes, &branch, Method::Options, flow, now, &mut self.core.sent);
        let probe = Probe { trunk: name.into(), number, to: flow.remote, sent_at: now };
        self.probes.insert(tx, probe);
    }

    pub(super) fn probe_answered(
        &mut self,
        tx: ClientId,
        response: &Message,
        flow: Flow,
        now: Instant,
    ) {
        if response.status() < 200 {
            return;
        }
        if let Some(Probe { trunk, number, to, sent_at }) = self.probes.remove(&tx) {
            self.core.learn_address(&trunk, response, flow);
            let input = Input::ProbeAnswered { probe: number, status: response.status() };
            let rtt = Some(now.saturating_duration_since(sent_at));
            let evidence = Evidence { input, at: Some(to), rtt, why: "503 to OPTIONS" };
            self.core.trunks.observe(&trunk, evidence, now);
        }
    }

    pub(super) fn probe_failed(&mut self, tx: ClientId, now: Instant) {
        if let Some(Probe { trunk, number, to, .. }) = self.probes.remove(&tx) {
            let input = Input::ProbeFailed { probe: number };
            let evidence = Evidence { input, at: Some(to), rtt: None, why: "unreachable" };
            self.core.trunks.observe(&trunk, evidence, now);
        }
    }

    /// A call's response shows how its trunk sees us.
    pub(super) fn learn_from_call(&mut self, owner: Owner, response: &Message, flow: Flow) {
        let leg = self.calls.get(&owner.call).and_then(|call| call.leg(owner.leg));
        if let Some(trunk) = leg.and_then(|leg| leg.profile.as_trunk()) {
            self.core.learn_address(&trunk.name, response, flow);
        }
    }

    /// An answer to a call's request tells of its trunk as well as one to an OPTIONS does.
    pub(super) fn call_answered(&mut self, owner: Owner, tx: ClientId, flow: Flow, now: Instant) {
        let Some(leg) = self.calls.get(&owner.call).and_then(|call| call.leg(owner.leg)) else {
            return;
        };
        if let Some(trunk) = leg.profile.as_trunk() {
            let rtt = leg.round_trip(tx, now);
            let (input, at) = (Input::CallAnswered, Some(flow.remote));
            let evidence = Evidence { input, at, rtt, why: "" };
            self.core.trunks.observe(&trunk.name, evidence, now);
        }
    }

    /// So does silence, where it was not weighed before.
    pub(super) fn call_failed(&mut self, owner: Owner, tx: ClientId, by: By, now: Instant) {
        let Some(leg) = self.calls.get(&owner.call).and_then(|call| call.leg(owner.leg)) else {
            return;
        };
        if let (Some(trunk), at @ Some(_)) = (leg.profile.as_trunk(), leg.blamed(tx)) {
            let why = match by {
                By::Transport => "unreachable",
                By::Silence | By::Peer | By::Us => "no answer to a request",
            };
            let evidence = Evidence { input: Input::CallUnanswered, at, rtt: None, why };
            self.core.trunks.observe(&trunk.name, evidence, now);
        }
    }
}

fn log_address(news: &News) {
    let News { address, from, to, why } = news;
    let (from, to) = (from.word(), to.word());
    match why {
        Some(why) => tracing::info!(%address, from, to, %why, "trunk address dead"),
        // That an address answers at all is what everybody expects.
        None if *from == *AddressState::Unknown.word() => {
            tracing::debug!(%address, from, to, "trunk address live");
        }
        None => tracing::info!(%address, from, to, "trunk address live"),
    }
}

impl Core {
    /// Learns from a trunk's own response under which public address it sees us (RFC 3261 18.2.1,
    /// RFC 3581 4), where ours is private. Who else may say so could draw our media to itself.
    fn learn_address(&mut self, trunk: &str, response: &Message, flow: Flow) {
        if is_global(flow.local.ip()) {
            return; // Nobody needs to tell us.
        }
        let seen = response
            .via()
            .received()
            .map(|ip| ip.to_canonical())
            .filter(|ip| is_global(*ip) && ip.is_ipv4() == flow.local.is_ipv4());
        let (Some(seen), Some(state)) = (seen, self.trunks.state_mut(trunk)) else { return };
        // Most say what is known.
        if self.learned == Some(seen) && state.seen_as == Some(seen) {
            return;
        }
        if !state.routes().known().any(|(_, known, _)| known.remote.ip() == flow.remote.ip()) {
            return;
        }
        state.seen_as = Some(seen);
        if self.learned == Some(seen) {
            return;
        }
        let before = self.learned.replace(seen);
        if self.shared.config.node.public_ip == PublicIp::Auto {
            let _entered = crate::observe::log::trunk_span(trunk).entered();
            let before = before.map(|ip| ip.to_string());
            tracing::info!(address = %seen, before, "public address learned");
        }
    }

    /// Builds an OPTIONS outside any dialog. `routes` are Route values.
    pub(super) fn options(
        &mut self,
        uri: &str,
        to: &str,
        routes: &[Box<str>],
        flow: Flow,
    ) -> (Bytes, String) {
        let config = &self.shared.config;
        let local = SocketAddr::new(advertised_ip(config, self.learned, flow), flow.local.port());
        let (branch, tag) = (self.mint.branch(), self.mint.tag());
        let token = flow.transport.token();
        let mut builder = Builder::request(Method::Options.as_str(), uri);
        builder
            .header(HeaderName::Via, format_args!("SIP/2.0/{token} {local};rport;branch={branch}"));
        for route in routes {
            builder.header(HeaderName::Route, route);
        }
        builder
            .header(HeaderName::MaxForwards, config.sip.max_forwards)
            .header(HeaderName::From, format_args!("<sip:tandem@{local}>;tag={tag}"))
            .header(HeaderName::To, format_args!("<{to}>"))
            .header(HeaderName::CallId, self.mint.call_id())
            .header(HeaderName::CSeq, "1 OPTIONS")
            .header(HeaderName::Contact, contact(config, self.learned, flow, "tandem"))
            .header(HeaderName::Accept, "application/sdp")
            .header(HeaderName::UserAgent, &config.sip.user_agent);
        (builder.finish(), branch)
    }
}
