//! Connections for SIP, over TCP and over TLS (RFC 3261 18, RFC 5626 4.4.1).
//!
//! Owns: for each connection, reading and writing, keep-alive, and what its end leaves undone.
//! Never: looks into a message beyond its first word; `sip::framing` finds its end.

use super::{
    guests::Guests,
    ingress::{Ingress, Packet},
    marks::mark,
    peers::Peer,
    tls::Security,
};
use crate::{
    ids::{Flow, Transport},
    sip::framing::{Frame, Framer},
    tls::Failure,
};
use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};

/// Messages that may wait for a slow peer; then it is cut off.
pub(super) const WRITES_MAX: usize = 256;
/// How long a peer may take to accept a connection, or a written message.
const PATIENCE: Duration = Duration::from_secs(8);
/// How much is read at once: little, since thousands may connect to say nothing, and four times as much each time that a
/// peer had as much to say as there was room for.
const READ_FIRST: usize = 1024;
const READ_MAX: usize = 16 * 1024;
/// How long a message may take from its first byte to its last, and how long a peer that has
/// connected may take for its first, keep-alives or not.
const MESSAGE_MAX: Duration = Duration::from_secs(12);
/// How long a connection is silent before the kernel asks whether the peer is still there, and how
/// often it asks.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES_MAX: u32 = 4;
/// How long a connection stays for our answers once nothing more comes in on it.
const LINGER: Duration = Duration::from_millis(500);
/// How long saying goodbye may take.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// How often we send CRLFCRLF on connections that we opened: carriers close idle ones after 120 s,
/// some after 60. Random between the two, lest all do it at once (RFC 5626 4.4.1).
const KEEP_ALIVE_MS: std::ops::Range<u64> = 30_000..55_000;
/// A connection that stood so long was good; what could not be sent on it is worth another.
const STOOD: Duration = Duration::from_secs(2);
const PING: &[u8] = b"\r\n\r\n";
const PONG: &[u8] = b"\r\n";

/// The end of a connection that messages are put into.
pub(super) type Writer = mpsc::Sender<Bytes>;

/// The connections of one shard, by transport and peer.
#[derive(Debug, Default)]
pub(super) struct Streams {
    writers: BTreeMap<(Transport, SocketAddr), Stream>,
    /// Those that peers have opened.
    pub(super) guests: Guests,
}

/// The way to a peer.
#[derive(Debug)]
struct Stream {
    flow: Flow,
    writer: Writer,
    /// Whether we have said anything since the last time that this was asked.
    has_spoken: bool,
}

impl Stream {
    fn new(flow: Flow, writer: Writer) -> Self {
        Self { flow, writer, has_spoken: true }
    }
}

impl Streams {
    /// Sends on the connection to this peer, opening one where there is none and it can be: to a
    /// `peer` that is known by name, or without TLS. Returns false where that is not so, or the peer
    /// is too slow.
    pub(super) fn send(
        &mut self,
        flow: Flow,
        bytes: Bytes,
        opener: &Opener,
        peer: impl FnOnce() -> Option<Peer>,
    ) -> bool {
        if let Some(is_taken) = self.put(flow, &bytes) {
            return is_taken;
        }
        let by = match (flow.transport, peer()) {
            (Transport::Tls, None) => return false,
            (Transport::Tls, Some(peer)) => Some(peer),
            (Transport::Tcp | Transport::Udp, _) => None,
        };
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        let queued = writer.try_send(bytes).is_ok();
        self.writers.insert((flow.transport, flow.remote), Stream::new(flow, writer));
        opener.open(flow, by, queue);
        queued
    }

