//! The generator drives the floor, and finds nothing wrong where nothing is.

use crate::rig::{Target, free, own};

#[test]
fn a_second_of_calls() {
    let callee = free(20);
    let floor = Target::floor(callee);
    let sample = floor.called(callee, &["calls", "--rate", "200", "--seconds", "1"]);
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(200.0), "{sample:?}");
    assert_eq!(sample.figure("failed"), Some(0.0));
    let cpu = sample.figure("cpu_ms_per_call").expect("a cost");
    assert!(cpu > 0.001 && cpu < 20.0, "{cpu} ms");
    assert!(sample.figure("setup_p50_ms") > Some(0.0));
}

#[test]
fn another_number_than_the_forced_one_is_seen_on_every_call() {
    let callee = free(21);
    let floor = Target::floor(callee);
    let load = ["calls", "--rate", "100", "--count", "20", "--from-user", "+1"];
    let callee = callee.to_string();
    let caller = format!("{}:0", own(10));
    let sample = floor.run(&[&load[..], &["--caller", &caller, "--callee", &callee]].concat());
    let told = "20 x a From of \"+17756187988\", which must be \"+1\"";
    assert_eq!(sample.faults, [told], "{sample:?}");
}

#[test]
fn calls_are_held_while_others_come_and_go() {
    let callee = free(22);
    let floor = Target::floor(callee);
    let load = ["held", "--calls", "20", "--rate", "200", "--seconds", "0.1", "--beside", "30"];
    let sample = floor.called(callee, &load);
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(50.0), "{sample:?}");
    assert_eq!(sample.figure("fds_per_call"), Some(0.0));
    assert!(sample.figure("beside_cpu_ms_per_call") > Some(0.0), "{sample:?}");
}

#[test]
fn phones_register_and_refresh() {
    let floor = Target::floor(free(23));
    let load = ["register", "--phones", "20", "--rounds", "3", "--rate", "200"];
    let phones = format!("{}:0", own(11));
    let sample = floor.run(&[&load[..], &["--phones-at", &phones]].concat());
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(60.0), "{sample:?}");
    assert!(sample.figure("challenge_p50_ms") <= sample.figure("register_p50_ms"), "{sample:?}");
}
