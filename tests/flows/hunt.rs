//! Busy, no answer, the next group, and what the rule says should follow.

use crate::{
    house::{House, act, cdr, why, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::sim::{
    Network, World,
    phone::{Act, Heard, On},
};

const DIALPLAN: &str = r#"
[[internal.rule]]
match = "_1XXX"
dial  = "user:{number}"
ring  = "10s"
[[internal.rule]]
match = "2000"
dial  = [["user:1002"], ["user:1003"]]
ring  = "5s"
[[internal.rule]]
match = "2001"
dial  = "user:1002"
ring  = "5s"
on    = { busy = { play = "busy.wav" }, no_answer = { dial = "user:1003" }, failed = { reject = 404 } }
[[internal.rule]]
match = "_+."
dial  = "trunk:twilio"
ring  = "5s"
on    = { busy = { play = "busy.wav" }, no_answer = { dial = "user:1003" } }
[[internal.rule]]
match = "2002"
dial  = ["user:1002", "user:1003"]
ring  = "5s"
"#;

const NUMBERS: &[&str] = &["1002", "2000", "2001", "2002", "+15005550486", "+15005550408"];

fn play(seed: u64, network: Network, number: &str, second: Act) -> World {
    let mut house = House::new(seed);
    house.dialplan(DIALPLAN).prompt("busy.wav", 2);
    let mut world = house.twilio().phone("1001").phone("1002").phone("1003").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, second);
    });
    with_phone(&mut world, "1003", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 1000, Act::Answer);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call(number.into()));
    world
}

fn refused(world: &mut World, status: u16, reason: &str) {
    with_phone(world, "1001", |phone, _| {
        assert_eq!(phone.heard().last(), Some(&Heard::Refused(status, reason.into())));
    });
}

#[test]
fn busy() {
    let mut world = play(1, Network::CLEAN, "1002", Act::Reject(486));
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  486 Busy Here (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  486 Busy Here (INVITE)
               180 ms  1001 -> tandem  ACK",
    );
    refused(&mut world, 486, "Busy Here");
    assert_eq!(why(&mut world), "P001 1002 answered 486 Busy Here");
    assert_eq!(cdr(&mut world).ending.q850, Some(17));
}

#[test]
fn no_answer() {
    let mut world = play(1, Network::CLEAN, "1002", Act::Ring);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
             10020 ms  tandem -> 1002  CANCEL
             10020 ms  tandem -> 1001  480 Temporarily Unavailable (INVITE)
             10040 ms  1002 -> tandem  200 OK (CANCEL)
             10040 ms  1002 -> tandem  487 Request Terminated (INVITE)
             10040 ms  1001 -> tandem  ACK
             10060 ms  tandem -> 1002  ACK",
    );
    refused(&mut world, 480, "Temporarily Unavailable");
    assert_eq!(why(&mut world), "R005 1002 did not answer in time");
}

/// 1002 rings for its 5 s, then 1003 does, and answers.
const ON_TO_1003: &str = "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              5020 ms  tandem -> 1002  CANCEL
              5020 ms  tandem -> 1003  INVITE (sdp)
              5040 ms  1002 -> tandem  200 OK (CANCEL)
              5040 ms  1002 -> tandem  487 Request Terminated (INVITE)
              5040 ms  1003 -> tandem  100 Trying (INVITE)
              5060 ms  tandem -> 1002  ACK
              5140 ms  1003 -> tandem  180 Ringing (INVITE)
              5160 ms  tandem -> 1001  180 Ringing (INVITE)
              6040 ms  1001 is answered by 1003
             11080 ms  1001 hangs up on 1003";

#[test]
fn the_next_group_after_no_answer() {
    let mut world = play(1, Network::CLEAN, "2000", Act::Ring);
    assert_ladder(&mut world, ON_TO_1003);
    let cdr = cdr(&mut world);
    assert_eq!(cdr.ending.why, None);
    assert_eq!(cdr.callee.user.as_ref().map(|user| user.expose()), Some("1003"));
}

