//! The times that all timers are made of (RFC 3261 appendix A).
//!
//! Owns: the constants.
//! Never: measures anything.

use std::time::Duration;

/// Estimate of the round trip.
pub const T1: Duration = Duration::from_millis(500);
/// Ceiling of retransmission intervals, except an INVITE's.
pub const T2: Duration = Duration::from_secs(4);
/// How long the network may hold on to a message.
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, J, L and M.
pub const T1_X64: Duration = Duration::from_millis(64 * 500);
/// Timer D over unreliable transports: how long answers to an INVITE may be repeated.
pub const D: Duration = Duration::from_secs(32);
