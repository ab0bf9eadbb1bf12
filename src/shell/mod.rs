//! Everything that touches the outside world: sockets, clocks, tasks, threads, files.
//!
//! Owns: the sockets, the clocks, the tasks and threads, the files.
//! Never: decides what happens to a call.
#![expect(clippy::disallowed_methods, reason = "the clock is read here so that nobody else must")]

mod accept;
pub mod admin;
pub mod cli_check;
pub mod config_files;
pub mod control;
pub mod core_dumps;
mod datagrams;
pub mod demo;
pub mod desk;
mod dns;
pub mod doctor;
mod doors;
mod epoll;
mod exposure;
pub mod files;
mod guests;
mod helpers;
mod host;
pub mod http;
mod ingress;
mod kernel;
mod listeners;
pub mod log_lines;
mod marks;
mod media_line;
pub mod media_worker;
mod nap;
pub mod node;
mod peers;
pub mod places;
mod prompts;
mod resolver;
pub mod routes;
pub mod service;
mod shard_loop;
mod shard_thread;
pub mod softphone;
pub mod store;
mod stream;
pub mod succession;
mod tls;
pub mod twilio_sim;
mod udp;
pub mod views;
mod voices;
mod wires;

/// Returns the monotonic clock's time.
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}
