//! The trunks of one shard: how each is, where it is, how many calls it carries.
//!
//! Owns: each trunk's health machine, its routes, its count of calls, who waits for its addresses.
//! Never: sends an OPTIONS itself; it says when one is due.

use super::{
    health::{Effect, Health, Input, Pace, State},
    routes::{Edge, Hop, Kept, News, Place, Routes, Tried},
};
use crate::{
    ids::{CallId, Entropy, LegId},
    locate::Located,
    observe::cdr::Explanation,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// One trunk, running.
#[derive(Debug)]
pub struct TrunkState {
    health: Health,
    routes: Routes,
    /// Where the last OPTIONS went.
    probed: Option<SocketAddr>,
    /// Legs that are to be called as soon as an address is known.
    waiting: Vec<(CallId, LegId)>,
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

    /// Returns its edges and addresses.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Chooses the way of a call that has tried these before.
    pub fn take_route(
        &mut self,
        tried: &Tried,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Option<Hop> {
        self.routes.take(tried, now, entropy)
    }

    /// Lets a leg wait for an address; returns whether one may still be found.
    pub fn wait_for_route(&mut self, call: CallId, leg: LegId, now: Instant) -> bool {
        let waits = self.routes.hasten(now);
        if waits {
            self.waiting.push((call, leg));
        }
        waits
    }

    /// Fires what is due of its health: an OPTIONS that nobody answered is its address's failure, and
    /// the trunk's only where no other address is alive.
    fn handle_timeout(&mut self, now: Instant) -> Told {
        let mut told = Told::default();
        let mut is_excused = false;
        if self.health.is_unanswered(now) {
            if let Some(at) = self.probed {
                self.routes.silent(at, "no answer to OPTIONS", now);
            }
            is_excused = self.routes.is_alive();
        }
        self.health.handle_timeout(is_excused, now, &mut told.health);
        told.addresses = self.routes.take_news();
        told
    }

    /// Notes what an address said when it refused a call.
    pub fn refused_by(&mut self, address: SocketAddr, why: &str) {
        self.routes.refused(address, why);
    }
}

/// What comes of something that happened to a trunk.
#[derive(Debug, Default)]
pub struct Told {
    /// What its health machine wants.
    pub health: Vec<Effect>,
    /// Changes of its addresses, to be logged.
    pub addresses: Vec<News>,
}

/// What the configuration says of one trunk, as far as this table cares.
#[derive(Clone, Debug)]
pub struct Configured {
    /// Its name.
    pub name: Box<str>,
    /// How its health is watched, if at all.
    pub pace: Option<Pace>,
    /// Its edges, in the order in which they are tried.
    pub edges: Vec<Edge>,
}

/// What happened at one of a trunk's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// For the trunk's health.
    pub input: Input,
    /// Where, if it was at an address.
    pub at: Option<SocketAddr>,
    /// How long an answer took, where that tells the distance.
    pub rtt: Option<Duration>,
    /// What failed, in a few words.
    pub why: &'a str,
}

/// A leg is counted at a trunk, or no longer: for the other processes of an upgrade.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Count {
    /// The trunk's name.
    pub trunk: Box<str>,
    /// Which.
    pub leg: LegId,
    /// Whether it is counted now.
    pub is_carried: bool,
}

/// All trunks of a shard.
#[derive(Debug, Default)]
pub struct Trunks {
    states: BTreeMap<Box<str>, TrunkState>,
    /// The legs that are up or being set up through each; they outlive a reload.
    legs: BTreeMap<Box<str>, BTreeSet<LegId>>,
    told: Vec<(Box<str>, Told)>,
    /// What the other processes of an upgrade are to be told, if there are any.
    untold: Option<Vec<Count>>,
}

impl Trunks {
    /// Takes the trunks of a configuration: new ones start, old ones keep their state, others go. One
    /// that is to be found elsewhere is forgotten there.
    pub fn configure(&mut self, trunks: impl Iterator<Item = Configured>, now: Instant) {
        let mut before = std::mem::take(&mut self.states);
        for Configured { name, pace, edges } in trunks {
            let mut state = before.remove(&name).unwrap_or_else(|| TrunkState {
                health: Health::new(pace, now),
                routes: Routes::default(),
                probed: None,
                waiting: vec![],
                seen_as: None,
                last_refusal: None,
            });
            let mut told = Told::default();
            state.health.set_pace(pace, now, &mut told.health);
            if state.routes.configure(edges, pace.is_some(), now) == Kept::Nothing {
                state.health.begin_again(now, &mut told.health);
            }
            self.states.insert(name.clone(), state);
            self.told.push((name, told));
        }
    }

