//! The trunks of one shard: how each is, where it is, how many calls it carries.
//!
//! Owns: each trunk's health machine, addresses and count of calls.
//! Never: sends an OPTIONS itself; it says when one is due.

use super::health::{Effect, Health, Input, Pace, State};
use crate::{
    ids::{Flow, LegId},
    observe::cdr::Explanation,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long addresses hold before they are asked for again.
const ADDRESSES_HOLD: Duration = Duration::from_secs(300);
/// How soon to ask again where nothing was found.
const ADDRESSES_RETRY: Duration = Duration::from_secs(10);

/// One trunk, running.
#[derive(Debug)]
pub struct TrunkState {
    health: Health,
    flows: Vec<Flow>,
    ask_at: Option<Instant>,
    /// What its addresses were asked for.
    target: Box<str>,
    /// Under which public address it sees us, where we are behind a NAT.
    pub seen_as: Option<IpAddr>,
    /// Why it refused a call last.
    pub last_refusal: Option<Explanation>,
}

impl TrunkState {
    /// Returns how it is.
    pub fn health(&self) -> State {
        self.health.state()
    }

    /// Returns the whole machine, for `trunks`.
    pub fn machine(&self) -> &Health {
        &self.health
    }

    /// Returns where the next call goes, once an address is known.
    pub fn flow(&self) -> Option<Flow> {
        self.flows.first().copied()
    }

    /// Returns every known address.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }
}

/// What the configuration says of one trunk, as far as this table cares.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'t> {
    /// Its name.
    pub name: &'t str,
    /// How its health is watched, if at all.
    pub pace: Option<Pace>,
    /// Everything that decides about its addresses: another text is another place.
    pub target: &'t str,
}

/// What trunks want now.
#[derive(Debug, Default)]
pub struct Due {
    /// Trunks whose addresses are to be asked for.
    pub resolve: Vec<Box<str>>,
    /// What health machines want, by trunk.
    pub effects: Vec<(Box<str>, Vec<Effect>)>,
}

/// All trunks of a shard.
#[derive(Debug, Default)]
pub struct Trunks {
    states: BTreeMap<Box<str>, TrunkState>,
    /// The legs that are up or being set up through each; they outlive a reload.
    legs: BTreeMap<Box<str>, BTreeSet<LegId>>,
}

