//! The leg towards a carrier: which edge, address and number it takes, and the next when that fails.
//!
//! Every attempt is a leg of its own, with its own Call-ID, tag and media port. What comes late from one
//! that was abandoned belongs to that leg: it is acknowledged and hung up, and nobody hears of it.
//!
//! Owns: what a call has tried so far at one trunk.
//! Never: judges an address; the trunk's routes do.

use super::{
    Call, Leg, Phase, headers,
    leg::{By, Origin, Refused, Stage},
    outgoing::InviteSpec,
    profile::Profile,
    wire::Wire,
};
use crate::{
    config::{Config, Outbound, Retry, RetryNext, RetryOn, Trunk},
    dialplan::E164,
    guard,
    ids::{Entropy, Flow, LegId},
    observe::mask::Text,
    transaction::timer::T1_X64,
    trunk::{
        Evidence, TrunkState, health,
        health::Input,
        refusal::Refusal,
        routes::{Edge, Hop, Tried},
    },
};
use std::{collections::VecDeque, sync::Arc, time::Instant};

/// What an abandoned attempt is told (RFC 3326), should it ever say something.
const UNHEARD: &str = "SIP;cause=408;text=\"No response\"";

/// A number on its way through a trunk's edges and addresses.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Who is called.
    number: Box<str>,
    /// Who calls, as this attempt says.
    caller_id: E164,
    /// Whom else the trunk may name, should the carrier refuse that.
    spare_ids: VecDeque<E164>,
    /// Whether the caller is not to be shown.
    is_private: bool,
    /// Whether no limit holds.
    is_emergency: bool,
    /// The edge it goes by.
    edge: Arc<Edge>,
    /// The address it goes to; `None` while none is known.
    flow: Option<Flow>,
    tried: Tried,
    /// When the first attempt began.
    since: Instant,
    attempts: u32,
}

impl Way {
    /// Returns what the INVITE of this attempt says.
    fn spec(&self, trunk: &Trunk, config: &Config) -> InviteSpec {
        let caller = (&self.caller_id, self.is_private);
        let max_forwards = config.sip.max_forwards.into();
        headers::to_trunk(trunk, &self.edge, &self.number, caller, max_forwards)
    }

    /// Returns how the carrier is spoken to in this attempt.
    fn profile(&self, trunk: &Arc<Trunk>) -> Profile {
        Profile { calls_max: self.calls_max(trunk), ..Profile::trunk(trunk) }
    }

    /// Returns how many calls the carrier may have with this one, if that is limited.
    fn calls_max(&self, trunk: &Trunk) -> Option<u32> {
        trunk.max_calls.filter(|_| !self.is_emergency)
    }

    /// Chooses the next edge and address; returns whether there is any.
    fn take_route(&mut self, state: &mut TrunkState, now: Instant, entropy: &mut Entropy) -> bool {
        let hop = state.take_route(&self.tried, now, entropy);
        self.flow = hop.as_ref().map(|hop| hop.flow);
        if let Some(hop) = hop {
            self.edge = hop.edge;
        }
        self.flow.is_some()
    }

    /// Returns what may be tried after this refusal.
    fn after(&self, refused: &Refused, refusal: &Refusal, trunk: &Trunk) -> Option<Self> {
        let Retry { on, next } = &trunk.routing.retry;
        let (edge, flow) = (&self.edge, self.flow?);
        let mut way = self.clone();
        match refused.by {
            By::Us => return None,
            By::Silence | By::Transport => {
                if !on.contains(&RetryOn::Timeout) {
                    return None;
                }
                way.tried.addresses.insert(flow.remote);
                if !next.contains(&RetryNext::Uri) {
                    let others = trunk.uris.iter().map(|uri| uri.host.clone());
                    way.tried.edges.extend(others.filter(|host| *host != edge.host));
                }
            }
            By::Peer => {
                let is_number = matches!(refusal, Refusal::CallerIdNotOurs { .. });
                if is_number
                    && next.contains(&RetryNext::CallerId)
                    && let Some(number) = way.spare_ids.pop_front()
                {
                    way.caller_id = number;
                    return Some(way);
                }
                if !trunk.routing.retry.is_on(refused.status) || !next.contains(&RetryNext::Uri) {
                    return None;
                }
                way.tried.edges.insert(edge.host.clone());
            }
        }
        Some(way)
    }
}

