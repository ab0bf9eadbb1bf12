//! One session description, as received (RFC 8866).
//!
//! Owns: its lines, and the one audio stream in it that we can use.
//! Never: changes a line, resolves a name, or needs UTF-8 outside of what it reads.
//!
//! Tolerated: LF alone as a line's end, blank lines, lines in another order within their section, absent
//! `s=` and `t=`. Refused: anything else that RFC 8866 9 does not allow in `v= o= c= m=`, and sizes beyond
//! the limits below.

use super::{Crypto, Direction, Format};
use bytes::Bytes;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::Range,
    str,
    sync::Arc,
};

/// A browser's offer has about 8 KB.
const LEN_MAX: usize = 32 * 1024;
const LINES_MAX: usize = 1000;
/// For how many lines there is room before it is known how many there are.
const LINES_USUAL: usize = 24;
const MEDIA_MAX: usize = 32;
/// Of one stream; what lies beyond is not considered.
const FORMATS_MAX: usize = 48;
const FMTP_LEN_MAX: usize = 512;
/// For how many formats there is room before it is known how many there are.
const MAPS_USUAL: usize = 4;
/// Keys of one stream.
const CRYPTO_MAX: usize = 16;
/// RFC 3551 4.2 wants to be able to receive 0-200 ms.
const PTIME_MS: std::ops::RangeInclusive<u16> = 1..=200;

/// Why a description cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    /// Larger, or more lines or streams, than we read.
    #[error("session description too large")]
    TooLarge,
    /// It does not begin with `v=0`.
    #[error("not a session description")]
    NotSdp,
    /// A line without a letter and an equals sign.
    #[error("bad line {number} in session description")]
    Line {
        /// Counted from 1.
        number: usize,
    },
    /// `o=` is absent or malformed.
    #[error("bad o= line in session description")]
    Origin,
    /// An `m=` line is malformed.
    #[error("bad m= line in session description")]
    Media,
    /// There is no usable `c=` line for the audio stream. Host names are not resolved.
    #[error("no usable c= line in session description")]
    Connection,
    /// An answer refuses the audio stream, or has none.
    #[error("audio refused in the answer")]
    Refused,
    /// An answer has no voice codec of those offered.
    #[error("no offered codec in the answer")]
    Codecs,
    /// An answer insists on encryption that was not offered.
    #[error("SRTP in the answer to an RTP offer")]
    Srtp,
    /// An answer leaves out the encryption that was offered, and that the leg needs.
    #[error("RTP in the answer to an SRTP offer")]
    Plain,
    /// An answer has no key of a suite that was offered.
    #[error("no usable a=crypto line in the answer")]
    Crypto,
}

/// The audio stream that we use of a description.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Audio {
    /// Where its side wants to receive; the address is unspecified (`0.0.0.0`) where it does not.
    pub rtp: SocketAddr,
    /// RFC 3605's attribute, else the port above.
    pub rtcp: SocketAddr,
    /// As the describing side sees it. An unspecified address counts as not receiving: how RFC 2543 put
    /// a call on hold (RFC 3264 8.4).
    pub direction: Direction,
    /// In the order of preference; without those whose meaning is unknown, and without wrappers of others.
    pub formats: Vec<Format>,
    /// How much its side wants in a packet.
    pub ptime_ms: Option<u16>,
    /// The most that its side takes in a packet.
    pub max_ptime_ms: Option<u16>,
    /// The profile demands SRTP.
    pub is_srtp: bool,
    /// The keys for it, best first, as far as we can use them. With a profile of plain RTP they are an
    /// invitation, as many phones write it.
    pub crypto: Vec<Crypto>,
    /// Dynamic payload types without an `rtpmap`, as careless answers have them.
    pub(super) unnamed: Vec<u8>,
}

/// One description: the lines as they came, and what we need of them. Clones share it. It does not print:
/// keys are in it.
#[derive(Clone)]
pub struct Description(Arc<Read>);

/// A description, read.
struct Read {
    bytes: Bytes,
    lines: Vec<Line>,
    version: u64,
    times: (u64, u64),
    media: Vec<Media>,
    audio: Option<(usize, Audio)>,
}

