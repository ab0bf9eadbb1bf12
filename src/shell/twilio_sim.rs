//! `tandem twilio-sim`: the simulated trunk on real sockets.
//!
//! Owns: the trunk's task, and a voice for each of its calls.
//! Never: judges the PBX; the trunk keeps the list.

use super::{
    host::Host,
    now,
    voices::{Order, Speaker},
    wires::Sockets,
};
use crate::{
    ids::{Entropy, Transport},
    sim::{
        twilio::{CallIn, CallNumber, Deviation, Event, Setup, Twilio},
        voice::{Report, Says, Voice},
    },
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Events of the trunk that may wait for its voices.
const EVENTS_MAX: usize = 1024;
/// What callers from the PSTN say, and what the trunk listens for, in Hz.
pub(super) const FAR_TONE_HZ: f64 = 1000.0;
pub(super) const NEAR_TONE_HZ: f64 = 440.0;

/// What the far ends of calls say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum FarVoice {
    /// Three tones, then an echo
    Echo,
    /// 1000 Hz for as long as the call lasts
    Tone,
}

/// The arguments of `tandem twilio-sim`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// Where the trunk listens (UDP and TCP); port 0: any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The termination URI's host
    #[arg(long, value_name = "HOST", default_value = "simulated.pstn.twilio.com")]
    pub termination: String,
    /// User name and password of the credential list
    #[arg(long, value_name = "USER:PASSWORD")]
    pub credentials: Option<String>,
    /// A number of the account, in E.164; may be given several times
    #[arg(long, value_name = "NUMBER", default_value = "+17756187988")]
    pub number: Vec<String>,
    /// What the far ends of calls say
    #[arg(long, value_enum, default_value = "echo")]
    pub voice: FarVoice,
    /// Call the PBX at this address from the PSTN, once it is up
    #[arg(long, value_name = "ADDRESS", requires = "did")]
    pub call: Option<SocketAddr>,
    /// The number that such a call is for
    #[arg(long, value_name = "NUMBER")]
    pub did: Option<String>,
    /// Who calls
    #[arg(long, value_name = "NUMBER", default_value = "+14155550100")]
    pub from: String,
    /// For how long the caller talks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub talk: u64,
    /// End after this many calls; exit with 1 if the PBX broke a rule
    #[arg(long, value_name = "CALLS")]
    pub calls: Option<u64>,
    /// The seed of tags and nonces
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// A call of the trunk that is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) status: u16,
    pub(super) report: Report,
}

/// A running trunk.
pub(super) struct Trunk {
    /// Where it listens.
    pub(super) address: SocketAddr,
    host: Arc<Host<Twilio>>,
    voices: JoinHandle<()>,
    ended: watch::Receiver<Vec<Ended>>,
    voice: watch::Sender<FarVoice>,
}

impl Trunk {
    /// Starts the trunk; its first address is replaced by the one that was bound.
    pub(super) async fn start(mut setup: Setup, voice: FarVoice, seed: u64) -> io::Result<Self> {
        let wanted = setup.addresses().into_iter().next();
        let wanted = wanted.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let sockets = Sockets::udp_and_tcp(&[wanted.ip()], wanted.port()).await?;
        let address = sockets.address()?;
        setup.edges = Setup::new(address, "").edges;
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        let host = Host::start(Twilio::new(setup, seed), sockets, move |twilio: &mut Twilio| {
            while let Some(event) = twilio.poll_event() {
                // A trunk whose voices do not keep up goes on without them.
                let _ = events.try_send(event);
            }
        })?;
        let host = Arc::new(host);
        let (publish, ended) = watch::channel(vec![]);
        let (voice, says) = watch::channel(voice);
        let voices = Voices {
            host: host.clone(),
            ip: address.ip(),
            says,
            entropy: Entropy::from_u64(seed),
            running: BTreeMap::new(),
            publish,
        };
        let voices = tokio::spawn(voices.run(queue));
        Ok(Self { address, host, voices, ended, voice })
    }

    /// Calls the PBX.
    pub(super) async fn call_in(&self, call: CallIn) {
        self.host.with(move |twilio, now| twilio.call_in(&call, now)).await;
    }

    /// Sets what the far ends of later calls say.
    pub(super) fn set_voice(&self, voice: FarVoice) {
        self.voice.send_replace(voice);
    }

