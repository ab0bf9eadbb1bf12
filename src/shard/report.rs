//! What an operator may ask of a shard.
//!
//! Owns: the views of calls and trunks; counters at a scrape.
//! Never: changes anything.

use super::Shard;
use crate::{
    call::{Call, Leg, Phase, Stage},
    ids::{CallId, Flow},
    observe::{
        cdr::UtcMs,
        ladder::Rungs,
        metrics,
        status::{self, AddressRow, CallDetail, CallSummary, LegRow, TrunkRow, TrunkState},
    },
    transaction,
    trunk::{
        health,
        routes::{Address, AddressState, Edge, Routes},
    },
};
use std::time::Instant;

impl Shard {
    /// Lists the running calls.
    pub fn calls(&self, now: Instant) -> Vec<CallSummary> {
        self.calls.values().map(|call| summary(call, now)).collect()
    }

    /// Tells everything about one running call.
    pub fn call(&self, id: CallId, now: Instant) -> Option<CallDetail> {
        let call = self.calls.get(&id)?;
        let cdr = call.draft().cdr();
        let why = cdr.ending.why.iter().map(ToString::to_string);
        let rule = cdr.route.rule.iter().map(|rule| format!("rule {rule}"));
        Some(CallDetail {
            summary: summary(call, now),
            dialled: cdr.route.dialled.clone(),
            caller_id: cdr.route.caller_id.clone(),
            legs: call.legs().map(leg_row).collect(),
            is_transcoded: cdr.media.is_transcoded,
            why: rule.chain(why).collect(),
        })
    }

    /// Returns the messages of a running call.
    pub fn ladder(&self, id: CallId) -> Option<Rungs> {
        self.core.ladders.of(id)
    }

    /// Counts the running calls that each user takes part in.
    pub fn calls_of(&self, user: &str) -> u64 {
        let is_of = |call: &&Call| {
            call.legs().any(|leg| leg.profile.as_phone().is_some_and(|phone| *phone.name == *user))
        };
        self.calls.values().map(Box::as_ref).filter(is_of).count() as u64
    }

    /// Lists the trunks.
    pub fn trunks(&self, now: Instant) -> Vec<TrunkRow> {
        self.core.trunks.iter().map(|(name, state)| self.trunk_row(name, state, now)).collect()
    }

    fn trunk_row(&self, name: &str, state: &crate::trunk::TrunkState, now: Instant) -> TrunkRow {
        let trunk = self.core.shared.config.trunks.get(name);
        let machine = state.machine();
        let since = now.saturating_duration_since(machine.since());
        TrunkRow {
            name: name.to_owned(),
            state: match (trunk.is_some_and(|t| t.qualify.is_some()), state.health()) {
                (false, _) => TrunkState::Unmonitored,
                (true, health::State::Up) => TrunkState::Up,
                (true, health::State::Suspect) => TrunkState::Suspect,
                (true, health::State::Down) => TrunkState::Down,
            },
            since: self.core.wall(now).checked_sub(since).map(UtcMs::from),
            target: target(state.routes()),
            rtt_ms: machine.rtt().map(|rtt| rtt.as_secs_f64() * 1000.0),
            calls: self.core.trunks.calls(name).into(),
            calls_max: trunk.and_then(|trunk| trunk.max_calls).map(u64::from),
            waiting: self.core.watch.waiting(name) as u64,
            seen_as: state.seen_as,
            last_refusal: state.last_refusal.clone(),
            addresses: state.routes().known().map(|known| address_row(known, now)).collect(),
        }
    }

