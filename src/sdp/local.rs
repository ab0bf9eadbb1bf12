//! Our side of one leg: what we have said so far, and saying the next thing (RFC 3264 5, 6, 8).
//!
//! Owns: `o=` and its version, the order of the leg's streams, the meaning of its payload types.
//! Never: decides which formats to say.

use super::{
    Audio, Crypto, Description, Direction, Format, Secured, crypto::Keyring, negotiate::Policy,
    parse::is_secure_profile,
};
use crate::ids::{Spring, push_ip, push_number};
use bytes::Bytes;
use std::net::SocketAddr;

/// What a leg hears unless somebody asks for something else, in ms of sound per packet.
const PTIME_MS: u16 = 20;
/// For how much text there is room before it is known how much there is.
const TEXT_LEN_USUAL: usize = 256;
/// Where to look for a free payload type: RFC 3551 3, the customary number of telephone events first.
const DYNAMIC: [std::ops::RangeInclusive<u8>; 2] = [101..=127, 96..=100];

/// Our side of one leg's description: who we say we are in `o=`, and where we want its media.
///
/// `rtp` may be changed at any time; the next description says so. The version rises by one each time
/// that what we say changes, and a description that says nothing new is the last one again, to the byte.
#[derive(Clone, Debug)]
pub struct Local {
    /// The session's number in `o=`, the same for the life of the leg.
    pub session: u64,
    /// The version in `o=` of the last description.
    pub version: u64,
    /// Where we receive, as the peer can reach it. RTCP is one port above.
    pub rtp: SocketAddr,
    /// What we say where nobody else has a wish.
    pub ptime_ms: u16,
    /// The last description.
    pub last: Option<Bytes>,
    /// What the last offer says of our stream, until it is taken.
    offered: Option<Box<Audio>>,
    /// Whether a first offer asks for SRTP.
    offers_srtp: bool,
    /// Where the keys come from; without it, we have none.
    keys: Option<Keyring>,
    streams: Vec<Stream>,
    /// What each payload type has meant on this leg: it may never mean anything else (RFC 3264 8.3.2).
    meanings: Vec<Format>,
}

/// One `m=` line's place. Places are never taken away (RFC 3264 8).
#[derive(Clone, Debug, Eq, PartialEq)]
enum Stream {
    Audio {
        protocol: Box<str>,
        /// Whether keys were said with it.
        is_secure: bool,
    },
    /// Refused: what follows `m=`, with port 0.
    Refused(Box<str>),
}

/// What to say about the one stream of ours.
#[derive(Debug, Default)]
pub(super) struct Say {
    pub(super) formats: Vec<Format>,
    pub(super) direction: Direction,
    pub(super) ptime_ms: Option<u16>,
    pub(super) max_ptime_ms: Option<u16>,
    pub(super) crypto: Vec<Crypto>,
}

impl Local {
    /// Creates a leg's side that has said nothing yet. `session` should be unpredictable; its upper bits
    /// are dropped, since some peers read it into a signed integer.
    pub fn new(session: u64, rtp: SocketAddr) -> Self {
        Self {
            session: session & (u64::MAX >> 2),
            version: 1,
            rtp,
            ptime_ms: PTIME_MS,
            last: None,
            offered: None,
            offers_srtp: false,
            keys: None,
            streams: vec![],
            meanings: vec![],
        }
    }

    /// Gives the leg a source of keys, and says whether its first offer asks for SRTP.
    #[must_use]
    pub fn with_keys(self, entropy: Spring, offers_srtp: bool) -> Self {
        Self { keys: Some(Keyring::new(entropy)), offers_srtp, ..self }
    }

    /// Returns our line in answer to this one of theirs.
    pub(super) fn answer_crypto(&mut self, theirs: &Crypto) -> Option<Crypto> {
        Some(self.keys.as_mut()?.answer(theirs))
    }

    /// Takes note of what was agreed about encryption.
    pub fn settle(&mut self, agreed: Option<&Secured>) {
        if let Some(keys) = &mut self.keys {
            keys.settle(agreed);
        }
    }

