//! How many calls complete at 5, 10 and 20 % loss: all that the peers' own timers leave time for.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::faults,
};
use tandem::{
    observe::cdr::Cdr,
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
};

/// Calls at each loss.
const CALLS: u64 = 300;

fn network(loss_percent: u8) -> Network {
    Network { loss_percent, ..Network::CLEAN }
}

/// A call that rings for two seconds and lasts for five.
fn play(seed: u64, number: &str, loss: u8) -> World {
    let mut world = House::new(seed).twilio().phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 2000, Act::Answer);
    });
    world.set_network(network(loss));
    act(&mut world, "1001", Act::Call(number.into()));
    world
}

/// Returns how many calls came up, and what became of the others.
fn completed(number: &str, loss: u8) -> (u64, Vec<String>) {
    let seeds = std::env::var("TANDEM_LOSSY").ok().and_then(|n| n.parse().ok()).unwrap_or(CALLS);
    let (mut good, mut bad) = (0, vec![]);
    for seed in 1..=seeds {
        let mut world = play(seed, number, loss);
        let faults = faults(&mut world);
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}\n{}", world.ladder());
        let heard = with_phone(&mut world, "1001", |phone, _| phone.heard().to_vec());
        if heard.contains(&Heard::Up) {
            good += 1;
        } else {
            let cdr: Option<Cdr> = with_pbx(&mut world, |pbx, _| pbx.cdrs().last().cloned());
            let why = cdr.map(|cdr| cdr.ending);
            bad.push(format!(
                "{number} at {loss} %, seed {seed}: {heard:?} {why:?}\n{}",
                world.ladder()
            ));
        }
    }
    (good * 100 / seeds, bad)
}

#[test]
fn calls_complete_in_spite_of_loss() {
    for number in ["1002", "+14155550199"] {
        for loss in [5, 10, 20] {
            let (percent, bad) = completed(number, loss);
            println!("{number} at {loss} % loss: {percent} % of calls complete");
            assert!(bad.is_empty(), "{} of {CALLS}:\n{}", bad.len(), bad.join("\n"));
        }
    }
}
