//! A shard: everything that happens to some of the calls, in one thread, without I/O.
//!
//! Owns: its transactions, calls, nonces and trunks' state; the order in which things happen.
//! Never: reads a clock, opens a socket or waits; it is told, and answers with [`Output`]s.
//!
//! After each `handle_*` drain [`Shard::poll_output`], now and then [`Shard::swap_refusals`]; sleep until `poll_timeout`.
#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used)]

mod admission;
mod bans;
mod clock;
mod dispatch;
mod expiry;
mod guards;
mod guesses;
mod invite;
mod key;
mod ladders;
mod output;
mod overload;
mod packets;
mod phones;
mod refusals;
mod refused;
mod register;
mod report;
mod ringing;
mod standing;
mod succession;
mod trunks;
mod turned;
mod untold;
mod waiting;

pub use key::shard_of;
pub use output::{Answer, Output};
pub use phones::Pulse;
pub use refusals::{Refusal, Refusals};
pub use succession::{Change, Kin, Legacy, Note};

use crate::{
    call::{Call, Effect, Ender, Names, Owner, Record, ResolveFor, Wire},
    config::Config,
    dialog::Acks,
    guard::{Bans, Watch},
    ids::{CallId, Entropy, Flow, LegId, Mint, MintKey, ShardId},
    media,
    observe::metrics,
    registrar::{Authenticator, Location, auth::NONCE_LIFETIME},
    sip::{Message, Method},
    table::Table,
    timers::Timers,
    transaction::{self, ClientId, Layer, ServerId},
    trunk::Trunks,
};
use bytes::Bytes;
use ladders::Ladders;
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// How often expired bindings are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What makes shards one program.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The configuration for new calls.
    pub config: Arc<Config>,
    /// Who is reachable where.
    pub location: Location,
    /// What our identifiers are sealed with; the same for all shards of a node.
    pub key: MintKey,
}

/// Everything but the calls, so that a call can be stepped with the rest of the shard in hand.
struct Core {
    shared: Shared,
    mint: Mint,
    entropy: Entropy,
    tx: Layer,
    acks: Acks,
    auth: Authenticator,
    trunks: Trunks,
    /// Under which public address trunks see us; the last one that said so.
    learned: Option<IpAddr>,
    watch: Watch,
    owners: Table<ClientId, Owner>,
    names: Names,
    ladders: Ladders,
    sent: Vec<transaction::Output>,
    effects: VecDeque<Effect>,
    clock: clock::Clock,
    /// Until when, unless more is refused, calls are refused for want of time.
    overloaded_until: Option<Instant>,
    next_leg: u64,
    next_call: u64,
}

/// One shard.
pub struct Shard {
    id: ShardId,
    core: Core,
    /// Each in a place of its own: half of a tree that grows at its end is room.
    calls: BTreeMap<CallId, Box<Call>>,
    /// Which call waits for an INVITE's CANCEL.
    invites: Table<ServerId, Owner>,
    probes: BTreeMap<ClientId, trunks::Probe>,
    pings: phones::Pings,
    expiries: expiry::Expiries,
    timers: Timers<CallId>,
    news: standing::News,
    /// Whose media the workers' events are about.
    media_legs: Table<LegId, CallId>,
    touched: Vec<CallId>,
    /// Room for what the transaction layer wants done next.
    spare: Vec<transaction::Output>,
    out: VecDeque<Output>,
    refused: refused::Refused,
    overload: overload::Overload,
    guesses: guesses::Guesses,
    ringing: ringing::Ringing,
    turned: turned::Turned,
    bans: Bans,
    counters: metrics::Shard,
    sweep_at: Instant,
    is_draining: bool,
    family: succession::Family,
}

