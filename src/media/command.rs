//! What a worker is told and what it tells: commands, events, and the values in them.
//!
//! Owns: the vocabulary between whoever controls calls and the media plane.
//! Never: decides anything.

use super::{path::PathMap, quality::Quality, srtp::Keys};
use crate::{ids::LegId, network::Network};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What a worker is asked to do. Commands for a leg that is not open are ignored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Binds a port pair. Answered by [`Event::Opened`] or [`Event::OpenFailed`].
    Open {
        /// The new leg.
        leg: LegId,
        /// The local address to bind.
        ip: IpAddr,
    },
    /// Gives a leg that was opened ahead of its call the name of the call's leg. Where it is gone, that
    /// is told as if the peer had fallen silent.
    Rename {
        /// What it was opened as.
        from: LegId,
        /// What it is from now on.
        leg: LegId,
    },
    /// Says where the peer is and what was agreed with it; again at each offer/answer. What was
    /// learned about the peer's real address is forgotten, and learned anew.
    Aim {
        /// Whose peer.
        leg: LegId,
        /// Where it is.
        remote: Remote,
        /// What was agreed.
        stream: Stream,
        /// The keys of SRTP; `None`: plain RTP. What has the same key as before goes on as it was.
        keys: Option<Box<Keys>>,
    },
    /// Joins two legs of this worker. Ends their echoes and prompts, unless these two are joined
    /// already: then only the maps change.
    Bridge {
        /// One leg.
        a: LegId,
        /// The other.
        b: LegId,
        /// What happens to packets of `a` on their way to `b`.
        a_to_b: PathMap,
        /// What happens to packets of `b` on their way to `a`.
        b_to_a: PathMap,
    },
    /// Separates a leg and the one it is joined with.
    Unbridge {
        /// Either of the two.
        leg: LegId,
    },
    /// Plays a prompt to the peer, instead of what a joined leg sends meanwhile.
    Play {
        /// Who hears it.
        leg: LegId,
        /// What.
        prompt: Prompt,
        /// Whether it starts again at its end; else [`Event::Played`] tells of the end.
        loops: bool,
        /// Comes back in the event.
        token: u64,
    },
    /// Sends the peer its own packets back.
    Echo {
        /// Whose.
        leg: LegId,
    },
    /// Ends a prompt or an echo, without an event.
    Stop {
        /// Whose.
        leg: LegId,
    },
    /// Sends the peer a digit as RFC 4733 events, after those that are waiting already. Ignored
    /// where telephone-event was not agreed.
    Dtmf {
        /// Who gets it.
        leg: LegId,
        /// `0` to `9`, `*`, `#`, `A` to `D` in either case.
        digit: char,
        /// How long the key is pressed: 40 ms at least.
        duration_ms: u16,
    },
    /// Suspends or restarts the watch for silence.
    Hold {
        /// Whose.
        leg: LegId,
        /// Whether the leg is held.
        on: bool,
    },
    /// Frees the ports. Answered by [`Event::Closed`].
    Close {
        /// Which leg.
        leg: LegId,
    },
}

impl Command {
    /// Returns whose it is; of a bridge, one of the two.
    pub(super) fn leg(&self) -> LegId {
        match self {
            Self::Open { leg, .. }
            | Self::Rename { leg, .. }
            | Self::Aim { leg, .. }
            | Self::Bridge { a: leg, .. }
            | Self::Unbridge { leg }
            | Self::Play { leg, .. }
            | Self::Echo { leg }
            | Self::Stop { leg }
            | Self::Dtmf { leg, .. }
            | Self::Hold { leg, .. }
            | Self::Close { leg } => *leg,
        }
    }

    /// Returns the other leg of a bridge.
    pub(super) fn second_leg(&self) -> Option<LegId> {
        if let Self::Bridge { b, .. } = self { Some(*b) } else { None }
    }
}

/// What a worker has to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The leg has its ports.
    Opened {
        /// Which.
        leg: LegId,
        /// The RTP port, which is even. RTCP is the next.
        port: u16,
    },
    /// The leg has no ports, and does not exist (or, where it was open already, stays as it was).
    OpenFailed {
        /// Which.
        leg: LegId,
        /// Why.
        refusal: OpenRefusal,
    },
    /// The first RTP packet since the last [`Command::Aim`].
    FirstPacket {
        /// Whose.
        leg: LegId,
        /// Where it came from.
        from: SocketAddr,
    },
    /// The peer pressed a key. Told once for each, when it is released.
    Dtmf {
        /// Whose peer.
        leg: LegId,
        /// `0` to `9`, `*`, `#`, `A` to `D`.
        digit: char,
        /// For how long.
        duration_ms: u16,
    },
    /// A prompt came to its end.
    Played {
        /// Who heard it.
        leg: LegId,
        /// What [`Command::Play`] said.
        token: u64,
    },
    /// Nothing came from the peer for as long as the worker's timeout says.
    Silent {
        /// Whose.
        leg: LegId,
    },
    /// Nothing has ever come from where media was sent, so that nothing more is sent there before it does.
    Unanswered {
        /// Whose.
        leg: LegId,
        /// Where its session description wanted it.
        to: SocketAddr,
    },
    /// The leg is gone, and its ports are free.
    Closed {
        /// Which.
        leg: LegId,
        /// How it was.
        quality: Box<Quality>,
    },
}

