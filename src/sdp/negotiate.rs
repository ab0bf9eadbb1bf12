//! Offers and answers of two legs that shall hear each other (RFC 3264 5-8).
//!
//! Owns: which formats are offered and answered, and what an exchange has settled.
//! Never: lets a leg agree on what the other leg cannot hear, directly or by G.711 conversion.

use super::{
    Audio, Codec, Crypto, CryptoSuite, Description, Direction, Format, Local, SdpError, Secured,
    Srtp, format::find_like, local::Say,
};
use bytes::Bytes;
use std::{net::SocketAddr, sync::Arc};

/// The customary payload type of telephone events.
const TELEPHONE_EVENT: u8 = 101;
/// The clock rate of G.711, and so of the telephone events that we add.
const NARROWBAND: u32 = 8000;
/// The usual packet, where a peer has no wish.
const PTIME_MS: u16 = 20;
/// How many formats an answer has in most cases.
const FORMATS_USUAL: usize = 4;

/// What may be offered to a leg, and accepted from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// What it may use, the best first. Telephone events are always allowed and need not be here.
    pub codecs: Vec<Codec>,
    /// Codecs that we cannot decode may pass through though they are not in the list.
    pub pass_others: bool,
    /// Offer in our order, as for a carrier that takes the first it knows; else in the other leg's.
    pub reorder: bool,
    /// Whether its media is encrypted.
    pub srtp: Srtp,
    /// With which suites, the best first.
    pub suites: Vec<CryptoSuite>,
}

impl Policy {
    /// Returns the policy for a phone: G.711 as listed, anything else passes through.
    pub fn phone(codecs: Vec<Codec>) -> Self {
        Self { codecs, pass_others: true, reorder: false, srtp: Srtp::Off, suites: vec![] }
    }

    /// Returns the policy for a carrier: the listed codecs, in that order.
    pub fn trunk(codecs: Vec<Codec>) -> Self {
        Self { codecs, pass_others: false, reorder: true, srtp: Srtp::Off, suites: vec![] }
    }

    /// Says whether media is encrypted, and how.
    #[must_use]
    pub fn with_srtp(self, srtp: Srtp, suites: &[CryptoSuite]) -> Self {
        Self { srtp, suites: suites.to_vec(), ..self }
    }

    /// Returns whether an offer can be answered, as far as encryption decides it.
    pub fn admits(&self, offer: &Description) -> Result<(), NoCommonCodec> {
        match usable(offer, self) {
            Ok(_) | Err(NoCommonCodec::NoAudio) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// Returns whether the leg may use the format.
    pub fn permits(&self, format: &Format) -> bool {
        match &format.codec {
            Codec::TelephoneEvent => true,
            Codec::Pcmu | Codec::Pcma => self.codecs.contains(&format.codec),
            Codec::Other(_) => self.pass_others || self.codecs.contains(&format.codec),
        }
    }

    fn rank(&self, codec: &Codec) -> usize {
        self.codecs.iter().position(|c| c == codec).unwrap_or(usize::MAX)
    }

    fn g711(&self) -> impl Iterator<Item = Format> {
        self.codecs.iter().filter_map(|codec| match codec {
            Codec::Pcmu => Some(Format::pcmu()),
            Codec::Pcma => Some(Format::pcma()),
            Codec::TelephoneEvent | Codec::Other(_) => None,
        })
    }
}

/// Why there can be no audio; all of it is answered by 488 (Not Acceptable Here).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoCommonCodec {
    /// The offer has no audio over RTP.
    #[error("no audio over RTP is offered")]
    NoAudio,
    /// The offer insists on encryption, which is switched off for this peer.
    #[error("SRTP is offered but switched off here; offer RTP/AVP")]
    SrtpOff,
    /// The offer is plain, and this peer's media must be encrypted.
    #[error("SRTP is required here; offer RTP/SAVP with a=crypto")]
    SrtpRequired,
    /// The offer insists on encryption by keys or suites that we do not have.
    #[error("no usable a=crypto is offered; AES_CM_128_HMAC_SHA1_80 will do")]
    SrtpKeys,
    /// Nothing of the offer is permitted, or known to the other leg.
    #[error("no codec in common; offered are {offered}")]
    Codecs {
        /// The formats of the offer, as in `rtpmap`.
        offered: Box<str>,
    },
    /// The peer's answer cannot be used.
    #[error(transparent)]
    Answer(#[from] SdpError),
    /// There is an answer, but no offer of ours.
    #[error("an answer without an offer")]
    NoOffer,
    /// Our side has no media port.
    #[error("no media port")]
    NoPort,
}

impl NoCommonCodec {
    /// Returns the code of a Warning header (RFC 3261 20.43).
    pub fn warning(&self) -> u16 {
        match self {
            Self::NoAudio => 304,
            Self::SrtpOff | Self::SrtpRequired | Self::SrtpKeys => 302,
            Self::Codecs { .. } => 305,
            Self::Answer(_) | Self::NoOffer | Self::NoPort => 399,
        }
    }

    fn codecs(offered: &[Format]) -> Self {
        let names = offered.iter().map(ToString::to_string).collect::<Vec<_>>();
        Self::Codecs { offered: names.join(" ").into() }
    }
}

/// What one leg agreed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreed {
    /// Where its media goes; nothing can be sent to an unspecified address (`direction` says so, too).
    pub remote: SocketAddr,
    /// Where its RTCP goes.
    pub remote_rtcp: SocketAddr,
    /// Ours: whether we send to it and receive from it.
    pub direction: Direction,
    /// The codec to speak to it, under the payload type that it receives.
    pub format: Format,
    /// What else it hears, under the payload types that it receives: further codecs, comfort noise,
    /// telephone events of further clock rates.
    pub also: Vec<Format>,
    /// The telephone events to send to it, under the payload type that it receives; of the clock rate
    /// of `format` where the leg has them.
    pub dtmf: Option<Format>,
    /// What may come from it, telephone events included, under the payload types that it sends. They
    /// differ from the above where the answer numbers otherwise than the offer (RFC 3264 5.1).
    pub accepts: Vec<Format>,
    /// How much sound it wants in a packet.
    pub ptime_ms: u16,
    /// The keys, where the media is encrypted.
    pub srtp: Option<Secured>,
}

impl Agreed {
    /// Returns what is sent to the leg for this codec, if it agreed on it.
    pub fn sends(&self, codec: &Format) -> Option<&Format> {
        self.sendable().find(|format| format.is_same_codec(codec))
    }