/// A line: its letter, and the place of its value.
#[derive(Clone, Copy, Debug)]
struct Line {
    letter: u8,
    start: u32,
    end: u32,
}

impl Line {
    fn value(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The part of an `m=` line that does not name formats.
#[derive(Clone, Copy, Debug)]
struct Media {
    is_audio: bool,
    port: u16,
    profile: Profile,
    /// The index of the `m=` line among the lines.
    line: usize,
}

/// What an `m=` line says: `audio 49170/2 RTP/AVP 0 8`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MediaLine<'a> {
    pub(super) kind: &'a str,
    port: &'a str,
    pub(super) protocol: &'a str,
    pub(super) first_format: &'a str,
}

/// What a stream's profile means to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Profile {
    Rtp,
    /// With keys in the description.
    Srtp,
    /// With keys from a handshake, which we do not do.
    Dtls,
    Unusable,
}

impl Profile {
    fn of(protocol: &str) -> Self {
        match protocol {
            "RTP/AVP" | "RTP/AVPF" => Self::Rtp,
            "RTP/SAVP" | "RTP/SAVPF" => Self::Srtp,
            "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF" => Self::Dtls,
            _ => Self::Unusable,
        }
    }
}

/// Returns whether a profile demands SRTP.
pub(super) fn is_secure_profile(protocol: &str) -> bool {
    matches!(Profile::of(protocol), Profile::Srtp | Profile::Dtls)
}

/// What the lines of one stream say, or those before the first. Of what may be said once, the first counts.
#[derive(Default)]
struct Section<'a> {
    connection: Option<&'a str>,
    direction: Option<Direction>,
    ptime: Option<&'a str>,
    max_ptime: Option<&'a str>,
    rtcp: Option<&'a str>,
    maps: Vec<Format>,
    /// By payload type.
    parameters: Vec<(u8, &'a str)>,
    crypto: Vec<Crypto>,
}

impl Description {
    /// Reads a description.
    ///
    /// Fails also where the audio stream that we would use has no usable address; a description without
    /// such a stream is none the worse for it.
    pub fn parse(bytes: Bytes) -> Result<Self, SdpError> {
        if bytes.len() > LEN_MAX {
            return Err(SdpError::TooLarge);
        }
        let lines = split(&bytes)?;
        let texts = Texts { bytes: &bytes, all: str::from_utf8(&bytes).ok() };
        let (version, times) = texts.session(&lines)?;
        let media = texts.media(&lines)?;
        let audio = texts.find_audio(&lines, &media)?;
        Ok(Self(Arc::new(Read { bytes, lines, version, times, media, audio })))
    }

    /// Returns the first audio stream over RTP that is not refused (port 0), or over SRTP where there is
    /// none over RTP.
    pub fn audio(&self) -> Option<&Audio> {
        self.0.audio.as_ref().map(|(_, audio)| audio)
    }

    /// Returns how many streams there are, refused ones included.
    pub fn media_count(&self) -> usize {
        self.0.media.len()
    }

    /// Returns the version in `o=`, which rises with each change (RFC 3264 8).
    pub fn origin_version(&self) -> u64 {
        self.0.version
    }

    /// Returns whether both say the same in all lines but `o=`.
    pub fn same_except_origin(&self, other: &Self) -> bool {
        let told = |(letter, _): &(u8, &[u8])| *letter != b'o';
        self.lines().filter(told).eq(other.lines().filter(told))
    }

    /// Returns whether both ask for the same audio: formats, direction and packet time. Where it goes and
    /// under which key may differ.
    pub fn same_media(&self, other: &Self) -> bool {
        let asks = |description: &Self| {
            let audio = description.audio()?;
            let ptime = (audio.ptime_ms, audio.max_ptime_ms);
            Some((audio.formats.clone(), audio.direction, ptime))
        };
        asks(self) == asks(other)
    }

    /// Returns the letters and values of the lines, in order.
    pub fn lines(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let value = |line: &Line| self.0.bytes.get(line.value()).unwrap_or_default();
        self.0.lines.iter().map(move |line| (line.letter, value(line)))
    }