impl Event {
    /// Returns whose it is.
    pub fn leg(&self) -> LegId {
        match self {
            Self::Opened { leg, .. }
            | Self::OpenFailed { leg, .. }
            | Self::FirstPacket { leg, .. }
            | Self::Dtmf { leg, .. }
            | Self::Played { leg, .. }
            | Self::Silent { leg }
            | Self::Unanswered { leg, .. }
            | Self::Closed { leg, .. } => *leg,
        }
    }
}

/// Why a leg could not be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenRefusal {
    /// The leg has ports; it keeps them.
    #[error("the leg is open already")]
    AlreadyOpen,
    /// All ports of the worker's range are taken.
    #[error("no RTP port is free")]
    PortsExhausted,
    /// The worker has as many legs as it may.
    #[error("the media worker is full")]
    TooManyLegs,
    /// The operating system refused several pairs.
    #[error("no RTP port can be bound")]
    CannotBind,
}

/// Where a peer's media is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// Where its SDP wants RTP. An unspecified address or port 0 means: nowhere.
    pub rtp: SocketAddr,
    /// Where its SDP wants RTCP.
    pub rtcp: SocketAddr,
    /// From where its packets may come.
    pub latch: Latch,
    /// Whether we may send to it: false while it holds us.
    pub sends: bool,
    /// Whether it may send to us: where false, what comes is discarded, and silence is no alarm.
    pub receives: bool,
    /// Whether something must come from there, RTP or RTCP, lest we stop sending: nobody vouches for the
    /// address but the peer that wrote it.
    pub must_answer: bool,
}

/// From where a peer's packets may come (RFC 7362).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Latch {
    /// From the signalled address, any port of it, or from these networks. We send to the signalled
    /// address whatever comes.
    Strict {
        /// Further networks, a carrier's for example.
        ranges: Arc<[Network]>,
    },
    /// From wherever the first packet after [`Command::Aim`] comes from, and from there only, unless the
    /// signalled address itself is heard. We send there as well, which is what a peer behind a NAT needs.
    Learn {
        /// Where nobody stands between us and the peer, the address of its signalling: then packets come from
        /// there or from the signalled address. A port that was not signalled, of an address that was, must go
        /// on for half a second, the signalled one being silent, before we send to it: it may be a neighbour's.
        near: Option<Box<IpAddr>>,
    },
}

/// What was agreed with a peer, as far as a worker needs to know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stream {
    /// How to encode what we make ourselves; `None` where the peer takes no G.711.
    pub voice: Option<Voice>,
    /// The RTP clock rate of the audio the peer sends, in Hz.
    pub clock_rate: u32,
    /// How much audio a packet of ours carries.
    pub ptime_ms: u16,
    /// DTMF, where agreed.
    pub telephone_events: Option<TelephoneEvents>,
}

/// A G.711 stream towards a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Voice {
    /// The payload type the peer wants it under.
    pub payload_type: u8,
    /// Which of the two.
    pub law: Law,
}

/// The companding laws of ITU-T G.711.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Law {
    /// PCMU.
    Mu,
    /// PCMA.
    A,
}

/// The telephone-event payload (RFC 4733) agreed with a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TelephoneEvents {
    /// The payload type under which the peer sends events.
    pub receive: u8,
    /// The payload type under which the peer wants events.
    pub send: u8,
    /// The clock of timestamps and durations, in Hz.
    pub clock_rate: u32,
}

/// Audio to play: 8 kHz, mono. Cheap to clone.
#[derive(Clone, Eq, PartialEq)]
pub struct Prompt(Arc<[i16]>);

impl Prompt {
    /// Takes the samples.
    pub fn new(samples: impl Into<Arc<[i16]>>) -> Self {
        Self(samples.into())
    }

    /// Returns the samples.
    pub fn samples(&self) -> &[i16] {
        &self.0
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prompt({} samples)", self.0.len())
    }
}
