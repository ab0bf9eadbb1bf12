//! The routes of a trunk in virtual time: edges `a` and `b`, with the addresses `a1` to `a4` and `b1`.

use super::routes::{AddressState, Edge, Hop, Place, Routes, Tried};
use crate::{
    ids::{Entropy, Flow, Transport},
    locate::Located,
    sim::epoch,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

struct Bench {
    routes: Routes,
    entropy: Entropy,
    epoch: Instant,
    now: Instant,
}

fn edge(name: &str) -> Edge {
    let place = Place { host: name.into(), port: None, transport: Transport::Udp };
    Edge { host: name.into(), port: None, place }
}

/// `a2`: the second address of the edge `a`.
fn address(name: &str) -> SocketAddr {
    let bytes = name.as_bytes();
    ([192, 0, bytes[0] - b'a', bytes[1] - b'0'], 5060).into()
}

fn name(address: SocketAddr) -> String {
    let SocketAddr::V4(v4) = address else { panic!("{address}") };
    let [_, _, edge, number] = v4.ip().octets();
    format!("{}{number}", (b'a' + edge) as char)
}

fn located(names: &[&str], ttl_s: u64) -> Located {
    let local = "10.0.0.1:5060".parse().unwrap();
    let flow = |name: &&str| Flow { transport: Transport::Udp, local, remote: address(name) };
    Located::alike(names.iter().map(flow).collect(), Some(Duration::from_secs(ttl_s)))
}

impl Bench {
    /// Knows both edges' addresses.
    fn new(is_watched: bool) -> Self {
        let mut bench = Self::cold(is_watched);
        bench.resolved("a", &["a1", "a2", "a3", "a4"], 600);
        bench.resolved("b", &["b1"], 600);
        bench
    }

    fn cold(is_watched: bool) -> Self {
        let epoch = epoch();
        let mut routes = Routes::default();
        routes.configure(vec![edge("a"), edge("b")], is_watched, epoch);
        Self { routes, entropy: Entropy::from_u64(1), epoch, now: epoch }
    }

    fn resolved(&mut self, place: &str, names: &[&str], ttl_s: u64) {
        let place = edge(place).place;
        self.routes.resolved(&place, located(names, ttl_s), self.now);
    }

    fn wait(&mut self, s: u64) {
        self.now += Duration::from_secs(s);
    }

    fn take(&mut self, tried: &Tried) -> Option<String> {
        let hop = self.routes.take(tried, self.now, &mut self.entropy);
        hop.map(|Hop { flow, .. }| name(flow.remote))
    }

    /// Every address in the order in which one call tries them.
    fn sequence(&mut self) -> Vec<String> {
        let mut tried = Tried::default();
        let mut sequence = vec![];
        while let Some(name) = self.take(&tried) {
            tried.addresses.insert(address(&name));
            sequence.push(name);
        }
        sequence
    }

    fn silent(&mut self, names: &[&str]) {
        for name in names {
            self.routes.silent(address(name), "no answer", self.now);
        }
    }

    fn heard(&mut self, name: &str) {
        self.routes.heard(address(name), Some(Duration::from_millis(9)), self.now);
    }

    fn probe(&mut self) -> String {
        name(self.routes.take_probe(self.now).unwrap().flow.remote)
    }

    /// The places that are asked for until then, with the second.
    fn asks_until(&mut self, s: u64) -> Vec<(u64, String)> {
        let mut asks = vec![];
        while let Some(at) = self.routes.poll_timeout() {
            if at > self.epoch + Duration::from_secs(s) {
                break;
            }
            self.now = self.now.max(at);
            let at_s = (self.now - self.epoch).as_secs();
            asks.extend(self.routes.due(self.now).into_iter().map(|p| (at_s, p.host.into())));
        }
        asks
    }
}

#[test]
fn a_call_tries_every_address_of_an_edge_before_the_next_edge() {
    let mut bench = Bench::new(true);
    let mut firsts = BTreeSet::new();
    for _ in 0..50 {
        bench.wait(1);
        let sequence = bench.sequence();
        assert_eq!(sequence[4], "b1");
        assert_eq!(sequence.iter().collect::<BTreeSet<_>>().len(), 5, "{sequence:?}");
        firsts.insert(sequence[0].clone());
    }
    assert_eq!(firsts.len(), 4, "the start is drawn: {firsts:?}");
}

#[test]
fn the_dead_come_last_and_an_edge_without_a_living_address_after_the_next() {
    let mut bench = Bench::new(true);
    bench.silent(&["a1", "a2", "a4"]);
    let sequence = bench.sequence();
    assert_eq!(sequence[..2], ["a3", "b1"]);
    bench.silent(&["a3"]);
    assert_eq!(bench.sequence()[0], "b1");
    bench.silent(&["b1"]);
    assert_eq!(bench.sequence().len(), 5, "better than nothing");
    assert!(!bench.routes.is_alive());
    bench.heard("a2");
    assert_eq!(bench.sequence()[0], "a2");
}

#[test]
fn another_edge_is_another_edge() {
    let mut bench = Bench::new(true);
    let tried = Tried { edges: ["a".into()].into(), ..Tried::default() };
    assert_eq!(bench.take(&tried).as_deref(), Some("b1"));
    let tried = Tried { edges: ["a".into(), "b".into()].into(), ..Tried::default() };
    assert_eq!(bench.take(&tried), None);
}

#[test]
fn one_address_is_given_thirty_calls_a_second() {
    let mut bench = Bench::new(true);
    let mut given: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        *given.entry(bench.take(&Tried::default()).unwrap()).or_default() += 1;
    }
    // 120 for the first edge, 30 for the second; what is beyond goes somewhere all the same.
    assert_eq!(given["b1"], 30, "{given:?}");
    assert!(given.values().all(|n| *n >= 30), "{given:?}");
    bench.wait(1);
    assert_ne!(bench.take(&Tried::default()).unwrap(), "b1");
}

