//! What the media plane is told, and what it tells: keys, silence, no ports, all of it closed.

use crate::{
    house::{DID, House, act, cdr, why, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::{assert_ladder, faults},
};
use tandem::{
    media::Command,
    observe::cdr::EndedBy,
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
};

fn talking() -> World {
    let mut world = House::new(1).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    world.set_network(Network::CLEAN);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// INFO in, RFC 4733 out, towards the other side.
#[test]
fn a_key_sent_by_info() {
    let mut world = talking();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::Press('5')).when(On::Up, 2000, Act::HangUp);
    });
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              1180 ms  1001 -> tandem  INFO
              1200 ms  tandem -> 1001  200 OK (INFO)
              2180 ms  1001 hangs up on 1002",
    );
    let (keys, opened) = with_pbx(&mut world, |pbx, _| {
        let key = |command: &Command| {
            if let Command::Dtmf { leg, digit, duration_ms } = command {
                Some((*leg, *digit, *duration_ms))
            } else {
                None
            }
        };
        let open = |command: &Command| {
            if let Command::Open { leg, .. } = command { Some(*leg) } else { None }
        };
        let commands = pbx.commands();
        let keys: Vec<_> = commands.iter().filter_map(key).collect();
        (keys, commands.iter().filter_map(open).collect::<Vec<_>>())
    });
    assert_eq!(keys, [(opened[1], '5', 160)]);
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Pressed)));
}

/// No media for the whole of `[rtp] timeout`: both sides are told.
#[test]
fn silence_ends_the_call() {
    let mut world = talking();
    world.at(5000, |world| _ = with_pbx(world, |pbx, now| pbx.silence(0, now)));
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              5000 ms  tandem -> 1001  BYE
              5000 ms  tandem -> 1002  BYE
              5020 ms  1001 -> tandem  200 OK (BYE)
              5020 ms  1002 -> tandem  200 OK (BYE)",
    );
    assert_eq!(cdr(&mut world).ending.by, EndedBy::Tandem);
    let sentence = "M002 no media came from one side for the whole of `[rtp] timeout`";
    assert_eq!(why(&mut world), sentence);
}

#[test]
fn no_port_is_free() {
    let mut world = House::new(1).phone("1001").phone("1002").open_registered();
    with_pbx(&mut world, |pbx, _| pbx.exhaust_ports());
    act(&mut world, "1001", Act::Call("1002".into()));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  503 Service Unavailable (INVITE)
                40 ms  1001 -> tandem  ACK",
    );
    assert!(why(&mut world).starts_with("M"), "{}", why(&mut world));
}

/// Each leg's port is opened once and closed once, winners and losers alike.
#[test]
fn every_port_is_given_back() {
    let mut world = House::new(1).twilio().phone("1001").phone("1002").open_registered();
    for (name, answer) in [("1001", 1000), ("1002", 3000)] {
        with_phone(&mut world, name, |phone, _| {
            phone.when(On::Called, answer, Act::Answer).when(On::Up, 2000, Act::HangUp);
        });
    }
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call_in(DID), now));
    assert_eq!(faults(&mut world), [""; 0]);
    with_pbx(&mut world, |pbx, _| {
        let names = pbx.command_names();
        let count = |name| names.iter().filter(|command| **command == name).count();
        assert_eq!((count("open"), count("close")), (3, 3));
        assert_eq!(pbx.open_legs(), 0);
    });
}
