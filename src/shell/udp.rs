//! UDP sockets for SIP.
//!
//! Owns: the sockets of a shard, how much may wait in them, and how much the kernel had to drop.
//! Never: looks into a datagram beyond its length.

use super::{
    datagrams::{self, Inbox},
    routes::Routes,
};
use crate::ids::{Flow, Transport};
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    future::poll_fn,
    io,
    net::{self, SocketAddr},
    task::Poll,
};
use tokio::{io::Interest, net::UdpSocket};

/// What may wait in a socket. The default of 208 KiB is what first drops INVITEs under load. The
/// kernel counts twice as much, since each datagram takes more than its length.
const BUFFER: usize = 4 << 20;
/// The same where we may have as much as we want: at five times of what can be done, 4 MiB are full after a tenth of a
/// second in which the host does something else, and what belongs to calls that are up is then lost with the rest.
const BUFFER_FORCED: usize = 16 << 20;
/// Datagrams of one socket before deadlines and others have their turn.
const BATCH_MAX: usize = 64;

/// What to do where the kernel grants less.
pub(super) const CAP_HELP: &str = "bursts of calls are dropped sooner: `sysctl -w net.core.rmem_max=4194304`, and the same in \
     /etc/sysctl.d";

/// Binds a socket with room for a burst.
pub(super) fn bind(address: SocketAddr) -> io::Result<net::UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if datagrams::force_buffers(&socket, BUFFER_FORCED).is_err() {
        // The kernel caps it at net.core.rmem_max; less than asked for is no error.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
    }
    datagrams::ask_for_details(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Returns how much may wait in a socket, in bytes, where the kernel granted less than is wanted.
pub(super) fn capped_at(socket: &net::UdpSocket) -> Option<usize> {
    let granted = socket2::SockRef::from(socket).recv_buffer_size().ok()? / 2;
    (granted < BUFFER).then_some(granted)
}

/// The sockets of one shard.
#[derive(Debug)]
pub(super) struct Udp {
    sockets: Vec<Listening>,
    inbox: Inbox,
    routes: Routes,
}

#[derive(Debug)]
struct Listening {
    socket: net::UdpSocket,
    /// The same socket as the runtime watches it, while we read.
    ears: Option<UdpSocket>,
    local: SocketAddr,
    /// What the kernel dropped, and the reading that this sum ends with.
    dropped: (u64, u32),
    /// The configuration no longer names it: only the calls of the process before us still have it.
    is_elders: bool,
}

impl Listening {
    /// Takes a bound socket; for the runtime in which this is called.
    fn new(socket: net::UdpSocket, is_elders: bool) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let ears = Some(UdpSocket::from_std(socket.try_clone()?)?);
        Ok(Self { socket, ears, local, dropped: (0, 0), is_elders })
    }
}

impl Udp {
    /// Takes bound sockets; for the runtime in which this is called.
    pub(super) fn new(sockets: Vec<net::UdpSocket>, routes: Routes) -> io::Result<Self> {
        let listening = |socket| Listening::new(socket, false);
        let sockets = sockets.into_iter().map(listening).collect::<io::Result<_>>()?;
        Ok(Self { sockets, inbox: Inbox::default(), routes })
    }

    /// Reads these as well, for the process before us.
    pub(super) fn read_for_elder(&mut self, sockets: Vec<net::UdpSocket>) -> io::Result<()> {
        for socket in sockets {
            self.sockets.push(Listening::new(socket, true)?);
        }
        Ok(())
    }

    /// Returns whether what comes here is for the process before us alone.
    pub(super) fn is_elders(&self, flow: Flow) -> bool {
        flow.transport == Transport::Udp
            && self.socket(flow.local).is_some_and(|listening| listening.is_elders)
    }

    /// Closes what was read for the process before us, which is gone.
    pub(super) fn outlive_elder(&mut self) {
        self.sockets.retain(|at| !at.is_elders);
    }

    /// Leaves the datagrams that come to another process, but for those that only the one before us
    /// wants. It can still send.
    pub(super) fn stop_reading(&mut self) {
        self.sockets.iter_mut().filter(|at| !at.is_elders).for_each(|at| at.ears = None);
    }

    /// Reads again after [`Self::stop_reading`].
    pub(super) fn read_again(&mut self) -> io::Result<()> {
        for at in self.sockets.iter_mut().filter(|at| at.ears.is_none()) {
            at.ears = Some(UdpSocket::from_std(at.socket.try_clone()?)?);
        }
        Ok(())
    }

