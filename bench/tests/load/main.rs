//! The generator against real programs.

mod floor;
mod rig;
mod tandem;
