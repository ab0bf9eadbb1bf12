//! Drives one shard: wait for one thing, tell the shard, carry out everything it asks for, repeat.
//!
//! Owns: the shard, the streams to its peers, the order of what it hears.
//! Never: decides anything about a call.

mod crowd;
mod kin;
mod parting;
mod welcome;

use super::{
    epoll,
    helpers::Helpers,
    ingress::Packet,
    media_line::{MediaLine, is_spare},
    nap::Nap,
    now,
    peers::{Peer, Peers},
    store::{self, Write},
    stream::{End, Opener, Streams},
    succession::Pipe,
    udp::Udp,
};
use crate::{
    call::Record,
    config::Config,
    guard::Account,
    ids::{CallId, Flow, Transport},
    media,
    network::Network,
    observe::{
        ladder::Rungs,
        metrics,
        status::{BanRow, BudgetRow, CallDetail, CallSummary, TrunkRow},
    },
    shard::{Answer, Legacy, Output, Pulse, Refusals, Shard},
    tls::Failure,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    pin::Pin,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Sleep, sleep},
};

/// Inputs of one kind taken in one go before deadlines and the other kinds are looked at again.
const BATCH_MAX: usize = 64;
/// Where that many datagrams come that several come within this time, they are taken together: to
/// sleep and wake for each costs more than to answer many of them. Nobody notices so little.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// How long peers may take to answer our BYE when the node ends.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How old the shard's reading of the wall clock may be when something happens.
const CLOCK_HOLD: Duration = Duration::from_secs(1);

/// How each contact of each user answers.
pub(super) type Pulses = BTreeMap<(Box<str>, Box<str>), Pulse>;

/// What operators want of the shard.
#[derive(Debug)]
pub(super) enum Order {
    /// Take a new configuration.
    Configure(Arc<Config>),
    /// Refuse new calls; the loop ends when the last call has. Those that are left after so long are
    /// ended.
    Drain(Option<Duration>),
    /// Leave everything but the calls to the process behind the pipe; the loop goes on.
    Leave(Pipe, oneshot::Sender<Left>),
    /// Go on as before that.
    Stay,
    /// End all calls; the loop ends soon.
    Stop,
    /// End a call.
    HangUp(CallId, oneshot::Sender<bool>),
    /// List the calls.
    Calls(oneshot::Sender<Vec<CallSummary>>),
    /// Tell about one call.
    Call(CallId, oneshot::Sender<Option<CallDetail>>),
    /// Draw one call's messages.
    Ladder(CallId, oneshot::Sender<Option<Rungs>>),
    /// List the trunks.
    Trunks(oneshot::Sender<Vec<TrunkRow>>),
    /// List the budgets.
    Budgets(oneshot::Sender<Vec<BudgetRow>>),
    /// Forget what was used of a budget.
    ResetBudget(Account, oneshot::Sender<bool>),
    /// List the bans.
    Bans(oneshot::Sender<Vec<BanRow>>),
    /// End the bans of some addresses; tells how many there were.
    Lift(Network, oneshot::Sender<usize>),
    /// Count the calls of some users.
    CallsOf(Vec<Box<str>>, oneshot::Sender<Vec<u64>>),
    /// Tell how the phones answer OPTIONS.
    Pulses(oneshot::Sender<Pulses>),
    /// Read the counters.
    Counters(oneshot::Sender<(metrics::Shard, metrics::Transports)>),
}

/// What a process that leaves has to tell the next one.
#[derive(Debug)]
pub(super) struct Left {
    /// Its connections.
    pub(super) connections: Vec<Flow>,
    /// What the shard leaves.
    pub(super) legacy: Legacy,
}

/// The other processes of an upgrade.
#[derive(Debug, Default)]
struct Family {
    predecessor: Option<Pipe>,
    successor: Option<Pipe>,
    /// The process before us is still to learn that there is one after us.
    is_to_hand_on: bool,
    /// When there may be room for what the others are still to be told.
    tells_at: Option<Instant>,
    /// When the next connection is closed, once no call is left.
    parts_at: Option<Instant>,
}

/// Everything that the loop hears, datagrams aside.
pub(super) struct Ears {
    pub(super) packets: mpsc::Receiver<Packet>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) media: mpsc::Receiver<media::Event>,
    pub(super) answers: mpsc::Receiver<Answer>,
}

/// What ended a wait.
enum Heard {
    /// A deadline, or a datagram.
    Nothing,
    Order(Order),
    Media(media::Event),
    Answer(Answer),
    Packet(Packet),
}

/// Everything that the loop acts with.
pub(super) struct Hands {
    pub(super) opener: Opener,
    pub(super) media: Vec<MediaLine>,
    pub(super) helpers: Helpers,
    pub(super) store: store::Handle,
}

