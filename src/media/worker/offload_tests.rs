//! Somebody else carries packets: when, which, and that nobody can tell afterwards.

use super::{
    Channel,
    rig::{A, B, C, FRAME_MS, Peer, Rig, SILENCE_S, Sent, prompt, stream},
};
use crate::{
    ids::{Entropy, LegId},
    media::{
        Discard, Flow, Progress,
        command::{Command, Event, Latch, Law, Remote},
        path::{Convert, PathMap},
        rtp::{self, SequenceNumber, Timestamp},
        srtp::{Keys, MasterKey, Sender, Suite, TRAILER_MAX},
    },
};

/// Packets after which a try is made.
const ENOUGH: u32 = 65;

/// What a kernel does, in so many words.
struct Carrier {
    flow: Flow,
    progress: Progress,
}

impl Carrier {
    fn new(flow: Flow) -> Self {
        Self { progress: flow.progress, flow }
    }

    /// Carries a packet: what becomes of it, or `None` where it is the worker's.
    fn carry(&mut self, rig: &Rig, peer: &Peer, packet: &[u8]) -> Option<Option<Sent>> {
        let (header, payload) = rtp::read(packet).ok()?;
        let (flow, progress) = (&self.flow, &mut self.progress);
        let numbers = flow.numbers;
        let payload_type = flow.payload_types[usize::from(header.payload_type)]?;
        let is_its = peer.address == flow.peer.into() && header.ssrc.0 == numbers.ssrc_in;
        if !is_its || packet[0] != 0x80 {
            return None;
        }
        let step = header.sequence.since(SequenceNumber(progress.highest as u16));
        match step {
            1..=3000 => {
                let step = step.unsigned_abs().into();
                progress.seen = progress.seen.checked_shl(step).unwrap_or(0) | 1;
                progress.highest = progress.highest.wrapping_add(step);
                progress.top_timestamp = header.timestamp.0;
            }
            -63..=0 => {
                let bit = 1 << step.unsigned_abs();
                if progress.seen & bit != 0 {
                    progress.tally.duplicates += 1;
                    return Some(None);
                }
                progress.seen |= bit;
                progress.tally.reordered += 1;
            }
            _ => return None,
        }
        let spacing = (rig.now - progress.heard_at).as_micros() as i64 * 8 / 1000;
        let expected = i64::from(header.timestamp.since(Timestamp(progress.last_timestamp)));
        let deviation = spacing.abs_diff(expected) as u32;
        progress.jitter = progress.jitter + deviation - (progress.jitter >> 4);
        progress.tally.jitter_sum += u64::from(progress.jitter);
        progress.tally.jitter_samples += 1;
        (progress.last_timestamp, progress.heard_at) = (header.timestamp.0, rig.now);
        progress.tally.packets += 1;
        progress.tally.octets += payload.len() as u64;
        let mut bytes = packet.to_vec();
        let header = rtp::Header {
            payload_type,
            sequence: header.sequence.plus(numbers.sequence_offset),
            timestamp: header.timestamp.plus(numbers.timestamp_offset),
            ssrc: rtp::Ssrc(numbers.ssrc_out),
            ..header
        };
        rtp::rewrite(&mut bytes, &header);
        let (at_ms, slot) = (rig.elapsed_ms(), rig.slot(B));
        Some(Some(Sent { at_ms, slot, channel: Channel::Rtp, to: flow.target.into(), bytes }))
    }
}

/// Two legs that have talked long enough.
fn talked() -> (Rig, Peer, Peer) {
    let (mut rig, mut a, mut b) = Rig::joined();
    for _ in 0..ENOUGH {
        rig.say(&mut a);
        rig.say(&mut b);
        rig.pass(FRAME_MS);
    }
    (rig, a, b)
}

#[test]
fn a_plain_relay_is_offered_once_with_everything_a_carrier_needs() {
    let (mut rig, a, b) = talked();
    assert_eq!(rig.offers(), [rig.slot(A), rig.slot(B)]);
    let flow = rig.flow(rig.slot(A)).unwrap();
    let addresses = [flow.peer, flow.target].map(std::net::SocketAddr::from);
    assert_eq!(addresses, [a.address, b.address]);
    assert_eq!([flow.local.port(), flow.source.port()], [10_000, 10_002]);
    assert_eq!((flow.numbers.ssrc_in, flow.numbers.clock_rate_hz), (a.header.ssrc.0, 8000));
    let carried = (0..128_u8).zip(*flow.payload_types).filter_map(|(from, to)| Some((from, to?)));
    assert_eq!(carried.collect::<Vec<_>>(), [(0, 0), (8, 8)], "digits are heard here");
    assert_eq!(flow.progress.highest as u16, a.header.sequence.0 - 1);
    assert_eq!(flow.progress.top_timestamp, a.header.timestamp.0 - 160);
    assert_eq!((flow.progress.seen, flow.progress.tally.packets), (u64::MAX, 0));
}

