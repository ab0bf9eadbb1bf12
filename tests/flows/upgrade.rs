//! A newer process takes over while a call rings, talks, holds and ends: nobody notices.

use crate::{
    house::{DID, House, TANDEM, TWILIO, act, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
    sip::Method,
};

/// A call that is held and taken back, and begins `call_ms` after an upgrade may have been.
fn play(seed: u64, network: Network, upgrades_ms: &[u64]) -> World {
    let mut house = House::new(seed);
    house.phone("1001").phone("1002").phone("1003");
    let mut world = house.open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::Hold).when(On::Up, 2000, Act::Resume);
        phone.when(On::Up, 3000, Act::HangUp);
    });
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 1000, Act::Answer);
    });
    world.set_network(network);
    for at_ms in upgrades_ms {
        world.at(*at_ms, |world| with_pbx(world, |pbx, now| pbx.upgrade(now)));
    }
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// Every 20 ms something is on its way, or nothing is: whatever the moment, each message is said once
/// and the same.
#[test]
fn at_any_moment_of_a_call_nothing_changes() {
    for at_ms in (30..4200).step_by(20) {
        let mut world = play(1, Network::CLEAN, &[at_ms]);
        assert_ladder(
            &mut world,
            "0 ms  1001 calls 1002
             140 ms  1002 -> tandem  180 Ringing (INVITE)
             160 ms  tandem -> 1001  180 Ringing (INVITE)
             1040 ms  1001 is answered by 1002
             2080 ms  1001 reinvites 1002
             3080 ms  1001 reinvites 1002
             4080 ms  1001 hangs up on 1002",
        );
        let faults = faults(&mut world);
        assert!(faults.is_empty(), "{at_ms} ms: {faults:#?}");
        with_pbx(&mut world, |pbx, _| {
            assert_eq!((pbx.processes(), pbx.cdrs().len()), (1, 1), "{at_ms} ms");
        });
    }
}

/// Three processes have a call each; the oldest one ends last.
#[test]
fn upgrades_in_a_row_keep_every_call() {
    let mut house = House::new(1);
    for phone in ["1001", "1002", "1003", "1004"] {
        house.phone(phone);
    }
    let mut world = house.open_registered();
    for (caller, ends_ms) in [("1001", 9000), ("1003", 3000)] {
        with_phone(&mut world, caller, |phone, _| {
            phone.when(On::Up, ends_ms, Act::HangUp);
        });
    }
    for callee in ["1002", "1004"] {
        with_phone(&mut world, callee, |phone, _| {
            phone.when(On::Called, 100, Act::Answer);
        });
    }
    act(&mut world, "1001", Act::Call("1002".into()));
    for (at_ms, processes) in [(1000, 2), (3000, 3), (4000, 4)] {
        world.run_until(at_ms);
        with_pbx(&mut world, |pbx, now| {
            pbx.upgrade(now);
            assert_eq!(pbx.processes(), processes);
        });
        if at_ms == 1000 {
            act(&mut world, "1003", Act::Call("1004".into()));
        }
    }
    let faults = faults(&mut world);
    assert!(faults.is_empty(), "{faults:#?}\n{}", world.ladder());
    for phone in ["1001", "1003"] {
        with_phone(&mut world, phone, |phone, _| {
            assert_eq!(phone.heard().last(), Some(&Heard::Gone(200)));
        });
    }
    with_pbx(&mut world, |pbx, _| assert_eq!((pbx.processes(), pbx.cdrs().len()), (1, 2)));
}

#[test]
fn on_bad_networks() {
    let play =
        |seed: u64, network| play(seed, network, &[seed * 7 % 4000, 2000 + seed * 11 % 2000]);
    storm(300, play, |world| with_phone(world, "1002", |phone, _| phone.has_heard(&Heard::Up)));
}

