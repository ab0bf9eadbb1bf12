//! A running simulated trunk: its sockets, and a voice for each of its calls.
//!
//! Owns: the trunk's task, its calls' voices, and what the far ends do besides speaking.
//! Never: judges the PBX; the simulated trunk keeps the list.

use super::authority::Authority;
use crate::{
    config::scenario::Speech,
    ids::{Entropy, Transport},
    shell::{
        host::Host,
        voices::{Order, Speaker},
        wires::{Security, Sockets},
    },
    sim::{
        Reach,
        twilio::{CallIn, CallNumber, Deviation, Event, Packet, Proxy, Setup, Twilio, Zone},
        voice::{Report, Says, Voice},
    },
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Events of the trunk that may wait for its voices, and calls that may wait to be made.
const EVENTS_MAX: usize = 4096;
/// What callers from the PSTN say, and what the trunk listens for, in Hz.
pub(in crate::shell) const FAR_TONE_HZ: f64 = 1000.0;
pub(in crate::shell) const NEAR_TONE_HZ: f64 = 440.0;

/// What the far ends of calls do once they talk.
#[derive(Clone, Debug)]
pub(in crate::shell) struct FarEnds {
    /// What they say.
    pub(in crate::shell) voice: Speech,
    /// The keys that they press.
    pub(in crate::shell) press: Box<str>,
}

/// A call from the PSTN, and what the caller does once it is up.
#[derive(Clone, Debug)]
pub(in crate::shell) struct Origination {
    pub(in crate::shell) call: CallIn,
    /// The keys that it presses.
    pub(in crate::shell) press: Box<str>,
    /// When it puts the PBX on hold, and for how long.
    pub(in crate::shell) hold: Option<(Duration, Duration)>,
}

/// A call of the trunk that is over.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::shell) struct Ended {
    pub(in crate::shell) call: CallNumber,
    pub(in crate::shell) status: u16,
    pub(in crate::shell) report: Report,
}

/// A running trunk.
pub(in crate::shell) struct Trunk {
    /// Where it listens first.
    pub(in crate::shell) address: SocketAddr,
    /// Of the authority that signed its certificate, as PEM.
    pub(in crate::shell) certificate: String,
    proxies: Vec<Proxy>,
    host: Arc<Host<Twilio>>,
    voices: JoinHandle<()>,
    originations: mpsc::Sender<Origination>,
    ended: watch::Receiver<Vec<Ended>>,
    far_ends: watch::Sender<FarEnds>,
}

impl Trunk {
    /// Starts the trunk. Where its proxies have port 0 they get one that is free at all of them; those
    /// in `reach` can be reached as it says.
    pub(in crate::shell) async fn start(
        mut setup: Setup,
        far_ends: FarEnds,
        reach: &BTreeMap<IpAddr, Reach>,
        seed: u64,
    ) -> io::Result<Self> {
        let proxies = setup.edges.iter().flat_map(|edge| &edge.proxies);
        let plain: Vec<SocketAddr> = proxies.map(|proxy| proxy.plain).collect();
        let first = plain.first().copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let wanted: Vec<_> = plain
            .iter()
            .map(|address| (address.ip(), reach.get(&address.ip()).copied().unwrap_or_default()))
            .collect();
        let (sockets, port) = Sockets::bind(&wanted, first.port()).await?;
        for proxy in setup.edges.iter_mut().flat_map(|edge| &mut edge.proxies) {
            *proxy = Proxy::new(SocketAddr::new(proxy.plain.ip(), port));
        }
        let address = SocketAddr::new(first.ip(), port);
        let proxies = setup.edges.iter().flat_map(|edge| edge.proxies.clone()).collect();

        let authority = Authority::new(&setup)?;
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        let mut twilio = Twilio::new(setup, seed);
        for (ip, reach) in reach {
            twilio.set_reach(SocketAddr::new(*ip, port), *reach);
        }
        let Authority { certificate, acceptor, connector } = authority;
        let security = Security { acceptor: Some(acceptor), connector: Some(connector) };
        let host = Host::start(twilio, (sockets, security), move |twilio: &mut Twilio| {
            while let Some(event) = twilio.poll_event() {
                // A trunk whose voices do not keep up goes on without them.
                let _ = events.try_send(event);
            }
        })?;
        let host = Arc::new(host);
        let (publish, ended) = watch::channel(vec![]);
        let (far_ends, says) = watch::channel(far_ends);
        let (originations, calls) = mpsc::channel(EVENTS_MAX);
        let (packets, packets_seen) = mpsc::channel(EVENTS_MAX);
        let voices = Voices {
            host: host.clone(),
            ip: address.ip(),
            far_ends: says,
            entropy: Entropy::from_u64(seed),
            running: BTreeMap::new(),
            callers: BTreeMap::new(),
            streams: BTreeMap::new(),
            packets,
            holding: JoinSet::new(),
            publish,
        };
        let voices = tokio::spawn(voices.run(queue, calls, packets_seen));
        Ok(Self { address, certificate, proxies, host, voices, originations, ended, far_ends })
    }

    /// Calls the PBX.
    pub(in crate::shell) async fn call_in(&self, origination: Origination) {
        // The voices end with the trunk.
        let _ = self.originations.send(origination).await;
    }

