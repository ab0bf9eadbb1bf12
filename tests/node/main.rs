//! A real node on loopback: real sockets, a real store, a real control socket; the peers are plain
//! sockets. Nothing sleeps: whoever waits, waits for a message.
#![cfg(test)]

mod bans;
mod faults;
mod flood;
mod injection;
mod lasting;
mod listening;
mod operators;
mod phone;
mod program;
mod rig;
mod streams;
mod tls;
mod upgrade;
