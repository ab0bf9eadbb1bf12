//! A callee that answers when nobody waits for it any more: it is acknowledged and hung up, so that it is not left
//! with half a call (RFC 3261 13.2.2.4, 15).

use crate::{
    house::{House, act, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    sim::{
        Network, World,
        phone::{Act, Habit, Heard, On},
    },
    sip::Method,
};

/// 1002 hears the INVITE, and nothing that it says is heard until `silent_ms`; it answers at `answers_ms`.
fn play(seed: u64, network: Network, silent_ms: u64, answers_ms: u64) -> World {
    let mut house = House::new(seed);
    house.phone("1001").phone_like("1002", "1002", |setup| setup.with(Habit::IgnoresCancel));
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, answers_ms, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 3000, Act::HangUp);
    });
    world.set_network(network);
    world.partition("1002", "tandem", 30, silent_ms);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// The caller was told that nobody answers, timer B has passed; then the callee picks up, and hears our ACK with the
/// third copy of its 200 only.
#[test]
fn after_timer_b() {
    let mut world = play(1, Network::CLEAN, 35_000, 36_000);
    world.partition("1002", "tandem", 36_050, 37_000);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)  [lost]
               520 ms  tandem -> 1002  INVITE (sdp)  [lost]
              1520 ms  tandem -> 1002  INVITE (sdp)  [lost]
              3520 ms  tandem -> 1002  INVITE (sdp)  [lost]
              7520 ms  tandem -> 1002  INVITE (sdp)  [lost]
             15520 ms  tandem -> 1002  INVITE (sdp)  [lost]
             20020 ms  tandem -> 1001  480 Temporarily Unavailable (INVITE)
             20040 ms  1001 -> tandem  ACK
             36040 ms  1002 -> tandem  200 OK (INVITE, sdp)
             36060 ms  tandem -> 1002  ACK  [lost]
             36060 ms  tandem -> 1002  BYE  [lost]
             36540 ms  1002 -> tandem  200 OK (INVITE, sdp)  [lost]
             36560 ms  tandem -> 1002  BYE  [lost]
             37540 ms  1002 -> tandem  200 OK (INVITE, sdp)
             37560 ms  tandem -> 1002  ACK
             37560 ms  tandem -> 1002  BYE
             37580 ms  1002 -> tandem  200 OK (BYE)",
    );
    with_phone(&mut world, "1002", |phone, _| {
        assert!(phone.has_heard(&Heard::Up), "the ACK");
        assert!(matches!(phone.heard().last(), Some(Heard::HungUp(_))), "{:?}", phone.heard());
    });
}

/// Its answer is heard as long as it can come: for 64*T1 after the INVITE was given up.
#[test]
fn until_the_end_of_what_is_legitimate() {
    for answers_ms in [31_900, 31_990, 32_100, 40_000, 55_000, 63_900] {
        let mut world = play(1, Network::CLEAN, 31_000, answers_ms);
        assert_eq!(faults(&mut world), [""; 0], "{answers_ms}: {}", world.ladder());
        let sent = world.sent().iter().filter(|sent| &*sent.to == "1002");
        let is_bye = |method: Method| method == Method::Bye;
        let byes = sent.filter(|s| s.message.is_request() && is_bye(s.message.method())).count();
        assert_eq!(byes, 1, "{answers_ms}: {}", world.ladder());
    }
}

/// It rings on in spite of the CANCEL, and picks up half a minute after that was given up.
#[test]
fn after_a_cancel_that_is_not_heeded() {
    let mut world = play(1, Network::CLEAN, 31, 80_000);
    world.run_until(20_000);
    act(&mut world, "1001", Act::Cancel);
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    with_phone(&mut world, "1002", |phone, _| {
        assert!(matches!(phone.heard().last(), Some(Heard::HungUp(_))), "{:?}", phone.heard());
    });
}

#[test]
fn on_bad_networks() {
    let play = |seed: u64, network| {
        play(seed, network, seed * 7_919 % 40_000, 100 + seed * 104_729 % 50_000)
    };
    storm(500, play, |_| true);
}
