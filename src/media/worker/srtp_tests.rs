//! Legs under SRTP: what their peers send and hear, beside plain ones.

use super::{
    Channel,
    rig::{B, FRAME_MS, Peer, Rig, Sent, assert_continuous, prompt, stream},
};
use crate::{
    ids::Entropy,
    media::{
        Discard,
        command::{Command, Event, Law},
        srtp::{Keys, MasterKey, Receiver, Sender, Shut, Suite, TRAILER_MAX},
    },
};

/// A peer with keys.
struct Secret {
    peer: Peer,
    keys: Keys,
    sender: Sender,
    receiver: Receiver,
}

impl Secret {
    /// Gives a peer keys, and tells the worker.
    fn new(rig: &mut Rig, peer: Peer, suite: Suite, seed: u64) -> Self {
        let mut entropy = Entropy::from_u64(seed);
        let mut key = || MasterKey::draw(suite, &mut entropy);
        let keys = Keys { send: key(), receive: key() };
        let sender = Sender::new(&keys.receive).unwrap();
        let receiver = Receiver::new(&keys.send).unwrap();
        let secret = Self { peer, keys, sender, receiver };
        secret.aim(rig);
        secret
    }

    fn aim(&self, rig: &mut Rig) {
        let (leg, remote) = (self.peer.leg, self.peer.remote());
        let keys = Some(Box::new(self.keys.clone()));
        rig.give(Command::Aim { leg, remote, stream: stream(Law::Mu, 96), keys });
    }

    fn next(&mut self) -> Vec<u8> {
        let plain = self.peer.next();
        self.seal(&plain)
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packet = [plain, &[0; TRAILER_MAX]].concat();
        let len = self.sender.protect_rtp(&mut packet, plain.len()).unwrap();
        packet.truncate(len);
        packet
    }

    fn say(&mut self, rig: &mut Rig) -> Option<Sent> {
        let packet = self.next();
        rig.packet(self.peer.leg, self.peer.address, &packet)
    }

    /// Opens what it was sent.
    fn hear(&mut self, mut sent: Sent) -> Result<Sent, Shut> {
        let len = match sent.channel {
            Channel::Rtp => self.receiver.unprotect_rtp(&mut sent.bytes)?,
            Channel::Rtcp => self.receiver.unprotect_rtcp(&mut sent.bytes)?,
        };
        sent.bytes.truncate(len);
        Ok(sent)
    }

    fn hear_all(&mut self, sent: Vec<Sent>) -> Vec<Sent> {
        sent.into_iter().map(|sent| self.hear(sent).unwrap()).collect()
    }
}

/// A is plain, B has keys.
fn joined(suite: Suite) -> (Rig, Peer, Secret) {
    let (mut rig, a, b) = Rig::joined();
    let b = Secret::new(&mut rig, b, suite, 7);
    (rig, a, b)
}

#[test]
fn plain_and_secret_peers_hear_each_other() {
    for suite in Suite::ALL {
        let (mut rig, mut a, mut b) = joined(suite);
        let mut heard = vec![];
        for n in 0..200 {
            if n == 100 {
                a.change_source();
                b.peer.change_source();
            }
            let to_b = rig.say(&mut a).unwrap();
            assert!(to_b.bytes.len() > 16);
            heard.push(b.hear(to_b).unwrap());
            let to_a = b.say(&mut rig).unwrap();
            assert_eq!(to_a.bytes.len(), 16, "{suite:?}");
            let [.., high, low] = b.peer.header.sequence.plus(u16::MAX).0.to_be_bytes();
            assert_eq!(to_a.payload(), [high, low, high, low]);
            rig.now += std::time::Duration::from_millis(FRAME_MS);
        }
        assert_continuous(&heard);
    }
}

#[test]
fn two_secret_peers_have_each_their_keys() {
    let (mut rig, a, mut b) = joined(Suite::AeadAes256Gcm);
    let mut a = Secret::new(&mut rig, a, Suite::AesCm128HmacSha1_32, 8);
    let sent = a.say(&mut rig).unwrap();
    assert!(a.hear(sent.clone()).is_err() && b.hear(sent).is_ok());
    let sent = b.say(&mut rig).unwrap();
    assert!(b.hear(sent.clone()).is_err() && a.hear(sent).is_ok());
}

/// What is not authentic captures no latch, and is nobody's first packet.
#[test]
fn forgeries_are_counted_and_nothing_else() {
    let (mut rig, _, mut b) = joined(Suite::AesCm128HmacSha1_80);
    rig.drain();
    let stranger = ([203, 0, 113, 66], 9).into();
    let mut forged = b.next();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(rig.packet(B, stranger, &forged), None);
    assert_eq!(rig.packet(B, stranger, &b.peer.clone().next()), None, "plain");
    assert_eq!(rig.drain(), []);
    assert_eq!(rig.discarded(Discard::Unauthentic), 2);

    let packet = b.next();
    assert!(rig.packet(B, b.peer.address, &packet).is_some());
    let from = b.peer.address;
    assert_eq!(rig.drain(), [Event::FirstPacket { leg: B, from }]);
    assert_eq!(rig.packet(B, b.peer.address, &packet), None);
    assert_eq!(rig.discarded(Discard::Replayed), 1);
    assert_eq!(rig.packet(B, stranger, &b.next()), None);
    assert_eq!(rig.discarded(Discard::StrangeSource), 1);
}

