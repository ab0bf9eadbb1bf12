//! Legs and their ports.

use super::{
    Action,
    rig::{A, B, C, PAIRS, Rig, prompt, stream},
};
use crate::{
    ids::LegId,
    media::{
        Discard,
        command::{Command, Event, Latch, Law, OpenRefusal, Prompt, Remote},
        path::PathMap,
    },
};
use std::net::IpAddr;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Pairs of the worker, how many binds fail; what is told, after how many binds.
#[test]
fn ports_are_tried_until_one_can_be_bound() {
    for (pairs, failures, want, binds) in [
        (4, 0, Ok(10_000), 1),
        (4, 1, Ok(10_002), 2),
        (4, 4, Ok(10_000), 5),
        (20, 7, Ok(10_014), 8),
        (20, 8, Err(OpenRefusal::CannotBind), 8),
        (1, 8, Err(OpenRefusal::CannotBind), 8),
        (0, 0, Err(OpenRefusal::PortsExhausted), 0),
    ] {
        let name = format!("{pairs} pairs, {failures} failures");
        let mut rig = Rig::with_pairs(pairs);
        let now = rig.now;
        rig.handle_command(Command::Open { leg: A, ip: HERE }, now);
        let mut tried = 0;
        while let Some(action) = rig.poll_action() {
            let Action::Bind { slot, ip, .. } = action else { panic!("{name}: {action:?}") };
            assert_eq!(ip, HERE);
            tried += 1;
            rig.bound(slot, tried > failures, now);
        }
        let told = match want {
            Ok(port) => Event::Opened { leg: A, port },
            Err(refusal) => Event::OpenFailed { leg: A, refusal },
        };
        assert_eq!((rig.drain(), tried), (vec![told], binds), "{name}");
        let taken = usize::from(want.is_ok());
        assert_eq!(rig.usage(), (taken, usize::from(pairs) - taken), "{name}");
        assert_eq!(rig.counters().open_failures, u64::from(want.is_err()), "{name}");
        if want.is_ok() {
            rig.close(A);
        }
        assert_eq!(rig.usage(), (0, usize::from(pairs)), "{name}: nothing leaks");
    }
}

#[test]
fn every_pair_can_be_taken_again_and_again() {
    let mut rig = Rig::new();
    for round in 0..5 {
        let legs = (0..u64::from(PAIRS)).map(|n| LegId(round * 100 + n)).collect::<Vec<_>>();
        legs.iter().for_each(|leg| rig.open(*leg));
        let opened = rig.drain();
        assert!(opened.iter().all(|event| matches!(event, Event::Opened { .. })), "{opened:?}");
        rig.open(A);
        let refusal = OpenRefusal::PortsExhausted;
        let refused = if round == 0 { OpenRefusal::AlreadyOpen } else { refusal };
        assert_eq!(rig.drain(), [Event::OpenFailed { leg: A, refusal: refused }]);
        for leg in &legs {
            rig.close(*leg);
        }
        assert_eq!(rig.usage(), (0, PAIRS.into()));
    }
}

/// A leg opened ahead of its call is the call's from then on.
#[test]
fn a_leg_can_be_renamed() {
    let (mut rig, mut a, _) = Rig::joined();
    rig.open(C);
    rig.drain();
    rig.give(Command::Rename { from: C, leg: LegId(9) });
    rig.give(Command::Rename { from: A, leg: LegId(9) });
    rig.give(Command::Echo { leg: C });
    assert!(rig.say(&mut a).is_some(), "A is still A, and joined");
    rig.give(Command::Close { leg: LegId(9) });
    let told = rig.drain();
    let closed = told.iter().filter(|event| matches!(event, Event::Closed { .. }));
    assert_eq!(closed.map(Event::leg).collect::<Vec<_>>(), [LegId(9)]);
    assert_eq!(rig.usage().0, 2);
    // It was gone before, by a bug of ours.
    rig.give(Command::Rename { from: C, leg: LegId(10) });
    let told = rig.drain();
    assert!(matches!(told[..], [Event::Silent { .. }, Event::Closed { .. }]), "{told:?}");
    assert!(told.iter().all(|event| event.leg() == LegId(10)));
}

#[test]
fn the_rtcp_port_is_bound_when_there_is_something_to_hear_or_to_say() {
    let wants = |rig: &mut Rig| {
        let actions: Vec<Action> = std::iter::from_fn(|| rig.poll_action()).collect();
        actions.iter().filter(|action| matches!(action, Action::BindRtcp { .. })).count()
    };
    let (mut rig, mut a, _) = Rig::joined();
    let now = rig.now;
    let (slot, packet) = (rig.slot(A), a.next());
    rig.handle_rtp(slot, a.address, (&mut packet.clone(), packet.len()), now);
    assert_eq!(wants(&mut rig), 2, "both sides of the relay");
    let packet = a.next();
    rig.handle_rtp(slot, a.address, (&mut packet.clone(), packet.len()), now);
    assert_eq!(wants(&mut rig), 0);

    let (mut rig, ..) = Rig::joined();
    let due = |rig: &mut Rig| {
        let at = rig.poll_timeout().unwrap();
        rig.now = at;
        let mut reports = 0;
        rig.handle_timeout(at, &mut |_| reports += 1);
        reports
    };
    assert_eq!((due(&mut rig), wants(&mut rig)), (0, 1), "a little before the first report");
    let mut rig = Rig::new();
    rig.open(A);
    let now = rig.now;
    rig.handle_command(Command::Play { leg: A, prompt: prompt(9), loops: true, token: 1 }, now);
    assert_eq!(wants(&mut rig), 1);
}

