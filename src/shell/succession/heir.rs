//! The heir's side: what it gets from the process before it.
//!
//! Owns: the sockets until the node takes them, and the conversation until the heir serves.
//! Never: starts anything; `node` does.

use super::{
    SIGN, STEP_MAX, descriptors,
    frame::{Estate, FORMAT, Frame, Word, garbled},
    pipe::{Borrowed, Pipe, PipeEnd},
};
use crate::{
    ids::{Flow, MintKey, ShardId, Transport},
    shard::Legacy,
    shell::{ingress::Ingress, node::StartError, stream::Writer},
};
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

/// What the process before this one leaves.
#[derive(Debug)]
pub struct Heritage {
    stream: UnixStream,
    estate: Estate,
    sockets: Vec<(Transport, SocketAddr, OwnedFd)>,
    http: Option<OwnedFd>,
}

impl Heritage {
    /// Takes it from standard input, where this process was started to take over; `None` where it
    /// was not.
    ///
    /// # Errors
    /// If the process before us does not say what it must.
    pub fn claim() -> Result<Option<Self>, StartError> {
        if std::env::var_os(SIGN).is_none() {
            return Ok(None);
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(StartError::Succession)?;
        Self::receive(UnixStream::from(stdin)).map(Some).map_err(StartError::Succession)
    }

    pub(super) fn receive(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(STEP_MAX))?;
        let mut descriptors = descriptors::receive(&stream)?.into_iter();
        let Word::Estate(estate) = Frame::read_from(&stream)?.word else {
            return Err(garbled("no estate"));
        };
        if estate.format != FORMAT {
            return Err(garbled("it is of another version: stop it and start this one"));
        }
        let mut sockets = vec![];
        for (transport, address) in &estate.listeners {
            let transport =
                Transport::parse(transport).ok_or_else(|| garbled("no such transport"))?;
            let descriptor = descriptors.next().ok_or_else(|| garbled("a socket is missing"))?;
            sockets.push((transport, *address, descriptor));
        }
        let http = if estate.has_http { descriptors.next() } else { None };
        Ok(Self { stream, estate, sockets, http })
    }

    /// Returns the key of all identifiers.
    pub(in crate::shell) fn key(&self) -> MintKey {
        MintKey::new(self.estate.key.0)
    }

    /// Returns which shard the heir is.
    pub(in crate::shell) fn shard(&self) -> ShardId {
        ShardId(self.estate.shard).next()
    }

    /// Returns the socket for datagrams that is bound to `wanted`; any port will do for port 0.
    pub(in crate::shell) fn take_udp(&mut self, wanted: SocketAddr) -> Option<UdpSocket> {
        self.take(Transport::Udp, wanted).map(UdpSocket::from)
    }

    /// Returns the listener that is bound to `wanted`, likewise.
    pub(in crate::shell) fn take_stream(
        &mut self,
        transport: Transport,
        wanted: SocketAddr,
    ) -> Option<TcpListener> {
        self.take(transport, wanted).map(TcpListener::from)
    }

    /// Returns the listener for HTTP, if it is bound to `wanted`.
    pub(in crate::shell) fn take_http(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let listener = TcpListener::from(self.http.take()?);
        let is_it = |address| fits(wanted, address);
        listener.local_addr().is_ok_and(is_it).then_some(listener)
    }

    fn take(&mut self, transport: Transport, wanted: SocketAddr) -> Option<OwnedFd> {
        let is_it = |(of, address, _): &(Transport, SocketAddr, OwnedFd)| {
            *of == transport && fits(wanted, *address)
        };
        let at = self.sockets.iter().position(is_it)?;
        Some(self.sockets.remove(at).2)
    }

    /// Tells that everything that can fail has not, and waits until the other process has closed its
    /// doors. Listeners for connections that the configuration no longer names close here.
    ///
    /// # Errors
    /// If it has changed its mind.
    pub(in crate::shell) async fn ready(self) -> io::Result<Succession> {
        let Self { stream, estate, sockets, .. } = self;
        let datagrams = sockets.into_iter().filter(|(transport, ..)| *transport == Transport::Udp);
        let elders = datagrams.map(|(.., socket)| UdpSocket::from(socket)).collect();
        let going = move || {
            Frame::from(Word::Ready).write_to(&stream)?;
            let frame = Frame::read_from(&stream)?;
            let Word::Go { connections, notes } = &frame.word else {
                return Err(garbled("no start"));
            };
            let flows =
                connections.iter().map(|flow| flow.flow()).collect::<io::Result<Vec<_>>>()?;
            let counted = (0..*notes).map(|_| {
                let Word::Note(note) = Frame::read_from(&stream)?.word else {
                    return Err(garbled("no note"));
                };
                Ok(note)
            });
            let notes = counted.collect::<io::Result<Vec<_>>>()?;
            Ok((stream, flows, Legacy { received: frame.digests(), notes }))
        };
        let (stream, connections, legacy) = tokio::task::spawn_blocking(going).await??;
        let (pipe, end) = Pipe::new();
        let (lent, writers) = Borrowed::new(&connections, &pipe);
        let inherited = Inherited { pipe, legacy, writers, elders };
        let elder = estate.aside;
        Ok(Succession { stream, connections, lent, end, elder, inherited: Some(inherited) })
    }
}

/// Any port is right where none is asked for.
fn fits(wanted: SocketAddr, bound: SocketAddr) -> bool {
    wanted.ip() == bound.ip() && (wanted.port() == bound.port() || wanted.port() == 0)
}

/// What the shard takes over.
#[derive(Debug)]
pub(in crate::shell) struct Inherited {
    /// The way to the process before us.
    pub(in crate::shell) pipe: Pipe,
    /// What its shard leaves.
    pub(in crate::shell) legacy: Legacy,
    /// Its connections.
    pub(in crate::shell) writers: Vec<(Flow, Writer)>,
    /// Its sockets for datagrams that are not ours: its calls are still spoken of there.
    pub(in crate::shell) elders: Vec<UdpSocket>,
}

/// An heir that has been told to go on.
#[derive(Debug)]
pub(in crate::shell) struct Succession {
    stream: UnixStream,
    /// On which phones can be reached by way of the other process.
    pub(in crate::shell) connections: Vec<Flow>,
    lent: Borrowed,
    end: PipeEnd,
    /// Where its calls can be asked for.
    pub(in crate::shell) elder: PathBuf,
    /// For the shard.
    pub(in crate::shell) inherited: Option<Inherited>,
}

impl Succession {
    /// Tells that this process serves, and carries messages from now on, in a task.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub(in crate::shell) fn serving(self, ingress: Ingress) -> io::Result<()> {
        if let Err(error) = Frame::from(Word::Serving).write_to(&self.stream) {
            // Its calls are lost; all the rest is here.
            tracing::error!(%error, "the process before this one is gone");
        }
        self.stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(self.stream)?;
        tokio::spawn(self.end.carry_as_heir(stream, ingress, self.lent));
        Ok(())
    }
}
