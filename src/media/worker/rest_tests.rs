//! Ports that rest between two legs.

use super::{
    Action,
    rig::{A, Rig},
};
use crate::{
    ids::LegId,
    media::{
        Discard,
        command::{Command, Event},
    },
};
use std::{net::IpAddr, time::Duration};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A worker that has seen as many legs come and go, one each `every_ms`; nothing rests any more.
fn busy(pairs: u16, every_ms: u64, legs: u64) -> Rig {
    let mut rig = Rig::with_pairs(pairs);
    for n in 0..legs {
        rig.pass(every_ms);
        rig.open(LegId(1000 + n));
        rig.close(LegId(1000 + n));
    }
    rig
}

/// How often legs come, at one time: how many of them get a port that is open already.
#[test]
fn ports_rest_while_many_legs_come_and_go() {
    for (every_ms, legs, reused) in [(1, 1000, 700), (5, 200, 140), (6, 200, 0), (100, 50, 0)] {
        let rig = busy(500, every_ms, legs);
        assert_eq!(rig.reused, reused, "each {every_ms} ms");
        assert_eq!(rig.usage(), (0, 500), "each {every_ms} ms");
    }
}

#[test]
fn a_port_rests_until_its_stragglers_have_come() {
    let mut rig = busy(500, 1, 150);
    rig.pass(1200);
    let (slot, before) = (rig.slot(LegId(1149)), rig.reused);
    assert_eq!(rig.reused, 0);
    for n in 0..60 {
        rig.pass(2);
        rig.open(LegId(2000 + n));
    }
    rig.close(LegId(2059));
    let rested = rig.slot(LegId(2059));
    rig.pass(199);
    rig.open(LegId(3000));
    assert_ne!((rig.slot(LegId(3000)), rig.reused), (rested, 1), "199 ms");
    rig.pass(1);
    rig.open(LegId(3001));
    assert_eq!((rig.slot(LegId(3001)), rig.reused), (rested, before + 1), "200 ms, {slot}");
}

/// A leg of its own for each case, rested and wanted again.
#[test]
fn a_port_to_which_somebody_sends_is_closed_and_not_given_away() {
    for (is_disturbed, ip, is_reused) in
        [(false, HERE, true), (true, HERE, false), (false, THERE, false)]
    {
        let mut rig = busy(500, 1, 150);
        let (leg, stranger) = (LegId(5000), ([192, 0, 2, 9], 4000).into());
        rig.pass(1);
        rig.open(leg);
        // The others that rest are older, and disturbed, so that this one is next.
        for n in 0..150 {
            rig.packet(LegId(1000 + n), stranger, &[0x80; 20]);
        }
        let heard = rig.discarded(Discard::TooEarly);
        rig.close(leg);
        let slot = rig.slot(leg);
        if is_disturbed {
            assert_eq!(rig.packet(leg, stranger, &[0x80; 20]), None);
            assert_eq!(rig.discarded(Discard::TooEarly), heard + 1);
        }
        rig.pass(200);
        rig.drain();
        let now = rig.now;
        rig.handle_command(Command::Open { leg: A, ip }, now);
        let actions: Vec<Action> = std::iter::from_fn(|| rig.poll_action()).collect();
        let reused = actions.contains(&Action::Reuse { slot });
        assert_eq!(reused, is_reused, "{is_disturbed} {ip}: {actions:?}");
        assert_eq!(actions.contains(&Action::Unbind { slot }), is_disturbed, "{ip}");
    }
}

/// What had come by then makes the thread say that it cannot be used: another one is bound.
#[test]
fn a_port_with_something_to_read_is_not_used() {
    let mut rig = busy(500, 1, 150);
    rig.pass(200);
    let now = rig.now;
    rig.handle_command(Command::Open { leg: A, ip: HERE }, now);
    let Some(Action::Reuse { slot }) = rig.poll_action() else { panic!("nothing rests") };
    rig.bound(slot, false, now);
    let Some(Action::Bind { slot: again, port, .. }) = rig.poll_action() else { panic!() };
    assert_eq!(again, slot);
    rig.bound(slot, true, now);
    assert_eq!(rig.drain(), [Event::Opened { leg: A, port }]);
    assert_eq!(rig.usage(), (1, 499));
}

#[test]
fn what_rests_is_closed_when_nobody_needs_it_and_when_a_pair_is_needed() {
    let mut rig = busy(500, 1, 150);
    let resting = |rig: &mut Rig| {
        let ends: Vec<_> = std::iter::from_fn(|| {
            let at = rig.poll_timeout()?;
            rig.now = at;
            rig.handle_timeout(at, &mut |_| {});
            Some(std::iter::from_fn(|| rig.poll_action()).count())
        })
        .collect();
        ends.into_iter().sum::<usize>()
    };
    let at = rig.poll_timeout().expect("some rest");
    assert!(at - rig.now < Duration::from_millis(1001));
    assert_eq!(resting(&mut rig), 50);
    assert_eq!((rig.usage(), rig.poll_timeout()), ((0, 500), None));

    let mut rig = busy(60, 1, 150);
    for n in 0..60 {
        rig.open(LegId(2000 + n));
    }
    assert_eq!(rig.usage(), (60, 0), "pairs that rest can be taken where there are no others");
    assert!(rig.drain().iter().all(|event| matches!(event, Event::Opened { .. })));
    assert_eq!(rig.reused, 0);
}

#[test]
fn a_leg_that_was_connected_leaves_a_port_for_anybody() {
    let mut rig = busy(500, 1, 150);
    rig.pass(1);
    let mut peer = rig.peer(A);
    rig.talk(&mut peer, 11);
    assert!(rig.connected(A).is_some());
    // The talk took longer than a rate holds.
    for n in 0..150 {
        rig.pass(1);
        rig.open(LegId(2000 + n));
        rig.close(LegId(2000 + n));
    }
    let (slot, now) = (rig.slot(A), rig.now);
    rig.drain();
    rig.handle_command(Command::Close { leg: A }, now);
    let actions: Vec<Action> = std::iter::from_fn(|| rig.poll_action()).collect();
    assert!(actions.contains(&Action::Rest { slot }), "{actions:?}");
}
