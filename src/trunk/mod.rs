//! The carrier's side: health, addresses, identity, credentials, refusals.
//!
//! Owns: what is particular to a trunk, in machines that the shard feeds.
//! Never: sends, reads the clock, or decides where a call goes.

mod answer;
pub mod credentials;
pub mod health;
pub mod identity;
pub mod refusal;
pub mod routes;
pub mod source;
mod table;

#[cfg(test)]
mod routes_tests;

pub use credentials::TrunkCredentials;
pub use table::{Configured, Count, Evidence, Told, TrunkState, Trunks};
