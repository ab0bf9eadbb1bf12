//! A phone registers: challenge, binding, refresh, end.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::{assert_ladder, storm},
};
use std::time::{Duration, SystemTime};
use tandem::{
    ids::Transport,
    sim::{
        Network, World,
        pbx::WALL_S,
        phone::{Act, Habit, Heard},
    },
    sip::digest::Algorithm,
};

fn play(seed: u64, network: Network) -> World {
    let mut world = House::new(seed).phone("1001").open();
    world.set_network(network);
    act(&mut world, "1001", Act::Register);
    world.at(5000, |world| act(world, "1001", Act::Register));
    world.at(10_000, |world| act(world, "1001", Act::Unregister));
    world
}

fn bound(world: &mut World) -> Vec<String> {
    with_pbx(world, |pbx, _| pbx.bound().iter().map(|(_, contact)| contact.to_string()).collect())
}

#[test]
fn challenge_binding_refresh_and_end() {
    let mut world = play(1, Network::CLEAN);
    world.run_until(7000);
    assert_eq!(bound(&mut world), ["sip:1001@10.0.0.10:5060"]);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  REGISTER
                20 ms  tandem -> 1001  401 Unauthorized (REGISTER)
                40 ms  1001 -> tandem  REGISTER
                60 ms  tandem -> 1001  200 OK (REGISTER)
              5000 ms  1001 -> tandem  REGISTER
              5020 ms  tandem -> 1001  200 OK (REGISTER)
             10000 ms  1001 -> tandem  REGISTER
             10020 ms  tandem -> 1001  200 OK (REGISTER)",
    );
    assert_eq!(bound(&mut world), [""; 0]);
    with_phone(&mut world, "1001", |phone, _| {
        // A long time is shortened a little.
        let [Heard::Registered(first), Heard::Registered(second), Heard::Unregistered] =
            phone.heard()
        else {
            panic!("{:?}", phone.heard())
        };
        assert!((3240..=3600).contains(first) && first == second, "{first} {second}");
    });
}

#[test]
fn on_bad_networks() {
    storm(1000, play, |world| bound(world).is_empty());
}

#[test]
fn by_either_hash_and_over_tcp() {
    for (algorithm, transport) in
        [(Algorithm::Md5, Transport::Udp), (Algorithm::Sha256, Transport::Tcp)]
    {
        let mut house = House::new(1);
        house.phone_like("1001", "1001", |mut setup| {
            (setup.algorithm, setup.transport) = (algorithm, transport);
            setup
        });
        let mut world = house.open_registered();
        assert_eq!(bound(&mut world).len(), 1);
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let mut house = House::new(1);
    house.phone_like("1001", "1001", |mut setup| {
        setup.password = "guess".into();
        setup
    });
    let mut world = house.open();
    act(&mut world, "1001", Act::Register);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  REGISTER
                20 ms  tandem -> 1001  401 Unauthorized (REGISTER)
                40 ms  1001 -> tandem  REGISTER
                60 ms  tandem -> 1001  401 Unauthorized (REGISTER)",
    );
    assert_eq!(bound(&mut world), [""; 0]);
    with_phone(&mut world, "1001", |phone, _| {
        assert_eq!(phone.heard(), [Heard::RegistrationRefused(401)]);
    });
}

#[test]
fn too_short_a_time_is_423() {
    let mut house = House::new(1);
    house.phone_like("1001", "1001", |mut setup| {
        setup.expires_s = 10;
        setup
    });
    let mut world = house.open();
    act(&mut world, "1001", Act::Register);
    world.run_until(5000);
    with_phone(&mut world, "1001", |phone, _| {
        assert_eq!(phone.heard(), [Heard::RegistrationRefused(423)]);
    });
}

/// A phone that refreshes stays; one that does not is gone when its time is up.
#[test]
fn a_binding_ends_with_its_time() {
    for forgets in [false, true] {
        let mut house = House::new(1);
        house.phone_like("1001", "1001", |mut setup| {
            setup.expires_s = 60;
            if forgets { setup.with(Habit::Forgets) } else { setup }
        });
        let mut world = house.open();
        act(&mut world, "1001", Act::Register);
        world.run_until(50_000);
        assert_eq!(bound(&mut world).len(), 1);
        world.run_until(70_000);
        assert_eq!(bound(&mut world).len(), usize::from(!forgets));
    }
}

#[test]
fn unregister_all() {
    let mut house = House::new(1);
    house.phone("1001").phone_like("1001b", "1001", |setup| setup);
    let mut world = house.open_registered();
    assert_eq!(bound(&mut world).len(), 2);
    act(&mut world, "1001", Act::UnregisterAll);
    world.run_until(5000);
    assert_eq!(bound(&mut world).len(), 0);
}

/// The connection a phone registered over is gone: so is its binding.
#[test]
fn a_lost_connection_ends_the_binding() {
    let mut house = House::new(1);
    house.phone_like("1001", "1001", |mut setup| {
        setup.transport = Transport::Tcp;
        setup
    });
    let mut world = house.open_registered();
    assert_eq!(bound(&mut world), ["sip:1001@10.0.0.10:5060;transport=tcp"]);
    world.disconnect("1001", "tandem");
    world.run_until(5000);
    assert_eq!(bound(&mut world), [""; 0]);
}

/// What a phone proves with is as old as it is, whatever the wall clock is set to: it is not challenged again.
#[test]
fn a_clock_that_is_set_makes_no_nonce_stale() {
    for jump_s in [-7200, -30, 250] {
        let mut world = House::new(1).phone("1001").open_registered();
        world.run_until(1000);
        with_pbx(&mut world, |pbx, now| {
            let wall =
                SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_S.saturating_add_signed(jump_s));
            pbx.with_shard(now, |shard, now| shard.set_clock(now, wall));
        });
        act(&mut world, "1001", Act::Register);
        world.run_until(5000);
        let answers = world.sent().iter().filter(|sent| sent.message.status() > 0);
        let said: Vec<_> = answers.map(|sent| sent.message.status()).collect();
        assert_eq!(said, [200], "{jump_s} s: {}", world.ladder());
    }
}
