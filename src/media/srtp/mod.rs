//! SRTP and SRTCP (RFC 3711, RFC 7714): packets are encrypted and decrypted in place.
//!
//! Owns: the contexts of one leg: session keys, rollover counters, replay windows, for each source.
//! Never: allocates for a packet, or lets a packet change anything before it proved authentic.

mod cipher;
mod context;
mod link;
mod suite;
#[cfg(test)]
mod tests;
mod window;

pub use cipher::TRAILER_MAX;
pub use context::{Receiver, Sender, Shut};
pub use link::Link;
pub use suite::{Keys, MasterKey, Suite};
