//! The way from a shard to a media worker that may be slow.
//!
//! Owns: the commands that wait for room in the worker's queue, in order; the legs that it has opened
//! ahead of calls; when it is woken.
//! Never: waits, or loses a [`Command::Close`]: the leg would keep its ports for ever.

mod spares;

use super::media_worker::{MediaHandle, Untaken};
use crate::{
    ids::LegId,
    media::{Command, Event},
};
use spares::Spares;
pub(super) use spares::is_spare;
use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Commands that may wait, [`Command::Close`] aside. Of those there is one for each leg at most.
const WAITING_MAX: usize = 65_536;
/// When what waits is offered again.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// So long what is not urgent may wait for something that is: to wake the worker costs it a turn.
const LEISURE: Duration = Duration::from_millis(10);

/// One worker, as a shard speaks to it.
#[derive(Debug)]
pub(super) struct MediaLine {
    worker: MediaHandle,
    waiting: VecDeque<Command>,
    spares: Spares,
    /// When the worker is to be woken, for commands that it does not know of.
    wake_at: Option<Instant>,
    has_complained: bool,
}

impl MediaLine {
    pub(super) fn new(worker: MediaHandle) -> Self {
        let (waiting, spares) = (VecDeque::new(), Spares::default());
        Self { worker, waiting, spares, wake_at: None, has_complained: false }
    }

    /// Hands over a command, now or as soon as there is room. A new leg comes back where the worker
    /// does not keep up: its call is better refused than late. Where one is open already, this says so,
    /// and the worker will not. [`Self::tick`] follows.
    pub(super) fn send(
        &mut self,
        command: Command,
        now: Instant,
    ) -> Result<Option<Event>, Command> {
        self.retry(now);
        if let Command::Open { leg, ip } = command {
            return self.open(leg, ip, now);
        }
        // What ends is over: that may be told a little later. All else, somebody waits to hear.
        let is_urgent = !matches!(command, Command::Close { .. });
        self.wake_within(if is_urgent { Duration::ZERO } else { LEISURE }, now);
        if !self.waiting.is_empty() {
            self.wait(command);
            return Ok(None);
        }
        match self.worker.try_send(command) {
            Err(Untaken::Full(command)) => self.wait(*command),
            // Nobody has legs there any more, or will.
            Ok(()) | Err(Untaken::Gone(_)) => {}
        }
        Ok(None)
    }

    fn open(&mut self, leg: LegId, ip: IpAddr, now: Instant) -> Result<Option<Event>, Command> {
        if !self.waiting.is_empty() {
            return Err(Command::Open { leg, ip });
        }
        let spare = self.spares.take(ip, now);
        let command = match spare {
            Some(spare) => Command::Rename { from: spare.leg, leg },
            None => Command::Open { leg, ip },
        };
        if self.worker.try_send(command).is_err() {
            spare.into_iter().for_each(|spare| self.spares.put_back(ip, spare));
            return Err(Command::Open { leg, ip });
        }
        self.stock_up(ip);
        let is_urgent = spare.is_none() || self.spares.is_short(ip);
        self.wake_within(if is_urgent { Duration::ZERO } else { LEISURE }, now);
        Ok(spare.map(|spare| Event::Opened { leg, port: spare.port }))
    }

    fn stock_up(&mut self, ip: IpAddr) {
        while let Some(leg) = self.spares.lack(ip) {
            if self.worker.try_send(Command::Open { leg, ip }).is_err() {
                return self.spares.not_asked(leg);
            }
        }
    }

    /// Hears of a [spare leg](is_spare); of another line's, nothing.
    pub(super) fn hear(&mut self, event: &Event) {
        self.spares.hear(event);
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
    pub(super) fn retry(&mut self, now: Instant) {
        while let Some(command) = self.waiting.pop_front() {
            self.wake_within(Duration::ZERO, now);
            match self.worker.try_send(command) {
                Ok(()) => {}
                Err(Untaken::Full(command)) => return self.waiting.push_front(*command),
                Err(Untaken::Gone(_)) => self.waiting.clear(),
            }
        }
        self.has_complained = false;
    }

    fn wake_within(&mut self, leisure: Duration, now: Instant) {
        let at = now.checked_add(leisure).unwrap_or(now);
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Wakes the worker where it is time to, and lets go of what is not needed.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(leg) = self.spares.surplus(now) {
            // Of a spare leg nobody waits for an event.
            let _: Result<Option<Event>, Command> = self.send(Command::Close { leg }, now);
        }
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake();
        }
    }

    /// Wakes the worker where there is anything for it.
    pub(super) fn wake(&mut self) {
        if self.wake_at.take().is_some() {
            self.worker.wake();
        }
    }

