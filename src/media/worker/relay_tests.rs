//! Packets on their way from one leg to the other.

use super::{
    Channel,
    rig::{A, B, C, FRAME_MS, Peer, Rig, Sent, assert_continuous, prompt, stream},
};
use crate::{
    ids::Entropy,
    media::{
        Discard,
        command::{Command, Event, Latch, Law, Remote},
        path::{Convert, PathMap},
        rtp::{self, DATAGRAM_MAX, SequenceNumber},
        srtp::{Keys, MasterKey, Sender, Suite, TRAILER_MAX},
    },
    network::Network,
};
use std::net::SocketAddr;

#[test]
fn payload_types_may_come_in_any_order() {
    let (mut rig, mut a, _) = Rig::joined();
    let a_to_b = PathMap::new().with(0, 8, Convert::Keep).with(101, 96, Convert::Keep);
    rig.give(Command::Bridge { a: A, b: B, a_to_b, b_to_a: PathMap::new() });
    for (from, to) in
        [(101, Some(96)), (0, Some(8)), (0, Some(8)), (3, None), (3, None), (101, Some(96))]
    {
        let header = rtp::Header { payload_type: from, ..a.header };
        let sent = rig.packet(A, a.address, &rtp::tests::packet(&header, &[1, 2, 3]));
        assert_eq!(sent.map(|sent| sent.header().payload_type), to, "{from}");
        a.header.sequence = a.header.sequence.next();
    }
}

#[test]
fn payload_types_and_codecs_are_mapped() {
    use Convert::{AlawToUlaw, Keep, UlawToAlaw};
    for (from, to, convert, payload, want) in [
        (0, 0, Keep, &[1, 2, 3][..], &[1, 2, 3][..]),
        (111, 96, Keep, &[9; 5], &[9; 5]),
        (0, 8, UlawToAlaw, &[0xff, 0x7f, 0x00], &[0xd5, 0x55, 0x2a]),
        (8, 0, AlawToUlaw, &[0xd5, 0x55, 0x2a], &[0xfe, 0x7e, 0x00]),
        (0, 8, UlawToAlaw, &[], &[]),
    ] {
        let (mut rig, mut a, b) = Rig::joined();
        let a_to_b = PathMap::new().with(from, to, convert);
        rig.give(Command::Bridge { a: A, b: B, a_to_b, b_to_a: PathMap::new() });
        a.header.payload_type = from;
        let sent = rig.packet(A, a.address, &rtp::tests::packet(&a.header, payload)).unwrap();
        let name = format!("{from} to {to}, {convert:?}");
        assert_eq!((sent.header().payload_type, sent.payload()), (to, want), "{name}");
        assert_eq!((sent.slot, sent.channel, sent.to), (rig.slot(B), Channel::Rtp, b.address));
        let counters = rig.counters();
        let transcoded = u64::from(convert != Keep);
        assert_eq!((counters.relayed, counters.transcoded), (1, transcoded), "{name}");
        assert_eq!(counters.relayed_bytes, 12 + want.len() as u64);

        a.next();
        a.header.payload_type = 77;
        assert_eq!(rig.say(&mut a), None);
        assert_eq!(rig.discarded(Discard::NotNegotiated), 1);
    }
}

#[test]
fn losses_and_order_are_passed_on_and_copies_are_not() {
    let (mut rig, mut a, _) = Rig::joined();
    let packets = (0..8).map(|_| a.next()).collect::<Vec<_>>();
    let order = [0, 1, 3, 2, 3, 5, 5, 7, 6, 0];
    let heard = order.map(|n| Some((n, rig.packet(A, a.address, &packets[n])?.header())));
    let heard = heard.into_iter().flatten().collect::<Vec<_>>();
    let came = heard.iter().map(|(n, _)| *n).collect::<Vec<_>>();
    assert_eq!(came, [0, 1, 3, 2, 5, 7, 6], "once each");
    let first = heard[0].1;
    for (n, header) in &heard {
        let steps = header.sequence.since(first.sequence);
        assert_eq!((steps, header.timestamp.since(first.timestamp)), (*n as i16, *n as i32 * 160));
        assert_eq!(header.marker, *n == 0, "a talkspurt begins once");
    }
    let quality = rig.close(A);
    let received = quality.received;
    let counts = (received.packets, received.lost, received.duplicate, received.reordered);
    assert_eq!(counts, (7, 1, 3, 2));
    assert_eq!(quality.discards.count(Discard::Duplicate), 3);
}

