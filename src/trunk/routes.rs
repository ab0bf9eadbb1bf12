//! Where a trunk's next request goes: its edges in order, their addresses, and how each address is.
//!
//! Owns: which addresses are known and until when, which are dead, and the choice among them.
//! Never: asks DNS, sends, or waits: what is known is used until there is something better.
//!
//! An address is dead when it stayed silent or could not be reached. It is tried last until an answer
//! of whatever kind comes from it; where OPTIONS are sent, they go there first once its penalty is over.

use crate::{
    ids::{Entropy, Flow, Transport},
    locate::Located,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// The first penalty of a dead address, which doubles with each failure, and the longest.
const PENALTY: Duration = Duration::from_secs(60);
const PENALTY_MAX: Duration = Duration::from_secs(600);
/// Calls that one address is given in a second, as long as there is another: Twilio's limit.
const STARTS_MAX: usize = 30;
const STARTS_WITHIN: Duration = Duration::from_secs(1);
/// How soon a name is asked for again that leads nowhere, or whose question got no answer.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A TTL is taken for at least and at most this.
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_secs(86_400);

/// What is asked of DNS.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// A name or an address, without brackets.
    pub host: Box<str>,
    /// A port, where one is named.
    pub port: Option<u16>,
    /// How it is spoken to.
    pub transport: Transport,
}

/// A way to the carrier: a termination URI, and where it really leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edge {
    /// The Request-URI's host: a name, or an address (IPv6 in brackets).
    pub host: Box<str>,
    /// The Request-URI's port, where it names one.
    pub port: Option<u16>,
    /// Where its requests are sent.
    pub place: Place,
}

/// The edge and address that were chosen for a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hop {
    /// The edge.
    pub edge: Arc<Edge>,
    /// The address, and how it is reached.
    pub flow: Flow,
}

/// What a call has tried already.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tried {
    /// Addresses that did not answer.
    pub addresses: BTreeSet<SocketAddr>,
    /// Hosts of edges whose refusal another edge might not share.
    pub edges: BTreeSet<Box<str>>,
}

/// How an address is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressState {
    /// Nobody has asked it yet.
    Unknown,
    /// It answered last.
    Live,
    /// It did not.
    Dead {
        /// When its penalty ends.
        until: Instant,
    },
}

/// One address of the trunk.
#[derive(Clone, Debug)]
pub struct Address {
    /// How it is.
    pub state: AddressState,
    /// Since when.
    pub since: Instant,
    /// How long its last measured answer took.
    pub rtt: Option<Duration>,
    /// What it refused or failed with last.
    pub last_refusal: Option<Box<str>>,
    strikes: u32,
    asked_at: Option<Instant>,
    starts: VecDeque<Instant>,
}

/// An address's state changed: for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct News {
    /// Which.
    pub address: SocketAddr,
    /// Before.
    pub from: AddressState,
    /// Now.
    pub to: AddressState,
    /// Why it is dead.
    pub why: Option<Box<str>>,
}

/// What a new configuration leaves of what was known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Some place stays, or there was none before.
    Something,
    /// All places are new ones.
    Nothing,
}

#[derive(Debug, Default)]
struct Known {
    located: Located,
    ask_at: Option<Instant>,
    /// The first answer is still to come.
    is_awaited: bool,
}

/// One trunk's ways.
#[derive(Debug, Default)]
pub struct Routes {
    edges: Vec<Arc<Edge>>,
    places: BTreeMap<Place, Known>,
    addresses: BTreeMap<SocketAddr, Address>,
    /// Whether OPTIONS are sent, so that no call must find out whether a dead address is back.
    is_watched: bool,
    news: Vec<News>,
}

impl Routes {
    /// Takes the edges of a configuration. What is known of a place that stays is kept; a new one is
    /// asked for at once.
    pub fn configure(&mut self, edges: Vec<Edge>, is_watched: bool, now: Instant) -> Kept {
        let mut before = std::mem::take(&mut self.places);
        let had_places = !before.is_empty();
        let is_kept = edges.iter().any(|edge| before.contains_key(&edge.place));
        for edge in &edges {
            let known = before.remove(&edge.place).unwrap_or_else(|| Known {
                ask_at: Some(now),
                is_awaited: true,
                ..Known::default()
            });
            self.places.entry(edge.place.clone()).or_insert(known);
        }
        self.edges = edges.into_iter().map(Arc::new).collect();
        self.is_watched = is_watched;
        self.forget_strangers(now);
        if had_places && !is_kept { Kept::Nothing } else { Kept::Something }
    }

