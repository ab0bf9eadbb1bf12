//! Whose messages are not looked at, and what leads to that; whose connections stay.
//!
//! Owns: who is above suspicion, and which connection proven; the log's line of a ban; the view of the bans.
//! Never: counts or times anything; `guard` does.
//!
//! Above suspicion are trunks (their ranges, and the addresses that their names have), registered
//! phones, whoever takes part in a call, and `[bans] never`.

use super::Shard;
use crate::{
    call::{Call, Effect, Record},
    guard::{Ban, Offence, is_scanner},
    ids::Flow,
    network::Network,
    observe::status::BanRow,
    sip::{HeaderName, Message, Method},
};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Instant, SystemTime},
};

impl Shard {
    /// Returns whether a message is thrown away unread. Where nobody is banned this is one comparison.
    pub(super) fn is_silenced(&mut self, flow: Flow, now: Instant) -> bool {
        if self.bans.is_empty() {
            return false;
        }
        let ip = flow.remote.ip();
        if !self.bans.holds(ip, self.core.wall(now)) {
            return false;
        }
        // The configuration or a trunk's addresses may have changed since.
        if Network::any(&self.core.shared.config.bans.never, ip) || self.trunk_at(flow).is_some() {
            return false;
        }
        self.bans.dropped(ip);
        self.counters.discards.count("banned");
        true
    }

    /// Returns whether a request comes from a scanner that says so, and holds it against its source.
    pub(super) fn is_scan(&mut self, message: &Message, flow: Flow, now: Instant) -> bool {
        if !message.is_request() || !begins_something(message.method()) {
            return false;
        }
        let Some(agent) = message.header(HeaderName::UserAgent) else { return false };
        let scanners = &self.core.shared.config.bans.scanners;
        if !is_scanner(&agent, scanners) || self.trunk_at(flow).is_some() {
            return false;
        }
        drop(agent);
        self.counters.discards.count("scanner");
        self.strike(Offence::Junk, flow, now);
        true
    }

    /// Holds something against the source of a message.
    pub(super) fn strike(&mut self, offence: Offence, flow: Flow, now: Instant) {
        let wall = self.core.wall(now);
        let ip = flow.remote.ip();
        // Who guesses has answered a nonce that went to this address.
        let is_proven = offence == Offence::Guess || flow.transport.is_reliable();
        let policy = &self.core.shared.config.bans;
        let offence = (offence, is_proven);
        if !self.bans.strike(ip, offence, policy, wall) || self.is_above_suspicion(flow, wall) {
            return;
        }
        let ban = self.bans.ban(ip, offence, policy, wall);
        let (why, seconds) = (ban.why.word(), ban.length().as_secs());
        tracing::warn!(address = %ip, source = %ban.source, why, seconds, "source banned");
        self.counters.bans.count(why);
        self.core.effects.push_back(Effect::Record(Record::Ban(Box::new(ban))));
    }

    fn is_above_suspicion(&self, flow: Flow, wall: SystemTime) -> bool {
        let ip = flow.remote.ip();
        Network::any(&self.core.shared.config.bans.never, ip)
            || self.trunk_at(flow).is_some()
            || self.core.shared.location.is_bound_from(Network::source(ip), wall)
            || self.calls.values().any(|call| has_peer(call, ip))
    }

    /// Returns those of these connections that somebody known uses: a phone that is registered over it, a call, a
    /// trunk.
    pub fn proven(&self, flows: &[Flow]) -> BTreeSet<Flow> {
        let asked: BTreeSet<Flow> = flows.iter().copied().collect();
        let is_known = |flow: &&Flow| {
            self.core.shared.location.has_flow(**flow) || self.trunk_at(**flow).is_some()
        };
        let mut proven: BTreeSet<Flow> = asked.iter().filter(is_known).copied().collect();
        let legs = self.calls.values().flat_map(|call| call.legs());
        let used = legs.filter_map(|leg| leg.flow()).filter(|flow| flow.transport.is_reliable());
        proven.extend(used.filter(|flow| asked.contains(flow)));
        proven
    }

    /// Takes up the bans of before a restart, but for those who are above suspicion by now.
    pub fn take_up_bans(&mut self, bans: Vec<Ban>, now: Instant) {
        let wall = self.core.wall(now);
        for ban in bans {
            let location = &self.core.shared.location;
            if !location.is_bound_from(ban.source, wall) {
                self.bans.take_up(ban, wall);
            }
        }
    }

    /// Lists the bans that hold.
    pub fn bans(&self, now: Instant) -> Vec<BanRow> {
        let wall = self.core.wall(now);
        self.bans.list(wall).map(|(ban, dropped)| row(ban, dropped, wall)).collect()
    }

    /// Counts the bans that have not ended, by the last reading of the clock.
    pub(super) fn banned(&self) -> usize {
        self.bans.left(self.core.clock.last_read())
    }

    /// Ends every ban of these addresses at an operator's wish; returns how many there were.
    pub fn lift(&mut self, network: Network, now: Instant) -> usize {
        let lifted = self.bans.lift(network, self.core.wall(now));
        for source in &lifted {
            tracing::info!(%source, "ban lifted");
        }
        self.core.effects.push_back(Effect::Record(Record::Lift(network)));
        self.settle(now);
        lifted.len()
    }
}

/// What anybody may send who has no dialog with us. Inside one, the tag is proof enough.
fn begins_something(method: Method) -> bool {
    match method {
        Method::Invite
        | Method::Register
        | Method::Options
        | Method::Message
        | Method::Notify
        | Method::Publish
        | Method::Refer
        | Method::Subscribe
        | Method::Other => true,
        Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Info
        | Method::Prack
        | Method::Update => false,
    }
}

fn has_peer(call: &Call, ip: IpAddr) -> bool {
    let source = Network::source(ip);
    call.legs().any(|leg| leg.flow().is_some_and(|flow| source.contains(flow.remote.ip())))
}

fn row(ban: &Ban, dropped: u64, wall: SystemTime) -> BanRow {
    BanRow {
        source: ban.source.to_string(),
        why: ban.why.word().to_owned(),
        since: ban.since.into(),
        until: ban.until.into(),
        left_s: ban.until.duration_since(wall).unwrap_or_default().as_secs(),
        dropped,
    }
}
