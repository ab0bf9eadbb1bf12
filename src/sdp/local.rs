//! Our side of one leg: what we have said so far, and saying the next thing (RFC 3264 5, 6, 8).
//!
//! Owns: `o=` and its version, the order of the leg's streams, the meaning of its payload types.
//! Never: decides which formats to say.

use super::{Description, Direction, Format};
use bytes::Bytes;
use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

/// What a leg hears unless somebody asks for something else, in ms of sound per packet.
const PTIME_MS: u16 = 20;
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
    streams: Vec<Stream>,
    /// What each payload type has meant on this leg: it may never mean anything else (RFC 3264 8.3.2).
    meanings: Vec<Format>,
}

/// One `m=` line's place. Places are never taken away (RFC 3264 8).
#[derive(Clone, Debug, Eq, PartialEq)]
enum Stream {
    Audio {
        protocol: Box<str>,
    },
    /// Refused: what follows `m=`, with port 0.
    Refused(Box<str>),
}

/// What to say about the one stream of ours.
#[derive(Debug)]
pub(super) struct Say {
    pub(super) formats: Vec<Format>,
    pub(super) direction: Direction,
    pub(super) ptime_ms: Option<u16>,
    pub(super) max_ptime_ms: Option<u16>,
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
            streams: vec![],
            meanings: vec![],
        }
    }

    /// Writes an offer; streams that were refused before keep their places.
    pub(super) fn offer(&mut self, mut say: Say) -> Bytes {
        let audio = self.streams.iter().position(|s| matches!(s, Stream::Audio { .. }));
        if audio.is_none() {
            self.streams.push(Stream::Audio { protocol: "RTP/AVP".into() });
        }
        say.formats = self.number(say.formats);
        self.say(&say, (0, 0))
    }

    /// Writes an answer: our stream takes the place of the offer's audio, all others are refused.
    pub(super) fn answer(&mut self, offer: &Description, say: &Say) -> Bytes {
        let ours = offer.audio_index();
        let streams = offer.media().iter().enumerate().map(|(index, media)| {
            if Some(index) == ours {
                Stream::Audio { protocol: media.protocol.clone() }
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
        let mut numbered: Vec<Format> = vec![];
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
        let ip = self.rtp.ip();
        let ip = match ip {
            IpAddr::V4(ip) => format!("IN IP4 {ip}"),
            IpAddr::V6(ip) => format!("IN IP6 {ip}"),
        };
        let (session, version) = (self.session, self.version);
        let mut text = format!(
            "v=0\r\no=- {session} {version} {ip}\r\ns=-\r\nc={ip}\r\nt={} {}\r\n",
            times.0, times.1
        );
        for stream in &self.streams {
            // Writing to a string cannot fail.
            let _ = match stream {
                Stream::Refused(line) => write!(text, "m={line}\r\n"),
                Stream::Audio { protocol } => self.write_audio(&mut text, protocol, say),
            };
        }
        text
    }

    fn write_audio(&self, text: &mut String, protocol: &str, say: &Say) -> std::fmt::Result {
        write!(text, "m=audio {} {protocol}", self.rtp.port())?;
        for format in &say.formats {
            write!(text, " {}", format.payload_type)?;
        }
        write!(text, "\r\n")?;
        for format in &say.formats {
            write!(text, "a=rtpmap:{} {format}\r\n", format.payload_type)?;
            if let Some(fmtp) = &format.fmtp {
                write!(text, "a=fmtp:{} {fmtp}\r\n", format.payload_type)?;
            }
        }
        write!(text, "a=ptime:{}\r\n", say.ptime_ms.unwrap_or(self.ptime_ms))?;
        if let Some(max) = say.max_ptime_ms {
            write!(text, "a=maxptime:{max}\r\n")?;
        }
        write!(text, "a={}\r\n", say.direction)
    }
}
