//! A peer that vanishes at any moment of a call: the other side is told, and nothing is left.

use crate::{
    house::{House, TANDEM, TWILIO, act, with_pbx, with_phone},
    storm::faults_but,
    unreached::is_unreached,
};
use tandem::sim::{
    Network, Twilio, World,
    phone::{Act, On},
    twilio::CallNumber,
};

/// Until when whoever has vanished is away.
const AWAY_MS: u64 = 150_000;
/// When the media worker has had enough of hearing nothing.
const SILENT_MS: u64 = 60_000;

/// A call with hold and resume that would end by itself after four seconds.
fn play(number: &str, who: &str, at_ms: u64) -> World {
    let mut house = House::new(at_ms);
    let mut world = house.twilio().phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::Hold).when(On::Up, 2000, Act::Resume);
        phone.when(On::Up, 3000, Act::HangUp);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 1000, Act::Answer);
    });
    world.set_network(Network::CLEAN);
    world.partition(TANDEM, who, at_ms, AWAY_MS);
    act(&mut world, "1001", Act::Call(number.into()));
    for nth in [0, 0] {
        world.at(SILENT_MS, move |world| _ = with_pbx(world, |pbx, now| pbx.silence(nth, now)));
    }
    // What comes back finds nobody, and goes.
    for at_ms in [AWAY_MS, AWAY_MS + 40_000, AWAY_MS + 80_000] {
        world.at(at_ms, |world| {
            for name in ["1001", "1002"] {
                with_phone(world, name, |phone, now| phone.leave(now));
            }
            world.with(TWILIO, |twilio: &mut Twilio, now| {
                (0..4).for_each(|nth| twilio.hang_up(CallNumber(nth), now));
            });
        });
    }
    world
}

fn at_any_moment(number: &str, peers: [&str; 2], until_ms: u64) {
    for who in peers {
        for at_ms in (0..until_ms).step_by(20) {
            let mut world = play(number, who, at_ms);
            world.run_until(AWAY_MS - 1);
            let left = with_pbx(&mut world, |pbx, now| {
                pbx.with_shard(now, |shard, now| shard.calls(now).len())
            });
            assert_eq!(left, 0, "{who} at {at_ms} ms:\n{}", world.ladder());
            let faults = faults_but(&mut world, is_unreached);
            assert!(faults.is_empty(), "{who} at {at_ms} ms: {faults:#?}\n{}", world.ladder());
            with_pbx(&mut world, |pbx, _| {
                assert!(pbx.cdrs().len() <= 1, "{who} at {at_ms} ms");
            });
        }
    }
}

#[test]
fn a_phone_that_calls_a_phone() {
    at_any_moment("1002", ["1001", "1002"], 4200);
}

#[test]
fn a_phone_that_calls_out() {
    at_any_moment("+14155550199", ["1001", TWILIO], 6200);
}
