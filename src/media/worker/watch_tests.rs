//! What is noticed about peers: their silence, and how well they are heard.

use super::{
    Channel,
    rig::{A, B, FRAME_MS, Peer, Rig, SILENCE_S, prompt, stream},
};
use crate::{
    ids::LegId,
    media::{
        command::{Command, Event, Law, Remote},
        rtp,
    },
};
use std::{collections::BTreeSet, time::Duration};

#[derive(Clone, Copy, Debug)]
enum Step {
    Aim,
    /// With an agreement that the peer does not send.
    AimReceiveOnly,
    Hold(bool),
    /// The peer sends one packet.
    Speaks,
    /// Somebody else sends one.
    StrangerSpeaks,
    /// The peer's last packet comes once more.
    Repeats,
    Close,
}

/// Steps and when they are taken, in seconds; when silence is told.
#[test]
fn silence_is_told_once_where_a_voice_is_expected() {
    use Step::{Aim, AimReceiveOnly, Close, Hold, Repeats, Speaks, StrangerSpeaks};
    type Case = (&'static str, &'static [(u64, Step)], &'static [u64]);
    let cases: [Case; 14] = [
        ("nothing agreed", &[], &[]),
        ("never heard", &[(5, Aim)], &[65]),
        ("heard, then no more", &[(0, Aim), (50, Speaks), (100, Speaks)], &[160]),
        ("heard too late", &[(0, Aim), (61, Speaks)], &[60]),
        ("agreed anew", &[(0, Aim), (50, Aim)], &[110]),
        ("agreed anew after it was told", &[(0, Aim), (100, Aim)], &[60, 160]),
        ("held", &[(0, Aim), (10, Hold(true))], &[]),
        ("held and resumed", &[(0, Aim), (10, Hold(true)), (300, Hold(false))], &[360]),
        ("not held, twice", &[(0, Aim), (30, Hold(false)), (40, Hold(false))], &[60]),
        ("held before it is aimed at", &[(0, Hold(true)), (1, Aim), (300, Hold(false))], &[360]),
        ("it need not send", &[(0, AimReceiveOnly), (10, Hold(true)), (20, Hold(false))], &[]),
        ("a stranger", &[(0, Aim), (1, Speaks), (30, StrangerSpeaks)], &[61]),
        ("an echo of the network", &[(0, Aim), (1, Speaks), (30, Repeats)], &[61]),
        ("gone", &[(0, Aim), (59, Close)], &[]),
    ];
    for (name, steps, want) in cases {
        let mut rig = Rig::new();
        rig.open(A);
        rig.drain();
        let mut told = vec![];
        for second in 0..600 {
            for (_, step) in steps.iter().filter(|(at, _)| *at == second) {
                take(&mut rig, *step);
            }
            rig.pass(1000);
            let silences = rig.drain().into_iter().filter(|e| matches!(e, Event::Silent { .. }));
            told.extend(silences.map(|_| second + 1));
        }
        assert_eq!(told, want, "{name}");
        assert_eq!(rig.counters().silences, want.len() as u64);
    }
    assert_eq!(SILENCE_S, 60, "the table's arithmetic");
}

fn take(rig: &mut Rig, step: Step) {
    let mut peer = Peer::of(A);
    let now_s = u16::try_from(rig.elapsed_ms() / 1000).unwrap();
    peer.header.sequence = peer.header.sequence.plus(now_s);
    match step {
        Step::Aim => rig.aim(&peer, peer.remote(), stream(Law::Mu, 101)),
        Step::AimReceiveOnly => {
            let remote = Remote { receives: false, ..peer.remote() };
            rig.aim(&peer, remote, stream(Law::Mu, 101));
        }
        Step::Hold(on) => rig.give(Command::Hold { leg: A, on }),
        Step::Speaks => drop(rig.say(&mut peer)),
        Step::StrangerSpeaks => {
            peer.address.set_port(9);
            rig.say(&mut peer);
        }
        Step::Repeats => {
            peer.header.sequence = Peer::of(A).header.sequence.plus(1);
            rig.say(&mut peer);
        }
        Step::Close => rig.give(Command::Close { leg: A }),
    }
}

#[test]
fn reports_begin_with_the_agreement_and_follow_the_peer() {
    let mut rig = Rig::new();
    rig.open(A);
    assert_eq!(rig.pass(60_000), [], "nobody to report to");
    let mut peer = Peer::of(A);
    rig.aim(&peer, peer.remote(), stream(Law::Mu, 101));
    let reports = rig.pass(300_000);
    let mut gaps = reports.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms);
    assert!(gaps.all(|gap| (15_000..=45_000).contains(&gap)), "nothing to say");
    assert!((6..=20).contains(&reports.len()), "{}", reports.len());

    let began_ms = rig.elapsed_ms();
    let reports = rig.talk(&mut peer, 1000);
    let first_ms = reports[0].at_ms - began_ms;
    assert!((1250..=3800).contains(&first_ms), "{first_ms}: RFC 3550 6.2");
    let mut gaps = reports.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms);
    assert!(gaps.all(|gap| (2500..=7500).contains(&gap)), "RFC 3550 6.3.1");
    assert!((3..=8).contains(&reports.len()), "{}", reports.len());
    assert!(reports.iter().all(|sent| sent.channel == Channel::Rtcp && sent.bytes[1] == 201));
    assert!(reports.iter().all(|sent| sent.to == peer.remote().rtcp), "a receiver's");

    // Held, it hears no voice, but how it is heard.
    rig.aim(&peer, Remote { sends: false, ..peer.remote() }, stream(Law::Mu, 101));
    assert!((1..=4).contains(&rig.talk(&mut peer, 500).len()));
    rig.give(Command::Close { leg: A });
    assert_eq!(rig.pass(60_000), []);
}

