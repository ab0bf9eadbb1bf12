//! Load for any SIP B2BUA, what it costs there, and the floor below which nothing can be.
//!
//! Every subcommand is a module with `Args` and `run`; a run is one [`Sample`], one line of JSON.

pub mod callee;
pub mod caller;
pub mod calls;
pub mod delay;
pub mod digest;
pub mod engine;
pub mod floor_b2bua;
pub mod floor_relay;
pub mod held;
pub mod histogram;
pub mod ident;
pub mod idle;
pub mod media;
pub mod message;
pub mod pace;
pub mod process;
pub mod register;
pub mod sample;
pub mod suite;
pub mod tally;
pub mod template;
pub mod udp;

pub use sample::Sample;
