//! The simulated world: virtual time, a seeded network, scripted peers.
//!
//! Owns: pretended sockets and clocks, and what is checked about every conversation.
//! Never: changes what it carries; the product's own shards run in it as they are.

pub mod check;
mod network;
mod world;

pub use network::Network;
pub use world::{Fate, Node, Sent, World, epoch};
