//! The same behaviour again and again on bad networks, under every checker.

use crate::{
    house::{TANDEM, TWILIO, with_pbx},
    phrases::expand,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tandem::{
    sim::{Network, Sent, Twilio, World, check, twilio::Deviation},
    sip::{HeaderName, Message, Method},
};

/// How long a world may take to come to rest.
const REST: Duration = Duration::from_secs(900);

/// Plays a behaviour on `seeds` bad networks (or as many as `TANDEM_SEEDS` says). It came through
/// where `is_good` says so, which must be most of the time.
pub(crate) fn storm(
    seeds: u64,
    play: impl Fn(u64, Network) -> World,
    is_good: impl Fn(&mut World) -> bool,
) {
    let seeds = std::env::var("TANDEM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(seeds);
    let mut good = 0;
    for seed in 1..=seeds {
        let mut world = play(seed, Network::BAD);
        let faults = faults(&mut world);
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}\n{}", world.ladder());
        good += u64::from(is_good(&mut world));
    }
    assert!(good * 100 >= seeds * 90, "only {good} of {seeds} came through");
}

/// Runs a world to its end; returns what is wrong with it.
pub(crate) fn faults(world: &mut World) -> Vec<String> {
    faults_but(world, |_, _| false)
}

/// The same, where what the carrier says of the PBX may be excused by what was sent.
pub(crate) fn faults_but(
    world: &mut World,
    is_excused: impl Fn(&[Sent], &Deviation) -> bool,
) -> Vec<String> {
    let mut faults = vec![];
    if !world.settle(REST) {
        faults.push(format!("no rest: {:?} are busy", world.busy()));
    }
    faults.extend(check::violations(world));
    let deviations = world.with(TWILIO, |twilio: &mut Twilio, _| twilio.deviations().to_vec());
    let deviations = deviations.unwrap_or_default();
    let inexcusable = deviations.iter().filter(|seen| !is_excused(world.sent(), seen));
    faults.extend(inexcusable.map(ToString::to_string));
    let running = with_pbx(world, |pbx, _| pbx.running().clone());
    if !running.is_empty() {
        faults.push(format!("the store takes {running:?} for calls that go on"));
    }
    faults.extend(with_pbx(world, |pbx, _| pbx.store_faults()));
    let recorded = with_pbx(world, |pbx, _| {
        let ids = pbx.cdrs().iter().map(|cdr| cdr.caller.sip_call_id.clone().unwrap_or_default());
        ids.collect::<Vec<_>>()
    });
    let mut records: BTreeMap<&str, usize> = BTreeMap::new();
    for call_id in &recorded {
        *records.entry(call_id).or_default() += 1;
    }
    for call_id in calls(world.sent()) {
        let count = records.remove(call_id).unwrap_or(0);
        if count != 1 {
            faults.push(format!("{count} CDRs of call {call_id}"));
        }
    }
    let refused = refused(world.sent());
    for (call_id, count) in records {
        if count > 1 || !refused.contains(call_id) {
            faults.push(format!("{count} CDRs of what was no call: {call_id}"));
        }
    }
    faults
}

/// Returns the Call-IDs of calls that the PBX took. What admission refuses is no call: it answers
/// as a server that knows no dialog.
fn calls(sent: &[Sent]) -> BTreeSet<&str> {
    let invites = || sent.iter().filter(|sent| sent.message.method() == Method::Invite);
    let is_new = |sent: &&Sent| sent.message.is_request() && sent.message.to_tag().is_none();
    let is_call = |sent: &&Sent| &*sent.to == TANDEM && is_new(sent);
    let called: BTreeSet<&str> =
        invites().filter(is_call).map(|sent| sent.message.call_id()).collect();
    let is_ours = |sent: &&Sent| &*sent.from == TANDEM && !sent.message.is_request();
    let trying = invites().filter(is_ours).filter(|sent| sent.message.status() == 100);
    let trying: BTreeSet<&str> = trying.map(|sent| sent.message.branch()).collect();
    // What is refused for want of time has not even been taken note of.
    let is_shed = |message: &Message| message.status() == 503 && !trying.contains(message.branch());
    let is_taken = |sent: &&Sent| {
        let is_admission = sent.message.header(HeaderName::Server).is_some();
        is_ours(sent) && sent.message.status() > 100 && !is_admission && !is_shed(&sent.message)
    };
    let taken: BTreeSet<&str> =
        invites().filter(is_taken).map(|sent| sent.message.call_id()).collect();
    called.intersection(&taken).copied().collect()
}

/// Returns the Call-IDs of calls that admission refused, other than by its first challenge: each of
/// somebody known leaves one record, of a stranger none.
fn refused(sent: &[Sent]) -> BTreeSet<&str> {
    let is_proof = |sent: &&Sent| sent.message.header(HeaderName::Authorization).is_some();
    let proved: BTreeSet<&str> =
        sent.iter().filter(is_proof).map(|sent| sent.message.call_id()).collect();
    let is_refusal = |sent: &&Sent| {
        let (status, call_id) = (sent.message.status(), sent.message.call_id());
        &*sent.from == TANDEM && status >= 400 && (status != 401 || proved.contains(call_id))
    };
    let invites = sent.iter().filter(|sent| sent.message.method() == Method::Invite);
    invites.filter(is_refusal).map(|sent| sent.message.call_id()).collect()
}

/// Compares a clean network's ladder with the text, whose indentation is not counted and whose
/// phrases are written out.
#[track_caller]
pub(crate) fn assert_ladder(world: &mut World, want: &str) {
    let faults = faults(world);
    assert!(faults.is_empty(), "{faults:#?}\n{}", world.ladder());
    let lines = |text: &str| text.trim().lines().flat_map(expand).collect::<Vec<_>>();
    let got = world.ladder();
    assert!(lines(&got) == lines(want), "the ladder is:\n{got}");
}
