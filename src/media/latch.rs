//! Where one peer is: where it may send from, and where we send to (RFC 7362).
//!
//! Owns: the addresses learned from packets.
//! Never: reads what is in the packets.

use super::{
    command::{Latch, Remote},
    discard::Discard,
};
use crate::network::Network;
use std::net::{IpAddr, SocketAddr};

/// So many packets, half a second of them, must come from a port that was not signalled, of an address that
/// was, before we send there.
const RIPE: u8 = 25;

/// How likely it is that a packet from somewhere is the peer's.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Likely {
    /// Somebody, while nothing is known.
    Anybody,
    /// From the address of its signalling, or from another port of the signalled address.
    Near,
    /// From where it said, or from where it has been all the time.
    Itself,
}

/// What was learned about a peer's addresses.
#[derive(Debug)]
pub(super) struct Source {
    /// Our port is an IPv4 one: it reaches no IPv6 address. The reverse holds as well, because a
    /// socket bound to an IPv6 address takes no IPv4 packets.
    is_ipv4: bool,
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    /// Learned before the last offer/answer, which did not say otherwise: good enough to send to until
    /// the peer is heard again, which may be long if it is listening only.
    rtp_before: Option<SocketAddr>,
    rtcp_before: Option<SocketAddr>,
    /// How many packets came from `rtp`, up to [`RIPE`].
    heard: u8,
}

impl Source {
    /// Knows nothing yet; our port is at `ip`.
    pub(super) fn new(ip: IpAddr) -> Self {
        let is_ipv4 = ip.to_canonical().is_ipv4();
        Self { is_ipv4, rtp: None, rtcp: None, rtp_before: None, rtcp_before: None, heard: 0 }
    }

    /// Begins to learn anew, at an offer/answer.
    pub(super) fn aim(&mut self, before: Option<&Remote>, remote: &Remote) {
        let stays = before.is_some_and(|b| b.rtp == remote.rtp && b.latch == remote.latch);
        let known = |new: Option<_>, old: Option<_>| new.or(old).filter(|_| stays);
        let sent_to = before.filter(|before| self.is_ripe(before)).and(self.rtp);
        *self = Self {
            is_ipv4: self.is_ipv4,
            rtp: None,
            rtcp: None,
            rtp_before: known(sent_to, self.rtp_before),
            rtcp_before: known(self.rtcp, self.rtcp_before),
            heard: 0,
        };
    }

    /// Returns how likely it is that who sends from there is the peer; `None`: it is not.
    fn likely(&self, remote: &Remote, from: SocketAddr) -> Option<Likely> {
        if from == remote.rtp || self.rtp_before == Some(from) {
            return Some(Likely::Itself);
        }
        match &remote.latch {
            Latch::Learn { near: Some(ip) } => {
                let is_near = from.ip() == remote.rtp.ip() || from.ip() == **ip;
                is_near.then_some(Likely::Near)
            }
            Latch::Learn { near: None } | Latch::Strict { .. } => Some(Likely::Anybody),
        }
    }

    /// Returns whether we send to where it was heard.
    fn is_ripe(&self, remote: &Remote) -> bool {
        let is_odd = |rtp: SocketAddr| {
            matches!(remote.latch, Latch::Learn { near: Some(_) })
                && rtp.ip() == remote.rtp.ip()
                && self.likely(remote, rtp) != Some(Likely::Itself)
        };
        !self.rtp.is_some_and(is_odd) || self.heard >= RIPE
    }

    /// Returns whether nobody else can turn out to be the peer, as long as it sends from there.
    pub(super) fn is_sure(&self, remote: &Remote, from: SocketAddr) -> bool {
        match (&remote.latch, self.likely(remote, from)) {
            (Latch::Strict { .. }, _) | (_, Some(Likely::Itself)) => true,
            (Latch::Learn { .. }, Some(Likely::Near)) => from.ip() != remote.rtp.ip(),
            (Latch::Learn { .. }, Some(Likely::Anybody) | None) => false,
        }
    }

    /// Returns whether an RTP packet from there could be admitted; nothing is learned from it yet.
    pub(super) fn expects(&self, remote: &Remote, from: SocketAddr) -> Result<(), Discard> {
        let is_right = match (&remote.latch, self.rtp) {
            (Latch::Strict { ranges }, _) => {
                from.ip() == remote.rtp.ip() || Network::any(ranges, from.ip())
            }
            (Latch::Learn { .. }, Some(learned)) => {
                learned == from || self.likely(remote, from) > self.likely(remote, learned)
            }
            (Latch::Learn { .. }, None) => self.likely(remote, from).is_some(),
        };
        is_right.then_some(()).ok_or(Discard::StrangeSource)
    }

    /// Admits an RTP packet by its source, or not.
    pub(super) fn admit(&mut self, remote: &Remote, from: SocketAddr) -> Result<(), Discard> {
        self.expects(remote, from)?;
        match remote.latch {
            Latch::Strict { .. } => {}
            Latch::Learn { .. } if self.rtp == Some(from) => {
                self.heard = self.heard.saturating_add(1).min(RIPE);
            }
            Latch::Learn { .. } => (self.rtp, self.heard) = (Some(from), 1),
        }
        Ok(())
    }