    /// Takes what DNS said of a place; what was known before holds where it said nothing.
    pub fn resolved(&mut self, place: &Place, located: Located, now: Instant) {
        let Some(known) = self.places.get_mut(place) else { return };
        known.is_awaited = false;
        if located.is_empty() {
            known.ask_at = Some(now + ASK_AGAIN);
            return;
        }
        known.ask_at = located.ttl.map(|ttl| {
            let ttl = ttl.clamp(TTL_MIN, TTL_MAX);
            // Early enough for the answer to be there when the old one expires.
            now + (ttl - (ttl / 10).min(Duration::from_secs(30)))
        });
        for flow in located.flows() {
            self.addresses.entry(flow.remote).or_insert_with(|| Address::new(now));
        }
        known.located = located;
        self.forget_strangers(now);
    }

    /// Returns the places to ask DNS for now.
    pub fn due(&mut self, now: Instant) -> Vec<Place> {
        let mut due = vec![];
        for (place, known) in &mut self.places {
            if known.ask_at.is_some_and(|at| at <= now) {
                // Answered or not: an answer sets the next time.
                known.ask_at = Some(now + ASK_AGAIN);
                due.push(place.clone());
            }
        }
        due
    }

    /// Returns when [`Self::due`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.places.values().filter_map(|known| known.ask_at).min()
    }

    /// Asks again for whatever leads nowhere; returns whether an answer is to be waited for.
    pub fn hasten(&mut self, now: Instant) -> bool {
        let mut waits = false;
        for known in self.places.values_mut().filter(|known| known.located.is_empty()) {
            if !known.is_awaited {
                (known.is_awaited, known.ask_at) = (true, Some(now));
            }
            waits = true;
        }
        waits
    }

    /// Returns whether a first answer of DNS is still to come.
    pub fn is_awaited(&self) -> bool {
        self.places.values().any(|known| known.is_awaited)
    }

    /// Chooses the way of a call, and counts it as started there: live addresses before dead ones,
    /// those below their calls a second before others, the first edge before the next, a drawn order
    /// within the edge. `None`: everything was tried, or nothing is known yet.
    pub fn take(&mut self, tried: &Tried, now: Instant, entropy: &mut Entropy) -> Option<Hop> {
        let (edge, flow) = self.best(tried, now, entropy)?;
        let hop = Hop { edge: edge.clone(), flow };
        if let Some(address) = self.addresses.get_mut(&flow.remote) {
            address.starts.push_back(now);
            if address.starts.len() > STARTS_MAX {
                address.starts.pop_front();
            }
        }
        Some(hop)
    }

    /// Returns the best way of those that were not tried.
    fn best(
        &self,
        tried: &Tried,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Option<(&Arc<Edge>, Flow)> {
        let mut best = None;
        let mut best_rank = (true, true);
        for edge in &self.edges {
            let Some(known) = self.places.get(&edge.place) else { continue };
            // Drawn for every edge, so that what one call has tried changes no other's order.
            for flow in known.located.order(entropy) {
                if tried.addresses.contains(&flow.remote) || tried.edges.contains(&edge.host) {
                    continue;
                }
                let address = self.addresses.get(&flow.remote);
                let is_dead = address.is_some_and(|a| a.is_avoided(self.is_watched, now));
                let is_busy = address.is_some_and(|a| a.is_busy(now));
                let rank = (is_dead, is_busy);
                // Among equals, whoever comes first.
                if best.is_none() || rank < best_rank {
                    (best, best_rank) = (Some((edge, flow)), rank);
                }
            }
        }
        best
    }

    /// Chooses where the next OPTIONS goes: to a dead address whose penalty is over, else to whichever
    /// was not asked for longest, dead ones last.
    pub fn take_probe(&mut self, now: Instant) -> Option<Hop> {
        let mut best: Option<((u8, Option<Instant>), Hop)> = None;
        for edge in &self.edges {
            let flows = self.places.get(&edge.place).map(|known| known.located.flows());
            for flow in flows.into_iter().flatten() {
                let Some(address) = self.addresses.get(&flow.remote) else { continue };
                let rank = match address.state {
                    AddressState::Dead { until } if until <= now => (0, Some(until)),
                    AddressState::Unknown | AddressState::Live => (1, address.asked_at),
                    AddressState::Dead { until } => (2, Some(until)),
                };
                if best.as_ref().is_none_or(|(before, _)| rank < *before) {
                    best = Some((rank, Hop { edge: edge.clone(), flow }));
                }
            }
        }
        let (_, hop) = best?;
        if let Some(address) = self.addresses.get_mut(&hop.flow.remote) {
            address.asked_at = Some(now);
        }
        Some(hop)
    }

    /// An answer of whatever kind came from an address; `rtt` where it tells how far it is.
    pub fn heard(&mut self, from: SocketAddr, rtt: Option<Duration>, now: Instant) {
        let Some(address) = self.addresses.get_mut(&from) else { return };
        address.rtt = rtt.or(address.rtt);
        address.strikes = 0;
        let news = address.enter(AddressState::Live, now);
        self.news.extend(news.map(|before| News {
            address: from,
            from: before,
            to: AddressState::Live,
            why: None,
        }));
    }

    /// An address stayed silent, or could not be reached.
    pub fn silent(&mut self, at: SocketAddr, why: &str, now: Instant) {
        let Some(address) = self.addresses.get_mut(&at) else { return };
        let factor = 1 << address.strikes.min(8);
        let until = now + PENALTY.saturating_mul(factor).min(PENALTY_MAX);
        address.strikes = address.strikes.saturating_add(1);
        address.last_refusal = Some(why.into());
        let to = AddressState::Dead { until };
        let news = address.enter(to, now);
        let why = Some(why.into());
        self.news.extend(news.map(|from| News { address: at, from, to, why }));
    }

    /// An address refused a call, in its own words.
    pub fn refused(&mut self, by: SocketAddr, why: &str) {
        if let Some(address) = self.addresses.get_mut(&by) {
            address.last_refusal = Some(why.into());
        }
    }

    /// Returns the edges, in the order in which they are tried.
    pub fn edges(&self) -> &[Arc<Edge>] {
        &self.edges
    }

    /// Returns whether some address is not dead.
    pub fn is_alive(&self) -> bool {
        self.known().any(|(_, _, address)| !matches!(address.state, AddressState::Dead { .. }))
    }

    /// Returns whether any address is known.
    pub fn has_addresses(&self) -> bool {
        self.places.values().any(|known| !known.located.is_empty())
    }

    /// Returns whether this is an address of the trunk.
    pub fn is_known(&self, address: SocketAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Returns every address once, with the first edge it belongs to.
    pub fn known(&self) -> impl Iterator<Item = (&Edge, Flow, &Address)> {
        let mut seen = BTreeSet::new();
        self.edges
            .iter()
            .filter_map(|edge| Some((&**edge, self.places.get(&edge.place)?)))
            .flat_map(|(edge, known)| known.located.flows().map(move |flow| (edge, flow)))
            .filter(move |(_, flow)| seen.insert(flow.remote))
            .filter_map(|(edge, flow)| Some((edge, flow, self.addresses.get(&flow.remote)?)))
    }

    /// Takes what there is to log.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Forgets addresses that belong to no edge any more. A dead one is remembered for its penalty: DNS
    /// may name another four of many each time.
    fn forget_strangers(&mut self, now: Instant) {
        let known: BTreeSet<SocketAddr> = self
            .places
            .values()
            .flat_map(|known| known.located.flows().map(|flow| flow.remote))
            .collect();
        self.addresses.retain(|remote, address| {
            let is_serving = matches!(address.state, AddressState::Dead { until } if until > now);
            is_serving || known.contains(remote)
        });
    }
}

impl Edge {
    /// Returns the host and port as they stand in the Request-URI.
    pub fn authority(&self) -> Cow<'_, str> {
        authority(&self.host, self.port)
    }
}

