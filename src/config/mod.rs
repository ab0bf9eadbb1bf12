//! Configuration: what the files say, checked.
//!
//! Owns: everything that reads TOML, and finding all that is wrong with it at once.
//! Never: opens a file; no foreign type leaves the module.

mod checked;
mod near;
mod secret;
mod timezone;

pub use checked::{
    Config, Control, Http, LatchPolicy, Listen, Log, LogFormat, LogLevel, Node, PublicIp, Rtp, Sip,
    Store, Trunk, TrunkUri, User, UserSecret,
};
pub use secret::Secret;
pub use timezone::Timezone;
