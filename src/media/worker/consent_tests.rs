//! Where a session description aims our packets at somebody who never asked for them.

use super::{
    Channel,
    rig::{A, B, Peer, Rig, Sent, assert_continuous, prompt, stream},
};
use crate::media::{
    Discard,
    command::{Event, Latch, Law, Remote},
};
use std::net::SocketAddr;

/// How long a rig's worker sends to an address that does not answer, in milliseconds.
const PATIENCE_MS: u64 = 30_000;
/// Deadlines of this kind wait for ticks.
const TICK_MS: u64 = 50;

/// Somebody else, and where the phone's signalling comes from.
const STRANGER: &str = "198.51.100.66:4000";
const PHONE: &str = "203.0.113.5:1024";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A peer whose session description names an address for which nobody vouches.
fn elsewhere(peer: &Peer) -> Remote {
    let near = Some(Box::new(addr(PHONE).ip()));
    Remote { must_answer: true, latch: Latch::Learn { near }, ..peer.remote() }
}

/// A leg that is aimed so and hears a prompt without an end.
fn playing(remote: impl FnOnce(&Peer) -> Remote) -> (Rig, Peer) {
    let mut rig = Rig::new();
    let peer = rig.peer(A);
    rig.aim(&peer, remote(&peer), stream(Law::Mu, 101));
    rig.play(A, &prompt(1000), true, 1);
    (rig, peer)
}

fn unanswered(rig: &mut Rig) -> Vec<SocketAddr> {
    let to = |event| if let Event::Unanswered { to, .. } = event { Some(to) } else { None };
    rig.drain().into_iter().filter_map(to).collect()
}

fn rtcp(rig: &mut Rig, from: SocketAddr) {
    // A receiver report of nobody.
    let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
    let (slot, now) = (rig.slot(A), rig.now);
    rig.handle_rtcp(slot, from, &report, now);
}

fn hears_on(rig: &mut Rig) -> bool {
    rig.pass(60_000);
    rig.pass_rtp(10_000).len() >= 490
}

#[test]
fn what_nobody_answers_ends() {
    let (mut rig, peer) = playing(elsewhere);
    let sent = rig.pass(600_000);
    assert!(sent.iter().all(|sent| sent.to.ip() == peer.address.ip()));
    let last = |channel: Channel| {
        sent.iter().filter(|sent| sent.channel == channel).map(|sent| sent.at_ms).max()
    };
    assert!((PATIENCE_MS - 20..=PATIENCE_MS + TICK_MS).contains(&last(Channel::Rtp).unwrap()));
    assert!(last(Channel::Rtcp).unwrap() <= PATIENCE_MS + TICK_MS, "reports end as well");
    assert_eq!(unanswered(&mut rig), [peer.address], "it is told once");
}

/// Who sends what after ten seconds, and whether the prompt goes on for minutes.
#[test]
fn it_goes_on_where_somebody_is_there() {
    type Say = fn(&mut Rig, &mut Peer);
    let say_from = |text: &'static str| {
        move |rig: &mut Rig, peer: &mut Peer| {
            let packet = peer.next();
            rig.packet(A, addr(text), &packet);
        }
    };
    let stranger = say_from(STRANGER);
    let cases: [(&str, Say, bool); 6] = [
        ("nobody", |_, _| {}, false),
        ("RTP", |rig, peer| drop(rig.say(peer)), true),
        (
            "RTP of another port",
            |rig, peer| {
                let packet = peer.next();
                rig.packet(A, SocketAddr::new(peer.address.ip(), 9), &packet);
            },
            true,
        ),
        ("RTCP", |rig, peer| rtcp(rig, peer.remote().rtcp), true),
        ("RTCP of a stranger", |rig, _| rtcp(rig, addr(STRANGER)), false),
        (
            "no RTCP",
            |rig, peer| {
                let (slot, now) = (rig.slot(A), rig.now);
                rig.packet(A, peer.address, b"hello");
                rig.handle_rtcp(slot, addr(STRANGER), b"hello", now);
            },
            false,
        ),
    ];
    for receives in [true, false] {
        for (who, say, goes_on) in cases {
            let (mut rig, mut peer) = playing(|peer| Remote { receives, ..elsewhere(peer) });
            rig.pass(10_000);
            say(&mut rig, &mut peer);
            assert_eq!(hears_on(&mut rig), goes_on, "{who}, {receives}");
            assert_eq!(unanswered(&mut rig).is_empty(), goes_on, "{who}, {receives}");
        }
        let (mut rig, mut peer) = playing(|peer| Remote { receives, ..elsewhere(peer) });
        rig.pass(10_000);
        stranger(&mut rig, &mut peer);
        assert!(!hears_on(&mut rig), "RTP of a stranger");
    }
    for vouched in [
        |peer: &Peer| peer.remote(),
        |peer: &Peer| Remote { latch: Latch::Strict { ranges: [].into() }, ..peer.remote() },
    ] {
        let (mut rig, _) = playing(vouched);
        assert!(hears_on(&mut rig), "a trunk, or where the signalling is");
    }
}