    /// Returns where the proxy of this address listens.
    pub(in crate::shell) fn proxy(&self, ip: IpAddr, transport: Transport) -> Option<SocketAddr> {
        let proxy = self.proxies.iter().find(|proxy| proxy.plain.ip() == ip)?;
        Some(proxy.at(transport))
    }

    /// Sets what the far ends of later calls do.
    pub(in crate::shell) fn set_far_ends(&self, far_ends: FarEnds) {
        self.far_ends.send_replace(far_ends);
    }

    /// Returns its names, where they are answered in an order of this seed.
    pub(in crate::shell) async fn zone(&self, seed: u64) -> Option<Zone> {
        self.host.with(move |twilio, _| twilio.zone(seed)).await
    }

    /// Returns what the PBX did wrong so far.
    pub(in crate::shell) async fn deviations(&self) -> Vec<Deviation> {
        self.host.with(|twilio, _| twilio.deviations().to_vec()).await.unwrap_or_default()
    }

    /// Returns how many calls there are.
    pub(in crate::shell) async fn calls(&self) -> usize {
        self.host.with(|twilio, _| twilio.calls()).await.unwrap_or_default()
    }

    /// Returns the calls that are over, as they end.
    pub(in crate::shell) fn ended(&self) -> watch::Receiver<Vec<Ended>> {
        self.ended.clone()
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.voices.abort();
    }
}

/// What a caller from the PSTN still has to do.
struct Caller {
    press: Box<str>,
    hold: Option<(Duration, Duration)>,
}

/// The voices of one trunk.
struct Voices {
    host: Arc<Host<Twilio>>,
    ip: IpAddr,
    far_ends: watch::Receiver<FarEnds>,
    entropy: Entropy,
    running: BTreeMap<CallNumber, Speaker>,
    callers: BTreeMap<CallNumber, Caller>,
    /// What each far end speaks in.
    streams: BTreeMap<CallNumber, u32>,
    /// Tells of packets that came.
    packets: mpsc::Sender<(CallNumber, Packet)>,
    /// A task for each call that is about to hold, or does.
    holding: JoinSet<()>,
    publish: watch::Sender<Vec<Ended>>,
}

impl Voices {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut calls: mpsc::Receiver<Origination>,
        mut packets: mpsc::Receiver<(CallNumber, Packet)>,
    ) {
        loop {
            while self.holding.try_join_next().is_some() {}
            tokio::select! {
                // What has happened comes before what is to happen.
                biased;
                event = events.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => return,
                },
                Some((call, packet)) = packets.recv() => {
                    self.host.with(move |twilio, _| twilio.rtp_arrives(call, packet)).await;
                }
                Some(Origination { call, press, hold }) = calls.recv() => {
                    let made = self.host.with(move |twilio, now| twilio.call_in(&call, now)).await;
                    if let Some(call) = made {
                        self.callers.insert(call, Caller { press, hold });
                    }
                }
            }
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::MediaWanted { call } => self.open(call).await,
            Event::MediaStart { call, agreed, stream } => {
                let before = self.streams.insert(call, stream);
                if before.is_some_and(|before| before != stream) {
                    self.order(call, Order::Renew);
                }
                self.order(call, Order::Aim(agreed));
            }
            Event::MediaStop { call } => self.order(call, Order::Hush),
            Event::Up { call } => self.up(call),
            Event::Over { call, status } => self.over(call, status),
        }
    }

    fn order(&self, call: CallNumber, order: Order) {
        if let Some(speaker) = self.running.get(&call) {
            speaker.order(order);
        }
    }

    fn up(&mut self, call: CallNumber) {
        tracing::info!(call = call.0, "call up");
        let caller = self.callers.remove(&call);
        let press = match &caller {
            Some(caller) => caller.press.clone(),
            None => self.far_ends.borrow().press.clone(),
        };
        if !press.is_empty() {
            self.order(call, Order::Press(press));
        }
        let Some((after, time)) = caller.and_then(|caller| caller.hold) else { return };
        let host = self.host.clone();
        self.holding.spawn(async move {
            for (wait, on) in [(after, true), (time, false)] {
                sleep(wait).await;
                host.with(move |twilio, now| twilio.hold(call, on, now)).await;
            }
        });
    }

    fn over(&mut self, call: CallNumber, status: u16) {
        self.callers.remove(&call);
        self.streams.remove(&call);
        let speaker = self.running.remove(&call);
        let report = speaker.map(|speaker| speaker.report()).unwrap_or_default();
        let Report { sent, received, lost, .. } = report;
        tracing::info!(call = call.0, status, sent, received, lost, "call over");
        self.publish.send_modify(|ended| ended.push(Ended { call, status, report }));
    }

    async fn open(&mut self, call: CallNumber) {
        let says = match self.far_ends.borrow().voice {
            Speech::Echo => Says::announcement(),
            Speech::Tone => Says::Tone(FAR_TONE_HZ),
        };
        let voice = Voice::new(says, NEAR_TONE_HZ, &mut self.entropy);
        let packets = self.packets.clone();
        // A trunk that is so far behind judges the next ones.
        let judge = Box::new(move |packet| _ = packets.try_send((call, packet)));
        match Speaker::start_judged(voice, self.ip, judge).await {
            Ok(speaker) => {
                let local = speaker.local;
                self.running.insert(call, speaker);
                self.host.with(move |twilio, now| twilio.media_at(call, local, now)).await;
            }
            Err(error) => tracing::error!(%error, "no port for a voice"),
        }
    }
}