    /// Returns what a payload type means that comes from the leg.
    pub fn incoming(&self, payload_type: u8) -> Option<&Format> {
        self.accepts.iter().find(|format| format.payload_type == payload_type)
    }

    /// Returns the telephone events to listen to: those that fit [`Self::dtmf`], as they arrive.
    pub fn dtmf_in(&self) -> Option<&Format> {
        let dtmf = self.dtmf.as_ref()?;
        self.accepts.iter().find(|format| format.is_same_codec(dtmf))
    }

    /// Returns the first format in which we can speak to it ourselves, if it hears any G.711.
    pub fn voice(&self) -> Option<&Format> {
        self.sendable().find(|format| format.codec.is_g711())
    }

    /// Returns whether digits that come from the leg come as telephone events.
    pub fn hears_dtmf(&self) -> bool {
        self.accepts.iter().any(Format::is_event)
    }

    /// Everything that can be sent to the leg, the primary codec first.
    fn sendable(&self) -> impl Iterator<Item = &Format> {
        [&self.format].into_iter().chain(&self.also).chain(&self.dtmf)
    }

    fn new(
        theirs: &Audio,
        direction: Direction,
        mut also: Vec<Format>,
        accepts: Vec<Format>,
    ) -> Option<Self> {
        let speech = also.iter().position(|format| format.codec.is_speech())?;
        let format = also.remove(speech);
        let fits = |f: &Format| f.is_event() && f.clock_rate == format.clock_rate;
        let dtmf = also.iter().position(fits).or_else(|| also.iter().position(Format::is_event));
        let dtmf = dtmf.map(|index| also.remove(index));
        Some(Self {
            remote: theirs.rtp,
            remote_rtcp: theirs.rtcp,
            direction,
            format,
            also,
            dtmf,
            accepts,
            ptime_ms: wished_ptime(theirs).unwrap_or(PTIME_MS),
            srtp: None,
        })
    }
}

/// Makes the offer to one leg from the other leg's.
///
/// The caller's formats that the policy permits keep their order (unless the policy has its own) and
/// their numbers; G.711 that we can convert to and telephone events are added where they are absent. The
/// direction and the packet time are the caller's.
pub fn offer_from(
    caller: &Description,
    policy: &Policy,
    local: &mut Local,
) -> Result<Bytes, NoCommonCodec> {
    let audio = caller.audio().ok_or(NoCommonCodec::NoAudio)?;
    let formats = offerable(&audio.formats, policy)?;
    let say = Say {
        formats,
        direction: audio.direction,
        ptime_ms: wished_ptime(audio),
        max_ptime_ms: audio.max_ptime_ms,
        crypto: vec![],
    };
    Ok(local.offer(say, policy))
}

/// Makes an offer to one leg from what another has agreed on: for a leg that joins a call late, and for a
/// re-INVITE without an offer.
pub fn offer_matching(
    other: &Agreed,
    policy: &Policy,
    local: &mut Local,
) -> Result<Bytes, NoCommonCodec> {
    let theirs = other.sendable().cloned().collect::<Vec<_>>();
    let say = Say {
        formats: offerable(&theirs, policy)?,
        direction: other.direction.reversed(),
        ptime_ms: Some(other.ptime_ms),
        ..Say::default()
    };
    Ok(local.offer(say, policy))
}

/// Makes an offer from nothing but the policy: what we can convert, and telephone events.
///
/// Without G.711 in the policy both of it are offered all the same: an offer needs a format.
pub fn fresh_offer(policy: &Policy, direction: Direction, local: &mut Local) -> Bytes {
    let mut formats = policy.g711().collect::<Vec<_>>();
    if formats.is_empty() {
        formats = vec![Format::pcmu(), Format::pcma()];
    }
    formats.push(Format::telephone_event(TELEPHONE_EVENT, NARROWBAND));
    local.offer(Say { formats, direction, ..Say::default() }, policy)
}

/// Answers an offer such that the media of the other leg fits.
///
/// Each codec of the other leg is answered by itself where it is offered, else by the G.711 that we can
/// convert to, in the other leg's order. The direction is what the other leg allows.
pub fn answer_from(
    offer: &Description,
    other: &Agreed,
    policy: &Policy,
    local: &mut Local,
) -> Result<(Bytes, Agreed), NoCommonCodec> {
    let (audio, theirs) = usable(offer, policy)?;
    let mut chosen: Vec<Chosen> = Vec::with_capacity(FORMATS_USUAL);
    for theirs in other.sendable().filter(|format| !format.is_event()) {
        let Some(found) = counterpart(audio, theirs).filter(|found| policy.permits(found)) else {
            continue;
        };
        if !chosen.iter().any(|c| c.offered.payload_type == found.payload_type) {
            let fmtp = if found.codec.is_g711() { None } else { theirs.fmtp.clone() };
            chosen.push(Chosen { offered: found.clone(), fmtp });
        }
    }
    let event_fmtp = other.sendable().find(|format| format.is_event()).map(events_of);
    let allowed = other.direction.reversed();
    let ptime_ms = Some(other.ptime_ms);
    let crypto = theirs.cloned();
    answer(offer, audio, Answer { chosen, event_fmtp, allowed, ptime_ms, crypto }, local)
}

/// Answers an offer when we are the far end ourselves: a prompt, an echo. Only G.711 will do.
pub fn answer_alone(
    offer: &Description,
    policy: &Policy,
    local: &mut Local,
) -> Result<(Bytes, Agreed), NoCommonCodec> {
    let (audio, theirs) = usable(offer, policy)?;
    let ours = |format: &&Format| format.codec.is_g711() && policy.permits(format);
    let chosen = audio.formats.iter().filter(ours);
    let mut chosen =
        chosen.map(|offered| Chosen { offered: offered.clone(), fmtp: None }).collect::<Vec<_>>();
    if policy.reorder {
        chosen.sort_by_key(|c| policy.rank(&c.offered.codec));
    }
    let allowed = Direction::SendRecv;
    let ptime_ms = wished_ptime(audio);
    let crypto = theirs.cloned();
    answer(offer, audio, Answer { chosen, event_fmtp: None, allowed, ptime_ms, crypto }, local)
}

/// Reads the answer to an offer of ours.
///
/// Formats that we did not offer are ignored. Where the answer numbers otherwise than the offer, what
/// comes may bear either number, as far as they do not clash.
pub fn accept_answer(ours: &Audio, answer: &Description) -> Result<Agreed, SdpError> {
    let theirs = answer.audio().ok_or(SdpError::Refused)?;
    let srtp = accept_crypto(ours, theirs)?;
    let unnamed = ours.formats.iter().filter(|f| theirs.unnamed.contains(&f.payload_type));
    let mut sends: Vec<Format> = Vec::with_capacity(theirs.formats.len());
    let mut accepts: Vec<Format> = Vec::with_capacity(theirs.formats.len());
    for format in theirs.formats.iter().chain(unnamed) {
        let Some(offered) = find_like(&ours.formats, format) else { continue };
        if !accepts.iter().any(|f| f.payload_type == offered.payload_type) {
            sends.push(format.clone());
            accepts.push(offered.clone());
        }
    }
    for format in &sends {
        let clashes = |f: &Format| f.payload_type == format.payload_type;
        if !accepts.iter().chain(&ours.formats).any(clashes) {
            accepts.push(format.clone());
        }
    }
    let direction = ours.direction.and(theirs.direction.reversed());
    let agreed = Agreed::new(theirs, direction, sends, accepts).ok_or(SdpError::Codecs)?;
    Ok(Agreed { srtp, ..agreed })
}

/// Returns the keys that an answer settles. Each suite is in our offer once, so that it says which line
/// is meant also where the tag is another.
fn accept_crypto(ours: &Audio, theirs: &Audio) -> Result<Option<Secured>, SdpError> {
    let lines = ours.crypto.iter().flat_map(|send| {
        let fits = move |receive: &&Crypto| receive.suite == send.suite;
        theirs.crypto.iter().find(fits).map(|receive| (send, receive))
    });
    let secured =
        lines.map(|(send, receive)| Secured { send: send.clone(), receive: receive.clone() });
    match (ours.is_srtp, theirs.is_srtp, secured.take(1).next()) {
        (false, true, _) => Err(SdpError::Srtp),
        (true, false, _) => Err(SdpError::Plain),
        (true, true, None) => Err(SdpError::Crypto),
        (_, _, secured) => Ok(secured),
    }
}

/// An offered format that the answer has, with the parameters that it gets there.
#[derive(Clone)]
struct Chosen {
    offered: Format,
    fmtp: Option<Arc<str>>,
}

/// What to answer.
struct Answer {
    chosen: Vec<Chosen>,
    event_fmtp: Option<Arc<str>>,
    allowed: Direction,
    ptime_ms: Option<u16>,
    /// The line of theirs that we take.
    crypto: Option<Crypto>,
}

fn answer(
    offer: &Description,
    audio: &Audio,
    answer: Answer,
    local: &mut Local,
) -> Result<(Bytes, Agreed), NoCommonCodec> {
    let mut chosen = answer.chosen;
    chosen.sort_by_key(|c| !c.offered.codec.is_speech());
    let event_fmtp = answer.event_fmtp.or_else(|| Format::telephone_event(0, NARROWBAND).fmtp);
    let events = fitting_events(&audio.formats, &chosen);
    chosen.extend(events.into_iter().map(|offered| Chosen { offered, fmtp: event_fmtp.clone() }));

    let direction = audio.direction.reversed().and(answer.allowed);
    let theirs = chosen.iter().map(|c| c.offered.clone()).collect::<Vec<_>>();
    let agreed = Agreed::new(audio, direction, theirs.clone(), theirs)
        .ok_or_else(|| NoCommonCodec::codecs(&audio.formats))?;
    let formats = chosen.into_iter().map(|c| Format { fmtp: c.fmtp, ..c.offered }).collect();
    let receive = answer.crypto;
    let send = receive.as_ref().map(|theirs| local.answer_crypto(theirs));
    let send = send.map(|ours| ours.ok_or(NoCommonCodec::SrtpOff)).transpose()?;
    let crypto = send.iter().cloned().collect();
    let srtp = send.zip(receive).map(|(send, receive)| Secured { send, receive });
    local.settle(srtp.as_ref());
    let ptime_ms = answer.ptime_ms;
    let say = Say { formats, direction, ptime_ms, max_ptime_ms: None, crypto };
    Ok((local.answer(offer, &say), Agreed { srtp, ..agreed }))
}

/// Returns the audio stream of an offer, if it is one for us, and the key that we take. Plain RTP with
/// keys is how phones offer both at once; answered with a key, it is SRTP.
fn usable<'a>(
    offer: &'a Description,
    policy: &Policy,
) -> Result<(&'a Audio, Option<&'a Crypto>), NoCommonCodec> {
    let audio = offer.audio().ok_or(NoCommonCodec::NoAudio)?;
    let crypto = audio.crypto.iter().find(|crypto| policy.suites.contains(&crypto.suite));
    match (policy.srtp, audio.is_srtp, crypto) {
        (Srtp::Off, true, _) => Err(NoCommonCodec::SrtpOff),
        (Srtp::Off, false, _) | (Srtp::Prefer, false, None) => Ok((audio, None)),
        (Srtp::Prefer | Srtp::Require, true, None) => Err(NoCommonCodec::SrtpKeys),
        (Srtp::Require, false, None) => Err(NoCommonCodec::SrtpRequired),
        (Srtp::Prefer | Srtp::Require, _, Some(crypto)) => Ok((audio, Some(crypto))),
    }
}