/// Whoever finds a pair torn by another program warns the next one.
#[test]
fn a_pair_of_which_a_port_was_taken_is_bound_as_a_whole() {
    let mut rig = Rig::with_pairs(2);
    let now = rig.now;
    let bind = |rig: &mut Rig, leg| {
        rig.handle_command(Command::Open { leg, ip: HERE }, now);
        let Some(Action::Bind { slot, port, with_rtcp, .. }) = rig.poll_action() else { panic!() };
        rig.bound(slot, true, now);
        (port, with_rtcp)
    };
    assert_eq!(bind(&mut rig, A), (10_000, false));
    rig.bound_rtcp(0, false);
    rig.close(A);
    assert_eq!(bind(&mut rig, B), (10_002, false));
    assert_eq!(bind(&mut rig, A), (10_000, true));
    rig.close(A);
    assert_eq!(bind(&mut rig, A), (10_000, false), "both were free");
    rig.close(A);
    rig.beware([10_001]);
    assert_eq!(bind(&mut rig, A), (10_000, true));
}

#[test]
fn a_leg_that_is_open_keeps_its_ports() {
    let mut rig = Rig::new();
    rig.open(A);
    rig.open(A);
    let told = rig.drain();
    let refused = Event::OpenFailed { leg: A, refusal: OpenRefusal::AlreadyOpen };
    assert_eq!(told, [Event::Opened { leg: A, port: 10_000 }, refused]);
    assert_eq!(rig.usage(), (1, usize::from(PAIRS) - 1));
}

/// The answer about sockets comes after the leg was closed: it must not open it again.
#[test]
fn a_leg_can_be_closed_while_it_opens() {
    for is_bound in [true, false] {
        let mut rig = Rig::new();
        let now = rig.now;
        rig.handle_command(Command::Open { leg: A, ip: HERE }, now);
        rig.handle_command(Command::Close { leg: A }, now);
        let Some(Action::Bind { slot, .. }) = rig.poll_action() else { panic!("nothing to bind") };
        rig.bound(slot, is_bound, now);
        assert_eq!(rig.poll_action(), Some(Action::Unbind { slot }));
        assert!(matches!(rig.drain()[..], [Event::Closed { leg: A, .. }]));
        assert_eq!(rig.usage(), (0, PAIRS.into()), "bound: {is_bound}");
    }
}

#[test]
fn commands_for_legs_that_are_not_there_do_nothing() {
    let remote = Remote {
        rtp: ([192, 0, 2, 1], 4000).into(),
        rtcp: ([192, 0, 2, 1], 4001).into(),
        latch: Latch::Learn { near: None },
        sends: true,
        receives: true,
        must_answer: false,
    };
    let map = PathMap::new;
    for command in [
        Command::Aim { leg: C, remote, stream: stream(Law::Mu, 101), keys: None },
        Command::Bridge { a: C, b: LegId(9), a_to_b: map(), b_to_a: map() },
        Command::Bridge { a: A, b: C, a_to_b: map(), b_to_a: map() },
        Command::Bridge { a: C, b: A, a_to_b: map(), b_to_a: map() },
        Command::Unbridge { leg: C },
        Command::Play { leg: C, prompt: Prompt::new([1]), loops: true, token: 1 },
        Command::Echo { leg: C },
        Command::Stop { leg: C },
        Command::Dtmf { leg: C, digit: '1', duration_ms: 100 },
        Command::Hold { leg: C, on: true },
        Command::Close { leg: C },
        Command::Rename { from: C, leg: A },
    ] {
        let (mut rig, mut a, _) = Rig::joined();
        let name = format!("{command:?}");
        rig.give(command);
        assert_eq!((rig.drain(), rig.poll_action()), (vec![], None), "{name}");
        assert_eq!(rig.usage().0, 2, "{name}");
        assert!(rig.say(&mut a).is_some(), "{name}: A and B are joined as before");
    }
}

#[test]
fn a_new_leg_inherits_nothing_from_the_one_before_in_its_place() {
    let (mut rig, _, mut b) = Rig::joined();
    rig.play(A, &prompt(1000), true, 1);
    rig.give(Command::Dtmf { leg: A, digit: '5', duration_ms: 1000 });
    assert_ne!(rig.pass_rtp(100), []);
    rig.close(A);
    rig.open(C);
    assert_eq!(rig.slot(C), rig.slot(A));
    assert_eq!(rig.pass_rtp(60_000), []);
    assert_eq!(rig.say(&mut b), None);
    assert_eq!(rig.close(B).discards.count(Discard::NoPeer), 1);
    assert_eq!(rig.close(C).discards.total(), 0);
}

#[test]
fn after_a_bug_of_ours_every_leg_is_told_gone() {
    let (mut rig, mut a, _) = Rig::joined();
    rig.say(&mut a);
    rig.packet(A, a.address, b"nonsense");
    rig.drain();
    let counted = (rig.counters(), rig.discards());
    rig.start_over();
    let told = rig.drain();
    assert_eq!(told.iter().map(Event::leg).collect::<Vec<_>>(), [A, A, B, B]);
    for pair in told.chunks(2) {
        assert!(matches!(pair, [Event::Silent { .. }, Event::Closed { .. }]), "{pair:?}");
    }
    assert_eq!(rig.usage(), (0, PAIRS.into()));
    assert_eq!((rig.counters(), rig.discards()), counted, "counters go on");
    assert_eq!(rig.poll_timeout(), None);
    assert!(rig.say(&mut a).is_none());
}