/// Whatever feeds B, it hears one source without a hole.
#[test]
fn a_peer_hears_one_source_through_all_changes() {
    let (mut rig, mut a, b) = Rig::joined();
    let mut heard = rig.talk(&mut a, 3);
    rig.play(B, &prompt(60), false, 1);
    heard.extend(rig.talk(&mut a, 4));
    heard.extend(rig.talk(&mut a, 2));
    a.change_source();
    heard.extend(rig.talk(&mut a, 3));
    rig.give(Command::Dtmf { leg: B, digit: '7', duration_ms: 100 });
    heard.extend(rig.talk(&mut a, 12));

    // It holds, and comes back.
    let held = Remote { sends: false, ..b.remote() };
    rig.aim(&b, held, stream(Law::Mu, 96));
    assert_eq!(rig.talk(&mut a, 5), []);
    rig.aim(&b, b.remote(), stream(Law::Mu, 96));
    heard.extend(rig.talk(&mut a, 3));

    // A moves away, and a leg in its place comes.
    rig.give(Command::Unbridge { leg: B });
    assert_eq!(rig.talk(&mut a, 5), []);
    rig.join(A, B);
    heard.extend(rig.talk(&mut a, 2));
    rig.close(A);
    let mut c = rig.peer(C);
    c.header = a.header;
    assert_eq!(rig.slot(C), rig.slot(A), "the numbers alone do not tell them apart");
    assert_eq!(rig.say(&mut c), None, "not joined yet");
    // As A did: the same run of the same slot, and numbers that A had a moment ago.
    c.change_source();
    c.header.sequence = a.header.sequence.plus(50_u16.wrapping_neg());
    rig.join(C, B);
    let of_c = rig.talk(&mut c, 3);
    assert_eq!(of_c.iter().filter(|sent| is_voice(sent)).count(), 3, "none is a straggler of A's");
    heard.extend(of_c);

    // Something that B does not take in between.
    c.header.payload_type = 13;
    assert_eq!(rig.talk(&mut c, 2), []);
    c.header.payload_type = 0;
    heard.extend(rig.talk(&mut c, 2));

    heard.retain(|sent| sent.channel == Channel::Rtp);
    assert!(heard.iter().all(|sent| sent.to == b.address && sent.slot == rig.slot(B)));
    assert_continuous(&heard);
    let relayed = heard.iter().filter(|sent| sent.payload().len() == 4 && is_voice(sent)).count();
    assert!(relayed >= 20, "{relayed}");
}

fn is_voice(sent: &Sent) -> bool {
    sent.header().payload_type == 0
}

/// Two callees ring with early media, and the third answers.
#[test]
fn early_media_changes_hands() {
    let mut rig = Rig::new();
    let caller = rig.peer(A);
    let mut callees = [B, C, crate::ids::LegId(4)].map(|leg| rig.peer(leg));
    let mut heard = vec![];
    for n in 0..callees.len() {
        rig.join(A, callees[n].leg);
        for (other, callee) in callees.iter_mut().enumerate() {
            let sent = rig.say(callee);
            assert_eq!(sent.is_some(), other == n, "only whom the caller is joined with is heard");
            heard.extend(sent);
        }
        heard.extend(rig.pass(FRAME_MS));
        heard.extend(rig.talk(&mut callees[n], 3));
    }
    heard.retain(|sent| sent.channel == Channel::Rtp);
    assert_eq!(heard.len(), 12);
    assert!(heard.iter().all(|sent| sent.to == caller.address));
    assert_continuous(&heard);
    assert_eq!(rig.discarded(Discard::NoPeer), 6);
}

