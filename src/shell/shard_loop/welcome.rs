//! Connections that peers open: letting them in, and asking the shard who may stay.
//!
//! Owns: when that is asked.
//! Never: chooses who is asked about, `guests` does; or knows the answer, the shard does.

use super::ShardLoop;
use crate::{
    config::Config,
    ids::Flow,
    shell::{files, now, stream::Writer},
};
use std::time::Instant;
use tokio::sync::oneshot;

/// One place in so many is for those who are on their way: in handshakes, in goodbyes.
const ON_THEIR_WAY: usize = 16;

impl ShardLoop {
    /// Takes how many connections there may be.
    pub(super) fn grant_places(&mut self, config: &Config) {
        let wanted = config.sip.max_connections;
        let places = self.hands.opener.places;
        let granted = wanted.min(places - places / ON_THEIR_WAY);
        self.streams.guests.grant(granted);
        if granted < wanted {
            let help = files::HELP;
            tracing::info!(wanted, granted, help, "fewer connections than [sip] max_connections");
        }
    }

    /// Takes a connection that a peer has opened. Others go where there are too many.
    pub(super) fn welcome(&mut self, flow: Flow, writer: Writer, end: oneshot::Sender<()>) {
        self.streams.opened(flow, writer);
        self.streams.guests.came(flow, end, now());
        loop {
            let picked = self.streams.guests.pick(flow);
            if picked.is_empty() {
                return;
            }
            self.judge(&picked, "room");
        }
    }

    /// Returns when connections are looked at again: not by a process that has left, which is told nothing of
    /// registrations any more.
    pub(super) fn looks_round_at(&self) -> Option<Instant> {
        self.streams.guests.poll_timeout().filter(|_| self.family.successor.is_none())
    }

    /// Looks at some of the connections, where it is time.
    pub(super) fn look_round(&mut self) {
        let now = now();
        if self.looks_round_at().is_some_and(|at| at <= now) {
            let visited = self.streams.visit_guests(now);
            self.judge(&visited, "idle");
        }
    }

    fn judge(&mut self, asked: &[Flow], why: &'static str) {
        if asked.is_empty() {
            return;
        }
        let proven = self.shard.proven(asked);
        let closed = self.streams.guests.judge(asked, &proven, now());
        if closed > 0 {
            tracing::debug!(closed, why, "connections closed");
            self.transports.connections_closed.add(why, closed as u64);
        }
    }
}
