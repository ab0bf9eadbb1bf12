//! Connections: how long they live idle, and what keeps them alive.
//!
//! Owns: a deadline for each.
//! Never: closes one itself; whoever runs the trunk does, without close_notify.

use super::{Rule, Stage, Twilio};
use crate::ids::Flow;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// A connection on which nothing has come for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// The same, where single CRLFs have come.
const IDLE_MAX_PENALTY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Stream {
    heard_at: Instant,
    idle_max: Duration,
}

/// The connections that live.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<Flow, Stream>,
    closing: VecDeque<Flow>,
}

impl Streams {
    pub(super) fn is_open(&self, flow: Flow) -> bool {
        self.open.contains_key(&flow)
    }

    pub(super) fn poll_close(&mut self) -> Option<Flow> {
        self.closing.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|stream| stream.heard_at + stream.idle_max).min()
    }
}

impl Twilio {
    /// Notes that something came over a connection.
    pub(super) fn stream_speaks(&mut self, flow: Flow, bytes: &[u8], now: Instant) {
        if !flow.transport.is_reliable() {
            return;
        }
        let new = || Stream { heard_at: now, idle_max: IDLE_MAX };
        let stream = self.streams.open.entry(flow).or_insert_with(new);
        stream.heard_at = now;
        if bytes == b"\r\n" && stream.idle_max != IDLE_MAX_PENALTY {
            stream.idle_max = IDLE_MAX_PENALTY;
            self.deviate(Rule::DoubleCrlf, format!("a single CRLF from {flow}"));
        }
    }

    /// Closes what has been idle too long.
    pub(super) fn close_idle(&mut self, now: Instant) {
        let is_idle = |stream: &Stream| stream.heard_at + stream.idle_max <= now;
        let open = std::mem::take(&mut self.streams.open);
        let (idle, open): (BTreeMap<_, _>, _) =
            open.into_iter().partition(|(_, stream)| is_idle(stream));
        self.streams.open = open;
        for (flow, stream) in idle {
            let is_on_it = |stage: Stage| matches!(stage, Stage::Answered | Stage::Up);
            let mut calls = self.calls.iter();
            if calls.any(|call| call.talk.flow == flow && is_on_it(call.stage)) {
                let idle_s = stream.idle_max.as_secs();
                self.deviate(Rule::KeepAlive, format!("{flow} was idle for {idle_s} s in a call"));
            }
            self.streams.closing.push_back(flow);
            self.stream_ends(flow);
        }
    }

    /// Forgets a connection; what is said in its calls next goes where their Contact says.
    pub(super) fn stream_ends(&mut self, flow: Flow) {
        self.streams.open.remove(&flow);
        for call in self.calls.iter_mut().filter(|call| call.talk.flow == flow) {
            call.talk.follow();
            call.is_redialled = true;
        }
    }
}
