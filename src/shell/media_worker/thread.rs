//! What runs in a media thread: one worker, fed by its sockets and its commands.
//!
//! Owns: the order in which packets, commands and deadlines have their turn; when the clock is read.
//! Never: decides what happens to a packet; the worker does.

use super::{
    Order, Published,
    sockets::{Sockets, channel_of, slot_of},
};
use crate::{
    media::{Action, Channel, DATAGRAM_MAX, Event, Worker, srtp::TRAILER_MAX},
    observe::metrics,
    shell::{
        epoll::{self, Epoll, Found, Ready},
        kernel::Carrier,
        nap::Nap,
        now,
    },
};
use std::{
    io,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// How long the shard has to make room for events that did not fit.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// How often the counters are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// One more than is relayed: what fills it may have been cut. Behind it, room to encrypt.
const BUFFER_LEN: usize = DATAGRAM_MAX + 1 + TRAILER_MAX;

/// What runs in the thread.
pub(super) struct Thread {
    pub(super) worker: Worker,
    pub(super) epoll: Epoll,
    pub(super) sockets: Sockets,
    pub(super) nap: Nap,
    pub(super) orders: Receiver<Order>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) publish: watch::Sender<Published>,
    pub(super) pairs: usize,
    /// What the kernel carries for us, if it may.
    pub(super) carrier: Option<Carrier>,
}

