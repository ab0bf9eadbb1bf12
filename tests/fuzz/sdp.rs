//! Session descriptions: read, and offered and answered with whatever they say.

use crate::{fuzz, lines};
use bytes::Bytes;
use std::net::SocketAddr;
use tandem::{
    ids::{Entropy, Spring},
    sdp::{
        Codec, CryptoSuite, Description, Direction, Local, Policy, Srtp, accept_answer,
        answer_alone, answer_from, fresh_offer, offer_from, offer_matching, path,
    },
};

/// Where nobody in the corpus is.
const OURS: &str = "198.18.7.7";

#[test]
fn a_description() {
    fuzz("sdp", 20_000, &lines("sdp.txt"), |bytes| {
        let Ok(theirs) = Description::parse(Bytes::copy_from_slice(bytes)) else { return };
        let _ = (theirs.media_count(), theirs.origin_version(), theirs.lines().count());
        assert!(theirs.same_except_origin(&theirs) && theirs.same_media(&theirs));
        for policy in [phone(), trunk()] {
            as_an_offer(&theirs, &policy);
            as_an_answer(&theirs, &policy);
        }
    });
}

/// It is offered to another leg, and answered by us and by that leg.
fn as_an_offer(theirs: &Description, policy: &Policy) {
    let mut local = local();
    if let Ok((answer, agreed)) = answer_alone(theirs, policy, &mut local) {
        let answer = ours(answer);
        assert_eq!(answer.media_count(), theirs.media_count(), "a stream for a stream");
        assert_eq!(path(&agreed, &agreed).is_relay(), path(&agreed, &agreed).is_relay());
        local.settle(agreed.srtp.as_ref());
        let _ = offer_matching(&agreed, policy, &mut local).map(ours);
    }
    let mut other = self::local();
    if let Ok(offer) = offer_from(theirs, policy, &mut other) {
        let offer = ours(offer);
        let Ok((answer, _)) = answer_alone(&offer, &trunk(), &mut self::local()) else { return };
        let Ok(agreed) = accept_answer(offer.audio().unwrap(), &ours(answer)) else { return };
        if let Ok((answer, _)) = answer_from(theirs, &agreed, policy, &mut self::local()) {
            assert_eq!(ours(answer).media_count(), theirs.media_count());
        }
    }
}

/// It answers an offer of ours.
fn as_an_answer(theirs: &Description, policy: &Policy) {
    let offer = ours(fresh_offer(policy, Direction::SendRecv, &mut local()));
    if let Ok(agreed) = accept_answer(offer.audio().unwrap(), theirs) {
        let _ = (agreed.voice(), agreed.dtmf_in(), agreed.hears_dtmf());
        let _ = offer_matching(&agreed, policy, &mut local()).map(ours);
    }
}

/// What we say can be read, and nothing of the peer's address is in it.
fn ours(bytes: Bytes) -> Description {
    let read = Description::parse(bytes.clone()).unwrap_or_else(|e| panic!("{e}: {bytes:?}"));
    let connections = || read.lines().filter(|(kind, _)| *kind == b'c');
    assert!(connections().all(|(_, line)| line.ends_with(OURS.as_bytes())), "{bytes:?}");
    assert!(connections().count() > 0 && !bytes.contains(&0), "{bytes:?}");
    read
}

fn phone() -> Policy {
    let codecs = vec![Codec::Pcmu, Codec::Pcma];
    Policy::phone(codecs).with_srtp(Srtp::Prefer, &CryptoSuite::ALL)
}

fn trunk() -> Policy {
    Policy::trunk(vec![Codec::Pcma, Codec::Pcmu])
}

fn local() -> Local {
    let rtp = SocketAddr::new(OURS.parse().expect("an address"), 10_000);
    Local::new(1, rtp).with_keys(Spring::new(&mut Entropy::from_u64(1)), false)
}
