//! Budgets: so many calls, minutes and countries, at certain hours, and never against a call for help.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::{faults, storm},
};
use std::sync::Arc;
use tandem::{
    guard::Account,
    sim::{
        Network, World,
        phone::{Act, Heard},
    },
};

const OFFICE: &str = "[hours.office]\ndays = \"mon-fri\"\ntimes = \"09:00-17:00\"";

/// 1001 calls these numbers one after the other, and talks for some seconds each time.
fn play(house: &mut House, network: Network, numbers: &[&'static str], talk_ms: u64) -> World {
    let mut world = house.twilio().phone("1001").open_registered();
    world.set_network(network);
    for (n, number) in (0..).zip(numbers.iter().copied()) {
        let begin = n * (talk_ms + 10_000);
        world.at(begin, move |world| act(world, "1001", Act::Call(number.into())));
        // It takes 2.4 s to be answered.
        world.at(begin + 2420 + talk_ms, |world| act(world, "1001", Act::HangUp));
    }
    world
}

/// What the phone heard of each call: up or refused.
fn outcomes(world: &mut World) -> Vec<String> {
    with_phone(world, "1001", |phone, _| {
        let heard = phone.heard().iter().filter_map(|heard| match heard {
            Heard::Up => Some("up".to_owned()),
            Heard::Refused(status, reason) => Some(format!("{status} {reason}")),
            Heard::Registered(_)
            | Heard::Unregistered
            | Heard::RegistrationRefused(_)
            | Heard::Called { .. }
            | Heard::Ringing(_)
            | Heard::EarlyMedia(_)
            | Heard::Cancelled(_)
            | Heard::HungUp(_)
            | Heard::Gone(_)
            | Heard::Offered(_)
            | Heard::Changed(_)
            | Heard::OfferRefused(_)
            | Heard::Refreshed
            | Heard::Unheard
            | Heard::Pressed => None,
        });
        heard.collect()
    })
}

fn last_reason(world: &mut World) -> Option<String> {
    with_pbx(world, |pbx, _| {
        let why = pbx.cdrs().last()?.ending.why.clone()?;
        Some(format!("{} {}", why.code, why.sentence))
    })
}

const USED_UP: &str = "403 Budget Used Up";
const US: &str = "+14155550199";

/// The trunk's keys, the user's, the numbers, how long each call lasts, what the phone hears, and why
/// the last call is refused.
#[test]
fn what_is_used_up_is_refused() {
    let why = |whose: &str, key: &str| {
        Some(format!(
            "G030 the call may not leave by `twilio`: {whose} has used up its budget: `{key}`"
        ))
    };
    for (trunk, user, numbers, talk_s, want, reason) in [
        (
            "",
            "budget = { calls_per_hour = 2 }",
            &[US, US, US][..],
            1,
            &["up", "up", USED_UP][..],
            why("user `1001`", "calls_per_hour = 2"),
        ),
        (
            "budget = { calls_per_day = 1 }",
            "budget = { calls_per_day = 2 }",
            &[US, US],
            1,
            &["up", USED_UP],
            why("trunk `twilio`", "calls_per_day = 1"),
        ),
        (
            "",
            "budget = { minutes_per_hour = 3 }",
            &[US, US, US],
            90,
            &["up", "up", USED_UP],
            why("user `1001`", "minutes_per_hour = 3"),
        ),
        (
            "allow = { countries = \"any\" }\nbudget = { countries_per_day = 2 }",
            "",
            &[US, "+31207654321", US, "+442079460958"],
            1,
            &["up", "up", "up", USED_UP],
            why("trunk `twilio`", "countries_per_day = 2"),
        ),
        ("", "budget = { calls_per_hour = 0 }", &["911"], 1, &["up"], None),
    ] {
        let mut house = House::new(1);
        house.trunk_keys(&format!("qualify = false\n{trunk}")).user_keys("1001", user);
        let mut world = play(&mut house, Network::CLEAN, numbers, talk_s * 1000);
        assert_eq!(faults(&mut world), [""; 0], "{trunk} {user}");
        assert_eq!(outcomes(&mut world), want, "{trunk} {user}");
        assert_eq!(last_reason(&mut world), reason, "{trunk} {user}");
    }
}

#[test]
fn on_bad_networks() {
    let play = |seed, network| {
        let mut house = House::new(seed);
        house.user_keys("1001", "budget = { calls_per_hour = 1 }");
        play(&mut house, network, &[US, US], 5000)
    };
    storm(200, play, |world| outcomes(world).last().is_some_and(|last| last == USED_UP));
}

/// The world begins on a Tuesday at 10:00 (UTC).
#[test]
fn out_of_hours() {
    for (zone, user, number, want) in [
        ("UTC", "hours = \"office\"", US, "up"),
        ("Asia/Tokyo", "hours = \"office\"", US, "403 Out Of Hours"),
        ("Asia/Tokyo", "hours = \"office\"", "911", "up"),
        ("Asia/Tokyo", "hours = \"office\"\nout_of_hours = \"alarm\"", US, "up"),
    ] {
        let mut house = House::new(1);
        house.sections(OFFICE).node_keys(&format!("timezone = \"{zone}\""));
        let mut world = play(house.user_keys("1001", user), Network::CLEAN, &[number], 1000);
        assert_eq!(faults(&mut world), [""; 0]);
        assert_eq!(outcomes(&mut world), [want], "{zone} {user} {number}");
        if want != "up" {
            let why = "G031 the call may not leave by `twilio`: user `1001` does not call outside of \
                       the hours `office`";
            assert_eq!(last_reason(&mut world).as_deref(), Some(why));
        }
    }
}

/// A reload keeps what was used, and takes the new limits; an operator makes it forgotten.
#[test]
fn reload_and_reset() {
    let config = |limit: u32| {
        let mut house = House::new(1);
        house.user_keys("1001", &format!("budget = {{ calls_per_hour = {limit} }}"));
        house
    };
    let mut house = config(1);
    let mut world = play(&mut house, Network::CLEAN, &[US, US, US, US], 1000);
    let more = Arc::new(config(2).twilio().phone("1001").checked());
    world.at(5000, move |world| {
        with_pbx(world, |pbx, now| pbx.with_shard(now, |shard, now| shard.configure(more, now)));
    });
    world.at(25_000, |world| {
        with_pbx(world, |pbx, now| {
            let rows = pbx.shard().budgets(now);
            let row = rows.iter().find(|row| row.kind == "user").unwrap();
            assert_eq!((row.calls_per_hour.used, row.calls_per_hour.limit), (2, Some(2)));
            assert!(row.is_used_up());
        });
    });
    world.at(32_000, |world| {
        with_pbx(world, |pbx, now| {
            let whose = Account::User("1001".into());
            assert!(pbx.with_shard(now, |shard, _| shard.reset_budget(&whose)));
        });
    });
    assert_eq!(faults(&mut world), [""; 0]);
    // The fourth is the first again, where the limit of two had not let it leave.
    assert_eq!(outcomes(&mut world), ["up", "up", USED_UP, "up"]);
}

/// A phone that sends its calls abroad pays for them, whoever called it.
#[test]
fn who_redirects_pays() {
    for (user, want) in [("", false), ("allow = { countries = [\"NL\"] }", true)] {
        let mut house = House::new(1);
        house.user_keys("1002", user).twilio().phone("1001").phone("1002");
        let mut world = house.open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            use tandem::sim::phone::On;
            phone.when(On::Called, 100, Act::Redirect("sip:+31207654321@10.0.0.1".into()));
        });
        act(&mut world, "1001", Act::Call("1002".into()));
        world.at(9000, |world| act(world, "1001", Act::HangUp));
        assert_eq!(faults(&mut world), [""; 0]);
        with_phone(&mut world, "1001", |phone, _| assert_eq!(phone.has_heard(&Heard::Up), want));
        with_pbx(&mut world, |pbx, now| {
            let rows = pbx.shard().budgets(now);
            let paid: Vec<_> = rows.iter().map(|row| (&*row.kind, &*row.name)).collect();
            let both = [("user", "1002"), ("trunk", "twilio")];
            assert_eq!(paid, both[..if want { 2 } else { 0 }]);
        });
    }
}
