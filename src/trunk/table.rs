//! The trunks of one shard: how each is, where it is, how many calls it carries.
//!
//! Owns: each trunk's health machine, addresses and count of calls.
//! Never: sends an OPTIONS itself; it says when one is due.

use super::health::{Effect, Health, Input, Pace, State};
use crate::{ids::Flow, observe::cdr::Explanation};
use std::{
    collections::BTreeMap,
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
    /// Calls that we placed through it and that still run.
    pub calls: u32,
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
}

impl Trunks {
    /// Takes the trunks of a configuration: new ones start, old ones keep their state, others go.
    pub fn configure<'t>(
        &mut self,
        trunks: impl Iterator<Item = (&'t str, Option<Pace>)>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.states);
        for (name, pace) in trunks {
            let mut state = before.remove(name).unwrap_or_else(|| TrunkState {
                health: Health::new(pace, now),
                flows: vec![],
                ask_at: Some(now),
                calls: 0,
                last_refusal: None,
            });
            state.health.set_pace(pace, now);
            self.states.insert(name.into(), state);
        }
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
