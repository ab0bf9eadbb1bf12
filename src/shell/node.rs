//! A running node: everything started, joined and ended in the right order.
//!
//! Owns: the tasks and threads of the program.
//! Never: handles a message or a packet; it only builds those who do.

use super::{
    control::Control,
    desk::{Desk, Origin},
    doors::{Behind, Doors},
    files,
    helpers::Helpers,
    ingress::Ingress,
    listeners,
    media_line::MediaLine,
    media_worker::MediaWorker,
    now,
    places::World,
    routes::{Listener, Routes},
    shard_loop::{Ears, Hands, Order},
    shard_thread::{Plan, ShardThread},
    store::Store,
    stream::Opener,
    succession::{Heritage, Succession},
    tls::Security,
    udp,
};
use crate::{
    config::{Config, PublicIp},
    dialplan,
    ids::{Entropy, Flow, MintKey, ShardId},
    media,
    registrar::Location,
    shard::{Answer, Shard, Shared},
};
use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Operators' orders, media events and helpers' answers that may wait for the shard.
const ORDERS_MAX: usize = 64;
const EVENTS_MAX: usize = 8192;
const ANSWERS_MAX: usize = 1024;
/// A part that may not be there.
const RANDOM: &str = "random numbers";
/// How long the shard may take to let go of everything.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Why a node does not start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {transport}:{address}: {error} (help: {help})")]
    Listen {
        /// How.
        transport: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
        /// What to do.
        help: &'static str,
    },
    /// The control socket.
    #[error(transparent)]
    Control(#[from] super::control::ControlError),
    /// A thread or a file.
    #[error("cannot start the {what}: {error}")]
    Part {
        /// Which.
        what: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// The process before this one.
    #[error("cannot take over from the process before this one: {0} (help: it goes on serving)")]
    Succession(io::Error),
    /// `[node] public_ip = "interface:NAME"`.
    #[error(
        "`public_ip` names an interface without an address: {0} (help: `ip address` lists them)"
    )]
    Interface(Box<str>),
}

/// Where a node keeps its things, and what it was started from.
#[derive(Clone, Debug)]
pub struct Place {
    /// The configuration file; `None` where the configuration is not from a file and cannot be
    /// read again.
    pub config: Option<Box<str>>,
    /// The control socket.
    pub socket: PathBuf,
    /// The database.
    pub database: PathBuf,
}

impl Place {
    /// Returns the places that this configuration means.
    pub fn of(config: &Config, file: Option<&str>) -> Self {
        let world = World::real();
        let named = |name: &Option<Box<str>>| name.as_deref().map(PathBuf::from);
        Self {
            config: file.map(Into::into),
            socket: named(&config.control.socket).unwrap_or_else(|| world.control_socket()),
            database: named(&config.store.sqlite).unwrap_or_else(|| world.database()),
        }
    }
}

/// Somebody who wants this process to be replaced, and waits for the number of the one that does.
pub(super) type Upgrade = oneshot::Sender<Result<u32, String>>;

/// A running node.
pub struct Node {
    desk: Arc<Desk>,
    shard: ShardThread,
    workers: Vec<MediaWorker>,
    store: Store,
    pub(super) doors: Doors,
    pub(super) ingress: Ingress,
    pub(super) key: MintKey,
    pub(super) shard_id: ShardId,
    /// Who wants it to be replaced, where it can be.
    upgrades: Option<mpsc::Receiver<Upgrade>>,
}

/// The end of a drain.
#[derive(Clone, Debug)]
pub struct Drained(watch::Receiver<bool>);

impl Drained {
    /// Waits for it. Returns false where the shard has ended in another way: our bug.
    pub async fn wait(mut self) -> bool {
        self.0.wait_for(|ended| *ended).await.is_ok()
    }
}

impl Node {
    /// Binds, restores and starts everything.
    ///
    /// # Errors
    /// If something of it is not to be had.
    pub async fn start(config: Config, place: Place) -> Result<Self, StartError> {
        Self::begin(config, place, None, None).await
    }

    /// The same for a process of its own, from what the one before it leaves, if there is one. Whoever asks for an
    /// upgrade from its first answer on is heard. The first process of a container is the container, and is not
    /// replaced.
    ///
    /// # Errors
    /// If something of it is not to be had: the process before this one then goes on.
    pub async fn start_or_succeed(
        config: Config,
        place: Place,
        heritage: Option<Heritage>,
    ) -> Result<Self, StartError> {
        if std::process::id() == 1 {
            return Self::begin(config, place, heritage, None).await;
        }
        let (upgrade, upgrades) = mpsc::channel(1);
        let node = Self::begin(config, place, heritage, Some(upgrade)).await?;
        Ok(Self { upgrades: Some(upgrades), ..node })
    }