impl Shard {
    /// Creates a shard. `wall` is what the wall clock says at `now`.
    pub fn new(
        id: ShardId,
        shared: Shared,
        seed: [u8; 32],
        now: Instant,
        wall: SystemTime,
    ) -> Self {
        let mut entropy = Entropy::new(seed);
        let mint = Mint::new(id, shared.key, derive(&mut entropy));
        let layer_mint = Mint::new(id, shared.key, derive(&mut entropy));
        let auth =
            Authenticator::new(&shared.config.sip.realm, NONCE_LIFETIME, derive(&mut entropy));
        let names_key = shared.key;
        let overload =
            overload::Overload::new(&mut Mint::new(id, shared.key, derive(&mut entropy)));
        let mut tx = Layer::new(layer_mint);
        // A stranger's INVITE gets one answer, which is no 100.
        tx.leave_trying();
        let mut shard = Self {
            id,
            core: Core {
                shared,
                mint,
                tx,
                acks: Acks::default(),
                auth,
                trunks: Trunks::default(),
                learned: None,
                watch: Watch::default(),
                owners: Table::default(),
                names: Names::new(names_key),
                ladders: Ladders::default(),
                sent: vec![],
                effects: VecDeque::new(),
                clock: clock::Clock::new(now, wall),
                overloaded_until: None,
                // A restart must not repeat the numbers of yesterday's CDRs.
                next_leg: entropy.below(1 << 40),
                next_call: entropy.below(1 << 40),
                entropy,
            },
            calls: BTreeMap::new(),
            invites: Table::default(),
            probes: BTreeMap::new(),
            pings: phones::Pings::default(),
            expiries: expiry::Expiries::default(),
            timers: Timers::default(),
            news: standing::News::default(),
            media_legs: Table::default(),
            touched: vec![],
            spare: vec![],
            out: VecDeque::new(),
            refused: refused::Refused::new(now),
            overload,
            guesses: guesses::Guesses::default(),
            ringing: ringing::Ringing::default(),
            turned: turned::Turned::default(),
            bans: Bans::default(),
            counters: metrics::Shard::default(),
            sweep_at: now + SWEEP_EVERY,
            is_draining: false,
            family: succession::Family::default(),
        };
        shard.core.offer_to_users();
        shard.take_up_bindings();
        shard.drop_former_users(now);
        shard.follow_bindings(now);
        shard.configure_trunks(now);
        shard.configure_guards(now);
        shard.settle(now);
        shard
    }

    /// Returns which it is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Tells what the wall clock says now: it is set, and drifts.
    pub fn set_clock(&mut self, now: Instant, wall: SystemTime) {
        self.core.clock.set(now, wall);
    }

    /// Takes a new configuration. Running calls keep theirs.
    pub fn configure(&mut self, config: Arc<Config>, now: Instant) {
        self.core.auth.set_realm(&config.sip.realm);
        self.core.shared.config = config;
        self.core.offer_to_users();
        self.drop_former_users(now);
        self.follow_bindings(now);
        self.configure_trunks(now);
        self.configure_guards(now);
        self.settle(now);
    }