    /// Returns whether a trunk carries as many calls as it may.
    pub fn is_full(&self, name: &str, max: Option<u32>) -> bool {
        max.is_some_and(|max| self.calls(name) >= max)
    }

    /// Counts a leg whose INVITE goes out through a trunk or has come from it, if that makes no more
    /// than `max`. Returns whether it is counted.
    pub fn claim(&mut self, name: &str, leg: LegId, max: Option<u32>) -> bool {
        if self.legs.get(name).is_some_and(|legs| legs.contains(&leg)) {
            return true;
        }
        if self.is_full(name, max) {
            return false;
        }
        match self.legs.get_mut(name) {
            Some(legs) => _ = legs.insert(leg),
            None => _ = self.legs.insert(name.into(), BTreeSet::from([leg])),
        }
        self.note(name, leg, true);
        true
    }

    /// Counts a leg no more, if it was counted.
    pub fn release(&mut self, name: &str, leg: LegId) {
        let Some(legs) = self.legs.get_mut(name) else { return };
        let was_counted = legs.remove(&leg);
        if legs.is_empty() {
            self.legs.remove(name);
        }
        if was_counted {
            self.note(name, leg, false);
        }
    }

    /// Begins to keep what others are to be told, or ends.
    pub fn keep_untold(&mut self, is_kept: bool) {
        self.untold = is_kept.then(|| self.untold.take().unwrap_or_default());
    }

