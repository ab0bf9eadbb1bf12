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
    config::{Outbound, User},
    dialplan::{Dial, Target},
    guard::{Account, Asking, Entry, OutOfHours, Refusal, Turn},
    ids::LegId,
    trunk::health,
};
use std::sync::Arc;

/// A target that waits for its turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub ticket: u64,
    pub target: Target,
    pub dial: Arc<Dial>,
    pub asker: Asker,
}

/// Who asks to leave by a trunk.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    /// Whose call it is: our caller, or the user whose phone redirects it. `None`: nobody of ours.
    user: Option<Arc<User>>,
    /// Whether its turn has come.
    is_at_the_front: bool,
}

impl Asker {
    pub(super) fn new(user: Option<Arc<User>>) -> Self {
        Self { user, is_at_the_front: false }
    }

    fn name(&self) -> &str {
        self.user.as_ref().map_or("", |user| &user.name)
    }
}

/// Counts a leg that leaves by a trunk in the budgets of who asked and of the trunk. Emergency calls
/// cost nothing.
pub(super) fn charge(
    leg: LegId,
    (trunk, asker): (&str, &Asker),
    outbound: &Outbound,
    wire: &mut Wire<'_>,
) {
    if outbound.is_emergency {
        return;
    }
    let country = outbound.destination.country;
    let users = asker.user.iter().map(|user| Account::User(user.name.clone()));
    let accounts: Vec<_> = users.chain([Account::Trunk(trunk.into())]).collect();
    let is_first = wire.watch.charge(leg, accounts, country, wire.now);
    if let Some(country) =
        country.filter(|country| is_first && *country != wire.config.node.country)
    {
        tracing::warn!(user = asker.name(), trunk, %country, "first call to country");
    }
}

impl Call {
    /// Asks the guards how the call leaves by a trunk. The number it shows is the rule's, the user's or
    /// the trunk's, never what the phone says.
    pub(super) fn outbound(
        &mut self,
        (target, dial): (&Target, &Dial),
        asker: &Asker,
        wire: &Wire<'_>,
    ) -> Result<Outbound, Refused> {
        let no_trunk = || Refused::ours(By::Us, 404, "No Such Trunk");
        let Target::Trunk { trunk, .. } = target else { return Err(no_trunk()) };
        let outbound = self.config.outbound(asker.name(), dial, target).ok_or_else(no_trunk)?;
        let checked = outbound.and_then(|outbound| {
            self.check_use(trunk, asker, &outbound, wire)?;
            Ok(outbound)
        });
        checked.map_err(|refusal| self.held_back(trunk, refusal))
    }

    /// Checks what depends on the time and on other calls: hours and budgets.
    fn check_use(
        &self,
        trunk: &str,
        asker: &Asker,
        outbound: &Outbound,
        wire: &Wire<'_>,
    ) -> Result<(), Refusal> {
        if outbound.is_emergency {
            return Ok(());
        }
        let at = self.config.node.timezone.local(wire.wall);
        match self.config.out_of_hours(asker.name(), trunk, at) {
            Some((refusal, OutOfHours::Refuse)) => return Err(refusal),
            Some((refusal, OutOfHours::Alarm)) => {
                tracing::warn!(trunk, why = %refusal, "call out of hours");
            }
            None => {}
        }
        let carrier = self.config.trunks.get(trunk);
        let carrier = carrier.map(|found| (Account::Trunk(trunk.into()), found.guard.budget));
        let user = asker.user.as_ref();
        let user = user.map(|user| (Account::User(user.name.clone()), user.guard.budget));
        let country = outbound.destination.country;
        user.into_iter()
            .chain(carrier)
            .try_for_each(|(whose, budget)| wire.watch.check(&whose, &budget, country, wire.now))
    }

    fn held_back(&mut self, trunk: &str, refusal: Refusal) -> Refused {
        self.draft.guarded(trunk, &refusal);
        Refused::guarded(refusal)
    }

    /// Asks the trunk's gate; returns whether the call may leave now. Otherwise the target waits.
    pub(super) fn pass_gate(
        &mut self,
        (target, dial): (&Target, &Arc<Dial>),
        outbound: &Outbound,
        asker: &Asker,
        wire: &mut Wire<'_>,
    ) -> Result<bool, Refused> {
        let Target::Trunk { trunk, .. } = target else { return Ok(true) };
        let Some(state) = wire.trunks.state(trunk) else { return Ok(true) };
        // Nobody waits for a trunk that is down.
        if asker.is_at_the_front || state.health() == health::State::Down {
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
                    let asker = Asker { is_at_the_front: true, ..asker.clone() };
                    hunt.queued.push(Queued { ticket, target, dial, asker });
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
        let Queued { target, dial, asker, .. } = queued;
        let legs = match (turn.outcome, &target) {
            (Ok(()), _) => self.legs_for(&target, &dial, &asker, wire),
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
