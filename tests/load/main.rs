//! Hundreds of mixed calls through the program, by the rules of strict trunks: `tandem run`, two of
//! `tandem twilio-sim --strict`, one of them for TLS and SRTP only, and phones that speak and listen
//! over UDP, TCP and TLS. Every call is watched from both ends; in the end nothing may be left.
#![cfg(test)]

mod carrier;
mod house;
mod kinds;

use house::{House, PATIENCE};
use kinds::{DIALLING, Done, RINGING};
use std::time::Duration;
use tandem::shell::{now, softphone::Softphone};
use tokio::task::JoinSet;

/// Calls of each phone. There are twenty phones, of as many kinds.
const CALLS_EACH: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_mixed_calls_break_no_rule() {
    let mut house = House::open(CALLS_EACH).await;
    let mut phones = JoinSet::new();
    for (index, kind) in RINGING.iter().enumerate() {
        let mut phone = house.phone(index, kind.habit.clone(), kind.script).await;
        phones.spawn(async move { (kinds::ring(&mut phone, kind, CALLS_EACH).await, phone) });
    }
    for (index, kind) in DIALLING.iter().enumerate() {
        let mut phone = house.phone(RINGING.len() + index, kind.habit.clone(), kind.script).await;
        phones.spawn(async move { (kinds::dial(&mut phone, kind, CALLS_EACH).await, phone) });
    }
    let began = now();
    house.begin_calling();
    // The phones stay: what one has said last may still be on its way.
    let (done, _phones): (Vec<Vec<Done>>, Vec<Softphone>) =
        phones.join_all().await.into_iter().unzip();
    let done: Vec<Done> = done.into_iter().flatten().collect();
    let took = began.elapsed();

    assert_eq!(done.len(), (RINGING.len() + DIALLING.len()) * CALLS_EACH);
    let mut problems: Vec<String> = done.iter().filter_map(|call| call.problem.clone()).collect();
    problems.extend(house.close().await);
    report(&done, took);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// Prints what can be compared from day to day.
fn report(done: &[Done], took: Duration) {
    let mut rang: Vec<Duration> = done.iter().filter_map(|call| call.rang_after).collect();
    rang.sort();
    let at = |percent: usize| rang.get(rang.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{} calls in {} s; from dialling to ringing p50 {} ms, p99 {} ms (of which the trunk's 100 ms)",
        done.len(),
        took.as_secs(),
        at(50).as_millis(),
        at(99).as_millis(),
    );
    assert!(took < PATIENCE * 10, "{took:?}");
}
