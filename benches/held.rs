//! What a call that is up costs while nothing happens to it: `cargo bench --bench held`.
//!
//! Prints the memory of the SIP path for each of 5,000 such calls, and how long another call takes beside 10,
//! 1,000 and 5,000 of them: the last column is the ratio to the first line, and should be 1.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and may panic"
)]
#![expect(dead_code, reason = "the scene has more than is measured here")]

mod scene;

use scene::{Kind, Scene, play};
use std::{fs, time::Instant};

/// How many calls happen beside those that are held, and how often that is measured.
const CALLS: usize = 500;
const ROUNDS: usize = 9;

fn main() {
    let scene = Scene::record(Kind::Trunk, 5000, 0, "SHA-256");
    let before = resident_kb();
    let shard = scene.shard();
    let kb = resident_kb() - before;
    println!("{:.1} KB for each of {} held calls", kb / 5000.0, shard.calls(scene.start).len());
    drop((shard, scene));

    println!("{:>10} {:>12} {:>8}", "held", "us/call", "");
    let mut first = None;
    for held in [10, 1000, 5000] {
        let scene = Scene::record(Kind::Trunk, held, CALLS, "SHA-256");
        let mut rounds = (0..ROUNDS).map(|_| round(&scene)).collect::<Vec<_>>();
        rounds.sort_by(f64::total_cmp);
        let us = *rounds.first().unwrap();
        println!("{held:>10} {us:>12.2} {:>8.2}", us / *first.get_or_insert(us));
    }
}

/// Returns microseconds a call.
fn round(scene: &Scene) -> f64 {
    let (mut shard, script) = (scene.shard(), scene.script.clone());
    let start = Instant::now();
    play(&mut shard, script);
    start.elapsed().as_secs_f64() * 1e6 / CALLS as f64
}

fn resident_kb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
