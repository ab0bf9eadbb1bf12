//! A trunk on TCP: calls both ways, routed by what its proxies recorded.

use crate::{
    house::{DID, House, TWILIO, act, with_phone, with_twilio},
    inbound::call_in,
    storm::{faults, storm},
};
use std::time::Duration;
use tandem::{
    ids::Transport,
    sim::{
        Network, World,
        phone::{Act, Heard, On},
        twilio::CallIn,
    },
};

fn house(seed: u64) -> World {
    let mut house = House::new(seed);
    house.trunk_keys("qualify = false\ntransport = \"tcp\"").twilio().phone("1001");
    house.open_registered()
}

fn play(seed: u64, network: Network, is_outbound: bool) -> World {
    let mut world = house(seed);
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Up, 3000, Act::HangUp);
        phone.when(On::Up, 1000, Act::Hold);
    });
    world.set_network(network);
    if is_outbound {
        act(&mut world, "1001", Act::Call("+14155550199".into()));
    } else {
        let call = CallIn {
            transport: Transport::Tcp,
            talks_for: Some(Duration::from_secs(9)),
            ..call_in(DID)
        };
        with_twilio(&mut world, |twilio, now| twilio.call_in(&call, now));
    }
    world
}

#[test]
fn both_ways() {
    for is_outbound in [true, false] {
        let mut world = play(1, Network::CLEAN, is_outbound);
        assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
        with_phone(&mut world, "1001", |phone, _| {
            assert!(phone.has_heard(&Heard::Changed("sendonly")));
            assert!(phone.has_heard(&Heard::Gone(200)));
        });
        let mut with_trunk =
            world.sent().iter().filter(|sent| &*sent.to == TWILIO || &*sent.from == TWILIO);
        assert!(with_trunk.all(|sent| sent.flow.transport == Transport::Tcp));
    }
}

#[test]
fn on_bad_networks() {
    storm(
        200,
        |seed, network| play(seed, network, seed % 2 == 0),
        |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)),
    );
}