    /// Returns the description as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Returns the index of the stream that [`Self::audio`] describes.
    pub(super) fn audio_index(&self) -> Option<usize> {
        self.0.audio.as_ref().map(|(index, _)| *index)
    }

    /// Returns what the `m=` lines say, in order.
    pub(super) fn media(&self) -> impl Iterator<Item = MediaLine<'_>> {
        let Read { bytes, lines, media, .. } = &*self.0;
        let lines = media.iter().filter_map(|media| lines.get(media.line));
        lines.filter_map(|line| MediaLine::parse(str::from_utf8(bytes.get(line.value())?).ok()?))
    }

    /// Returns the start and stop time, which an answer repeats (RFC 3264 6).
    pub(super) fn times(&self) -> (u64, u64) {
        self.0.times
    }
}

/// The bytes of a description, and what of them is text.
#[derive(Clone, Copy)]
struct Texts<'a> {
    bytes: &'a [u8],
    /// All of it, where it is UTF-8, so that no line need be looked at again.
    all: Option<&'a str>,
}

impl<'a> Texts<'a> {
    fn value(self, line: &Line) -> &'a [u8] {
        self.bytes.get(line.value()).unwrap_or_default()
    }

    fn text(self, line: &Line) -> Option<&'a str> {
        match self.all {
            Some(all) => all.get(line.value()),
            None => str::from_utf8(self.value(line)).ok(),
        }
    }

    /// Reads the version in `o=`, and the times.
    fn session(self, lines: &[Line]) -> Result<(u64, (u64, u64)), SdpError> {
        let first = lines.first().ok_or(SdpError::NotSdp)?;
        if first.letter != b'v' || self.value(first).trim_ascii() != b"0" {
            return Err(SdpError::NotSdp);
        }
        let origin = lines.iter().find(|line| line.letter == b'o');
        let version = origin.and_then(|line| origin_version(self.value(line)));
        let times = lines.iter().find(|line| line.letter == b't');
        let times = times.and_then(|line| self.text(line)).and_then(|text| {
            let (start, stop) = text.trim().split_once(' ')?;
            Some((start.parse().ok()?, stop.trim().parse().ok()?))
        });
        Ok((version.ok_or(SdpError::Origin)?, times.unwrap_or_default()))
    }

    fn media(self, lines: &[Line]) -> Result<Vec<Media>, SdpError> {
        let mut media = vec![];
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.letter == b'm') {
            if media.len() == MEDIA_MAX {
                return Err(SdpError::TooLarge);
            }
            let read = self.text(line).and_then(MediaLine::parse);
            media.push(read.and_then(|read| read.media(index)).ok_or(SdpError::Media)?);
        }
        Ok(media)
    }

    fn find_audio(
        self,
        lines: &[Line],
        media: &[Media],
    ) -> Result<Option<(usize, Audio)>, SdpError> {
        let live = |profile| {
            move |media: &Media| media.is_audio && media.port != 0 && media.profile == profile
        };
        let index = media.iter().position(live(Profile::Rtp));
        let index = index.or_else(|| media.iter().position(live(Profile::Srtp)));
        let index = index.or_else(|| media.iter().position(live(Profile::Dtls)));
        let Some((index, ours)) = index.and_then(|index| Some((index, media.get(index)?))) else {
            return Ok(None);
        };
        let before = media.first().map_or(0, |first| first.line);
        let session = self.section(lines.get(..before).unwrap_or_default());
        let after = ours.line.saturating_add(1);
        let rest = lines.get(after..).unwrap_or_default();
        let len = rest.iter().position(|line| line.letter == b'm').unwrap_or(rest.len());
        let section = self.section(rest.get(..len).unwrap_or_default());
        let formats = lines.get(ours.line).and_then(|line| self.text(line));
        let audio = read_audio(ours, formats.unwrap_or_default(), section, &session)?;
        Ok(Some((index, audio)))
    }

    /// Collects the lines that we may need; those that are not UTF-8 are none of them.
    fn section(self, lines: &[Line]) -> Section<'a> {
        let mut section = Section::default();
        for line in lines.iter().filter(|line| matches!(line.letter, b'c' | b'a')) {
            let Some(text) = self.text(line).map(trim) else { continue };
            if line.letter == b'c' {
                section.connection = section.connection.or(Some(text));
            } else {
                section.note(cut(text, b':').unwrap_or((text, "")));
            }
        }
        section
    }
}

