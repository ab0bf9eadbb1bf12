//! An upgrade without a gap: a new process takes the sockets, the registrations and all that is new; the
//! one before keeps its calls and their media until the last of them has ended.
//!
//! ```text
//!   leaving                                      heir
//!     | starts it, its standard input a socket     |
//!     | sockets, key, shard ---------------------> |  reads its configuration, binds, opens the store
//!     | <------------------------------------ READY |
//!     | closes its doors, writes its records       |
//!     | GO: connections, requests received ------> |  takes up the registrations, opens its doors
//!     | <---------------------------------- SERVING |
//!     | messages, ends of connections <----------> |  messages, what is to be written on a connection
//! ```
//!
//! Until SERVING everything can be taken back: an heir that ends before has changed nothing. A message
//! reaches the process that it is for by `shard::Kin`.
//!
//! Owns: this conversation.
//! Never: moves a call or its media: they stay where they are, and lose nothing.

mod descriptors;
mod frame;
mod heir;
mod leaving;
mod pipe;

pub use heir::Heritage;
pub(super) use heir::{Inherited, Succession};
pub(super) use leaving::hand_over;
pub(super) use pipe::Pipe;

use std::time::Duration;

/// What tells a process that its standard input leads to the one before it.
const SIGN: &str = "TANDEM_SUCCESSION";
/// How long the heir may take to start; and either side, for a step.
const START_MAX: Duration = Duration::from_secs(20);
const STEP_MAX: Duration = Duration::from_secs(10);
