//! The simulated world: virtual time, a seeded network, scripted peers.
//!
//! Owns: pretended sockets and clocks, and what is checked about every conversation.
//! Never: changes what it carries; the product's own shards run in it as they are.

mod agent;
pub mod check;
mod keys;
mod late;
mod network;
pub mod pbx;
pub mod phone;
pub mod sdes;
mod sound;
mod store;
mod talk;
pub mod twilio;
pub mod voice;
mod world;

pub use network::Network;
pub use pbx::Pbx;
pub use phone::Phone;
pub use sound::Agreement;
pub use store::Disk;
pub use twilio::Twilio;
pub use world::{Fate, Hindered, Node, Reach, Sent, World, epoch};
