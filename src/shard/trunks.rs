//! Keeping an eye on trunks and phones: OPTIONS out, verdicts in.
//!
//! Owns: which OPTIONS is whose.
//! Never: judges; the trunk's health machine does.

use super::{Core, Shard};
use crate::{
    call::{Owner, advertised_ip, contact},
    config::{PublicIp, Trunk},
    dialog::is_global,
    ids::Flow,
    sip::{Builder, HeaderName, Message, Method},
    transaction::ClientId,
    trunk::{
        Configured,
        health::{Effect, Input},
    },
};
use bytes::Bytes;
use std::{net::SocketAddr, time::Instant};

/// An OPTIONS on its way to a trunk.
#[derive(Debug)]
pub(super) struct Probe {
    trunk: Box<str>,
    number: u64,
}

impl Shard {
    /// Takes the configuration's trunks; new ones are asked for at once.
    pub(super) fn configure_trunks(&mut self, now: Instant) {
        let config = self.core.shared.config.clone();
        let targets: Vec<String> = config.trunks.values().map(|trunk| target(trunk)).collect();
        let trunks = config.trunks.iter().zip(&targets).map(|((name, trunk), target)| Configured {
            name,
            pace: trunk.qualify,
            target,
        });
        for (name, effects) in self.core.trunks.configure(trunks, now) {
            self.carry_out(&name, &effects, now);
        }
    }

    /// Resolves and probes whatever is due.
    pub(super) fn fire_trunks(&mut self, now: Instant) {
        let due = self.core.trunks.due(now);
        for name in due.resolve {
            self.ask_trunk_address(&name);
        }
        for (name, effects) in due.effects {
            self.carry_out(&name, &effects, now);
        }
    }

    fn carry_out(&mut self, trunk: &str, effects: &[Effect], now: Instant) {
        for effect in effects {
            match effect {
                Effect::Probe(number) => self.probe(trunk, *number, now),
                Effect::GiveUp(number) => self.give_up_probe(trunk, *number),
                Effect::Changed { from, to } => {
                    let _entered = crate::observe::log::trunk_span(trunk).entered();
                    tracing::info!(from = %from, to = %to, "trunk state changed");
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

    /// Sends OPTIONS to the trunk's termination URI.
    fn probe(&mut self, name: &str, number: u64, now: Instant) {
        let config = self.core.shared.config.clone();
        let flow = self.core.trunks.state(name).and_then(|state| state.flow());
        let (Some(trunk), Some(flow)) = (config.trunks.get(name), flow) else { return };
        let Some(uri) = trunk.uris.first() else { return };
        let uri = format!("sip:{}", uri.host);
        let (bytes, branch) = self.core.options(&uri, &uri, &[], flow);
        let tx =
            self.core.tx.request(bytes, &branch, Method::Options, flow, now, &mut self.core.sent);
        self.probes.insert(tx, Probe { trunk: name.into(), number });
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
        if let Some(Probe { trunk, number }) = self.probes.remove(&tx) {
            self.core.learn_address(&trunk, response, flow);
            let input = Input::ProbeAnswered { probe: number, status: response.status() };
            self.observe_trunk(&trunk, input, now);
        }
    }

    pub(super) fn probe_failed(&mut self, tx: ClientId, now: Instant) {
        if let Some(Probe { trunk, number }) = self.probes.remove(&tx) {
            self.observe_trunk(&trunk, Input::ProbeFailed { probe: number }, now);
        }
    }

    /// What a call's requests meet tells of its trunk as well as an OPTIONS does.
    pub(super) fn observe_call(&mut self, owner: Owner, input: Input, now: Instant) {
        if let Some(trunk) = self.trunk_of(owner) {
            self.observe_trunk(&trunk, input, now);
        }
    }

    /// A call's response shows how its trunk sees us.
    pub(super) fn learn_from_call(&mut self, owner: Owner, response: &Message, flow: Flow) {
        if let Some(trunk) = self.trunk_of(owner) {
            self.core.learn_address(&trunk, response, flow);
        }
    }

    fn trunk_of(&self, owner: Owner) -> Option<Box<str>> {
        let leg = self.calls.get(&owner.call)?.leg(owner.leg)?;
        Some(leg.profile.as_trunk()?.name.clone())
    }

    fn observe_trunk(&mut self, trunk: &str, input: Input, now: Instant) {
        let mut out = vec![];
        self.core.trunks.observe(trunk, input, now, &mut out);
        self.carry_out(trunk, &out, now);
    }
}

/// Writes down what decides about a trunk's addresses.
fn target(trunk: &Trunk) -> String {
    let Trunk { uris, address, transport, .. } = trunk;
    format!("{transport:?} {address:?} {uris:?}")
}

impl Core {
    /// Learns from a trunk's own response under which public address it sees us (RFC 3261 18.2.1,
    /// RFC 3581 4), where ours is private. Who else may say so could draw our media to itself.
    fn learn_address(&mut self, trunk: &str, response: &Message, flow: Flow) {
        let Some(state) = self.trunks.state_mut(trunk) else { return };
        let is_its = state.flows().iter().any(|known| known.remote.ip() == flow.remote.ip());
        let seen = response.via().received().map(|ip| ip.to_canonical()).filter(|ip| {
            is_its
                && is_global(*ip)
                && !is_global(flow.local.ip())
                && ip.is_ipv4() == flow.local.is_ipv4()
        });
        let Some(seen) = seen else { return };
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