#[test]
fn a_trunks_media_comes_from_its_address_or_ranges() {
    let (mut rig, a, mut b) = Rig::joined();
    let ranges = [Network::v4([168, 86, 128, 0], 18)].into();
    rig.aim(&a, Remote { latch: Latch::Strict { ranges }, ..a.remote() }, stream(Law::Mu, 101));
    let mut sender = a.clone();
    for (from, passes) in [
        ("192.0.2.1:4000", true),
        ("192.0.2.1:9", true),
        ("168.86.191.255:30000", true),
        ("168.86.192.0:30000", false),
        ("192.0.2.2:4000", false),
        ("[2001:db8::1]:4000", false),
    ] {
        let from: SocketAddr = from.parse().unwrap();
        let sent = rig.packet(A, from, &sender.next());
        assert_eq!(sent.is_some(), passes, "{from}");
        assert_eq!(rig.say(&mut b).map(|sent| sent.to), Some(a.address), "never learned");
    }
    assert_eq!(rig.discarded(Discard::StrangeSource), 3);
}

/// A carrier answers from another machine than the one that rang: another SSRC, port and address,
/// within its ranges. The phone hears one source, and the carrier is sent to where its SDP says.
#[test]
fn a_trunks_source_changes_when_it_answers() {
    let (mut rig, mut phone, mut carrier) = Rig::joined();
    let ranges: std::sync::Arc<[Network]> = [Network::v4([168, 86, 128, 0], 18)].into();
    let mut signalled = carrier.clone();
    signalled.address = ([168, 86, 130, 1], 10_500).into();
    carrier.address = signalled.address;
    let remote = Remote { latch: Latch::Strict { ranges }, ..signalled.remote() };
    rig.aim(&carrier, remote.clone(), stream(Law::Mu, 96));
    let mut heard = rig.talk(&mut carrier, 5);

    let early = carrier.clone();
    carrier.change_source();
    carrier.address = ([168, 86, 140, 77], 31_002).into();
    heard.extend(rig.talk(&mut carrier, 5));
    // The 200 OK comes after the media of whom it speaks, and says the same as the 183.
    rig.aim(&carrier, remote, stream(Law::Mu, 96));
    heard.extend(rig.talk(&mut carrier, 5));
    assert_continuous(
        &heard.iter().filter(|s| s.channel == Channel::Rtp).cloned().collect::<Vec<_>>(),
    );
    assert_eq!(rig.say(&mut phone).map(|sent| sent.to), Some(signalled.address));

    let mut straggler = early;
    assert_eq!(rig.say(&mut straggler), None, "what was on the way is late");
    assert_eq!(rig.discarded(Discard::Late), 1);
    carrier.address = ([203, 0, 113, 9], 31_002).into();
    assert_eq!(rig.say(&mut carrier), None, "not one of the carrier's addresses");
    assert_eq!(rig.discarded(Discard::StrangeSource), 1);
    let received = rig.close(B).received;
    assert_eq!((received.packets, received.lost), (15, 0), "no loss by the change");
}

#[test]
fn a_phones_media_is_latched_once_per_offer_and_answer() {
    let (mut rig, mut a, mut b) = Rig::joined();
    rig.say(&mut b);
    rig.drain();
    let (real, stranger): (SocketAddr, SocketAddr) =
        (([203, 0, 113, 9], 1024).into(), ([203, 0, 113, 66], 6666).into());
    let mut round = |rig: &mut Rig, first: SocketAddr, second: SocketAddr, before: SocketAddr| {
        assert_eq!(rig.say(&mut b).unwrap().to, before, "where it was until it is heard");
        let packet = a.next();
        assert!(rig.packet(A, first, &packet).is_some());
        assert_eq!(rig.drain(), [Event::FirstPacket { leg: A, from: first }]);
        for _ in 0..3 {
            assert_eq!(rig.packet(A, second, &a.next()), None);
            assert!(rig.packet(A, first, &a.next()).is_some());
        }
        assert_eq!(rig.say(&mut b).unwrap().to, first);
        assert_eq!(rig.drain(), [], "told once");
    };
    let signalled = Peer::of(A).address;
    let again = |rig: &mut Rig| {
        rig.aim(&Peer::of(A), Peer::of(A).remote(), stream(Law::Mu, 101));
    };
    round(&mut rig, real, stranger, signalled);
    again(&mut rig);
    round(&mut rig, real, stranger, real);
    again(&mut rig);
    round(&mut rig, signalled, stranger, real);
    assert_eq!(rig.discarded(Discard::StrangeSource), 9);
}

