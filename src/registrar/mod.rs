//! Who is reachable where (RFC 3261 10), and who may say so (RFC 3261 22).
//!
//! Owns: the bindings, the procedure of a REGISTER, the digest challenge to phones.
//! Never: sends, reads the clock, or lets a lock of the shared map out.

mod date;
pub mod location;
pub mod register;

pub use location::{Binding, Location};
pub use register::{Policy, RegisterEvent, Reply, handle_register};