    /// Returns when [`Self::retry`] or [`Self::tick`] has something to do.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let retry = (!self.waiting.is_empty()).then(|| now.checked_add(RETRY_AFTER)).flatten();
        [retry, self.wake_at, self.spares.poll_timeout()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::{media_worker::tests::stuck, now};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn open(n: u64) -> Command {
        Command::Open { leg: LegId(n), ip: HERE }
    }

    #[test]
    fn a_full_queue_refuses_new_legs_and_keeps_all_else_in_order() {
        let (worker, mut take) = stuck(2);
        let mut line = MediaLine::new(worker);
        let stop = |n| Command::Stop { leg: LegId(n) };
        assert_eq!(line.send(open(1), now()), Ok(None));
        for n in 2..6 {
            assert_eq!(line.send(stop(n), now()), Ok(None), "{n}");
        }
        assert!(!line.waiting.is_empty());
        assert_eq!(line.send(open(7), now()), Err(open(7)));
        assert_eq!([take(), take(), take()], [Some(open(1)), Some(stop(2)), None]);
        // There is room, but what waits comes first.
        assert_eq!(line.send(open(8), now()), Err(open(8)));
        assert_eq!([take(), take(), take()], [Some(stop(3)), Some(stop(4)), None]);
        assert_eq!(line.send(open(9), now()), Ok(None));
        assert!(line.waiting.is_empty());
        assert_eq!([take(), take()], [Some(stop(5)), Some(open(9))]);
    }

    #[test]
    fn closing_is_never_lost() {
        let (worker, mut take) = stuck(1);
        let counters = worker.clone();
        let mut line = MediaLine::new(worker);
        let legs = 0..100;
        for _ in 0..=WAITING_MAX {
            assert_eq!(line.send(Command::Echo { leg: LegId(0) }, now()), Ok(None));
        }
        for leg in legs.clone().map(LegId) {
            assert_eq!(line.send(Command::Stop { leg }, now()), Ok(None));
            assert_eq!(line.send(Command::Close { leg }, now()), Ok(None));
        }
        assert_eq!(counters.counters().commands_lost, 100);
        let mut closed = vec![];
        while let Some(command) = take() {
            line.retry(now());
            if let Command::Close { leg } = command {
                closed.push(leg.0);
            }
        }
        assert!(closed.into_iter().eq(legs) && line.waiting.is_empty());
    }

    #[test]
    fn a_worker_that_is_gone_takes_nothing_and_holds_nobody_up() {
        let (worker, take) = stuck(1);
        let mut line = MediaLine::new(worker);
        for leg in [1, 2, 3].map(LegId) {
            assert_eq!(line.send(Command::Close { leg }, now()), Ok(None));
        }
        drop(take);
        assert_eq!(line.send(open(4), now()), Err(open(4)));
        assert!(line.waiting.is_empty());
    }

    /// What is handed over wakes the worker at once, but for what may wait.
    #[test]
    fn the_worker_is_woken_no_oftener_than_it_must() {
        let (worker, mut take) = stuck(100);
        let mut line = MediaLine::new(worker);
        let begin = now();
        let at = |ms| begin + Duration::from_millis(ms);
        line.send(Command::Close { leg: LegId(1) }, at(0)).unwrap();
        line.tick(at(9));
        assert_eq!(line.poll_timeout(at(9)), Some(at(10)));
        line.send(Command::Close { leg: LegId(2) }, at(9)).unwrap();
        line.tick(at(10));
        assert_eq!(line.poll_timeout(at(10)), None);
        line.send(Command::Close { leg: LegId(3) }, at(20)).unwrap();
        line.send(Command::Echo { leg: LegId(4) }, at(21)).unwrap();
        assert_eq!(line.poll_timeout(at(21)), Some(at(21)));
        line.tick(at(21));
        assert_eq!(line.poll_timeout(at(21)), None);
        assert_eq!(std::iter::from_fn(&mut take).count(), 4);
    }

    #[test]
    fn under_load_a_leg_is_open_before_it_is_wanted() {
        let (worker, mut take) = stuck(1000);
        let mut line = MediaLine::new(worker);
        let begin = now();
        let (mut at_once, mut closed) = (vec![], 0);
        for n in 0..300 {
            let now = begin + Duration::from_millis(n);
            let opened = line.send(open(n), now).unwrap();
            if let Some(Event::Opened { leg, port }) = opened {
                assert_eq!(leg, LegId(n));
                at_once.push(port);
            }
            while let Some(command) = take() {
                if let Command::Open { leg, .. } = command
                    && is_spare(leg)
                {
                    line.hear(&Event::Opened { leg, port: u16::try_from(n).unwrap() });
                }
            }
        }
        assert_eq!(at_once.len(), 199, "all but the first, by which the rate is known");
        assert!(at_once.is_sorted() && at_once.windows(2).skip(25).all(|pair| pair[0] < pair[1]));
        let end = line.poll_timeout(begin).unwrap().max(begin + Duration::from_secs(2));
        line.tick(end);
        line.tick(end + LEISURE);
        while let Some(command) = take() {
            closed += usize::from(matches!(command, Command::Close { leg } if is_spare(leg)));
        }
        assert_eq!((closed, line.poll_timeout(end + LEISURE)), (25, None));
    }
}