#[test]
fn the_next_group_after_busy() {
    let mut world = play(1, Network::CLEAN, "2000", Act::Reject(486));
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  486 Busy Here (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1003  INVITE (sdp)
               180 ms  1003 -> tandem  100 Trying (INVITE)
               280 ms  1003 -> tandem  180 Ringing (INVITE)
               300 ms  tandem -> 1001  180 Ringing (INVITE)
              1180 ms  1001 is answered by 1003
              6220 ms  1001 hangs up on 1003",
    );
}

#[test]
fn on_busy() {
    let mut world = play(1, Network::CLEAN, "2001", Act::Reject(486));
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  486 Busy Here (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK
              2160 ms  tandem -> 1001  BYE
              2180 ms  1001 -> tandem  200 OK (BYE)",
    );
}

#[test]
fn on_no_answer() {
    let mut world = play(1, Network::CLEAN, "2001", Act::Ring);
    assert_ladder(&mut world, ON_TO_1003);
}

/// The trunk's early media has answered the offer; the prompt keeps to that answer.
#[test]
fn on_busy_after_early_media() {
    let mut world = play(1, Network::CLEAN, "+15005550486", Act::Ring);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls twilio
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2380 ms  twilio -> tandem  486 Busy Here (INVITE)
              2400 ms  tandem -> twilio  ACK
              2400 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2420 ms  1001 -> tandem  ACK
              4400 ms  tandem -> 1001  BYE
              4420 ms  1001 -> tandem  200 OK (BYE)",
    );
}

#[test]
fn on_no_answer_after_early_media() {
    let mut world = play(1, Network::CLEAN, "+15005550408", Act::Ring);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls twilio
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              5020 ms  tandem -> twilio  CANCEL
              5020 ms  tandem -> 1003  INVITE (sdp)
              5040 ms  twilio -> tandem  200 OK (CANCEL)
              5040 ms  twilio -> tandem  487 Request Terminated (INVITE)
              5040 ms  1003 -> tandem  100 Trying (INVITE)
              5060 ms  tandem -> twilio  ACK
              5140 ms  1003 -> tandem  180 Ringing (INVITE)
              5160 ms  tandem -> 1001  180 Ringing (INVITE)
              6040 ms  1001 is answered by 1003
             11080 ms  1001 hangs up on 1003",
    );
}

#[test]
fn on_failed() {
    let mut world = play(1, Network::CLEAN, "2001", Act::Reject(500));
    refused_after_rest(&mut world, 404, "Not Found");
}

fn refused_after_rest(world: &mut World, status: u16, reason: &str) {
    assert_eq!(crate::storm::faults(world), [""; 0]);
    refused(world, status, reason);
}

/// One of two declines for all of them: RFC 3261 16.7 would end the call, a house does not.
#[test]
fn one_of_two_declines() {
    let mut world = play(1, Network::CLEAN, "2002", Act::Reject(603));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                20 ms  tandem -> 1003  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
                40 ms  1003 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  603 Decline (INVITE)
               140 ms  1003 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              1040 ms  1001 is answered by 1003
              6080 ms  1001 hangs up on 1003",
    );
}

#[test]
fn nobody_is_registered() {
    let mut world = House::new(1).phone("1001").open_registered();
    act(&mut world, "1001", Act::Call("1002".into()));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  480 Temporarily Unavailable (INVITE)
                40 ms  1001 -> tandem  ACK",
    );
    assert_eq!(why(&mut world), "R004 nobody could be called: not registered");
}

#[test]
fn on_bad_networks() {
    let number = |seed| NUMBERS[seed as usize % NUMBERS.len()];
    let act = |seed| {
        let acts = [Act::Reject(486), Act::Ring, Act::Reject(500), Act::Reject(603)];
        acts[(seed as usize / NUMBERS.len()) % acts.len()].clone()
    };
    storm(400, |seed, network| play(seed, network, number(seed), act(seed)), |_| true);
}
