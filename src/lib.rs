//! Tandem: a SIP back-to-back user agent and PBX between softphones and a carrier's SIP trunk.
//!
//! `ARCHITECTURE.md` is the map. In short: a pure core with one owner (`sip` to `shard`), a media plane
//! of plain threads (`media`), and a thin asynchronous shell around both (`shell`).

pub mod call;
pub mod config;
pub mod dialog;
pub mod dialplan;
pub mod few;
pub mod guard;
pub mod ids;
pub mod locate;
pub mod media;
pub mod network;
pub mod observe;
pub mod registrar;
pub mod sdp;
pub mod shard;
pub mod shell;
pub mod sim;
pub mod sip;
pub mod table;
pub mod timers;
pub mod tls;
pub mod transaction;
pub mod trunk;
pub mod wipe;