    /// Refuses new calls from here on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Ends every call because the node ends, and refuses new ones.
    pub fn end_all(&mut self, now: Instant) {
        self.is_draining = true;
        let reason = "SIP;cause=503;text=\"Shutting down\"";
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            self.step(call, now, |call, wire| call.end(Ender::Us, 503, Some(reason), wire));
        }
        self.settle(now);
    }

    /// Forgets the calls whose peers have not confirmed their end; each leaves its record.
    pub fn cut_all(&mut self, now: Instant) {
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            self.step(call, now, Call::cut);
        }
        self.settle(now);
    }

    /// Returns whether no call is left.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns whether nothing at all is left of past calls: the check of the simulated world.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.core.tx.is_empty()
            && self.core.acks.is_empty()
            && self.core.owners.is_empty()
            && self.core.names.is_empty()
            && self.invites.is_empty()
            && self.core.watch.is_quiet()
            && self.media_legs.is_empty()
            && self.probes.is_empty()
            && self.pings.is_quiet()
            && self.refused.is_quiet()
            && self.ringing.is_quiet()
            && self.core.trunks.is_quiet()
    }

    /// Accepts one message, or what was meant to be one.
    pub fn handle_message(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        if self.is_silenced(flow, now) {
            return;
        }
        self.guarded(|shard| shard.receive(None, flow, bytes, now));
        self.settle(now);
    }

    fn receive(&mut self, from: Option<Kin>, flow: Flow, bytes: Bytes, now: Instant) {
        let len = bytes.len();
        if self.overload.is_ack_of_refusal(&bytes) {
            return;
        }
        match Message::parse(bytes) {
            Ok(message) => {
                if let Some(kin) = self.kin_of(&message, from) {
                    let bytes = message.bytes().clone();
                    return self.out.push_back(Output::Pass { kin, flow, bytes });
                }
                packets::received(&message, flow);
                self.count_received(&message);
                if self.is_scan(&message, flow, now) {
                    return;
                }
                self.core.ladders.received(&message, &self.core.names, now);
                self.core.tx.receive(message, flow, now, &mut self.core.sent);
            }
            Err(error) => self.refuse_unreadable(&error, len, flow, now),
        }
    }

    /// Learns that a flow is dead: there is no connection, or a datagram could not be sent.
    pub fn handle_flow_failed(&mut self, flow: Flow, now: Instant) {
        self.core.tx.send_failed(flow, now, &mut self.core.sent);
        self.forget_flow(flow, now);
    }

    /// Learns that a connection which stood has closed, and that what is sent there opens another one.
    pub fn handle_flow_severed(&mut self, flow: Flow, now: Instant) {
        self.core.tx.severed(flow, now, &mut self.core.sent);
        self.forget_flow(flow, now);
    }

    fn forget_flow(&mut self, flow: Flow, now: Instant) {
        for call in self.calls.values_mut() {
            call.part(flow);
        }
        // The next process has the registrations, and learns of the end of connections.
        if !self.family.is_leaving() {
            for binding in self.core.shared.location.drop_flow(flow) {
                self.unbound(binding.aor, binding.contact, now);
            }
        }
        self.settle(now);
    }

    /// Accepts what a media worker reports.
    pub fn handle_media(&mut self, event: media::Event, now: Instant) {
        if let Some(call) = self.media_legs.get(event.leg()).copied() {
            if matches!(event, media::Event::Closed { .. } | media::Event::OpenFailed { .. }) {
                self.media_legs.remove(event.leg());
            }
            self.step(call, now, |call, wire| call.on_media(event, wire));
            self.settle(now);
        }
    }

    /// Accepts what a helper found out.
    pub fn handle_answer(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Resolved { token: ResolveFor::Trunk(name, place), located } => {
                for (call, leg) in self.core.trunks.resolved(&name, &place, located, now) {
                    self.step(call, now, |call, wire| call.on_route(leg, wire));
                }
            }
            Answer::Resolved { token: ResolveFor::Leg(owner), located } => {
                self.step(owner.call, now, |call, wire| {
                    call.on_resolved(owner.leg, &located, wire);
                });
            }
            Answer::Prompt { call, file, prompt } => {
                self.step(call, now, |call, wire| call.on_prompt(&file, prompt, wire));
            }
        }
        self.settle(now);
    }

    /// Ends a call at an operator's wish; returns whether there is such a call.
    pub fn hang_up(&mut self, call: CallId, now: Instant) -> bool {
        let known = self.calls.contains_key(&call);
        let reason = "Q.850;cause=16;text=\"Hung up by operator\"";
        self.step(call, now, |call, wire| call.end(Ender::Us, 480, Some(reason), wire));
        self.settle(now);
        known
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let own = [
            self.core.tx.poll_timeout(),
            self.core.acks.poll_timeout(),
            self.core.trunks.poll_timeout(),
            self.queue_timeout(),
            self.pings.poll_timeout(),
            self.refused.poll_timeout(),
            self.guesses.poll_timeout(),
            self.turned.poll_timeout(),
            self.timers.next_deadline(),
            self.news.poll_timeout(),
        ];
        own.into_iter().flatten().chain(self.next_sweep()).min()
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.tx.handle_timeout(now, &mut self.core.sent);
        self.core.acks.sweep(now);
        self.settle(now);
        while let Some(call) = self.timers.pop_due(now) {
            self.step(call, now, Call::handle_timeout);
            self.settle(now);
        }
        self.tell_news(now);
        self.fire_trunks(now);
        self.fire_queues(now);
        if self.sweep_at <= now && !self.family.is_leaving() {
            self.sweep_at = now + SWEEP_EVERY;
            self.sweep_bindings(now);
        }
        self.fire_pings(now);
        self.fire_refused(now);
        self.turned.handle_timeout(now);
        self.guesses.tell(now);
        self.settle(now);
    }

    /// Returns the next thing to do outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// A world without registrations has nothing to sweep, and can come to rest.
    fn next_sweep(&self) -> Option<Instant> {
        let is_ours = !self.family.is_leaving() && !self.core.shared.location.is_empty();
        is_ours.then_some(self.sweep_at)
    }

    /// Runs one step of a call. A step that panics costs that call, never the shard.
    fn step(&mut self, id: CallId, now: Instant, step: impl FnOnce(&mut Call, &mut Wire<'_>)) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        self.touched.push(id);
        let span = call.draft().span().clone();
        let _entered = span.enter();
        let mut wire = self.core.wire(now);
        if catch_unwind(AssertUnwindSafe(|| step(call, &mut wire))).is_ok() {
            return;
        }
        self.counters.panics += 1;
        tracing::error!("call step panicked");
        let ended = catch_unwind(AssertUnwindSafe(|| call.fail(&mut wire)))
            .or_else(|_| catch_unwind(AssertUnwindSafe(|| call.abandon(&mut wire))));
        if ended.is_err() {
            tracing::error!("call lost without record");
            self.ringing.end(id);
            for leg in self.calls.remove(&id).iter().flat_map(|call| call.legs()) {
                if let Some(trunk) = leg.profile.as_trunk() {
                    self.core.trunks.release(&trunk.name, leg.id());
                }
            }
        }
    }

    /// Runs what is no call's step. What panics is lost; the shard is not.
    fn guarded(&mut self, run: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
            self.counters.panics += 1;
            tracing::error!("shard step panicked");
        }
    }

    /// Carries out everything that the last step asked for, and what that leads to.
    fn settle(&mut self, now: Instant) {
        loop {
            self.hear_of_trunks(now);
            // What this leads to is for the next round; the buffers take turns.
            let mut sent = std::mem::replace(&mut self.core.sent, std::mem::take(&mut self.spare));
            for output in sent.drain(..) {
                match output {
                    transaction::Output::Send { flow, bytes } => self.transmit(flow, bytes, now),
                    transaction::Output::Event(event) => {
                        self.guarded(|shard| shard.on_event(event, now));
                    }
                }
            }
            self.spare = sent;
            if self.core.sent.is_empty() && !self.core.trunks.has_told() {
                break;
            }
        }
        self.tell_kin(now);
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched.drain(..) {
            self.forget_or_arm(id, now);
        }
        self.touched = touched;
        self.core.ladders.forget_unclaimed();
        for effect in self.core.effects.drain(..) {
            self.out.push_back(match effect {
                Effect::Media(call, command) => {
                    if let media::Command::Open { leg, .. } = command {
                        self.media_legs.insert(leg, call);
                    }
                    Output::Media(call, command)
                }
                Effect::Ask(ask) => Output::Ask(ask),
                Effect::Record(record) => Output::Record(record),
            });
        }
    }

    fn transmit(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        packets::sent(&bytes, flow);
        self.core.ladders.sent(&bytes, &self.core.names, now);
        if let Some(status) = ladders::status_of(&bytes) {
            self.counters.responses_sent.count(metrics::Shard::class(status));
        }
        self.out.push_back(Output::Transmit { flow, bytes });
    }

    /// Records a call that has ended, forgets one that is over, arms the timer of one that is not.
    fn forget_or_arm(&mut self, id: CallId, now: Instant) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let is_over = call.phase() == crate::call::Phase::Over;
        if !call.is_ringing() {
            self.ringing.end(id);
        }
        if call.has_news() {
            self.news.note(id, now);
        }
        if call.is_to_record(now) {
            let span = call.draft().span().clone();
            let _entered = span.enter();
            if let Some(mut cdr) = call.record(&self.core.wire(now)) {
                cdr.ladder = self.core.ladders.keep(id, cdr.is_failed(), now);
                self.counters.calls.count_end(&cdr);
                self.core.effects.push_back(Effect::Record(Record::Cdr(Box::new(cdr))));
            }
        }
        self.timers.arm(id, call.poll_timeout().filter(|_| !is_over));
        if is_over {
            if let Some(invite) = call.invite() {
                self.invites.remove(invite);
            }
            self.calls.remove(&id);
            self.core.ladders.forget(id);
            self.core.names.forget(id);
        }
    }

    fn count_received(&mut self, message: &Message) {
        if message.is_request() {
            self.counters.requests.count(method_word(message.method()));
        } else {
            self.counters.responses_received.count(metrics::Shard::class(message.status()));
        }
    }
}

impl Core {
    fn wall(&self, now: Instant) -> SystemTime {
        self.clock.wall(now)
    }

    fn wire(&mut self, now: Instant) -> Wire<'_> {
        let (wall, is_overloaded) = (self.wall(now), self.is_overloaded(now));
        Wire {
            now,
            wall,
            config: &self.shared.config,
            learned: self.learned,
            mint: &mut self.mint,
            entropy: &mut self.entropy,
            tx: &mut self.tx,
            acks: &mut self.acks,
            owners: &mut self.owners,
            names: &mut self.names,
            location: &self.shared.location,
            trunks: &mut self.trunks,
            watch: &mut self.watch,
            sent: &mut self.sent,
            effects: &mut self.effects,
            is_overloaded,
            next_leg: &mut self.next_leg,
        }
    }
}

/// Makes an independent source of randomness from another.
fn derive(entropy: &mut Entropy) -> Entropy {
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    Entropy::new(seed)
}

fn method_word(method: Method) -> &'static str {
    if method == Method::Other { "other" } else { method.as_str() }
}

#[cfg(test)]
mod bans_tests;
#[cfg(test)]
mod isolation_tests;
#[cfg(test)]
mod tests;