#[test]
fn behind_a_nat_the_port_for_reports_must_show_first() {
    let (mut rig, mut peer) = (Rig::new(), Peer::of(A));
    rig.open(A);
    rig.aim(&peer, Remote { sends: false, ..peer.remote() }, stream(Law::Mu, 101));
    peer.address = ([203, 0, 113, 9], 1024).into();
    assert_eq!(rig.talk(&mut peer, 500), []);
    let (slot, now) = (rig.slot(A), rig.now);
    let from = ([203, 0, 113, 9], 1025).into();
    rig.handle_rtcp(slot, from, &[0x80, 201, 0, 1, 0, 0, 0, 9], now);
    let reports = rig.talk(&mut peer, 500);
    assert!(!reports.is_empty());
    assert!(reports.iter().all(|sent| sent.to == from && sent.bytes[1] == 201));
    rig.give(Command::Close { leg: A });
    assert_eq!(rig.pass(60_000), []);
}

/// A thousand held calls are a few wake-ups a second, not hundreds.
#[test]
fn reports_of_all_legs_are_made_together() {
    let mut rig = Rig::with_pairs(200);
    let mut peers = vec![];
    for n in 1..=200 {
        rig.open(LegId(n));
        let peer = Peer { leg: LegId(n), ..Peer::of(A) };
        rig.aim(&peer, peer.remote(), stream(Law::Mu, 101));
        peers.push(peer);
        rig.pass(7);
    }
    let mut reports = vec![];
    for _ in 0..10 {
        peers.iter_mut().for_each(|peer| drop(rig.say(peer)));
        reports.extend(rig.pass(1000));
    }
    let times = reports.iter().map(|sent| sent.at_ms).collect::<BTreeSet<_>>();
    assert!(reports.len() >= 300, "{}", reports.len());
    assert!(times.iter().all(|ms| ms % 50 == 0), "{times:?}");
}