impl Thread {
    /// Runs until it is told to stop. A panic costs the legs of this worker, not the thread.
    pub(super) fn live(mut self) {
        epoll::sleep_precisely();
        while panic::catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("media thread panicked");
            self.start_over();
        }
    }

    fn start_over(&mut self) {
        if let Some(carrier) = &mut self.carrier {
            carrier.clear();
        }
        self.sockets.clear();
        self.worker.start_over();
    }

    fn run(&mut self) {
        let (mut found, mut buffer) = (Found::new(), [0; BUFFER_LEN]);
        let mut at = now();
        let (mut publish_at, mut due) = (at, None);
        // What was ordered before a panic has rung already.
        if !self.obey() {
            return;
        }
        loop {
            let ready = match self.wait(&mut found, publish_at, at) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "media poll failed");
                    self.start_over();
                    return self.tell();
                }
            };
            let began = now();
            at = began;
            for n in 0..ready {
                match self.epoll.take(&found, n) {
                    Some(Ready::Socket(token)) => at = self.read(token, &mut buffer, at),
                    Some(Ready::Bell) => {
                        if !self.obey() {
                            return;
                        }
                        due = self.worker.poll_timeout();
                    }
                    Some(Ready::Alarm) | None => {}
                }
                // What is due does not wait for a thousand sockets.
                if due.is_some_and(|due| due <= at) {
                    due = self.fire(at);
                }
            }
            if let Some(carrier) = &mut self.carrier {
                carrier.poll(&mut self.worker, at);
            }
            due = self.fire(at);
            self.tell();
            if publish_at <= at {
                publish_at = at + PUBLISH_EVERY;
                self.publish(at);
            }
            let nap = self.nap.after(began, ready, at);
            if !nap.is_zero() {
                thread::sleep(due.map_or(nap, |due| nap.min(due.saturating_duration_since(at))));
                at += nap;
            }
        }
    }

    /// Waits for a packet, a command, or the time at which something is to be done without one.
    fn wait(&mut self, found: &mut Found, publish_at: Instant, now: Instant) -> io::Result<usize> {
        let retry = self.worker.has_events().then(|| now + RETRY_AFTER);
        let carrier = self.carrier.as_ref().and_then(Carrier::poll_timeout);
        let due = [self.worker.poll_timeout(), carrier, retry].into_iter().flatten().min();
        self.epoll.set_alarm(due.map_or(publish_at, |due| due.min(publish_at)), now)?;
        self.epoll.wait(found)
    }

    /// Takes all commands; returns whether to go on.
    fn obey(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Command(command) => {
                    let now = now();
                    if let Some(carrier) = &mut self.carrier {
                        carrier.obey(&mut self.worker, &command, now);
                    }
                    self.worker.handle_command(command, now);
                }
                #[cfg(test)]
                Order::Panic => panic!("ordered by a test"),
                Order::Stop => return false,
            }
            self.carry_out();
        }
        self.tell();
        true
    }

    /// Reads one packet, which is all there is most of the time: what is left is told of again.
    /// The clock is read once, at the end; `read_at` is its time at the beginning.
    fn read(&mut self, token: usize, buffer: &mut [u8], read_at: Instant) -> Instant {
        let (slot, channel) = (slot_of(token), channel_of(token));
        let room = buffer.get_mut(..=DATAGRAM_MAX).unwrap_or_default();
        let Some((len, from)) = self.sockets.read(token, room) else { return now() };
        match channel {
            Channel::Rtcp => {
                let packet = buffer.get(..len).unwrap_or_default();
                self.worker.handle_rtcp(slot, from, packet, read_at);
                now()
            }
            Channel::Rtp => {
                if let Some(carrier) = &mut self.carrier {
                    let packet = buffer.get(..len).unwrap_or_default();
                    carrier.meet(&mut self.worker, (slot, from), packet, read_at);
                }
                let sent = self.worker.handle_rtp(slot, from, (buffer, len), read_at);
                let sent = sent.map(|datagram| (datagram.slot, self.sockets.send(&datagram)));
                let sent_at = now();
                match sent {
                    Some((_, true)) => {
                        self.worker.note_delay(slot, sent_at.saturating_duration_since(read_at));
                    }
                    Some((sent_from, false)) => self.worker.note_unsendable(sent_from),
                    None => {}
                }
                self.carry_out();
                sent_at
            }
        }
    }

    /// Does what is due; returns when the next thing is.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        let due = self.worker.poll_timeout();
        if due.is_none_or(|at| at > now) {
            return due;
        }
        let (sockets, mut unsendable) = (&self.sockets, vec![]);
        self.worker.handle_timeout(now, &mut |datagram| {
            if !sockets.send(&datagram) {
                unsendable.push(datagram.slot);
            }
        });
        for slot in unsendable {
            self.worker.note_unsendable(slot);
        }
        self.carry_out();
        self.worker.poll_timeout()
    }

    /// Does what the worker asks for with sockets, and gives to the kernel what has become plain.
    fn carry_out(&mut self) {
        while let Some(action) = self.worker.poll_action() {
            match action {
                Action::Bind { slot, ip, port, with_rtcp } => {
                    let rtp = SocketAddr::new(ip, port);
                    let bound = self.sockets.bind(&self.epoll, slot, rtp, with_rtcp);
                    self.worker.bound(slot, bound.is_ok(), now());
                }
                Action::BindRtcp { slot } => {
                    let bound = self.sockets.bind_rtcp(&self.epoll, slot);
                    if let Err(error) = &bound {
                        tracing::warn!(%error, "no RTCP port, so no reports of a leg's quality");
                    }
                    self.worker.bound_rtcp(slot, bound.is_ok());
                }
                Action::Rest { slot } => self.sockets.rest(slot),
                Action::Reuse { slot } => {
                    let is_free = self.sockets.reuse(slot);
                    self.worker.bound(slot, is_free, now());
                }
                Action::Unbind { slot } => self.sockets.unbind(slot),
                Action::Connect { slot, peer } => self.sockets.connect(slot, Some(peer)),
                Action::Disconnect { slot } => self.sockets.connect(slot, None),
                Action::Offload { slot } => match &mut self.carrier {
                    Some(carrier) => carrier.offload(&mut self.worker, slot, now()),
                    None => self.worker.not_offloaded(slot),
                },
            }
        }
    }

    /// Passes on what the worker tells, as far as the shard has room for it.
    fn tell(&mut self) {
        while self.worker.has_events() {
            let permit = self.events.try_reserve();
            if matches!(permit, Err(mpsc::error::TrySendError::Full(()))) {
                return;
            }
            // Without a shard there is nobody to tell, and this thread will be told to stop.
            if let (Some(event), Ok(permit)) = (self.worker.poll_event(), permit) {
                permit.send(event);
            }
        }
    }

    fn publish(&self, at: Instant) {
        let counters = self.worker.counters();
        let (legs, free) = self.worker.usage();
        let mut media = metrics::Media {
            packets_relayed: counters.relayed,
            bytes_relayed: counters.relayed_bytes,
            packets_kernel: counters.offloaded,
            legs_kernel: self.carrier.as_ref().map_or(0, Carrier::flows) as u64,
            packets_transcoded: counters.transcoded,
            packets_generated: counters.generated,
            reports: counters.reports,
            silences: counters.silences,
            open_failures: counters.open_failures,
            events_dropped: counters.events_dropped,
            legs: legs as u64,
            ports_used: self.pairs.saturating_sub(free) as u64,
            ports_total: self.pairs as u64,
            ..metrics::Media::default()
        };
        for (discard, n) in self.worker.discards().iter() {
            media.discards.add(discard.as_str(), n);
        }
        self.publish.send_replace(Published { at, counters: media });
    }
}
