//! How many files this process may have open at a time, and for how many connections that is enough.
//!
//! Owns: the limit (`RLIMIT_NOFILE`), and what is set aside for other things.
//! Never: opens one.

use crate::config::Rtp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the runtime, the store, listeners, operators and monitors have open.
const BESIDE: u64 = 192;
/// Where the limit is far too low, connections have their part of it all the same.
const CONNECTIONS_MIN: u64 = 32;
/// What there may be of where nobody says.
const UNLIMITED: u64 = 1 << 20;

/// What to do where that is little.
pub(super) const HELP: &str = "raise `LimitNOFILE=` of the systemd unit, or `ulimit -n`";

/// Lets this process open as many files as it may allow itself: what is usual, 1,024, is made for programs that
/// know no better (`select`).
pub fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "open files stay limited");
    }
}

/// Returns how many connections may be accepted, and as many opened, while every port for media is in use.
pub(super) fn connections(rtp: &Rtp) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED);
    let ports = u64::from(rtp.ports.1.saturating_sub(rtp.ports.0)).saturating_add(1);
    usize::try_from(left(limit, ports)).unwrap_or(usize::MAX)
}

fn left(limit: u64, ports: u64) -> u64 {
    let room = limit.min(UNLIMITED).saturating_sub(BESIDE);
    // Media does not get all of a limit that is too low for it: nobody would hear of the call.
    let for_media = ports.min(room / 2);
    (room.saturating_sub(for_media) / 2).max(CONNECTIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_what_media_leaves() {
        for (limit, ports, want) in [
            // As the unit and the container have it.
            (65_536, 10_001, 27_671),
            (1_048_576, 10_001, 519_191),
            (u64::MAX, 10_001, 519_191),
            (20_000, 10_001, 4_952),
            // Too low for the ports that are configured.
            (1_024, 10_001, 208),
            (1_024, 64, 384),
            (64, 10_001, 32),
        ] {
            assert_eq!(left(limit, ports), want, "{limit} files, {ports} ports");
        }
    }
}
