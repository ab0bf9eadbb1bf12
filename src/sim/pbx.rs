//! The product in the world: one shard, with a pretended media plane and pretended helpers.
//!
//! Owns: the ports it pretends to open, the answers to the shard's questions, the records kept.
//! Never: touches a packet, a file or a name server.

use super::{
    late::Late,
    store::{Disk, Store},
    world::Node,
};
use crate::{
    call::{Ask, Record},
    config::Config,
    ids::{CallId, Entropy, Flow, LegId, MintKey, ShardId, Transport},
    locate::Located,
    media::{self, Command, OpenRefusal, Prompt, Quality},
    observe::cdr::Cdr,
    registrar::Location,
    shard::{Answer, Kin, Output, Refusals, Shard, Shared},
    sim::twilio::{TTL_S, Zone},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The first RTP port that is given out.
const FIRST_PORT: u16 = 10_000;
/// What the wall clock says when the world begins, in seconds: a Tuesday in November.
pub const WALL_S: u64 = 1_793_700_000;

/// How long names hold.
const TTL: Duration = Duration::from_secs(TTL_S as u64);

/// How the product is put into a world.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its own address and port, for every transport.
    pub local: SocketAddr,
    /// Under which address the outside sees it, where a NAT is in between.
    pub public: Option<IpAddr>,
    /// What names resolve to.
    pub hosts: BTreeMap<Box<str>, Vec<SocketAddr>>,
    /// What can be played.
    pub prompts: BTreeMap<Box<str>, Prompt>,
    /// Makes its tags and nonces.
    pub seed: u64,
}

/// The pretended media plane.
#[derive(Debug, Default)]
struct Media {
    open: BTreeMap<LegId, (CallId, u16)>,
    ever_opened: u16,
    playing: Vec<(Instant, CallId, LegId, u64)>,
    commands: Vec<Command>,
    /// How many legs may have ports at a time; `None`: any number.
    legs_max: Option<usize>,
    /// By the order in which legs get their ports.
    qualities: Vec<Quality>,
    events: Late<media::Event>,
    refused: u64,
}

/// The pretended name server.
struct Names {
    hold: Duration,
    zone: Option<Zone>,
    mute: BTreeSet<Box<str>>,
    answers: Late<(ShardId, Answer)>,
    unknown: u64,
}

/// How often what was to go wrong did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Troubles {
    /// Legs that got no port.
    pub legs_refused: u64,
    /// Events of the media plane that came late.
    pub media_late: u64,
    /// Names that resolved late.
    pub names_late: u64,
    /// Names that did not resolve.
    pub names_unknown: u64,
    /// Records that could not be written at once.
    pub records_late: u64,
    /// Transactions that the disk refused.
    pub writes_refused: u64,
    /// Records for which there was no room.
    pub records_dropped: u64,
}

/// The product in the world: one process, and after an upgrade those before it that still have calls.
pub struct Pbx {
    /// One of each process, the newest last.
    shards: Vec<Shard>,
    location: Location,
    key: MintKey,
    entropy: Entropy,
    setup: Setup,
    media: Media,
    outbox: VecDeque<(Flow, Bytes)>,
    cdrs: Vec<Cdr>,
    store: Store,
    names: Names,
    /// Whether more comes than is done: new work waits, and is refused.
    is_crowded: bool,
    began: Instant,
}