#[test]
fn a_penalty_doubles_up_to_ten_minutes_and_ends_with_an_answer() {
    let mut bench = Bench::new(true);
    for want_s in [60, 120, 240, 480, 600, 600] {
        bench.silent(&["a1"]);
        let state = bench.routes.known().find(|(.., flow, _)| flow.remote == address("a1"));
        let AddressState::Dead { until } = state.unwrap().2.state else { panic!("not dead") };
        assert_eq!((until - bench.now).as_secs(), want_s);
    }
    bench.heard("a1");
    bench.silent(&["a1"]);
    let changes: Vec<_> = bench.routes.take_news().iter().map(|news| news.to.word()).collect();
    assert_eq!(changes, ["dead", "live", "dead"], "told once each");
}

#[test]
fn who_is_watched_proves_itself_to_an_options_others_to_a_call() {
    for (is_watched, want) in [(true, false), (false, true)] {
        let mut bench = Bench::new(is_watched);
        bench.silent(&["a1"]);
        bench.wait(59);
        assert_eq!(bench.sequence().last().unwrap(), "a1");
        bench.wait(2);
        assert_eq!(bench.sequence().last().unwrap() != "a1", want, "{is_watched}");
    }
}

#[test]
fn options_go_round_and_first_to_the_dead_whose_time_is_over() {
    let mut bench = Bench::new(true);
    let mut round = vec![];
    for _ in 0..5 {
        bench.wait(30);
        round.push(bench.probe());
    }
    assert_eq!(round, ["a1", "a2", "a3", "a4", "b1"]);
    bench.silent(&["a2", "a3"]);
    bench.wait(30);
    assert_eq!(bench.probe(), "a1");
    bench.wait(30);
    assert_eq!(bench.probe(), "a2");
    bench.silent(&["a2"]);
    assert_eq!(bench.probe(), "a3");
    bench.heard("a3");
    bench.wait(30);
    assert_eq!(bench.probe(), "a4");
}

#[test]
fn names_are_asked_for_again_before_they_expire_and_hold_beyond() {
    let mut bench = Bench::cold(true);
    assert_eq!(bench.asks_until(9), [(0, "a".into()), (0, "b".into())]);
    assert!(bench.routes.is_awaited() && !bench.routes.has_addresses());
    assert_eq!(bench.take(&Tried::default()), None);
    bench.resolved("a", &["a1"], 600);
    bench.resolved("b", &["b1"], 100);
    let asks = bench.asks_until(575);
    assert_eq!(asks.iter().find(|(_, place)| place == "b"), Some(&(90, "b".into())));
    assert_eq!(asks.iter().find(|(_, place)| place == "a"), Some(&(570, "a".into())));
    bench.resolved("b", &[], 0);
    bench.wait(3600);
    assert_eq!(bench.sequence(), ["a1", "b1"], "the last good answer");
    assert!(!bench.routes.hasten(bench.now), "nothing to wait for");
}

#[test]
fn what_leads_nowhere_is_asked_for_when_a_call_wants_it() {
    let mut bench = Bench::cold(true);
    bench.routes.due(bench.now);
    bench.resolved("a", &[], 0);
    bench.resolved("b", &[], 0);
    assert!(!bench.routes.is_awaited());
    bench.wait(3);
    assert!(bench.routes.hasten(bench.now) && bench.routes.is_awaited());
    assert_eq!(bench.routes.due(bench.now).len(), 2);
}

#[test]
fn a_reload_keeps_what_stays_and_asks_for_what_is_new() {
    let mut bench = Bench::new(true);
    bench.silent(&["a1"]);
    bench.routes.configure(vec![edge("c"), edge("a")], true, bench.now);
    assert_eq!(bench.sequence().last().unwrap(), "a1", "still dead");
    assert!(bench.sequence().iter().all(|name| name.starts_with('a')));
    let asked: Vec<_> = bench.routes.due(bench.now).into_iter().map(|p| p.host).collect();
    assert_eq!(asked, ["c".into()]);
    bench.resolved("c", &["c1"], 60);
    assert_eq!(bench.sequence()[0], "c1");
    assert!(!bench.routes.is_known(address("b1")));
}

#[test]
fn a_dead_address_that_dns_forgets_is_remembered_for_its_penalty() {
    let mut bench = Bench::new(true);
    bench.silent(&["a1"]);
    bench.resolved("a", &["a2", "a3"], 600);
    assert_eq!(bench.sequence().len(), 3);
    bench.resolved("a", &["a1", "a2"], 600);
    assert_eq!(bench.sequence().last().unwrap(), "a1");
    bench.wait(61);
    bench.resolved("a", &["a2"], 600);
    bench.resolved("a", &["a1", "a2"], 600);
    assert_ne!(bench.sequence().last().unwrap(), "a1", "a new start");
}