type Change = fn(&mut Rig, &mut Peer, &mut Peer);

/// Both peers go on talking after each change.
#[test]
fn what_is_not_plain_stays_here() {
    let not_plain: [(&str, Change); 11] = [
        ("not joined", |rig, _, _| rig.give(Command::Unbridge { leg: A })),
        ("held", |rig, _, _| rig.give(Command::Hold { leg: A, on: true })),
        ("the other held", |rig, _, _| rig.give(Command::Hold { leg: B, on: true })),
        ("the other wants none", |rig, _, b| {
            rig.aim(b, Remote { sends: false, ..b.remote() }, stream(Law::Mu, 96));
        }),
        ("it may not send", |rig, a, _| {
            rig.aim(a, Remote { receives: false, ..a.remote() }, stream(Law::Mu, 101));
        }),
        ("an echo", |rig, _, _| rig.give(Command::Echo { leg: A })),
        ("the other hears a prompt", |rig, _, _| rig.play(B, &prompt(9000), true, 1)),
        ("encrypted", |rig, a, _| secure(rig, a)),
        ("the other encrypted", |rig, _, b| secure(rig, b)),
        ("transcoded", |rig, _, _| bridge(rig, PathMap::new().with(0, 8, Convert::UlawToAlaw))),
        ("it leads nowhere", |rig, _, _| bridge(rig, PathMap::new().with(8, 8, Convert::Keep))),
    ];
    for (name, change) in not_plain {
        let (mut rig, mut a, mut b) = talked();
        assert!(rig.flow(rig.slot(A)).is_some(), "{name}");
        change(&mut rig, &mut a, &mut b);
        for _ in 0..ENOUGH {
            rig.say(&mut a);
            rig.say(&mut b);
            rig.pass(FRAME_MS);
            assert_eq!(rig.flow(rig.slot(A)), None, "{name}");
        }
    }
}

/// After each of these, the relay is as plain as before, a little later.
#[test]
fn what_changes_is_seen_here_first() {
    let changes: [(&str, Change); 5] = [
        ("aimed anew", |rig, a, _| rig.aim(a, a.remote(), stream(Law::Mu, 101))),
        ("the other aimed anew", |rig, _, b| rig.aim(b, b.remote(), stream(Law::Mu, 96))),
        ("the other hears a digit", |rig, _, _| {
            rig.give(Command::Dtmf { leg: B, digit: '1', duration_ms: 100 });
        }),
        ("a key is pressed", |rig, a, _| {
            let packet = rtp::tests::packet(&digit(a), &[1, 10, 0, 160]);
            rig.packet(A, a.address, &packet).unwrap();
        }),
        ("another source", |rig, a, _| {
            a.change_source();
            rig.say(a);
        }),
    ];
    for (name, change) in changes {
        let (mut rig, mut a, mut b) = talked();
        change(&mut rig, &mut a, &mut b);
        assert_eq!(rig.flow(rig.slot(A)), None, "{name}");
        for _ in 0..2 * ENOUGH {
            rig.say(&mut a);
            rig.say(&mut b);
            rig.pass(FRAME_MS);
        }
        assert!(rig.flow(rig.slot(A)).is_some(), "{name}");
    }
    let (mut rig, mut a, _) = Rig::joined();
    rig.talk(&mut a, ENOUGH);
    assert_eq!(rig.flow(rig.slot(A)), None, "the other side was never heard");
}

#[test]
fn a_strict_latch_is_carried_from_where_packets_come() {
    let (mut rig, mut a, _) = talked();
    let signalled = a.address;
    let remote = Remote { latch: Latch::Strict { ranges: [].into() }, ..a.remote() };
    rig.aim(&a, remote, stream(Law::Mu, 101));
    a.address.set_port(7777);
    rig.talk(&mut a, ENOUGH);
    let flow = rig.flow(rig.slot(A)).unwrap();
    assert_eq!(std::net::SocketAddr::from(flow.peer), a.address);
    let back = rig.flow(rig.slot(B)).unwrap();
    assert_eq!(std::net::SocketAddr::from(back.target), signalled, "what was signalled holds");
}