    /// Returns what the PBX did wrong so far.
    pub(super) async fn deviations(&self) -> Vec<Deviation> {
        self.host.with(|twilio, _| twilio.deviations().to_vec()).await.unwrap_or_default()
    }

    /// Returns the calls that are over, as they end.
    pub(super) fn ended(&self) -> watch::Receiver<Vec<Ended>> {
        self.ended.clone()
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.voices.abort();
    }
}

/// The voices of one trunk.
struct Voices {
    host: Arc<Host<Twilio>>,
    ip: IpAddr,
    says: watch::Receiver<FarVoice>,
    entropy: Entropy,
    running: BTreeMap<CallNumber, Speaker>,
    publish: watch::Sender<Vec<Ended>>,
}

impl Voices {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::MediaWanted { call } => self.open(call).await,
                Event::MediaStart { call, agreed } => {
                    if let Some(speaker) = self.running.get(&call) {
                        speaker.order(Order::Aim(agreed));
                    }
                }
                Event::Up { call } => tracing::info!(call = call.0, "call up"),
                Event::MediaStop { .. } => {}
                Event::Over { call, status } => {
                    let speaker = self.running.remove(&call);
                    let report = speaker.map(|speaker| speaker.report()).unwrap_or_default();
                    tracing::info!(
                        call = call.0,
                        status,
                        sent = report.sent,
                        received = report.received,
                        lost = report.lost,
                        "call over"
                    );
                    self.publish.send_modify(|ended| ended.push(Ended { status, report }));
                }
            }
        }
    }

    async fn open(&mut self, call: CallNumber) {
        let says = match *self.says.borrow() {
            FarVoice::Echo => Says::announcement(),
            FarVoice::Tone => Says::Tone(FAR_TONE_HZ),
        };
        let voice = Voice::new(says, NEAR_TONE_HZ, &mut self.entropy);
        match Speaker::start(voice, self.ip).await {
            Ok(speaker) => {
                let local = speaker.local;
                self.running.insert(call, speaker);
                self.host.with(move |twilio, now| twilio.media_at(call, local, now)).await;
            }
            Err(error) => tracing::error!(%error, "no port for a voice"),
        }
    }
}

/// Runs the trunk until interrupted, or until it has had its calls. Returns whether the PBX kept every
/// rule.
pub async fn run(args: SimArgs) -> io::Result<bool> {
    let trunk = Trunk::start(setup(&args), args.voice, args.seed).await?;
    let mut out = io::stdout();
    writeln!(out, "listening on udp:{}", trunk.address)?;
    out.flush()?;
    if let (Some(to), Some(did)) = (args.call, &args.did) {
        let call = CallIn {
            did: did.as_str().into(),
            from: args.from.as_str().into(),
            name: Some("Simulated Caller".into()),
            to,
            transport: Transport::Udp,
            through: None,
            talks_for: Some(Duration::from_secs(args.talk)),
            waits: None,
        };
        trunk.call_in(call).await;
    }
    let mut ended = trunk.ended();
    let wanted = args.calls.unwrap_or(u64::MAX);
    tokio::select! {
        _ = ended.wait_for(|ended| ended.len() as u64 >= wanted) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let deviations = trunk.deviations().await;
    for deviation in &deviations {
        writeln!(out, "deviation: {deviation}")?;
    }
    for call in ended.borrow().iter() {
        let Ended { status, report: Report { sent, received, lost, .. } } = call;
        writeln!(out, "call: {status}, {sent} packets sent, {received} received, {lost} lost")?;
    }
    Ok(deviations.is_empty())
}

fn setup(args: &SimArgs) -> Setup {
    let credentials = args.credentials.as_deref().and_then(|both| both.split_once(':'));
    let mut setup = Setup::new(args.listen, &args.termination);
    setup.account.credentials = credentials.map(|(user, password)| (user.into(), password.into()));
    setup.account.numbers = args.number.iter().map(|number| number.as_str().into()).collect();
    setup
}

/// Waits for one more call to end than `before`, at most until `by`.
pub(super) async fn next_ended(
    ended: &mut watch::Receiver<Vec<Ended>>,
    before: usize,
    by: std::time::Instant,
) -> Option<Ended> {
    let more = ended.wait_for(|ended| ended.len() > before);
    let found = tokio::time::timeout_at(by.into(), more).await.ok()?.ok()?;
    found.get(before).cloned()
}

/// Returns the end of a wait that begins now.
pub(super) fn within(time: Duration) -> std::time::Instant {
    now() + time
}
