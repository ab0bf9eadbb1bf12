//! A bad network and wild peers: a thousand seeds, and whatever proptest finds.

use super::{
    Channel,
    rig::{A, B, C, FRAME_MS, PAIRS, Peer, Rig, Sent, prompt, stream},
};
use crate::{
    ids::{Entropy, LegId},
    media::{
        command::{Command, Latch, Law, Remote},
        path::{Convert, PathMap},
        rtp::{self, Header, SequenceNumber, Ssrc, Timestamp},
    },
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SEEDS: u64 = 1000;
const FRAMES: u64 = 300;

/// What one seed did.
struct Storm {
    heard: Vec<Sent>,
    /// Frames that never arrived.
    lost: u64,
    /// Frames that came after a later one, where one of the two was withheld.
    behind: u64,
}

#[test]
fn a_thousand_seeds_leave_one_source_without_holes_of_our_own() {
    for seed in 0..SEEDS {
        let storm = storm(seed);
        if let Err(broken) = check(&storm) {
            panic!("seed {seed}: {broken}");
        }
    }
}

/// A talks to B through a bad network, while B is held, plays, presses keys, and A changes.
fn storm(seed: u64) -> Storm {
    let mut entropy = Entropy::from_u64(seed);
    let (mut rig, mut a, b) = Rig::joined();
    let (mut on_the_way, mut heard, mut lost, mut held_until) = (vec![], vec![], 0, None);
    let (mut came, mut withheld, mut behind) = (BTreeSet::new(), None, 0);
    for frame in 0..FRAMES + 10 {
        let now_ms = frame * FRAME_MS;
        disturb(&mut rig, (&mut a, &b), (now_ms, &mut held_until), &mut entropy);
        // At the end, what is on the way still arrives.
        if frame < FRAMES {
            lost += u64::from(!send(&mut a, (now_ms, frame), &mut on_the_way, &mut entropy));
        }
        for ms in now_ms..now_ms + FRAME_MS {
            on_the_way.retain(|(at, frame, packet)| {
                if *at > ms {
                    return true;
                }
                let sent = rig.packet(A, a.address, packet);
                let is_behind = came.last() > Some(frame);
                if came.insert(*frame) {
                    withheld = withheld.max(sent.is_none().then_some(*frame));
                    behind += u64::from(is_behind && withheld >= Some(*frame));
                }
                heard.extend(sent);
                false
            });
            heard.extend(rig.pass_rtp(1));
        }
    }
    for leg in [A, B] {
        rig.close(leg);
    }
    assert_eq!((rig.usage(), rig.poll_timeout()), ((0, PAIRS.into()), None), "seed {seed}");
    Storm { heard, lost, behind }
}

/// Sends the next frame; returns whether at least one copy will arrive.
fn send(
    a: &mut Peer,
    (now_ms, frame): (u64, u64),
    on_the_way: &mut Vec<(u64, u64, Vec<u8>)>,
    entropy: &mut Entropy,
) -> bool {
    let packet = a.next();
    let copies = match entropy.below(100) {
        0..5 => 0,
        5..10 => 2,
        _ => 1,
    };
    for _ in 0..copies {
        let overtaken = if entropy.below(10) == 0 { 90 } else { 15 };
        on_the_way.push((now_ms + entropy.below(overtaken), frame, packet.clone()));
    }
    copies > 0
}

fn disturb(
    rig: &mut Rig,
    (a, b): (&mut Peer, &Peer),
    (now_ms, held_until): (u64, &mut Option<u64>),
    entropy: &mut Entropy,
) {
    if held_until.is_some_and(|until| until <= now_ms) {
        *held_until = None;
        rig.aim(b, b.remote(), stream(Law::Mu, 96));
    }
    match entropy.below(200) {
        0 => rig.play(B, &prompt(100), false, 1),
        1 => rig.give(Command::Dtmf { leg: B, digit: '5', duration_ms: 80 }),
        2 => a.change_source(),
        3 => {
            *held_until = Some(now_ms + 200);
            rig.aim(b, Remote { sends: false, ..b.remote() }, stream(Law::Mu, 96));
        }
        4 => {
            rig.give(Command::Unbridge { leg: A });
            rig.join(A, B);
        }
        5 => rig.join(A, B),
        6 => rig.aim(a, a.remote(), stream(Law::Mu, 101)),
        _ => {}
    }
}

fn check(storm: &Storm) -> Result<(), String> {
    let mut heard = storm.heard.iter().map(|sent| (sent.header(), sent)).collect::<Vec<_>>();
    let first = heard.first().ok_or("nothing was heard")?.0;
    if heard.iter().any(|(header, _)| header.ssrc != first.ssrc) {
        return Err("more than one source".into());
    }
    heard.sort_by_key(|(header, _)| header.sequence.since(first.sequence));
    for pair in heard.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        if before.sequence == after.sequence {
            return Err(format!("{:?} twice", after.sequence));
        }
        if after.timestamp.since(before.timestamp) < 0 {
            return Err(format!("time goes back: {before:?} {after:?}"));
        }
    }
    let last = heard.last().ok_or("nothing was heard")?.0;
    let span = u64::try_from(last.sequence.since(heard[0].0.sequence)).unwrap_or(0) + 1;
    let holes = span - heard.len() as u64;
    if holes > storm.lost + storm.behind {
        return Err(format!("{holes} holes, {} lost, {} behind", storm.lost, storm.behind));
    }
    let relayed =
        heard.iter().filter(|(header, sent)| header.payload_type == 0 && sent.payload().len() == 4);
    let frames = relayed.clone().map(|(_, sent)| sent.payload()).collect::<BTreeSet<_>>();
    if frames.len() != relayed.count() {
        return Err("a frame was relayed twice".into());
    }
    Ok(())
}

