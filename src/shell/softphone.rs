//! The scripted phone on real sockets, with a voice: what the demonstration and the load test call with.
//!
//! Owns: the phone's task and its voice's.
//! Never: decides what the phone does; its script and its owner do.

use super::{
    host::Host,
    voices::{Order, Speaker},
    wires::{Security, Sockets},
};
use crate::{
    ids::{Entropy, Transport},
    sim::{
        Agreement, Reach,
        phone::{Act, Heard, Phone, Setup},
        voice::{Report, Says, Voice},
    },
    tls::{Client, Trust},
};
use std::{io, net::SocketAddr, time::Instant};
use tokio::sync::watch;

/// What a phone has heard, and in how many calls it is.
#[derive(Clone, Debug, Default)]
struct Ears {
    heard: Vec<Heard>,
    calls: usize,
}

/// How a phone sounds: what it says, and for what it listens.
#[derive(Clone, Debug)]
pub struct Sounds {
    /// What it says.
    pub says: Says,
    /// The tone it listens for.
    pub listens_for_hz: f64,
}

/// A running phone. It ends when this is dropped.
pub struct Softphone {
    /// Where it listens.
    pub address: SocketAddr,
    host: Host<Phone>,
    ears: watch::Receiver<Ears>,
    voice: Speaker,
    /// How much of what was heard has been waited for already.
    read: usize,
}

impl Softphone {
    /// Starts a phone on a free port of `setup.local`'s address, over `setup.transport`.
    pub async fn start(mut setup: Setup, sounds: Sounds, seed: u64) -> io::Result<Self> {
        let ip = setup.local.ip();
        let sockets = match setup.transport {
            Transport::Udp => Sockets::udp(SocketAddr::new(ip, 0)).await?,
            Transport::Tcp | Transport::Tls => Sockets::bind(&[(ip, Reach::Open)], 0).await?.0,
        };
        let address = sockets.address()?;
        let mut entropy = Entropy::from_u64(seed);
        let voice = Voice::new(sounds.says, sounds.listens_for_hz, &mut entropy);
        let voice = Speaker::start(voice, ip).await?;
        (setup.local, setup.rtp) = (address, Some(voice.local));
        let (publish, ears) = watch::channel(Ears::default());
        let speaker = voice.orders();
        let mut told: Option<Agreement> = None;
        // Whose certificate it is, is the concern of other tests.
        let connector = Client::new(Trust::Anybody, None).map_err(io::Error::other)?;
        let connector = Some(connector.config().into());
        let net = (sockets, Security { connector, acceptor: None });
        let host = Host::start(Phone::new(setup, seed), net, move |phone: &mut Phone| {
            let calls = phone.calls();
            let media = phone.media().filter(|_| calls > 0);
            if media != told.as_ref() {
                told = media.cloned();
                let order = media.map_or(Order::Hush, |agreed| Order::Aim(agreed.clone()));
                // A voice that is so far behind will hear of a later one.
                let _ = speaker.try_send(order);
            }
            publish.send_modify(|ears| {
                ears.calls = calls;
                let known = ears.heard.len();
                ears.heard.extend_from_slice(phone.heard().get(known..).unwrap_or_default());
            });
        })?;
        Ok(Self { address, host, ears, voice, read: 0 })
    }

    /// Does something with the phone: sets up its script, say.
    pub async fn with(&self, step: impl FnOnce(&mut Phone) + Send + 'static) {
        self.host.with(move |phone, _| step(phone)).await;
    }

    /// Does something now, in the latest call.
    pub async fn act(&self, act: Act) {
        self.host.with(move |phone, now| phone.act(act, now)).await;
    }

    /// Presses keys (RFC 4733).
    pub fn press(&self, digits: &str) {
        // A voice with so much to do is not spoken to in time anyway.
        let _ = self.voice.orders().try_send(Order::Press(digits.into()));
    }

    /// Waits until the phone hears something that is wanted, and returns it; what came before that is
    /// not heard again. `None` if it does not by then.
    pub async fn hears(&mut self, wants: impl Fn(&Heard) -> bool, by: Instant) -> Option<Heard> {
        self.story(wants, by).await?.pop()
    }

    /// The same, with all that came before since the last wait.
    pub async fn story(
        &mut self,
        wants: impl Fn(&Heard) -> bool,
        by: Instant,
    ) -> Option<Vec<Heard>> {
        let from = self.read;
        let found = |ears: &Ears| {
            ears.heard.iter().enumerate().skip(from).find(|(_, heard)| wants(heard)).map(|(i, _)| i)
        };
        let wait = self.ears.wait_for(|ears| found(ears).is_some());
        let ears = tokio::time::timeout_at(by.into(), wait).await.ok()?.ok()?;
        let index = found(&ears)?;
        let story = ears.heard.get(from..=index).map(<[Heard]>::to_vec);
        drop(ears);
        self.read = index + 1;
        story
    }

    /// Waits until the phone is in no call.
    pub async fn is_free(&mut self, by: Instant) -> bool {
        let wait = self.ears.wait_for(|ears| ears.calls == 0);
        tokio::time::timeout_at(by.into(), wait).await.is_ok_and(|found| found.is_ok())
    }

    /// Returns what its voice has sent and heard, in all its calls.
    pub fn report(&self) -> Report {
        self.voice.report()
    }

    /// Waits until its voice has seen this much, or the time is up; returns what it has seen.
    pub async fn listens(&self, is_enough: impl Fn(&Report) -> bool, by: Instant) -> Report {
        self.voice.until(is_enough, by).await;
        self.voice.report()
    }
}
