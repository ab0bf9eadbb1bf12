//! The generator against real programs.

mod floor;
mod lossy;
mod rig;
mod tandem;
