//! A running node: everything started, joined and ended in the right order.
//!
//! Owns: the tasks and threads of the program.
//! Never: handles a message or a packet; it only builds those who do.

use super::{
    control::Control,
    desk::{Desk, Origin},
    helpers::Helpers,
    http,
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
    tls::Security,
    udp,
};
use crate::{
    config::{Config, PublicIp},
    dialplan,
    ids::{Entropy, MintKey, ShardId},
    media,
    registrar::Location,
    shard::{Answer, Shard, Shared},
};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

/// Operators' orders, media events and helpers' answers that may wait for the shard.
const ORDERS_MAX: usize = 64;
const EVENTS_MAX: usize = 8192;
const ANSWERS_MAX: usize = 1024;
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

/// A running node.
pub struct Node {
    desk: Arc<Desk>,
    shard: ShardThread,
    tasks: Vec<JoinHandle<()>>,
    workers: Vec<MediaWorker>,
    store: Store,
    listeners: Vec<Listener>,
    http: Option<SocketAddr>,
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
    pub async fn start(config: Config, place: Place) -> Result<Self, StartError> {
        dialplan::warm();
        let part = |what| move |error| StartError::Part { what, error };
        let bound = listeners::bind(&config)?;
        let http = bind_http(&config).await?;
        let (file, listen) = (place.config, config.sip.listen.clone());
        let config =
            Arc::new(listeners::with_bound_ports(with_public_ip(config)?, &bound.listeners));
        if let Some(folder) = place.database.parent() {
            // Where that fails the store complains; calls do not need it.
            let _ = std::fs::create_dir_all(folder);
        }
        let store = Store::spawn(&place.database).map_err(part("store"))?;
        let control = Control::bind(&place.socket)?;

        let (ways, ears) = queues();
        let workers =
            MediaWorker::spawn_all(&config.rtp, &ways.media).map_err(part("media workers"))?;
        let media: Vec<_> = workers.iter().map(MediaWorker::handle).collect();
        let routes = Routes::new(bound.listeners.clone());
        let location = Location::new();
        restore(&location, &store, &routes).await;
        let shard = shard(config.clone(), &location).map_err(part("random numbers"))?;
        let security = watch::Sender::new(Security::new(&config));
        let opener = Opener::new(ways.ingress.clone(), security.subscribe(), config.sip.dscp);
        let hands = Hands {
            opener: opener.clone(),
            media: media.iter().cloned().map(MediaLine::new).collect(),
            helpers: Helpers::new(ways.answer, routes.clone(), &config.node.resolver),
            store: store.handle(),
        };
        tell_of_caps(&bound.udp);
        let plan = Plan { shard, hands, ears, udp: bound.udp, routes, config: config.clone() };
        let shard = ShardThread::start(plan).await.map_err(part("shard"))?;

        let mut tasks = vec![];
        for (transport, listener) in bound.streams {
            tasks.push(tokio::spawn(opener.clone().accept(transport, listener)));
        }
        let (listeners, handle) = (bound.listeners, store.handle());
        let origin = Origin { file, listen, security };
        let desk = Desk::new(ways.order, config, location, handle, media, &listeners, origin);
        let desk = Arc::new(desk);
        tasks.push(tokio::spawn(control.serve(desk.clone(), store.handle())));
        let admin = http.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = http {
            tasks.push(tokio::spawn(serve_http(listener, desk.clone())));
        }
        for listener in &listeners {
            let transport = listener.transport.param();
            tracing::info!(transport, address = %listener.address, "listening");
        }
        Ok(Self { desk, shard, tasks, workers, store, listeners, http: admin })
    }

    /// Returns where it listens for SIP.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Returns where it answers HTTP, if it does.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Returns the way to the store.
    pub fn store(&self) -> super::store::Handle {
        self.store.handle()
    }

    /// Returns who answers operators.
    pub fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Returns what ends when a drain has finished.
    pub fn drained(&self) -> Drained {
        Drained(self.shard.ended.clone())
    }

    /// Ends everything: calls are hung up, records are written, sockets close.
    pub async fn stop(self) {
        self.desk.order(Order::Stop).await;
        if timeout(STOP_MAX, self.shard.join()).await.is_err() {
            tracing::error!("shard does not end");
        }
        for task in self.tasks {
            task.abort();
        }
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

/// Says where the kernel grants less room for datagrams than is wanted.
fn tell_of_caps(sockets: &[UdpSocket]) {
    for bytes in sockets.iter().filter_map(udp::capped_at).take(1) {
        tracing::info!(bytes, help = udp::CAP_HELP, "receive buffer capped");
    }
}

fn shard(config: Arc<Config>, location: &Location) -> io::Result<Shard> {
    let mut entropy = Entropy::new(seed()?);
    let key = MintKey::draw(&mut entropy);
    let shared = Shared { config, location: location.clone(), key };
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    Ok(Shard::new(ShardId(0), shared, seed, now(), SystemTime::now()))
}

async fn bind_http(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = config.http.listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|error| StartError::Listen {
        transport: "http",
        address,
        error,
        help: "set `[http] listen` to another port, or to false",
    })?;
    Ok(Some(listener))
}

async fn serve_http(listener: TcpListener, desk: Arc<Desk>) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(transport = "http", %address, "listening");
    }
    if let Err(error) = http::serve(listener, desk).await {
        tracing::error!(%error, "http server ended");
    }
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

/// Takes up the bindings of before the restart.
async fn restore(location: &Location, store: &Store, routes: &Routes) {
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
    let lost = location.restore(bindings, &listeners, wall).len();
    tracing::debug!(restored = total.saturating_sub(lost), lost, "bindings restored");
}

pub(super) fn seed() -> io::Result<[u8; 32]> {
    use std::io::Read;
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