    /// Writes an offer; streams that were refused before keep their places. Our stream keeps its
    /// profile, and stays encrypted or plain.
    pub(super) fn offer(&mut self, mut say: Say, policy: &Policy) -> Bytes {
        let is_secure = self.streams.iter().find_map(|stream| match stream {
            Stream::Audio { is_secure, .. } => Some(*is_secure),
            Stream::Refused(_) => None,
        });
        let is_secure = is_secure.unwrap_or_else(|| {
            let is_secure = self.offers_srtp && self.keys.is_some();
            let protocol = if is_secure { "RTP/SAVP" } else { "RTP/AVP" };
            self.streams.push(Stream::Audio { protocol: protocol.into(), is_secure });
            is_secure
        });
        if let Some(keys) = self.keys.as_mut().filter(|_| is_secure) {
            say.crypto = keys.offer(&policy.suites);
        }
        say.formats = self.number(say.formats);
        self.say_offer(say)
    }

    /// Writes an offer, and keeps what it says: whoever reads the answer needs not read the offer again.
    fn say_offer(&mut self, say: Say) -> Bytes {
        let text = self.say(&say, (0, 0));
        let protocol = self.streams.iter().find_map(|stream| match stream {
            Stream::Audio { protocol, .. } => Some(&**protocol),
            Stream::Refused(_) => None,
        });
        let port = self.rtp.port();
        let audio = Audio {
            rtp: self.rtp,
            rtcp: SocketAddr::new(self.rtp.ip(), port.checked_add(1).unwrap_or(port)),
            direction: say.direction,
            formats: say.formats,
            ptime_ms: Some(say.ptime_ms.unwrap_or(self.ptime_ms)),
            max_ptime_ms: say.max_ptime_ms,
            is_srtp: protocol.is_some_and(is_secure_profile),
            crypto: say.crypto,
            unnamed: vec![],
        };
        debug_assert!(
            Description::parse(text.clone()).is_ok_and(|read| read.audio() == Some(&audio)),
            "what we say is not what we mean"
        );
        self.offered = Some(Box::new(audio));
        text
    }

    /// Takes what the last offer says of our stream.
    pub fn take_offered(&mut self) -> Option<Box<Audio>> {
        self.offered.take()
    }

    /// Writes our offer again without SRTP, for a peer that refused it before anything was agreed.
    pub fn offer_plain(&mut self, offered: &Audio) -> Bytes {
        for stream in &mut self.streams {
            if let Stream::Audio { protocol, is_secure } = stream {
                (*protocol, *is_secure) = ("RTP/AVP".into(), false);
            }
        }
        let say = Say {
            formats: offered.formats.clone(),
            direction: offered.direction,
            ptime_ms: offered.ptime_ms,
            max_ptime_ms: offered.max_ptime_ms,
            crypto: vec![],
        };
        self.say_offer(say)
    }

    /// Writes an answer: our stream takes the place of the offer's audio, all others are refused.
    pub(super) fn answer(&mut self, offer: &Description, say: &Say) -> Bytes {
        let ours = offer.audio_index();
        let streams = offer.media().enumerate().map(|(index, media)| {
            if Some(index) == ours {
                let is_secure = !say.crypto.is_empty();
                Stream::Audio { protocol: media.protocol.into(), is_secure }
            } else {
                let line = format!("{} 0 {} {}", media.kind, media.protocol, media.first_format);
                Stream::Refused(line.into())
            }
        });
        self.streams = streams.collect();
        self.remember(&say.formats);
        self.say(say, offer.times())
    }

    /// Gives each format its wanted number, or another where that has meant something else before. A
    /// format for which none is left is not offered.
    fn number(&mut self, formats: Vec<Format>) -> Vec<Format> {
        let mut numbered: Vec<Format> = Vec::with_capacity(formats.len());
        for format in formats {
            let known = self.meanings.iter().filter(|known| known.is_same_codec(&format));
            let wanted = [format.payload_type].into_iter();
            let wanted = wanted.chain(known.map(|known| known.payload_type));
            let clashes = |known: &Format| !known.is_same_codec(&format);
            let is_free = |number: &u8| {
                !numbered.iter().any(|taken| taken.payload_type == *number)
                    && !self.meanings.iter().any(|m| m.payload_type == *number && clashes(m))
            };
            if let Some(payload_type) = wanted.chain(DYNAMIC.into_iter().flatten()).find(is_free) {
                numbered.push(Format { payload_type, ..format });
            }
        }
        self.remember(&numbered);
        numbered
    }