/// Something that happens to a worker.
#[derive(Clone, Debug)]
enum Happening {
    Command(u8, u8, u8),
    /// From one of a few addresses to one of a few legs.
    Rtp(u8, u8, Vec<u8>),
    Rtcp(u8, u8, Vec<u8>),
    Time(u16),
    /// Whether the next bind succeeds.
    Bound(bool),
}

fn leg(n: u8) -> LegId {
    [A, B, C, LegId(4)][usize::from(n % 4)]
}

fn command(kind: u8, n: u8, value: u8) -> Command {
    let (leg, other) = (leg(n), leg(n.wrapping_add(value % 3).wrapping_add(1)));
    let peer = Peer::of(leg);
    let map = |to, convert| PathMap::new().with(0, to, convert).with(101, 96, Convert::Keep);
    match kind % 12 {
        0 | 1 => Command::Open { leg, ip: [127, 0, 0, 1].into() },
        2 | 3 => {
            let latch = if value.is_multiple_of(4) {
                Latch::Strict { ranges: [].into() }
            } else {
                Latch::Learn { near: None }
            };
            let (sends, receives) = (value & 16 == 0, value & 32 == 0);
            let mut stream = stream(if value & 1 == 0 { Law::Mu } else { Law::A }, 101);
            stream.ptime_ms = u16::from(value);
            if value & 64 != 0 {
                (stream.voice, stream.clock_rate) = (None, u32::from(value & 1) * 48_000);
            }
            Command::Aim {
                leg,
                remote: Remote { latch, sends, receives, ..peer.remote() },
                stream,
                keys: None,
            }
        }
        4 | 5 => {
            let (a_to_b, b_to_a) = (map(8, Convert::UlawToAlaw), map(0, Convert::Keep));
            Command::Bridge { a: leg, b: other, a_to_b, b_to_a }
        }
        6 => Command::Unbridge { leg },
        7 => {
            let (loops, token) = (value & 1 == 0, value.into());
            Command::Play { leg, prompt: prompt(usize::from(value)), loops, token }
        }
        8 => match value % 3 {
            0 => Command::Echo { leg },
            1 => Command::Stop { leg },
            _ => Command::Hold { leg, on: value & 8 == 0 },
        },
        9 => {
            let duration_ms = u16::from(value) * 257;
            Command::Dtmf { leg, digit: char::from(value), duration_ms }
        }
        10 => Command::Rename { from: other, leg },
        _ => Command::Close { leg },
    }
}