    async fn begin(
        config: Config,
        place: Place,
        mut heritage: Option<Heritage>,
        upgrade: Option<mpsc::Sender<Upgrade>>,
    ) -> Result<Self, StartError> {
        dialplan::warm();
        let part = |what| move |error| StartError::Part { what, error };
        let bound = listeners::bind(&config, heritage.as_mut())?;
        let http = bind_http(&config, heritage.as_mut())?;
        let (file, listen) = (place.config, config.sip.listen.clone());
        let config =
            Arc::new(listeners::with_bound_ports(with_public_ip(config)?, &bound.listeners));
        if let Some(folder) = place.database.parent() {
            // Where that fails the store complains; calls do not need it.
            let _ = std::fs::create_dir_all(folder);
        }
        let (key, shard_id) = identity(heritage.as_ref()).map_err(part(RANDOM))?;
        let (ways, ears) = queues();
        let workers =
            MediaWorker::spawn_all(&config.rtp, &ways.media).map_err(part("media workers"))?;
        let store = Store::spawn(&place.database).map_err(part("store"))?;

        // Nothing above changes anything that another process could see.
        let mut succession = match heritage {
            Some(heritage) => Some(heritage.ready().await.map_err(StartError::Succession)?),
            None => None,
        };
        let control = Control::bind(&place.socket)?;
        let media: Vec<_> = workers.iter().map(MediaWorker::handle).collect();
        let routes = Routes::new(bound.listeners.clone());
        let location = Location::new();
        restore(&location, &store, &routes, succession.as_ref()).await;
        store.handle().close_lost();
        let shared = Shared { config: config.clone(), location: location.clone(), key };
        let mut shard =
            Shard::new(shard_id, shared, seed().map_err(part(RANDOM))?, now(), SystemTime::now());
        restore_bans(&mut shard, &store).await;
        let security = watch::Sender::new(Security::new(&config));
        let places = files::connections(&config.rtp);
        let opener =
            Opener::new(ways.ingress.clone(), security.subscribe(), config.sip.dscp, places);
        let hands = Hands {
            opener: opener.clone(),
            media: media.iter().cloned().map(MediaLine::new).collect(),
            helpers: Helpers::new(ways.answer, routes.clone(), &config.node.resolver),
            store: store.handle(),
        };
        tell_of_caps(&bound.udp);
        let origin = Origin { file, listen, security };
        let handle = store.handle();
        let elder = succession.as_ref().map(|succession| succession.elder.clone());
        let ways_in = super::desk::Ways { orders: ways.order, upgrade, elder };
        let desk =
            Desk::new(ways_in, config.clone(), location, handle, media, &bound.listeners, origin);
        let desk = Arc::new(desk);
        let behind = Behind { opener, desk: desk.clone(), store: store.handle() };
        let mut doors =
            Doors::new(&bound, http, &place.socket, behind).map_err(part("listeners"))?;
        let inherited = succession.as_mut().and_then(|succession| succession.inherited.take());
        let plan = Plan { shard, hands, ears, udp: bound.udp, routes, config, inherited };
        let shard = ShardThread::start(plan).await.map_err(part("shard"))?;
        doors.open(control).map_err(part("listeners"))?;
        if let Some(succession) = succession {
            succession.serving(ways.ingress.clone()).map_err(StartError::Succession)?;
        }
        for listener in doors.listeners() {
            let transport = listener.transport.param();
            tracing::info!(transport, address = %listener.address, "listening");
        }
        let ingress = ways.ingress;
        Ok(Self { desk, shard, workers, store, doors, ingress, key, shard_id, upgrades: None })
    }

    /// Returns what tells who wants it to be replaced, the first time; nothing where it cannot be.
    pub(super) fn take_upgrades(&mut self) -> Option<mpsc::Receiver<Upgrade>> {
        self.upgrades.take()
    }

    /// Returns where it listens for SIP.
    pub fn listeners(&self) -> &[Listener] {
        self.doors.listeners()
    }

    /// Returns where it answers HTTP, if it does.
    pub fn http(&self) -> Option<SocketAddr> {
        self.doors.http()
    }

