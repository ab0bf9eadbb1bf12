//! Calls wait for their turn at a trunk: in order, ringing, for a while, and never a call for help.

use crate::{
    house::{House, TWILIO, act, with_pbx, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    sim::{
        Network, World,
        phone::{Act, Heard},
    },
    sip::{HeaderName, Method},
};

const FAR: &str = "+14155550199";

/// A house in which these users call one after the other, 10 ms apart, and hang up after 9 s.
fn play(seed: u64, network: Network, trunk: &str, users: &[(&'static str, &'static str)]) -> World {
    play_with((seed, None), network, trunk, users)
}

/// Likewise; the carrier refuses what is faster than it takes in a second.
fn play_with(
    (seed, carrier): (u64, Option<usize>),
    network: Network,
    trunk: &str,
    users: &[(&'static str, &'static str)],
) -> World {
    let mut house = House::new(seed);
    house.trunk_keys(&format!("qualify = false\n{trunk}"));
    house.twilio_like(|mut setup| {
        setup.limits.calls_per_s = carrier;
        setup
    });
    for (user, _) in users {
        house.phone(user);
    }
    let mut world = house.open_registered();
    world.set_network(network);
    for (n, (user, number)) in (0..).zip(users.iter().copied()) {
        world.at(10 * n, move |world| act(world, user, Act::Call(number.into())));
        world.at(9000 + 10 * n, move |world| act(world, user, Act::HangUp));
    }
    world
}

/// When the first INVITE of each call left for the trunk, and whom it calls, in their order.
fn left(world: &World) -> Vec<(u64, String)> {
    let sent = world.sent().iter().filter(|sent| &*sent.to == TWILIO);
    let first = sent.filter(|sent| {
        let is_invite = sent.message.method() == Method::Invite;
        is_invite && sent.message.header(HeaderName::ProxyAuthorization).is_none()
    });
    first.map(|sent| (sent.at_ms, sent.message.uri().to_owned())).collect()
}

fn heard(world: &mut World, user: &str) -> Vec<Heard> {
    with_phone(world, user, |phone, _| phone.heard()[1..].to_vec())
}

fn reasons(world: &mut World) -> Vec<String> {
    let why = |cdr: &tandem::observe::cdr::Cdr| {
        let why = cdr.ending.why.as_ref()?;
        Some(format!("{} {}", why.code, why.sentence))
    };
    with_pbx(world, |pbx, _| pbx.cdrs().iter().filter_map(why).collect())
}

const FOUR: [(&str, &str); 4] = [
    ("1001", "+14155550101"),
    ("1002", "+14155550102"),
    ("1003", "+14155550103"),
    ("1004", "+14155550104"),
];

#[test]
fn one_a_second_in_the_order_of_calling() {
    let mut world = play_with((1, Some(1)), Network::CLEAN, "", &FOUR);
    assert_eq!(faults(&mut world), [""; 0]);
    let want = FOUR
        .iter()
        .zip([20, 1020, 2020, 3020])
        .map(|((_, number), ms)| (ms, format!("sip:{number}@asterisk-pbx1.pstn.twilio.com")));
    assert_eq!(left(&world), want.collect::<Vec<_>>());
    for (user, _) in FOUR {
        let queued: &[Heard] = match user {
            "1001" => &[],
            _ => &[Heard::Ringing(182), Heard::Ringing(180)],
        };
        let rest = [Heard::EarlyMedia(183), Heard::Up, Heard::Gone(200)];
        assert_eq!(heard(&mut world, user), [queued, &rest[..]].concat(), "{user}");
    }
    assert_eq!(reasons(&mut world), [""; 0]);
}

#[test]
fn two_a_second() {
    let trunk = "max_rate = \"2/s\"";
    let mut world = play_with((1, Some(2)), Network::CLEAN, trunk, &FOUR);
    assert_eq!(faults(&mut world), [""; 0]);
    let times: Vec<_> = left(&world).into_iter().map(|(at_ms, _)| at_ms).collect();
    assert_eq!(times, [20, 30, 1020, 1030]);
}

#[test]
fn in_order_on_bad_networks() {
    let play = |seed, network| play(seed, network, "", &FOUR);
    storm(200, play, |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)));
}

/// Who gives up while waiting is never called for, and lets the next one come sooner.
#[test]
fn giving_up_in_the_queue() {
    let mut world = play(1, Network::CLEAN, "", &FOUR[..3]);
    world.at(500, |world| act(world, "1002", Act::Cancel));
    assert_eq!(faults(&mut world), [""; 0]);
    let want = [20, 1020].into_iter().zip(["+14155550101", "+14155550103"]);
    let want = want.map(|(ms, number)| (ms, format!("sip:{number}@asterisk-pbx1.pstn.twilio.com")));
    assert_eq!(left(&world), want.collect::<Vec<_>>());
    assert_eq!(
        heard(&mut world, "1002"),
        [
            Heard::Ringing(182),
            Heard::Ringing(180),
            Heard::Refused(487, "Request Terminated".into())
        ]
    );
    let storm_play = |seed, network| {
        let mut world = play(seed, network, "", &FOUR[..3]);
        world.at(seed * 7 % 2500, |world| act(world, "1002", Act::Cancel));
        world
    };
    storm(200, storm_play, |_| true);
}