    /// Returns the counters, with the gauges of this moment.
    pub fn counters(&mut self) -> metrics::Shard {
        let (mut ringing, mut talking) = (0, 0);
        for call in self.calls.values() {
            match phase(call) {
                status::Phase::Ringing => ringing += 1,
                status::Phase::Talking | status::Phase::Held | status::Phase::Announcing => {
                    talking += 1
                }
                status::Phase::Releasing => {}
            }
        }
        let mut counters = self.counters.clone();
        counters.talking = talking;
        counters.ringing = ringing;
        counters.banned = self.banned() as u64;
        counters.kept = metrics::Kept {
            transactions: self.core.tx.len() as u64,
            dialogs: self.core.names.dialogs() as u64,
            timers: self.timers.len().saturating_add(self.core.tx.timers()) as u64,
        };
        counters.retransmissions = self.core.tx.retransmissions();
        self.overload.count_into(&mut counters);
        let discards = self.core.tx.discards();
        for discard in transaction::Discard::ALL {
            counters.discards.add(discard.name(), discards.of(discard));
        }
        counters
    }
}

/// Returns the edge of the best address and how many there are: `acme.pstn.twilio.com (udp:192.0.2.1:5060
/// and 3 more)`.
fn target(routes: &Routes) -> String {
    let live = routes.known().find(|(.., address)| address.state == AddressState::Live);
    let Some((edge, flow, _)) = live.or_else(|| routes.known().next()) else {
        let host = routes.edges().first().map_or("", |edge| &*edge.host);
        return format!("{host} (no address)");
    };
    let more = match routes.known().count() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n.saturating_sub(1)),
    };
    format!("{} ({flow}{more})", edge.host)
}

fn address_row((edge, flow, address): (&Edge, Flow, &Address), now: Instant) -> AddressRow {
    AddressRow {
        host: edge.authority().into_owned(),
        address: flow.to_string(),
        state: address.state.word().to_owned(),
        state_s: now.saturating_duration_since(address.since).as_secs(),
        rtt_ms: address.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        last_refusal: address.last_refusal.as_ref().map(ToString::to_string),
    }
}

fn summary(call: &Call, now: Instant) -> CallSummary {
    let cdr = call.draft().cdr();
    let lasted_ms = now.saturating_duration_since(call.draft().started()).as_millis() as u64;
    let delay_ms = cdr.times.answer_delay_ms().unwrap_or(0);
    CallSummary {
        call: call.id(),
        phase: phase(call),
        direction: cdr.direction,
        from: cdr.caller.number.clone(),
        to: cdr.callee.number.clone(),
        rule: cdr.route.rule.clone(),
        trunk: cdr.route.trunk.clone(),
        start: cdr.times.start,
        duration_s: lasted_ms.saturating_sub(delay_ms) / 1000,
    }
}

fn phase(call: &Call) -> status::Phase {
    let is_answered = call.draft().cdr().times.answer.is_some();
    match (call.phase(), is_answered) {
        (Phase::Running, false) => status::Phase::Ringing,
        (Phase::Running, true) => status::Phase::Announcing,
        (Phase::Talking, _) if call.legs().any(|leg| leg.media.is_held()) => status::Phase::Held,
        (Phase::Talking, _) => status::Phase::Talking,
        (Phase::Releasing | Phase::Over, _) => status::Phase::Releasing,
    }
}

fn leg_row(leg: &Leg) -> LegRow {
    let agreed = leg.media.agreed();
    LegRow {
        leg: leg.id().to_string(),
        name: (&*leg.name).into(),
        sip_call_id: leg.sip_call_id().to_owned(),
        flow: leg.flow().map_or_else(String::new, |flow| flow.to_string()),
        state: match leg.stage() {
            Stage::Opening => "opening",
            Stage::Ringing => "ringing",
            Stage::Unacknowledged => "answered",
            Stage::Up => "up",
            Stage::Leaving => "leaving",
            Stage::Gone => "gone",
        }
        .to_owned(),
        codec: agreed.map(|agreed| agreed.format.codec.name().to_owned()),
        srtp: agreed
            .and_then(|agreed| agreed.srtp.as_ref())
            .map(|srtp| srtp.send.suite.name().to_owned()),
        rtp_port: leg.media.open_port(),
        rtp_remote: agreed.map(|agreed| agreed.remote.to_string()),
    }
}
