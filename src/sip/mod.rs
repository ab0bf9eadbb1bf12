//! SIP messages as slices of the datagram (RFC 3261 7, 20, 25).
//!
//! Owns: reading, typed views, writing, stream framing and digest.
//! Never: requires UTF-8, re-serialises what it only passes on, knows of transactions.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod address;
mod build;
pub mod digest;
pub mod framing;
mod glance;
mod head;
mod header;
mod message;
mod multipart;
mod outline;
mod parse;
mod text;
mod uri;

pub use address::{Contacts, NameAddr, Via};
pub use build::{Builder, default_reason, quote};
pub use glance::Glance;
pub use header::{CSeq, HeaderName, Method};
pub use message::{HeaderLine, Message};
pub use outline::Outline;
pub use parse::{HEADER_LINES_MAX, MESSAGE_BYTES_MAX, ParseError, Problem, Salvage};
pub use uri::{Params, Scheme, Uri};