/// Two workers, 30 ms apart; every tenth packet of the first is lost, and every other comes late.
#[test]
fn both_ends_know_how_it_was() {
    let mut ends = [end(A), end(B)];
    let mut on_the_way: Vec<(u64, usize, Channel, Vec<u8>)> = vec![];
    let mut sent = 0;
    for ms in 0..30_000 {
        for (n, rig) in ends.iter_mut().enumerate() {
            let leg = [A, B][n];
            on_the_way.retain(|(at, to, channel, bytes)| {
                let is_due = *at <= ms && *to == n;
                if is_due {
                    let other = Peer::of([B, A][n]).remote();
                    let (slot, now) = (rig.slot(leg), rig.now);
                    match channel {
                        Channel::Rtp => drop(rig.packet(leg, other.rtp, bytes)),
                        Channel::Rtcp => rig.handle_rtcp(slot, other.rtcp, bytes, now),
                    }
                }
                !is_due
            });
            for packet in rig.pass(1) {
                let is_first = n == 0 && packet.channel == Channel::Rtp;
                sent += u64::from(is_first);
                if is_first && sent % 10 == 0 {
                    continue;
                }
                let late = u64::from(is_first && sent % 2 == 0) * 8;
                on_the_way.push((ms + 30 + late, 1 - n, packet.channel, packet.bytes));
            }
        }
    }
    let [a, b] = ends;
    assert_eq!((a.counters().reports, b.counters().reports), (6, 6));
    let (a, b) = (closed(a, A), closed(b, B));
    let near =
        |value: f64, want: f64, by: f64| assert!((value - want).abs() <= by, "{value} {want}");
    assert_eq!(a.sent.packets, sent);
    near(b.received.lost as f64, 150.0, 1.0);
    near(a.sent.lost as f64, 125.0, 26.0);
    assert_eq!((a.received.lost, b.sent.lost), (0, 0));
    for rtt in [a.rtt_ms, b.rtt_ms] {
        near(rtt.unwrap(), 60.0, 5.0);
    }
    assert!(b.received.jitter_ms > 3.0 && a.sent.jitter_ms > 3.0, "{b:?}");
    assert!(a.received.jitter_ms < 1.5 && b.sent.jitter_ms < 1.5, "{a:?}");
    assert!(b.received.mos.unwrap() < a.received.mos.unwrap());
    near(a.sent.mos.unwrap(), b.received.mos.unwrap(), 0.3);
}

/// A leg that plays to a leg of another worker.
fn end(leg: LegId) -> Rig {
    let mut rig = Rig::new();
    rig.open(leg);
    let other = Peer::of(if leg == A { B } else { A });
    let peer = Peer { leg, ..other };
    rig.aim(&peer, peer.remote(), stream(Law::Mu, 101));
    rig.play(leg, &prompt(1000), true, 1);
    rig
}

fn closed(mut rig: Rig, leg: LegId) -> crate::media::Quality {
    rig.close(leg)
}

#[test]
fn what_comes_to_the_wrong_port_is_no_report() {
    let mut rig = Rig::new();
    let peer = rig.peer(A);
    let (slot, now) = (rig.slot(A), rig.now);
    let voice = rtp::tests::packet(&peer.header, &[0; 160]);
    for bytes in [&voice[..], &[], &[0xff; 64], &[0x80, 201], &[0; 70_000]] {
        rig.handle_rtcp(slot, peer.remote().rtcp, bytes, now);
    }
    let quality = rig.close(A);
    let counts = [crate::media::Discard::NotRtcp, crate::media::Discard::TooLong];
    assert_eq!(counts.map(|why| quality.discards.count(why)), [4, 1]);
    assert_eq!((quality.rtt_ms, quality.received.packets, quality.sent.mos), (None, 0, None));
}

#[test]
fn delay_in_the_relay_is_measured() {
    let (mut rig, ..) = Rig::joined();
    let slot = rig.slot(A);
    for n in 0..200_u64 {
        rig.note_delay(slot, Duration::from_micros(100 + n % 2 * 50));
    }
    let quality = rig.close(A);
    assert!((quality.relay_jitter_us - 50.0).abs() < 0.1, "{}", quality.relay_jitter_us);
    assert!((quality.relay_delay_max_us - 150.0).abs() < 1e-6);
    assert_eq!(FRAME_MS, 20);
}

/// A thousand legs: each is due at its own time, and nobody is forgotten.
#[test]
fn a_thousand_legs_keep_their_own_time() {
    let mut rig = Rig::with_pairs(1000);
    let legs = (0..1000).map(LegId).collect::<Vec<_>>();
    for (n, leg) in legs.iter().enumerate() {
        rig.open(*leg);
        let peer = Peer { leg: *leg, ..Peer::of(A) };
        rig.aim(&peer, peer.remote(), stream(Law::Mu, 101));
        if n % 2 == 0 {
            rig.play(*leg, &prompt(1000), true, 0);
        }
        rig.pass(u64::from(n % 10 == 0));
    }
    let heard = rig.pass_rtp(1000);
    let mut counts = vec![0; 1000];
    heard.iter().for_each(|sent| counts[sent.slot] += 1);
    for (n, count) in counts.into_iter().enumerate() {
        assert_eq!(count, if n % 2 == 0 { 50 } else { 0 }, "leg {n}");
    }
    assert!(heard.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
    legs.iter().for_each(|leg| rig.give(Command::Close { leg: *leg }));
    assert_eq!((rig.poll_timeout(), rig.usage()), (None, (0, 1000)));
}