impl Call {
    /// Makes the first leg of a number that goes through a trunk.
    pub(super) fn leg_of_trunk(
        &mut self,
        name: &str,
        number: &str,
        outbound: &Outbound,
        wire: &mut Wire<'_>,
    ) -> Result<Leg, Refused> {
        let Some(trunk) = self.config.trunks.get(name).cloned() else {
            return Err(Refused::ours(By::Us, 404, "No Such Trunk"));
        };
        let Some(caller_id) = outbound.caller_ids.first().cloned() else {
            return Err(Refused::guarded(guard::Refusal::NoCallerId));
        };
        let Outbound { is_emergency, is_anonymous, .. } = *outbound;
        let Some(state) = wire.trunks.state_mut(name) else {
            return Err(Refused::ours(By::Us, 503, "Trunk Removed"));
        };
        if state.health() == health::State::Down && !is_emergency {
            return Err(Refused::ours(By::Us, 503, "Trunk Down"));
        }
        // Until a way is chosen, and where none can be.
        let edge = state.routes().edges().first().cloned();
        let edge = edge.or_else(|| trunk.edges().into_iter().next().map(Arc::new));
        let edge = edge.ok_or_else(|| Refused::ours(By::Us, 503, "Trunk Without URI"))?;
        let mut way = Way {
            number: number.into(),
            spare_ids: trunk.spare_ids(outbound).into(),
            caller_id,
            is_private: (self.identity.is_private || is_anonymous) && !is_emergency,
            is_emergency,
            edge,
            flow: None,
            tried: Tried::default(),
            since: wire.now,
            attempts: 1,
        };
        if wire.trunks.is_full(name, way.calls_max(&trunk)) {
            return Err(Refused::trunk_full());
        }
        if let Some(state) = wire.trunks.state_mut(name) {
            way.take_route(state, wire.now, wire.entropy);
        }
        Ok(self.leg_on(&trunk, way, wire))
    }

    /// Makes the leg of one attempt. Without an address it waits for one.
    fn leg_on(&mut self, trunk: &Arc<Trunk>, way: Way, wire: &mut Wire<'_>) -> Leg {
        let flow = way.flow;
        self.draft.trunk(&trunk.name, way.caller_id.expose(), &way.number);
        let spec = way.spec(trunk, &self.config);
        let profile = way.profile(trunk);
        let calls_max = profile.calls_max;
        let mut leg = self.new_leg((&*trunk.name).into(), profile, spec, flow, wire);
        // Whoever asks next must know of it, though it has not gone out yet.
        let is_claimed = wire.trunks.claim(&trunk.name, leg.id(), calls_max);
        debug_assert!(is_claimed, "there was room");
        if flow.is_none()
            && let Some(state) = wire.trunks.state_mut(&trunk.name)
        {
            state.wait_for_route(leg.owner.call, leg.owner.leg, wire.now);
        }
        leg.set_way(way);
        leg
    }

    /// DNS has answered a trunk's question, for which this leg has waited.
    pub fn on_route(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        let Some(found) = self.legs.get_mut(&leg).filter(|l| l.stage() == Stage::Opening) else {
            return;
        };
        let (Some(trunk), Some(mut way)) =
            (found.profile.as_trunk().cloned(), found.way().cloned())
        else {
            return;
        };
        if let Some(state) = wire.trunks.state_mut(&trunk.name) {
            way.take_route(state, wire.now, wire.entropy);
        }
        let Some(flow) = way.flow else {
            return self.drop_opening(leg, Refused::ours(By::Us, 503, "Host Not Found"), wire);
        };
        let spec = way.spec(&trunk, &self.config);
        found.set_spec(spec);
        found.set_way(way);
        found.set_flow(flow, wire);
        self.open_media(leg, wire);
    }

    /// An INVITE to a carrier goes out: it is a line of the record.
    pub(super) fn note_attempt(&mut self, leg: LegId, wire: &Wire<'_>) {
        let Some(found) = self.legs.get(&leg) else { return };
        if let (Some(trunk), Some(way)) = (found.profile.as_trunk(), found.way())
            && let Some(flow) = way.flow
        {
            let to = (leg, &*trunk.name, &Hop { edge: way.edge.clone(), flow });
            self.draft.attempt_began(to, way.caller_id.expose(), wire);
        }
    }

    /// Nobody has answered a trunk's INVITE for as long as its `failover` says.
    pub(super) fn unheard(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        let Some(found) = self.legs.get(&leg) else { return };
        let (name, at) = (found.name.clone(), found.flow().map(|flow| flow.remote));
        let input = Input::CallUnanswered;
        let evidence = Evidence { input, at, rtt: None, why: "no answer to INVITE" };
        wire.trunks.observe(&name, evidence, wire.now);
        let refused = Refused::ours(By::Silence, 408, "Request Timeout");
        if self.retry(leg, &refused, wire) {
            return;
        }
        let has_failed_over =
            self.legs.get(&leg).and_then(|leg| leg.way()).is_some_and(|w| w.attempts > 1);
        if has_failed_over || self.has_alternative() {
            self.refused(leg, refused, wire);
            self.give_up_attempt(leg, wire);
        }
        // Else there is nothing better than to wait on until timer B (RFC 3261 17.1.1.2).
    }

