//! The sockets of a simulated peer: any number of addresses, datagrams and connections.
//!
//! Owns: the sockets, a task for each, and the connections.
//! Never: knows who the peer is, or looks into a message.

use super::udp;
use crate::{
    ids::{Flow, Transport},
    sim::Reach,
    sip::framing::{Frame, Framer},
    tls::{Failure, server_name},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

/// Arrivals that may wait for the peer, and messages that may wait for a connection.
const ARRIVALS_MAX: usize = 1024;
const WRITES_MAX: usize = 256;
const DATAGRAM_MAX: usize = 65_535;
/// How long a peer may take to accept a connection, or a written message.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often to try for a port that is free at all addresses.
const TRIES_MAX: u32 = 32;
/// The answer to a double CRLF (RFC 5626 4.4.1).
const PONG: &[u8] = b"\r\n";

/// Bound sockets that nobody reads yet.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    deaf: Vec<Deaf>,
}

/// What TLS connections are made with: those of others to us, and ours to them.
#[derive(Clone, Default)]
pub(super) struct Security {
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) connector: Option<TlsConnector>,
}

/// An address at which everything is lost: datagrams are not read, and no connection is completed,
/// since the one that may wait to be accepted is our own.
#[derive(Debug)]
struct Deaf {
    _udp: Option<UdpSocket>,
    _tcp: TcpListener,
    _own: TcpStream,
}

impl Deaf {
    async fn bind(udp: Option<UdpSocket>, address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(0)?;
        Ok(Self { _own: TcpStream::connect(address).await?, _udp: udp, _tcp: tcp })
    }
}

impl Sockets {
    /// Binds UDP at one address.
    pub(super) async fn udp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { udp: vec![UdpSocket::bind(address).await?], ..Self::default() })
    }

    /// Binds UDP and TCP on one port of every address, and the next port for TLS. The first port is
    /// returned as well: 0 becomes one that is free at all of them. An address that refuses is left alone, a blackholed one is bound
    /// and never heard.
    pub(super) async fn bind(addresses: &[(IpAddr, Reach)], port: u16) -> io::Result<(Self, u16)> {
        let mut tries = if port == 0 { TRIES_MAX } else { 1 };
        loop {
            tries = tries.saturating_sub(1);
            match Self::try_bind(addresses, port).await {
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
    }

    async fn try_bind(addresses: &[(IpAddr, Reach)], mut port: u16) -> io::Result<(Self, u16)> {
        let mut sockets = Self::default();
        for (ip, reach) in addresses {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("cannot listen on {ip}:{port}: {error}"))
            };
            if *reach == Reach::Refusing {
                continue;
            }
            let socket = udp::bind(SocketAddr::new(*ip, port))
                .and_then(UdpSocket::from_std)
                .map_err(named)?;
            let address = socket.local_addr()?;
            let secure = SocketAddr::new(*ip, address.port().wrapping_add(1));
            match reach {
                Reach::Blackholed => {
                    let plain = Deaf::bind(Some(socket), address).await.map_err(named)?;
                    let secure = Deaf::bind(None, secure).await.map_err(named)?;
                    sockets.deaf.extend([plain, secure]);
                }
                Reach::Open | Reach::Slow(_) | Reach::Refusing => {
                    sockets.tcp.push(TcpListener::bind(address).await.map_err(named)?);
                    sockets.tls.push(TcpListener::bind(secure).await.map_err(named)?);
                    sockets.udp.push(socket);
                }
            }
            port = address.port();
        }
        Ok((sockets, port))
    }

    /// Returns the first address that is listened on.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        let first = self.udp.first().map(UdpSocket::local_addr);
        first.unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))
    }
}

/// What came in.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A message; over a connection also a keep-alive, as it was written.
    Message(Flow, Bytes),
    /// Somebody has connected.
    Opened(Flow, mpsc::Sender<Bytes>),
    /// A connection is gone, or could not be opened.
    Closed(Flow),
    /// A TLS handshake: the name that was asked for, or why it failed.
    Shaken(Flow, Result<Option<Box<str>>, Failure>),
}

