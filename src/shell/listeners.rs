//! Opening the sockets on which SIP is listened for.
//!
//! Owns: which port a 0 becomes, and that the families do not take each other's ports.
//! Never: reads from a socket or accepts a connection.

use super::{marks::mark, node::StartError, routes::Listener, succession::Heritage, udp};
use crate::{
    config::{Config, Listen},
    ids::Transport,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

/// How often to try for a port that is free over both transports.
const TRIES_MAX: u32 = 16;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The bound sockets of a node.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) streams: Vec<(Transport, TcpListener)>,
    /// Of all of them, in the order of the configuration; the ports are the real ones.
    pub(super) listeners: Vec<Listener>,
}

/// Binds everything that `[sip] listen` names, or takes it from the process before this one.
pub(super) fn bind(
    config: &Config,
    mut heritage: Option<&mut Heritage>,
) -> Result<Bound, StartError> {
    let is_free_to_choose = config.sip.listen.iter().any(|listen| listen.address.port() == 0);
    let mut tries = if is_free_to_choose { TRIES_MAX } else { 1 };
    loop {
        tries = tries.saturating_sub(1);
        match try_bind(&config.sip.listen, config.sip.dscp, heritage.as_deref_mut()) {
            // What UDP was given may be taken over TCP.
            Err(StartError::Listen { error, .. })
                if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
}

fn try_bind(
    wanted: &[Listen],
    dscp: u8,
    mut heritage: Option<&mut Heritage>,
) -> Result<Bound, StartError> {
    let mut bound = Bound::default();
    for listen in wanted {
        let transport = listen.transport;
        let address = beside_its_twin(listen, &bound.listeners);
        let error = |error| StartError::Listen {
            transport: transport.param(),
            address,
            error,
            help: "another program has the port: stop it, or change `[sip] listen`",
        };
        let local = match transport {
            Transport::Udp => {
                let taken = heritage.as_mut().and_then(|left| left.take_udp(address));
                let socket = match taken {
                    Some(socket) => socket,
                    None => udp::bind(address).map_err(error)?,
                };
                let local = socket.local_addr().map_err(error)?;
                mark(&socket, local, dscp);
                bound.udp.push(socket);
                local
            }
            Transport::Tcp | Transport::Tls => {
                let taken = heritage.as_mut().and_then(|left| left.take_stream(transport, address));
                let listener = match taken {
                    Some(listener) => listener,
                    None => bind_tcp(address).map_err(error)?,
                };
                let local = listener.local_addr().map_err(error)?;
                // What is accepted inherits it.
                mark(&listener, local, dscp);
                bound.streams.push((transport, listener));
                local
            }
        };
        bound.listeners.push(Listener { transport, address: local });
    }
    Ok(bound)
}

/// `udp:…:0 tcp:…:0` means one free port for both, as phones expect it; TLS has its own.
fn beside_its_twin(listen: &Listen, bound: &[Listener]) -> SocketAddr {
    let wanted = listen.address;
    if wanted.port() != 0 || listen.transport == Transport::Tls {
        return wanted;
    }
    let is_twin =
        |other: &&Listener| other.address.ip() == wanted.ip() && other.transport != Transport::Tls;
    let port = bound.iter().find(is_twin).map_or(0, |twin| twin.address.port());
    SocketAddr::new(wanted.ip(), port)
}

/// Tries whether a listener could be opened here.
pub(super) fn is_free(transport: Transport, address: SocketAddr) -> io::Result<()> {
    match transport {
        Transport::Udp => udp::bind(address).map(drop),
        Transport::Tcp | Transport::Tls => bind_tcp(address).map(drop),
    }
}

pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Else `[::]` would take IPv4's port as well.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the connections of before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Port 0 means any free one; from here on everybody must know which it became.
pub(super) fn with_bound_ports(mut config: Config, listeners: &[Listener]) -> Config {
    for (listen, bound) in config.sip.listen.iter_mut().zip(listeners) {
        listen.address.set_port(bound.address.port());
    }
    config
}
