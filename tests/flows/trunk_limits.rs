//! A trunk carries so many calls at a time, and each under one of its own numbers.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::faults,
};
use tandem::sim::phone::{Act, Heard};

#[test]
fn one_call_at_a_time() {
    let mut house = House::new(1);
    house.trunk_keys("qualify = false\nmax_calls = 1").twilio().phone("1001").phone("1002");
    let mut world = house.open_registered();
    act(&mut world, "1001", Act::Call("+14155550199".into()));
    world.at(5000, |world| act(world, "1002", Act::Call("+14155550177".into())));
    world.at(9000, |world| act(world, "1001", Act::HangUp));
    world.at(12_000, |world| act(world, "1002", Act::Call("+14155550177".into())));
    world.at(19_000, |world| act(world, "1002", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0]);
    with_phone(&mut world, "1002", |phone, _| {
        let full = Heard::Refused(503, "Service Unavailable".into());
        assert_eq!(phone.heard()[1..], [full, Heard::EarlyMedia(183), Heard::Up, Heard::Gone(200)]);
    });
    let why = with_pbx(&mut world, |pbx, _| {
        let why =
            |cdr: &tandem::observe::cdr::Cdr| cdr.ending.why.as_ref().map(ToString::to_string);
        pbx.cdrs().iter().map(why).collect::<Vec<_>>()
    });
    let full = "R004: nobody could be called: trunk full (help: raise `max_calls` of the trunk, if \
                the carrier allows more)";
    assert_eq!(why, [Some(full.to_owned()), None, None]);
}

/// A user's own number comes before the trunk's; the trunk refuses what the account does not own.
#[test]
fn a_users_own_caller_id() {
    for (owned, want) in [(true, Heard::Up), (false, Heard::Refused(403, "Forbidden".into()))] {
        let mut house = House::new(1);
        house.user_keys("1001", "caller_id = \"+17755550100\"").phone("1001");
        house.twilio_like(|mut setup| {
            setup.account.numbers.extend(owned.then(|| "+17755550100".into()));
            setup
        });
        let mut world = house.open_registered();
        act(&mut world, "1001", Act::Call("+14155550199".into()));
        world.at(5000, |world| act(world, "1001", Act::HangUp));
        let rule = "the calling number is owned or verified by the account, but: a call from \
                    +17755550100 (Twilio error 32204)";
        let broken = faults(&mut world);
        assert_eq!(broken, if owned { vec![] } else { vec![rule.to_owned()] });
        with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&want)));
    }
}
