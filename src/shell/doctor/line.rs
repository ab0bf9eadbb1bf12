//! One flow to a peer, and our requests on it.
//!
//! Owns: the socket or connection, the transactions on it.
//! Never: judges an answer.

use crate::{
    ids::{Entropy, Flow, Mint, MintKey, ShardId},
    shell::now,
    sip::{Message, Method, framing::Frame, framing::Framer},
    transaction::{ClientId, Event, Layer, Output},
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UdpSocket,
    time::{sleep_until, timeout},
};

const DATAGRAM_MAX: usize = 65_535;
/// How long the peer may take to accept what we write.
const WRITE_MAX: Duration = Duration::from_secs(4);

/// A byte stream to a peer, inside TLS or not.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

enum Link {
    Datagrams(UdpSocket),
    Stream { stream: Box<dyn Duplex>, framer: Framer },
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    /// A response, provisional or final.
    Response(ClientId, Message),
    /// Nothing came in time, or the peer is gone.
    Nothing(ClientId),
}

/// One flow to a peer.
pub(super) struct Line {
    flow: Flow,
    link: Link,
    layer: Layer,
    heard: VecDeque<Heard>,
    buffer: Vec<u8>,
}

impl Line {
    /// Speaks through a socket that is bound to the flow's local address.
    pub(super) fn datagrams(flow: Flow, socket: UdpSocket, entropy: &mut Entropy) -> Self {
        Self::new(flow, Link::Datagrams(socket), entropy)
    }

    /// Speaks through a connection.
    pub(super) fn stream(flow: Flow, stream: Box<dyn Duplex>, entropy: &mut Entropy) -> Self {
        Self::new(flow, Link::Stream { stream, framer: Framer::default() }, entropy)
    }

    fn new(flow: Flow, link: Link, entropy: &mut Entropy) -> Self {
        let key = MintKey::draw(entropy);
        let mint = Mint::new(ShardId(0), key, Entropy::from_u64(entropy.next_u64()));
        let (heard, buffer) = (VecDeque::new(), vec![0; DATAGRAM_MAX]);
        Self { flow, link, layer: Layer::new(mint), heard, buffer }
    }

    /// Returns where it leads.
    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    /// Returns what makes branches and tags.
    pub(super) fn mint(&mut self) -> &mut Mint {
        self.layer.mint()
    }

    /// Makes a Via value and the branch in it.
    pub(super) fn via(&mut self) -> (String, String) {
        let branch = self.layer.mint().branch();
        let (token, local) = (self.flow.transport.token(), self.flow.local);
        (format!("SIP/2.0/{token} {local};rport;branch={branch}"), branch)
    }

    /// Sends an INVITE that is to begin a dialog.
    pub(super) async fn invite(&mut self, bytes: Bytes, branch: &str) -> io::Result<ClientId> {
        let mut out = vec![];
        let tx = self.layer.invite(bytes, branch, self.flow, now(), &mut out);
        self.carry_out(out).await?;
        Ok(tx)
    }

    /// Sends any other request in a transaction of its own.
    pub(super) async fn request(
        &mut self,
        bytes: Bytes,
        branch: &str,
        method: Method,
    ) -> io::Result<ClientId> {
        let mut out = vec![];
        let tx = self.layer.request(bytes, branch, method, self.flow, now(), &mut out);
        self.carry_out(out).await?;
        Ok(tx)
    }

    /// Takes an INVITE back (RFC 3261 9.1).
    pub(super) async fn cancel(&mut self, tx: ClientId) -> io::Result<()> {
        let mut out = vec![];
        self.layer.cancel(tx, None, now(), &mut out);
        self.carry_out(out).await
    }

    /// Sends what belongs to no transaction: the ACK of a 2xx.
    pub(super) async fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        let written = async {
            match &mut self.link {
                Link::Datagrams(socket) => socket.send_to(bytes, self.flow.remote).await.map(drop),
                Link::Stream { stream, .. } => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
            }
        };
        timeout(WRITE_MAX, written).await?
    }

    /// Returns the next thing that is heard; `None` where nothing is until then.
    pub(super) async fn hear(&mut self, until: Instant) -> io::Result<Option<Heard>> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(Some(heard));
            }
            if now() >= until {
                return Ok(None);
            }
            let wake = self.layer.poll_timeout().map_or(until, |at| at.min(until));
            let received = tokio::select! {
                () = sleep_until(wake.into()) => None,
                received = receive(&mut self.link, &mut self.buffer) => Some(received?),
            };
            let mut out = vec![];
            match received {
                None => self.layer.handle_timeout(now(), &mut out),
                Some(messages) => {
                    for bytes in messages {
                        let Ok(message) = Message::parse(bytes) else { continue };
                        self.layer.receive(message, self.flow, now(), &mut out);
                    }
                }
            }
            self.carry_out(out).await?;
        }
    }

    async fn carry_out(&mut self, out: Vec<Output>) -> io::Result<()> {
        for output in out {
            match output {
                Output::Send { bytes, .. } => self.send(&bytes).await?,
                Output::Event(Event::Response { tx, message, .. }) => {
                    self.heard.push_back(Heard::Response(tx, message));
                }
                Output::Event(Event::Timeout { tx } | Event::SendFailed { tx }) => {
                    self.heard.push_back(Heard::Nothing(tx));
                }
                // Nobody has reason to ask us anything.
                Output::Event(Event::Request { tx, .. }) => self.layer.abandon(tx),
                Output::Event(
                    Event::Cancel { .. } | Event::Ack { .. } | Event::NeverAcked { .. },
                ) => {}
            }
        }
        Ok(())
    }
}

/// Reads whole messages. Losing the race against a timer loses no byte.
async fn receive(link: &mut Link, buffer: &mut [u8]) -> io::Result<Vec<Bytes>> {
    match link {
        Link::Datagrams(socket) => {
            let len = socket.recv(buffer).await?;
            Ok(vec![Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default())])
        }
        Link::Stream { stream, framer } => {
            let len = stream.read(buffer).await?;
            if len == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            framer.push(buffer.get(..len).unwrap_or_default());
            let mut messages = vec![];
            while let Some(frame) = framer.next() {
                match frame {
                    Frame::Message(bytes) => messages.push(bytes),
                    Frame::Ping | Frame::Pong => {}
                    Frame::Broken => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
            Ok(messages)
        }
    }
}

/// Returns a UDP socket of the address that faces the peer, connected to it: what cannot be
/// delivered comes back as an error.
pub(super) async fn facing(remote: SocketAddr) -> io::Result<UdpSocket> {
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(remote).await?;
    Ok(socket)
}
