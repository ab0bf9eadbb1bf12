//! A shard: everything that happens to some of the calls, without I/O.
mod key;
pub use crate::{
    ids::{Mint, MintKey},
    timers::Timers,
};
pub use key::shard_of;