/// When the loop ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    /// Not yet.
    Open,
    /// With the last call; those that are left then are ended.
    Draining(Option<Instant>),
    /// With the last call, or then.
    Stopping(Instant),
}

/// One shard and its ways out.
pub(super) struct ShardLoop {
    shard: Shard,
    hands: Hands,
    udp: Udp,
    /// Datagrams of one batch; empty between batches.
    arrived: Vec<(Flow, Bytes)>,
    /// What was refused last; its memory serves again.
    refusals: Refusals,
    /// Whether more has come than was taken: then it is sorted.
    is_crowded: bool,
    nap: Nap,
    streams: Streams,
    peers: Peers,
    /// Trunks of whose TLS an operator has been told, and with which code.
    warned: BTreeSet<(Box<str>, &'static str)>,
    transports: metrics::Transports,
    family: Family,
    /// When the wall clock was last read.
    clock_at: Instant,
    ending: Ending,
}

impl ShardLoop {
    pub(super) fn new(shard: Shard, hands: Hands, udp: Udp) -> Self {
        Self {
            shard,
            hands,
            udp,
            arrived: vec![],
            refusals: Refusals::default(),
            is_crowded: false,
            nap: Nap::new(LOOK_EVERY, now()),
            streams: Streams::default(),
            peers: Peers::default(),
            warned: BTreeSet::new(),
            transports: metrics::Transports::default(),
            family: Family::default(),
            clock_at: now(),
            ending: Ending::Open,
        }
    }

    /// Takes the names that peers over TLS must have, and how many peers there may be.
    pub(super) fn know_peers(&mut self, config: &Config) {
        self.peers.configure(config);
        self.warned.clear();
        self.grant_places(config);
    }

    /// Runs until drained, or until nobody can speak to it any more.
    pub(super) async fn run(mut self, mut ears: Ears) {
        let mut alarm = Alarm::new();
        let mut is_more = false;
        epoll::sleep_precisely();
        self.carry_out();
        while !self.is_over() {
            let heard = if is_more {
                // What is left is taken after a look at what else has come.
                yield_now().await;
                Some(Heard::Nothing)
            } else {
                self.wait(&mut ears, &mut alarm).await
            };
            let Some(heard) = heard else { return };
            let began = now();
            self.read_clock();
            // Deadlines first: under overload, finishing old work beats accepting new.
            self.fire();
            self.take(heard);
            let (more, datagrams) = self.take_more(&mut ears);
            is_more = more;
            self.tick();
            let ended = now();
            let nap = self.nap.after(began, datagrams, ended);
            if !is_more && !nap.is_zero() {
                thread::sleep(nap);
                is_more = true;
            }
        }
        self.shard.cut_all(now());
        self.carry_out();
        self.hands.media.iter_mut().for_each(MediaLine::wake);
    }

