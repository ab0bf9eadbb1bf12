//! No core dumps: they would hold every password and key.
//!
//! Owns: the limit, and why it is that one.
//! Never: makes the process unreadable to its owner.
//!
//! The limit is one byte, not zero. Where `core_pattern` is a program (`systemd-coredump`, `apport`), Linux
//! heeds no limit but this one (core(5); `fs/coredump.c`), and as the size of a file it is too small for any.
//! `PR_SET_DUMPABLE` would do as well, but gives `/proc/PID` to root: then whoever runs the program could
//! neither profile it nor look at its memory and descriptors. Who needs a dump raises the limit of the running
//! process: `prlimit --core=unlimited --pid PID`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Less than any core file needs.
const LIMIT: u64 = 1;

/// Sees to it that this process, and those which it starts, leave no core dump.
pub fn switch_off() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    // Nobody but root may have more than the maximum.
    let current = Some(maximum.map_or(LIMIT, |maximum| maximum.min(LIMIT)));
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current, maximum }) {
        tracing::warn!(%error, "core dumps stay possible");
    }
}
