//! A call from the PSTN: the trunk's number rings at two phones, one answers, the other is told.

use crate::{
    house::{DID, House, PBX, addr, cdr, with_phone, with_twilio},
    storm::{assert_ladder, faults, storm},
};
use std::time::Duration;
use tandem::{
    ids::Transport,
    observe::cdr::{Direction, EndedBy},
    sim::{
        Network, World,
        phone::{Act, Heard, On},
        twilio::{self, CallIn, Origination},
    },
};

pub(crate) fn call_in(did: &str) -> CallIn {
    let to = vec![Origination::new(addr(PBX), Transport::Udp)];
    CallIn { name: Some("Alice Example".into()), ..CallIn::new(did, "+14155550123", to) }
}

fn play(seed: u64, network: Network) -> World {
    let mut world = House::new(seed).twilio().phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Ring);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 150, Act::Ring).when(On::Called, 2000, Act::Answer);
    });
    world.set_network(network);
    let call = CallIn { talks_for: Some(Duration::from_secs(5)), ..call_in(DID) };
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call, now));
    world
}

#[test]
fn on_a_clean_network() {
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  twilio -> tandem  INVITE (sdp)
                20 ms  tandem -> twilio  100 Trying (INVITE)
                20 ms  tandem -> 1001  INVITE (sdp)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1001 -> tandem  100 Trying (INVITE)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1001 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> twilio  180 Ringing (INVITE)
               190 ms  1002 -> tandem  180 Ringing (INVITE)
               210 ms  tandem -> twilio  180 Ringing (INVITE)
              2040 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2060 ms  tandem -> 1002  ACK
              2060 ms  tandem -> 1001  CANCEL
              2060 ms  tandem -> twilio  200 OK (INVITE, sdp)
              2080 ms  1001 -> tandem  200 OK (CANCEL)
              2080 ms  1001 -> tandem  487 Request Terminated (INVITE)
              2080 ms  twilio -> tandem  ACK
              2100 ms  tandem -> 1001  ACK
              7080 ms  twilio -> tandem  BYE
              7100 ms  tandem -> twilio  200 OK (BYE)
              7100 ms  tandem -> 1002  BYE
              7120 ms  1002 -> tandem  200 OK (BYE)",
    );
    let called = Heard::Called { from: "+14155550123".into(), name: Some("Alice Example".into()) };
    with_phone(&mut world, "1001", |phone, _| {
        let elsewhere = "SIP;cause=200;text=\"Call completed elsewhere\"";
        let cancelled = Heard::Cancelled(Some(elsewhere.into()));
        assert_eq!(phone.heard()[1..], [called.clone(), cancelled]);
    });
    with_phone(&mut world, "1002", |phone, _| {
        let hung_up = Heard::HungUp(Some("Q.850;cause=16".into()));
        assert_eq!(phone.heard()[1..], [called, Heard::Up, hung_up]);
    });
    let cdr = cdr(&mut world);
    assert_eq!((cdr.direction, cdr.ending.by), (Direction::Inbound, EndedBy::Caller));
    assert_eq!(cdr.callee.user.as_ref().map(|user| user.expose()), Some("1002"));
    assert_eq!(cdr.ending.q850, Some(16));
}

#[test]
fn on_bad_networks() {
    storm(1000, play, |world| with_phone(world, "1002", |phone, _| phone.has_heard(&Heard::Up)));
}

#[test]
fn the_callee_hangs_up() {
    let mut world = House::new(1).twilio().phone("1001").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Up, 1000, Act::HangUp);
    });
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call_in(DID), now));
    assert_ladder(
        &mut world,
        "0 ms  twilio -> tandem  INVITE (sdp)
                20 ms  tandem -> twilio  100 Trying (INVITE)
                20 ms  tandem -> 1001  INVITE (sdp)
                40 ms  1001 -> tandem  100 Trying (INVITE)
               140 ms  1001 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1001  ACK
               160 ms  tandem -> twilio  200 OK (INVITE, sdp)
               180 ms  twilio -> tandem  ACK
              1180 ms  1001 -> tandem  BYE
              1200 ms  tandem -> 1001  200 OK (BYE)
              1200 ms  tandem -> twilio  BYE
              1220 ms  twilio -> tandem  200 OK (BYE)",
    );
    assert_eq!(cdr(&mut world).ending.by, EndedBy::Callee);
}