/// Anything, but mostly what looks like RTP of one of few sources.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let plausible =
        (0..4_u32, 0..100_u16, any::<u32>(), 0..8_usize, prop::collection::vec(any::<u8>(), 0..40));
    let plausible = plausible.prop_map(|(ssrc, sequence, timestamp, kind, payload)| {
        let payload_type = [0, 0, 0, 8, 101, 101, 96, 13][kind];
        let header = Header {
            marker: false,
            payload_type,
            sequence: SequenceNumber(sequence.wrapping_mul(7).wrapping_sub(300)),
            timestamp: Timestamp(timestamp),
            ssrc: Ssrc(ssrc),
        };
        rtp::tests::packet(&header, &payload)
    });
    let like_rtcp = prop::collection::vec(any::<u8>(), 0..80).prop_map(|mut bytes| {
        if let Some([first, second, ..]) = bytes.get_mut(..2) {
            (*first, *second) = (0x80 | (*first & 0x3f), 200 + *second % 8);
        }
        bytes
    });
    prop_oneof![4 => plausible, 2 => like_rtcp, 1 => prop::collection::vec(any::<u8>(), 0..3000)]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => any::<(u8, u8, u8)>().prop_map(|(kind, n, value)| Happening::Command(kind, n, value)),
        6 => (any::<u8>(), any::<u8>(), bytes()).prop_map(|(n, from, b)| Happening::Rtp(n, from, b)),
        2 => (any::<u8>(), any::<u8>(), bytes()).prop_map(|(n, from, b)| Happening::Rtcp(n, from, b)),
        2 => any::<u16>().prop_map(Happening::Time),
        2 => prop::bool::weighted(0.8).prop_map(Happening::Bound),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_happens_no_port_is_lost(happenings in prop::collection::vec(happening(), 0..120)) {
        let mut rig = Rig::new();
        for happening in happenings {
            let now = rig.now;
            let from = |n: u8| Peer::of(leg(n / 4)).address;
            match happening {
                Happening::Command(kind, n, value) => rig.handle_command(command(kind, n, value), now),
                Happening::Rtp(n, by, mut bytes) => {
                    let before = bytes.len();
                    let sent = rig.handle_rtp((n % 5).into(), from(by), (&mut bytes, before), now);
                    prop_assert!(sent.is_none_or(|sent| sent.packet.len() == before));
                }
                Happening::Rtcp(n, by, bytes) => {
                    rig.handle_rtcp((n % 5).into(), from(by), &bytes, now);
                }
                Happening::Time(ms) => {
                    let sent = rig.pass(u64::from(ms) / 8);
                    prop_assert!(sent.iter().all(|sent| !sent.bytes.is_empty()));
                    prop_assert!(sent.iter().all(|sent| !sent.to.ip().is_unspecified()));
                    prop_assert!(sent.iter().filter(|s| s.channel == Channel::Rtp).all(|s| rtp::read(&s.bytes).is_ok()));
                }
                Happening::Bound(is_bound) => {
                    match rig.poll_action() {
                        Some(super::Action::Bind { slot, .. }) => rig.bound(slot, is_bound, now),
                        Some(super::Action::BindRtcp { slot }) => rig.bound_rtcp(slot, is_bound),
                        Some(_) | None => {}
                    }
                }
            }
            let (legs, free) = rig.usage();
            prop_assert_eq!(legs + free, usize::from(PAIRS));
        }
        for n in 0..4 {
            let now = rig.now;
            rig.handle_command(Command::Close { leg: leg(n) }, now);
        }
        prop_assert_eq!(rig.usage(), (0, usize::from(PAIRS)));
        prop_assert_eq!(rig.poll_timeout(), None);
    }
}