#[test]
fn an_extension_or_a_changing_type_puts_the_try_off() {
    let (mut rig, mut a, mut b) = Rig::joined();
    rig.say(&mut b);
    for n in 0..200 {
        a.header.payload_type = if n % 50 == 0 { 8 } else { 0 };
        rig.say(&mut a);
    }
    assert!(rig.offers().is_empty());
    a.header.payload_type = 0;
    for _ in 0..100 {
        let mut packet = a.next();
        packet.splice(12..12, [0xbe, 0xde, 0, 0]);
        packet[0] |= 0x10;
        assert!(rig.packet(A, a.address, &packet).is_some());
    }
    assert!(rig.offers().is_empty());
}

#[test]
fn commands_want_back_what_they_touch() {
    let hold = |leg| Command::Hold { leg, on: true };
    let map = PathMap::new;
    let bridge = |a, b| Command::Bridge { a, b, a_to_b: map(), b_to_a: map() };
    let (mut rig, ..) = talked();
    rig.peer(C);
    let slots = [A, B].map(|leg| rig.slot(leg));
    let both: &[usize] = &slots;
    for (command, want) in [
        (hold(A), both),
        (hold(B), both),
        (hold(C), &[]),
        (bridge(A, B), both),
        (bridge(A, C), both),
        (bridge(C, B), both),
        (Command::Unbridge { leg: B }, both),
        (Command::Play { leg: A, prompt: prompt(20), loops: false, token: 1 }, both),
        (Command::Dtmf { leg: A, digit: '1', duration_ms: 100 }, both),
        (Command::Close { leg: A }, both),
        (Command::Echo { leg: A }, both),
        (Command::Stop { leg: A }, both),
        (Command::Open { leg: LegId(9), ip: [127, 0, 0, 1].into() }, &[]),
    ] {
        assert_eq!(rig.disturbed_by(&command).next(), None, "nothing is carried");
        for slot in slots {
            let flow = rig.flow(slot).unwrap();
            rig.offloaded(&flow);
        }
        let mut disturbed: Vec<_> = rig.disturbed_by(&command).collect();
        disturbed.sort_unstable();
        disturbed.dedup();
        assert_eq!(disturbed, want, "{command:?}");
        slots.into_iter().for_each(|slot| rig.reclaimed(slot));
    }
}

#[test]
fn packets_that_count_want_their_direction_back() {
    let (mut rig, mut a, b) = talked();
    let slot = rig.slot(A);
    let voice = a.next();
    let digit = rtp::tests::packet(&digit(&a), &[1, 10, 0, 160]);
    assert!(!rig.is_disturbed_by(slot, a.address, &digit), "nothing is carried");
    let flow = rig.flow(slot).unwrap();
    rig.offloaded(&flow);
    for (name, from, packet, want) in [
        ("voice", a.address, &voice[..], true),
        ("a digit", a.address, &digit, true),
        ("a stranger", b.address, &voice, false),
        ("STUN", a.address, &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0], false),
        ("nothing", a.address, &[], false),
    ] {
        assert_eq!(rig.is_disturbed_by(slot, from, packet), want, "{name}");
    }
    assert!(!rig.is_disturbed_by(rig.slot(B), b.address, &voice), "the other direction");
    assert_eq!(rig.flow(slot), None, "it has a carrier already");
}

#[test]
fn a_voice_that_is_carried_is_not_silence() {
    let (mut rig, ..) = talked();
    let slot = rig.slot(A);
    rig.drain();
    rig.give(Command::Hold { leg: B, on: true });
    rig.give(Command::Hold { leg: B, on: false });
    let flow = rig.flow(slot).unwrap();
    rig.offloaded(&flow);
    let mut progress = flow.progress;
    for _ in 0..SILENCE_S {
        rig.pass(1000);
        progress.tally.packets += 50;
        progress.highest += 50;
        progress.heard_at = rig.now;
        rig.absorb(slot, &progress);
    }
    rig.pass(2000);
    let silent =
        |events: Vec<Event>| events.into_iter().map(|event| event.leg()).collect::<Vec<_>>();
    assert_eq!(silent(rig.drain()), [B], "the other side is silent");
    rig.pass(SILENCE_S * 1000);
    assert_eq!(silent(rig.drain()), [A], "no news is silence");
}

