//! Guards: what stands between a call that the dialplan allows and a carrier that bills it, and who is
//! not answered at all.
//!
//! Owns: who may be shown as calling, where calls may go, how each refusal is said, and the bans.
//! Never: refuses an emergency call, reads a clock, or sends anything.

mod bans;
mod budget;
mod caller;
mod destination;
mod emergency;
mod gate;
mod note;
mod refusal;
mod untold;
mod watch;

pub use bans::{Ban, BanPolicy, Bans, Offence, REMEMBERED, is_scanner};
pub use budget::{Account, Budget, Ledger, Opening, OutOfHours, Spent, Use};
pub use caller::{Callers, Weak, weakness};
pub use destination::Destination;
pub use emergency::{ALWAYS, Emergency, by_country};
pub use gate::{Asking, Entry, Gate, Pacing, Rate, Turn};
pub use note::{Journal, Note, ago_ms, before};
pub use refusal::Refusal;
pub use untold::Untold;
pub use watch::Watch;

use crate::dialplan::{Allow, Country, E164};
use std::{collections::BTreeMap, time::Duration};

/// What guards a trunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrunkGuard {
    /// Which numbers may be shown.
    pub callers: Callers,
    /// Where its calls may go.
    pub allow: Option<Allow>,
    /// How fast they may leave.
    pub rate: Option<Rate>,
    /// How long a call waits for its turn; `None`: it does not.
    pub queue_for: Option<Duration>,
    /// How many wait at a time.
    pub queue_max: u16,
    /// How much may be called.
    pub budget: Budget,
    /// When.
    pub opening: Option<Opening>,
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
    /// How much may be called.
    pub budget: Budget,
    /// When.
    pub opening: Option<Opening>,
}
