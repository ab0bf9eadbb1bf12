//! Contexts against libsrtp's packets, against each other, and against hostile ones.

use super::*;
use crate::ids::Entropy;
use proptest::prelude::*;

/// Made by `tests/srtp/vectors.py`.
const LIBSRTP: &str = include_str!("../../../tests/srtp/libsrtp.txt");

#[test]
fn packets_are_libsrtps_byte_for_byte() {
    let mut suites = 0;
    for section in sections() {
        let mut sender = Sender::new(&section.key).unwrap();
        let mut receiver = Receiver::new(&section.key).unwrap();
        // libsrtp leaves out the index 0, which RFC 3711 3.4 begins with.
        protect(&mut sender, Kind::Rtcp, &[0x80, 201, 0, 1, 0, 0, 0, 1]).unwrap();
        for (n, Packet { kind, plain, protected }) in section.packets.iter().enumerate() {
            let (suite, got) = (section.key.suite(), protect(&mut sender, *kind, plain).unwrap());
            assert_eq!(&got, protected, "{suite:?} {n}");
            assert_eq!(
                unprotect(&mut receiver, *kind, protected),
                Ok(plain.clone()),
                "{suite:?} {n}"
            );
            assert_eq!(unprotect(&mut receiver, *kind, protected), Err(Shut::Replayed));
        }
        assert!(sender.has_rolled_over());
        suites += 1;
    }
    assert_eq!(suites, Suite::ALL.len());
}

/// One damaged bit anywhere: nothing comes out, nothing is remembered.
#[test]
fn forgeries_change_nothing() {
    for section in sections() {
        let mut receiver = Receiver::new(&section.key).unwrap();
        for Packet { kind, plain, protected } in &section.packets {
            for bit in 0..protected.len() * 8 {
                let mut forged = protected.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(unprotect(&mut receiver, *kind, &forged).is_err(), "{bit}");
            }
            assert!(unprotect(&mut receiver, *kind, plain).is_err(), "not encrypted at all");
            assert_eq!(unprotect(&mut receiver, *kind, protected), Ok(plain.clone()));
        }
    }
}

#[test]
fn a_key_is_for_one_source_and_its_successors() {
    for suite in Suite::ALL {
        let key = key(suite, 1);
        let mut receiver = Receiver::new(&key).unwrap();
        for ssrc in 0..20 {
            let mut sender = Sender::new(&key).unwrap();
            for sequence in [40_000, 65_535, 0, 1] {
                let plain = rtp(ssrc, sequence);
                let protected = protect(&mut sender, Kind::Rtp, &plain).unwrap();
                assert_eq!(unprotect(&mut receiver, Kind::Rtp, &protected), Ok(plain));
            }
        }
    }
}

/// A new key from the middle of a stream on, with the old one's rollover counter and without it.
#[test]
fn a_new_key_takes_over_when_it_is_heard() {
    for (suite, keeps_counter) in
        Suite::ALL.into_iter().flat_map(|suite| [(suite, false), (suite, true)])
    {
        let (old, new) = (key(suite, 1), key(suite, 2));
        let mut before = Sender::new(&old).unwrap();
        let mut receiver = Receiver::new(&old).unwrap();
        for sequence in [65_535, 0, 1] {
            let packet = protect(&mut before, Kind::Rtp, &rtp(7, sequence)).unwrap();
            assert!(unprotect(&mut receiver, Kind::Rtp, &packet).is_ok());
        }
        let late = protect(&mut before, Kind::Rtp, &rtp(7, 2)).unwrap();
        let mut after = Sender::new(&new).unwrap();
        if keeps_counter {
            protect(&mut after, Kind::Rtp, &rtp(7, 65_535)).unwrap();
        }
        let first = protect(&mut after, Kind::Rtp, &rtp(7, 3)).unwrap();
        let second = protect(&mut after, Kind::Rtp, &rtp(7, 4)).unwrap();
        let report = protect(&mut before, Kind::Rtcp, &[0x80, 201, 0, 1, 0, 0, 0, 7]).unwrap();

        receiver = receiver.rekeyed(&key(suite, 3)).unwrap().rekeyed(&new).unwrap();
        assert_eq!(unprotect(&mut receiver, Kind::Rtp, &late), Ok(rtp(7, 2)), "still under way");
        assert_eq!(unprotect(&mut receiver, Kind::Rtp, &late), Err(Shut::Replayed));
        assert!(unprotect(&mut receiver, Kind::Rtcp, &report).is_ok());
        assert_eq!(unprotect(&mut receiver, Kind::Rtp, &first), Ok(rtp(7, 3)));
        let straggler = protect(&mut before, Kind::Rtp, &rtp(7, 5)).unwrap();
        assert!(unprotect(&mut receiver, Kind::Rtp, &straggler).is_err(), "the old key is gone");
        assert_eq!(unprotect(&mut receiver, Kind::Rtp, &second), Ok(rtp(7, 4)), "{suite:?}");
    }
}