/// Somebody found the port before the caller spoke: it hears nothing, and the caller is heard.
#[test]
fn who_speaks_first_gets_nothing_and_keeps_nobody_out() {
    for (attacker, passes) in [("203.0.113.66:6666", 0), ("192.0.2.1:6666", 20)] {
        let (mut rig, mut caller, mut callee) = Rig::joined();
        let near = Some(Box::new(caller.address.ip()));
        let remote = Remote { latch: Latch::Learn { near }, ..caller.remote() };
        rig.aim(&caller, remote, stream(Law::Mu, 101));
        let mut attack = caller.clone();
        attack.change_source();
        attack.address = attacker.parse().unwrap();
        let (mut passed, mut bled) = (0, 0);
        for _ in 0..20 {
            passed += usize::from(rig.say(&mut attack).is_some());
            bled += usize::from(rig.say(&mut callee).is_some_and(|sent| sent.to == attack.address));
        }
        assert_eq!((passed, bled), (passes, 0), "{attacker}");
        for _ in 0..50 {
            assert!(rig.say(&mut caller).is_some(), "{attacker} keeps the caller out");
            assert_eq!(rig.say(&mut attack), None, "{attacker}");
            assert_eq!(rig.say(&mut callee).map(|sent| sent.to), Some(caller.address));
        }
    }
}

/// What B's side of an offer and answer says; whether B is sent to, whether it is heard.
#[test]
fn a_hold_stops_what_it_says() {
    let nowhere = |text: &str| Remote { rtp: text.parse().unwrap(), ..Peer::of(B).remote() };
    let remote = Peer::of(B).remote();
    for (name, remote, is_sent_to, is_heard) in [
        ("sendrecv", remote.clone(), true, true),
        ("we may not send", Remote { sends: false, ..remote.clone() }, false, true),
        ("it may not send", Remote { receives: false, ..remote.clone() }, true, false),
        ("0.0.0.0", nowhere("0.0.0.0:4000"), false, true),
        ("::", nowhere("[::]:4000"), false, true),
        ("port 0", nowhere("192.0.2.2:0"), false, true),
        ("inactive", Remote { sends: false, receives: false, ..remote }, false, false),
    ] {
        let (mut rig, mut a, mut b) = Rig::joined();
        rig.say(&mut b);
        rig.aim(&b, remote.clone(), stream(Law::Mu, 96));
        assert_eq!(rig.say(&mut a).is_some(), is_sent_to, "{name}");
        assert_eq!(rig.say(&mut b).is_some(), is_heard, "{name}");
        let discards = [Discard::PeerOnHold, Discard::NotReceiving].map(|why| rig.discarded(why));
        assert_eq!(discards, [u64::from(!is_sent_to), u64::from(!is_heard)], "{name}");
        rig.play(B, &prompt(40), false, 1);
        assert_eq!(rig.pass_rtp(100).len(), if is_sent_to { 2 } else { 0 }, "{name}: a prompt");
        assert!(rig.drain().contains(&Event::Played { leg: B, token: 1 }), "{name}");
    }
}

#[test]
fn legs_are_separated_and_joined_with_other_maps() {
    let (mut rig, mut a, mut b) = Rig::joined();
    assert!(rig.say(&mut a).is_some() && rig.say(&mut b).is_some());
    rig.give(Command::Unbridge { leg: B });
    assert!(rig.say(&mut a).is_none() && rig.say(&mut b).is_none());
    rig.give(Command::Unbridge { leg: B });
    let a_to_b = PathMap::new().with(0, 8, Convert::UlawToAlaw);
    let b_to_a = PathMap::new();
    rig.give(Command::Bridge { a: A, b: B, a_to_b, b_to_a });
    assert_eq!(rig.say(&mut a).map(|sent| sent.header().payload_type), Some(8));
    assert_eq!(rig.say(&mut b), None);

    // A third takes A's place: B is left alone.
    let mut c = rig.peer(C);
    rig.join(C, A);
    assert!(rig.say(&mut b).is_none());
    assert_eq!(rig.say(&mut a).map(|sent| sent.to), Some(c.address));
    assert_eq!(rig.say(&mut c).map(|sent| sent.to), Some(a.address));
    rig.close(A);
    assert!(rig.say(&mut c).is_none() && rig.say(&mut b).is_none());
}

