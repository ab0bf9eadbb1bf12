//! ACKs that are lost, never come, or answer two 200s.

use crate::{
    house::{House, act, cdr, why, with_phone},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    observe::cdr::EndedBy,
    sim::{
        Network, World,
        phone::{Act, Habit, On},
    },
    sip::Method,
};

fn play(seed: u64, network: Network, caller: Option<Habit>, callee: Option<Habit>) -> World {
    let mut house = House::new(seed);
    for (name, habit) in [("1001", caller), ("1002", callee)] {
        house.phone_like(name, name, |mut setup| {
            setup.habits.extend(habit);
            setup
        });
    }
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 3000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// The 200 is said again until the ACK gets through.
#[test]
fn a_lost_ack() {
    let mut world = play(1, Network::CLEAN, None, None);
    world.partition("1001", "tandem", 170, 900);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK  [lost]
               660 ms  tandem -> 1001  200 OK (INVITE, sdp)  [lost]
              1660 ms  tandem -> 1001  200 OK (INVITE, sdp)
              1680 ms  1001 -> tandem  ACK
              3180 ms  1001 hangs up on 1002",
    );
}

/// After 64*T1 the call is ended on both sides.
#[test]
fn a_caller_that_never_acknowledges() {
    let play = |seed, network| play(seed, network, Some(Habit::NeverAcks), None);
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               660 ms  tandem -> 1001  200 OK (INVITE, sdp)
              1660 ms  tandem -> 1001  200 OK (INVITE, sdp)
              3660 ms  tandem -> 1001  200 OK (INVITE, sdp)
              7660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             11660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             15660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             19660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             23660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             27660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             31660 ms  tandem -> 1001  200 OK (INVITE, sdp)
             32160 ms  tandem -> 1001  BYE
             32160 ms  tandem -> 1002  BYE
             32180 ms  1001 -> tandem  200 OK (BYE)
             32180 ms  1002 -> tandem  200 OK (BYE)",
    );
    let cdr = cdr(&mut world);
    assert_eq!(cdr.ending.by, EndedBy::Tandem);
    assert_eq!(why(&mut world), "S001 our 200 OK was never acknowledged");
    storm(200, play, |_| true);
}

/// A proxy behind the callee's contact forked, and both branches answered: one is hung up.
#[test]
fn two_answers() {
    let play = |seed, network| play(seed, network, None, Some(Habit::AnswersTwice));
    let two = "1002: INVITE answered 200, then 200";
    let mut world = play(1, Network::CLEAN);
    assert_eq!(faults(&mut world), [format!("140 ms, {two}")]);
    for seed in 1..=200 {
        let mut world = play(seed, Network::BAD);
        let mut faults = faults(&mut world);
        faults.retain(|fault| !fault.contains(two));
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}\n{}", world.ladder());
    }
}

/// Another fork behind the callee picks up when the call is over: it is told so, each once, and a
/// flood of made-up forks is not answered for ever.
#[test]
fn a_fork_answers_after_the_end() {
    let mut world = House::new(1).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    world.at(5000, |world| act(world, "1002", Act::AnswerAgain));
    world.at(6000, |world| (0..40).for_each(|_| act(world, "1002", Act::AnswerAgain)));
    let mut faults = faults(&mut world);
    faults.retain(|fault| !fault.ends_with("1002: INVITE answered 200, then 200"));
    // Of the flood, what is beyond the bound.
    faults.retain(|fault| !fault.ends_with("of 6000 ms has no BYE"));
    assert_eq!(faults, [""; 0]);
    let ladder = world.ladder();
    let end: Vec<_> = ladder.lines().skip(12).take(4).map(str::trim).collect();
    let want = [
        "5000 ms  1002 -> tandem  200 OK (INVITE, sdp)",
        "5020 ms  tandem -> 1002  ACK",
        "5020 ms  tandem -> 1002  BYE",
        "5040 ms  1002 -> tandem  481 Call/Transaction Does Not Exist (BYE)",
    ];
    assert_eq!(end, want);
    let byes = world.sent().iter().filter(|sent| {
        sent.message.method() == Method::Bye && sent.message.is_request() && &*sent.to == "1002"
    });
    assert_eq!(byes.count(), 16);
}