impl Pbx {
    /// Starts the product.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let mut entropy = Entropy::from_u64(setup.seed);
        let key = MintKey::draw(&mut entropy);
        let mut pbx = Self {
            shards: vec![],
            location: Location::new(),
            key,
            entropy,
            setup,
            is_crowded: false,
            began: now,
            media: Media::default(),
            outbox: VecDeque::new(),
            cdrs: vec![],
            store: Store::default(),
            names: Names {
                hold: TTL,
                zone: None,
                mute: BTreeSet::new(),
                answers: Late::default(),
                unknown: 0,
            },
        };
        pbx.start(now);
        pbx
    }

    /// Starts a process beside those that are there.
    fn start(&mut self, now: Instant) {
        let (config, location) = (self.setup.config.clone(), self.location.clone());
        let mut seed = [0; 32];
        self.entropy.fill(&mut seed);
        let id = self.shards.last().map_or(ShardId(0), |last| last.id().next());
        let shared = Shared { config, location, key: self.key };
        self.shards.push(Shard::new(id, shared, seed, now, self.wall(now)));
    }

    /// Hands over to a new process, as an upgrade does.
    pub fn upgrade(&mut self, now: Instant) {
        let legacy = self.newest().leave(now);
        let before = std::mem::replace(&mut self.location, Location::new());
        for binding in before.all(self.wall(now)) {
            self.location.bind(binding);
        }
        self.start(now);
        self.newest().succeed(legacy, now);
        self.pump(now);
    }

    /// Returns how many processes have not ended.
    pub fn processes(&self) -> usize {
        self.shards.len()
    }

    fn wall(&self, now: Instant) -> SystemTime {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_S);
        began + now.saturating_duration_since(self.began)
    }

    fn newest(&mut self) -> &mut Shard {
        let last = self.shards.len() - 1;
        &mut self.shards[last]
    }

    fn bury(&mut self, now: Instant) {
        while self.shards.len() > 1 && self.shards[0].may_end() {
            self.shards.remove(0);
            self.shards[0].outlive(Kin::Predecessor, now);
        }
    }

    /// Kills the newest process: the one before it is left with its own calls, and without knowing who is registered.
    pub fn kill_newest(&mut self, now: Instant) {
        let Some(dead) = self.shards.pop().map(|shard| shard.id()) else { return };
        self.media.open.retain(|leg, _| leg.shard() != dead);
        self.media.playing.retain(|(.., leg, _)| leg.shard() != dead);
        self.newest().outlive(Kin::Successor, now);
        self.pump(now);
    }

    /// Returns the addresses under which it must be added to the world.
    pub fn addresses(setup: &Setup) -> Vec<SocketAddr> {
        let public = setup.public.map(|ip| SocketAddr::new(ip, setup.local.port()));
        [setup.local].into_iter().chain(public).collect()
    }

    /// Returns the shard, to look at.
    pub fn shard(&self) -> &Shard {
        &self.shards[self.shards.len() - 1]
    }

    /// Changes something about the shard, as the shell would.
    pub fn with_shard<R>(&mut self, now: Instant, act: impl FnOnce(&mut Shard, Instant) -> R) -> R {
        let result = act(self.newest(), now);
        self.pump(now);
        result
    }

    /// The same for each process: an operator reaches all of them.
    pub fn with_each(&mut self, now: Instant, act: impl FnMut(&mut Shard)) {
        self.shards.iter_mut().for_each(act);
        self.pump(now);
    }

    /// Returns what it has recorded of calls that are over.
    pub fn cdrs(&self) -> &[Cdr] {
        &self.cdrs
    }

    /// Returns the calls of which the store knows that they go on.
    pub fn running(&self) -> &BTreeSet<CallId> {
        self.store.running()
    }

    /// Returns how many records of calls are on the disk.
    pub fn written(&self) -> usize {
        self.store.cdrs()
    }

    /// Lets the disk be otherwise from now on.
    pub fn set_disk(&mut self, disk: Disk) {
        self.store.set_disk(disk);
    }

    /// Lets no more records than these wait for the disk.
    pub fn limit_records(&mut self, most: usize) {
        self.store.limit(most);
    }

    /// Returns what the disk has otherwise than it was told, once nothing waits for it.
    pub fn store_faults(&self) -> Vec<String> {
        self.store.faults()
    }

    /// Returns the users and contacts that the store knows.
    pub fn bound(&self) -> Vec<(&str, &str)> {
        self.store.bound().map(|(aor, contact)| (&**aor, &**contact)).collect()
    }

    /// Returns who is reachable where.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Returns every command to the media plane so far.
    pub fn commands(&self) -> &[Command] {
        &self.media.commands
    }

    /// Returns the names of every command to the media plane so far, in order: `open`, `aim`.
    pub fn command_names(&self) -> Vec<&'static str> {
        self.media.commands.iter().map(name).collect()
    }

    /// Returns how many legs have ports.
    pub fn open_legs(&self) -> usize {
        self.media.open.len()
    }

    /// Pretends from now on that no RTP port is free.
    pub fn exhaust_ports(&mut self) {
        self.limit_legs(Some(0));
    }

    /// Pretends from now on that so many legs get RTP ports at a time.
    pub fn limit_legs(&mut self, most: Option<usize>) {
        self.media.legs_max = most;
    }

    /// Pretends that this was measured on the legs that get ports, in their order.
    pub fn measure(&mut self, qualities: Vec<Quality>) {
        self.media.qualities = qualities;
    }

    /// Pretends that nothing has come from the peer of the n-th leg that has a port.
    /// Returns whether there is such a leg.
    pub fn silence(&mut self, nth: usize, now: Instant) -> bool {
        let Some(leg) = self.media.open.keys().nth(nth).copied() else { return false };
        self.hear_media(media::Event::Silent { leg }, now);
        self.pump(now);
        true
    }

    /// Resolves from now on these names as well.
    pub fn use_zone(&mut self, zone: Zone) {
        self.names.zone = Some(zone);
    }

    /// Lets every answer about a name hold for so long from now on.
    pub fn hold_names(&mut self, ttl: Duration) {
        self.names.hold = ttl;
    }

    /// Lets every name take so long from now on.
    pub fn delay_names(&mut self, by: Duration) {
        self.names.answers.delay(by);
    }

    /// Lets more come than can be done, or no longer.
    pub fn crowd(&mut self, is_crowded: bool) {
        self.is_crowded = is_crowded;
    }

    /// Lets the media plane take so long for everything from now on.
    pub fn delay_media(&mut self, by: Duration) {
        self.media.events.delay(by);
    }

    /// Returns what has gone wrong so far.
    pub fn troubles(&self) -> Troubles {
        Troubles {
            legs_refused: self.media.refused,
            media_late: self.media.events.held_up(),
            names_late: self.names.answers.held_up(),
            names_unknown: self.names.unknown,
            records_late: self.store.held_up(),
            writes_refused: self.store.refusals(),
            records_dropped: self.store.dropped(),
        }
    }

    /// Pretends from now on that a name does not resolve.
    pub fn forget_host(&mut self, host: &str) {
        self.names.mute.insert(host.into());
    }

    /// Resolves every name again.
    pub fn recall_hosts(&mut self) {
        self.names.mute.clear();
    }

    /// Carries out what the shard wants, and what that leads to.
    fn pump(&mut self, now: Instant) {
        loop {
            let outputs: Vec<(usize, Output)> = (0..)
                .zip(&mut self.shards)
                .flat_map(|(at, shard)| {
                    let mut refusals = Refusals::default();
                    shard.swap_refusals(&mut refusals);
                    let refusal = |(flow, text): (Flow, &[u8])| Output::Transmit {
                        flow,
                        bytes: Bytes::copy_from_slice(text),
                    };
                    let outputs = std::iter::from_fn(|| shard.poll_output());
                    let outputs: Vec<_> = outputs.chain(refusals.iter().map(refusal)).collect();
                    outputs.into_iter().map(move |output| (at, output))
                })
                .collect();
            if outputs.is_empty() && !self.tell_kin(now) {
                return self.bury(now);
            }
            for (at, output) in outputs {
                self.carry_out(at, output, now);
            }
        }
    }

    /// A worker's event is for the process that has the leg.
    fn hear_media(&mut self, event: media::Event, now: Instant) {
        let owner = event.leg().shard();
        if let Some(shard) = self.shards.iter_mut().find(|shard| shard.id() == owner) {
            shard.handle_media(event, now);
        }
    }

    /// Returns a process beside the n-th one, and what that is to it.
    fn kin(&mut self, from: usize, kin: Kin) -> Option<(&mut Shard, Kin)> {
        let (to, sender) = match kin {
            Kin::Predecessor => (from.checked_sub(1), Kin::Successor),
            Kin::Successor => (from.checked_add(1), Kin::Predecessor),
        };
        Some((self.shards.get_mut(to?)?, sender))
    }

    /// Tells each process what those beside it have counted; returns whether there was anything.
    fn tell_kin(&mut self, now: Instant) -> bool {
        let mut was_any = false;
        for at in 0..self.shards.len() {
            for kin in [Kin::Predecessor, Kin::Successor] {
                while let Some(note) = self.shards[at].poll_note(kin, now) {
                    was_any = true;
                    if let Some((shard, sender)) = self.kin(at, kin) {
                        shard.handle_note(sender, note, now);
                    }
                }
            }
        }
        was_any
    }

    /// Does what the n-th process wants.
    fn carry_out(&mut self, at: usize, output: Output, now: Instant) {
        match output {
            Output::Transmit { flow, bytes } => self.outbox.push_back((flow, bytes)),
            Output::Pass { kin, flow, bytes } => {
                if let Some((shard, sender)) = self.kin(at, kin) {
                    shard.handle_passed(sender, flow, bytes, now);
                }
            }
            Output::Media(call, command) => {
                let event = self.media.handle(call, command, now);
                if let Some(event) = event.and_then(|event| self.media.events.pass(event, now)) {
                    self.hear_media(event, now);
                }
            }
            Output::Ask(Ask::Resolve { token, host, port, transport }) => {
                let flows = self.resolve(&host, port, transport);
                let located = Located::alike(flows, Some(self.names.hold));
                let answer = Answer::Resolved { token, located };
                let asker = self.shards[at].id();
                if let Some((_, answer)) = self.names.answers.pass((asker, answer), now) {
                    self.shards[at].handle_answer(answer, now);
                }
            }
            Output::Ask(Ask::Prompt { call, file }) => {
                let prompt = self.setup.prompts.get(&file).cloned();
                self.shards[at].handle_answer(Answer::Prompt { call, file, prompt }, now);
            }
            Output::Record(record) => {
                if let Record::Cdr(cdr) = &record {
                    self.cdrs.push((**cdr).clone());
                }
                self.store.put(record, now);
            }
        }
    }

    fn resolve(&mut self, host: &str, port: Option<u16>, transport: Transport) -> Vec<Flow> {
        let known = match (host.parse::<IpAddr>(), self.setup.hosts.get(host)) {
            (Ok(ip), _) => vec![SocketAddr::new(ip, port.unwrap_or(transport.default_port()))],
            (Err(_), _) if self.names.mute.contains(host) => {
                self.names.unknown += 1;
                vec![]
            }
            (Err(_), Some(known)) => known.clone(),
            (Err(_), None) => {
                let zone = self.names.zone.as_mut();
                zone.map(|zone| zone.resolve(host, port, transport)).unwrap_or_default()
            }
        };
        let local = self.setup.local;
        known.into_iter().map(|remote| Flow { transport, local, remote }).collect()
    }

    /// Undoes what the pretended NAT does: the shard knows its own address only.
    fn inside(&self, flow: Flow) -> Flow {
        Flow { local: self.setup.local, ..flow }
    }
}