#[test]
fn joining_again_keeps_a_prompt_and_joining_another_ends_it() {
    let (mut rig, _, _) = Rig::joined();
    rig.play(A, &prompt(1000), true, 1);
    rig.join(A, B);
    assert_eq!(rig.pass_rtp(100).len(), 6);
    rig.peer(C);
    rig.join(A, C);
    assert_eq!(rig.pass_rtp(100), []);
}

#[test]
fn packets_of_any_length_pass_or_are_counted() {
    let (mut rig, mut a, _) = Rig::joined();
    for len in (0..=200).chain(2000..=2100).chain([1460, 4096, 9000, 65_507, 70_000]) {
        let before = rig.discards();
        let packet = if len < 12 {
            vec![0x80; len]
        } else {
            let packet = rtp::tests::packet(&a.header, &vec![7; len - 12]);
            a.next();
            packet
        };
        let sent = rig.packet(A, a.address, &packet);
        assert_eq!(
            sent.map(|sent| sent.bytes.len()),
            (12..=DATAGRAM_MAX).contains(&len).then_some(len)
        );
        let [short, long] =
            [Discard::TooShort, Discard::TooLong].map(|why| rig.discarded(why) - before.count(why));
        assert_eq!((short, long), (u64::from(len < 12), u64::from(len > DATAGRAM_MAX)), "{len}");
    }
}

/// Contributing sources, a header extension and padding stay as they are; only the payload between
/// them is transcoded.
#[test]
fn what_surrounds_a_payload_is_left_alone() {
    let csrc = [1, 2, 3, 4, 5, 6, 7, 8];
    let extension = [0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0];
    let padding = [0, 0, 0, 4];
    for (first, before, after) in [
        (0x82, &csrc[..], &[][..]),
        (0x90, &extension, &[]),
        (0xa0, &[], &padding),
        (0xb2, &[csrc, extension].concat(), &padding),
    ] {
        let (mut rig, a, _) = Rig::joined();
        let a_to_b = PathMap::new().with(0, 8, Convert::UlawToAlaw);
        rig.give(Command::Bridge { a: A, b: B, a_to_b, b_to_a: PathMap::new() });
        let fixed = &rtp::tests::packet(&a.header, &[])[1..];
        let packet = [&[first], fixed, before, &[0xff; 20], after].concat();
        let sent = rig.packet(A, a.address, &packet).unwrap();
        assert_eq!(sent.bytes[0], first);
        assert_eq!(sent.bytes[12..], [before, &[0xd5; 20], after].concat(), "{first:#x}");
        assert_eq!(rig.close(B).sent.packets, 1);
    }
}

/// A peer may be told of by its IPv4 address and be heard from the same in IPv6's clothes.
#[test]
fn a_mapped_address_is_the_address() {
    let (mut rig, mut a, mut b) = Rig::joined();
    let mapped = |at: SocketAddr| match at.ip() {
        std::net::IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), at.port()),
        std::net::IpAddr::V6(_) => at,
    };
    let ranges: std::sync::Arc<[Network]> = [].into();
    for latch in [Latch::Learn { near: None }, Latch::Strict { ranges }] {
        let remote = Remote { rtp: mapped(a.address), latch, ..a.remote() };
        rig.aim(&a, remote, stream(Law::Mu, 101));
        let packet = a.next();
        assert!(rig.packet(A, mapped(a.address), &packet).is_some());
        assert!(rig.say(&mut a).is_some());
        assert_eq!(rig.say(&mut b).map(|sent| sent.to), Some(a.address));
    }
    assert_eq!(rig.discards().total(), 0);
}