/// Two workers get the same packets, with loss, disorder and repetitions. Of one somebody else carries
/// what he can at times. Nobody hears or reads a difference.
#[test]
fn what_is_carried_is_as_if_it_had_not_been() {
    for seed in 0..40 {
        let mut random = Entropy::from_u64(seed);
        let ((mut plain, mut a, _), (mut mixed, ..)) = (talked(), talked());
        let slot = mixed.slot(A);
        let mut carrier: Option<Carrier> = None;
        let mut late: Vec<Vec<u8>> = vec![];
        let mut carried = 0;
        for n in 0..3000 {
            let dice = random.next_u64();
            let mut packets = vec![a.next()];
            match dice % 40 {
                0 => packets.clear(),
                1 => packets.extend(packets.clone()),
                2 => late.append(&mut packets),
                3 => packets.append(&mut late),
                4 if n % 7 == 0 => a.header.sequence = a.header.sequence.plus(200),
                5 if n % 50 == 0 => packets[0] = rtp::tests::packet(&digit(&a), &[1, 0, 0, 160]),
                _ => {}
            }
            for packet in packets {
                let mut sent = None;
                let want = plain.packet(A, a.address, &packet);
                let mut is_carried = false;
                if let Some(carrier) = &mut carrier {
                    let done = carrier.carry(&mixed, &a, &packet);
                    is_carried = done.is_some();
                    sent = done.flatten();
                }
                if !is_carried {
                    if mixed.is_disturbed_by(slot, a.address, &packet) {
                        reclaim(&mut mixed, slot, &mut carrier);
                    }
                    sent = mixed.packet(A, a.address, &packet);
                }
                carried += u32::from(is_carried);
                assert_eq!(sent, want, "seed {seed}, packet {n}");
            }
            match (&carrier, (dice >> 32) % 64) {
                (None, 0..8) => {
                    carrier = mixed.flow(slot).map(Carrier::new);
                    if let Some(carrier) = &carrier {
                        mixed.offloaded(&carrier.flow);
                    }
                }
                (Some(carrier), 0..4) => mixed.absorb(slot, &carrier.progress),
                (Some(_), 4) => reclaim(&mut mixed, slot, &mut carrier),
                (None | Some(_), _) => {}
            }
            let wait = FRAME_MS + dice % 7;
            plain.pass(wait);
            mixed.pass(wait);
        }
        reclaim(&mut mixed, slot, &mut carrier);
        assert!(carried > 1000, "seed {seed}: {carried}");
        assert_same(&mut plain, &mut mixed, seed);
    }
}

#[track_caller]
fn assert_same(plain: &mut Rig, mixed: &mut Rig, seed: u64) {
    let sums = |rig: &Rig| (rig.counters().relayed, rig.counters().relayed_bytes);
    assert_eq!(sums(plain), sums(mixed), "seed {seed}");
    assert!(mixed.counters().offloaded > 1000 && plain.counters().offloaded == 0);
    for leg in [A, B] {
        let [want, got] = [&mut *plain, &mut *mixed].map(|rig| rig.close(leg));
        let counts = |quality: &crate::media::Quality| {
            let [received, sent] = [quality.received, quality.sent];
            let received =
                (received.packets, received.lost, received.duplicate, received.reordered);
            (received, sent.packets, quality.discards.count(Discard::Duplicate))
        };
        assert_eq!(counts(&got), counts(&want), "seed {seed}, {leg}");
        let jitters = [got.received.jitter_ms, want.received.jitter_ms];
        assert!((jitters[0] - jitters[1]).abs() < 0.2, "seed {seed}, {leg}: {jitters:?}");
    }
}

fn reclaim(rig: &mut Rig, slot: usize, carrier: &mut Option<Carrier>) {
    if let Some(carrier) = carrier.take() {
        rig.absorb(slot, &carrier.progress);
        rig.reclaimed(slot);
    }
}

/// The header of a digit that a peer sends next.
fn digit(peer: &Peer) -> rtp::Header {
    rtp::Header { payload_type: 101, marker: true, ..peer.header }
}

fn bridge(rig: &mut Rig, a_to_b: PathMap) {
    rig.give(Command::Bridge { a: A, b: B, a_to_b, b_to_a: PathMap::new() });
}

/// Gives a peer keys, and lets it talk.
fn secure(rig: &mut Rig, peer: &mut Peer) {
    let mut entropy = Entropy::from_u64(1);
    let mut key = || MasterKey::draw(Suite::AesCm128HmacSha1_80, &mut entropy);
    let keys = Keys { send: key(), receive: key() };
    let mut sender = Sender::new(&keys.receive).unwrap();
    let (leg, remote, stream) = (peer.leg, peer.remote(), stream(Law::Mu, 101));
    rig.give(Command::Aim { leg, remote, stream, keys: Some(Box::new(keys)) });
    for _ in 0..ENOUGH {
        let mut packet = peer.next();
        let len = packet.len();
        packet.resize(len + TRAILER_MAX, 0);
        let len = sender.protect_rtp(&mut packet, len).unwrap();
        rig.packet(leg, peer.address, &packet[..len]).unwrap();
    }
}
