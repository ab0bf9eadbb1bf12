//! A trunk carries so many calls at a time, and each under one of its own numbers.

use crate::{
    house::{DID, House, act, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::faults,
};
use std::collections::BTreeSet;
use tandem::{
    sim::{
        World,
        phone::{Act, Heard, On},
    },
    sip::{HeaderName, Method},
};

#[test]
fn one_call_at_a_time() {
    let mut house = House::new(1);
    house
        .trunk_keys("qualify = false\nmax_calls = 1\nqueue_for = false")
        .twilio()
        .phone("1001")
        .phone("1002");
    let mut world = house.open_registered();
    act(&mut world, "1001", Act::Call("+14155550199".into()));
    world.at(5000, |world| act(world, "1002", Act::Call("+14155550177".into())));
    world.at(9000, |world| act(world, "1001", Act::HangUp));
    world.at(12_000, |world| act(world, "1002", Act::Call("+14155550177".into())));
    world.at(19_000, |world| act(world, "1002", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0]);
    with_phone(&mut world, "1002", |phone, _| {
        let full = Heard::Refused(503, "Trunk Full".into());
        assert_eq!(phone.heard()[1..], [full, Heard::EarlyMedia(183), Heard::Up, Heard::Gone(200)]);
    });
    let why = with_pbx(&mut world, |pbx, _| {
        let why =
            |cdr: &tandem::observe::cdr::Cdr| cdr.ending.why.as_ref().map(ToString::to_string);
        pbx.cdrs().iter().map(why).collect::<Vec<_>>()
    });
    let full = "G021: the call may not leave by `twilio`: it carries 1 calls, which is all of \
                `max_calls` (help: raise `max_calls` if the carrier allows more, or set `queue_for`)";
    assert_eq!(why, [Some(full.to_owned()), None, None]);
}

/// A user's own number comes before the trunk's; the trunk refuses what the account does not own.
#[test]
fn a_users_own_caller_id() {
    let refused = Heard::Refused(403, "Caller ID not owned or verified".into());
    for (owned, want) in [(true, Heard::Up), (false, refused)] {
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

/// Calls from the trunk count as well; above the limit it is told 503 and takes its next URI. What is
/// refused before it goes out counts for nothing, and what has ended neither.
#[test]
fn calls_of_both_directions_count_once() {
    let mut house = House::new(1);
    house.trunk_keys("qualify = false\nmax_calls = 2").twilio().phone("1001").phone("1002");
    let mut world = house.open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Called, 20_000, Act::HangUp);
    });
    let calls = |world: &mut World| with_pbx(world, |pbx, now| pbx.shard().trunks(now)[0].calls);
    let call_in = |world: &mut World| {
        with_twilio(world, |twilio, now| twilio.call_in(&call_in(DID), now));
    };
    world.at(0, call_in);
    world.at(2000, move |world| {
        assert_eq!(calls(world), 1);
        act(world, "1002", Act::Call("+14155550199".into()));
    });
    world.at(3000, move |world| {
        assert_eq!(calls(world), 2);
        call_in(world);
    });
    world.at(4000, move |world| {
        assert_eq!(calls(world), 2);
        act(world, "1002", Act::HangUp);
    });
    world.at(30_000, move |world| {
        assert_eq!(calls(world), 0);
        with_pbx(world, |pbx, _| pbx.exhaust_ports());
        act(world, "1002", Act::Call("+14155550199".into()));
    });
    world.at(31_000, move |world| assert_eq!(calls(world), 0));
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    let refused =
        world.sent().iter().filter(|sent| &*sent.to == "twilio" && sent.message.status() == 503);
    let retry: Vec<_> = refused.map(|sent| sent.message.number(HeaderName::RetryAfter)).collect();
    assert_eq!(retry, [Some(5)]);
}

/// Both rule targets are the same trunk, which has room for one call: the second leg never goes out.
#[test]
fn legs_of_one_group_are_counted_when_they_go_out() {
    let mut house = House::new(1);
    house.dialplan(
        "[[internal.rule]]\nmatch = \"_+.\"\ndial = [\"trunk:twilio\", \"trunk:twilio\"]\n",
    );
    house.trunk_keys("qualify = false\nmax_calls = 1").twilio().phone("1001");
    let mut world = house.open_registered();
    act(&mut world, "1001", Act::Call("+14155550199".into()));
    world.at(9000, |world| act(world, "1001", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    let call_ids: BTreeSet<_> = world
        .sent()
        .iter()
        .filter(|sent| &*sent.to == "twilio" && sent.message.method() == Method::Invite)
        .map(|sent| sent.message.call_id())
        .collect();
    assert_eq!(call_ids.len(), 1, "{}", world.ladder());
}