/// The sockets at work. Everything ends when this is dropped.
pub(super) struct Wires {
    security: Security,
    udp: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    connections: BTreeMap<Flow, mpsc::Sender<Bytes>>,
    arrivals: mpsc::Sender<Arrival>,
    queue: mpsc::Receiver<Arrival>,
    tasks: JoinSet<()>,
    _deaf: Vec<Deaf>,
}

impl Wires {
    /// Starts to listen.
    pub(super) fn start(sockets: Sockets, security: Security) -> io::Result<Self> {
        let (arrivals, queue) = mpsc::channel(ARRIVALS_MAX);
        let mut tasks = JoinSet::new();
        let mut udp = BTreeMap::new();
        for socket in sockets.udp {
            let (local, socket) = (socket.local_addr()?, Arc::new(socket));
            udp.insert(local, socket.clone());
            tasks.spawn(hear(socket, local, arrivals.clone()));
        }
        for listener in sockets.tcp {
            let local = listener.local_addr()?;
            tasks.spawn(accept(listener, local, None, arrivals.clone()));
        }
        for listener in sockets.tls {
            // Without a certificate nobody listens: the port is kept all the same.
            let Some(acceptor) = security.acceptor.clone() else { continue };
            let local = listener.local_addr()?;
            tasks.spawn(accept(listener, local, Some(acceptor), arrivals.clone()));
        }
        let connections = BTreeMap::new();
        Ok(Self { security, udp, connections, arrivals, queue, tasks, _deaf: sockets.deaf })
    }

    /// Waits for the next message, or the end of a connection.
    pub(super) async fn arrival(&mut self) -> Option<Arrival> {
        while self.tasks.try_join_next().is_some() {}
        match self.queue.recv().await? {
            Arrival::Opened(flow, writer) => {
                self.connections.insert(flow, writer.clone());
                Some(Arrival::Opened(flow, writer))
            }
            Arrival::Closed(flow) => {
                let is_dead = |writer: &mpsc::Sender<Bytes>| writer.is_closed();
                // Another connection may have taken its place.
                if self.connections.get(&flow).is_some_and(is_dead) {
                    self.connections.remove(&flow);
                }
                Some(Arrival::Closed(flow))
            }
            other @ (Arrival::Message(..) | Arrival::Shaken(..)) => Some(other),
        }
    }

    /// Sends a message; over a connection, opening one where there is none.
    pub(super) async fn send(&mut self, flow: Flow, bytes: Bytes) {
        if flow.transport == Transport::Udp {
            let Some(socket) = self.udp.get(&flow.local) else {
                tracing::debug!(%flow, "no such socket");
                return;
            };
            if let Err(error) = socket.send_to(&bytes, flow.remote).await {
                tracing::debug!(%flow, %error, "send failed");
            }
            return;
        }
        let known = self.connections.get(&flow).filter(|writer| !writer.is_closed()).cloned();
        let writer = known.unwrap_or_else(|| self.open(flow));
        if writer.try_send(bytes).is_err() {
            tracing::debug!(%flow, "peer is too slow");
        }
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, flow: Flow) {
        // Its task ends with the only way to give it something to write.
        self.connections.remove(&flow);
    }

    fn open(&mut self, flow: Flow) -> mpsc::Sender<Bytes> {
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        self.connections.insert(flow, writer.clone());
        let (arrivals, connector) = (self.arrivals.clone(), self.security.connector.clone());
        self.tasks.spawn(async move {
            let secure = connector.filter(|_| flow.transport == Transport::Tls);
            let failed = match (connect(flow).await, secure) {
                (Ok(stream), None) => return carry(stream, flow, queue, arrivals).await,
                (Ok(stream), Some(connector)) => match shake(&connector, flow, stream).await {
                    Ok(stream) => return carry(stream, flow, queue, arrivals).await,
                    Err(error) => error,
                },
                (Err(error), _) => error,
            };
            tracing::debug!(%flow, error = %failed, "connect failed");
            drop(queue);
            _ = arrivals.send(Arrival::Closed(flow)).await;
        });
        writer
    }
}

/// Reads datagrams.
async fn hear(socket: Arc<UdpSocket>, local: SocketAddr, arrivals: mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((len, remote)) => {
                let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
                let flow = Flow { transport: Transport::Udp, local, remote };
                if arrivals.send(Arrival::Message(flow, bytes)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "receive failed"),
        }
    }
}

