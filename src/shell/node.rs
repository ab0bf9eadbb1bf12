//! A running node: everything started, joined and ended in the right order.
//!
//! Owns: the tasks and threads of the program.
//! Never: handles a message or a packet; it only builds those who do.

use super::{
    control::Control,
    desk::Desk,
    helpers::Helpers,
    http,
    media_worker::MediaWorker,
    now,
    places::World,
    routes::{Listener, Routes},
    shard_loop::{Ears, Hands, Ingress, ShardLoop},
    store::Store,
    stream::Opener,
    udp,
};
use crate::{
    config::{Config, PublicIp},
    dialplan,
    ids::{Entropy, MintKey, ShardId, Transport},
    registrar::Location,
    shard::{Shard, Shared},
};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};
use tokio::{
    net::{TcpListener, TcpSocket, UdpSocket},
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Operators' orders, media events and helpers' answers that may wait for the shard.
const ORDERS_MAX: usize = 64;
const EVENTS_MAX: usize = 8192;
const ANSWERS_MAX: usize = 1024;

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
    shard: JoinHandle<()>,
    ended: watch::Receiver<bool>,
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
    /// Waits for it.
    pub async fn wait(mut self) {
        // The sender is gone where the shard has ended in another way: that is an end too.
        let _ = self.0.wait_for(|ended| *ended).await;
    }
}

/// The bound sockets of a node.
struct Bound {
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
    listeners: Vec<Listener>,
}

impl Node {
    /// Binds, restores and starts everything.
    pub async fn start(config: Config, place: Place) -> Result<Self, StartError> {
        dialplan::warm();
        let part = |what| move |error| StartError::Part { what, error };
        let bound = bind(&config)?;
        let config = Arc::new(with_bound_ports(with_public_ip(config)?, &bound.listeners));
        if let Some(folder) = place.database.parent() {
            std::fs::create_dir_all(folder).map_err(part("database's folder"))?;
        }
        let store = Store::spawn(&place.database).map_err(part("store"))?;
        let control = Control::bind(&place.socket)?;

        let (ingress, packets) = Ingress::new();
        let (media_events, media) = mpsc::channel(EVENTS_MAX);
        let workers =
            MediaWorker::spawn_all(&config.rtp, &media_events).map_err(part("media workers"))?;
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let (order, orders) = mpsc::channel(ORDERS_MAX);
        let routes = Routes::new(bound.listeners.clone());
        let location = Location::new();
        restore(&location, &store, &routes).await;

        let mut entropy = Entropy::new(seed().map_err(part("random numbers"))?);
        let shared = Shared {
            config: config.clone(),
            location: location.clone(),
            key: MintKey::draw(&mut entropy),
        };
        let mut shard_seed = [0; 32];
        entropy.fill(&mut shard_seed);
        let shard = Shard::new(ShardId(0), shared, shard_seed, now(), SystemTime::now());
        let opener = Opener::new(ingress.clone());
        let hands = Hands {
            udp: bound.udp.clone(),
            opener: opener.clone(),
            media: workers.iter().map(MediaWorker::handle).collect(),
            helpers: Helpers::new(answer, routes.clone()),
            store: store.handle(),
            ingress: ingress.clone(),
        };
        let ears = Ears { packets, orders, media, answers };
        let (end, ended) = watch::channel(false);
        let shard = tokio::spawn(async move {
            ShardLoop::new(shard, hands).run(ears).await;
            end.send_replace(true);
        });

        let mut tasks = vec![];
        for socket in bound.udp {
            tasks.push(tokio::spawn(udp::read(socket, routes.clone(), ingress.clone())));
        }
        for listener in bound.tcp {
            tasks.push(tokio::spawn(opener.clone().accept(listener)));
        }
        let media = workers.iter().map(MediaWorker::handle).collect();
        let desk = Arc::new(Desk::new(
            order,
            config.clone(),
            location,
            store.handle(),
            media,
            &bound.listeners,
            place.config,
        ));
        let handle = store.handle();
        let served = desk.clone();
        tasks.push(tokio::spawn(control.serve(served, handle)));
        let http = serve_http(&config, &desk, &mut tasks).await?;
        for listener in &bound.listeners {
            let transport = listener.transport.param();
            tracing::info!(transport, address = %listener.address, "listening");
        }
        Ok(Self { desk, shard, ended, tasks, workers, store, listeners: bound.listeners, http })
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
        Drained(self.ended.clone())
    }

    /// Ends everything: sockets close, records are written.
    pub async fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
        self.shard.abort();
        let _ = self.shard.await;
        for worker in self.workers {
            worker.stop();
        }
        let store = self.store;
        // Writing what waits blocks, and must not hold up a runtime thread.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

async fn serve_http(
    config: &Config,
    desk: &Arc<Desk>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(address) = config.http.listen else { return Ok(None) };
    let listen = |error| StartError::Listen {
        transport: "http",
        address,
        error,
        help: "set `[http] listen` to another port, or to \"off\"",
    };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let desk = desk.clone();
    tasks.push(tokio::spawn(async move {
        if let Err(error) = http::serve(listener, desk).await {
            tracing::error!(%error, "http server ended");
        }
    }));
    tracing::info!(transport = "http", address = %bound, "listening");
    Ok(Some(bound))
}

fn bind(config: &Config) -> Result<Bound, StartError> {
    let mut bound = Bound { udp: vec![], tcp: vec![], listeners: vec![] };
    for listen in &config.sip.listen {
        let (transport, address) = (listen.transport, listen.address);
        let error = |error| StartError::Listen {
            transport: transport.param(),
            address,
            error,
            help: "another program has the port: stop it, or change `[sip] listen`",
        };
        // `udp:…:0 tcp:…:0` means one free port for both, as phones expect it.
        let twin = bound.listeners.iter().find(|l: &&Listener| l.address.ip() == address.ip());
        let port =
            if address.port() == 0 { twin.map_or(0, |t| t.address.port()) } else { address.port() };
        let address = SocketAddr::new(address.ip(), port);
        let local = match transport {
            Transport::Udp => {
                let socket = udp::bind(address).map_err(error)?;
                let local = socket.local_addr().map_err(error)?;
                bound.udp.push(Arc::new(socket));
                local
            }
            Transport::Tcp => {
                let listener = bind_tcp(address).map_err(error)?;
                let local = listener.local_addr().map_err(error)?;
                bound.tcp.push(listener);
                local
            }
        };
        bound.listeners.push(Listener { transport, address: local });
    }
    Ok(bound)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the connections of before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Port 0 means any free one; from here on everybody must know which it became.
fn with_bound_ports(mut config: Config, listeners: &[Listener]) -> Config {
    for (listen, bound) in config.sip.listen.iter_mut().zip(listeners) {
        listen.address.set_port(bound.address.port());
    }
    config
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
