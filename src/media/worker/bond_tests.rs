//! When a leg's port is connected to its peer, and when it is open again.
//!
//! Owns: nothing but tests.
//! Never: part of the program.

use super::rig::{A, B, Rig, stream};
use crate::{
    media::{
        Discard,
        command::{Command, Latch, Law, Remote},
    },
    network::Network,
};
use std::net::SocketAddr;

fn strict() -> Latch {
    Latch::Strict { ranges: [Network::v4([198, 51, 100, 0], 24)].into() }
}

#[test]
fn a_peer_that_was_learned_gets_the_port_for_itself_until_the_next_aim() {
    let (mut rig, mut a, mut b) = Rig::joined();
    rig.talk(&mut a, 9);
    assert_eq!(rig.connected(A), None, "it may be anybody yet");
    rig.talk(&mut a, 1);
    rig.talk(&mut b, 10);
    assert_eq!([rig.connected(A), rig.connected(B)], [Some(a.address), Some(b.address)]);

    // Behind a NAT, from where it signals.
    let (signalled, nat) = (a.remote(), SocketAddr::from(([203, 0, 113, 9], 7000)));
    let near = Remote { latch: Latch::Learn { near: Some(Box::new(nat.ip())) }, ..signalled };
    rig.aim(&a, near, stream(Law::Mu, 101));
    assert_eq!([rig.connected(A), rig.connected(B)], [None, Some(b.address)]);
    a.address = nat;
    assert_eq!(rig.talk(&mut a, 10).iter().filter(|sent| sent.to == b.address).count(), 10);
    assert_eq!(rig.connected(A), Some(nat), "from where it is now");

    // Where nothing is known of it, it may yet be somebody else.
    rig.aim(&a, signalled, stream(Law::Mu, 101));
    a.address = SocketAddr::from(([203, 0, 113, 77], 7000));
    rig.talk(&mut a, 20);
    assert_eq!(rig.connected(A), None);

    rig.give(Command::Close { leg: A });
    assert_eq!(rig.connected(A), None);
}

#[test]
fn a_port_is_not_connected_to_a_stranger_or_while_nothing_may_come() {
    let (mut rig, mut a, _) = Rig::joined();
    rig.aim(&a, Remote { receives: false, ..a.remote() }, stream(Law::Mu, 101));
    rig.talk(&mut a, 20);
    rig.aim(&a, Remote { latch: strict(), ..a.remote() }, stream(Law::Mu, 101));
    let right = a.address;
    a.address = SocketAddr::from(([203, 0, 113, 9], 4000));
    rig.talk(&mut a, 20);
    assert_eq!(rig.connected(A), None);
    assert_eq!(rig.discarded(Discard::StrangeSource), 20);
    a.address = right;
    rig.talk(&mut a, 10);
    assert_eq!(rig.connected(A), Some(right));
}

/// A carrier sends from another address of its networks without a word.
#[test]
fn a_strict_port_is_connected_only_to_where_we_send_and_opens_when_that_is_quiet() {
    let (mut rig, mut a, b) = Rig::joined();
    rig.aim(&a, Remote { latch: strict(), ..a.remote() }, stream(Law::Mu, 101));
    let (here, elsewhere) = (a.address, SocketAddr::from(([198, 51, 100, 7], 9000)));
    a.address = elsewhere;
    rig.talk(&mut a, 30);
    assert_eq!(rig.connected(A), None, "we send to another address");
    a.address = here;
    rig.talk(&mut a, 10);
    assert_eq!(rig.connected(A), Some(here));
    rig.talk(&mut a, 100);
    rig.pass(470);
    assert_eq!(rig.connected(A), Some(here), "heard 490 ms ago");
    rig.pass(60);
    assert_eq!(rig.connected(A), None);
    a.address = elsewhere;
    assert_eq!(rig.talk(&mut a, 5).iter().filter(|sent| sent.to == b.address).count(), 5);
    a.address = here;
    rig.talk(&mut a, 10);
    assert_eq!(rig.connected(A), Some(here));
}