/// Accepts connections, each in a task that ends with the listener's.
async fn accept(
    listener: TcpListener,
    local: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, remote)) => match &acceptor {
                None => {
                    let flow = Flow { transport: Transport::Tcp, local, remote };
                    connections.spawn(accepted(stream, flow, arrivals.clone()));
                }
                Some(acceptor) => {
                    let flow = Flow { transport: Transport::Tls, local, remote };
                    let acceptor = acceptor.clone();
                    connections.spawn(secured(stream, flow, acceptor, arrivals.clone()));
                }
            },
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn secured(
    stream: TcpStream,
    flow: Flow,
    acceptor: TlsAcceptor,
    arrivals: mpsc::Sender<Arrival>,
) {
    match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let name = stream.get_ref().1.server_name().map(Into::into);
            if arrivals.send(Arrival::Shaken(flow, Ok(name))).await.is_ok() {
                accepted(stream, flow, arrivals).await;
            }
        }
        Ok(Err(error)) => {
            let failure = Failure::of(&error);
            _ = arrivals.send(Arrival::Shaken(flow, Err(failure))).await;
        }
        Err(_) => _ = arrivals.send(Arrival::Shaken(flow, Err(Failure::Gone))).await,
    }
}

async fn accepted(
    stream: impl AsyncRead + AsyncWrite,
    flow: Flow,
    arrivals: mpsc::Sender<Arrival>,
) {
    let (writer, queue) = mpsc::channel(WRITES_MAX);
    if arrivals.send(Arrival::Opened(flow, writer)).await.is_ok() {
        carry(stream, flow, queue, arrivals).await;
    }
}