    /// Returns the way to the store.
    pub fn store(&self) -> super::store::Handle {
        self.store.handle()
    }

    /// Returns who answers operators.
    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Returns whether new calls are refused.
    pub(super) fn is_draining(&self) -> bool {
        super::http::Inspect::readiness(&*self.desk).is_draining
    }

    /// Returns what ends when a drain has finished.
    pub fn drained(&self) -> Drained {
        Drained(self.shard.ended.clone())
    }

    /// Ends everything: calls are hung up, records are written, sockets close.
    pub async fn stop(mut self) {
        self.desk.order(Order::Stop).await;
        if timeout(STOP_MAX, self.shard.join()).await.is_err() {
            tracing::error!("shard does not end");
        }
        self.doors.close().await;
        for worker in self.workers {
            worker.stop();
        }
        let store = self.store;
        // Writing what waits blocks, and must not hold up a runtime thread.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

/// The ways to the shard.
struct Ways {
    ingress: Ingress,
    order: mpsc::Sender<Order>,
    answer: mpsc::Sender<Answer>,
    media: mpsc::Sender<media::Event>,
}

fn queues() -> (Ways, Ears) {
    let (ingress, packets) = Ingress::new();
    let (order, orders) = mpsc::channel(ORDERS_MAX);
    let (answer, answers) = mpsc::channel(ANSWERS_MAX);
    let (media, events) = mpsc::channel(EVENTS_MAX);
    (Ways { ingress, order, answer, media }, Ears { packets, orders, media: events, answers })
}

/// Returns what identifiers are sealed with, and whose they are.
fn identity(heritage: Option<&Heritage>) -> io::Result<(MintKey, ShardId)> {
    match heritage {
        Some(heritage) => Ok((heritage.key(), heritage.shard())),
        None => Ok((MintKey::draw(&mut Entropy::new(seed()?)), ShardId(0))),
    }
}

/// Says where the kernel grants less room for datagrams than is wanted.
fn tell_of_caps(sockets: &[UdpSocket]) {
    for bytes in sockets.iter().filter_map(udp::capped_at).take(1) {
        tracing::info!(bytes, help = udp::CAP_HELP, "receive buffer capped");
    }
}

fn bind_http(
    config: &Config,
    heritage: Option<&mut Heritage>,
) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = config.http.listen else { return Ok(None) };
    if let Some(taken) = heritage.and_then(|heritage| heritage.take_http(address)) {
        return Ok(Some(taken));
    }
    let help = "set `[http] listen` to another port, or to false";
    let error = |error| StartError::Listen { transport: "http", address, error, help };
    Ok(Some(listeners::bind_tcp(address).map_err(error)?))
}

/// `interface:NAME` means the address that it has now.
pub(super) fn with_public_ip(mut config: Config) -> Result<Config, StartError> {
    if let PublicIp::Interface(name) = &config.node.public_ip {
        let address = super::routes::interface_address(name)
            .ok_or_else(|| StartError::Interface(name.clone()))?;
        config.node.public_ip = PublicIp::Address(address);
    }
    Ok(config)
}

/// Takes up the bindings of before the restart, or of the process before this one.
async fn restore(
    location: &Location,
    store: &Store,
    routes: &Routes,
    succession: Option<&Succession>,
) {
    let wall = SystemTime::now();
    let bindings = match store.handle().bindings(wall).await {
        Ok(bindings) => bindings,
        Err(error) => {
            tracing::warn!(%error, "bindings not restored");
            return;
        }
    };
    let listeners: Vec<_> = routes.listeners().iter().map(|l| (l.transport, l.address)).collect();
    let total = bindings.len();
    let connections: BTreeSet<Flow> =
        succession.iter().flat_map(|succession| &succession.connections).copied().collect();
    let lost = location.restore(bindings, &listeners, &connections, wall).len();
    tracing::debug!(restored = total.saturating_sub(lost), lost, "bindings restored");
}

/// Takes up the bans of before the restart, or of the process before this one.
async fn restore_bans(shard: &mut Shard, store: &Store) {
    match store.handle().bans(SystemTime::now()).await {
        Ok(bans) => shard.take_up_bans(bans, now()),
        Err(error) => tracing::warn!(%error, "bans not restored"),
    }
}

pub(super) fn seed() -> io::Result<[u8; 32]> {
    use std::io::Read;
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
