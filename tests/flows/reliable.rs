//! Reliable provisional responses (RFC 3262): each side of the PBX has its own.

use crate::{
    house::{House, act, cdr, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    sim::{
        Network, World,
        phone::{Act, Habit, Heard, On},
    },
    sip::HeaderName,
};

fn play(seed: u64, network: Network, caller: &[Habit], callee: &[Habit]) -> World {
    let mut house = House::new(seed);
    for (name, habits) in [("1001", caller), ("1002", callee)] {
        house.phone_like(name, name, |mut setup| {
            setup.habits.extend(habits.iter().cloned());
            setup
        });
    }
    let mut world = house.twilio().open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 600, Act::Progress).when(
            On::Called,
            2000,
            Act::Answer,
        );
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 2000, Act::HangUp);
    });
    world.set_network(network);
    world
}

#[test]
fn the_caller_requires_it() {
    let play = |seed, network| {
        let mut world = play(seed, network, &[Habit::RequiresReliable], &[]);
        act(&mut world, "1001", Act::Call("1002".into()));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1001  180 Ringing (INVITE)
               180 ms  1001 -> tandem  PRACK
               200 ms  tandem -> 1001  200 OK (PRACK)
               640 ms  1002 -> tandem  183 Session Progress (INVITE, sdp)
               660 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
               680 ms  1001 -> tandem  PRACK
               700 ms  tandem -> 1001  200 OK (PRACK)
              2040 ms  1001 is answered by 1002
              4080 ms  1001 hangs up on 1002",
    );
    with_phone(&mut world, "1001", |phone, _| {
        let rings = [Heard::Ringing(180), Heard::EarlyMedia(183), Heard::Up];
        assert_eq!(phone.heard()[1..4], rings);
    });
    storm(300, play, |_| true);
}

#[test]
fn the_callee_does_it() {
    let play = |seed, network| {
        let mut world = play(seed, network, &[], &[Habit::RingsReliably]);
        act(&mut world, "1001", Act::Call("1002".into()));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  180 Ringing (INVITE)
               160 ms  tandem -> 1002  PRACK
               160 ms  tandem -> 1001  180 Ringing (INVITE)
               180 ms  1002 -> tandem  200 OK (PRACK)
               640 ms  1002 -> tandem  183 Session Progress (INVITE, sdp)
               660 ms  tandem -> 1002  PRACK
               660 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
               680 ms  1002 -> tandem  200 OK (PRACK)
              2040 ms  1001 is answered by 1002
              4080 ms  1001 hangs up on 1002",
    );
    storm(300, play, |_| true);
}

#[test]
fn both_do() {
    let habits = [Habit::RequiresReliable, Habit::RingsReliably];
    let play = |seed, network| {
        let mut world = play(seed, network, &habits, &habits);
        act(&mut world, "1001", Act::Call("1002".into()));
        world
    };
    storm(200, play, |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)));
}

/// The trunk knows nothing of it: the PBX is the end of it.
#[test]
fn a_caller_that_requires_it_calls_the_trunk() {
    let play = |seed, network| {
        let mut world = play(seed, network, &[Habit::RequiresReliable], &[]);
        act(&mut world, "1001", Act::Call("+15005550183".into()));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls twilio
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
               420 ms  1001 -> tandem  PRACK
               440 ms  tandem -> 1001  200 OK (PRACK)
              1080 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
              1100 ms  tandem -> 1001  183 Session Progress (INVITE)
              1120 ms  1001 -> tandem  PRACK
              1140 ms  tandem -> 1001  200 OK (PRACK)
              2380 ms  1001 is answered by twilio
              4420 ms  1001 hangs up on twilio",
    );
    storm(200, play, |_| true);
}

/// RFC 6228: a fork behind the callee has ended. That is nothing to a caller who asked for no such
/// news, and no ringing.
#[test]
fn a_fork_that_ends_is_not_passed_on() {
    for (is_reliable, name) in [(false, "plain"), (true, "reliable")] {
        let mut house = House::new(1);
        house.phone("1001").phone_like("1002", "1002", |setup| {
            if is_reliable { setup.with(Habit::RingsReliably) } else { setup }
        });
        let mut world = house.open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::EndFork).when(On::Called, 3000, Act::Reject(486));
        });
        act(&mut world, "1001", Act::Call("1002".into()));
        assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
        let said: Vec<_> = world
            .sent()
            .iter()
            .filter(|sent| &*sent.to == "1001")
            .map(|sent| sent.message.status())
            .collect();
        assert_eq!(said, [100, 486], "{name}: {}", world.ladder());
        assert_eq!(cdr(&mut world).times.ring, None, "{name}");
    }
}

/// RFC 3311: the caller changes its media while the callee rings. We answer it ourselves, as the far
/// end of its dialog; the callee is not asked, and the 200 has nothing to add.
#[test]
fn the_caller_updates_before_the_answer() {
    let play = |seed, network| {
        let mut house = House::new(seed);
        house.phone_like("1001", "1001", |setup| setup.with(Habit::RequiresReliable));
        let mut world = house.phone("1002").open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::Progress).when(On::Called, 2000, Act::Answer);
        });
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Ringing, 500, Act::HoldByUpdate).when(On::Up, 1000, Act::HangUp);
        });
        world.set_network(network);
        act(&mut world, "1001", Act::Call("1002".into()));
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  183 Session Progress (INVITE, sdp)
               160 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
               180 ms  1001 -> tandem  PRACK
               200 ms  tandem -> 1001  200 OK (PRACK)
               680 ms  1001 -> tandem  UPDATE (sdp)
               700 ms  tandem -> 1001  200 OK (UPDATE, sdp)
              2040 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2060 ms  tandem -> 1002  ACK
              2060 ms  tandem -> 1001  200 OK (INVITE)
              2080 ms  1001 -> tandem  ACK
              3080 ms  1001 hangs up on 1002",
    );
    with_phone(&mut world, "1001", |phone, _| {
        assert!(phone.has_heard(&Heard::Changed("sendonly")), "{:?}", phone.heard());
    });
    storm(200, play, |_| true);
}

/// Without a reliable answer the caller's own offer is still open: it is asked to wait.
#[test]
fn an_update_before_any_answer_is_too_early() {
    let mut world = House::new(1).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 9000, Act::Reject(486));
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Ringing, 500, Act::HoldByUpdate);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.run_until(2000);
    with_phone(&mut world, "1001", |phone, _| {
        assert!(phone.has_heard(&Heard::OfferRefused(500)), "{:?}", phone.heard());
    });
    let update = world.sent().iter().find(|sent| sent.message.status() == 500);
    assert!(update.is_some_and(|sent| sent.message.number(HeaderName::RetryAfter).is_some()));
}
