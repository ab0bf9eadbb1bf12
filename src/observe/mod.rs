//! What an operator sees: ladders, CDRs, status reports, metrics, masked numbers, log lines.
//!
//! Owns: the shapes of what is reported, and how a number is masked.
//! Never: decides anything about a call, and never waits.

pub mod blame;
pub mod cdr;
pub mod explain;
pub mod ladder;
pub mod log;
pub mod mask;
pub mod metrics;
pub mod plain;
pub mod spool;
pub mod status;
pub mod word;
