//! Guards: what stands between a call that the dialplan allows and a carrier that bills it.
//!
//! Owns: who may be shown as calling, where calls may go, and how each refusal is said.
//! Never: refuses an emergency call, reads a clock, or sends anything.

mod caller;
mod destination;
mod emergency;
mod refusal;

pub use caller::{Callers, Weak, weakness};
pub use destination::Destination;
pub use emergency::{ALWAYS, Emergency, by_country};
pub use refusal::Refusal;

use crate::dialplan::{Allow, Country, E164};
use std::collections::BTreeMap;

/// What guards a trunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrunkGuard {
    /// Which numbers may be shown.
    pub callers: Callers,
    /// Where its calls may go.
    pub allow: Option<Allow>,
}

/// What guards a user's calls by trunks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserGuard {
    /// The number to call from, by the country that is called.
    pub caller_ids: BTreeMap<Country, E164>,
    /// Whether callees are not to be shown who calls (RFC 3323).
    pub anonymous: bool,
    /// Where the calls may go.
    pub allow: Option<Allow>,
}
