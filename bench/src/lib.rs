//! Load for any SIP B2BUA, what it costs there, and the floor below which nothing can be.
//!
//! Every subcommand is a module with `Args` and `run`; a run is one [`Sample`], one line of JSON.

pub mod histogram;
pub mod idle;
pub mod pace;
pub mod process;
pub mod sample;

pub use sample::Sample;