impl Trunks {
    /// Takes the trunks of a configuration: new ones start, old ones keep their state, others go. One
    /// that is to be found elsewhere is forgotten there. Returns what health machines want, by trunk.
    pub fn configure<'t>(
        &mut self,
        trunks: impl Iterator<Item = Configured<'t>>,
        now: Instant,
    ) -> Vec<(Box<str>, Vec<Effect>)> {
        let mut before = std::mem::take(&mut self.states);
        let mut effects = vec![];
        for Configured { name, pace, target } in trunks {
            let mut state = before.remove(name).unwrap_or_else(|| TrunkState {
                health: Health::new(pace, now),
                flows: vec![],
                ask_at: Some(now),
                target: target.into(),
                seen_as: None,
                last_refusal: None,
            });
            let mut out = vec![];
            state.health.set_pace(pace, now, &mut out);
            if *state.target != *target {
                state.target = target.into();
                state.flows.clear();
                state.ask_at = Some(now);
                state.health.begin_again(now, &mut out);
            }
            self.states.insert(name.into(), state);
            effects.push((name.into(), out));
        }
        effects
    }

    /// Returns whether a trunk carries as many calls as it may.
    pub fn is_full(&self, name: &str, max: Option<u32>) -> bool {
        max.is_some_and(|max| self.calls(name) >= max)
    }

    /// Counts a leg whose INVITE goes out through a trunk or has come from it, if that makes no more
    /// than `max`. Returns whether it is counted.
    pub fn claim(&mut self, name: &str, leg: LegId, max: Option<u32>) -> bool {
        let is_known = self.legs.get(name).is_some_and(|legs| legs.contains(&leg));
        let counts = is_known || !self.is_full(name, max);
        if counts {
            self.legs.entry(name.into()).or_default().insert(leg);
        }
        counts
    }

    /// Counts a leg no more, if it was counted.
    pub fn release(&mut self, name: &str, leg: LegId) {
        if let Some(legs) = self.legs.get_mut(name) {
            legs.remove(&leg);
            if legs.is_empty() {
                self.legs.remove(name);
            }
        }
    }

    /// Returns how many calls are up or being set up through a trunk, in both directions.
    pub fn calls(&self, name: &str) -> u32 {
        let legs = self.legs.get(name).map_or(0, BTreeSet::len);
        u32::try_from(legs).unwrap_or(u32::MAX)
    }

    /// Returns whether no trunk carries a call.
    pub fn is_quiet(&self) -> bool {
        self.legs.is_empty()
    }

    /// Returns a trunk's state.
    pub fn state(&self, name: &str) -> Option<&TrunkState> {
        self.states.get(name)
    }

    /// Returns a trunk's state, to be changed.
    pub fn state_mut(&mut self, name: &str) -> Option<&mut TrunkState> {
        self.states.get_mut(name)
    }

    /// Returns all of them in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TrunkState)> {
        self.states.iter().map(|(name, state)| (&**name, state))
    }

    /// Takes the addresses that were asked for; what was known before holds where there are none.
    pub fn resolved(&mut self, name: &str, flows: Vec<Flow>, now: Instant) {
        let Some(state) = self.states.get_mut(name) else { return };
        let hold = if flows.is_empty() { ADDRESSES_RETRY } else { ADDRESSES_HOLD };
        state.ask_at = Some(now + hold);
        if !flows.is_empty() {
            state.flows = flows;
        }
    }

    /// Tells a trunk's health machine what happened to its OPTIONS or to a call.
    pub fn observe(&mut self, name: &str, input: Input, now: Instant, out: &mut Vec<Effect>) {
        if let Some(state) = self.states.get_mut(name) {
            state.health.handle(input, now, out);
        }
    }

    /// Returns when [`Self::due`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let each = |state: &TrunkState| {
            let ping = state.health.poll_timeout().filter(|_| !state.flows.is_empty());
            [ping, state.ask_at].into_iter().flatten().min()
        };
        self.states.values().filter_map(each).min()
    }

    /// Returns which trunks must be resolved now, and which health machines want something.
    pub fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        for (name, state) in &mut self.states {
            if state.ask_at.is_some_and(|at| at <= now) {
                // Answered or not: an answer sets the next time.
                state.ask_at = Some(now + ADDRESSES_RETRY);
                due.resolve.push(name.clone());
            }
            if !state.flows.is_empty() && state.health.poll_timeout().is_some_and(|at| at <= now) {
                let mut out = vec![];
                state.health.handle_timeout(now, &mut out);
                due.effects.push((name.clone(), out));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ShardId, Transport};

    #[test]
    fn a_leg_is_counted_once_and_freed_once() {
        let mut trunks = Trunks::default();
        let leg = |n| LegId::new(ShardId(0), n);
        let claims = [(1, true), (1, true), (2, true), (3, false), (2, true)];
        for (n, want) in claims {
            assert_eq!(trunks.claim("t", leg(n), Some(2)), want, "{n}");
        }
        assert_eq!((trunks.calls("t"), trunks.calls("u")), (2, 0));
        assert!(trunks.claim("u", leg(3), None));
        for _ in 0..2 {
            trunks.release("t", leg(1));
            trunks.release("t", leg(3));
            assert_eq!(trunks.calls("t"), 1);
        }
        assert!(!trunks.claim("v", leg(9), Some(0)));
        trunks.release("t", leg(2));
        trunks.release("u", leg(3));
        assert!(trunks.is_quiet());
    }

    /// A reload that names another place asks for it at once; one that changes nothing keeps
    /// everything, calls in any case.
    #[test]
    fn a_reload_that_moves_a_trunk_forgets_where_it_was() {
        let now = crate::sim::epoch();
        let later = now + Duration::from_secs(5);
        let (local, remote) = ("10.0.0.1:5060".parse().unwrap(), "1.2.3.4:5060".parse().unwrap());
        let flow = Flow { transport: Transport::Udp, local, remote };
        let configured = |target| [Configured { name: "t", pace: None, target }].into_iter();
        for (target, want_flows, want_resolve) in [("a", 1, 0), ("b", 0, 1)] {
            let mut trunks = Trunks::default();
            trunks.configure(configured("a"), now);
            assert_eq!(trunks.due(now).resolve.len(), 1);
            trunks.resolved("t", vec![flow], now);
            assert!(trunks.claim("t", LegId::new(ShardId(0), 1), None));
            trunks.configure(configured(target), later);
            let state = trunks.state("t").expect("configured");
            assert_eq!(state.flows().len(), want_flows, "{target}");
            assert_eq!(trunks.due(later).resolve.len(), want_resolve, "{target}");
            assert_eq!(trunks.calls("t"), 1);
        }
    }
}
