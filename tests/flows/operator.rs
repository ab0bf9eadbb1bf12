//! What an operator does: drains, hangs up, reloads.

use crate::{
    house::{House, TANDEM, act, cdr, with_pbx, with_phone},
    storm::{assert_ladder, faults},
};
use tandem::{
    observe::cdr::EndedBy,
    sim::phone::{Act, Heard, On},
};

/// A draining node lets running calls go on and sends new ones elsewhere.
#[test]
fn draining() {
    let mut world = House::new(1).phone("1001").phone("1002").phone("1003").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.at(1000, |world| {
        with_pbx(world, |pbx, now| pbx.with_shard(now, |shard, _| shard.drain()))
    });
    world.at(2000, |world| act(world, "1003", Act::Call("1002".into())));
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2000 ms  1003 -> tandem  INVITE (sdp)
              2020 ms  tandem -> 1003  503 Service Unavailable (INVITE)
              2040 ms  1003 -> tandem  ACK
              5180 ms  1001 hangs up on 1002",
    );
    with_phone(&mut world, "1003", |phone, _| {
        let refused = Heard::Refused(503, "Service Unavailable".into());
        assert_eq!(phone.heard().last(), Some(&refused));
    });
    with_pbx(&mut world, |pbx, _| assert!(pbx.shard().is_idle()));
}

#[test]
fn hanging_up() {
    let mut world = House::new(1).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.at(3000, |world| {
        with_pbx(world, |pbx, now| {
            pbx.with_shard(now, |shard, now| {
                let call = shard.calls(now)[0].call;
                assert!(shard.hang_up(call, now));
                assert!(!shard.hang_up(tandem::ids::CallId(0), now));
            });
        });
    });
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              3000 ms  tandem -> 1001  BYE
              3000 ms  tandem -> 1002  BYE
              3020 ms  1001 -> tandem  200 OK (BYE)
              3020 ms  1002 -> tandem  200 OK (BYE)",
    );
    assert_eq!(cdr(&mut world).ending.q850, Some(16));
}

/// A phone vanishes: its BYE is repeated for half a minute, the record is written at once, and no port
/// is held for it.
#[test]
fn the_record_does_not_wait_for_a_phone_that_has_vanished() {
    let mut world = House::new(1).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.partition(TANDEM, "1002", 3000, 100_000);
    world.at(5000, |world| act(world, "1001", Act::HangUp));
    world.at(5100, |world| {
        with_pbx(world, |pbx, _| assert_eq!((pbx.open_legs(), pbx.cdrs()), (0, &[][..])));
    });
    world.at(7100, |world| {
        let cdr = cdr(world);
        assert_eq!((cdr.ending.by, cdr.times.talk_ms()), (EndedBy::Caller, 4860));
        assert_eq!(cdr.callee.user.unwrap().expose(), "1002");
        assert!(cdr.ladder.is_some());
        assert_eq!(with_pbx(world, |pbx, now| pbx.shard().calls(now).len()), 1, "its BYE goes on");
    });
    world.at(110_000, |world| act(world, "1002", Act::HangUp));
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
}