/// The carrier's second call finds no room, and the 503 is lost. Its copy comes to the next process, which has room:
/// the one before, which lives on for that, says the same again.
#[test]
fn a_call_that_was_turned_away_stays_so() {
    let mut house = House::new(1);
    house.trunk_keys("qualify = false\nmax_calls = 1").twilio().phone("1001");
    let mut world = house.open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Up, 1050, Act::HangUp);
    });
    for at_ms in [0, 1000] {
        world.at(at_ms, |world| {
            with_twilio(world, |twilio, now| _ = twilio.call_in(&call_in(DID), now));
        });
    }
    world.partition(TANDEM, TWILIO, 1010, 1100);
    world.at(1450, |world| with_pbx(world, |pbx, now| pbx.upgrade(now)));
    let faults = faults(&mut world);
    assert!(faults.is_empty(), "{faults:#?}\n{}", world.ladder());
    let answers = world.sent().iter().filter(|sent| &*sent.from == TANDEM && sent.at_ms > 1000);
    let of_invites = answers.filter(|sent| sent.message.method() == Method::Invite);
    let said: Vec<_> = of_invites.map(|sent| (sent.at_ms, sent.message.status())).collect();
    assert_eq!(said, [(1020, 503), (1520, 503)], "{}", world.ladder());
    world.run_until(70_000);
    with_pbx(&mut world, |pbx, _| assert_eq!((pbx.processes(), pbx.cdrs().len()), (1, 2)));
}

/// A house with a trunk and two phones that call by it.
fn by_trunk(keys: &str) -> World {
    let mut house = House::new(1);
    house.trunk_keys(&format!("qualify = false\nqueue_for = false\n{keys}")).twilio();
    house.phone("1001").phone("1002").open_registered()
}

/// What each call of a phone has come to: up, or how it was refused.
fn outcomes(world: &mut World, phone: &str) -> Vec<String> {
    with_phone(world, phone, |phone, _| {
        let heard = phone.heard().iter().filter_map(|heard| {
            if let Heard::Refused(status, reason) = heard {
                return Some(format!("{status} {reason}"));
            }
            (*heard == Heard::Up).then(|| "up".to_owned())
        });
        heard.collect()
    })
}

fn upgrade_at(world: &mut World, times_ms: &[u64]) {
    for at_ms in times_ms {
        world.at(*at_ms, |world| with_pbx(world, |pbx, now| pbx.upgrade(now)));
    }
}

fn call_at(world: &mut World, phone: &'static str, at_ms: u64) {
    world.at(at_ms, move |world| act(world, phone, Act::Call("+14155550199".into())));
}

/// The call of a process before, and of one before that, fills the trunk until it ends.
#[test]
fn calls_that_live_on_count_for_their_trunk() {
    for upgrades_ms in [&[6000][..], &[6000, 7000], &[500, 2000, 7000]] {
        let mut world = by_trunk("max_calls = 1");
        call_at(&mut world, "1001", 0);
        upgrade_at(&mut world, upgrades_ms);
        call_at(&mut world, "1002", 8000);
        let calls =
            |world: &mut World| with_pbx(world, |pbx, now| pbx.shard().trunks(now)[0].calls);
        world.at(9000, move |world| assert_eq!(calls(world), 1));
        world.at(10_000, |world| act(world, "1001", Act::HangUp));
        world.at(11_000, move |world| assert_eq!(calls(world), 0));
        call_at(&mut world, "1002", 12_000);
        world.at(20_000, |world| act(world, "1002", Act::HangUp));
        assert_eq!(faults(&mut world), [""; 0], "{upgrades_ms:?}: {}", world.ladder());
        assert_eq!(outcomes(&mut world, "1001"), ["up"]);
        assert_eq!(outcomes(&mut world, "1002"), ["503 Trunk Full", "up"], "{upgrades_ms:?}");
        assert_eq!(calls(&mut world), 0);
    }
}