    /// Cancels an attempt as soon as that is allowed (RFC 3261 9.1), and gives its port back now.
    fn give_up_attempt(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        if let Some(command) = self.legs.get_mut(&leg).and_then(|found| found.media.close(leg)) {
            wire.media(self.id, command);
        }
        self.with_leg(leg, wire, |leg, wire, out| leg.end(480, Some(UNHEARD), wire, out));
    }

    /// Tries another way instead of a trunk's leg that has failed; returns whether there is one.
    pub(super) fn retry(&mut self, leg: LegId, refused: &Refused, wire: &mut Wire<'_>) -> bool {
        let is_ringing = self.program.hunt().is_some_and(|hunt| hunt.has(leg));
        let Some(found) = self.legs.get(&leg).filter(|_| is_ringing) else { return false };
        let (Some(trunk), Some(way)) = (found.profile.as_trunk().cloned(), found.way()) else {
            return false;
        };
        let refusal = self.draft.refusal(found, refused);
        let Some(mut way) = way.after(refused, &refusal, &trunk) else { return false };
        if self.phase != Phase::Running || wire.now >= way.since + T1_X64 {
            return false;
        }
        let Some(state) = wire.trunks.state_mut(&trunk.name) else { return false };
        if !way.take_route(state, wire.now, wire.entropy) {
            return false;
        }
        way.attempts = way.attempts.saturating_add(1);
        self.draft.attempt_refused(leg, refused, wire);
        if let Some(found) = self.legs.get(&leg) {
            self.tell_trunk(found, refused, wire);
        }
        tracing::info!(
            why = %refusal,
            next = way.flow.map(|flow| flow.to_string()),
            "trunk failover"
        );
        // The same call, which takes one place.
        wire.trunks.release(&trunk.name, leg);
        let next = self.leg_on(&trunk, way, wire);
        wire.watch.pass_on(leg, next.id());
        // The carrier counts it as another.
        wire.watch.count(&trunk.name, wire.now);
        self.replace(leg, next, wire);
        if refused.by == By::Silence {
            self.give_up_attempt(leg, wire);
        }
        true
    }

    /// Notes at the trunk why it refused a call: for who asks after the trunk.
    pub(super) fn tell_trunk(&self, leg: &Leg, refused: &Refused, wire: &mut Wire<'_>) {
        let Some(trunk) = leg.profile.as_trunk() else { return };
        let Some(state) = wire.trunks.state_mut(&trunk.name) else { return };
        state.last_refusal = Some(self.draft.explained(leg, refused));
        if let (By::Peer, Some(flow)) = (refused.by, leg.flow()) {
            let words = format!("{} {}", refused.status, Text(&refused.reason));
            state.refused_by(flow.remote, &words);
        }
    }

    /// A trunk's leg has ended: there is room for another.
    pub(super) fn release_trunk(&self, leg: &Leg, wire: &mut Wire<'_>) {
        if let Some(trunk) = leg.profile.as_trunk() {
            wire.trunks.release(&trunk.name, leg.id());
            wire.watch.ended(leg.id(), wire.now);
        }
    }
}

impl Leg {
    pub(super) fn way(&self) -> Option<&Way> {
        match &self.origin {
            Origin::Outgoing(outgoing) => outgoing.way.as_deref(),
            Origin::Incoming(_) => None,
        }
    }

    fn set_way(&mut self, way: Way) {
        if let Origin::Outgoing(outgoing) = &mut self.origin {
            outgoing.way = Some(Box::new(way));
        }
    }

    /// Returns the number that no other trunk is asked for after this refusal. A call for help tries
    /// every trunk there is.
    pub(super) fn settles(&self, refused: &Refused) -> Option<&str> {
        let (trunk, way) = (self.profile.as_trunk()?, self.way()?);
        let is_settled = !way.is_emergency && !trunk.routing.retry.leaves_to_others(refused);
        is_settled.then_some(&*way.number)
    }
}

impl Retry {
    /// Returns whether a carrier's refusal of this kind leaves the number to other trunks.
    pub(super) fn leaves_to_others(&self, refused: &Refused) -> bool {
        let is_on = match refused.by {
            By::Us => return true,
            By::Silence | By::Transport => self.on.contains(&RetryOn::Timeout),
            By::Peer => self.is_on(refused.status),
        };
        is_on && self.next.contains(&RetryNext::Trunk)
    }
}