/// Returns what to offer to a leg if the other leg has these.
fn offerable(theirs: &[Format], policy: &Policy) -> Result<Vec<Format>, NoCommonCodec> {
    let permitted = || theirs.iter().filter(|format| policy.permits(format));
    let mut formats = Vec::with_capacity(theirs.len().saturating_add(2));
    formats.extend(permitted().filter(|format| !format.is_event()).cloned());
    add_siblings(&mut formats, theirs, policy);
    if !formats.iter().any(|format| format.codec.is_speech()) {
        return Err(NoCommonCodec::codecs(theirs));
    }
    if policy.reorder {
        formats.sort_by_key(|format| policy.rank(&format.codec));
    }
    let is_narrow = |format: &Format| format.clock_rate == NARROWBAND;
    let has_events = permitted().any(|format| format.is_event() && is_narrow(format));
    let lacks_events = !has_events && formats.iter().any(is_narrow);
    formats.extend(permitted().filter(|format| format.is_event()).cloned());
    if lacks_events {
        let number = free_number(&formats, TELEPHONE_EVENT);
        formats.extend(number.map(|number| Format::telephone_event(number, NARROWBAND)));
    }
    for format in &mut formats {
        format.fmtp = match &format.codec {
            Codec::Pcmu | Codec::Pcma => None,
            Codec::TelephoneEvent => Some(events_of(format)),
            Codec::Other(_) => format.fmtp.take(),
        };
    }
    Ok(formats)
}

