//! A caller that a prompt has answered already hears ringing from us while a phone rings.

use crate::{
    house::{House, act, cdr, with_pbx, with_phone},
    storm::storm,
};
use std::time::Duration;
use tandem::sim::{
    Network, World,
    phone::{Act, Heard, On},
};

const DIALPLAN: &str = r#"
[[internal.rule]]
match = "_1XXX"
steps = [{ answer = true }, { dial = "user:{number}", ring = "5s" }]
"#;

fn play(seed: u64, network: Network, answers: bool) -> World {
    let mut house = House::new(seed);
    house.dialplan(DIALPLAN);
    let mut world = house.phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 8_000, Act::HangUp);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring);
        if answers {
            phone.when(On::Called, 2_000, Act::Answer);
        }
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

#[test]
fn until_somebody_answers() {
    let mut world = play(1, Network::CLEAN, true);
    assert!(world.settle(Duration::from_secs(120)));
    let steps = with_pbx(&mut world, |pbx, _| pbx.command_names());
    let order: Vec<_> =
        steps.into_iter().filter(|s| ["play", "bridge", "stop"].contains(s)).collect();
    assert_eq!(order, ["play", "bridge"]);
    let was_hung_up = with_phone(&mut world, "1002", |phone, _| {
        phone.heard().iter().any(|heard| matches!(heard, Heard::HungUp(_)))
    });
    assert!(was_hung_up);
    assert_eq!(cdr(&mut world).ending.status, 200);
}

#[test]
fn until_nobody_did() {
    let mut world = play(1, Network::CLEAN, false);
    assert!(world.settle(Duration::from_secs(120)));
    let steps = with_pbx(&mut world, |pbx, _| pbx.command_names());
    assert!(steps.contains(&"play") && !steps.contains(&"bridge"), "{steps:?}");
}

#[test]
fn on_bad_networks() {
    storm(200, |seed, network| play(seed, network, true), |world| cdr(world).times.talk_ms() > 0);
}