    fn remember(&mut self, formats: &[Format]) {
        if self.meanings.is_empty() {
            self.meanings.reserve_exact(formats.len());
        }
        for format in formats {
            if !self.meanings.iter().any(|known| known.payload_type == format.payload_type) {
                self.meanings.push(format.clone());
            }
        }
    }

    /// Says it, under the next version if it is news.
    fn say(&mut self, say: &Say, times: (u64, u64)) -> Bytes {
        let same = Bytes::from(self.write(say, times));
        let said = match &self.last {
            None => same,
            Some(last) if *last == same => same,
            Some(_) => {
                self.version = self.version.saturating_add(1);
                Bytes::from(self.write(say, times))
            }
        };
        self.last = Some(said.clone());
        said
    }

    fn write(&self, say: &Say, times: (u64, u64)) -> String {
        let mut ip = String::with_capacity(24);
        ip.push_str(if self.rtp.is_ipv4() { "IN IP4 " } else { "IN IP6 " });
        push_ip(&mut ip, self.rtp.ip());
        let mut text = String::with_capacity(TEXT_LEN_USUAL);
        text.push_str("v=0\r\no=- ");
        push_number(&mut text, self.session);
        text.push(' ');
        push_number(&mut text, self.version);
        push(&mut text, &[" ", &ip, "\r\ns=-\r\nc=", &ip, "\r\nt="]);
        push_number(&mut text, times.0);
        text.push(' ');
        push_number(&mut text, times.1);
        text.push_str("\r\n");
        for stream in &self.streams {
            match stream {
                Stream::Refused(line) => push(&mut text, &["m=", line, "\r\n"]),
                Stream::Audio { protocol, .. } => self.write_audio(&mut text, protocol, say),
            }
        }
        text
    }

    fn write_audio(&self, text: &mut String, protocol: &str, say: &Say) {
        text.push_str("m=audio ");
        push_number(text, self.rtp.port().into());
        push(text, &[" ", protocol]);
        for format in &say.formats {
            text.push(' ');
            push_number(text, format.payload_type.into());
        }
        text.push_str("\r\n");
        for crypto in &say.crypto {
            push(text, &["a=crypto:", &crypto.value(), "\r\n"]);
        }
        for format in &say.formats {
            text.push_str("a=rtpmap:");
            push_number(text, format.payload_type.into());
            push(text, &[" ", format.codec.name(), "/"]);
            push_number(text, format.clock_rate.into());
            if format.channels != 1 {
                text.push('/');
                push_number(text, format.channels.into());
            }
            text.push_str("\r\n");
            if let Some(fmtp) = &format.fmtp {
                text.push_str("a=fmtp:");
                push_number(text, format.payload_type.into());
                push(text, &[" ", fmtp, "\r\n"]);
            }
        }
        text.push_str("a=ptime:");
        push_number(text, say.ptime_ms.unwrap_or(self.ptime_ms).into());
        if let Some(max) = say.max_ptime_ms {
            text.push_str("\r\na=maxptime:");
            push_number(text, max.into());
        }
        push(text, &["\r\na=", say.direction.attribute(), "\r\n"]);
    }
}

/// Appends these texts; `format!` takes several times as long for descriptions as plain as ours.
fn push(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
}

#[cfg(test)]
mod tests {
    use super::{super::Codec, *};