/// Adds the G.711 that we can convert from `theirs`, permitted or not, and that is permitted.
fn add_siblings(formats: &mut Vec<Format>, theirs: &[Format], policy: &Policy) {
    if !theirs.iter().any(|format| format.codec.is_g711()) {
        return;
    }
    for sibling in policy.g711() {
        if !formats.iter().any(|format| format.is_same_codec(&sibling))
            && let Some(payload_type) = free_number(formats, sibling.payload_type)
        {
            formats.push(Format { payload_type, ..sibling });
        }
    }
}

/// Returns the wanted payload type or the first dynamic one that is free.
fn free_number(formats: &[Format], wanted: u8) -> Option<u8> {
    let is_free = |number: &u8| !formats.iter().any(|format| format.payload_type == *number);
    [wanted].into_iter().chain(96..=127).find(is_free)
}

/// Returns the offered format that can carry what the other leg has.
fn counterpart<'a>(offered: &'a Audio, theirs: &Format) -> Option<&'a Format> {
    find_like(&offered.formats, theirs).or_else(|| {
        let sibling = theirs.codec.sibling()?;
        offered.formats.iter().find(|format| format.codec == sibling)
    })
}

/// Returns the offered telephone events of the chosen codecs' clock rates, one of each; without any, the
/// first: peers exist that offer `telephone-event/8000` alone beside Opus.
fn fitting_events(offered: &[Format], chosen: &[Chosen]) -> Vec<Format> {
    let mut fitting: Vec<Format> = vec![];
    for event in offered.iter().filter(|format| format.is_event()) {
        let fits = chosen.iter().any(|c| c.offered.clock_rate == event.clock_rate);
        if fits && !fitting.iter().any(|f| f.clock_rate == event.clock_rate) {
            fitting.push(event.clone());
        }
    }
    if fitting.is_empty() {
        fitting.extend(offered.iter().find(|format| format.is_event()).cloned());
    }
    fitting
}

/// Returns which telephone events a side takes; 0-15 where it does not say (RFC 4733 2.4.1).
fn events_of(format: &Format) -> Arc<str> {
    format.fmtp.clone().unwrap_or_else(|| "0-15".into())
}

/// Returns the packet time that a side asks for, within what it takes at most.
fn wished_ptime(audio: &Audio) -> Option<u16> {
    let max = audio.max_ptime_ms.unwrap_or(u16::MAX);
    audio.ptime_ms.or((max < PTIME_MS).then_some(max)).map(|ms| ms.min(max))
}
