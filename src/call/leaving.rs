//! How a call leaves by a trunk: the guards' say, and the queue before the trunk's gate.
//!
//! Owns: which targets of a hunt wait for their turn.
//! Never: counts or paces; the shard's guards do.

use super::{
    Call, Phase,
    leg::{By, Refused},
    wire::Wire,
};
use crate::{
    config::Outbound,
    dialplan::{Dial, Target},
    guard::{Asking, Entry, Refusal, Turn},
    trunk::health,
};

/// A target that waits for its turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub ticket: u64,
    pub target: Target,
    pub dial: Dial,
}

/// Whether a target has been waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// It has not asked yet.
    New,
    /// Its turn has come.
    AtTheFront,
}

impl Call {
    /// Asks the guards how the call leaves by a trunk. The number it shows is the rule's, the user's or
    /// the trunk's, never what the phone says.
    pub(super) fn outbound(&mut self, dial: &Dial, target: &Target) -> Result<Outbound, Refused> {
        let Target::Trunk { trunk, .. } = target else {
            return Err(Refused::ours(By::Us, 404, "No Such Trunk"));
        };
        let from = self.identity.phone.as_ref().map_or("", |user| &*user.name);
        match self.config.outbound(from, dial, target) {
            Some(Ok(outbound)) => Ok(outbound),
            Some(Err(refusal)) => Err(self.held_back(trunk, refusal)),
            None => Err(Refused::ours(By::Us, 404, "No Such Trunk")),
        }
    }

    fn held_back(&mut self, trunk: &str, refusal: Refusal) -> Refused {
        self.draft.guarded(trunk, &refusal);
        Refused::guarded(refusal)
    }

    /// Asks the trunk's gate; returns whether the call may leave now. Otherwise the target waits.
    pub(super) fn pass_gate(
        &mut self,
        (target, dial): (&Target, &Dial),
        outbound: &Outbound,
        place: Place,
        wire: &mut Wire<'_>,
    ) -> Result<bool, Refused> {
        let Target::Trunk { trunk, .. } = target else { return Ok(true) };
        let Some(state) = wire.trunks.state(trunk) else { return Ok(true) };
        // Nobody waits for a trunk that is down.
        if place == Place::AtTheFront || state.health() == health::State::Down {
            return Ok(true);
        }
        if outbound.is_emergency {
            wire.watch.count(trunk, wire.now);
            return Ok(true);
        }
        let running = wire.trunks.calls(trunk);
        let may_wait = self.program.hunt().is_some_and(|hunt| hunt.is_at_last_group());
        let asking = Asking { call: self.id, running, may_wait };
        match wire.watch.enter(trunk, asking, wire.now) {
            Entry::Go => Ok(true),
            Entry::Refused(refusal) => Err(self.held_back(trunk, refusal)),
            Entry::Wait(ticket) => {
                tracing::info!(trunk = &**trunk, "call waits");
                if let Some(hunt) = self.program.hunt() {
                    let (target, dial) = (target.clone(), dial.clone());
                    hunt.queued.push(Queued { ticket, target, dial });
                }
                Ok(false)
            }
        }
    }

    /// The waiting of a target is over: it rings, or is refused.
    pub fn on_turn(&mut self, turn: Turn, wire: &mut Wire<'_>) {
        let Some(hunt) = self.program.hunt() else { return };
        let found = hunt.queued.iter().position(|queued| queued.ticket == turn.ticket);
        let Some(queued) = found.map(|index| hunt.queued.remove(index)) else { return };
        let Queued { target, dial, .. } = queued;
        let legs = match (turn.outcome, &target) {
            (Ok(()), _) => self.legs_for(&target, &dial, Place::AtTheFront, wire),
            (Err(refusal), Target::Trunk { trunk, .. }) => Err(self.held_back(trunk, refusal)),
            (Err(refusal), Target::User(_) | Target::Uri(_)) => Err(Refused::guarded(refusal)),
        };
        match legs {
            Ok(legs) => {
                legs.into_iter().for_each(|leg| self.ring(leg, wire));
                if let Some(hunt) = self.program.hunt() {
                    hunt.ring_from(wire.now);
                }
            }
            Err(refused) => self.target_refused(None, refused, wire),
        }
        self.go_on_if_nobody(wire);
    }

    /// The caller hears ringing while the call waits: 182 says why, and few phones ring at it.
    pub(super) fn tell_queued(&mut self, wire: &mut Wire<'_>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.caller_is_up() {
            return self.ring_back(false, wire);
        }
        if let Some(caller) = self.legs.get_mut(&self.caller) {
            caller.progress(182, None, wire);
            caller.progress(180, None, wire);
        }
    }
}
