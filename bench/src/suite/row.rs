//! The names of what is run, as they stand in the results.
//!
//! Owns: the names. Never: more.

/// From starting the process to being told that it is ready.
pub(super) const START: &str = "start";
/// Short calls.
pub(super) const CALLS_1000: &str = "1,000 calls/s";
/// Short calls at the rate at which CPU time counts.
pub(super) const CALLS_4000: &str = "4,000 calls/s";
/// Ever more of them, until the first that are not clean.
pub(super) const RATES: [&str; 5] =
    ["4,500 calls/s", "6,000 calls/s", "8,000 calls/s", "10,000 calls/s", "12,000 calls/s"];
/// The rates of `RATES`.
pub(super) const RATES_PER_S: [u32; 5] = [4500, 6000, 8000, 10_000, 12_000];
/// Short calls whose caller is challenged.
pub(super) const DIGEST_1000: &str = "1,000 calls/s with digest";
/// The second opinion: SIPp at both ends, and ours at the same rate.
pub(super) const SIPP: &str = "300 calls/s, SIPp at both ends";
/// Ours beside it.
pub(super) const SIPP_OURS: &str = "300 calls/s, this generator";
/// Phones.
pub(super) const REGISTER: &str = "12,000 registrations/s";
/// Calls that are up, and short ones beside them.
pub(super) const HELD_10: &str = "10 held calls";
/// More of them.
pub(super) const HELD_1000: &str = "1,000 held calls";
/// As many as descriptors allow, up to 5,000.
pub(super) const HELD_5000: &str = "5,000 held calls";
/// Nothing to do.
pub(super) const IDLE_1000: &str = "1,000 registered phones, idle";
/// Many phones.
pub(super) const PHONES_50000: &str = "50,000 registered phones";
/// Many calls.
pub(super) const MILLION: &str = "1,000,000 short calls";
/// Streams in whose time packets count.
pub(super) const MEDIA_800: &str = "media of 800 calls";
/// With the knob.
pub(super) const MEDIA_800_COALESCED: &str = "media of 800 calls, 1 ms coalescing";
/// Streams whose delay counts.
pub(super) const MEDIA_400: &str = "media of 400 calls";
/// Ever more streams, until they are not carried.
pub(super) const MEDIA_MOST: &str = "media of ever more calls";
/// Streams through one worker, and twice as many through two, which may use both cores.
pub(super) const WORKERS: &str = "media of 400 calls a worker, 1 ms coalescing";
/// Its subjects.
pub(super) const ONE_WORKER: &str = "1 worker";
/// The same with one more.
pub(super) const TWO_WORKERS: &str = "2 workers";
