//! TCP connections for SIP (RFC 3261 18, RFC 5626 4.4.1).
//!
//! Owns: the listeners and, for each connection, a reader and a writer task.
//! Never: looks into a message; `sip::framing` finds its end.

use super::shard_loop::{Ingress, Packet};
use crate::{
    ids::{Flow, Transport},
    sip::framing::{Frame, Framer},
};
use bytes::Bytes;
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout, timeout_at},
};

/// Connections at a time, accepted and opened.
const CONNECTIONS_MAX: usize = 4096;
/// Messages that may wait for a slow peer; then it is cut off.
const WRITES_MAX: usize = 256;
/// How long a peer may take to accept a connection, or a written message.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a message may take from its first byte to its last.
const MESSAGE_MAX: Duration = Duration::from_secs(15);
/// How often we send CRLFCRLF on connections that we opened. Carriers close idle ones after 120 s.
const KEEP_ALIVE: Duration = Duration::from_secs(45);
const PING: &[u8] = b"\r\n\r\n";
const PONG: &[u8] = b"\r\n";

/// The end of a connection that messages are put into.
pub(super) type Writer = mpsc::Sender<Bytes>;

/// The connections of one shard, by peer.
#[derive(Debug, Default)]
pub(super) struct Streams {
    writers: BTreeMap<SocketAddr, Writer>,
}

impl Streams {
    /// Sends on the connection to this peer, opening one where there is none. Returns false where
    /// the peer is too slow.
    pub(super) fn send(&mut self, flow: Flow, bytes: Bytes, opener: &Opener) -> bool {
        if let Some(writer) = self.writers.get(&flow.remote) {
            match writer.try_send(bytes.clone()) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(_)) => return false,
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        let queued = writer.try_send(bytes).is_ok();
        self.writers.insert(flow.remote, writer);
        opener.open(flow, queue);
        queued
    }

    /// Takes a connection that a peer opened.
    pub(super) fn opened(&mut self, flow: Flow, writer: Writer) {
        self.writers.insert(flow.remote, writer);
    }

    /// Forgets a connection; another to the same peer may have taken its place.
    pub(super) fn closed(&mut self, flow: Flow) {
        if self.writers.get(&flow.remote).is_some_and(Writer::is_closed) {
            self.writers.remove(&flow.remote);
        }
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.writers.len()
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    ingress: Ingress,
    room: Arc<Semaphore>,
}

impl Opener {
    pub(super) fn new(ingress: Ingress) -> Self {
        Self { ingress, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    fn open(&self, flow: Flow, queue: mpsc::Receiver<Bytes>) {
        let Self { ingress, room } = self.clone();
        tokio::spawn(async move {
            let permit = room.try_acquire_owned().ok();
            let connected = match permit {
                Some(permit) => connect(flow).await.map(|stream| (stream, permit)),
                None => Err(io::ErrorKind::ResourceBusy.into()),
            };
            match connected {
                Ok((stream, permit)) => run(stream, flow, queue, true, ingress, permit).await,
                Err(error) => {
                    tracing::debug!(%flow, %error, "connect failed");
                    drop(queue);
                    ingress.tell(Packet::Closed { flow }).await;
                }
            }
        });
    }

    /// Accepts connections until the shard is gone.
    pub(super) async fn accept(self, listener: TcpListener) {
        let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
        while !self.ingress.is_closed() {
            let Ok(permit) = self.room.clone().acquire_owned().await else { return };
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    // Out of file descriptors: accepting at once would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(local) = stream.local_addr() else { continue };
            let local = SocketAddr::new(local.ip().to_canonical(), port);
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            let flow = Flow { transport: Transport::Tcp, local, remote };
            let (writer, queue) = mpsc::channel(WRITES_MAX);
            let ingress = self.ingress.clone();
            tokio::spawn(async move {
                ingress.tell(Packet::Opened { flow, writer }).await;
                run(stream, flow, queue, false, ingress, permit).await;
            });
        }
    }
}

async fn connect(flow: Flow) -> io::Result<TcpStream> {
    let socket = if flow.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(flow.local.ip(), 0))?;
    timeout(PATIENCE, socket.connect(flow.remote)).await?
}

/// Carries messages both ways until either side ends it.
async fn run(
    stream: TcpStream,
    flow: Flow,
    queue: mpsc::Receiver<Bytes>,
    is_ours: bool,
    ingress: Ingress,
    _permit: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (pongs, pong_queue) = mpsc::channel(4);
    tokio::select! {
        () = read(reader, flow, &ingress, pongs) => {}
        () = write(writer, queue, pong_queue, is_ours) => {}
    }
    // The queue is gone by now, so the shard sees the writer closed when it is told.
    ingress.tell(Packet::Closed { flow }).await;
}

async fn read(mut reader: OwnedReadHalf, flow: Flow, ingress: &Ingress, pongs: mpsc::Sender<()>) {
    let mut framer = Framer::default();
    let mut buffer = vec![0; 16 * 1024];
    let mut deadline: Option<Instant> = None;
    loop {
        let received = match deadline {
            Some(at) => timeout_at(at, reader.read(&mut buffer)).await,
            None => Ok(reader.read(&mut buffer).await),
        };
        let Ok(Ok(len @ 1..)) = received else { return };
        framer.push(buffer.get(..len).unwrap_or_default());
        while let Some(frame) = framer.next() {
            deadline = None;
            match frame {
                Frame::Message(bytes) => ingress.tell(Packet::Message { flow, bytes }).await,
                Frame::Ping => _ = pongs.try_send(()),
                Frame::Pong => {}
                Frame::Broken => return,
            }
        }
        if framer.is_partial() {
            deadline.get_or_insert_with(|| Instant::now() + MESSAGE_MAX);
        }
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Bytes>,
    mut pongs: mpsc::Receiver<()>,
    is_ours: bool,
) {
    loop {
        let bytes = tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(bytes) => bytes,
                None => return,
            },
            Some(()) = pongs.recv() => Bytes::from_static(PONG),
            () = tokio::time::sleep(KEEP_ALIVE), if is_ours => Bytes::from_static(PING),
        };
        match timeout(PATIENCE, writer.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
