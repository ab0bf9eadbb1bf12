//! Connections that peers open, over TCP and over TLS.
//!
//! Owns: how many there may be, from one source and altogether, also of those that have only begun.
//! Never: reads from one; `stream` does once it stands.

use super::{
    ingress::Packet,
    stream::{By, CONNECTIONS_MAX, Connection, Opener, WRITES_MAX, run},
};
use crate::{
    ids::{Flow, Transport},
    tls::Failure,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};

/// Connections from one source: phones behind one NAT have one each.
const PER_SOURCE_MAX: usize = CONNECTIONS_MAX / 4;
/// TLS handshakes that have begun, altogether and from one source. Who begins one more ends the
/// oldest, which is the likeliest to lead nowhere.
const HALF_OPEN_MAX: usize = 512;
const HALF_OPEN_PER_SOURCE_MAX: usize = 64;
/// Sources remembered before those without a connection are forgotten.
const SOURCES_TIDY: usize = 256;

impl Opener {
    /// Accepts connections until the shard is gone.
    pub(super) async fn accept(self, transport: Transport, listener: TcpListener) {
        let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
        let mut sources = Sources::default();
        let mut half_open = HalfOpen::default();
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
            let Some(share) = sources.admit(remote.ip()) else {
                tracing::debug!(%remote, "too many connections");
                continue;
            };
            let flow = Flow { transport, local, remote };
            let (opener, permits) = (self.clone(), [room, share]);
            match transport {
                // Datagrams have no connections.
                Transport::Udp => return,
                Transport::Tcp => tokio::spawn(opener.serve(stream, flow, permits)),
                Transport::Tls => {
                    let evicted = half_open.begin(remote.ip());
                    tokio::spawn(opener.serve_tls(stream, flow, permits, evicted))
                }
            };
        }
    }

    async fn serve(self, stream: TcpStream, flow: Flow, permits: [OwnedSemaphorePermit; 2]) {
        super::stream::tune(&stream);
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        let Self { ingress, .. } = self;
        ingress.tell(Packet::Opened { flow, writer }).await;
        let (reader, writer) = stream.into_split();
        run((reader, writer), Connection { flow, opened: By::Peer, queue, ingress }).await;
        drop(permits);
    }

    async fn serve_tls(
        self,
        stream: TcpStream,
        flow: Flow,
        permits: [OwnedSemaphorePermit; 2],
        evicted: oneshot::Receiver<()>,
    ) {
        super::stream::tune(&stream);
        let security = self.security.borrow().clone();
        let shaken = tokio::select! {
            shaken = security.accept(stream) => shaken,
            _ = evicted => Err(Failure::Gone),
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(why) => {
                self.refused.fetch_add(1, Relaxed);
                tracing::debug!(%flow, code = why.code(), %why, "handshake failed");
                return;
            }
        };
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        let Self { ingress, .. } = self;
        ingress.tell(Packet::Opened { flow, writer }).await;
        let halves = tokio::io::split(stream);
        run(halves, Connection { flow, opened: By::Peer, queue, ingress }).await;
        drop(permits);
    }
}

/// The connections of each source.
#[derive(Debug, Default)]
struct Sources {
    shares: BTreeMap<IpAddr, Arc<Semaphore>>,
    tidy_at: usize,
}

impl Sources {
    /// Returns the right to one more connection, while the source has not too many.
    fn admit(&mut self, ip: IpAddr) -> Option<OwnedSemaphorePermit> {
        if self.shares.len() >= self.tidy_at.max(SOURCES_TIDY) {
            self.shares.retain(|_, share| share.available_permits() < PER_SOURCE_MAX);
            self.tidy_at = self.shares.len().saturating_mul(2);
        }
        let share = self.shares.entry(source(ip));
        let share = share.or_insert_with(|| Arc::new(Semaphore::new(PER_SOURCE_MAX)));
        share.clone().try_acquire_owned().ok()
    }
}

/// The handshakes that have begun, the oldest first.
#[derive(Debug, Default)]
struct HalfOpen(VecDeque<(IpAddr, oneshot::Sender<()>)>);

impl HalfOpen {
    /// Begins one. Returns what ends when it must make room.
    fn begin(&mut self, ip: IpAddr) -> oneshot::Receiver<()> {
        let ip = source(ip);
        self.0.retain(|(_, end)| !end.is_closed());
        let of_this = |(other, _): &&(IpAddr, _)| *other == ip;
        if self.0.iter().filter(of_this).count() >= HALF_OPEN_PER_SOURCE_MAX {
            let oldest = self.0.iter().position(|(other, _)| *other == ip);
            oldest.and_then(|oldest| self.0.remove(oldest));
        } else if self.0.len() >= HALF_OPEN_MAX {
            self.0.pop_front();
        }
        let (end, ended) = oneshot::channel();
        self.0.push_back((ip, end));
        ended
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
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
    fn one_source_has_a_share_and_gets_it_back() {
        let mut sources = Sources::default();
        let mut held: Vec<_> = (0..PER_SOURCE_MAX).map(|_| sources.admit(ip(1)).unwrap()).collect();
        assert!(sources.admit(ip(1)).is_none());
        assert!(sources.admit(ip(2)).is_some());
        held.pop();
        assert!(sources.admit(ip(1)).is_some());
    }

    #[test]
    fn sources_without_connections_are_forgotten() {
        let mut sources = Sources::default();
        let held = sources.admit(ip(0));
        for n in 1..100_000 {
            sources.admit(ip(n));
        }
        assert!(sources.shares.len() <= SOURCES_TIDY + 1, "{}", sources.shares.len());
        assert!(sources.shares.contains_key(&ip(0)) && held.is_some());
    }

    #[test]
    fn the_oldest_handshake_makes_room() {
        let mut half_open = HalfOpen::default();
        let mut flood: Vec<_> = (0..1000).map(|_| half_open.begin(ip(1))).collect();
        let is_over = |end: &mut oneshot::Receiver<()>| {
            matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        assert_eq!(flood.iter_mut().filter_map(|e| is_over(e).then_some(())).count(), 936);
        assert!(!is_over(flood.last_mut().unwrap()));
        // Others are not in its way, until there are too many of all.
        let mut other = half_open.begin(ip(2));
        let _more: Vec<_> = (3..450).map(|n| half_open.begin(ip(n))).collect();
        assert!(!is_over(&mut other));
        let _still_more: Vec<_> = (450..1000).map(|n| half_open.begin(ip(n))).collect();
        assert!(is_over(&mut other));
        assert_eq!(half_open.0.len(), HALF_OPEN_MAX);
        // Those that have ended leave room at once.
        drop(_still_more);
        assert_eq!(half_open.0.len(), HALF_OPEN_MAX);
        let _one = half_open.begin(ip(5));
        assert_eq!(half_open.0.len(), 1);
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let a: IpAddr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(source(a), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
    }
}