#[test]
fn every_reason_to_discard_is_counted_once() {
    let (mut rig, mut a, mut b) = Rig::joined();
    let pcmu = stream(Law::Mu, 101);
    let mut counted = vec![];
    let mut note = |rig: &Rig, why: Discard| {
        counted.push(why);
        for reason in Discard::ALL {
            let want = u64::from(counted.contains(&reason));
            assert_eq!(rig.discarded(reason), want, "{reason:?} after {why:?}");
        }
    };
    rig.packet(A, a.address, &[0x80; 11]);
    note(&rig, Discard::TooShort);
    rig.packet(A, a.address, &[0x80; DATAGRAM_MAX + 1]);
    note(&rig, Discard::TooLong);
    rig.packet(A, a.address, &[0; 20]);
    note(&rig, Discard::NotRtp);
    let (slot, now) = (rig.slot(A), rig.now);
    rig.handle_rtcp(slot, a.remote().rtcp, &[0x80; 40], now);
    note(&rig, Discard::NotRtcp);
    rig.open(C);
    rig.packet(C, a.address, &a.clone().next());
    note(&rig, Discard::TooEarly);
    rig.say(&mut a);
    rig.packet(A, b.address, &a.clone().next());
    note(&rig, Discard::StrangeSource);
    let packet = a.next();
    rig.packet(A, a.address, &packet);
    rig.packet(A, a.address, &packet);
    note(&rig, Discard::Duplicate);
    a.header.payload_type = 50;
    rig.say(&mut a);
    a.header.payload_type = 0;
    note(&rig, Discard::NotNegotiated);
    rig.play(B, &prompt(100), false, 1);
    rig.say(&mut a);
    note(&rig, Discard::Replaced);
    rig.give(Command::Stop { leg: B });
    rig.aim(&a, Remote { receives: false, ..a.remote() }, stream(Law::Mu, 101));
    rig.say(&mut a);
    note(&rig, Discard::NotReceiving);
    rig.aim(&a, Remote { sends: false, ..a.remote() }, stream(Law::Mu, 101));
    rig.say(&mut b);
    note(&rig, Discard::PeerOnHold);
    rig.give(Command::Unbridge { leg: A });
    rig.say(&mut a);
    note(&rig, Discard::NoPeer);
    a.header.sequence = SequenceNumber(a.header.sequence.0 ^ 0x8000);
    rig.say(&mut a);
    note(&rig, Discard::Late);
    rig.note_unsendable(slot);
    note(&rig, Discard::Unsendable);
    rig.join(A, B);
    rig.aim(&a, Remote { rtp: "[2001:db8::1]:4000".parse().unwrap(), ..a.remote() }, pcmu);
    rig.say(&mut b);
    note(&rig, Discard::WrongFamily);
    let key = MasterKey::draw(Suite::AesCm128HmacSha1_80, &mut Entropy::from_u64(1));
    let sealed = sealed(&a.next(), &key);
    let keys = Some(Box::new(Keys { send: key.clone(), receive: key }));
    rig.give(Command::Aim { leg: A, remote: a.remote(), stream: pcmu, keys });
    rig.say(&mut a);
    note(&rig, Discard::Unauthentic);
    rig.packet(A, a.address, &sealed).unwrap();
    rig.packet(A, a.address, &sealed);
    note(&rig, Discard::Replayed);
    nobody_answers(&mut rig, &a, &mut b);
    note(&rig, Discard::Unanswered);
    assert_eq!(counted.len(), Discard::ALL.len());

    let all = rig.discards();
    let sum = [A, B, C].map(|leg| rig.close(leg).discards.total()).iter().sum::<u64>();
    assert_eq!((rig.discards(), sum), (all, all.total()), "those of closed legs too");
}

fn sealed(packet: &[u8], key: &MasterKey) -> Vec<u8> {
    let mut sealed = [packet, &[0; TRAILER_MAX]].concat();
    let len = Sender::new(key).unwrap().protect_rtp(&mut sealed, packet.len()).unwrap();
    sealed.truncate(len);
    sealed
}

/// Sends to somebody for longer than without an answer.
fn nobody_answers(rig: &mut Rig, a: &Peer, b: &mut Peer) {
    let rtp = "192.0.2.99:4000".parse().unwrap();
    rig.aim(a, Remote { rtp, must_answer: true, ..a.remote() }, stream(Law::Mu, 101));
    rig.say(b).unwrap();
    rig.pass(31_000);
    rig.say(b);
}