/// Removes white space at both ends; what has none is recognised by its first and last byte.
pub(super) fn trim(text: &str) -> &str {
    match text.as_bytes() {
        [] => text,
        [only] if only.is_ascii_graphic() => text,
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        [..] => text.trim(),
    }
}

/// Splits around the first `separator`, an ASCII character: faster than `str::split_once` where the text is short.
pub(super) fn cut(text: &str, separator: u8) -> Option<(&str, &str)> {
    let (before, after) =
        text.split_at_checked(text.bytes().position(|byte| byte == separator)?)?;
    Some((before, after.get(1..)?))
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Description({} lines, {:?})", self.0.lines.len(), self.audio())
    }
}

impl<'a> MediaLine<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut tokens = text.split_ascii_whitespace();
        let mut token = || tokens.next().filter(|t| t.bytes().all(|b| b.is_ascii_graphic()));
        let (kind, port, protocol, first_format) = (token()?, token()?, token()?, token()?);
        Some(Self { kind, port, protocol, first_format })
    }

    /// Returns what we need of the line with this index. `UDP/TLS/RTP/SAVPF` is a browser's.
    fn media(self, line: usize) -> Option<Media> {
        let profile = Profile::of(self.protocol);
        let port = cut(self.port, b'/').map_or(self.port, |(port, _)| port).parse().ok()?;
        Some(Media { is_audio: self.kind == "audio", port, profile, line })
    }
}

