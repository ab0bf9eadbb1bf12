//! The caller gives up, at every stage of the call.

use crate::{
    house::{House, act, cdr, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::{
    observe::cdr::EndedBy,
    sim::{
        Network, World,
        phone::{Act, Habit, Heard, On},
    },
};

/// The callee rings after 100 ms and answers after 2 s; the caller gives up at `cancel_ms`.
fn play(seed: u64, network: Network, cancel_ms: u64) -> World {
    let mut world = House::new(seed).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 2000, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 3000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world.at(cancel_ms, |world| act(world, "1001", Act::Cancel));
    world
}

#[test]
fn while_it_rings() {
    let mut world = play(1, Network::CLEAN, 1000);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              1000 ms  1001 -> tandem  CANCEL
              1020 ms  tandem -> 1001  200 OK (CANCEL)
              1020 ms  tandem -> 1001  487 Request Terminated (INVITE)
              1020 ms  tandem -> 1002  CANCEL
              1040 ms  1001 -> tandem  ACK
              1040 ms  1002 -> tandem  200 OK (CANCEL)
              1040 ms  1002 -> tandem  487 Request Terminated (INVITE)
              1060 ms  tandem -> 1002  ACK",
    );
    let cdr = cdr(&mut world);
    assert_eq!((cdr.ending.by, cdr.ending.status), (EndedBy::Caller, 487));
    assert_eq!(cdr.ending.why, None);
    with_phone(&mut world, "1001", |phone, _| {
        let ended = Heard::Refused(487, "Request Terminated".into());
        assert_eq!(phone.heard()[1..], [Heard::Ringing(180), ended]);
    });
}

/// The phone may not send CANCEL before it has heard anything (RFC 3261 9.1).
#[test]
fn before_anything_was_heard() {
    let mut world = play(1, Network::CLEAN, 0);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1001 -> tandem  CANCEL
                40 ms  1002 -> tandem  100 Trying (INVITE)
                60 ms  tandem -> 1001  200 OK (CANCEL)
                60 ms  tandem -> 1001  487 Request Terminated (INVITE)
                60 ms  tandem -> 1002  CANCEL
                80 ms  1001 -> tandem  ACK
                80 ms  1002 -> tandem  200 OK (CANCEL)
                80 ms  1002 -> tandem  487 Request Terminated (INVITE)
               100 ms  tandem -> 1002  ACK",
    );
}

/// A callee that was never heard gets no CANCEL, only the end of our patience.
#[test]
fn of_a_callee_that_was_never_heard() {
    let mut house = House::new(1);
    house.phone("1001").phone("1002");
    let mut world = house.open_registered();
    world.partition("tandem", "1002", 0, 60_000);
    act(&mut world, "1001", Act::Call("1002".into()));
    world.at(1000, |world| act(world, "1001", Act::Cancel));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)  [lost]
               520 ms  tandem -> 1002  INVITE (sdp)  [lost]
              1000 ms  1001 -> tandem  CANCEL
              1020 ms  tandem -> 1001  200 OK (CANCEL)
              1020 ms  tandem -> 1001  487 Request Terminated (INVITE)
              1040 ms  1001 -> tandem  ACK
              1520 ms  tandem -> 1002  INVITE (sdp)  [lost]
              3520 ms  tandem -> 1002  INVITE (sdp)  [lost]",
    );
}

/// CANCEL and 200 meet between the phone and the PBX: the call comes up, and is ended by BYE.
#[test]
fn crossing_the_200_to_the_caller() {
    let mut world = play(1, Network::CLEAN, 2050);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              2040 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2050 ms  1001 -> tandem  CANCEL
              2060 ms  tandem -> 1002  ACK
              2060 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2070 ms  tandem -> 1001  200 OK (CANCEL)
              2080 ms  1001 -> tandem  ACK
              2080 ms  1001 hangs up on 1002",
    );
}

/// They meet between the PBX and the callee.
#[test]
fn crossing_the_200_of_the_callee() {
    let mut world = play(1, Network::CLEAN, 2010);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              2010 ms  1001 -> tandem  CANCEL
              2030 ms  tandem -> 1001  200 OK (CANCEL)
              2030 ms  tandem -> 1001  487 Request Terminated (INVITE)
              2030 ms  tandem -> 1002  CANCEL
              2040 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2050 ms  1001 -> tandem  ACK
              2050 ms  1002 -> tandem  200 OK (CANCEL)
              2060 ms  tandem -> 1002  ACK
              2060 ms  tandem -> 1002  BYE
              2080 ms  1002 -> tandem  200 OK (BYE)",
    );
}

/// The callee did not see the CANCEL in time, or does not care.
#[test]
fn a_callee_that_answers_all_the_same() {
    let play = |seed, network| {
        let mut house = House::new(seed);
        house.phone("1001").phone_like("1002", "1002", |s| s.with(Habit::IgnoresCancel));
        let mut world = house.open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::Ring).when(On::Called, 2000, Act::Answer);
        });
        world.set_network(network);
        act(&mut world, "1001", Act::Call("1002".into()));
        world.at(1000, |world| act(world, "1001", Act::Cancel));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              1000 ms  1001 -> tandem  CANCEL
              1020 ms  tandem -> 1001  200 OK (CANCEL)
              1020 ms  tandem -> 1001  487 Request Terminated (INVITE)
              1020 ms  tandem -> 1002  CANCEL
              1040 ms  1001 -> tandem  ACK
              1040 ms  1002 -> tandem  200 OK (CANCEL)
              2040 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2060 ms  tandem -> 1002  ACK
              2060 ms  tandem -> 1002  BYE
              2080 ms  1002 -> tandem  200 OK (BYE)",
    );
    storm(200, play, |_| true);
}

#[test]
fn at_any_moment_on_bad_networks() {
    storm(1000, |seed, network| play(seed, network, seed * 3 % 3000), |_| true);
}
