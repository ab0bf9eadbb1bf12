//! Those who mean no good, against the whole core: what they get, what they cost, and what they cannot do
//! to others.
#![cfg(test)]

mod answers;
mod cost;
mod crowd;
mod guesses;
mod leaks;
#[path = "../fuzz/mutate.rs"]
mod mutate;
mod node;
mod siege;
mod spoof;
mod storm;
mod subject;
