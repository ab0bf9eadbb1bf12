//! What is counted, and how Prometheus reads it.
//!
//! Owns: the counters' shapes, their sums, their names.
//! Never: is shared: each owner has its own and hands out a copy at scrape.

use super::{
    cdr::{AttemptOutcome, Cdr, Direction, Outcome},
    status::{CertificateRow, StoreReport, TrunkRow, TrunkState},
};
use std::collections::BTreeMap;

mod render;
pub use render::render;

/// A counter for each of a few fixed words: a method, a reason to discard.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// Counts one.
    pub fn count(&mut self, word: &'static str) {
        self.add(word, 1);
    }

    /// Counts several.
    pub fn add(&mut self, word: &'static str, n: u64) {
        *self.0.entry(word).or_default() += n;
    }

    /// Returns how many of `word` were counted.
    pub fn of(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    /// Returns how many were counted altogether.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the words and their counts, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(word, n)| (*word, *n))
    }

    fn merge(&mut self, other: &Self) {
        for (word, n) in other.iter() {
            self.add(word, n);
        }
    }
}

/// Upper bounds of the buckets for delays, in ms.
const DELAY_BOUNDS_MS: [u64; 10] = [20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];
/// Upper bounds of the buckets for conversations, in ms.
const TALK_BOUNDS_MS: [u64; 10] =
    [1_000, 5_000, 15_000, 30_000, 60_000, 180_000, 600_000, 1_800_000, 3_600_000, 14_400_000];

/// How long something took: how often, in buckets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Histogram {
    bounds_ms: [u64; 10],
    /// One for each bound, and one above.
    buckets: [u64; 11],
    sum_ms: u64,
}

impl Histogram {
    fn new(bounds_ms: [u64; 10]) -> Self {
        Self { bounds_ms, buckets: [0; 11], sum_ms: 0 }
    }

    /// Counts one duration.
    pub fn observe_ms(&mut self, ms: u64) {
        let bucket = self.bounds_ms.iter().position(|bound| ms <= *bound);
        self.buckets[bucket.unwrap_or(self.bounds_ms.len())] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// Returns how many durations were counted.
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds_ms, other.bounds_ms, "histograms of different things");
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }
}

/// What ended calls add up to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Calls {
    /// By direction.
    pub started: Tally,
    /// By direction and outcome.
    pub ended: BTreeMap<(Direction, Outcome), u64>,
    /// By trunk and the code of the explanation.
    pub refusals: BTreeMap<(Box<str>, Box<str>), u64>,
    /// INVITEs to a carrier, by trunk and outcome.
    pub attempts: BTreeMap<(Box<str>, AttemptOutcome), u64>,
    /// Those of them that another followed, by trunk and reason: `silent`, `unreachable`, a status.
    pub failovers: BTreeMap<(Box<str>, Box<str>), u64>,
    /// From INVITE to ring.
    pub ring_delay: Histogram,
    /// From INVITE to answer.
    pub answer_delay: Histogram,
    /// From answer to end.
    pub talk: Histogram,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            started: Tally::default(),
            ended: BTreeMap::new(),
            refusals: BTreeMap::new(),
            attempts: BTreeMap::new(),
            failovers: BTreeMap::new(),
            ring_delay: Histogram::new(DELAY_BOUNDS_MS),
            answer_delay: Histogram::new(DELAY_BOUNDS_MS),
            talk: Histogram::new(TALK_BOUNDS_MS),
        }
    }
}

impl Calls {
    /// Counts the start of a call.
    pub fn count_start(&mut self, direction: Direction) {
        self.started.count(direction.word());
    }

