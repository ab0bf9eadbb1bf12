//! The way from a shard to a media worker that may be slow.
//!
//! Owns: the commands that wait for room in the worker's queue, in order.
//! Never: waits, or loses a [`Command::Close`]: the leg would keep its ports for ever.

use super::media_worker::{MediaHandle, Untaken};
use crate::media::Command;
use std::{collections::VecDeque, time::Duration};

/// Commands that may wait, [`Command::Close`] aside. Of those there is one for each leg at most.
const WAITING_MAX: usize = 65_536;
/// When what waits is offered again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(5);

/// One worker, as a shard speaks to it.
#[derive(Debug)]
pub(super) struct MediaLine {
    worker: MediaHandle,
    waiting: VecDeque<Command>,
    /// Whether the worker has commands that it was not woken for.
    is_untold: bool,
    has_complained: bool,
}

impl MediaLine {
    pub(super) fn new(worker: MediaHandle) -> Self {
        Self { worker, waiting: VecDeque::new(), is_untold: false, has_complained: false }
    }

    /// Hands over a command, now or as soon as there is room. A new leg comes back where the worker
    /// does not keep up: its call is better refused than late. [`Self::wake`] follows.
    pub(super) fn send(&mut self, command: Command) -> Result<(), Command> {
        self.retry();
        let is_new = matches!(command, Command::Open { .. });
        self.is_untold = true;
        let untaken = if self.waiting.is_empty() {
            match self.worker.try_send(command) {
                Ok(()) => return Ok(()),
                Err(Untaken::Full(command)) => *command,
                // Nobody has legs there any more, or will.
                Err(Untaken::Gone(command)) if is_new => return Err(*command),
                Err(Untaken::Gone(_)) => return Ok(()),
            }
        } else {
            command
        };
        if is_new {
            return Err(untaken);
        }
        self.wait(untaken);
        Ok(())
    }

    fn wait(&mut self, command: Command) {
        if self.waiting.len() < WAITING_MAX || matches!(command, Command::Close { .. }) {
            self.waiting.push_back(command);
            return;
        }
        self.worker.count_lost();
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::error!("media worker hangs");
        }
    }

    /// Offers what waits again.
    pub(super) fn retry(&mut self) {
        while let Some(command) = self.waiting.pop_front() {
            self.is_untold = true;
            match self.worker.try_send(command) {
                Ok(()) => {}
                Err(Untaken::Full(command)) => return self.waiting.push_front(*command),
                Err(Untaken::Gone(_)) => self.waiting.clear(),
            }
        }
        self.has_complained = false;
    }

    /// Wakes the worker where there is something for it.
    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.is_untold) {
            self.worker.wake();
        }
    }

    /// Returns whether something waits, which is to be retried after [`RETRY_AFTER`].
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::LegId, shell::media_worker::tests::stuck};

    const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn open(n: u64) -> Command {
        Command::Open { leg: LegId(n), ip: HERE }
    }

    #[test]
    fn a_full_queue_refuses_new_legs_and_keeps_all_else_in_order() {
        let (worker, mut take) = stuck(2);
        let mut line = MediaLine::new(worker);
        let stop = |n| Command::Stop { leg: LegId(n) };
        assert_eq!(line.send(open(1)), Ok(()));
        for n in 2..6 {
            assert_eq!(line.send(stop(n)), Ok(()), "{n}");
        }
        assert!(line.is_behind());
        assert_eq!(line.send(open(7)), Err(open(7)));
        assert_eq!([take(), take(), take()], [Some(open(1)), Some(stop(2)), None]);
        // There is room, but what waits comes first.
        assert_eq!(line.send(open(8)), Err(open(8)));
        assert_eq!([take(), take(), take()], [Some(stop(3)), Some(stop(4)), None]);
        assert_eq!(line.send(open(9)), Ok(()));
        assert!(!line.is_behind());
        assert_eq!([take(), take()], [Some(stop(5)), Some(open(9))]);
    }

    #[test]
    fn closing_is_never_lost() {
        let (worker, mut take) = stuck(1);
        let counters = worker.clone();
        let mut line = MediaLine::new(worker);
        let legs = 0..100;
        for _ in 0..=WAITING_MAX {
            assert_eq!(line.send(Command::Echo { leg: LegId(0) }), Ok(()));
        }
        for leg in legs.clone().map(LegId) {
            assert_eq!(line.send(Command::Stop { leg }), Ok(()));
            assert_eq!(line.send(Command::Close { leg }), Ok(()));
        }
        assert_eq!(counters.counters().commands_lost, 100);
        let mut closed = vec![];
        while let Some(command) = take() {
            line.retry();
            if let Command::Close { leg } = command {
                closed.push(leg.0);
            }
        }
        assert!(closed.into_iter().eq(legs) && !line.is_behind());
    }

    #[test]
    fn a_worker_that_is_gone_takes_nothing_and_holds_nobody_up() {
        let (worker, take) = stuck(1);
        let mut line = MediaLine::new(worker);
        for leg in [1, 2, 3].map(LegId) {
            assert_eq!(line.send(Command::Close { leg }), Ok(()));
        }
        drop(take);
        assert_eq!(line.send(open(4)), Err(open(4)));
        assert!(!line.is_behind());
    }
}
