//! The media plane: RTP relays, prompts, tones and what is known about their quality.
//!
//! A worker owns legs. A leg is one RTP and RTCP port pair facing one peer; [`Command::Bridge`] joins
//! two legs, which must be on the same worker, to a relay. [`Worker`] is pure: the thread in the shell
//! feeds it datagrams, commands and the time, and carries out what it asks for.
//!
//! Owns: ports, latches, sequence numbers, codecs and counters of every leg.
//! Never: names a signalling type, touches a socket, reads the clock, or allocates per relayed packet.
#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod bond;
mod codec;
mod command;
mod consent;
mod discard;
mod dtmf;
mod inlet;
mod latch;
mod leg;
mod offload;
mod outlet;
mod path;
mod player;
mod ports;
mod prompt;
mod quality;
mod rtcp;
mod rtp;
pub mod srtp;
pub mod tone;
mod worker;

pub use codec::{decode, encode};
pub use command::{
    Command, Event, Latch, Law, OpenRefusal, Prompt, Remote, Stream, TelephoneEvents, Voice,
};
pub use discard::{Discard, Discards};
pub use offload::{Flow, Numbers, Progress, Tally};
pub use path::{Convert, Hop, PathMap};
pub use ports::PortRange;
pub use prompt::{PromptError, read_wav};
pub use quality::{Measured, Quality};
pub use rtp::DATAGRAM_MAX;
pub use worker::{Action, Channel, Counters, Datagram, Settings, Worker};