    /// Returns what others are to be told.
    pub fn take_untold(&mut self) -> Vec<Count> {
        self.untold.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn note(&mut self, trunk: &str, leg: LegId, is_carried: bool) {
        if let Some(untold) = &mut self.untold {
            untold.push(Count { trunk: trunk.into(), leg, is_carried });
        }
    }

    /// Returns every leg that is counted: what another process must know to go on.
    pub fn counts(&self) -> Vec<Count> {
        let each = self.legs.iter().flat_map(|(trunk, legs)| {
            let count = |leg: &LegId| Count { trunk: trunk.clone(), leg: *leg, is_carried: true };
            legs.iter().map(count)
        });
        each.collect()
    }

    /// Counts what another process has counted.
    pub fn hear(&mut self, count: &Count) {
        // It is known where it comes from.
        let untold = self.untold.take();
        if count.is_carried {
            self.claim(&count.trunk, count.leg, None);
        } else {
            self.release(&count.trunk, count.leg);
        }
        self.untold = untold;
    }

    /// Counts those legs no more that nobody will tell the end of.
    pub fn release_all(&mut self, is_meant: impl Fn(LegId) -> bool) {
        for count in self.counts().into_iter().filter(|count| is_meant(count.leg)) {
            self.release(&count.trunk, count.leg);
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

    /// Takes what DNS said of a place; returns the legs that have waited for it, unless something
    /// better may still come.
    pub fn resolved(
        &mut self,
        name: &str,
        place: &Place,
        located: Located,
        now: Instant,
    ) -> Vec<(CallId, LegId)> {
        let Some(state) = self.states.get_mut(name) else { return vec![] };
        state.routes.resolved(place, located, now);
        match state.routes.has_addresses() || !state.routes.is_awaited() {
            true => std::mem::take(&mut state.waiting),
            false => vec![],
        }
    }

    /// Weighs what happened to an OPTIONS or a call. A failure is the address's, and the trunk's only
    /// where no other address is alive.
    pub fn observe(&mut self, name: &str, evidence: Evidence<'_>, now: Instant) {
        let Some(TrunkState { health, routes, .. }) = self.states.get_mut(name) else { return };
        let Evidence { input, at, rtt, why } = evidence;
        let mut told = Told::default();
        let is_failure = match input {
            Input::ProbeAnswered { status, .. } => status == 503,
            Input::ProbeFailed { .. } | Input::CallUnanswered => true,
            Input::CallAnswered => false,
        };
        match (at, is_failure) {
            (Some(at), true) => routes.silent(at, why, now),
            (Some(at), false) => routes.heard(at, rtt, now),
            (None, _) => {}
        }
        if is_failure && routes.is_alive() {
            health.excuse(input);
        } else {
            health.handle(input, now, &mut told.health);
        }
        told.addresses = routes.take_news();
        if !(told.health.is_empty() && told.addresses.is_empty()) {
            self.told.push((name.into(), told));
        }
    }

    /// Returns whether there is any of it.
    pub fn has_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// Takes what there is to do and to log, by trunk, in the order in which it happened.
    pub fn take_told(&mut self) -> Vec<(Box<str>, Told)> {
        std::mem::take(&mut self.told)
    }

    /// Chooses the address of a trunk's next OPTIONS.
    pub fn take_probe(&mut self, name: &str, now: Instant) -> Option<Hop> {
        let state = self.states.get_mut(name)?;
        let hop = state.routes.take_probe(now)?;
        state.probed = Some(hop.flow.remote);
        Some(hop)
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let each = |state: &TrunkState| {
            let ping = state.health.poll_timeout().filter(|_| state.routes.has_addresses());
            [ping, state.routes.poll_timeout()].into_iter().flatten().min()
        };
        self.states.values().filter_map(each).min()
    }

    /// Fires what is due; returns the trunks and places that are to be asked for.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(Box<str>, Place)> {
        let mut asks = vec![];
        for (name, state) in &mut self.states {
            asks.extend(state.routes.due(now).into_iter().map(|place| (name.clone(), place)));
            let is_due = state.health.poll_timeout().is_some_and(|at| at <= now);
            if state.routes.has_addresses() && is_due {
                self.told.push((name.clone(), state.handle_timeout(now)));
            }
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Flow, ShardId, Transport};

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
        let place = |host: &str| Place { host: host.into(), port: None, transport: Transport::Udp };
        let configured = |host: &str| {
            let edge = Edge { host: host.into(), port: None, place: place(host) };
            [Configured { name: "t".into(), pace: None, edges: vec![edge] }].into_iter()
        };
        for (host, want_flows, want_asks) in [("a", 1, 0), ("b", 0, 1)] {
            let mut trunks = Trunks::default();
            trunks.configure(configured("a"), now);
            assert_eq!(trunks.handle_timeout(now).len(), 1);
            trunks.resolved("t", &place("a"), Located::alike(vec![flow], None), now);
            let evidence =
                Evidence { input: Input::CallAnswered, at: Some(remote), rtt: None, why: "" };
            trunks.observe("t", evidence, now);
            assert!(trunks.claim("t", LegId::new(ShardId(0), 1), None));
            trunks.configure(configured(host), later);
            let state = trunks.state("t").expect("configured");
            assert_eq!(state.routes().known().count(), want_flows, "{host}");
            assert_eq!(state.health() == State::Up, want_flows == 1, "{host}");
            assert_eq!(trunks.handle_timeout(later).len(), want_asks, "{host}");
            assert_eq!(trunks.calls("t"), 1);
        }
    }

    /// One dead address of several is no failure of the trunk's; the last one is.
    #[test]
    fn a_trunk_is_as_well_as_its_best_address() {
        let now = crate::sim::epoch();
        let local = "10.0.0.1:5060".parse().unwrap();
        let remotes = ["1.2.3.4:5060", "1.2.3.5:5060"].map(|text| text.parse().unwrap());
        let flows = remotes.map(|remote| Flow { transport: Transport::Udp, local, remote });
        let place = Place { host: "a".into(), port: None, transport: Transport::Udp };
        let edge = Edge { host: "a".into(), port: None, place: place.clone() };
        let pace =
            Pace { every: Duration::from_secs(30), timeout: Duration::from_secs(4), down_after: 2 };
        let mut trunks = Trunks::default();
        let configured = Configured { name: "t".into(), pace: Some(pace), edges: vec![edge] };
        trunks.configure([configured].into_iter(), now);
        trunks.resolved("t", &place, Located::alike(flows.to_vec(), None), now);
        let mut happens = |index: usize, input| {
            let at = Some(remotes[index]);
            trunks.observe("t", Evidence { input, at, rtt: None, why: "" }, now);
            trunks.state("t").unwrap().health()
        };
        use Input::{CallAnswered, CallUnanswered};
        for (index, input, want) in [
            (0, CallAnswered, State::Up),
            (1, CallUnanswered, State::Up),
            (1, CallUnanswered, State::Up),
            (0, CallUnanswered, State::Suspect),
            (1, CallUnanswered, State::Down),
            (0, CallAnswered, State::Suspect),
            (1, CallUnanswered, State::Suspect),
            (0, CallAnswered, State::Up),
        ] {
            assert_eq!(happens(index, input), want, "{index} {input:?}");
        }
    }
}
