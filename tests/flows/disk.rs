//! A disk that is slow, full or gone: calls and registrations go on, and what is recorded of them lands when it can.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::faults,
};
use tandem::sim::{
    Disk, World,
    phone::{Act, On},
};

/// When the disk breaks, and when it works again.
const BROKEN_MS: u64 = 1_000;
const WELL_MS: u64 = 90_000;

/// Three calls of a second, and a registration that ends, while the disk is like that.
fn play(disk: Disk, records_max: Option<usize>) -> World {
    let mut world = House::new(1).phone("1001").phone("1002").phone("1003").open_registered();
    with_phone(&mut world, "1001", |phone, _| _ = phone.when(On::Up, 1000, Act::HangUp));
    with_phone(&mut world, "1002", |phone, _| _ = phone.when(On::Called, 100, Act::Answer));
    for (at_ms, disk) in [(BROKEN_MS, disk), (WELL_MS, Disk::Well)] {
        world.at(at_ms, move |world| with_pbx(world, |pbx, _| pbx.set_disk(disk)));
    }
    if let Some(most) = records_max {
        with_pbx(&mut world, |pbx, _| pbx.limit_records(most));
    }
    for at_ms in [2_000, 12_000, 22_000] {
        world.at(at_ms, |world| act(world, "1001", Act::Call("1002".into())));
    }
    world.at(30_000, |world| act(world, "1003", Act::Unregister));
    world.run_until(WELL_MS - 1);
    let answered = with_pbx(&mut world, |pbx, _| {
        pbx.cdrs().iter().filter(|cdr| cdr.times.answer.is_some()).count()
    });
    assert_eq!(answered, 3, "{disk:?}:\n{}", world.ladder());
    world
}

#[test]
fn calls_go_on_and_their_records_land() {
    let slow = std::time::Duration::from_secs(100);
    for (disk, before) in [(Disk::Slow(slow), (0, 3)), (Disk::Gone, (0, 3)), (Disk::Liar, (3, 2))] {
        let mut world = play(disk, None);
        let known = with_pbx(&mut world, |pbx, _| (pbx.written(), pbx.bound().len()));
        assert_eq!(known, before, "{disk:?}");
        let faults = faults(&mut world);
        assert!(faults.is_empty(), "{disk:?}: {faults:#?}");
        let known = with_pbx(&mut world, |pbx, _| (pbx.written(), pbx.bound().len()));
        assert_eq!(known, (3, 2), "{disk:?}");
    }
}

#[test]
fn what_there_is_no_room_for_costs_no_call() {
    let mut world = play(Disk::Gone, Some(2));
    world.run_until(WELL_MS + 10_000);
    with_pbx(&mut world, |pbx, _| {
        assert_eq!(
            (pbx.written(), pbx.troubles().records_dropped),
            (1, 3),
            "two calls, and a phone that left"
        );
        assert!(!pbx.store_faults().is_empty());
    });
}