impl Media {
    fn quality_of(&self, port: u16) -> Quality {
        let nth = usize::from(port.saturating_sub(FIRST_PORT) / 2);
        self.qualities.get(nth).cloned().unwrap_or_default()
    }

    fn handle(&mut self, call: CallId, command: Command, now: Instant) -> Option<media::Event> {
        self.commands.push(command.clone());
        match command {
            Command::Open { leg, .. }
                if self.legs_max.is_some_and(|most| most <= self.open.len()) =>
            {
                self.refused += 1;
                Some(media::Event::OpenFailed { leg, refusal: OpenRefusal::PortsExhausted })
            }
            Command::Open { leg, .. } => {
                let port = FIRST_PORT + 2 * self.ever_opened;
                self.ever_opened += 1;
                self.open.insert(leg, (call, port));
                Some(media::Event::Opened { leg, port })
            }
            Command::Play { leg, prompt, token, .. } => {
                let length = Duration::from_secs_f64(prompt.samples().len() as f64 / 8000.0);
                self.playing.push((now + length, call, leg, token));
                None
            }
            Command::Stop { leg } => {
                self.playing.retain(|(_, _, playing, _)| *playing != leg);
                None
            }
            Command::Close { leg } => {
                self.playing.retain(|(_, _, playing, _)| *playing != leg);
                let (_, port) = self.open.remove(&leg)?;
                Some(media::Event::Closed { leg, quality: Box::new(self.quality_of(port)) })
            }
            Command::Aim { .. }
            | Command::Rename { .. }
            | Command::Bridge { .. }
            | Command::Unbridge { .. }
            | Command::Echo { .. }
            | Command::Dtmf { .. }
            | Command::Hold { .. } => None,
        }
    }
}

