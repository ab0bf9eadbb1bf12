//! Who is not let in: spoofed names, wrong passwords, unknown numbers, strangers.

use crate::{
    house::{DID, House, act, cdr, why, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::{assert_ladder, faults},
};
use tandem::{
    observe::cdr::{Cdr, Direction},
    sim::{
        World,
        phone::{Act, Habit, Heard, On},
    },
};

fn refused(world: &mut World, status: u16) {
    with_phone(world, "1001", |phone, _| {
        let last = phone.heard().last();
        assert!(matches!(last, Some(Heard::Refused(got, _)) if *got == status), "{last:?}");
    });
}

#[test]
fn a_number_that_no_rule_knows() {
    let mut world = House::new(1).phone("1001").open_registered();
    act(&mut world, "1001", Act::Call("*55".into()));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  404 Not Found (INVITE)
                40 ms  1001 -> tandem  ACK",
    );
    refused(&mut world, 404);
    assert_eq!(why(&mut world), "R001 no rule of `internal` matches *55");
}

/// A phone that is not registered may call; it is challenged.
#[test]
fn a_phone_that_is_not_registered() {
    let mut world = House::new(1).phone("1001").phone("1002").open();
    act(&mut world, "1002", Act::Register);
    world.run_until(1000);
    world.begin_again();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Reject(486));
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  401 Unauthorized (INVITE)
                40 ms  1001 -> tandem  ACK
                40 ms  1001 calls 1002
               180 ms  1002 -> tandem  486 Busy Here (INVITE)
               200 ms  tandem -> 1002  ACK
               200 ms  tandem -> 1001  486 Busy Here (INVITE)
               220 ms  1001 -> tandem  ACK",
    );
}

#[test]
fn a_wrong_password() {
    let mut house = House::new(1);
    house.phone_like("1001", "1001", |mut setup| {
        setup.password = "guess".into();
        setup
    });
    let mut world = house.twilio().open();
    act(&mut world, "1001", Act::Call("+14155550199".into()));
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  401 Unauthorized (INVITE)
                40 ms  1001 -> tandem  ACK
                40 ms  1001 -> tandem  INVITE (sdp)
                60 ms  tandem -> 1001  401 Unauthorized (INVITE)
                80 ms  1001 -> tandem  ACK
                80 ms  1001 -> tandem  INVITE (sdp)
               100 ms  tandem -> 1001  401 Unauthorized (INVITE)
               120 ms  1001 -> tandem  ACK",
    );
    refused(&mut world, 401);
    let said = "A005 a phone that says it is 1001 does not know the password";
    assert_eq!(why(&mut world), said);
    let cdr = cdr(&mut world);
    assert_eq!((cdr.ending.status, cdr.caller.user.unwrap().expose()), (401, "1001"));
}

/// A phone that proved to be 1001 may not say that it is somebody else.
#[test]
fn a_phone_may_not_claim_to_be_another() {
    for claim in ["1002", "+19005550100"] {
        let mut house = House::new(1);
        let claim = Habit::ClaimsToBe(claim.into());
        house.twilio().phone("1003").phone_like("1001", "1001", |setup| setup.with(claim));
        let mut world = house.open_registered();
        act(&mut world, "1001", Act::Call("1003".into()));
        world.at(1000, |world| act(world, "1001", Act::Call("+14155550199".into())));
        assert_eq!(faults(&mut world), [""; 0]);
        refused(&mut world, 403);
        assert!(world.sent().iter().all(|sent| !["1003", "twilio"].contains(&&*sent.to)));
        let whys = with_pbx(&mut world, |pbx, _| {
            let why = |cdr: &Cdr| cdr.ending.why.as_ref().map(|why| why.code.clone());
            pbx.cdrs().iter().map(why).collect::<Option<Vec<_>>>()
        });
        assert_eq!(whys, Some(vec!["A004".to_owned(), "A004".to_owned()]));
    }
}

/// A wrong password, then the right one: the call leaves its own record and no other.
#[test]
fn a_password_that_is_mended() {
    let mut house = House::new(1);
    house.phone("1002").phone_like("1001", "1001", |mut setup| {
        setup.password = "guess".into();
        setup
    });
    let mut world = house.open();
    act(&mut world, "1002", Act::Register);
    world.run_until(1000);
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Up, 1000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.run_until(1030);
    with_phone(&mut world, "1001", |phone, _| phone.set_password("secret of 1001"));
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    assert_eq!(cdr(&mut world).ending.status, 200, "{}", world.ladder());
}

/// A node that drains records whom it turned away, as far as it knows them: a phone that is registered
/// there, a carrier. A flood of others leaves nothing.
#[test]
fn calls_that_a_draining_node_refuses() {
    let mut house = House::new(1);
    house.twilio().phone("1001").phone("1002");
    house.phone_like("stranger", "1001", |mut setup| {
        setup.user = "1003".into();
        setup
    });
    let mut world = house.open();
    for name in ["1001", "1002"] {
        act(&mut world, name, Act::Register);
    }
    world.run_until(1000);
    world.begin_again();
    with_pbx(&mut world, |pbx, now| pbx.with_shard(now, |shard, _| shard.drain()));
    act(&mut world, "1001", Act::Call("1002".into()));
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call_in(DID), now));
    for at_ms in 0..100 {
        world.at(at_ms * 10, |world| act(world, "stranger", Act::Call("1002".into())));
    }
    assert_eq!(faults(&mut world), [""; 0]);
    let said = with_pbx(&mut world, |pbx, _| {
        let each =
            |cdr: &Cdr| (cdr.direction, cdr.ending.status, cdr.ending.why.clone().unwrap().code);
        pbx.cdrs().iter().map(each).collect::<Vec<_>>()
    });
    let a001 = "A001".to_owned();
    assert_eq!(said, [(Direction::Internal, 503, a001.clone()), (Direction::Inbound, 503, a001)]);
}