    /// Admits an RTCP packet by its source, or not: it must come from where RTP comes from, or from
    /// where it was signalled. Its port is learned on its own.
    pub(super) fn admit_rtcp(&mut self, remote: &Remote, from: SocketAddr) -> Result<(), Discard> {
        let is_right = match (&remote.latch, self.rtp.or(self.rtp_before)) {
            (Latch::Strict { ranges }, _) => {
                let ip = from.ip();
                ip == remote.rtcp.ip() || ip == remote.rtp.ip() || Network::any(ranges, ip)
            }
            (Latch::Learn { .. }, Some(learned)) => from.ip() == learned.ip(),
            (Latch::Learn { .. }, None) => from.ip() == remote.rtcp.ip(),
        };
        if is_right && !matches!(remote.latch, Latch::Strict { .. }) {
            self.rtcp = Some(from);
        }
        is_right.then_some(()).ok_or(Discard::StrangeSource)
    }

    /// Returns where to send RTP, or why nowhere.
    pub(super) fn destination(&self, remote: &Remote) -> Result<SocketAddr, Discard> {
        if !is_somewhere(remote.rtp) {
            return Err(Discard::PeerOnHold);
        }
        let heard = self.rtp.filter(|_| self.is_ripe(remote));
        let to = heard.or(self.rtp_before).unwrap_or(remote.rtp);
        self.reaches(to).then_some(to).ok_or(Discard::WrongFamily)
    }

    fn reaches(&self, to: SocketAddr) -> bool {
        to.is_ipv4() == self.is_ipv4
    }

    /// Returns where to send RTCP. A peer that turned out to be behind a NAT gets none before it has
    /// sent some: the port next to its RTP port may be somebody else's.
    pub(super) fn rtcp_destination(&self, remote: &Remote) -> Option<SocketAddr> {
        let is_behind_nat =
            self.rtp.or(self.rtp_before).is_some_and(|rtp| rtp.ip() != remote.rtp.ip());
        let signalled = (!is_behind_nat).then_some(remote.rtcp);
        let to = self.rtcp.or(self.rtcp_before).or(signalled)?;
        (is_somewhere(to) && is_somewhere(remote.rtp) && self.reaches(to)).then_some(to)
    }
}