    /// Waits for one thing; `None` where nobody can speak to the shard any more.
    async fn wait(&mut self, ears: &mut Ears, alarm: &mut Alarm) -> Option<Heard> {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = alarm.ring(deadline) => Some(Heard::Nothing),
            () = self.udp.readable() => Some(Heard::Nothing),
            order = ears.orders.recv() => order.map(Heard::Order),
            Some(event) = ears.media.recv() => Some(Heard::Media(event)),
            Some(answer) = ears.answers.recv() => Some(Heard::Answer(answer)),
            Some(packet) = ears.packets.recv() => Some(Heard::Packet(packet)),
        }
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Order(order) => self.obey(order),
            Heard::Media(event) => self.take_event(event),
            Heard::Answer(answer) => self.take_answer(answer),
            Heard::Packet(packet) => self.take_packet(packet),
        }
        self.carry_out();
    }

    /// Takes what else has come, of each kind up to a batch. Returns whether there may be more, and how
    /// many datagrams there were.
    fn take_more(&mut self, ears: &mut Ears) -> (bool, usize) {
        let mut is_more = self.drain(&mut ears.orders, Self::obey);
        is_more |= self.drain(&mut ears.media, Self::take_event);
        is_more |= self.drain(&mut ears.answers, Self::take_answer);
        let is_more_framed = self.drain(&mut ears.packets, Self::take_packet);
        self.is_crowded |= is_more_framed;
        let (is_left, datagrams) = self.take_datagrams();
        if self.shard.has_waiting() {
            self.serve(is_more);
        }
        self.refuse_together();
        self.is_crowded = is_left || is_more_framed || self.shard.has_waiting();
        (is_more || self.is_crowded, datagrams)
    }

    fn drain<T>(&mut self, queue: &mut mpsc::Receiver<T>, take: fn(&mut Self, T)) -> bool {
        for _ in 0..BATCH_MAX {
            let Ok(one) = queue.try_recv() else { return false };
            take(self, one);
            self.carry_out();
        }
        true
    }

    fn read_clock(&mut self) {
        let now = now();
        if now.saturating_duration_since(self.clock_at) >= CLOCK_HOLD {
            self.clock_at = now;
            self.shard.set_clock(now, SystemTime::now());
        }
    }

    fn fire(&mut self) {
        if matches!(self.ending, Ending::Draining(Some(at)) if at <= now()) {
            tracing::warn!("calls are ended: draining took too long");
            self.obey(Order::Stop);
            self.carry_out();
        }
        self.look_round();
        let now = now();
        self.hands.media.iter_mut().for_each(|line| line.retry(now));
        if self.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now);
            self.carry_out();
        }
    }

    fn tick(&mut self) {
        let now = now();
        self.hands.media.iter_mut().for_each(|line| line.tick(now));
    }

    fn is_over(&mut self) -> bool {
        match self.ending {
            Ending::Open => false,
            Ending::Draining(_) => self.shard.may_end() && self.has_parted(),
            Ending::Stopping(at) => self.shard.is_idle() || at <= now(),
        }
    }

    fn deadline(&mut self) -> Option<Instant> {
        let ending = match self.ending {
            Ending::Open => None,
            Ending::Draining(at) => at,
            Ending::Stopping(at) => Some(at),
        };
        let now = now();
        let media = self.hands.media.iter().filter_map(|line| line.poll_timeout(now)).min();
        let looks = self.looks_round_at();
        let Family { parts_at, tells_at, .. } = self.family;
        let own = [self.shard.poll_timeout(), ending, parts_at, tells_at, looks];
        own.into_iter().flatten().chain(media).min()
    }

    fn take_event(&mut self, event: media::Event) {
        if is_spare(event.leg()) {
            self.hands.media.iter_mut().for_each(|line| line.hear(&event));
        } else {
            self.shard.handle_media(event, now());
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        self.peers.answered(&answer);
        self.shard.handle_answer(answer, now());
    }

    fn take_message(&mut self, flow: Flow, bytes: Bytes) {
        self.transports.received.count(flow.transport.param());
        if self.family.predecessor.is_some() && self.udp.is_elders(flow) {
            self.shard.handle_elders(flow, bytes, now());
        } else if self.is_crowded {
            self.shard.queue_message(flow, bytes, now());
        } else {
            self.shard.handle_message(flow, bytes, now());
        }
    }

    fn take_packet(&mut self, packet: Packet) {
        match packet {
            Packet::Message { flow, bytes } => self.take_message(flow, bytes),
            Packet::Opened { flow, writer, end } => self.welcome(flow, writer, end),
            Packet::Closed { flow, end } => self.end(flow, end),
            Packet::Passed { from, flow, bytes } => {
                self.shard.handle_passed(from, flow, bytes, now());
            }
            Packet::Told { from, note } => self.shard.handle_note(from, note, now()),
            Packet::Write { flow, bytes } => self.transmit(flow, bytes),
            Packet::Outlived => self.outlive_elder(),
            Packet::HeirGone { has_heir } => self.outlive_heir(has_heir),
        }
    }

    /// A connection has ended. What was to be sent on it goes over another one.
    fn end(&mut self, flow: Flow, end: End) {
        if let Some(why) = &end.failure
            && flow.transport == Transport::Tls
        {
            self.transports.handshake_failures.count(why.word());
            self.warn(flow, why);
        }
        if let Some(successor) = &self.family.successor {
            successor.closed(flow);
        }
        if self.streams.closed(flow) {
            if end.stood {
                self.shard.handle_flow_severed(flow, now());
            } else {
                self.shard.handle_flow_failed(flow, now());
            }
        }
        for bytes in end.unsent {
            self.transmit(flow, bytes);
        }
    }

    /// Tells once what keeps us from a trunk, and what to do.
    fn warn(&mut self, flow: Flow, why: &Failure) {
        let Some(Peer { host, trunk: Some(trunk) }) = self.peers.at(flow.remote) else { return };
        let code = why.code();
        if self.warned.insert((trunk.clone(), code)) {
            let help = why.help();
            tracing::warn!(trunk = &*trunk, %flow, host = &*host, code, %why, help, "no TLS");
        }
    }

    fn obey(&mut self, order: Order) {
        // A reply that nobody waits for any more is no error.
        match order {
            Order::Configure(config) => {
                self.know_peers(&config);
                self.shard.configure(config, now());
            }
            Order::Drain(within) => {
                self.shard.drain();
                if !matches!(self.ending, Ending::Stopping(_)) {
                    self.ending = Ending::Draining(within.map(|within| now() + within));
                }
                self.family.is_to_hand_on = self.family.successor.is_some();
            }
            Order::Leave(pipe, reply) => _ = reply.send(self.leave(pipe)),
            Order::Stay => self.stay(),
            Order::Stop => {
                self.ending = Ending::Stopping(now() + STOP_GRACE);
                self.shard.end_all(now());
            }
            Order::HangUp(call, reply) => _ = reply.send(self.shard.hang_up(call, now())),
            Order::Calls(reply) => _ = reply.send(self.shard.calls(now())),
            Order::Call(call, reply) => _ = reply.send(self.shard.call(call, now())),
            Order::Ladder(call, reply) => _ = reply.send(self.shard.ladder(call)),
            Order::Trunks(reply) => _ = reply.send(self.shard.trunks(now())),
            Order::Budgets(reply) => _ = reply.send(self.shard.budgets(now())),
            Order::ResetBudget(account, reply) => {
                _ = reply.send(self.shard.reset_budget(&account));
            }
            Order::Bans(reply) => _ = reply.send(self.shard.bans(now())),
            Order::Lift(network, reply) => _ = reply.send(self.shard.lift(network, now())),
            Order::CallsOf(users, reply) => {
                _ = reply.send(users.iter().map(|user| self.shard.calls_of(user)).collect());
            }
            Order::Pulses(reply) => _ = reply.send(self.shard.pulses()),
            Order::Counters(reply) => {
                let mut transports = self.transports.clone();
                transports.ingress_dropped = self.udp.dropped();
                transports.connections = self.streams.len(Transport::Tcp) as u64;
                transports.tls_connections = self.streams.len(Transport::Tls) as u64;
                transports.handshake_failures.add("accepted", self.hands.opener.refusals());
                _ = reply.send((self.shard.counters(), transports));
            }
        }
    }

    /// Drains the shard's outbox completely.
    fn carry_out(&mut self) {
        while let Some(output) = self.shard.poll_output() {
            self.perform(output);
        }
        self.tell_kin();
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Transmit { flow, bytes } => self.transmit(flow, bytes),
            Output::Pass { kin, flow, bytes } => self.pass(kin, flow, bytes),
            Output::Media(call, command) => self.media(call, command),
            Output::Ask(ask) => {
                self.peers.asked(&ask);
                self.hands.helpers.ask(ask);
            }
            Output::Record(record) => self.hands.store.write(match record {
                Record::Cdr(cdr) => Write::Cdr(cdr),
                Record::Running(cdr) => Write::Running(cdr),
                Record::Bind(binding) => Write::Bind(binding),
                Record::Unbind { aor, contact } => Write::Unbind { aor, contact },
                Record::Ban(ban) => Write::Ban(ban),
                Record::Lift(network) => Write::Lift(network),
            }),
        }
    }

    fn transmit(&mut self, flow: Flow, bytes: Bytes) {
        let word = flow.transport.param();
        let sent = match flow.transport {
            Transport::Udp => self.udp.send(flow, &bytes),
            Transport::Tcp | Transport::Tls => {
                let peer = || self.peers.at(flow.remote);
                match self.streams.send(flow, bytes, &self.hands.opener, peer) {
                    true => Ok(()),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        };
        match sent {
            Ok(()) => self.transports.sent.count(word),
            Err(error) => {
                self.transports.send_errors.count(word);
                tracing::debug!(%flow, %error, "send failed");
                // A full buffer passes; a datagram is sent again. Anything else will not.
                if flow.transport.is_reliable() || error.kind() != io::ErrorKind::WouldBlock {
                    self.shard.handle_flow_failed(flow, now());
                }
            }
        }
    }

    fn media(&mut self, call: CallId, command: media::Command) {
        let workers = self.hands.media.len().max(1);
        let worker = usize::try_from(call.0).unwrap_or(0) % workers;
        let now = now();
        let sent = match self.hands.media.get_mut(worker) {
            Some(worker) => worker.send(command, now),
            None => Err(command),
        };
        match sent {
            Ok(None) => {}
            Ok(Some(event)) => self.shard.handle_media(event, now),
            // A full queue refuses the call (503); what closes or changes a leg waits for room.
            Err(media::Command::Open { leg, .. }) => {
                let refusal = media::OpenRefusal::TooManyLegs;
                self.shard.handle_media(media::Event::OpenFailed { leg, refusal }, now);
            }
            Err(_) => {}
        }
    }
}

/// A timer that is set anew only where it must ring earlier than it would: to ring in vain now and
/// then costs less than to be set at every step.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep(Duration::ZERO)) }
    }

    /// Waits until `deadline` at the latest; for ever where there is none.
    async fn ring(&mut self, deadline: Option<Instant>) {
        let Some(at) = deadline else { return pending().await };
        if self.sleep.is_elapsed() || at < self.sleep.deadline().into_std() {
            self.sleep.as_mut().reset(at.into());
        }
        self.sleep.as_mut().await;
    }
}
