//! OPTIONS to the trunk: its pace, and what a trunk that is down means to calls.

use crate::house::{House, TANDEM, TWILIO, act, with_pbx, with_phone, with_twilio};
use std::sync::Arc;
use tandem::{
    observe::status::TrunkState,
    sim::{
        World,
        phone::{Act, Heard},
    },
    sip::Method,
};

fn state(world: &mut World) -> TrunkState {
    with_pbx(world, |pbx, now| pbx.shard().trunks(now)[0].state)
}

#[test]
fn up_suspect_down_and_up_again() {
    let mut house = House::new(1);
    house.trunk_keys("").twilio().phone("1001");
    let mut world = house.open();
    act(&mut world, "1001", Act::Register);
    world.run_until(1000);
    assert_eq!(state(&mut world), TrunkState::Up);
    world.partition(TANDEM, TWILIO, 30_000, 150_000);
    world.run_until(70_000);
    assert_eq!(state(&mut world), TrunkState::Suspect);
    world.run_until(140_000);
    assert_eq!(state(&mut world), TrunkState::Down);

    act(&mut world, "1001", Act::Call("+14155550199".into()));
    world.run_until(141_000);
    with_phone(&mut world, "1001", |phone, _| {
        let refused = Heard::Refused(503, "Service Unavailable".into());
        assert_eq!(phone.heard().last(), Some(&refused));
    });
    let why = with_pbx(&mut world, |pbx, _| pbx.cdrs()[0].ending.why.clone().unwrap().sentence);
    assert_eq!(why, "nobody could be called: trunk down");

    world.run_until(240_000);
    assert_eq!(state(&mut world), TrunkState::Up);
    with_twilio(&mut world, |twilio, _| assert_eq!(twilio.deviations(), []));
    let asked: Vec<_> = world
        .sent()
        .iter()
        .filter(|sent| sent.message.is_request() && sent.message.method() == Method::Options)
        .map(|sent| sent.message.uri().to_owned())
        .collect();
    assert!(asked.iter().all(|uri| uri == "sip:asterisk-pbx1.pstn.twilio.com"), "{asked:?}");
}

/// The trunk is down for as long as it is asked at a place where nobody is. A reload that asks no
/// more, or that names the right place, has it carry the next call.
#[test]
fn a_reload_raises_a_trunk() {
    let wrong = "address = \"54.172.60.99:5060\"";
    for (right, want) in [("qualify = false", TrunkState::Unmonitored), ("", TrunkState::Up)] {
        let mut house = House::new(1);
        let mut world = house.trunk_keys(wrong).twilio().phone("1001").open();
        act(&mut world, "1001", Act::Register);
        world.run_until(100_000);
        assert_eq!(state(&mut world), TrunkState::Down);
        let config = Arc::new(house.trunk_keys(right).checked());
        with_pbx(&mut world, |pbx, now| {
            pbx.with_shard(now, |shard, now| shard.configure(config, now));
        });
        act(&mut world, "1001", Act::Call("+14155550199".into()));
        world.run_until(110_000);
        with_phone(&mut world, "1001", |phone, _| {
            assert!(phone.has_heard(&Heard::Up), "{right}: {:?}", phone.heard());
        });
        assert_eq!(state(&mut world), want, "{right}");
    }
}