    /// Counts the end of a call by its record.
    pub fn count_end(&mut self, cdr: &Cdr) {
        *self.ended.entry((cdr.direction, cdr.outcome())).or_default() += 1;
        if let (Some(trunk), Some(why)) = (&cdr.route.trunk, &cdr.ending.why) {
            let key = (trunk.as_str().into(), why.code.as_str().into());
            *self.refusals.entry(key).or_default() += 1;
        }
        for attempt in &cdr.route.attempts {
            let key = (attempt.trunk.as_str().into(), attempt.outcome);
            *self.attempts.entry(key).or_default() += 1;
        }
        // The last one is what the call came to.
        for attempt in cdr.route.attempts.iter().rev().skip(1) {
            let reason = match (attempt.outcome, &attempt.words) {
                (AttemptOutcome::Refused, Some(words)) => {
                    words.split(' ').next().unwrap_or_default()
                }
                (outcome, _) => outcome.word(),
            };
            let key = (attempt.trunk.as_str().into(), reason.into());
            *self.failovers.entry(key).or_default() += 1;
        }
        if let Some(ms) = cdr.times.ring_delay_ms() {
            self.ring_delay.observe_ms(ms);
        }
        if let Some(ms) = cdr.times.answer_delay_ms() {
            self.answer_delay.observe_ms(ms);
            self.talk.observe_ms(cdr.times.talk_ms());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.started.merge(&other.started);
        for (key, n) in &other.ended {
            *self.ended.entry(*key).or_default() += n;
        }
        for (key, n) in &other.refusals {
            *self.refusals.entry(key.clone()).or_default() += n;
        }
        for (key, n) in &other.attempts {
            *self.attempts.entry(key.clone()).or_default() += n;
        }
        for (key, n) in &other.failovers {
            *self.failovers.entry(key.clone()).or_default() += n;
        }
        self.ring_delay.merge(&other.ring_delay);
        self.answer_delay.merge(&other.answer_delay);
        self.talk.merge(&other.talk);
    }
}

/// One shard's counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shard {
    /// Requests received, by method.
    pub requests: Tally,
    /// Responses sent, by class: `2xx`.
    pub responses_sent: Tally,
    /// Responses received, by class.
    pub responses_received: Tally,
    /// Messages sent again because no answer came.
    pub retransmissions: u64,
    /// What was thrown away, by reason.
    pub discards: Tally,
    /// Client transactions that ended by timer B or F.
    pub timeouts: u64,
    /// Digest checks, by result: `ok`, `challenged`, `stale`, `wrong`.
    pub authentications: Tally,
    /// Sources banned, by reason.
    pub bans: Tally,
    /// Bans that hold now.
    pub banned: u64,
    /// REGISTERs, by result: `bound`, `unbound`, `fetched`, `refused`.
    pub registrations: Tally,
    /// Steps of a call that panicked: the call was dropped, the fault is ours.
    pub panics: u64,
    /// Calls.
    pub calls: Calls,
    /// Calls that ring now.
    pub ringing: u64,
    /// Calls that talk now.
    pub talking: u64,
    /// What is kept now because of messages that came and went.
    pub kept: Kept,
}

/// What a shard keeps because of messages: nothing once all calls are over and 32 s have passed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    /// Transactions.
    pub transactions: u64,
    /// Dialogs.
    pub dialogs: u64,
    /// Transactions and calls that wait for a moment.
    pub timers: u64,
}

impl Shard {
    /// Returns the class of a status: `1xx` to `6xx`.
    pub fn class(status: u16) -> &'static str {
        match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "6xx",
        }
    }

    /// Adds another shard's counters.
    pub fn merge(&mut self, other: &Self) {
        self.requests.merge(&other.requests);
        self.responses_sent.merge(&other.responses_sent);
        self.responses_received.merge(&other.responses_received);
        self.retransmissions += other.retransmissions;
        self.discards.merge(&other.discards);
        self.timeouts += other.timeouts;
        self.authentications.merge(&other.authentications);
        self.bans.merge(&other.bans);
        self.banned += other.banned;
        self.registrations.merge(&other.registrations);
        self.panics += other.panics;
        self.calls.merge(&other.calls);
        self.ringing += other.ringing;
        self.talking += other.talking;
        self.kept.transactions += other.kept.transactions;
        self.kept.dialogs += other.kept.dialogs;
        self.kept.timers += other.kept.timers;
    }
}

/// One media worker's counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Media {
    /// RTP packets forwarded, also those transcoded.
    pub packets_relayed: u64,
    /// Their bytes.
    pub bytes_relayed: u64,
    /// Of them, those forwarded by the kernel.
    pub packets_kernel: u64,
    /// RTP packets of which the codec was changed.
    pub packets_transcoded: u64,
    /// RTP packets of prompts, echoes and injected DTMF.
    pub packets_generated: u64,
    /// RTCP packets forwarded or made.
    pub reports: u64,
    /// Packets thrown away, by reason.
    pub discards: Tally,
    /// Legs that ended because nothing was heard.
    pub silences: u64,
    /// Legs for which no port pair could be bound.
    pub open_failures: u64,
    /// Keys and first packets of peers of which nobody could be told in time.
    pub events_dropped: u64,
    /// Commands that were lost because the worker hung.
    pub commands_lost: u64,
    /// Legs now whose packets the kernel forwards.
    pub legs_kernel: u64,
    /// Legs now.
    pub legs: u64,
    /// Port pairs taken now.
    pub ports_used: u64,
    /// Port pairs altogether.
    pub ports_total: u64,
}