    /// Puts a message into the connection to this peer; `None` where there is none that stands. A peer that is too
    /// slow is cut off, once what waits for it is written: whoever spoke to it is told that it has failed.
    fn put(&mut self, flow: Flow, bytes: &Bytes) -> Option<bool> {
        let key = (flow.transport, flow.remote);
        let stream = self.writers.get_mut(&key)?;
        stream.has_spoken = true;
        match stream.writer.try_send(bytes.clone()) {
            Ok(()) => Some(true),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.writers.remove(&key);
                Some(false)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    /// Takes a connection that a peer opened.
    pub(super) fn opened(&mut self, flow: Flow, writer: Writer) {
        self.writers.insert((flow.transport, flow.remote), Stream::new(flow, writer));
    }

    /// Returns the connections of peers of which it is time to ask whether anybody known uses them.
    pub(super) fn visit_guests(&mut self, now: std::time::Instant) -> Vec<Flow> {
        let writers = &mut self.writers;
        self.guests.visit(now, |flow| {
            let stream = writers.get_mut(&(flow.transport, flow.remote));
            stream.is_some_and(|stream| mem::take(&mut stream.has_spoken))
        })
    }

    /// Forgets a connection. Returns whether the peer is without one now: another may have taken
    /// its place.
    pub(super) fn closed(&mut self, flow: Flow) -> bool {
        self.guests.left(flow);
        let key = (flow.transport, flow.remote);
        if self.writers.get(&key).is_some_and(|stream| !stream.writer.is_closed()) {
            return false;
        }
        self.writers.remove(&key);
        true
    }

    /// Lets one connection end, once what waits for it is written. Returns whether there was one.
    pub(super) fn close_one(&mut self) -> bool {
        self.writers.pop_first().is_some()
    }

    /// Returns whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.writers.is_empty()
    }

    /// Returns all that stand or are being opened.
    pub(super) fn flows(&self) -> Vec<Flow> {
        self.writers.values().map(|stream| stream.flow).collect()
    }

    /// Returns how many there are over this transport.
    pub(super) fn len(&self, transport: Transport) -> usize {
        self.writers.keys().filter(|(of, _)| *of == transport).count()
    }
}

/// Who opened a connection.
#[derive(Debug)]
pub(super) enum Opened {
    /// We did: we keep it alive.
    ByUs,
    /// The peer did: it has something to say, and may have to make room.
    ByPeer(Eviction),
}

/// What the end of a connection leaves.
#[derive(Debug, Default)]
pub(super) struct End {
    /// It was ours, and stood: another one can be opened to the same address.
    pub(super) stood: bool,
    /// Answers and ACKs that another connection to the same address may carry. Requests are sent again
    /// by their transactions.
    pub(super) unsent: Vec<Bytes>,
    /// Why there was no TLS.
    pub(super) failure: Option<Failure>,
}

/// Opens connections, and accepts them.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) ingress: Ingress,
    pub(super) security: watch::Receiver<Security>,
    dscp: u8,
    /// Where connections run: not in the shard's thread.
    runtime: Handle,
    /// For our own connections, which those of strangers must not crowd out.
    opened: Arc<Semaphore>,
    /// How many there may be of either.
    pub(super) places: usize,
    pub(super) accepted: Arc<Semaphore>,
    /// Peers with whom we could not agree on TLS.
    pub(super) refused: Arc<AtomicU64>,
}

impl Opener {
    /// Connections run in the runtime in which this is called; as many as there are `places` may be opened, and
    /// as many accepted.
    pub(super) fn new(
        ingress: Ingress,
        security: watch::Receiver<Security>,
        dscp: u8,
        places: usize,
    ) -> Self {
        let room = || Arc::new(Semaphore::new(places));
        let (runtime, refused) = (Handle::current(), Arc::default());
        Self { ingress, security, dscp, runtime, opened: room(), places, accepted: room(), refused }
    }