#[test]
fn the_caller_gives_up() {
    let play = |seed, network| {
        let mut world = House::new(seed).twilio().phone("1001").phone("1002").open_registered();
        for name in ["1001", "1002"] {
            with_phone(&mut world, name, |phone, _| {
                phone.when(On::Called, 100, Act::Ring);
            });
        }
        world.set_network(network);
        let call = CallIn { waits: Some(Duration::from_secs(3)), ..call_in(DID) };
        with_twilio(&mut world, |twilio, now| twilio.call_in(&call, now));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  twilio -> tandem  INVITE (sdp)
                20 ms  tandem -> twilio  100 Trying (INVITE)
                20 ms  tandem -> 1001  INVITE (sdp)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1001 -> tandem  100 Trying (INVITE)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1001 -> tandem  180 Ringing (INVITE)
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> twilio  180 Ringing (INVITE)
               160 ms  tandem -> twilio  180 Ringing (INVITE)
              3000 ms  twilio -> tandem  CANCEL
              3020 ms  tandem -> twilio  200 OK (CANCEL)
              3020 ms  tandem -> twilio  487 Request Terminated (INVITE)
              3020 ms  tandem -> 1001  CANCEL
              3020 ms  tandem -> 1002  CANCEL
              3040 ms  twilio -> tandem  ACK
              3040 ms  1001 -> tandem  200 OK (CANCEL)
              3040 ms  1001 -> tandem  487 Request Terminated (INVITE)
              3040 ms  1002 -> tandem  200 OK (CANCEL)
              3040 ms  1002 -> tandem  487 Request Terminated (INVITE)
              3060 ms  tandem -> 1001  ACK
              3060 ms  tandem -> 1002  ACK",
    );
    assert_eq!(cdr(&mut world).ending.status, 487);
    storm(200, play, |_| true);
}

#[test]
fn a_number_that_nobody_has_is_404() {
    let mut world = House::new(1).twilio().open();
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call_in("+17756180000"), now));
    assert_ladder(
        &mut world,
        "0 ms  twilio -> tandem  INVITE (sdp)
                20 ms  tandem -> twilio  100 Trying (INVITE)
                20 ms  tandem -> twilio  404 Not Found (INVITE)
                40 ms  twilio -> tandem  ACK",
    );
    let ending = cdr(&mut world).ending;
    assert_eq!(ending.status, 404);
    let why = ending.why.unwrap();
    assert_eq!((&*why.code, &*why.carrier_errors), ("R001", &[32010, 32011][..]));
}

/// The address of the trunk is known; another one's INVITE is a phone's, and challenged.
#[test]
fn an_unknown_source_is_not_answered_as_a_trunk() {
    let mut house = House::new(1);
    let elsewhere = addr("198.51.100.9:5060");
    let also_there = |mut setup: twilio::Setup| {
        let proxies = vec![twilio::Proxy::new(elsewhere)];
        setup.edges.push(twilio::Edge { name: "dublin".into(), proxies });
        setup
    };
    let mut world = house.twilio_like(also_there).phone("1001").open_registered();
    let call = CallIn { through: Some(elsewhere), ..call_in(DID) };
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call, now));
    let faults = faults(&mut world);
    assert_eq!(
        faults,
        ["a call from Twilio is not challenged, but: 401 to a call of ours (Twilio error 32011)"]
    );
    with_phone(&mut world, "1001", |phone, _| assert_eq!(phone.calls(), 0));
}
