//! Steps of the dialplan: answer, play, wait, echo, goto, reject and hang up.

use crate::{
    house::{House, act, cdr, why, with_pbx, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::sim::{
    Network, World,
    phone::{Act, Heard, On},
};

const DIALPLAN: &str = r#"
[[internal.rule]]
match = "*97"
steps = [{ answer = true }, { wait = "1s" }, { play = "welcome.wav" }, { echo = true }]
[[internal.rule]]
match = "*98"
play  = "closed.wav"
[[internal.rule]]
match = "*99"
goto  = { context = "voicemail", number = "1001" }
[[internal.rule]]
match = "*90"
steps = [{ wait = "2s" }, { reject = 486 }]
[[voicemail.rule]]
match  = "_!"
steps  = [{ answer = true }, { wait = "500ms" }, { hangup = true }]
"#;

fn play(seed: u64, network: Network, number: &str) -> World {
    let mut house = House::new(seed);
    house.dialplan(DIALPLAN).prompt("welcome.wav", 3).prompt("closed.wav", 2);
    let mut world = house.phone("1001").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 10_000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call(number.into()));
    world
}

#[test]
fn a_prompt_then_an_echo() {
    let mut world = play(1, Network::CLEAN, "*97");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  200 OK (INVITE, sdp)
                40 ms  1001 -> tandem  ACK
             10040 ms  1001 -> tandem  BYE
             10060 ms  tandem -> 1001  200 OK (BYE)",
    );
    let steps = with_pbx(&mut world, |pbx, _| pbx.command_names());
    assert_eq!(steps, ["open", "aim", "play", "echo", "close"]);
    assert_eq!(cdr(&mut world).ending.status, 200);
}

#[test]
fn the_call_ends_after_the_last_step() {
    let mut world = play(1, Network::CLEAN, "*98");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  200 OK (INVITE, sdp)
                40 ms  1001 -> tandem  ACK
              2020 ms  tandem -> 1001  BYE
              2040 ms  1001 -> tandem  200 OK (BYE)",
    );
}

#[test]
fn a_goto_and_a_hang_up() {
    let mut world = play(1, Network::CLEAN, "*99");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  200 OK (INVITE, sdp)
                40 ms  1001 -> tandem  ACK
               520 ms  tandem -> 1001  BYE
               540 ms  1001 -> tandem  200 OK (BYE)",
    );
}

#[test]
fn a_wait_before_a_rejection() {
    let mut world = play(1, Network::CLEAN, "*90");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
              2020 ms  tandem -> 1001  486 Busy Here (INVITE)
              2040 ms  1001 -> tandem  ACK",
    );
    assert_eq!(why(&mut world), "R002 rule `internal[4]` rejects with 486");
}

#[test]
fn on_bad_networks() {
    let number = |seed| ["*97", "*98", "*99", "*90"][seed as usize % 4];
    storm(
        200,
        |seed, network| play(seed, network, number(seed)),
        |world| {
            with_phone(world, "1001", |phone, _| {
                phone.heard().iter().any(|h| matches!(h, Heard::Up | Heard::Refused(486, _)))
            })
        },
    );
}