    /// Returns how many handshakes of others have failed.
    pub(super) fn refusals(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Opens a connection; over TLS it leads to `peer`, or nowhere.
    fn open(&self, flow: Flow, peer: Option<Peer>, queue: mpsc::Receiver<Bytes>) {
        let Self { ingress, opened, security, dscp, .. } = self.clone();
        self.runtime.spawn(async move {
            let Ok(_permit) = opened.try_acquire_owned() else {
                let failure = Some(Failure::Unreachable("too many connections".into()));
                return give_up(flow, failure, queue, ingress).await;
            };
            let stream = match connect(flow, dscp).await {
                Ok(stream) => stream,
                Err(error) => {
                    let failure = Some(Failure::Unreachable(error.to_string().into()));
                    return give_up(flow, failure, queue, ingress).await;
                }
            };
            tune(&stream);
            let connection =
                |queue| Connection { flow, opened: Opened::ByUs, queue, ingress: ingress.clone() };
            let Some(peer) = peer else {
                return run(stream.into_split(), connection(queue)).await;
            };
            let security = security.borrow().clone();
            match security.connect(stream, &peer).await {
                Ok(stream) => run(tokio::io::split(stream), connection(queue)).await,
                Err(failure) => give_up(flow, Some(failure), queue, ingress).await,
            }
        });
    }
}

async fn give_up(
    flow: Flow,
    failure: Option<Failure>,
    queue: mpsc::Receiver<Bytes>,
    ingress: Ingress,
) {
    if let Some(why) = &failure {
        tracing::debug!(%flow, code = why.code(), %why, "connect failed");
    }
    drop(queue);
    ingress.tell(Packet::Closed { flow, end: End { failure, ..End::default() } }).await;
}

async fn connect(flow: Flow, dscp: u8) -> io::Result<TcpStream> {
    let socket = if flow.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(flow.local.ip(), 0))?;
    mark(&socket, flow.local, dscp);
    timeout(PATIENCE, socket.connect(flow.remote)).await?
}

/// Neither is worth refusing a connection for.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY)
            .with_retries(PROBES_MAX),
    );
}

/// What tells a connection to make room for another.
pub(super) type Eviction = oneshot::Receiver<()>;

/// A connection that stands.
pub(super) struct Connection {
    pub(super) flow: Flow,
    pub(super) opened: Opened,
    pub(super) queue: mpsc::Receiver<Bytes>,
    pub(super) ingress: Ingress,
}

/// Carries messages both ways until either side ends it.
pub(super) async fn run<R, W>((reader, mut writer): (R, W), connection: Connection)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Connection { flow, opened, mut queue, ingress } = connection;
    let began = Instant::now();
    let (pongs, pong_queue) = mpsc::channel(4);
    let is_ours = matches!(opened, Opened::ByUs);
    let pings = is_ours.then_some(keep_alive as Every);
    let reading = async {
        let error = read(reader, (flow, opened), &ingress, pongs, MESSAGE_MAX).await;
        // The last message may have been a request, or one that deserves a 400. On a connection that
        // is ours or broken, what we have to say wants another one.
        if !is_ours && error.is_none() {
            tokio::time::sleep(LINGER).await;
        }
        error
    };
    let (error, lost) = tokio::select! {
        error = reading => (error, None),
        lost = write(&mut writer, &mut queue, pong_queue, pings) => (None, lost),
    };
    queue.close();
    let mut unsent: Vec<Bytes> = lost.into_iter().collect();
    while let Ok(bytes) = queue.try_recv() {
        unsent.push(bytes);
    }
    let failure = error.as_ref().and_then(Failure::after_handshake);
    let stood = is_ours && failure.is_none();
    let is_kept = stood && began.elapsed() >= STOOD;
    unsent.retain(|bytes| is_kept && !is_sent_again(bytes));
    // Over TLS: that it is over, and not cut off.
    let _ = timeout(FAREWELL_MAX, writer.shutdown()).await;
    // The queue is closed by now, so the shard sees the writer closed when it is told.
    ingress.tell(Packet::Closed { flow, end: End { stood, unsent, failure } }).await;
}

/// Returns whether this is a request that a transaction repeats: all but ACK.
fn is_sent_again(bytes: &[u8]) -> bool {
    !bytes.starts_with(b"SIP/2.0 ") && !bytes.starts_with(b"ACK ")
}

