//! Who is not let in: spoofed names, wrong passwords, unknown numbers, strangers.

use crate::{
    house::{House, act, why, with_pbx, with_phone},
    storm::{assert_ladder, faults},
};
use tandem::sim::{
    World,
    phone::{Act, Habit, Heard, On},
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
                20 ms  tandem -> 1001  100 Trying (INVITE)
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
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1001  401 Unauthorized (INVITE)
                40 ms  1001 -> tandem  ACK
                40 ms  1001 -> tandem  INVITE (sdp)
                60 ms  tandem -> 1001  100 Trying (INVITE)
                60 ms  tandem -> 1001  401 Unauthorized (INVITE)
                80 ms  1001 -> tandem  ACK
                80 ms  1001 -> tandem  INVITE (sdp)
               100 ms  tandem -> 1001  100 Trying (INVITE)
               100 ms  tandem -> 1001  401 Unauthorized (INVITE)
               120 ms  1001 -> tandem  ACK",
    );
    refused(&mut world, 401);
    with_pbx(&mut world, |pbx, _| assert_eq!(pbx.cdrs(), []));
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
        with_pbx(&mut world, |pbx, _| assert_eq!(pbx.cdrs(), []));
    }
}
