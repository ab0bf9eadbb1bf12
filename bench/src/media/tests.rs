//! Streams through the floor, and what is said of them.

use super::*;
use crate::{floor_relay, histogram::Histogram};
use std::{
    net::UdpSocket,
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

/// Nobody to look after.
struct Nobody;

impl Aside for Nobody {
    fn tend(&mut self) {}
    fn meter(&mut self) -> Result<Reading> {
        Ok(Reading::default())
    }
}

/// A relay's first port: behind one that is free, on an address of its own, since relays stay to the end.
fn floor(calls: usize, coalesce: u64) -> SocketAddr {
    static RELAYS: AtomicU8 = AtomicU8::new(10);
    let [low, high, ..] = std::process::id().to_le_bytes();
    let last = RELAYS.fetch_add(1, Ordering::Relaxed);
    let ip = std::net::Ipv4Addr::new(127, 150 + high % 60, low, last);
    let port = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap().port() / 2;
    let args = floor_relay::Args { ip, port, calls, coalesce };
    let (ready, told) = std::sync::mpsc::channel();
    thread::spawn(move || floor_relay::serve(&args, || ready.send(()).unwrap()).unwrap());
    told.recv().unwrap();
    SocketAddr::new(ip.into(), port)
}

fn streamed(calls: usize, share: usize, first: SocketAddr) -> Outcome {
    let ip = v4(first).unwrap();
    let mut engine = Engine::new([ip, ip], share);
    let ports: Vec<_> = (0..calls).map(|_| engine.open_call().unwrap()).collect();
    for to in Way::Direct(first, 0).connect(&ports).unwrap() {
        engine.aim_call(to).unwrap();
    }
    let timing = Timing { warm: Duration::from_millis(100), window: Duration::from_secs(1) };
    engine.stream(timing, &mut Nobody).unwrap()
}

#[test]
fn twenty_streams_pass_the_floor_without_loss() {
    for (share, coalesce) in [(1, 0), (5, 1000)] {
        let mut outcome = streamed(10, share, floor(10, coalesce));
        let mut tries_left = 20;
        // On a busy machine the window opens or closes late, or less is sent: then it is tried again.
        while !(900..=1200).contains(&outcome.sent) {
            assert!(tries_left > 0, "{outcome:?}");
            tries_left -= 1;
            outcome = streamed(10, share, floor(10, coalesce));
        }
        let totals = &outcome.totals;
        assert_eq!((totals.received, totals.duplicates), (outcome.sent, 0));
        assert_eq!((totals.reordered, totals.header_jumps, outcome.own_drops), (0, 0, 0));
        assert_eq!(
            (outcome.flawed.damaged, outcome.flawed.misled, outcome.flawed.foreign),
            (0, 0, 0)
        );
        assert!(totals.delay.quantile(0.5) > Duration::ZERO);
    }
}

/// A window of 1,000 packets, all well.
fn outcome() -> Outcome {
    let mut totals = tally::Totals { received: 1000, ..Default::default() };
    totals.delay.record(Duration::from_micros(80));
    let mut lateness = Histogram::default();
    lateness.record(Duration::from_micros(10));
    Outcome {
        window: Duration::from_secs(1),
        sent: 1000,
        unsent: 0,
        totals,
        flawed: engine::Flawed::default(),
        lateness,
        moved: 0,
        busy: 0.2,
        own_drops: 0,
        edges: Default::default(),
    }
}

#[test]
fn a_verdict_is_of_the_target_or_there_is_none() {
    type Change = fn(&mut Outcome);
    fn late(outcome: &mut Outcome) {
        outcome.lateness.record(Duration::from_millis(3));
    }
    fn slow(outcome: &mut Outcome) {
        outcome.totals.delay.record(Duration::from_millis(6));
    }
    let cases: [(Change, Option<f64>, &str); 11] = [
        (|_| {}, Some(1.0), ""),
        (|outcome| outcome.totals.received = 999, Some(0.0), ""),
        (slow, Some(0.0), ""),
        (late, Some(1.0), ""),
        (
            |outcome| {
                late(outcome);
                slow(outcome);
            },
            None,
            "was late",
        ),
        (|outcome| outcome.moved = 1, None, "as much as it was to"),
        (|outcome| outcome.own_drops = 1, None, "overflowed"),
        (|outcome| outcome.unsent = 1, None, "did not take"),
        (|outcome| outcome.edges[1].stolen = Duration::from_millis(9), Some(1.0), ""),
        (
            |outcome| {
                slow(outcome);
                outcome.edges[1].stolen = Duration::from_millis(9);
            },
            None,
            "away",
        ),
        (|outcome| outcome.flawed.damaged = 2, Some(1.0), "2 packets were changed"),
    ];
    for (index, (change, carried, fault)) in cases.into_iter().enumerate() {
        let mut outcome = outcome();
        change(&mut outcome);
        let sample = figures(&outcome, Sample::default());
        assert_eq!(sample.figure("carried"), carried, "case {index}");
        let said = sample.faults.join("\n");
        assert!(
            said.contains(fault) && said.is_empty() == fault.is_empty(),
            "case {index}: {said}"
        );
    }
}
