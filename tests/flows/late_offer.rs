//! An INVITE without an offer: the 200 brings one, the ACK answers it.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::sim::{
    Network, World,
    phone::{Act, Habit, Heard, On},
};

fn play(seed: u64, network: Network, number: &str) -> World {
    let mut house = House::new(seed);
    house.twilio().phone_like("1001", "1001", |setup| setup.with(Habit::OffersLate));
    let mut world = house.phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 1000, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 4000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call(number.into()));
    world
}

#[test]
fn to_a_phone() {
    let mut world = play(1, Network::CLEAN, "1002");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
              1040 ms  1002 -> tandem  200 OK (INVITE, sdp)
              1060 ms  tandem -> 1002  ACK
              1060 ms  tandem -> 1001  200 OK (INVITE, sdp)
              1080 ms  1001 -> tandem  ACK (sdp)
              5080 ms  1001 hangs up on 1002",
    );
    for name in ["1001", "1002"] {
        with_phone(&mut world, name, |phone, _| {
            assert_eq!(phone.media().map(|media| &*media.codec), Some("PCMU"));
        });
    }
    with_pbx(&mut world, |pbx, _| assert!(pbx.command_names().contains(&"bridge")));
}

#[test]
fn to_the_trunk() {
    let mut world = play(1, Network::CLEAN, "+14155550199");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> twilio  INVITE (sdp)
                40 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
                40 ms  twilio -> tandem  407 Proxy Authentication required (INVITE)
                60 ms  tandem -> twilio  ACK
                60 ms  tandem -> twilio  INVITE (sdp)
                80 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE)
              2380 ms  twilio -> tandem  200 OK (INVITE, sdp)
              2400 ms  tandem -> twilio  ACK
              2400 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2420 ms  1001 -> tandem  ACK (sdp)
              6420 ms  1001 hangs up on twilio",
    );
    with_pbx(&mut world, |pbx, _| assert!(pbx.command_names().contains(&"bridge")));
}

#[test]
fn to_a_prompt() {
    let plan = "[[internal.rule]]\nmatch = '*97'\nsteps = [{ answer = true }, { echo = true }]";
    let play = |seed, network| {
        let mut house = House::new(seed);
        house.dialplan(plan);
        house.phone_like("1001", "1001", |setup| setup.with(Habit::OffersLate));
        let mut world = house.open_registered();
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 4000, Act::HangUp);
        });
        world.set_network(network);
        act(&mut world, "1001", Act::Call("*97".into()));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  200 OK (INVITE, sdp)
                40 ms  1001 -> tandem  ACK (sdp)
              4040 ms  1001 -> tandem  BYE
              4060 ms  tandem -> 1001  200 OK (BYE)",
    );
    let commands = with_pbx(&mut world, |pbx, _| pbx.command_names());
    let (aim, echo) = ("aim", "echo");
    let at = |name| commands.iter().rposition(|command| *command == name);
    assert!(at(aim) < at(echo), "{commands:?}");
    storm(200, play, |_| true);
}

#[test]
fn on_bad_networks() {
    let number = |seed| ["1002", "+14155550199"][seed as usize % 2];
    storm(
        300,
        |seed, network| play(seed, network, number(seed)),
        |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)),
    );
}
