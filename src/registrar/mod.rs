//! Who is reachable where (RFC 3261 10), and who may say so (RFC 3261 22).
//!
//! Owns: the bindings, the procedure of a REGISTER, the digest challenge to phones.
//! Never: sends, reads the clock, or lets a lock of the shared map out.

pub mod auth;
mod date;
pub mod location;
mod nonce;
pub mod register;

pub use auth::{Authenticator, Known, Reason, Verdict};
pub use location::{Binding, Location};
pub use register::{Policy, RegisterEvent, Reply, SPREAD_MAX, handle_register};