impl Media {
    /// Adds another worker's counters.
    pub fn merge(&mut self, other: &Self) {
        self.packets_relayed += other.packets_relayed;
        self.bytes_relayed += other.bytes_relayed;
        self.packets_kernel += other.packets_kernel;
        self.packets_transcoded += other.packets_transcoded;
        self.packets_generated += other.packets_generated;
        self.reports += other.reports;
        self.discards.merge(&other.discards);
        self.silences += other.silences;
        self.open_failures += other.open_failures;
        self.events_dropped += other.events_dropped;
        self.commands_lost += other.commands_lost;
        self.legs_kernel += other.legs_kernel;
        self.legs += other.legs;
        self.ports_used += other.ports_used;
        self.ports_total += other.ports_total;
    }
}

/// The sockets' and queues' counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transports {
    /// Messages received, by transport.
    pub received: Tally,
    /// Messages sent, by transport.
    pub sent: Tally,
    /// Messages that could not be sent, by transport.
    pub send_errors: Tally,
    /// Messages dropped because a shard's queue was full.
    pub ingress_dropped: u64,
    /// TCP connections now.
    pub connections: u64,
    /// The same over TLS.
    pub tls_connections: u64,
    /// TLS handshakes that failed: of those who connected to us (`accepted`), and of our own by
    /// reason.
    pub handshake_failures: Tally,
    /// Connections of peers that nobody known used, and that were closed: for others (`room`), or for
    /// silence (`idle`).
    pub connections_closed: Tally,
}

impl Transports {
    /// Adds another listener's counters.
    pub fn merge(&mut self, other: &Self) {
        self.received.merge(&other.received);
        self.sent.merge(&other.sent);
        self.send_errors.merge(&other.send_errors);
        self.ingress_dropped += other.ingress_dropped;
        self.connections += other.connections;
        self.tls_connections += other.tls_connections;
        self.handshake_failures.merge(&other.handshake_failures);
        self.connections_closed.merge(&other.connections_closed);
    }
}

/// The store's counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Store {
    /// Records written.
    pub written: u64,
    /// Attempts to write that failed; the records were kept and tried again.
    pub errors: u64,
    /// Calls that a process had when it died, closed by this one.
    pub calls_lost: u64,
    /// How it is.
    pub report: StoreReport,
}

/// Everything, summed over its owners at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The program's version.
    pub version: String,
    /// Since the start.
    pub uptime_s: u64,
    /// Whether new calls are refused.
    pub is_draining: bool,
    /// All shards.
    pub shard: Shard,
    /// All media workers.
    pub media: Media,
    /// All listeners.
    pub transports: Transports,
    /// The store.
    pub store: Store,
    /// Registered contacts now.
    pub contacts: u64,
    /// Certificates of ours.
    pub certificates: Vec<CertificateRow>,
    /// Every trunk.
    pub trunks: Vec<TrunkRow>,
}

impl Snapshot {
    /// Returns 1 for the state that a trunk is in and 0 for the others.
    fn trunk_states(&self) -> impl Iterator<Item = (&str, &'static str, u64)> + '_ {
        self.trunks.iter().flat_map(|trunk| {
            let of = |state: TrunkState| u64::from(state == trunk.state);
            TrunkState::ALL.into_iter().map(move |s| (trunk.name.as_str(), s.word(), of(s)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cdr::tests::{answered, refused};

    #[test]
    fn owners_add_up() {
        let mut one = Shard { panics: 1, ringing: 2, ..Shard::default() };
        one.requests.count("INVITE");
        one.calls.count_start(Direction::Outbound);
        one.calls.count_end(&answered(1));
        let mut two = Shard { retransmissions: 3, ..Shard::default() };
        two.requests.add("INVITE", 4);
        two.requests.count("BYE");
        two.calls.count_end(&refused(2));
        two.calls.count_end(&refused(3));
        one.merge(&two);
        assert_eq!((one.requests.of("INVITE"), one.requests.total()), (5, 6));
        assert_eq!((one.panics, one.ringing, one.retransmissions), (1, 2, 3));
        assert_eq!(one.calls.ended[&(Direction::Outbound, Outcome::Answered)], 1);
        assert_eq!(one.calls.ended[&(Direction::Outbound, Outcome::Refused)], 2);
        assert_eq!(one.calls.refusals[&("twilio".into(), "T001".into())], 2);
        assert_eq!((one.calls.ring_delay.total(), one.calls.talk.total()), (3, 1));
        let mut media = Media { packets_relayed: 1, ports_used: 2, ..Media::default() };
        (media.events_dropped, media.commands_lost) = (3, 4);
        media.merge(&media.clone());
        assert_eq!((media.packets_relayed, media.ports_used), (2, 4));
        assert_eq!((media.events_dropped, media.commands_lost), (6, 8));
    }

    #[test]
    fn a_duration_on_a_bound_is_below_it() {
        let mut delays = Histogram::new(DELAY_BOUNDS_MS);
        for ms in [0, 20, 21, 30_000, 30_001] {
            delays.observe_ms(ms);
        }
        assert_eq!(delays.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(delays.sum_ms, 60_042);
    }
}