    /// Waits for a datagram; for ever where none is read.
    pub(super) async fn readable(&self) {
        poll_fn(|context| {
            let mut ears = self.sockets.iter().filter_map(|at| at.ears.as_ref());
            let is_ready = |ears: &UdpSocket| ears.poll_recv_ready(context).is_ready();
            if ears.any(is_ready) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads what has come, up to a batch from each socket, in order, but for what `is_done` was all to be done with:
    /// nothing is kept of that. What comes for the process before us is not for us to do. Returns whether there may be
    /// more.
    pub(super) fn read(
        &mut self,
        into: &mut Vec<(Flow, Bytes)>,
        mut is_done: impl FnMut(Flow, &[u8]) -> bool,
    ) -> bool {
        let Self { sockets, inbox, routes } = self;
        let mut is_more = false;
        for Listening { ears, local: listener, dropped, is_elders, .. } in sockets {
            let Some(ears) = ears else { continue };
            let read = ears.try_io(Interest::READABLE, || {
                let is_more = inbox.read(ears, BATCH_MAX, |arrival| {
                    if let Some(total) = arrival.dropped {
                        let since = u64::from(total.wrapping_sub(dropped.1));
                        *dropped = (dropped.0.saturating_add(since), total);
                    }
                    if is_keep_alive(arrival.bytes) {
                        return;
                    }
                    let local = match arrival.to {
                        Some(ip) => SocketAddr::new(ip, listener.port()),
                        None => routes.local(*listener, arrival.remote.ip()),
                    };
                    let flow = Flow { transport: Transport::Udp, local, remote: arrival.remote };
                    if *is_elders || !is_done(flow, arrival.bytes) {
                        // A copy of its own size: a call keeps its INVITE, but not 64 KiB for it.
                        into.push((flow, Bytes::copy_from_slice(arrival.bytes)));
                    }
                })?;
                // Empty: the runtime asks the kernel again only if it is told so.
                if is_more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            });
            match read {
                Ok(()) => is_more = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // ICMP errors for an earlier send surface here; the transaction times out on its own.
                Err(error) => tracing::debug!(%error, "receive failed"),
            }
        }
        is_more
    }

    /// Sends a datagram from the address that its flow names.
    pub(super) fn send(&self, flow: Flow, bytes: &[u8]) -> io::Result<()> {
        let at = self.socket(flow.local).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let ip = flow.local.ip();
        let from = (at.local.ip() != ip).then_some(ip);
        match datagrams::write(&at.socket, from, flow.remote, bytes) {
            // The machine may have another address by now, and no way from the former one.
            Err(error) if from.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
                datagrams::write(&at.socket, None, flow.remote, bytes)
            }
            sent => sent,
        }
    }

    /// Sends datagrams of one length, whose text is that of the parts together, from the address that their flow names:
    /// no more than [`datagrams::together_max`].
    pub(super) fn send_alike(&self, flow: Flow, length: usize, parts: &[&[u8]]) -> io::Result<()> {
        let at = self.socket(flow.local).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let ip = flow.local.ip();
        let from = (at.local.ip() != ip).then_some(ip);
        datagrams::write_alike(&at.socket, from, flow.remote, (length, parts))
    }

    fn socket(&self, local: SocketAddr) -> Option<&Listening> {
        let is_wild = |at: &&Listening| {
            at.local.ip().is_unspecified()
                && at.local.port() == local.port()
                && at.local.is_ipv4() == local.is_ipv4()
        };
        let exact = self.sockets.iter().find(|at| at.local == local);
        exact.or_else(|| self.sockets.iter().find(is_wild))
    }

    /// Returns how many datagrams the kernel had no room for because we did not keep up, as far as
    /// it has told: it does so with the next one that it has room for.
    pub(super) fn dropped(&self) -> u64 {
        self.sockets.iter().map(|at| at.dropped.0).sum()
    }
}

/// NAT keep-alives carry nothing: CRLFs, a zero byte, or a few of either.
fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.len() <= 4 && datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::routes::Listener;
    use std::{collections::BTreeMap, net::UdpSocket as Peer, time::Duration};
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn listening(address: &str) -> (Udp, SocketAddr) {
        let socket = bind(address.parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let routes = Routes::new(vec![Listener { transport: Transport::Udp, address }]);
        (Udp::new(vec![socket], routes).unwrap(), address)
    }

    fn peer(ip: &str) -> Peer {
        let peer = Peer::bind((ip, 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    }

    async fn next(udp: &mut Udp, into: &mut Vec<(Flow, Bytes)>) -> bool {
        timeout(PATIENCE, udp.readable()).await.expect("a datagram comes");
        udp.read(into, |_, _| false)
    }

    #[tokio::test]
    async fn a_burst_comes_in_order_and_in_bounded_batches() {
        let (mut udp, address) = listening("127.0.0.1:0");
        let peers = [peer("127.0.0.1"), peer("127.0.0.2")];
        let each = BATCH_MAX * 3;
        let mut heard: BTreeMap<SocketAddr, Vec<Bytes>> = BTreeMap::new();
        let (mut arrived, mut is_more) = (vec![], false);
        for n in 0..each {
            for peer in &peers {
                peer.send_to(format!("message {n}").as_bytes(), address).unwrap();
                peer.send_to(b"\r\n\r\n", address).unwrap(); // a keep-alive carries nothing
            }
            // No more at a time than the smallest buffer holds that a kernel gives.
            let sent = (n + 1) * 2;
            while (n + 1) % BATCH_MAX == 0 && heard.values().map(Vec::len).sum::<usize>() < sent {
                is_more = next(&mut udp, &mut arrived).await;
                assert!(arrived.len() <= BATCH_MAX, "{} at a time", arrived.len());
                for (flow, bytes) in arrived.drain(..) {
                    assert_eq!(flow.local, address);
                    heard.entry(flow.remote).or_default().push(bytes);
                }
            }
        }
        let want: Vec<_> = (0..each).map(|n| format!("message {n}")).collect();
        for peer in &peers {
            assert_eq!(heard[&peer.local_addr().unwrap()], want);
        }
        while is_more {
            is_more = udp.read(&mut arrived, |_, _| false);
        }
        assert!(arrived.is_empty() && udp.dropped() == 0);
    }

    /// Whoever calls one of several addresses gets the answer from there.
    #[tokio::test]
    async fn a_listener_on_all_addresses_answers_from_the_one_that_was_called() {
        for (all, called, of) in [("0.0.0.0:0", "127.0.7.9", "127.0.0.1"), ("[::]:0", "::1", "::1")]
        {
            let (mut udp, address) = listening(all);
            let (peer, called) =
                (peer(of), SocketAddr::new(called.parse().unwrap(), address.port()));
            peer.send_to(b"hello", called).unwrap();
            let mut arrived = vec![];
            next(&mut udp, &mut arrived).await;
            let [(flow, bytes)] = &arrived[..] else { panic!("{arrived:?}") };
            assert_eq!((flow.local, flow.remote), (called, peer.local_addr().unwrap()));
            udp.send(*flow, bytes).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (5, called));
        }
    }

    /// The address of before, in a binding that was stored or a call that goes on.
    #[tokio::test]
    async fn an_address_that_is_no_longer_ours_keeps_nobody_from_sending() {
        let (udp, address) = listening("0.0.0.0:0");
        let (peer, former) = (peer("127.0.0.1"), "192.0.2.77".parse().unwrap());
        let local = SocketAddr::new(former, address.port());
        let remote = peer.local_addr().unwrap();
        udp.send(Flow { transport: Transport::Udp, local, remote }, b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(peer.recv_from(&mut buffer).unwrap().0, 5);
        let local = SocketAddr::new(former, 9);
        let nowhere = udp.send(Flow { transport: Transport::Udp, local, remote }, b"hello");
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn datagrams_of_one_length_leave_together() {
        for (all, of) in [("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let ((udp, address), peer) = (listening(all), peer(of));
            let local = SocketAddr::new(of.parse().unwrap(), address.port());
            let flow =
                Flow { transport: Transport::Udp, local, remote: peer.local_addr().unwrap() };
            udp.send_alike(flow, 3, &[b"onetwo", b"six"]).unwrap();
            let mut buffer = [0; 16];
            for text in [b"one", b"two", b"six"] {
                assert_eq!(peer.recv_from(&mut buffer).unwrap(), (3, local));
                assert_eq!(&buffer[..3], text);
            }
            assert!(udp.send_alike(flow, 70_000, &[&[b'x'; 70_000]]).is_err());
        }
    }

    #[tokio::test]
    async fn what_the_kernel_drops_is_counted() {
        let (mut udp, address) = listening("127.0.0.1:0");
        let small = socket2::SockRef::from(&udp.sockets[0].socket).set_recv_buffer_size(1);
        small.unwrap();
        let peer = peer("127.0.0.1");
        let (mut arrived, mut sent) = (vec![], 0_u64);
        for _ in 0..2 {
            for _ in 0..50 {
                peer.send_to(&[b'x'; 1000], address).unwrap();
                sent += 1;
            }
            while next(&mut udp, &mut arrived).await {}
            // It tells with the next one that it takes.
            peer.send_to(b"one more", address).unwrap();
            sent += 1;
            while next(&mut udp, &mut arrived).await {}
        }
        assert!(udp.dropped() > 0);
        assert_eq!(arrived.len() as u64 + udp.dropped(), sent);
    }

    #[test]
    fn the_buffer_is_as_large_as_the_kernel_grants() {
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let granted = socket2::SockRef::from(&socket).recv_buffer_size().unwrap() / 2;
        assert_eq!(capped_at(&socket), (granted < BUFFER).then_some(granted));
        socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
        assert_eq!(capped_at(&socket), Some(4096));
    }
}