/// Reads until the peer ends it, speaks another language, takes too long over a message, or must make
/// room. Returns what broke it, if something did.
async fn read(
    mut reader: impl AsyncRead + Unpin,
    (flow, mut opened): (Flow, Opened),
    ingress: &Ingress,
    pongs: mpsc::Sender<()>,
    message_max: Duration,
) -> Option<io::Error> {
    let mut framer = Framer::default();
    let mut buffer = vec![0; READ_FIRST];
    // Until it has brought a whole message.
    let mut is_young = matches!(opened, Opened::ByPeer(_));
    let mut deadline = is_young.then(|| Instant::now() + message_max);
    loop {
        let received = tokio::select! {
            received = reader.read(&mut buffer) => received,
            error = cut_off(deadline, &mut opened) => Err(error),
        };
        let len = match received {
            Ok(len @ 1..) => len,
            Ok(_) => return None,
            Err(error) => return Some(error),
        };
        framer.push(buffer.get(..len).unwrap_or_default());
        if len == buffer.len() {
            buffer.resize(len.saturating_mul(4).min(READ_MAX), 0);
        }
        while let Some(frame) = framer.next() {
            match frame {
                Frame::Message(bytes) => {
                    is_young = false;
                    ingress.tell(Packet::Message { flow, bytes }).await;
                }
                Frame::Ping => _ = pongs.try_send(()),
                Frame::Pong => {}
                Frame::Broken => return None,
            }
            deadline = deadline.filter(|_| is_young);
        }
        if framer.is_partial() {
            deadline.get_or_insert_with(|| Instant::now() + message_max);
        }
    }
}

/// Waits until the time is over, or the room is needed.
async fn cut_off(deadline: Option<Instant>, opened: &mut Opened) -> io::Error {
    let too_late = async {
        match deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let evicted = async {
        match opened {
            Opened::ByPeer(eviction) => _ = eviction.await,
            Opened::ByUs => std::future::pending().await,
        }
    };
    tokio::select! {
        () = too_late => {}
        () = evicted => {}
    }
    io::ErrorKind::TimedOut.into()
}

/// Writes until nobody has anything more to say. Returns the message with which it broke.
async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    queue: &mut mpsc::Receiver<Bytes>,
    mut pongs: mpsc::Receiver<()>,
    pings: Option<Every>,
) -> Option<Bytes> {
    loop {
        let every = pings.map_or(Duration::MAX, |every| every());
        let bytes = tokio::select! {
            biased;
            message = queue.recv() => message?,
            Some(()) = pongs.recv() => Bytes::from_static(PONG),
            () = tokio::time::sleep(every), if pings.is_some() => Bytes::from_static(PING),
        };
        let written = async {
            writer.write_all(&bytes).await?;
            // TLS keeps what the socket did not take at once.
            writer.flush().await
        };
        match timeout(PATIENCE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Some(bytes).filter(|bytes| bytes.len() > PING.len()),
        }
    }
}

/// How long until the next ping.
type Every = fn() -> Duration;