impl Node for Pbx {
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        let flow = self.inside(flow);
        let is_crowded = self.is_crowded;
        let shard = self.newest();
        if is_crowded {
            shard.queue_message(flow, bytes, now);
            shard.refuse_waiting(now);
        } else {
            shard.handle_message(flow, bytes, now);
        }
        self.pump(now);
    }

    fn closed(&mut self, flow: Flow, now: Instant) {
        let flow = self.inside(flow);
        for shard in &mut self.shards {
            shard.handle_flow_failed(flow, now);
        }
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.store.write(now);
        for shard in &mut self.shards {
            shard.handle_timeout(now);
        }
        self.pump(now);
        while let Some((of, answer)) = self.names.answers.due(now) {
            if let Some(shard) = self.shards.iter_mut().find(|shard| shard.id() == of) {
                shard.handle_answer(answer, now);
            }
            self.pump(now);
        }
        while let Some(event) = self.media.events.due(now) {
            self.hear_media(event, now);
            self.pump(now);
        }
        let played: Vec<_> = self.media.playing.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, _, leg, token) in played {
            self.hear_media(media::Event::Played { leg, token }, now);
            self.pump(now);
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let played = self.media.playing.iter().map(|(at, ..)| *at).min();
        let late =
            [self.names.answers.next_at(), self.media.events.next_at(), self.store.next_at()];
        let due = self.shards.iter_mut().filter_map(Shard::poll_timeout).min();
        [due, played].into_iter().chain(late).flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.outbox.pop_front()
    }

    fn is_idle(&self) -> bool {
        self.shards.iter().all(Shard::is_empty)
            && self.media.open.is_empty()
            && self.store.is_quiet()
            && self.outbox.is_empty()
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Open { .. } => "open",
        Command::Rename { .. } => "rename",
        Command::Aim { .. } => "aim",
        Command::Bridge { .. } => "bridge",
        Command::Unbridge { .. } => "unbridge",
        Command::Play { .. } => "play",
        Command::Echo { .. } => "echo",
        Command::Stop { .. } => "stop",
        Command::Dtmf { .. } => "dtmf",
        Command::Hold { .. } => "hold",
        Command::Close { .. } => "close",
    }
}
