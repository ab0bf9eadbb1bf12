//! Connections that peers open, over TCP and over TLS.
//!
//! Owns: the handshakes, and how many there may be at a time, from one source and altogether.
//! Never: reads from a connection that stands, `stream` does; or chooses who must make room then, `guests` does.

use super::{
    ingress::Packet,
    stream::{Connection, Eviction, Opened, Opener, WRITES_MAX, run},
};
use crate::{
    ids::{Flow, Transport},
    network::source,
    tls::Failure,
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
};

/// Handshakes that go on, altogether and from one source: they cost more than connections. Who begins one more
/// ends the oldest, which is the likeliest to lead nowhere.
const HANDSHAKES_MAX: usize = 512;
const HANDSHAKES_PER_SOURCE_MAX: usize = 64;

impl Opener {
    /// Accepts connections until the shard is gone.
    pub(super) async fn accept(self, transport: Transport, listener: TcpListener) {
        let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
        let mut handshakes = Handshakes::default();
        while !self.ingress.is_closed() {
            let Ok(room) = self.accepted.clone().acquire_owned().await else { return };
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
            let flow = Flow { transport, local, remote };
            let opener = self.clone();
            match transport {
                // Datagrams have no connections.
                Transport::Udp => return,
                Transport::Tcp => tokio::spawn(opener.serve(stream, flow, room)),
                Transport::Tls => {
                    let over = handshakes.begin(remote.ip());
                    tokio::spawn(opener.serve_tls(stream, flow, room, over))
                }
            };
        }
    }

    async fn serve(self, stream: TcpStream, flow: Flow, room: OwnedSemaphorePermit) {
        super::stream::tune(&stream);
        run(stream.into_split(), self.welcome(flow).await).await;
        drop(room);
    }

    async fn serve_tls(
        self,
        stream: TcpStream,
        flow: Flow,
        room: OwnedSemaphorePermit,
        over: Eviction,
    ) {
        super::stream::tune(&stream);
        let security = self.security.borrow().clone();
        let shaken = tokio::select! {
            shaken = security.accept(stream) => shaken,
            _ = over => Err(Failure::Gone),
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(why) => {
                self.refused.fetch_add(1, Relaxed);
                tracing::debug!(%flow, code = why.code(), %why, "handshake failed");
                return;
            }
        };
        run(tokio::io::split(stream), self.welcome(flow).await).await;
        drop(room);
    }

    /// Tells the shard of a connection that stands.
    async fn welcome(self, flow: Flow) -> Connection {
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        let (end, eviction) = oneshot::channel();
        let Self { ingress, .. } = self;
        ingress.tell(Packet::Opened { flow, writer, end }).await;
        Connection { flow, opened: Opened::ByPeer(eviction), queue, ingress }
    }
}

/// The handshakes that go on, the oldest first.
#[derive(Debug, Default)]
struct Handshakes(VecDeque<(IpAddr, oneshot::Sender<()>)>);

impl Handshakes {
    /// Begins one. Returns what ends when it must make room.
    fn begin(&mut self, ip: IpAddr) -> Eviction {
        let ip = source(ip);
        let Self(begun) = self;
        begun.retain(|(_, end)| !end.is_closed());
        let of_this = |(other, _): &&(IpAddr, _)| *other == ip;
        if begun.iter().filter(of_this).count() >= HANDSHAKES_PER_SOURCE_MAX {
            let oldest = begun.iter().position(|(other, _)| *other == ip);
            oldest.and_then(|oldest| begun.remove(oldest));
        } else if begun.len() >= HANDSHAKES_MAX {
            begun.pop_front();
        }
        let (end, over) = oneshot::channel();
        begun.push_back((ip, end));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    #[test]
    fn the_oldest_handshake_makes_room() {
        let mut handshakes = Handshakes::default();
        let mut flood: Vec<_> = (0..1000).map(|_| handshakes.begin(ip(1))).collect();
        let is_over = |end: &mut Eviction| {
            matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        assert_eq!(flood.iter_mut().filter_map(|e| is_over(e).then_some(())).count(), 936);
        assert!(!is_over(flood.last_mut().unwrap()));
        // Others are not in its way, until there are too many of all.
        let mut other = handshakes.begin(ip(2));
        let _more: Vec<_> = (3..450).map(|n| handshakes.begin(ip(n))).collect();
        assert!(!is_over(&mut other));
        let still_more: Vec<_> = (450..1000).map(|n| handshakes.begin(ip(n))).collect();
        assert!(is_over(&mut other));
        // Those that have ended leave room at once.
        drop(still_more);
        assert_eq!(handshakes.0.len(), HANDSHAKES_MAX);
        let _one = handshakes.begin(ip(5));
        assert_eq!(handshakes.0.len(), 1);
    }
}