async fn connect(flow: Flow) -> io::Result<TcpStream> {
    let socket = if flow.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(flow.local.ip(), 0))?;
    let stream = timeout(PATIENCE, socket.connect(flow.remote)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// We go by addresses, so the peer is not told a name.
async fn shake(
    connector: &TlsConnector,
    flow: Flow,
    stream: TcpStream,
) -> io::Result<client::TlsStream<TcpStream>> {
    let name = server_name(&flow.remote.ip().to_string()).ok_or(io::ErrorKind::InvalidInput)?;
    timeout(PATIENCE, connector.connect(name, stream)).await?
}

/// Carries messages both ways until either side ends it. It ends by hanging up the socket: a TLS
/// peer gets no close_notify, as it gets none from the carrier.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    flow: Flow,
    queue: mpsc::Receiver<Bytes>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let (reader, writer) = tokio::io::split(stream);
    let (pongs, pong_queue) = mpsc::channel(4);
    tokio::select! {
        () = read(reader, flow, &arrivals, pongs) => {}
        () = write(writer, queue, pong_queue) => {}
    }
    _ = arrivals.send(Arrival::Closed(flow)).await;
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    flow: Flow,
    arrivals: &mpsc::Sender<Arrival>,
    pongs: mpsc::Sender<()>,
) {
    let mut framer = Framer::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(len @ 1..) = reader.read(&mut buffer).await else { return };
        framer.push(buffer.get(..len).unwrap_or_default());
        while let Some(frame) = framer.next() {
            let bytes = match frame {
                Frame::Message(bytes) => bytes,
                Frame::Ping => {
                    _ = pongs.try_send(());
                    Bytes::from_static(b"\r\n\r\n")
                }
                Frame::Pong => Bytes::from_static(PONG),
                Frame::Broken => return,
            };
            if arrivals.send(Arrival::Message(flow, bytes)).await.is_err() {
                return;
            }
        }
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Bytes>,
    mut pongs: mpsc::Receiver<()>,
) {
    loop {
        let bytes = tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(bytes) => bytes,
                None => return,
            },
            Some(()) = pongs.recv() => Bytes::from_static(PONG),
        };
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if !matches!(timeout(PATIENCE, written).await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    /// Two addresses, over UDP and TCP, to two addresses: each message is seen to come from where it
    /// was sent and to be for whom it was meant.
    #[tokio::test]
    async fn messages_keep_their_addresses() {
        let at = |last| IpAddr::from(Ipv4Addr::new(127, 9, 3, last));
        let open = |last| (at(last), Reach::Open);
        let (ours, our_port) = Sockets::bind(&[open(1), open(2)], 0).await.unwrap();
        let (theirs, their_port) = Sockets::bind(&[open(3), open(4)], 0).await.unwrap();
        let (mut ours, mut theirs) = (start(ours), start(theirs));
        for transport in [Transport::Udp, Transport::Tcp] {
            for (from, to) in [(1, 3), (2, 4), (1, 4)] {
                let local = SocketAddr::new(at(from), our_port);
                let remote = SocketAddr::new(at(to), their_port);
                let flow = Flow { transport, local, remote };
                ours.send(flow, Bytes::from_static(OPTIONS.as_bytes())).await;
                let seen = message(&mut theirs).await;
                assert_eq!((seen.transport, seen.local), (transport, remote));
                assert_eq!(seen.remote.ip(), local.ip());
                theirs.send(seen, Bytes::from_static(OPTIONS.as_bytes())).await;
                assert_eq!(message(&mut ours).await, flow);
            }
        }
    }

    #[tokio::test]
    async fn nobody_there_is_the_end_of_a_connection() {
        let ip = IpAddr::from(Ipv4Addr::new(127, 9, 3, 9));
        let (sockets, port) = Sockets::bind(&[(ip, Reach::Open)], 0).await.unwrap();
        let local = SocketAddr::new(ip, port);
        let mut wires = start(sockets);
        let gone = TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap();
        let flow = Flow { transport: Transport::Tcp, local, remote: gone };
        wires.send(flow, Bytes::from_static(OPTIONS.as_bytes())).await;
        let Some(Arrival::Closed(closed)) = wires.arrival().await else { panic!() };
        assert_eq!(closed, flow);
        assert!(wires.connections.is_empty());
    }

    /// A connection to a blackholed address is not refused and does not come about either.
    #[tokio::test]
    async fn a_blackhole_takes_connections_in() {
        let at = |last| IpAddr::from(Ipv4Addr::new(127, 9, 4, last));
        let reach = [(at(1), Reach::Open), (at(2), Reach::Blackholed), (at(3), Reach::Refusing)];
        let (sockets, port) = Sockets::bind(&reach, 0).await.unwrap();
        let _wires = start(sockets);
        let connect = |last, patience| {
            let address = SocketAddr::new(at(last), port);
            timeout(patience, TcpStream::connect(address))
        };
        assert!(matches!(connect(1, PATIENCE).await, Ok(Ok(_))));
        assert!(connect(2, Duration::from_millis(300)).await.is_err());
        assert!(matches!(connect(3, PATIENCE).await, Ok(Err(_))));
    }

    /// The other side is not told; it sees that nothing can come any more.
    #[tokio::test]
    async fn a_connection_that_is_closed() {
        let open = |last| (IpAddr::from(Ipv4Addr::new(127, 9, 4, last)), Reach::Open);
        let (ours, _) = Sockets::bind(&[open(1)], 0).await.unwrap();
        let (theirs, port) = Sockets::bind(&[open(2)], 0).await.unwrap();
        let (mut ours, mut theirs) = (start(ours), start(theirs));
        let remote = SocketAddr::new(open(2).0, port);
        let local = SocketAddr::new(open(1).0, 0);
        let flow = Flow { transport: Transport::Tcp, local, remote };
        ours.send(flow, Bytes::from_static(OPTIONS.as_bytes())).await;
        let seen = message(&mut theirs).await;
        theirs.close(seen);
        let ended = timeout(PATIENCE, ours.arrival()).await.unwrap();
        assert!(matches!(ended, Some(Arrival::Closed(closed)) if closed == flow));
    }

    fn start(sockets: Sockets) -> Wires {
        Wires::start(sockets, Security::default()).unwrap()
    }

    async fn message(wires: &mut Wires) -> Flow {
        loop {
            match wires.arrival().await.unwrap() {
                Arrival::Message(flow, bytes) => {
                    assert_eq!(bytes, OPTIONS);
                    return flow;
                }
                Arrival::Opened(..) => {}
                Arrival::Closed(flow) | Arrival::Shaken(flow, _) => panic!("{flow}"),
            }
        }
    }
}
