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
use socket2::{SockRef, TcpKeepalive};
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout, timeout_at},
};

/// Connections at a time, accepted and opened.
const CONNECTIONS_MAX: usize = 4096;
/// Messages that may wait for a slow peer; then it is cut off.
const WRITES_MAX: usize = 256;
/// How long a peer may take to accept a connection, or a written message.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a message may take from its first byte to its last, and how long a peer that has
/// connected may take for its first.
const MESSAGE_MAX: Duration = Duration::from_secs(15);
/// How long a connection is silent before the kernel asks whether the peer is still there, and how
/// often it asks.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES_MAX: u32 = 4;
/// How long a connection stays for our answers once nothing more comes in on it.
const LINGER: Duration = Duration::from_millis(500);
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

    /// Forgets a connection. Returns whether the peer is without one now: another may have taken
    /// its place.
    pub(super) fn closed(&mut self, flow: Flow) -> bool {
        let is_alive = |writer: &Writer| !writer.is_closed();
        if self.writers.get(&flow.remote).is_some_and(is_alive) {
            return false;
        }
        self.writers.remove(&flow.remote);
        true
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.writers.len()
    }
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    /// We did: we keep it alive.
    Us,
    /// The peer did: it has something to say.
    Peer,
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Opener {
    ingress: Ingress,
    /// For our own connections, which those of strangers must not crowd out.
    opened: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
}

impl Opener {
    pub(super) fn new(ingress: Ingress) -> Self {
        let room = || Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { ingress, opened: room(), accepted: room() }
    }

    fn open(&self, flow: Flow, queue: mpsc::Receiver<Bytes>) {
        let Self { ingress, opened, .. } = self.clone();
        tokio::spawn(async move {
            let permit = opened.try_acquire_owned().ok();
            let connected = match permit {
                Some(permit) => connect(flow).await.map(|stream| (stream, permit)),
                None => Err(io::ErrorKind::ResourceBusy.into()),
            };
            match connected {
                Ok((stream, permit)) => run(stream, flow, queue, By::Us, ingress, permit).await,
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
            let Ok(permit) = self.accepted.clone().acquire_owned().await else { return };
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
                run(stream, flow, queue, By::Peer, ingress, permit).await;
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
    opened: By,
    ingress: Ingress,
    _permit: OwnedSemaphorePermit,
) {
    // Neither is worth refusing a connection for.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY)
            .with_retries(PROBES_MAX),
    );
    let (reader, writer) = stream.into_split();
    let (pongs, pong_queue) = mpsc::channel(4);
    let reading = async {
        read(reader, (flow, opened), &ingress, pongs, MESSAGE_MAX).await;
        // The last message may have been a request, or one that deserves a 400.
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = reading => {}
        () = write(writer, queue, pong_queue, opened) => {}
    }
    // The queue is gone by now, so the shard sees the writer closed when it is told.
    ingress.tell(Packet::Closed { flow }).await;
}

/// Reads until the peer ends it, speaks another language, or takes too long over a message.
async fn read(
    mut reader: impl AsyncRead + Unpin,
    (flow, opened): (Flow, By),
    ingress: &Ingress,
    pongs: mpsc::Sender<()>,
    message_max: Duration,
) {
    let mut framer = Framer::default();
    let mut buffer = vec![0; 16 * 1024];
    let mut deadline = match opened {
        By::Peer => Some(Instant::now() + message_max),
        By::Us => None,
    };
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
            deadline.get_or_insert_with(|| Instant::now() + message_max);
        }
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Bytes>,
    mut pongs: mpsc::Receiver<()>,
    opened: By,
) {
    loop {
        let bytes = tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(bytes) => bytes,
                None => return,
            },
            Some(()) = pongs.recv() => Bytes::from_static(PONG),
            () = tokio::time::sleep(KEEP_ALIVE), if opened == By::Us => Bytes::from_static(PING),
        };
        match timeout(PATIENCE, writer.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    /// Long enough for a busy machine, short enough for a test.
    const SHORT: Duration = Duration::from_millis(100);

    const WHOLE: &str = "OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_cut_off() {
        assert_eq!(messages(By::Peer, "").await, 0);
    }

    #[tokio::test]
    async fn a_message_that_does_not_end_is_cut_off() {
        for opened in [By::Us, By::Peer] {
            let said = format!("{WHOLE}OPTIONS sip:a SIP/2.0\r\nX: ");
            assert_eq!(messages(opened, &said).await, 1, "{opened:?}");
        }
    }

    /// Reads what a peer says that never closes. Returns, once we have, how many messages came of it.
    async fn messages(opened: By, said: &str) -> usize {
        let (mut peer, ours) = duplex(4096);
        peer.write_all(said.as_bytes()).await.unwrap();
        let (ingress, mut packets) = Ingress::new();
        let (pongs, _pongs) = mpsc::channel(1);
        let address = SocketAddr::from(([127, 0, 0, 1], 5060));
        let flow = Flow { transport: Transport::Tcp, local: address, remote: address };
        read(ours, (flow, opened), &ingress, pongs, SHORT).await;
        std::iter::from_fn(|| packets.try_recv().ok()).count()
    }
}
