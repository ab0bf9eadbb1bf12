//! One leg's side of the media negotiation: what it was told, what it said, what that makes.
//!
//! Owns: the leg's session description, its media port, the outcome of the last offer and answer.
//! Never: knows the other leg; it is handed what that one agreed on.

use super::wire::Wire;
use crate::{
    ids::{Flow, LegId, Spring, Transport},
    media::{
        self,
        srtp::{Keys, MasterKey, Suite},
    },
    sdp::{
        self, Agreed, Audio, Codec, Crypto, CryptoSuite, Description, Direction, Local,
        NoCommonCodec, Policy, SdpError, Secured, Srtp,
    },
};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};

/// The leg's media port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Port {
    /// Not asked for, or given back.
    Closed,
    /// Asked for.
    Opening,
    /// Open: the RTP port; RTCP is the next one.
    Open(u16),
}

/// A leg's media, as far as signalling knows it.
#[derive(Clone, Debug)]
pub struct LegMedia {
    policy: Policy,
    session: u64,
    /// Where its keys come from; absent where it has none.
    entropy: Option<Spring>,
    /// Whether it is spoken to over TLS, where keys in SDP are safe.
    is_private: bool,
    /// Where to bind, and what to say in SDP.
    addresses: Option<(IpAddr, IpAddr)>,
    port: Port,
    local: Option<Local>,
    /// What our offer says that has no answer yet.
    offered: Option<Box<Audio>>,
    /// The other leg's description that our last offer was made from.
    offered_for: Option<Description>,
    /// The peer's last accepted description.
    theirs: Option<Description>,
    agreed: Option<Agreed>,
}

impl LegMedia {
    /// Creates the media of a leg whose peer's address is known.
    pub fn new(policy: Policy, flow: Flow, wire: &mut Wire<'_>) -> Self {
        let mut media = Self::unplaced(policy, wire);
        media.place(flow, wire);
        media
    }

    /// Creates the media of a leg whose peer has yet to be resolved.
    pub fn unplaced(policy: Policy, wire: &mut Wire<'_>) -> Self {
        let entropy = (policy.srtp != Srtp::Off).then(|| Spring::new(wire.entropy));
        Self {
            policy,
            entropy,
            is_private: false,
            // RFC 8866 5.2: numeric; small enough for readers that use signed 63-bit numbers.
            session: wire.entropy.next_u64() >> 2,
            addresses: None,
            port: Port::Closed,
            local: None,
            offered: None,
            offered_for: None,
            theirs: None,
            agreed: None,
        }
    }

    /// Fixes the addresses once the peer's is known.
    pub fn place(&mut self, flow: Flow, wire: &Wire<'_>) {
        self.addresses = Some((flow.local.ip(), wire.advertised(flow).ip()));
        self.is_private = flow.transport == Transport::Tls;
    }

    /// Makes our last offer again, where the peer is to be told another address by now.
    pub fn offer_from_elsewhere(&mut self, flow: Flow, wire: &Wire<'_>) -> Option<Bytes> {
        let (bound, told) = self.addresses?;
        let public = wire.advertised(flow).ip();
        if told == public {
            return None;
        }
        self.addresses = Some((bound, public));
        self.local.as_mut()?.rtp.set_ip(public);
        match self.offered_for.clone() {
            Some(other) => self.offer_from(&other).ok(),
            None => self.fresh_offer(Direction::SendRecv).ok(),
        }
    }

    /// Returns the command that opens the port, the first time it can be given.
    pub fn open(&mut self, leg: LegId) -> Option<media::Command> {
        let (ip, _) = self.addresses?;
        if self.port != Port::Closed {
            return None;
        }
        self.port = Port::Opening;
        Some(media::Command::Open { leg, ip })
    }

    /// Notes the port.
    pub fn opened(&mut self, port: u16) {
        if self.port != Port::Opening {
            return;
        }
        self.port = Port::Open(port);
        if let Some((_, advertised)) = self.addresses {
            let local = Local::new(self.session, SocketAddr::new(advertised, port));
            let offers_srtp = match self.policy.srtp {
                Srtp::Off => false,
                Srtp::Prefer => self.is_private,
                Srtp::Require => true,
            };
            self.local = Some(match &self.entropy {
                Some(entropy) => local.with_keys(entropy.clone(), offers_srtp),
                None => local,
            });
        }
    }