    #[test]
    fn the_version_rises_when_something_changes() {
        let mut local = local();
        let first = local.offer(say(vec![Format::pcmu()]), &policy());
        let again = local.offer(say(vec![Format::pcmu()]), &policy());
        assert_eq!((&first, local.version), (&again, 1));

        let other = local.offer(say(vec![Format::pcma()]), &policy());
        assert_eq!(local.version, 2);
        assert!(other.starts_with(b"v=0\r\no=- 7 2 IN IP4 192.0.2.1\r\n"));

        local.rtp = "[2001:db8::1]:10000".parse().unwrap();
        let moved = local.offer(say(vec![Format::pcma()]), &policy());
        assert!(moved.starts_with(b"v=0\r\no=- 7 3 IN IP6 2001:db8::1\r\n"));
        assert_eq!(local.last, Some(moved));
    }

    #[test]
    fn an_offer_is_written() {
        let mut local = local();
        let mut say = say(vec![Format::pcmu(), Format::telephone_event(101, 8000)]);
        say.direction = Direction::SendOnly;
        say.max_ptime_ms = Some(40);
        assert_eq!(
            local.offer(say, &policy()),
            "v=0\r\no=- 7 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
             m=audio 10000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n\
             a=maxptime:40\r\na=sendonly\r\n"
        );
    }

    /// RFC 3264 6: an answer has the offer's streams, in place; 8: later offers keep them.
    #[test]
    fn refused_streams_keep_their_places() {
        let offer = "v=0\no=- 1 1 IN IP4 x\nc=IN IP4 192.0.2.9\nt=3149328700 0\n\
            m=video 5000 RTP/AVPF 31 34\nm=audio 4000 RTP/AVPF 0\nm=audio 4002 RTP/AVP 8\n";
        let offer = Description::parse(Bytes::from(offer)).unwrap();
        let mut local = local();
        let answer = local.answer(&offer, &say(vec![Format::pcmu()]));
        let media = "m=video 0 RTP/AVPF 31 m=audio 10000 RTP/AVPF 0 m=audio 0 RTP/AVP 8";
        assert_eq!(lines(&answer, b'm'), media);
        assert_eq!(lines(&answer, b't'), "t=3149328700 0");
        assert_eq!(
            lines(&local.offer(say(vec![Format::pcma()]), &policy()), b'm'),
            media.replace("10000 RTP/AVPF 0", "10000 RTP/AVPF 8")
        );
    }

    /// RFC 3264 8.3.2: a number that has been used keeps its meaning for the rest of the session.
    #[test]
    fn a_payload_type_keeps_its_meaning() {
        let mut local = local();
        let other = |number, name: &str| Format {
            codec: Codec::parse(name),
            ..Format::telephone_event(number, 48000)
        };
        for (formats, want) in [
            (vec![other(96, "opus"), other(101, "speex")], "96 101"),
            (vec![other(101, "opus"), other(97, "iLBC")], "96 97"),
            (vec![other(96, "iLBC"), other(96, "speex")], "97 101"),
            (vec![other(96, "new"), other(96, "opus")], "102 96"),
        ] {
            let offer = local.offer(say(formats), &policy());
            assert!(lines(&offer, b'm').ends_with(&format!(" {want}")), "{want}: {offer:?}");
        }
    }

    #[test]
    fn numbers_run_out() {
        let mut local = local();
        let formats = (0..40).map(|n| Format {
            codec: Codec::parse(&format!("x{n}")),
            ..Format::telephone_event(96, 8000)
        });
        let offer = local.offer(say(formats.collect()), &policy());
        let offer = Description::parse(offer).unwrap();
        assert_eq!(offer.audio().unwrap().formats.len(), 32, "one for each dynamic number");
    }

    fn local() -> Local {
        Local::new(7, "192.0.2.1:10000".parse().unwrap())
    }

    fn policy() -> Policy {
        Policy::phone(vec![])
    }

    fn say(formats: Vec<Format>) -> Say {
        Say { formats, direction: Direction::SendRecv, ..Say::default() }
    }

    fn lines(description: &Bytes, letter: u8) -> String {
        let text = std::str::from_utf8(description).unwrap();
        let lines = text.lines().filter(|line| line.as_bytes()[0] == letter);
        lines.collect::<Vec<_>>().join(" ")
    }
}
