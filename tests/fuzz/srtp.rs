//! SRTP: nothing is believed of a packet, heard of it or learned from it, that is not the peer's own.

use crate::{
    fuzz,
    media::{A, B, Call},
};
use tandem::{
    ids::Entropy,
    media::srtp::{Keys, MasterKey, Sender, Suite, TRAILER_MAX},
};

const PLAIN: &[u8] = b"\x80\0\0\x07\0\0\x01\0\0\0\0\x09twenty ms of speech";

#[test]
fn a_forgery() {
    let corpus: Vec<_> = Suite::ALL.into_iter().map(|suite| sealed(suite).1).collect();
    fuzz("srtp", 6_000, &corpus, |bytes| {
        for suite in Suite::ALL {
            let (keys, genuine) = sealed(suite);
            let mut call = Call::new(Some(keys));
            let stranger = "198.51.100.66:6666".parse().expect("an address");
            let passed = call.rtp(A, stranger, bytes);
            assert_eq!(passed.is_some(), genuine == bytes, "{suite:?}");
            if passed.is_some() {
                continue;
            }
            assert_eq!(call.events(), [], "nothing was heard");
            call.worker.handle_rtcp(call.slots[0], stranger, bytes, call.now);
            assert!(call.rtp(A, Call::peer(A), &genuine).is_some(), "{suite:?}: the peer is heard");
            let answer = call.rtp(B, Call::peer(B), b"\x80\0\0\x01\0\0\0\x01\0\0\0\x01speech");
            assert!(answer.is_some_and(|answer| answer.len() > 18), "sealed");
            call.end();
        }
    });
}

/// Returns the keys of a leg, and what its peer says first.
fn sealed(suite: Suite) -> (Keys, Vec<u8>) {
    let mut entropy = Entropy::from_u64(7);
    let mut key = || MasterKey::draw(suite, &mut entropy);
    let keys = Keys { send: key(), receive: key() };
    let mut packet = [PLAIN, &[0; TRAILER_MAX]].concat();
    let mut sender = Sender::new(&keys.receive).expect("a key");
    let len = sender.protect_rtp(&mut packet, PLAIN.len()).expect("room");
    packet.truncate(len);
    (keys, packet)
}
