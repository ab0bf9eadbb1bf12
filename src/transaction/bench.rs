//! A bench for one machine: virtual time, and a trace of its effects, one a line.
//!
//! Owns: the machine under test.
//! Never: part of the program.

use super::{
    Class, ClientEffect, ClientInput, Reply, ServerEffect, ServerInput,
    invite_client::InviteClient, invite_server::InviteServer, other_client::OtherClient,
    other_server::OtherServer,
};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// What the machines have in common.
pub(super) trait Machine<I, E> {
    fn handle(&mut self, input: I, now: Instant, out: &mut Vec<E>);
    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<E>);
    fn poll_timeout(&self) -> Option<Instant>;
}

macro_rules! machine {
    ($machine:ty, $input:ty, $effect:ty, |$self:ident, $now:ident, $out:ident| $timeout:expr) => {
        impl Machine<$input, $effect> for $machine {
            fn handle(&mut self, input: $input, now: Instant, out: &mut Vec<$effect>) {
                Self::handle(self, input, now, out);
            }
            fn handle_timeout(&mut $self, $now: Instant, $out: &mut Vec<$effect>) {
                $timeout
            }
            fn poll_timeout(&self) -> Option<Instant> {
                Self::poll_timeout(self)
            }
        }
    };
}

machine!(InviteClient, ClientInput, ClientEffect, |self, now, out| {
    Self::handle_timeout(self, now, out);
});
machine!(OtherClient, ClientInput, ClientEffect, |self, now, out| {
    Self::handle_timeout(self, now, out);
});
machine!(InviteServer, ServerInput, ServerEffect, |self, now, out| {
    Self::handle_timeout(self, now, out);
});
machine!(OtherServer, ServerInput, ServerEffect, |self, now, _out| {
    Self::handle_timeout(self, now);
});

/// A machine, the time, and what it did so far.
pub(super) struct Bench<M, I, E> {
    pub(super) machine: M,
    epoch: Instant,
    now: Instant,
    trace: Vec<String>,
    kind: std::marker::PhantomData<(I, E)>,
}

pub(super) type ClientBench<M> = Bench<M, ClientInput, ClientEffect>;
pub(super) type ServerBench<M> = Bench<M, ServerInput, ServerEffect>;

impl<I, E: Describe, M: Machine<I, E>> Bench<M, I, E> {
    pub(super) fn start(make: impl FnOnce(Instant, &mut Vec<E>) -> M) -> Self {
        let epoch = crate::sim::epoch();
        let mut out = vec![];
        let machine = make(epoch, &mut out);
        let kind = std::marker::PhantomData;
        let mut bench = Self { machine, epoch, now: epoch, trace: vec![], kind };
        bench.record(&out);
        bench
    }

    pub(super) fn new(machine: M) -> Self {
        Self::start(|_, _| machine)
    }

    /// Fires what is due until `ms`, then gives the input.
    pub(super) fn give(&mut self, ms: u64, input: I) {
        let until = self.epoch + Duration::from_millis(ms);
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            self.fire(at);
        }
        self.now = until;
        let mut out = vec![];
        self.machine.handle(input, self.now, &mut out);
        self.record(&out);
    }

    pub(super) fn run_until_idle(&mut self) {
        while let Some(at) = self.machine.poll_timeout() {
            self.fire(at);
        }
    }

    pub(super) fn now_ms(&self) -> u128 {
        (self.now - self.epoch).as_millis()
    }

    #[track_caller]
    pub(super) fn check(&self, trace: &str) {
        assert_eq!(self.trace.join("\n"), trace);
    }

    fn fire(&mut self, at: Instant) {
        self.now = at;
        let mut out = vec![];
        self.machine.handle_timeout(at, &mut out);
        self.record(&out);
    }

    fn record(&mut self, effects: &[E]) {
        for effect in effects {
            self.trace.push(format!("{} {}", self.now_ms(), effect.describe()));
        }
    }
}

impl<M: Machine<ServerInput, ServerEffect>> ServerBench<M> {
    pub(super) fn reply(&mut self, ms: u64, status: u16) {
        let bytes = Bytes::from(status.to_string());
        self.give(ms, ServerInput::Reply(Reply { class: Class::of(status), bytes }));
    }
}

pub(super) trait Describe {
    fn describe(&self) -> String;
}

impl Describe for ClientEffect {
    fn describe(&self) -> String {
        let text = match self {
            Self::Send(_) => "send",
            Self::SendAck => "ack",
            Self::SendCancel => "cancel",
            Self::PassUp => "up",
            Self::Timeout => "timeout",
            Self::SendFailed => "failed",
            Self::Absorb => "absorb",
        };
        text.to_owned()
    }
}

impl Describe for ServerEffect {
    fn describe(&self) -> String {
        match self {
            Self::Send(bytes) => format!("send {}", String::from_utf8_lossy(bytes)),
            Self::PassUpAck => "acked".to_owned(),
            Self::NeverAcked => "never acked".to_owned(),
        }
    }
}
