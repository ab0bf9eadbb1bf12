//! What the configuration makes of one call by one trunk: whom it shows, and whether it may leave.
//!
//! Owns: the order in which caller IDs are looked for, and which guards see a call before it leaves.
//! Never: counts calls; what depends on other calls is the shard's.

use super::checked::{Config, Trunk};
use crate::{
    dialplan::{Country, Dial, E164, LocalTime, Target},
    guard::{Account, Destination, OutOfHours, Refusal},
};

/// A call that may leave by a trunk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outbound {
    /// The numbers to call from, best first; at least one.
    pub caller_ids: Vec<E164>,
    /// Where it goes.
    pub destination: Destination,
    /// Whether nothing may stop it.
    pub is_emergency: bool,
    /// Whether the rule or the user wants the caller not to be shown.
    pub is_anonymous: bool,
}

impl Trunk {
    /// Returns the numbers that are tried where the carrier refuses the first: the rest of the trunk's
    /// list, as far as the guards let it. A number that a user or a rule insists on is not replaced,
    /// except to get a call for help through.
    pub fn spare_ids(&self, outbound: &Outbound) -> Vec<E164> {
        let first = outbound.caller_ids.first();
        let mut own = self.caller_id.iter().chain(&self.routing.caller_ids);
        let mut spare: Vec<E164> = vec![];
        if outbound.is_emergency || own.any(|own| Some(own) == first) {
            for id in outbound.caller_ids.iter().skip(1) {
                if Some(id) != first && !spare.contains(id) {
                    spare.push(id.clone());
                }
            }
        }
        spare
    }
}

impl Config {
    /// Returns how `from` calls `target`, or why not. `None` towards anything but a trunk.
    pub fn outbound(
        &self,
        from: &str,
        dial: &Dial,
        target: &Target,
    ) -> Option<Result<Outbound, Refusal>> {
        match target {
            Target::Trunk { trunk, number, .. } => {
                let trunk = self.trunks.get(trunk)?;
                let destination = Destination::read(number, self.node.country);
                let country = destination.country;
                if self.emergency.is(number) {
                    return Some(self.emergency_call(from, dial, target, destination));
                }
                let user = self.users.get(from);
                let allows = [
                    dial.limits.allow.as_ref(),
                    user.and_then(|user| user.guard.allow.as_ref()),
                    trunk.guard.allow.as_ref(),
                ];
                let allows: Vec<_> = allows.into_iter().flatten().collect();
                let checked = destination.check(number, self.node.country, &allows);
                let ids = self.caller_ids(from, dial, target, country);
                let chosen = checked.and_then(|()| trunk.guard.callers.choose(ids, country));
                Some(chosen.map(|ids| Outbound {
                    caller_ids: ids.into_iter().cloned().collect(),
                    destination,
                    is_emergency: false,
                    is_anonymous: self.is_anonymous(from, dial),
                }))
            }
            Target::User(_) | Target::Uri(_) => None,
        }
    }

    /// A call for help shows who calls, in any case: with a number of the trunk's if there is one.
    fn emergency_call(
        &self,
        from: &str,
        dial: &Dial,
        target: &Target,
        destination: Destination,
    ) -> Result<Outbound, Refusal> {
        let user = self.users.get(from);
        let dids = user.into_iter().flat_map(|user| &user.did);
        let ids = || {
            let usual = self.caller_ids(from, dial, target, None);
            self.emergency.caller_id.iter().chain(usual).chain(dids.clone())
        };
        let callers = match target {
            Target::Trunk { trunk, .. } => self.trunks.get(trunk).map(|t| &t.guard.callers),
            Target::User(_) | Target::Uri(_) => None,
        };
        let owned = callers.map(|callers| callers.choose(ids(), None));
        let caller_ids = match owned {
            Some(Ok(owned)) => owned.into_iter().cloned().collect(),
            // Not the carrier's number, but better than no call.
            Some(Err(_)) | None => ids().take(1).cloned().collect::<Vec<_>>(),
        };
        if caller_ids.is_empty() {
            return Err(Refusal::NoCallerId);
        }
        Ok(Outbound { caller_ids, destination, is_emergency: true, is_anonymous: false })
    }

    /// Returns the numbers under which `from` may want to call `target`: the target's, the rule's,
    /// the user's for that country, the user's, the trunk's for that country, the trunk's list.
    fn caller_ids<'a>(
        &'a self,
        from: &str,
        dial: &'a Dial,
        target: &'a Target,
        country: Option<Country>,
    ) -> impl Iterator<Item = &'a E164> + Clone {
        let (own, trunk) = match target {
            Target::Trunk { trunk, caller_id, .. } => (caller_id.as_ref(), self.trunks.get(trunk)),
            Target::User(_) | Target::Uri(_) => (None, None),
        };
        let user = self.users.get(from);
        let users = user.and_then(|user| user.guard.caller_ids.get(&country?));
        let trunks = trunk.and_then(|trunk| trunk.guard.callers.by_country.get(&country?));
        [
            own,
            dial.caller_id.as_ref(),
            users,
            user.and_then(|user| user.caller_id.as_ref()),
            trunks,
            trunk.and_then(|trunk| trunk.caller_id.as_ref()),
        ]
        .into_iter()
        .flatten()
        .chain(trunk.into_iter().flat_map(|trunk| &trunk.routing.caller_ids))
    }

    fn is_anonymous(&self, from: &str, dial: &Dial) -> bool {
        dial.limits.anonymous || self.users.get(from).is_some_and(|user| user.guard.anonymous)
    }

    /// Returns what the guards say against the targets of a dial.
    pub fn objections(&self, from: &str, dial: &Dial, at: LocalTime) -> Vec<(Target, Refusal)> {
        let targets = dial.groups.iter().flatten();
        let refused = targets
            .filter_map(|target| Some((target.clone(), self.objection(from, dial, target, at)?)));
        refused.collect()
    }

    /// Returns why a call does not leave, as far as the files say.
    pub fn objection(
        &self,
        from: &str,
        dial: &Dial,
        target: &Target,
        at: LocalTime,
    ) -> Option<Refusal> {
        let Target::Trunk { trunk, .. } = target else { return None };
        let outbound = match self.outbound(from, dial, target)? {
            Ok(outbound) => outbound,
            Err(refusal) => return Some(refusal),
        };
        self.out_of_hours(from, trunk, at)
            .filter(|(_, otherwise)| !outbound.is_emergency && *otherwise == OutOfHours::Refuse)
            .map(|(refusal, _)| refusal)
    }

    /// Returns whose hours do not include this moment, and what then holds.
    pub fn out_of_hours(
        &self,
        from: &str,
        trunk: &str,
        at: LocalTime,
    ) -> Option<(Refusal, OutOfHours)> {
        let users = self.users.get(from).and_then(|user| user.guard.opening.as_ref());
        let carriers = self.trunks.get(trunk).and_then(|found| found.guard.opening.as_ref());
        let users = users.map(|opening| (Account::User(from.into()), opening));
        let carriers = carriers.map(|opening| (Account::Trunk(trunk.into()), opening));
        let closed = users.into_iter().chain(carriers).filter_map(|(whose, opening)| {
            let is_open = self.dialplan.hours.get(&opening.hours)?.is_open(at);
            let refusal = Refusal::OutOfHours { whose, hours: opening.hours.clone() };
            (!is_open).then_some((refusal, opening.otherwise))
        });
        // Who refuses comes before who only warns.
        closed.min_by_key(|(_, otherwise)| *otherwise == OutOfHours::Alarm)
    }
}
