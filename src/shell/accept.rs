//! Connections that peers open, over TCP and over TLS.
//!
//! Owns: how many there may be, from one source and altogether, also of those that have only begun.
//! Never: reads from one; `stream` does once it stands.

use super::{
    ingress::Packet,
    stream::{By, CONNECTIONS_MAX, Connection, Eviction, Opener, WRITES_MAX, run},
};
use crate::{
    ids::{Flow, Transport},
    network::source,
    tls::Failure,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};

/// Connections from one source: phones behind one NAT have one each.
const PER_SOURCE_MAX: usize = CONNECTIONS_MAX / 4;
/// Connections that have not brought a message yet, altogether and from one source: over TLS they cost
/// more. Who begins one more ends the oldest, which is the likeliest to lead nowhere.
const YOUNG_MAX: [usize; 2] = [CONNECTIONS_MAX / 2, PER_SOURCE_MAX / 4];
const YOUNG_TLS_MAX: [usize; 2] = [512, 64];
/// Sources remembered before those without a connection are forgotten.
const SOURCES_TIDY: usize = 256;

impl Opener {
    /// Accepts connections until the shard is gone.
    pub(super) async fn accept(self, transport: Transport, listener: TcpListener) {
        let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
        let mut sources = Sources::default();
        let mut young = match transport {
            Transport::Tls => Young::new(YOUNG_TLS_MAX),
            Transport::Tcp | Transport::Udp => Young::new(YOUNG_MAX),
        };
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
            let eviction = young.begin(remote.ip());
            match transport {
                // Datagrams have no connections.
                Transport::Udp => return,
                Transport::Tcp => tokio::spawn(opener.serve(stream, flow, permits, eviction)),
                Transport::Tls => tokio::spawn(opener.serve_tls(stream, flow, permits, eviction)),
            };
        }
    }

    async fn serve(
        self,
        stream: TcpStream,
        flow: Flow,
        permits: [OwnedSemaphorePermit; 2],
        eviction: Eviction,
    ) {
        super::stream::tune(&stream);
        let (writer, queue) = mpsc::channel(WRITES_MAX);
        let Self { ingress, .. } = self;
        ingress.tell(Packet::Opened { flow, writer }).await;
        let (reader, writer) = stream.into_split();
        let young = Some(eviction);
        run((reader, writer), Connection { flow, opened: By::Peer, young, queue, ingress }).await;
        drop(permits);
    }

    async fn serve_tls(
        self,
        stream: TcpStream,
        flow: Flow,
        permits: [OwnedSemaphorePermit; 2],
        mut eviction: Eviction,
    ) {
        super::stream::tune(&stream);
        let security = self.security.borrow().clone();
        let shaken = tokio::select! {
            shaken = security.accept(stream) => shaken,
            _ = &mut eviction => Err(Failure::Gone),
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
        let young = Some(eviction);
        run(halves, Connection { flow, opened: By::Peer, young, queue, ingress }).await;
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

/// The connections that have not brought a message yet, the oldest first.
#[derive(Debug)]
struct Young {
    begun: VecDeque<(IpAddr, oneshot::Sender<()>)>,
    max: usize,
    per_source_max: usize,
}

impl Young {
    fn new([max, per_source_max]: [usize; 2]) -> Self {
        Self { begun: VecDeque::new(), max, per_source_max }
    }

    /// Begins one. Returns what ends when it must make room.
    fn begin(&mut self, ip: IpAddr) -> Eviction {
        let ip = source(ip);
        self.begun.retain(|(_, end)| !end.is_closed());
        let of_this = |(other, _): &&(IpAddr, _)| *other == ip;
        if self.begun.iter().filter(of_this).count() >= self.per_source_max {
            let oldest = self.begun.iter().position(|(other, _)| *other == ip);
            oldest.and_then(|oldest| self.begun.remove(oldest));
        } else if self.begun.len() >= self.max {
            self.begun.pop_front();
        }
        let (end, ended) = oneshot::channel();
        self.begun.push_back((ip, end));
        ended
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
    fn the_oldest_without_a_message_makes_room() {
        let mut young = Young::new(YOUNG_TLS_MAX);
        let mut flood: Vec<_> = (0..1000).map(|_| young.begin(ip(1))).collect();
        let is_over = |end: &mut oneshot::Receiver<()>| {
            matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        assert_eq!(flood.iter_mut().filter_map(|e| is_over(e).then_some(())).count(), 936);
        assert!(!is_over(flood.last_mut().unwrap()));
        // Others are not in its way, until there are too many of all.
        let mut other = young.begin(ip(2));
        let _more: Vec<_> = (3..450).map(|n| young.begin(ip(n))).collect();
        assert!(!is_over(&mut other));
        let _still_more: Vec<_> = (450..1000).map(|n| young.begin(ip(n))).collect();
        assert!(is_over(&mut other));
        assert_eq!(young.begun.len(), YOUNG_TLS_MAX[0]);
        // Those that have ended leave room at once.
        drop(_still_more);
        assert_eq!(young.begun.len(), YOUNG_TLS_MAX[0]);
        let _one = young.begin(ip(5));
        assert_eq!(young.begun.len(), 1);
    }
}