#[test]
fn it_goes_on_when_somebody_turns_up() {
    let (mut rig, peer) = playing(elsewhere);
    let mut heard = rig.pass_rtp(PATIENCE_MS + TICK_MS);
    assert_eq!(rig.pass(60_000), []);
    rtcp(&mut rig, peer.remote().rtcp);
    heard.extend(rig.pass_rtp(60_000));
    assert!(heard.len() > 4400, "{}", heard.len());
    assert_continuous(&heard);
    // And it need not do so again, whatever is agreed there.
    rig.aim(&peer, Remote { receives: false, ..elsewhere(&peer) }, stream(Law::Mu, 101));
    assert!(hears_on(&mut rig));
    assert_eq!(unanswered(&mut rig).len(), 1);
}

/// The time runs from the first packet: a phone may ring for longer.
#[test]
fn nothing_is_asked_before_something_is_sent() {
    let mut rig = Rig::new();
    let (mut a, b) = (rig.peer(A), rig.peer(B));
    rig.aim(&b, elsewhere(&b), stream(Law::Mu, 101));
    rig.join(A, B);
    rig.pass(50_000);
    assert_eq!(unanswered(&mut rig), []);
    let heard = |sent: Vec<Sent>| {
        sent.iter().filter(|sent| sent.to == b.address && sent.channel == Channel::Rtp).count()
    };
    let sent = rig.talk(&mut a, 3000);
    assert!((1500..=1503).contains(&heard(sent)), "thirty seconds of sixty");
    assert_eq!(unanswered(&mut rig), [b.address]);
    assert!(rig.discarded(Discard::Unanswered) >= 1497);
}

/// An address that has answered says nothing for the next one, also while a voice is on its way.
#[test]
fn each_address_answers_for_itself() {
    let (mut rig, mut peer) = playing(elsewhere);
    rig.say(&mut peer);
    assert!(hears_on(&mut rig));
    let other =
        Remote { rtp: addr(STRANGER), rtcp: addr("198.51.100.66:4001"), ..elsewhere(&peer) };
    rig.aim(&peer, other, stream(Law::Mu, 101));
    let sent = rig.pass_rtp(300_000);
    assert!((1499..=1504).contains(&sent.len()), "{}", sent.len());
    assert_eq!(unanswered(&mut rig), [addr(STRANGER)]);
}

/// A phone behind NAT is sent to where it was heard. On hold it listens only, and says nothing more.
#[test]
fn whoever_was_heard_elsewhere_is_not_asked_again() {
    let (mut rig, mut peer) = playing(elsewhere);
    let packet = peer.next();
    rig.packet(A, addr(PHONE), &packet);
    rig.aim(&peer, Remote { receives: false, ..elsewhere(&peer) }, stream(Law::Mu, 101));
    assert!(hears_on(&mut rig));
    assert!(rig.pass_rtp(100).iter().all(|sent| sent.to == addr(PHONE)));
    assert_eq!(unanswered(&mut rig), []);
}