impl<'a> Section<'a> {
    /// Takes an attribute, if it is one that we may need.
    fn note(&mut self, (name, value): (&str, &'a str)) {
        match name {
            "rtpmap" => {
                if self.maps.is_empty() {
                    self.maps.reserve(MAPS_USUAL);
                }
                self.maps.extend(Format::of_rtpmap(value));
            }
            "fmtp" => {
                let parts = cut(value.trim_start(), b' ');
                let read = parts.and_then(|(number, value)| Some((number.parse().ok()?, value)));
                self.parameters.extend(read);
            }
            "ptime" => _ = self.ptime.get_or_insert(value),
            "maxptime" => _ = self.max_ptime.get_or_insert(value),
            "rtcp" => _ = self.rtcp.get_or_insert(value),
            "crypto" if self.crypto.len() < CRYPTO_MAX => self.crypto.extend(Crypto::parse(value)),
            name => self.direction = self.direction.or_else(|| Direction::parse(name)),
        }
    }

    /// Returns the `fmtp` of a payload type; it may be repeated to the other leg, so it must be harmless.
    fn parameters_of(&self, payload_type: u8) -> Option<Arc<str>> {
        let harmless = |value: &&str| {
            (1..=FMTP_LEN_MAX).contains(&value.len())
                && value.bytes().all(|b| matches!(b, 32..=126))
        };
        let (_, value) = self.parameters.iter().find(|(number, _)| *number == payload_type)?;
        Some(trim(value)).filter(harmless).map(Into::into)
    }
}

fn milliseconds(value: &str) -> Option<u16> {
    value.trim().parse().ok().filter(|ms| PTIME_MS.contains(ms))
}

/// Cuts the description into lines; blank ones are skipped.
fn split(bytes: &[u8]) -> Result<Vec<Line>, SdpError> {
    let mut lines = Vec::with_capacity(LINES_USUAL);
    let mut number = 0_usize;
    let mut rest = Some(bytes);
    while let Some(text) = rest {
        number = number.saturating_add(1);
        let start = bytes.len().saturating_sub(text.len());
        let (line, after) =
            match memchr::memchr(b'\n', text).and_then(|at| text.split_at_checked(at)) {
                Some((line, after)) => (line, after.get(1..)),
                None => (text, None),
            };
        rest = after;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if lines.len() == LINES_MAX {
            return Err(SdpError::TooLarge);
        }
        match line {
            [letter, b'=', ..] => {
                let end = start.saturating_add(line.len()) as u32;
                lines.push(Line { letter: *letter, start: (start as u32).saturating_add(2), end });
            }
            line if line.trim_ascii().is_empty() => {}
            _ => return Err(SdpError::Line { number }),
        }
    }
    Ok(lines)
}

/// Reads the version of `o=`: the fourth field from the end, since some put a name with spaces at its
/// beginning. NTP times with fractions can exceed 64 bits and count as the largest.
fn origin_version(value: &[u8]) -> Option<u64> {
    let mut fields = value.rsplit(|b| *b == b' ').filter(|field| !field.is_empty());
    let version = str::from_utf8(fields.nth(3)?).ok()?;
    let complete = fields.count() >= 2 && version.bytes().all(|b| b.is_ascii_digit());
    complete.then(|| version.parse().unwrap_or(u64::MAX))
}

fn read_audio(
    media: &Media,
    line: &str,
    mut section: Section<'_>,
    session: &Section<'_>,
) -> Result<Audio, SdpError> {
    let connection = section.connection.or(session.connection).and_then(address);
    let ip = connection.ok_or(SdpError::Connection)?;
    let rtp = SocketAddr::new(ip, media.port);
    let direction = section.direction.or(session.direction).unwrap_or_default();
    let reachable = Direction::of(true, !ip.is_unspecified());
    let (formats, unnamed) = read_formats(line, &mut section);
    let ms = |value: Option<&str>| value.and_then(milliseconds);
    Ok(Audio {
        rtp,
        rtcp: section.rtcp.and_then(|value| rtcp(value, ip)).unwrap_or_else(|| {
            SocketAddr::new(ip, media.port.checked_add(1).unwrap_or(media.port))
        }),
        direction: direction.and(reachable),
        formats,
        ptime_ms: ms(section.ptime).or_else(|| ms(session.ptime)),
        max_ptime_ms: ms(section.max_ptime).or_else(|| ms(session.max_ptime)),
        is_srtp: matches!(media.profile, Profile::Srtp | Profile::Dtls),
        crypto: if media.profile == Profile::Dtls { vec![] } else { section.crypto },
        unnamed,
    })
}

/// Reads the address of a `c=` line: `IN IP4 192.0.2.1`. The literal decides, not the address type.
/// Multicast and broadcast are no places to send a call to.
fn address(connection: &str) -> Option<IpAddr> {
    let mut fields = connection.split_ascii_whitespace();
    let (Some("IN"), Some("IP4" | "IP6"), Some(ip)) = (fields.next(), fields.next(), fields.next())
    else {
        return None;
    };
    let ip = ip.parse::<IpAddr>().ok()?.to_canonical();
    let is_broadcast = match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    (!ip.is_multicast() && !is_broadcast).then_some(ip)
}

/// Reads RFC 3605's `53020` or `53020 IN IP4 192.0.2.1`.
fn rtcp(value: &str, default: IpAddr) -> Option<SocketAddr> {
    let value = value.trim();
    let (port, connection) = value.split_once(' ').map_or((value, None), |(p, c)| (p, Some(c)));
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let ip = connection.map_or(Some(default), address).filter(|ip| !ip.is_unspecified())?;
    Some(SocketAddr::new(ip, port))
}

/// Returns the formats of an `m=` line that mean something, and the numbers that might.
fn read_formats(line: &str, section: &mut Section<'_>) -> (Vec<Format>, Vec<u8>) {
    let mut maps = std::mem::take(&mut section.maps);
    let (mut formats, mut unnamed) = (Vec::<Format>::with_capacity(maps.len()), vec![]);
    let numbers = line.split_ascii_whitespace().skip(3).take(FORMATS_MAX);
    for number in numbers.filter_map(|n| n.parse().ok()).filter(|number: &u8| *number <= 127) {
        if formats.iter().any(|format| format.payload_type == number) {
            continue;
        }
        // A wrapper stays, for the case that its number comes again.
        let mapped = maps.iter().position(|format| format.payload_type == number);
        let format = match mapped {
            Some(at) if maps.get(at).is_some_and(|format| format.codec.is_wrapper()) => continue,
            Some(at) => Some(maps.remove(at)),
            None => Format::of_static(number),
        };
        match format {
            Some(format) if format.codec.is_wrapper() => {}
            Some(format) => {
                formats.push(Format { fmtp: section.parameters_of(number), ..format });
            }
            None => unnamed.push(number),
        }
    }
    (formats, unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWILIO: &str = "v=0\r\no=root 1311022221 1311022221 IN IP4 172.18.165.214\r\n\
        s=Twilio Media Gateway\r\nc=IN IP4 168.86.138.121\r\nt=0 0\r\n\
        m=audio 12692 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
        a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:20\r\n\
        a=sendrecv\r\n";

    #[test]
    fn twilio_is_read() {
        let description = parse(TWILIO).unwrap();
        let audio = description.audio().unwrap();
        assert_eq!(audio.rtp.to_string(), "168.86.138.121:12692");
        assert_eq!(audio.rtcp.to_string(), "168.86.138.121:12693");
        assert_eq!(audio.direction, Direction::SendRecv);
        assert_eq!((audio.ptime_ms, audio.max_ptime_ms), (Some(20), Some(20)));
        assert_eq!(
            audio.formats,
            [Format::pcmu(), Format::pcma(), Format::telephone_event(101, 8000)]
        );
        assert!(!audio.is_srtp);
        assert_eq!(description.origin_version(), 1_311_022_221);
        assert_eq!(description.media_count(), 1);
    }

    #[test]
    fn every_line_survives_in_order() {
        let lines = "v=0\nz=\no=- 1 2 IN IP4 x\ns=caf\u{e9}\nb=AS:64\na=x-ours:1\na=rtcp-mux\n";
        let description = parse(lines).unwrap();
        let mut again = String::new();
        for (letter, value) in description.lines() {
            again += &format!("{}={}\n", char::from(letter), str::from_utf8(value).unwrap());
        }
        assert_eq!(again, lines);
        assert_eq!(description.bytes(), lines);
    }

    /// The addresses, in `c=` of either level and in RFC 3605's attribute.
    #[test]
    fn addresses() {
        for (lines, rtp, rtcp) in [
            ("m=audio 4000 RTP/AVP 0", "192.0.2.1:4000", "192.0.2.1:4001"),
            ("m=audio 4000/2 RTP/AVP 0", "192.0.2.1:4000", "192.0.2.1:4001"),
            ("m=audio 65535 RTP/AVP 0", "192.0.2.1:65535", "192.0.2.1:65535"),
            ("AUDIO\nc=IN IP4 192.0.2.2", "192.0.2.2:4000", "192.0.2.2:4001"),
            ("AUDIO\nc=IN IP6 2001:db8::1", "[2001:db8::1]:4000", "[2001:db8::1]:4001"),
            ("AUDIO\nc=IN IP6 ::ffff:192.0.2.2", "192.0.2.2:4000", "192.0.2.2:4001"),
            ("AUDIO\nm=video 1 RTP/AVP 31\nc=IN IP4 192.0.2.2", "192.0.2.1:4000", "192.0.2.1:4001"),
            ("AUDIO\na=rtcp:53020", "192.0.2.1:4000", "192.0.2.1:53020"),
            ("AUDIO\na=rtcp:53020 IN IP4 192.0.2.7", "192.0.2.1:4000", "192.0.2.7:53020"),
            ("AUDIO\na=rtcp:9 IN IP4 0.0.0.0", "192.0.2.1:4000", "192.0.2.1:4001"),
            ("AUDIO\na=rtcp:0", "192.0.2.1:4000", "192.0.2.1:4001"),
        ] {
            let audio = audio(lines);
            let got = (audio.rtp.to_string(), audio.rtcp.to_string());
            assert_eq!(got, (rtp.into(), rtcp.into()), "{lines}");
        }
    }

    /// The attribute of either level, and the address (RFC 3264 8.4).
    #[test]
    fn directions() {
        for (lines, want) in [
            ("AUDIO", "sendrecv"),
            ("AUDIO\na=recvonly", "recvonly"),
            ("AUDIO\na=inactive ", "inactive"),
            ("AUDIO\na=SENDONLY", "sendrecv"),
            ("a=sendonly\nAUDIO", "sendonly"),
            ("a=sendonly\nAUDIO\na=inactive", "inactive"),
            ("a=sendonly\nAUDIO\na=sendrecv", "sendrecv"),
            ("AUDIO\nm=video 1 RTP/AVP 31\na=inactive", "sendrecv"),
            ("AUDIO\nc=IN IP4 0.0.0.0", "sendonly"),
            ("AUDIO\nc=IN IP4 0.0.0.0\na=recvonly", "inactive"),
            ("AUDIO\nc=IN IP6 ::\na=sendonly", "sendonly"),
        ] {
            assert_eq!(audio(lines).direction.attribute(), want, "{lines}");
        }
    }

    #[test]
    fn the_audio_stream_is_chosen() {
        for (lines, index, is_srtp) in [
            ("m=video 5000 RTP/AVP 31\nm=audio 4000 RTP/AVP 0", Some(1), false),
            ("m=audio 0 RTP/AVP 0\nm=audio 4000 RTP/AVP 0", Some(1), false),
            ("m=audio 4000 RTP/SAVP 0\nm=audio 4002 RTP/AVP 0", Some(1), false),
            ("m=audio 4000 RTP/SAVP 0", Some(0), true),
            ("m=audio 4000 UDP/TLS/RTP/SAVPF 0", Some(0), true),
            ("m=audio 4000 RTP/AVPF 0\nm=audio 4002 RTP/AVP 8", Some(0), false),
            ("m=audio 0 RTP/AVP 0", None, false),
            ("m=audio 4000 udp 0", None, false),
            ("m=image 4000 udptl t38", None, false),
        ] {
            let text = format!("v=0\no=- 1 1 IN IP4 x\nc=IN IP4 192.0.2.1\n{lines}");
            let description = parse(&text).unwrap();
            assert_eq!(description.audio_index(), index, "{lines}");
            assert_eq!(description.audio().is_some_and(|a| a.is_srtp), is_srtp, "{lines}");
        }
    }

    #[test]
    fn formats_mean_something_or_are_left_out() {
        for (lines, want, unnamed) in [
            ("0 8 18", "0 PCMU/8000 8 PCMA/8000 18 G729/8000", ""),
            ("3 9 13 101", "3 GSM/8000 9 G722/8000 13 CN/8000", "101"),
            ("0 0 0", "0 PCMU/8000", ""),
            ("0 128 -1 x 256 8", "0 PCMU/8000 8 PCMA/8000", ""),
            ("96 0\na=rtpmap:96 opus/48000/2\na=rtpmap:97 x/1", "96 opus/48000/2 0 PCMU/8000", ""),
            ("0 2\na=rtpmap:2 G726-32/8000", "0 PCMU/8000 2 G726-32/8000", ""),
            ("63 0\na=rtpmap:63 red/48000/2\na=fmtp:63 96/96", "0 PCMU/8000", ""),
            ("96\na=rtpmap:96 telephone-event/8000", "96 telephone-event/8000", ""),
        ] {
            let audio = audio(&format!("m=audio 4000 RTP/AVP {lines}"));
            let got = audio.formats.iter().map(|f| format!("{} {f}", f.payload_type));
            assert_eq!(got.collect::<Vec<_>>().join(" "), want, "{lines}");
            let got = audio.unnamed.iter().map(ToString::to_string);
            assert_eq!(got.collect::<Vec<_>>().join(" "), unnamed, "{lines}");
        }
    }

    #[test]
    fn parameters_are_harmless_or_left_out() {
        let long = "x".repeat(FMTP_LEN_MAX + 1);
        for (value, want) in [
            ("annexb=no", Some("annexb=no")),
            ("  a=1; b=2  ", Some("a=1; b=2")),
            ("a\rb", None),
            ("caf\u{e9}", None),
            ("", None),
            (&long, None),
        ] {
            let lines = format!("m=audio 4000 RTP/AVP 18\na=fmtp:1 x\na=fmtp:18 {value}");
            assert_eq!(audio(&lines).formats[0].fmtp.as_deref(), want, "{value:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let session = "v=0\no=- 1 1 IN IP4 x\n";
        let audio = "m=audio 4000 RTP/AVP 0\n";
        for (text, want) in [
            (String::new(), SdpError::NotSdp),
            ("hello".into(), SdpError::Line { number: 1 }),
            ("v=1\no=- 1 1 IN IP4 x\n".into(), SdpError::NotSdp),
            ("o=- 1 1 IN IP4 x\nv=0\n".into(), SdpError::NotSdp),
            ("v=0\n".into(), SdpError::Origin),
            ("v=0\no=- 1 IN IP4 x\n".into(), SdpError::Origin),
            ("v=0\no=- 1 x IN IP4 x\n".into(), SdpError::Origin),
            (format!("{session}m =video 1 RTP/AVP 31"), SdpError::Line { number: 3 }),
            (format!("{session}m=audio"), SdpError::Media),
            (format!("{session}m=audio 4000 RTP/AVP"), SdpError::Media),
            (format!("{session}m=audio 65536 RTP/AVP 0"), SdpError::Media),
            (format!("{session}m=audio -1 RTP/AVP 0"), SdpError::Media),
            (format!("{session}{audio}"), SdpError::Connection),
            (format!("{session}c=IN IP4 pbx.example.com\n{audio}"), SdpError::Connection),
            (format!("{session}c=IN IP4 224.2.36.42/127\n{audio}"), SdpError::Connection),
            (format!("{session}c=IN IP4 239.1.1.1\n{audio}"), SdpError::Connection),
            (format!("{session}c=IN IP4 255.255.255.255\n{audio}"), SdpError::Connection),
            (format!("{session}c=ATM NSAP 47.0091\n{audio}"), SdpError::Connection),
            (format!("{session}{}", "m=video 0 RTP/AVP 31\n".repeat(33)), SdpError::TooLarge),
            (format!("{session}{}", "a=x\n".repeat(LINES_MAX)), SdpError::TooLarge),
            (format!("{session}a={}", "x".repeat(LEN_MAX)), SdpError::TooLarge),
        ] {
            assert_eq!(parse(&text).err(), Some(want), "{text:.80}");
        }
    }

    #[test]
    fn what_is_tolerated() {
        for text in [
            "v=0\r\no=- 1 1 IN IP4 x\r\n",
            "v=0\no=- 1 1 IN IP4 x\n\n\r\n",
            "v=0\ns=-\nt=0 0\no=My  Name 1 1 IN IP4 x",
            "v=0 \no=- 3893281112.123456789 1 IN IP4 x\n",
            "v=0\no=- 1 99999999999999999999999999 IN IP4 x\n",
            "v=0\no=- 1 1 IN IP4 x\nm=audio 0 RTP/AVP 0\nc=IN IP4 a.name\n",
        ] {
            assert!(parse(text).is_ok(), "{text:?}");
        }
        let latin1 = Bytes::from_static(b"v=0\no=caf\xe9 1 7 IN IP4 x\ns=caf\xe9\n");
        assert_eq!(Description::parse(latin1).unwrap().origin_version(), 7);
    }

    #[test]
    fn sameness() {
        let other = |from: &str, to: &str| parse(&TWILIO.replace(from, to)).unwrap();
        let twilio = parse(TWILIO).unwrap();
        for (from, to, same_lines, same_media) in [
            ("1311022221 IN", "1311022222 IN", true, true),
            ("138.121", "138.122", false, true),
            ("sendrecv", "sendonly", false, false),
            ("RTP/AVP 0 8", "RTP/AVP 8 0", false, false),
            ("ptime:20", "ptime:30", false, false),
            ("IP4 168.86.138.121", "IP4 0.0.0.0", false, false),
        ] {
            let other = other(from, to);
            assert_eq!(twilio.same_except_origin(&other), same_lines, "{from} to {to}");
            assert_eq!(twilio.same_media(&other), same_media, "{from} to {to}");
        }
    }

    fn audio(lines: &str) -> Audio {
        let lines = lines.replace("AUDIO", "m=audio 4000 RTP/AVP 0");
        let text = format!("v=0\no=- 1 1 IN IP4 x\nc=IN IP4 192.0.2.1\n{lines}\n");
        parse(&text).unwrap().audio().unwrap().clone()
    }

    fn parse(text: &str) -> Result<Description, SdpError> {
        Description::parse(Bytes::copy_from_slice(text.as_bytes()))
    }
}
