//! The relay alone, for callgrind: as many packets as its argument says, 100,000 without one.
//!
//! Deterministic but for the addresses of its memory: 50 calls of PCMU, set up with one round of
//! packets, then the packets that count. What these cost is the difference to a run with 0 of them.
#![expect(clippy::disallowed_methods, reason = "virtual time begins at some real one")]

#[path = "relay/calls.rs"]
mod calls;

use calls::{Calls, Kind};
use std::time::Instant;
use tandem::media::Convert;

const PACKETS: usize = 100_000;

fn main() {
    let packets = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(PACKETS);
    let kind = Kind { calls: 50, convert: Convert::Keep, suite: None };
    Calls::new(kind, Instant::now()).talk(packets);
}
