//! How many instructions the hot paths take: `cargo bench --bench instructions`, or `make instructions`.
//!
//! Each case runs under valgrind's callgrind, once without work and once with it; the difference is the work's
//! own. It is compared with `benches/instructions.txt`: more than five per cent above what stands there fails, and
//! so does a case that is not recorded.
//! `cargo bench --bench instructions -- record` writes the file anew.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that fails may panic, and prints"
)]

#[path = "relay/calls.rs"]
mod calls;
mod scene;

use bytes::Bytes;
use calls::Calls;
use scene::{Kind, Scene, play};
use std::{
    collections::BTreeMap,
    env, fs,
    hint::black_box,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};
use tandem::{
    ids::{Flow, Transport},
    media::Convert,
    shard::Refusals,
    sim::epoch,
    sip::Message,
};

/// The program's own, so that what is counted is what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured: its name, how often it is done, and how.
type Case = (&'static str, usize, fn(usize));

/// Every case.
const CASES: &[Case] = &[
    ("parse INVITE", 1000, parse_invite),
    ("parse 200", 1000, parse_ok),
    ("call", WHOLE, call),
    ("call with digest", WHOLE, call_with_digest),
    ("register", WHOLE, register),
    ("refusal", WAITING, refusal),
    ("relay", 20_000, relay),
];
/// How many calls or registrations are measured.
const WHOLE: usize = 100;
/// How many calls wait, and how many are refused.
const WAITING: usize = 1000;
/// Where the recorded figures are.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How much more than recorded is too much, in per cent.
const GROWTH_MAX: f64 = 5.0;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["case", name, count] => run(name, count.parse().unwrap()),
        [] | ["--bench"] => compare(),
        ["record"] | ["record", "--bench"] => record(),
        _ => {
            println!("usage: instructions [record]");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, count: usize) -> ExitCode {
    let (_, _, case) = CASES.iter().find(|(known, ..)| *known == name).unwrap();
    case(count);
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("instructions NOT COUNTED: there is no valgrind");
        return ExitCode::FAILURE;
    }
    let recorded = recorded();
    let mut is_well = true;
    println!("{:24} {:>12} {:>12} {:>8}", "instructions", "recorded", "now", "");
    for (name, ..) in CASES {
        let now = measure(name);
        let Some(before) = recorded.get(*name) else {
            println!("{name:24} {:>12} {now:>12}  NOT RECORDED", "");
            is_well = false;
            continue;
        };
        let growth = (now as f64 / *before as f64 - 1.0) * 100.0;
        let verdict = if growth > GROWTH_MAX { "  TOO MANY" } else { "" };
        println!("{name:24} {before:>12} {now:>12} {growth:>+7.1}%{verdict}");
        is_well &= growth <= GROWTH_MAX;
    }
    if is_well {
        return ExitCode::SUCCESS;
    }
    println!("`make instructions RECORD=record` takes these figures, where they are meant");
    ExitCode::FAILURE
}

fn record() -> ExitCode {
    let mut text = String::from(
        "# Instructions of one message, call or registration, counted by `make instructions`.\n",
    );
    for (name, ..) in CASES {
        let now = measure(name);
        println!("{name:24} {now:>12}");
        text.push_str(&format!("{name} = {now}\n"));
    }
    fs::write(RECORD, text).unwrap();
    ExitCode::SUCCESS
}

fn recorded() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(RECORD).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(" = "));
    lines.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

/// Returns the instructions of one piece of a case's work.
fn measure(name: &str) -> u64 {
    let (_, count, _) = CASES.iter().find(|(known, ..)| *known == name).unwrap();
    (instructions(name, *count) - instructions(name, 0)) / *count as u64
}

/// Counts the instructions of a whole run.
fn instructions(name: &str, count: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args(["case", name, &count.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    collected.and_then(|(_, count)| count.trim().parse().ok()).unwrap()
}

fn parse_invite(count: usize) {
    parse("INVITE", count);
}

fn parse_ok(count: usize) {
    parse("SIP/2.0 200", count);
}

fn parse(start: &str, count: usize) {
    let bytes = scene::message(Kind::Trunk, start);
    for _ in 0..count {
        black_box(Message::parse(black_box(Bytes::clone(&bytes))).unwrap());
    }
}

/// One packet of PCMU through one of fifty calls.
fn relay(count: usize) {
    let kind = calls::Kind { calls: 50, convert: Convert::Keep, suite: None };
    Calls::new(kind, epoch()).talk(count);
}

fn call(count: usize) {
    whole(Kind::Trunk, count);
}

fn call_with_digest(count: usize) {
    whole(Kind::Phone, count);
}

fn register(count: usize) {
    whole(Kind::Register, count);
}

/// A call that is refused because too many wait.
fn refusal(count: usize) {
    let invite = String::from_utf8(scene::message(Kind::Trunk, "INVITE").to_vec()).unwrap();
    let (before, rest) = invite.split_once("branch=").unwrap();
    let (_, after) = rest.split_once("\r\n").unwrap();
    let invites = |name: &str| -> Vec<String> {
        (0..WAITING).map(|n| format!("{before}branch=z9hG4bK{name}{n:08}\r\n{after}")).collect()
    };
    let (early, late, measured) = (invites("early"), invites("late"), invites("measured"));
    let scene = Scene::record(Kind::Trunk, 10, WHOLE, "SHA-256");
    let (mut shard, pbx) = (scene.shard(), scene::PBX.parse().unwrap());
    let caller = scene::CALLER.parse().unwrap();
    let flow = Flow { transport: Transport::Udp, local: pbx, remote: caller };
    let mut aside = |text: &str, at| assert!(shard.put_aside(flow, text.as_bytes(), at));
    // None of these is served within the time that makes a crowd of them.
    let crowded = epoch() + Duration::from_millis(150);
    early.iter().for_each(|invite| aside(invite, epoch()));
    late.iter().chain(measured.iter().take(count)).for_each(|invite| aside(invite, crowded));
    let mut refusals = Refusals::default();
    shard.swap_refusals(&mut refusals);
    assert_eq!(refusals.iter().count(), WAITING + count);
    std::mem::forget(shard);
}

/// Records as many calls as are measured, plays them or not, and leaves the end of the shard out of it.
fn whole(kind: Kind, count: usize) {
    let scene = Scene::record(kind, 10, WHOLE, "SHA-256");
    let mut shard = scene.shard();
    if count > 0 {
        black_box(play(&mut shard, scene.script));
    }
    std::mem::forget(shard);
}
