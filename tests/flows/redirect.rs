//! A phone forwards its calls (302): the PBX follows, by the rules of the one who forwards.

use crate::{
    house::{House, act, cdr, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::sim::{
    Network, World,
    phone::{Act, Heard, On},
};

fn play(seed: u64, network: Network, to: &str) -> World {
    let mut world =
        House::new(seed).twilio().phone("1001").phone("1002").phone("1003").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 2000, Act::HangUp);
    });
    let to = to.to_owned();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Redirect(to.into()));
    });
    with_phone(&mut world, "1003", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

#[test]
fn to_another_phone() {
    let mut world = play(1, Network::CLEAN, "sip:1003@10.0.0.1");
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1003  INVITE (sdp)
               180 ms  1003 -> tandem  100 Trying (INVITE)
               280 ms  1001 is answered by 1003
              2320 ms  1001 hangs up on 1003",
    );
    assert_eq!(cdr(&mut world).ending.why, None);
}

#[test]
fn to_a_number_outside() {
    let mut world = play(1, Network::CLEAN, "sip:+14155550199@tandem");
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> twilio  INVITE (sdp)
               180 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
               180 ms  twilio -> tandem  407 Proxy Authentication required (INVITE)
               200 ms  tandem -> twilio  ACK
               200 ms  tandem -> twilio  INVITE (sdp)
               220 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
               520 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               540 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2520 ms  1001 is answered by twilio
              4560 ms  1001 hangs up on twilio",
    );
}

/// A phone that forwards to itself, or to nobody, is not followed for ever.
#[test]
fn in_circles() {
    let mut world = play(1, Network::CLEAN, "sip:1002@10.0.0.1");
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1002  INVITE (sdp)
               180 ms  1002 -> tandem  100 Trying (INVITE)
               280 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               300 ms  tandem -> 1002  ACK
               300 ms  tandem -> 1002  INVITE (sdp)
               320 ms  1002 -> tandem  100 Trying (INVITE)
               420 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               440 ms  tandem -> 1002  ACK
               440 ms  tandem -> 1002  INVITE (sdp)
               460 ms  1002 -> tandem  100 Trying (INVITE)
               560 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               580 ms  tandem -> 1002  ACK
               580 ms  tandem -> 1002  INVITE (sdp)
               600 ms  1002 -> tandem  100 Trying (INVITE)
               700 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               720 ms  tandem -> 1002  ACK
               720 ms  tandem -> 1002  INVITE (sdp)
               740 ms  1002 -> tandem  100 Trying (INVITE)
               840 ms  1002 -> tandem  302 Moved Temporarily (INVITE)
               860 ms  tandem -> 1002  ACK
               860 ms  tandem -> 1001  480 Temporarily Unavailable (INVITE)
               880 ms  1001 -> tandem  ACK",
    );
    with_phone(&mut world, "1001", |phone, _| {
        let refused = Heard::Refused(480, "Temporarily Unavailable".into());
        assert_eq!(phone.heard().last(), Some(&refused));
    });
}

#[test]
fn on_bad_networks() {
    let to = ["sip:1003@10.0.0.1", "sip:+14155550199@tandem", "sip:1002@10.0.0.1"];
    storm(300, |seed, network| play(seed, network, to[seed as usize % 3]), |_| true);
}

/// `91003` leads to 1003 by a `goto`; `80` leads to nobody.
const GOTO: &str = r#"
[[internal.rule]]
match = "_1XXX"
dial  = "user:{number}"
[[internal.rule]]
match = "_9XXXX"
goto  = { context = "internal", number = "{number:1}" }
[[internal.rule]]
match = "80"
reject = 486
"#;

#[test]
fn to_a_number_whose_rule_goes_on() {
    for (to, called) in
        [("91003", Heard::Up), ("80", Heard::Refused(480, "Temporarily Unavailable".into()))]
    {
        let mut house = House::new(1);
        house.dialplan(GOTO).phone("1001").phone("1002").phone("1003");
        let mut world = house.open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::Redirect(format!("sip:{to}@10.0.0.1").into()));
        });
        with_phone(&mut world, "1003", |phone, _| {
            phone.when(On::Called, 100, Act::Answer).when(On::Up, 2000, Act::HangUp);
        });
        act(&mut world, "1001", Act::Call("1002".into()));
        assert_eq!(faults(&mut world), [""; 0]);
        with_phone(&mut world, "1001", |phone, _| {
            assert!(phone.has_heard(&called), "{:?}", phone.heard());
        });
    }
}