fn keep_alive() -> Duration {
    let span = KEEP_ALIVE_MS.end.saturating_sub(KEEP_ALIVE_MS.start);
    let random = RandomState::new().hash_one(());
    Duration::from_millis(KEEP_ALIVE_MS.start.saturating_add(random % span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };
    use tokio::io::{ReadBuf, duplex};

    /// Long enough for a busy machine, short enough for a test.
    const SHORT: Duration = Duration::from_millis(100);
    /// Longer than anything takes.
    const LONG: Duration = Duration::from_secs(60);

    const WHOLE: &str = "OPTIONS sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    /// What was put in is still written, then the connection ends, and nothing is left of it.
    #[tokio::test]
    async fn a_peer_that_does_not_listen_is_cut_off() {
        let (mut streams, bytes) = (Streams::default(), Bytes::from_static(b"x"));
        let (writer, mut queue) = mpsc::channel(WRITES_MAX);
        assert_eq!(streams.put(flow(), &bytes), None);
        streams.opened(flow(), writer);
        for n in 0..=WRITES_MAX {
            assert_eq!(streams.put(flow(), &bytes), Some(n < WRITES_MAX), "{n}");
        }
        assert!(streams.is_empty());
        let (mut ours, mut peer) = duplex(2 * WRITES_MAX);
        let (_pongs, pongs) = mpsc::channel(1);
        assert_eq!(write(&mut ours, &mut queue, pongs, None).await, None);
        drop(ours);
        let mut said = vec![];
        peer.read_to_end(&mut said).await.unwrap();
        assert_eq!(said.len(), WRITES_MAX);
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_cut_off() {
        assert_eq!(messages(true, "").await, 0);
    }

    #[tokio::test]
    async fn a_message_that_does_not_end_is_cut_off() {
        for is_by_peer in [false, true] {
            let said = format!("{WHOLE}OPTIONS sip:a SIP/2.0\r\nX: ");
            assert_eq!(messages(is_by_peer, &said).await, 1, "by a peer: {is_by_peer}");
        }
    }

    /// Keep-alives are not a message.
    #[tokio::test]
    async fn a_peer_that_only_pings_is_cut_off() {
        assert_eq!(messages(true, "\r\n\r\n\r\n").await, 0);
    }

    /// Also whoever has brought a message: who must go is not decided here.
    #[tokio::test]
    async fn a_peer_that_must_make_room_is_cut_off() {
        for said in ["", "OPTIONS sip:a SIP/2.0\r\n", WHOLE] {
            let (mut peer, ours) = duplex(4096);
            peer.write_all(said.as_bytes()).await.unwrap();
            let (ingress, mut packets) = Ingress::new();
            let (pongs, _pongs) = mpsc::channel(1);
            let (end, eviction) = oneshot::channel();
            let opened = Opened::ByPeer(eviction);
            let reading = read(ours, (flow(), opened), &ingress, pongs, Duration::MAX / 4);
            let needed = async {
                if said == WHOLE {
                    packets.recv().await;
                }
                drop(end);
            };
            let (cut, ()) = tokio::join!(timeout(LONG, reading), needed);
            assert!(cut.is_ok(), "{said}");
        }
    }

    fn flow() -> Flow {
        let address = SocketAddr::from(([127, 0, 0, 1], 5060));
        Flow { transport: Transport::Tcp, local: address, remote: address }
    }

    /// A peer that says so much, a read after the other; notes how much room there was for each.
    struct Says {
        lengths: Vec<usize>,
        rooms: Vec<usize>,
    }

    impl AsyncRead for &mut Says {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.rooms.push(buffer.remaining());
            let length = self.lengths.pop().unwrap_or(0).min(buffer.remaining());
            buffer.put_slice(&b"\r\n".repeat(length / 2));
            Poll::Ready(Ok(()))
        }
    }

    /// A thousand bytes for whoever drips, and no more than sixteen thousand for anybody.
    #[tokio::test]
    async fn room_is_made_for_who_has_much_to_say() {
        let lengths = vec![READ_MAX, READ_MAX, READ_MAX, READ_MAX, 2, 2];
        let mut says = Says { lengths, rooms: vec![] };
        let (ingress, _packets) = Ingress::new();
        let (pongs, _pongs) = mpsc::channel(1);
        read(&mut says, (flow(), Opened::ByUs), &ingress, pongs, SHORT).await;
        assert_eq!(says.rooms, [1024, 1024, 1024, 4096, 16_384, 16_384, 16_384]);
    }

    #[test]
    fn keep_alives_come_before_any_carrier_closes_and_not_in_step() {
        let all: std::collections::BTreeSet<_> = (0..32).map(|_| keep_alive()).collect();
        assert!(all.iter().all(|every| (30..60).contains(&every.as_secs())), "{all:?}");
        assert!(all.len() > 16, "{all:?}");
    }

    /// Twilio takes a single CRLF for an error, and closes sooner.
    #[tokio::test]
    async fn a_keep_alive_is_two_crlfs() {
        let (mut peer, mut ours) = duplex(64);
        let (_writer, mut queue) = mpsc::channel(1);
        let (_pongs, pongs) = mpsc::channel(1);
        let mut said = [0; 8];
        tokio::select! {
            lost = write(&mut ours, &mut queue, pongs, Some(|| SHORT)) => panic!("{lost:?}"),
            read = peer.read_exact(&mut said) => assert_eq!(read.unwrap(), 8),
        }
        assert_eq!(said, *b"\r\n\r\n\r\n\r\n");
    }

    /// Reads what a peer says that never closes. Returns, once we have, how many messages came of it.
    async fn messages(is_by_peer: bool, said: &str) -> usize {
        let (mut peer, ours) = duplex(4096);
        peer.write_all(said.as_bytes()).await.unwrap();
        let (ingress, mut packets) = Ingress::new();
        let (pongs, _pongs) = mpsc::channel(1);
        let (_stays, eviction) = oneshot::channel();
        let opened = if is_by_peer { Opened::ByPeer(eviction) } else { Opened::ByUs };
        read(ours, (flow(), opened), &ingress, pongs, SHORT).await;
        std::iter::from_fn(|| packets.try_recv().ok()).count()
    }
}