/// Joins a host with its port, where it has one.
pub fn authority(host: &str, port: Option<u16>) -> Cow<'_, str> {
    match port {
        Some(port) => format!("{host}:{port}").into(),
        None => host.into(),
    }
}

impl Address {
    fn new(now: Instant) -> Self {
        Self {
            state: AddressState::Unknown,
            since: now,
            rtt: None,
            last_refusal: None,
            strikes: 0,
            asked_at: None,
            starts: VecDeque::new(),
        }
    }

    /// Returns whether calls prefer any other. Without OPTIONS a call must find out when the penalty is
    /// over; with them, the address must answer one first.
    fn is_avoided(&self, is_watched: bool, now: Instant) -> bool {
        match self.state {
            AddressState::Unknown | AddressState::Live => false,
            AddressState::Dead { until } => is_watched || now < until,
        }
    }

    fn is_busy(&self, now: Instant) -> bool {
        let recent = self.starts.iter().filter(|at| now < **at + STARTS_WITHIN);
        recent.count() >= STARTS_MAX
    }

    /// Moves on; returns the former state where that is another one.
    fn enter(&mut self, state: AddressState, now: Instant) -> Option<AddressState> {
        let before = std::mem::replace(&mut self.state, state);
        let is_same = std::mem::discriminant(&before) == std::mem::discriminant(&state);
        if !is_same {
            self.since = now;
        }
        (!is_same).then_some(before)
    }
}

impl AddressState {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Live => "live",
            Self::Dead { .. } => "dead",
        }
    }
}