    /// Returns the command that gives the port back.
    pub fn close(&mut self, leg: LegId) -> Option<media::Command> {
        match std::mem::replace(&mut self.port, Port::Closed) {
            Port::Closed => None,
            Port::Opening | Port::Open(_) => Some(media::Command::Close { leg }),
        }
    }

    /// Returns the RTP port, where it is open.
    pub fn open_port(&self) -> Option<u16> {
        match self.port {
            Port::Open(port) => Some(port),
            Port::Closed | Port::Opening => None,
        }
    }

    /// Returns what both sides agreed on.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// Returns the peer's last description.
    pub fn theirs(&self) -> Option<&Description> {
        self.theirs.as_ref()
    }

    /// Returns whether what we sent last names PCMU or PCMA.
    pub fn has_said_g711(&self) -> bool {
        let said = self.last_said().and_then(|said| Description::parse(said).ok());
        let audio = said.as_ref().and_then(|said| said.audio());
        audio.is_some_and(|audio| audio.formats.iter().any(|format| format.codec.is_g711()))
    }

    /// Returns whether what we sent last asks for SRTP.
    pub fn has_said_srtp(&self) -> bool {
        let said = self.last_said().and_then(|said| Description::parse(said).ok());
        said.as_ref().and_then(|said| said.audio()).is_some_and(|audio| audio.is_srtp)
    }

    /// Returns the session description that we sent last.
    pub fn last_said(&self) -> Option<Bytes> {
        self.local.as_ref().and_then(|local| local.last.clone())
    }

    /// Makes our offer from the other leg's.
    pub fn offer_from(&mut self, other: &Description) -> Result<Bytes, NoCommonCodec> {
        let local = self.local.as_mut().ok_or(NoCommonCodec::NoPort)?;
        let offer = sdp::offer_from(other, &self.policy, local)?;
        self.offered_for = Some(other.clone());
        self.note_offer();
        Ok(offer)
    }

    /// Makes our offer from nothing but the policy.
    pub fn fresh_offer(&mut self, direction: Direction) -> Result<Bytes, NoCommonCodec> {
        let local = self.local.as_mut().ok_or(NoCommonCodec::NoPort)?;
        let offer = sdp::fresh_offer(&self.policy, direction, local);
        self.note_offer();
        Ok(offer)
    }

    /// Makes our offer again without SRTP, where that was preferred and has been refused.
    pub fn offer_plain(&mut self) -> Option<Bytes> {
        let is_preferred = self.policy.srtp == Srtp::Prefer;
        let offered = self.offered.as_ref().filter(|offered| offered.is_srtp && is_preferred)?;
        let offer = self.local.as_mut()?.offer_plain(offered);
        self.note_offer();
        Some(offer)
    }

    fn note_offer(&mut self) {
        self.offered = self.local.as_mut().and_then(Local::take_offered);
    }

    /// Answers the peer's offer so that it fits what the other leg agreed on.
    pub fn answer_from(
        &mut self,
        offer: &Description,
        other: &Agreed,
    ) -> Result<Bytes, NoCommonCodec> {
        let local = self.local.as_mut().ok_or(NoCommonCodec::NoPort)?;
        let (answer, agreed) = sdp::answer_from(offer, other, &self.policy, local)?;
        self.settle(offer.clone(), agreed);
        Ok(answer)
    }

    /// Answers the peer's offer as the far end itself: for prompts and echo.
    pub fn answer_alone(&mut self, offer: &Description) -> Result<Bytes, NoCommonCodec> {
        let local = self.local.as_mut().ok_or(NoCommonCodec::NoPort)?;
        let (answer, agreed) = sdp::answer_alone(offer, &self.policy, local)?;
        self.settle(offer.clone(), agreed);
        Ok(answer)
    }

    /// Takes the peer's answer to our offer.
    ///
    /// An early dialog's answer leaves the offer open: another fork, or the 2xx, answers it again.
    pub fn accept_answer(
        &mut self,
        answer: &Description,
        is_final: bool,
    ) -> Result<(), NoCommonCodec> {
        let offer = self.offered.as_ref().ok_or(NoCommonCodec::NoOffer)?;
        let agreed = sdp::accept_answer(offer, answer)?;
        if self.policy.srtp == Srtp::Require && agreed.srtp.is_none() {
            return Err(SdpError::Plain.into());
        }
        if let Some(local) = &mut self.local {
            local.settle(agreed.srtp.as_ref());
        }
        self.theirs = Some(answer.clone());
        self.agreed = Some(agreed);
        if is_final {
            self.offered = None;
        }
        Ok(())
    }

