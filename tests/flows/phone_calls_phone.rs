//! One phone calls another, they talk, the caller hangs up.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::{
    observe::cdr::{Direction, EndedBy, UtcMs},
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
};

fn play(seed: u64, network: Network) -> World {
    let mut house = House::new(seed);
    house.phone("1001").phone("1002");
    let mut world = house.open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 2000, Act::Answer);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

#[test]
fn on_a_clean_network() {
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "   0 ms  1001 -> tandem  INVITE (sdp)
           20 ms  tandem -> 1001  100 Trying (INVITE)
           20 ms  tandem -> 1002  INVITE (sdp)
           40 ms  1002 -> tandem  100 Trying (INVITE)
          140 ms  1002 -> tandem  180 Ringing (INVITE)
          160 ms  tandem -> 1001  180 Ringing (INVITE)
         2040 ms  1002 -> tandem  200 OK (INVITE, sdp)
         2060 ms  tandem -> 1002  ACK
         2060 ms  tandem -> 1001  200 OK (INVITE, sdp)
         2080 ms  1001 -> tandem  ACK
         7080 ms  1001 -> tandem  BYE
         7100 ms  tandem -> 1001  200 OK (BYE)
         7100 ms  tandem -> 1002  BYE
         7120 ms  1002 -> tandem  200 OK (BYE)",
    );
    let cdr = with_pbx(&mut world, |pbx, _| pbx.cdrs()[0].clone());
    assert_eq!(cdr.direction, Direction::Internal);
    assert_eq!((cdr.ending.by, cdr.ending.status), (EndedBy::Caller, 200));
    assert_eq!(cdr.route.rule.as_deref(), Some("internal[1]"));
    let from_start = |at: Option<UtcMs>| at.map(|at| at.since(cdr.times.start));
    assert_eq!(from_start(cdr.times.ring), Some(140));
    assert_eq!(from_start(cdr.times.answer), Some(2040));
    assert_eq!(from_start(Some(cdr.times.end)), Some(7080));
    assert_eq!(cdr.media.caller.codec.as_deref(), Some("PCMU"));
    with_phone(&mut world, "1002", |phone, _| {
        let called = Heard::Called { from: "1001".into(), name: None };
        let normal = "Q.850;cause=16;text=\"Normal call clearing\"";
        assert_eq!(phone.heard()[1..], [called, Heard::Up, Heard::HungUp(Some(normal.into()))]);
    });
}

#[test]
fn on_bad_networks() {
    storm(1000, play, |world| with_phone(world, "1002", |phone, _| phone.has_heard(&Heard::Up)));
}

/// The same over IPv6: signalling and media addresses.
#[test]
fn over_ipv6() {
    let play = |seed, network| {
        let mut world = House::new(seed).ipv6().phone("1001").phone("1002").open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::Answer);
        });
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 2000, Act::Hold).when(On::Up, 4000, Act::HangUp);
        });
        world.set_network(network);
        act(&mut world, "1001", Act::Call("1002".into()));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 reinvites 1002
              4180 ms  1001 hangs up on 1002",
    );
    let of_pbx = world.sent().iter().filter(|sent| &*sent.from == "tandem");
    let said: Vec<String> = of_pbx
        .filter_map(|sent| sent.message.sdp())
        .map(|sdp| String::from_utf8(sdp.to_vec()).unwrap())
        .collect();
    assert_eq!(said.len(), 4);
    for sdp in said {
        assert!(sdp.contains("c=IN IP6 fd00::1\r\n"), "{sdp}");
        assert!(sdp.contains(" IN IP6 fd00::1\r\ns="), "{sdp}");
    }
    for name in ["1001", "1002"] {
        with_phone(&mut world, name, |phone, _| {
            let media = phone.media().expect("agreed");
            assert!(media.remote.ip() == std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]));
        });
    }
    storm(200, play, |_| true);
}
