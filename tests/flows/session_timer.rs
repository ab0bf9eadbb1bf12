//! Session timers (RFC 4028): who refreshes, and what becomes of a call that nobody refreshes.

use crate::{
    house::{House, act, cdr, why, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::{
    observe::cdr::EndedBy,
    sim::{
        Network, World,
        phone::{Act, Habit, Heard, On},
    },
};

fn play(seed: u64, network: Network, habits: &[Habit], session_s: Option<u32>) -> World {
    let mut house = House::new(seed);
    house.sip_keys("session_expires = \"90s\"").phone_like("1001", "1001", |mut setup| {
        setup.habits.extend(habits.iter().cloned());
        setup.session_s = session_s;
        setup
    });
    house.phone_like("1002", "1002", |mut setup| {
        setup.habits.extend(habits.iter().cloned());
        setup
    });
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 120_000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// The caller refreshes its leg, the PBX the callee's; by UPDATE.
#[test]
fn both_legs_are_refreshed() {
    let play = |seed, network| play(seed, network, &[], Some(90));
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
             45160 ms  tandem -> 1002  UPDATE
             45180 ms  1002 -> tandem  200 OK (UPDATE)
             45180 ms  1001 -> tandem  UPDATE
             45200 ms  tandem -> 1001  200 OK (UPDATE)
             90200 ms  tandem -> 1002  UPDATE
             90220 ms  1002 -> tandem  200 OK (UPDATE)
             90220 ms  1001 -> tandem  UPDATE
             90240 ms  tandem -> 1001  200 OK (UPDATE)
            120180 ms  1001 hangs up on 1002",
    );
    storm(200, play, |world| {
        with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Refreshed))
    });
}

/// By re-INVITE, where the phones know no UPDATE.
#[test]
fn by_reinvite() {
    let play = |seed, network| play(seed, network, &[Habit::LacksUpdate], Some(90));
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
             45160 ms  tandem -> 1002  INVITE (sdp)
             45180 ms  1002 -> tandem  100 Trying (INVITE)
             45180 ms  1002 -> tandem  200 OK (INVITE, sdp)
             45180 ms  1001 -> tandem  INVITE (sdp)
             45200 ms  tandem -> 1002  ACK
             45200 ms  tandem -> 1001  100 Trying (INVITE)
             45200 ms  tandem -> 1001  200 OK (INVITE, sdp)
             45220 ms  1001 -> tandem  ACK
             90200 ms  tandem -> 1002  INVITE (sdp)
             90220 ms  1002 -> tandem  100 Trying (INVITE)
             90220 ms  1002 -> tandem  200 OK (INVITE, sdp)
             90220 ms  1001 -> tandem  INVITE (sdp)
             90240 ms  tandem -> 1002  ACK
             90240 ms  tandem -> 1001  100 Trying (INVITE)
             90240 ms  tandem -> 1001  200 OK (INVITE, sdp)
             90260 ms  1001 -> tandem  ACK
            120180 ms  1001 hangs up on 1002",
    );
    storm(200, play, |_| true);
}

/// The caller promised to refresh and does not: the call ends before its time.
#[test]
fn a_caller_that_forgets() {
    let play = |seed, network| play(seed, network, &[Habit::Forgets], Some(90));
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
             45160 ms  tandem -> 1002  UPDATE
             45180 ms  1002 -> tandem  200 OK (UPDATE)
             60160 ms  tandem -> 1001  BYE
             60160 ms  tandem -> 1002  BYE
             60180 ms  1001 -> tandem  200 OK (BYE)
             60180 ms  1002 -> tandem  200 OK (BYE)",
    );
    assert_eq!(cdr(&mut world).ending.by, EndedBy::Tandem);
    assert_eq!(why(&mut world), "S002 nobody refreshed the session");
    storm(200, play, |_| true);
}

/// RFC 4028 5: an interval below our minimum is refused, and asked for again.
#[test]
fn too_short_an_interval() {
    let mut world = play(1, Network::CLEAN, &[], Some(30));
    world.at(5000, |world| act(world, "1001", Act::HangUp));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  422 Session Interval Too Small (INVITE)
                40 ms  1001 -> tandem  ACK
                40 ms  1001 calls 1002
               180 ms  1001 is answered by 1002
              5000 ms  1001 hangs up on 1002",
    );
}