#[test]
fn what_a_waiting_caller_is_told() {
    let users = [("1001", FAR), ("1002", "+14155550177")];
    let trunk = "max_rate = false\nmax_calls = 1\nqueue_for = \"5s\"";
    let mut world = play(1, Network::CLEAN, trunk, &users);
    world.at(2000, |world| act(world, "1001", Act::Cancel));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                10 ms  1002 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> twilio  INVITE (sdp)
                30 ms  tandem -> 1002  100 Trying (INVITE)
                30 ms  tandem -> 1002  182 Queued (INVITE)
                30 ms  tandem -> 1002  180 Ringing (INVITE)
                40 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
                40 ms  twilio -> tandem  407 Proxy Authentication required (INVITE)
                60 ms  tandem -> twilio  ACK
                60 ms  tandem -> twilio  INVITE (sdp)
                80 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2000 ms  1001 -> tandem  CANCEL
              2020 ms  tandem -> 1001  200 OK (CANCEL)
              2020 ms  tandem -> 1001  487 Request Terminated (INVITE)
              2020 ms  tandem -> twilio  CANCEL
              2040 ms  1001 -> tandem  ACK
              2040 ms  twilio -> tandem  200 OK (CANCEL)
              2040 ms  twilio -> tandem  487 Request Terminated (INVITE)
              2060 ms  tandem -> twilio  ACK
              2060 ms  tandem -> twilio  INVITE (sdp)
              2080 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
              2080 ms  twilio -> tandem  407 Proxy Authentication required (INVITE)
              2100 ms  tandem -> twilio  ACK
              2100 ms  tandem -> twilio  INVITE (sdp)
              2120 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
              2420 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
              2440 ms  tandem -> 1002  183 Session Progress (INVITE, sdp)
              4420 ms  twilio -> tandem  200 OK (INVITE, sdp)
              4440 ms  tandem -> twilio  ACK
              4440 ms  tandem -> 1002  200 OK (INVITE, sdp)
              4460 ms  1002 -> tandem  ACK
              9010 ms  1002 -> tandem  BYE
              9030 ms  tandem -> 1002  200 OK (BYE)
              9030 ms  tandem -> twilio  BYE
              9050 ms  twilio -> tandem  200 OK (BYE)",
    );
}

/// What the trunk's keys say, what 1003 hears, and why. 1001 and 1002 call before.
#[test]
fn nobody_waits_without_a_bound() {
    for (trunk, want, why) in [
        (
            "max_calls = 1\nqueue_max = 1",
            Heard::Refused(503, "Queue Full".into()),
            "G022 the call may not leave by `twilio`: 1 calls wait for it already",
        ),
        (
            "max_calls = 2\nmax_rate = false\nqueue_for = \"5s\"",
            Heard::Refused(503, "Waited Too Long".into()),
            "G023 the call may not leave by `twilio`: its turn did not come within 5 s",
        ),
        (
            "queue_for = false",
            Heard::Refused(503, "Too Many Calls A Second".into()),
            "G020 the call may not leave by `twilio`: calls come faster than `max_rate`",
        ),
    ] {
        let mut world = play(1, Network::CLEAN, trunk, &FOUR[..3]);
        assert_eq!(faults(&mut world), [""; 0]);
        assert_eq!(heard(&mut world, "1003").last(), Some(&want));
        assert!(reasons(&mut world).contains(&why.to_owned()), "{:?}", reasons(&mut world));
        let retry = world.sent().iter().find(|sent| sent.message.status() == 503).unwrap();
        assert_eq!(retry.message.number(HeaderName::RetryAfter), Some(10));
    }
}

/// A call leaves as soon as another has ended.
#[test]
fn there_is_room_again() {
    let users = [("1001", FAR), ("1002", "+14155550177")];
    let trunk = "max_rate = false\nmax_calls = 1";
    let mut world = play(1, Network::CLEAN, trunk, &users);
    world.at(5000, |world| act(world, "1001", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0]);
    let times: Vec<_> = left(&world).into_iter().map(|(at_ms, _)| at_ms).collect();
    // 20 ms for the phone's BYE, 40 ms for that of the trunk's leg.
    assert_eq!(times, [20, 5060]);
}

/// Who has somebody else to ring does not wait.
#[test]
fn the_next_group_instead_of_the_queue() {
    let mut house = House::new(1);
    house.twilio().phone("1001").phone("1002").phone("1003").dialplan(
        "[[internal.rule]]\nmatch = \"_+.\"\ndial = [[\"trunk:twilio\"], [\"user:1003\"]]\n",
    );
    let mut world = house.open_registered();
    act(&mut world, "1001", Act::Call(FAR.into()));
    world.at(100, |world| act(world, "1002", Act::Call(FAR.into())));
    world.at(1000, |world| act(world, "1002", Act::Cancel));
    world.at(6000, |world| act(world, "1001", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0]);
    assert_eq!(left(&world).len(), 1);
    assert!(heard(&mut world, "1003").iter().any(|heard| matches!(heard, Heard::Called { .. })));
}

/// An emergency call leaves before all who wait, though the trunk is full.
#[test]
fn a_call_for_help_does_not_wait() {
    let users = [FOUR[0], FOUR[1], FOUR[2], ("1004", "911")];
    let play = |seed, network| play(seed, network, "max_calls = 2", &users);
    let mut world = play(1, Network::CLEAN);
    assert_eq!(faults(&mut world), [""; 0]);
    let times = left(&world);
    assert_eq!(times[1], (50, "sip:911@asterisk-pbx1.pstn.twilio.com".to_owned()));
    storm(100, play, |world| with_phone(world, "1004", |phone, _| phone.has_heard(&Heard::Up)));
}
