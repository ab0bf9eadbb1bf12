//! Phones on TCP: connections reused, lost, and mixed with UDP.

use crate::{
    house::{House, act, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    ids::Transport,
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
};

fn play(seed: u64, network: Network, caller: Transport, callee: Transport) -> World {
    let mut house = House::new(seed);
    for (name, transport) in [("1001", caller), ("1002", callee)] {
        house.phone_like(name, name, |mut setup| {
            setup.transport = transport;
            setup
        });
    }
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 1000, Act::Answer);
        phone.when(On::Up, 1000, Act::Hold).when(On::Up, 2000, Act::Resume);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

#[test]
fn a_tcp_phone_calls_a_udp_phone() {
    let mut world = play(1, Network::CLEAN, Transport::Tcp, Transport::Udp);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              1040 ms  1001 is answered by 1002
              2080 ms  1002 reinvites 1001
              3080 ms  1002 reinvites 1001
              6080 ms  1001 hangs up on 1002",
    );
    let transports = |name: &str| {
        let of = world.sent().iter().filter(|sent| &*sent.to == name || &*sent.from == name);
        let mut all: Vec<_> = of.map(|sent| sent.flow.transport).collect();
        all.dedup();
        all
    };
    assert_eq!(transports("1001"), [Transport::Tcp]);
    assert_eq!(transports("1002"), [Transport::Udp]);
}

#[test]
fn on_bad_networks() {
    let (udp, tcp) = (Transport::Udp, Transport::Tcp);
    let ways = [(tcp, udp), (udp, tcp), (tcp, tcp)];
    storm(
        300,
        |seed, network| {
            let (caller, callee) = ways[seed as usize % 3];
            play(seed, network, caller, callee)
        },
        |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)),
    );
}

/// The callee's connection dies while it rings: its answer finds another way (RFC 3261 18.2.2).
#[test]
fn a_connection_is_lost_while_it_rings() {
    let mut world = play(1, Network::CLEAN, Transport::Udp, Transport::Tcp);
    world.at(500, |world| world.disconnect("1002", "tandem"));
    assert_eq!(faults(&mut world), [""; 0]);
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Gone(200))));
}

/// The caller's connection dies while they talk: a hold of the callee's finds it again.
#[test]
fn a_connection_is_lost_while_they_talk() {
    let mut world = play(1, Network::CLEAN, Transport::Tcp, Transport::Udp);
    world.at(1500, |world| world.disconnect("1001", "tandem"));
    assert_eq!(faults(&mut world), [""; 0]);
    with_phone(&mut world, "1002", |phone, _| {
        assert!(phone.has_heard(&Heard::Changed("sendonly")))
    });
}