/// An IPv4 address in IPv6's clothes (RFC 4291 2.5.5.2) is the IPv4 address.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// RFC 3264 8.4's old way to hold is an unspecified address; port 0 is a rejected stream.
fn is_somewhere(address: SocketAddr) -> bool {
    !address.ip().is_unspecified() && address.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNALLED: &str = "192.0.2.1:4000";

    #[test]
    fn strict_takes_the_signalled_address_and_the_ranges() {
        let ranges = [Network::v4([198, 51, 100, 0], 24)];
        let remote = remote(SIGNALLED, Latch::Strict { ranges: ranges.into() });
        let mut source = source();
        for (from, want) in [
            (SIGNALLED, true),
            ("192.0.2.1:9", true),
            ("198.51.100.77:9", true),
            ("203.0.113.9:4000", false),
        ] {
            assert_eq!(source.admit(&remote, addr(from)).is_ok(), want, "{from}");
            assert_eq!(source.admit_rtcp(&remote, addr(from)).is_ok(), want, "{from}");
            assert_eq!(source.destination(&remote), Ok(addr(SIGNALLED)), "never learned");
            assert_eq!(source.rtcp_destination(&remote), Some(addr("192.0.2.1:4001")));
        }
    }

    #[test]
    fn learn_takes_the_first_and_only_the_first_until_the_next_aim() {
        let remote = remote(SIGNALLED, Latch::Learn { near: None });
        for first in [SIGNALLED, "203.0.113.9:1024"] {
            let mut source = source();
            assert_eq!(source.destination(&remote), Ok(addr(SIGNALLED)));
            assert!(source.admit(&remote, addr(first)).is_ok());
            assert!(source.admit(&remote, addr("203.0.113.66:1024")).is_err());
            assert!(source.admit(&remote, addr(first)).is_ok());
            assert_eq!(source.destination(&remote), Ok(addr(first)));

            source.aim(Some(&remote), &remote);
            assert_eq!(source.destination(&remote), Ok(addr(first)), "nothing better is known");
            assert!(source.admit(&remote, addr("203.0.113.66:1024")).is_ok(), "learned anew");
            assert_eq!(source.destination(&remote), Ok(addr("203.0.113.66:1024")));
        }
    }

    /// Who speaks first is not the peer for that.
    #[test]
    fn the_peer_takes_its_place_from_whoever_came_first() {
        let (stranger, neighbour) = ("203.0.113.66:6666", "192.0.2.1:6666");
        let near = Latch::Learn { near: Some(Box::new("198.51.100.7".parse().unwrap())) };
        for (latch, first, is_heard, is_sent_to) in [
            (near.clone(), stranger, false, false),
            (near.clone(), neighbour, true, false),
            (near, "198.51.100.7:30000", true, true),
            (Latch::Learn { near: None }, stranger, true, true),
        ] {
            let remote = remote(SIGNALLED, latch);
            let mut source = source();
            assert_eq!(source.admit(&remote, addr(first)).is_ok(), is_heard, "{first}");
            let to = addr(if is_sent_to { first } else { SIGNALLED });
            assert_eq!(source.destination(&remote), Ok(to), "{first}");
            assert!(source.admit(&remote, addr(SIGNALLED)).is_ok(), "{first} keeps the peer out");
            assert_eq!(source.destination(&remote), Ok(addr(SIGNALLED)));
            assert!(source.admit(&remote, addr(first)).is_err(), "{first} does not come back");
        }
    }

    /// A NAT may show another port than the one that was signalled; it does so for as long as the call.
    #[test]
    fn another_port_of_the_signalled_address_must_go_on() {
        let (other, third) = ("192.0.2.1:6666", "192.0.2.1:7777");
        let remote =
            remote(SIGNALLED, Latch::Learn { near: Some(Box::new("192.0.2.1".parse().unwrap())) });
        let mut source = source();
        for _ in 1..RIPE {
            source.admit(&remote, addr(other)).unwrap();
            assert_eq!(source.destination(&remote), Ok(addr(SIGNALLED)));
            assert!(source.admit(&remote, addr(third)).is_err());
        }
        source.admit(&remote, addr(other)).unwrap();
        assert_eq!(source.destination(&remote), Ok(addr(other)));
        assert!(!source.is_sure(&remote, addr(other)), "the port stays open for the signalled one");
        source.aim(Some(&remote), &remote);
        assert_eq!(source.destination(&remote), Ok(addr(other)), "nothing better is known");
    }

    #[test]
    fn a_new_signalled_address_is_believed() {
        let old = remote(SIGNALLED, Latch::Learn { near: None });
        let new = remote("198.51.100.5:6000", Latch::Learn { near: None });
        let mut source = source();
        source.admit(&old, addr("203.0.113.9:1024")).unwrap();
        source.aim(Some(&old), &new);
        assert_eq!(source.destination(&new), Ok(new.rtp));
        assert_eq!(source.rtcp_destination(&new), Some(new.rtcp));
    }

    #[test]
    fn nowhere_is_not_sent_to() {
        for nowhere in ["0.0.0.0:4000", "[::]:4000", "192.0.2.1:0"] {
            let remote = remote(nowhere, Latch::Learn { near: None });
            let mut source = source();
            source.admit(&remote, addr("203.0.113.9:1024")).unwrap();
            assert_eq!(source.destination(&remote), Err(Discard::PeerOnHold), "{nowhere}");
            assert_eq!(source.rtcp_destination(&remote), None, "{nowhere}");
        }
    }

    #[test]
    fn rtcp_follows_a_nat_only_after_it_was_heard() {
        let remote = remote(SIGNALLED, Latch::Learn { near: None });
        let mut source = source();
        assert_eq!(source.rtcp_destination(&remote), Some(remote.rtcp));
        source.admit(&remote, addr("203.0.113.9:1024")).unwrap();
        assert_eq!(source.rtcp_destination(&remote), None);
        assert!(source.admit_rtcp(&remote, addr("192.0.2.1:4001")).is_err());
        source.admit_rtcp(&remote, addr("203.0.113.9:7777")).unwrap();
        assert_eq!(source.rtcp_destination(&remote), Some(addr("203.0.113.9:7777")));
    }

    #[test]
    fn a_port_reaches_its_own_family_only() {
        for (ip, rtp, want) in [
            ("192.0.2.9", "192.0.2.1:4000", true),
            ("192.0.2.9", "[2001:db8::5]:4000", false),
            ("2001:db8::9", "[2001:db8::5]:4000", true),
            ("2001:db8::9", "192.0.2.1:4000", false),
            ("::ffff:192.0.2.9", "192.0.2.1:4000", true),
        ] {
            let (source, remote) =
                (Source::new(ip.parse().unwrap()), remote(rtp, Latch::Learn { near: None }));
            let name = format!("{ip} to {rtp}");
            let to = want.then_some(remote.rtp).ok_or(Discard::WrongFamily);
            assert_eq!(source.destination(&remote), to, "{name}");
            assert_eq!(source.rtcp_destination(&remote), want.then_some(remote.rtcp), "{name}");
        }
        assert_eq!(plain(addr("[::ffff:192.0.2.1]:9")), addr("192.0.2.1:9"));
        assert_eq!(plain(addr("[2001:db8::5]:9")), addr("[2001:db8::5]:9"));
    }

    fn source() -> Source {
        Source::new([192, 0, 2, 99].into())
    }

    fn remote(rtp: &str, latch: Latch) -> Remote {
        let rtp = addr(rtp);
        let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
        Remote { rtp, rtcp, latch, sends: true, receives: true, must_answer: false }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
}
