//! Why packets go nowhere. Each reason is a counter, not a log line.
//!
//! Owns: the closed list of reasons.
//! Never: allocates or logs; a peer can cause these at line rate.

use super::srtp::Shut;

/// Why a packet went nowhere.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Discard {
    /// Shorter than an RTP or RTCP header.
    TooShort,
    /// Longer than [`super::DATAGRAM_MAX`]; its end may be missing.
    TooLong,
    /// Not version 2, or its header contradicts its length.
    NotRtp,
    /// The RTCP port got something else.
    NotRtcp,
    /// Before anything was agreed with the peer.
    TooEarly,
    /// From somewhere the latch does not allow (RFC 7362: likely an injection).
    StrangeSource,
    /// The peer agreed not to send.
    NotReceiving,
    /// A payload type that was not agreed, or that the other side did not agree to.
    NotNegotiated,
    /// The other side holds: it wants no media.
    PeerOnHold,
    /// There is no other side.
    NoPeer,
    /// The other side hears a prompt or a digit of ours instead.
    Replaced,
    /// The same packet again.
    Duplicate,
    /// Of a source, or of a time, before the last change of source.
    Late,
    /// The operating system would not send it, or there is no key to send it with.
    Unsendable,
    /// The other side is an IPv6 address and our port for it an IPv4 one, or the reverse.
    WrongFamily,
    /// SRTP that is forged, damaged, or of another key; or plain RTP where SRTP was agreed.
    Unauthentic,
    /// SRTP that was here before, or is too old to tell.
    Replayed,
    /// Nothing has ever come from where the other side wants it.
    Unanswered,
}

impl From<Shut> for Discard {
    fn from(shut: Shut) -> Self {
        match shut {
            Shut::Malformed => Self::NotRtp,
            Shut::Unauthentic => Self::Unauthentic,
            Shut::Replayed => Self::Replayed,
            Shut::Exhausted => Self::Unsendable,
        }
    }
}

impl Discard {
    /// Every reason, in the order of [`Discards::iter`].
    pub const ALL: [Self; 18] = [
        Self::TooShort,
        Self::TooLong,
        Self::NotRtp,
        Self::NotRtcp,
        Self::TooEarly,
        Self::StrangeSource,
        Self::NotReceiving,
        Self::NotNegotiated,
        Self::PeerOnHold,
        Self::NoPeer,
        Self::Replaced,
        Self::Duplicate,
        Self::Late,
        Self::Unsendable,
        Self::WrongFamily,
        Self::Unauthentic,
        Self::Replayed,
        Self::Unanswered,
    ];

    /// Returns the word for metrics and CDRs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::NotRtp => "not_rtp",
            Self::NotRtcp => "not_rtcp",
            Self::TooEarly => "too_early",
            Self::StrangeSource => "strange_source",
            Self::NotReceiving => "not_receiving",
            Self::NotNegotiated => "not_negotiated",
            Self::PeerOnHold => "peer_on_hold",
            Self::NoPeer => "no_peer",
            Self::Replaced => "replaced",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Unsendable => "unsendable",
            Self::WrongFamily => "wrong_family",
            Self::Unauthentic => "unauthentic",
            Self::Replayed => "replayed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// How many packets went nowhere, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    /// Counts one packet.
    pub fn add(&mut self, reason: Discard) {
        self.add_many(reason, 1);
    }

    /// Counts some.
    pub fn add_many(&mut self, reason: Discard, packets: u64) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count = count.saturating_add(packets);
        }
    }

    /// Returns how many packets were discarded for this reason.
    pub fn count(&self, reason: Discard) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Returns every reason and its count.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().zip(self.0)
    }

    /// Adds another's counts to these.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// Returns how many packets were discarded.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let mut discards = Discards::default();
        for (n, reason) in Discard::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            (0..=n).for_each(|_| discards.add(reason));
        }
        for (n, (reason, count)) in discards.iter().enumerate() {
            assert_eq!((count as usize, discards.count(reason)), (n + 1, count));
        }
        discards.merge(&discards.clone());
        assert_eq!((discards.total(), discards.count(Discard::Late)), (2 * 171, 26));
    }
}
