//! Session descriptions and what two legs can agree on (RFC 8866, RFC 3264).
//!
//! Owns: reading a peer's description, writing ours, and choosing the codecs of both legs.
//! Never: sends anything, touches a packet, or repeats an address, key or attribute of one peer to
//! the other.
//!
//! A call's legs are described apart from each other: each has its own [`Local`]. The caller's offer
//! becomes ours to the callee ([`offer_from`]), the callee's answer is read ([`accept_answer`]), and the
//! answer to the caller is made such that the callee's media fits ([`answer_from`]). What each leg then
//! agreed on is an [`Agreed`]; [`path()`] turns two of them into a table for the media relay.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects
)]

mod crypto;
mod direction;
mod format;
mod local;
mod negotiate;
mod parse;
mod path;
#[cfg(test)]
mod srtp_tests;
#[cfg(test)]
mod tests;

pub use crypto::{Crypto, CryptoKey, CryptoSuite, Secured, Srtp};
pub use direction::Direction;
pub use format::{Codec, Format};
pub use local::Local;
pub use negotiate::{
    Agreed, NoCommonCodec, Policy, accept_answer, answer_alone, answer_from, fresh_offer,
    offer_from, offer_matching,
};
pub use parse::{Audio, Description, SdpError};
pub use path::{Convert, Path, path};