/// A rate and budgets go on where they were: what was used before, what a call that lives on still uses.
#[test]
fn rates_and_budgets_do_not_begin_anew() {
    let times = [0, 20_000, 40_000];
    let rate = "503 Too Many Calls A Second";
    for (keys, want) in [
        ("max_rate = \"2/m\"", vec!["up", "up", rate]),
        ("budget = { calls_per_hour = 2 }", vec!["up", "up", "403 Budget Used Up"]),
        ("budget = { minutes_per_hour = 1 }", vec!["up", "up", "up"]),
    ] {
        let mut world = by_trunk(keys);
        for at_ms in times {
            call_at(&mut world, "1001", at_ms);
            world.at(at_ms + 10_000, |world| act(world, "1001", Act::HangUp));
        }
        upgrade_at(&mut world, &[15_000, 25_000, 35_000]);
        assert_eq!(faults(&mut world), [""; 0], "{keys}: {}", world.ladder());
        assert_eq!(outcomes(&mut world, "1001"), want, "{keys}");
    }
    // One call talks through two upgrades, for more than a minute.
    let mut world = by_trunk("budget = { minutes_per_hour = 1 }");
    call_at(&mut world, "1001", 0);
    upgrade_at(&mut world, &[10_000, 20_000]);
    call_at(&mut world, "1002", 30_000);
    world.at(35_000, |world| act(world, "1002", Act::HangUp));
    call_at(&mut world, "1002", 70_000);
    world.at(80_000, |world| act(world, "1001", Act::HangUp));
    call_at(&mut world, "1002", 90_000);
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    assert_eq!(outcomes(&mut world, "1002"), ["up", "403 Budget Used Up", "403 Budget Used Up"]);
}

/// Who waits for room in the process before is not let out beside a call of the next one.
#[test]
fn who_waits_in_the_process_before_knows_of_the_next_ones_calls() {
    let mut house = House::new(1);
    house.trunk_keys("qualify = false\nmax_calls = 1\nqueue_for = \"30s\"").twilio();
    let mut world = house.phone("1001").phone("1002").phone("1003").open_registered();
    call_at(&mut world, "1001", 0);
    call_at(&mut world, "1002", 4000);
    upgrade_at(&mut world, &[5000]);
    call_at(&mut world, "1003", 6000);
    world.at(10_000, |world| act(world, "1001", Act::HangUp));
    let most = |world: &mut World| {
        with_twilio(world, |twilio, _| assert!(twilio.calls() <= 1, "{}", twilio.calls()));
    };
    for at_ms in (6000..40_000).step_by(50) {
        world.at(at_ms, most);
    }
    for phone in ["1002", "1003"] {
        with_phone(&mut world, phone, |phone, _| {
            phone.when(On::Up, 5000, Act::HangUp);
        });
    }
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    assert_eq!(outcomes(&mut world, "1002"), ["up"]);
    assert_eq!(outcomes(&mut world, "1003"), ["up"]);
}

/// A process that has taken over is killed: its calls are lost and count no more, in either of those beside it; the
/// other one's go on, and whoever hangs up is heard.
#[test]
fn calls_of_a_process_that_died_count_no_more() {
    let mut world = by_trunk("max_calls = 3\nbudget = { minutes_per_hour = 60 }");
    let counted = |world: &mut World| {
        with_pbx(world, |pbx, now| {
            let rows = pbx.shard().budgets(now);
            let trunk = rows.iter().find(|row| row.kind == "trunk").unwrap();
            let used = (trunk.calls_per_hour.used, trunk.minutes_per_hour.used);
            (pbx.shard().trunks(now)[0].calls, used)
        })
    };
    call_at(&mut world, "1001", 0);
    upgrade_at(&mut world, &[5000]);
    call_at(&mut world, "1002", 6000);
    world.at(70_000, move |world| assert_eq!(counted(world), (2, (2, 2))));
    world.at(70_000, |world| with_pbx(world, |pbx, now| pbx.kill_newest(now)));
    // One talks on, the other one does not, whatever it believes.
    world.at(130_000, move |world| assert_eq!(counted(world), (1, (2, 3))));
    world.at(131_000, |world| act(world, "1001", Act::HangUp));
    call_at(&mut world, "1001", 140_000);
    world.at(150_000, move |world| {
        assert_eq!(counted(world), (0, (2, 3)));
        with_pbx(world, |pbx, _| assert_eq!((pbx.processes(), pbx.cdrs().len()), (1, 2)));
    });
    world.run_until(200_000);
    assert_eq!(outcomes(&mut world, "1001"), ["up", "503 Service Unavailable"]);
}