/// RFC 3711 3.1: a peer may name the key in its packets.
#[test]
fn the_name_of_a_key_is_skipped() {
    for suite in [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AeadAes128Gcm] {
        let mut sender = Sender::new(&key(suite, 1)).unwrap();
        let mut receiver = Receiver::new(&key(suite, 1).with_mki(4)).unwrap();
        let behind = match suite {
            Suite::AesCm128HmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32 => 4,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 0,
        };
        let mut packet = protect(&mut sender, Kind::Rtp, &rtp(1, 1)).unwrap();
        let at = packet.len() - behind;
        packet.splice(at..at, [0, 0, 0, 1]);
        assert_eq!(unprotect(&mut receiver, Kind::Rtp, &packet), Ok(rtp(1, 1)));
    }
}

#[test]
fn a_buffer_without_room_is_no_panic() {
    for suite in Suite::ALL {
        let mut sender = Sender::new(&key(suite, 1)).unwrap();
        let mut packet = rtp(1, 1);
        let len = packet.len();
        assert_eq!(sender.protect_rtp(&mut packet, len), Err(Shut::Exhausted));
        assert_eq!(sender.protect_rtp(&mut packet, len + 1), Err(Shut::Malformed));
    }
}

#[test]
fn keys_do_not_print() {
    let key = MasterKey::new(Suite::AesCm128HmacSha1_80, &[0x41; 30]).unwrap();
    let keys = Keys { send: key.clone(), receive: key.clone() };
    let all = format!("{keys:?} {:?} {:?}", Sender::new(&key), Receiver::new(&key));
    assert!(!all.contains("65, 65") && !all.contains("AAA") && all.contains("***"), "{all}");
    assert_eq!(MasterKey::new(Suite::AeadAes128Gcm, &[0; 30]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is lost is lost, what comes twice comes once, and everything else is what it was.
    #[test]
    fn what_arrives_is_what_was_sent(
        suite in 0..4_usize, first in 65_000..65_535_u16, fates: [u8; 64],
    ) {
        let key = key(Suite::ALL[suite], 9);
        let mut sender = Sender::new(&key).unwrap();
        let mut receiver = Receiver::new(&key).unwrap();
        let mut arrivals = vec![];
        for n in 0..1500_u16 {
            let plain = rtp(3, first.wrapping_add(n));
            let packet = protect(&mut sender, Kind::Rtp, &plain).unwrap();
            let fate = fates[usize::from(n) % fates.len()];
            let late = u32::from(n) + u32::from(fate % 40);
            match fate {
                // Who comes late to a stream has lost its first turn-over with it.
                _ if n == 0 => arrivals.push((0, packet, plain)),
                0..30 => {}
                30..60 => arrivals.extend([(late, packet.clone(), plain.clone()), (late, packet, plain)]),
                _ => arrivals.push((late, packet, plain)),
            }
        }
        arrivals.sort_by_key(|(at, ..)| *at);
        let mut seen = std::collections::BTreeSet::new();
        for (_, packet, plain) in arrivals {
            let want = if seen.insert(packet.clone()) { Ok(plain) } else { Err(Shut::Replayed) };
            prop_assert_eq!(unprotect(&mut receiver, Kind::Rtp, &packet), want);
        }
    }

    #[test]
    fn no_packet_is_a_panic(suite in 0..4_usize, mut bytes: Vec<u8>, mki: u8, first: u8) {
        let key = key(Suite::ALL[suite], 9);
        let mut sender = Sender::new(&key).unwrap();
        let receiver = Receiver::new(&key.clone().with_mki(mki)).unwrap();
        let mut receiver = receiver.rekeyed(&key).unwrap();
        if let Some(byte) = bytes.first_mut() {
            *byte = 0x80 | first;
        }
        for kind in [Kind::Rtp, Kind::Rtcp] {
            let _ = unprotect(&mut receiver, kind, &bytes);
            if let Ok(packet) = protect(&mut sender, kind, &bytes) {
                for len in 0..packet.len() {
                    let _ = unprotect(&mut receiver, kind, &packet[..len]);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Rtp,
    Rtcp,
}

struct Packet {
    kind: Kind,
    plain: Vec<u8>,
    protected: Vec<u8>,
}

struct Section {
    key: MasterKey,
    packets: Vec<Packet>,
}

fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = vec![];
    for line in LIBSRTP.lines() {
        let words = line.split(' ').collect::<Vec<_>>();
        let kind = match words[0] {
            "rtp" => Kind::Rtp,
            "rtcp" => Kind::Rtcp,
            name => {
                let suite = match name {
                    "AES_CM_128_HMAC_SHA1_80" => Suite::AesCm128HmacSha1_80,
                    "AES_CM_128_HMAC_SHA1_32" => Suite::AesCm128HmacSha1_32,
                    "AEAD_AES_128_GCM" => Suite::AeadAes128Gcm,
                    "AEAD_AES_256_GCM" => Suite::AeadAes256Gcm,
                    _ => panic!("{name}"),
                };
                let key = MasterKey::new(suite, &hex(words[1])).unwrap();
                sections.push(Section { key, packets: vec![] });
                continue;
            }
        };
        let packet = Packet { kind, plain: hex(words[1]), protected: hex(words[2]) };
        sections.last_mut().unwrap().packets.push(packet);
    }
    sections
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(pair).collect()
}

fn key(suite: Suite, seed: u64) -> MasterKey {
    MasterKey::draw(suite, &mut Entropy::from_u64(seed))
}

fn rtp(ssrc: u8, sequence: u16) -> Vec<u8> {
    let [n0, n1] = sequence.to_be_bytes();
    [&[0x80, 0, n0, n1, 0, 0, 0, 0, 0, 0, 0, ssrc], &[n0 ^ n1; 160][..]].concat()
}

fn protect(sender: &mut Sender, kind: Kind, plain: &[u8]) -> Result<Vec<u8>, Shut> {
    let mut buffer = [plain, &[0; TRAILER_MAX]].concat();
    let len = match kind {
        Kind::Rtp => sender.protect_rtp(&mut buffer, plain.len())?,
        Kind::Rtcp => sender.protect_rtcp(&mut buffer, plain.len())?,
    };
    buffer.truncate(len);
    Ok(buffer)
}

fn unprotect(receiver: &mut Receiver, kind: Kind, packet: &[u8]) -> Result<Vec<u8>, Shut> {
    let mut packet = packet.to_vec();
    let len = match kind {
        Kind::Rtp => receiver.unprotect_rtp(&mut packet)?,
        Kind::Rtcp => receiver.unprotect_rtcp(&mut packet)?,
    };
    packet.truncate(len);
    Ok(packet)
}