    /// The 2xx has no body: the answer of an earlier 18x holds, if there was one.
    pub fn confirm_answer(&mut self) -> bool {
        self.offered = None;
        self.agreed.is_some()
    }

    fn settle(&mut self, theirs: Description, agreed: Agreed) {
        self.theirs = Some(theirs);
        self.agreed = Some(agreed);
    }

    /// Returns whether the peer's new offer asks for nothing but what holds already: the same codecs
    /// and direction. Then only we need to answer it.
    pub fn is_refresh(&self, offer: &Description) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.same_media(offer))
    }

    /// Returns where its packets go and which are believed, for the media worker. `signals_from` is where
    /// a peer is that must not aim our packets at others.
    pub fn aim(
        &self,
        leg: LegId,
        latch: media::Latch,
        signals_from: Option<IpAddr>,
    ) -> Option<media::Command> {
        let agreed = self.agreed.as_ref()?;
        let at = agreed.remote.ip().to_canonical();
        let remote = media::Remote {
            rtp: agreed.remote,
            rtcp: agreed.remote_rtcp,
            latch,
            sends: agreed.direction.sends(),
            receives: agreed.direction.receives(),
            must_answer: signals_from.is_some_and(|ip| ip.to_canonical() != at),
        };
        let keys = match &agreed.srtp {
            None => None,
            Some(secured) => Some(Box::new(keys(secured)?)),
        };
        Some(media::Command::Aim { leg, remote, stream: stream(agreed), keys })
    }

    /// Returns whether one side has stopped the other's voice.
    pub fn is_held(&self) -> bool {
        self.agreed.as_ref().is_some_and(|a| a.direction != Direction::SendRecv)
    }

    /// Forgets an offer of ours that was refused.
    pub fn forget_offer(&mut self) {
        self.offered = None;
    }
}

/// Says to the media worker what a leg agreed on.
fn stream(agreed: &Agreed) -> media::Stream {
    let voice = agreed.voice().and_then(|format| {
        let law = match format.codec {
            Codec::Pcmu => media::Law::Mu,
            Codec::Pcma => media::Law::A,
            Codec::TelephoneEvent | Codec::Other(_) => return None,
        };
        Some(media::Voice { payload_type: format.payload_type, law })
    });
    let telephone_events = agreed.dtmf.as_ref().map(|dtmf| media::TelephoneEvents {
        receive: agreed.dtmf_in().unwrap_or(dtmf).payload_type,
        send: dtmf.payload_type,
        clock_rate: dtmf.clock_rate,
    });
    media::Stream {
        voice,
        clock_rate: agreed.format.clock_rate,
        ptime_ms: agreed.ptime_ms,
        telephone_events,
    }
}

/// Says to the media worker what a leg encrypts and decrypts with.
fn keys(secured: &Secured) -> Option<Keys> {
    let suite = match secured.send.suite {
        CryptoSuite::AesCm128HmacSha1_80 => Suite::AesCm128HmacSha1_80,
        CryptoSuite::AesCm128HmacSha1_32 => Suite::AesCm128HmacSha1_32,
        CryptoSuite::AeadAes128Gcm => Suite::AeadAes128Gcm,
        CryptoSuite::AeadAes256Gcm => Suite::AeadAes256Gcm,
    };
    let key = |line: &Crypto| MasterKey::new(suite, line.key.expose());
    let receive = key(&secured.receive)?.with_mki(secured.receive.mki_len);
    Some(Keys { send: key(&secured.send)?, receive })
}

/// Says to the media worker what happens to each payload type between two legs.
pub(super) fn path_map(path: &sdp::Path) -> media::PathMap {
    let mut map = media::PathMap::new();
    for (from, leads_to) in (0_u8..).zip(&path.payload_types) {
        if let Some((to, convert)) = *leads_to {
            let convert = match convert {
                sdp::Convert::Keep => media::Convert::Keep,
                sdp::Convert::UlawToAlaw => media::Convert::UlawToAlaw,
                sdp::Convert::AlawToUlaw => media::Convert::AlawToUlaw,
            };
            map.set(from, to, convert);
        }
    }
    map
}