#[test]
fn what_we_say_ourselves_is_encrypted() {
    let (mut rig, _, mut b) = joined(Suite::AeadAes128Gcm);
    rig.play(B, &prompt(100), false, 1);
    let mut heard = rig.pass_rtp(100);
    rig.give(Command::Dtmf { leg: B, digit: '5', duration_ms: 100 });
    heard.extend(rig.pass_rtp(400));
    let heard = b.hear_all(heard);
    assert_continuous(&heard);
    assert_eq!(heard[0].payload().len(), 160);
    assert_eq!(heard.last().unwrap().payload()[0], 5);

    rig.give(Command::Echo { leg: B });
    let echoed = b.say(&mut rig).unwrap();
    assert_eq!(b.hear(echoed).unwrap().payload().len(), 4);
}

/// A digit of a peer with keys is heard, and passed on.
#[test]
fn digits_are_decrypted() {
    let (mut rig, _, mut b) = joined(Suite::AesCm128HmacSha1_80);
    rig.drain();
    b.say(&mut rig).unwrap();
    let mut event = b.peer.header;
    event.payload_type = 96;
    for (n, end) in [(1_u16, 0), (2, 0x80), (3, 0x80)] {
        event.sequence = b.peer.header.sequence.plus(n);
        let [d0, d1] = (n * 160).to_be_bytes();
        let plain = crate::media::rtp::tests::packet(&event, &[7, end | 10, d0, d1]);
        let packet = b.seal(&plain);
        let sent = rig.packet(B, b.peer.address, &packet).unwrap();
        assert_eq!(sent.header().payload_type, 101);
    }
    let told = |event: &Event| matches!(event, Event::Dtmf { digit: '7', .. });
    assert_eq!(rig.drain().iter().filter(|event| told(event)).count(), 1);
}

#[test]
fn reports_go_both_ways_encrypted() {
    let (mut rig, mut a, mut b) = joined(Suite::AesCm128HmacSha1_32);
    for _ in 0..10 {
        let sent = rig.say(&mut a).unwrap();
        b.hear(sent).unwrap();
        b.say(&mut rig).unwrap();
    }
    let slot = rig.slot(B);
    let reports = rig.pass(10_000).into_iter().filter(|sent| sent.slot == slot).collect::<Vec<_>>();
    let reports = b.hear_all(reports);
    assert!(!reports.is_empty() && reports.iter().all(|sent| sent.channel == Channel::Rtcp));
    assert_eq!(reports[0].bytes[1], 200, "a sender report");

    // The peer says that it misses 3 of our packets.
    let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 2];
    report.extend(&reports[0].bytes[4..8]);
    report.extend([0, 0, 0, 3, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (from, now) = (b.peer.remote().rtcp, rig.now);
    rig.handle_rtcp(slot, from, &report, now);
    assert_eq!(rig.discarded(Discard::Unauthentic), 1, "not encrypted");
    let len = report.len();
    report.resize(len + TRAILER_MAX, 0);
    let len = b.sender.protect_rtcp(&mut report, len).unwrap();
    for _ in 0..2 {
        rig.handle_rtcp(slot, from, &report[..len], now);
    }
    assert_eq!(rig.discarded(Discard::Replayed), 1);
    assert_eq!(rig.close(B).sent.lost, 3);
}

/// The same keys at another offer and answer: nothing begins anew. Another key of ours, after sequence
/// numbers began again: another source.
#[test]
fn contexts_last_as_long_as_their_keys() {
    let (mut rig, mut a, mut b) = joined(Suite::AesCm128HmacSha1_80);
    let mut ssrcs = std::collections::BTreeSet::new();
    for n in 0..70_000_u32 {
        if n % 10_000 == 0 {
            b.aim(&mut rig);
        }
        let sent = rig.say(&mut a).unwrap();
        ssrcs.insert(b.hear(sent).unwrap().header().ssrc.0);
        b.say(&mut rig).unwrap();
    }
    assert_eq!(ssrcs.len(), 1);
    let mut b = Secret::new(&mut rig, b.peer, Suite::AesCm128HmacSha1_80, 9);
    let sent = rig.say(&mut a).unwrap();
    assert!(!ssrcs.contains(&b.hear(sent).unwrap().header().ssrc.0));
    b.say(&mut rig).unwrap();
}

/// While a held peer goes on sending, its sequence numbers may begin again.
#[test]
fn a_rollover_on_hold_is_not_missed() {
    let (mut rig, _, mut b) = joined(Suite::AesCm128HmacSha1_80);
    let (leg, keys) = (B, Some(Box::new(b.keys.clone())));
    b.say(&mut rig).unwrap();
    let remote = crate::media::Remote { receives: false, ..b.peer.remote() };
    rig.give(Command::Aim { leg, remote, stream: stream(Law::Mu, 96), keys });
    for _ in 0..70_000 {
        assert_eq!(b.say(&mut rig), None);
    }
    b.aim(&mut rig);
    let back = (0..3).filter_map(|_| b.say(&mut rig)).count();
    assert!(back > 0, "{:?}", rig.discards());
}
