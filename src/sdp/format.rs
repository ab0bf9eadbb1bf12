//! Codecs and the payload types that stand for them (RFC 3551 6, RFC 8866 6.6).
//!
//! Owns: the names of codecs, the static payload types, and when two formats are the same codec.
//! Never: encodes or decodes a sample.

use super::parse::{cut, trim};
use std::{fmt, sync::Arc};

/// The encoding name's limit; IANA's longest audio subtype has 25 letters.
const NAME_LEN_MAX: usize = 40;

/// What a payload type carries.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Codec {
    /// G.711 mu-law at 8 kHz, one channel.
    Pcmu,
    /// G.711 A-law at 8 kHz, one channel.
    Pcma,
    /// DTMF digits (RFC 4733), at any clock rate.
    TelephoneEvent,
    /// What we cannot decode and only pass on; the encoding name in capitals: `OPUS`, `G722`.
    Other(Arc<str>),
}

impl Codec {
    /// Reads an encoding name, in any case of letters.
    pub fn parse(name: &str) -> Self {
        for known in [Self::Pcmu, Self::Pcma, Self::TelephoneEvent] {
            if known.name().eq_ignore_ascii_case(name) {
                return known;
            }
        }
        if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Self::Other(name.to_ascii_uppercase().into());
        }
        Self::Other(name.into())
    }

    /// Returns the encoding name in the spelling of its registration where that is known to matter.
    pub fn name(&self) -> &str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::TelephoneEvent => "telephone-event",
            Self::Other(name) => match &**name {
                "OPUS" => "opus",
                "SPEEX" => "speex",
                "ILBC" => "iLBC",
                name => name,
            },
        }
    }

    /// Returns the codec that we can convert this one to and from.
    pub fn sibling(&self) -> Option<Self> {
        match self {
            Self::Pcmu => Some(Self::Pcma),
            Self::Pcma => Some(Self::Pcmu),
            Self::TelephoneEvent | Self::Other(_) => None,
        }
    }

    /// Returns whether we can hear and speak it ourselves, for a prompt or an echo.
    pub fn is_g711(&self) -> bool {
        self.sibling().is_some()
    }

    /// Returns whether a voice can be carried by this alone: neither digits, nor comfort noise.
    pub fn is_speech(&self) -> bool {
        match self {
            Self::Pcmu | Self::Pcma => true,
            Self::TelephoneEvent => false,
            Self::Other(name) => &**name != "CN" && !self.is_wrapper(),
        }
    }

    /// Returns whether it refers to other payload types by number (RFC 2198, 5109, 8627), which
    /// would be wrong on a leg with other numbers.
    pub(super) fn is_wrapper(&self) -> bool {
        match self {
            Self::Pcmu | Self::Pcma | Self::TelephoneEvent => false,
            Self::Other(name) => {
                matches!(&**name, "RED" | "ULPFEC" | "PARITYFEC" | "FLEXFEC" | "FLEXFEC-03" | "RTX")
            }
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One payload type and what it means. Prints as in an `rtpmap`: `opus/48000/2`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Format {
    /// 0..=127.
    pub payload_type: u8,
    /// The codec.
    pub codec: Codec,
    /// RTP timestamp units a second.
    pub clock_rate: u32,
    /// 1 where the description says nothing.
    pub channels: u8,
    /// Parameters of the codec, without the payload type: `0-16`, `useinbandfec=1`.
    pub fmtp: Option<Arc<str>>,
}

impl Format {
    /// Returns G.711 mu-law under its static payload type.
    pub fn pcmu() -> Self {
        Self::plain(0, Codec::Pcmu, 8000, 1)
    }

    /// Returns G.711 A-law under its static payload type.
    pub fn pcma() -> Self {
        Self::plain(8, Codec::Pcma, 8000, 1)
    }

    /// Returns telephone events 0-15 and the flash hook (RFC 4733 7.1.1).
    pub fn telephone_event(payload_type: u8, clock_rate: u32) -> Self {
        let fmtp = Some("0-16".into());
        Self { fmtp, ..Self::plain(payload_type, Codec::TelephoneEvent, clock_rate, 1) }
    }

    /// Returns what a payload type means where no `rtpmap` says so (RFC 3551 table 4).
    pub fn of_static(payload_type: u8) -> Option<Self> {
        let (name, clock_rate, channels) = match payload_type {
            0 => ("PCMU", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            5 => ("DVI4", 8000, 1),
            6 => ("DVI4", 16000, 1),
            7 => ("LPC", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44100, 2),
            11 => ("L16", 44100, 1),
            12 => ("QCELP", 8000, 1),
            13 => ("CN", 8000, 1),
            14 => ("MPA", 90000, 1),
            15 => ("G728", 8000, 1),
            16 => ("DVI4", 11025, 1),
            17 => ("DVI4", 22050, 1),
            18 => ("G729", 8000, 1),
            _ => return None,
        };
        Some(Self::plain(payload_type, Codec::parse(name), clock_rate, channels))
    }

    /// Reads the value of an `rtpmap` attribute: `111 opus/48000/2`.
    pub(super) fn of_rtpmap(value: &str) -> Option<Self> {
        let (payload_type, encoding) = cut(trim(value), b' ')?;
        let payload_type = payload_type.parse().ok().filter(|pt| *pt <= 127)?;
        let (name, rest) = cut(trim(encoding), b'/').filter(|(name, _)| is_token(name))?;
        let (clock_rate, channels) = cut(rest, b'/').unwrap_or((rest, ""));
        let clock_rate = trim(clock_rate).parse().ok().filter(|rate| *rate > 0)?;
        let channels = match cut(channels, b'/').map_or(channels, |(channels, _)| channels) {
            "" => 1,
            channels => trim(channels).parse().ok().filter(|channels| *channels > 0)?,
        };
        // G.711 at another rate exists on paper; we neither convert nor generate it.
        let codec = match Codec::parse(name) {
            Codec::Pcmu | Codec::Pcma if (clock_rate, channels) != (8000, 1) => {
                Codec::Other(name.to_ascii_uppercase().into())
            }
            codec @ (Codec::Pcmu | Codec::Pcma | Codec::TelephoneEvent | Codec::Other(_)) => codec,
        };
        Some(Self::plain(payload_type, codec, clock_rate, channels))
    }

    /// Returns whether both are the same codec, under whatever payload types.
    pub fn is_same_codec(&self, other: &Self) -> bool {
        self.codec == other.codec
            && self.clock_rate == other.clock_rate
            && self.channels == other.channels
    }

    pub(super) fn is_event(&self) -> bool {
        self.codec == Codec::TelephoneEvent
    }

    fn plain(payload_type: u8, codec: Codec, clock_rate: u32, channels: u8) -> Self {
        Self { payload_type, codec, clock_rate, channels, fmtp: None }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.codec.name(), self.clock_rate)?;
        if self.channels == 1 { Ok(()) } else { write!(f, "/{}", self.channels) }
    }
}

/// Finds the same codec as `like`: best under the same number, else with the same parameters, else
/// the first.
pub(super) fn find_like<'f>(formats: &'f [Format], like: &Format) -> Option<&'f Format> {
    let same = || formats.iter().filter(|format| format.is_same_codec(like));
    same()
        .find(|format| format.payload_type == like.payload_type)
        .or_else(|| same().find(|format| format.fmtp == like.fmtp))
        .or_else(|| same().next())
}

/// A token of RFC 8866 9, of sensible length.
fn is_token(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtpmap_is_read() {
        for (value, want) in [
            ("0 PCMU/8000", Some("PCMU/8000")),
            ("8 pcma/8000/1", Some("PCMA/8000")),
            ("111 OPUS/48000/2", Some("opus/48000/2")),
            ("101 Telephone-Event/8000", Some("telephone-event/8000")),
            ("9 G722/8000", Some("G722/8000")),
            ("128 x/8000", None),
            ("96 x", None),
            ("96 x/0", None),
            ("96 x/8000/0", None),
            ("96 x/99999999999", None),
            ("96 /8000", None),
            ("96 a\rb/8000", None),
            ("", None),
        ] {
            let got = Format::of_rtpmap(value).map(|format| format.to_string());
            assert_eq!(got.as_deref(), want, "{value:?}");
        }
    }

    #[test]
    fn g711_at_another_rate_is_not_ours_to_convert() {
        let wide = Format::of_rtpmap("96 PCMU/16000").unwrap();
        assert_eq!(wide.codec, Codec::Other("PCMU".into()));
        assert!(wide.codec.sibling().is_none());
        assert_eq!(Format::of_rtpmap("0 pcmu/8000").unwrap().codec, Codec::Pcmu);
    }

    #[test]
    fn static_types_mean_what_rfc_3551_says() {
        assert_eq!(Format::of_static(0), Some(Format::pcmu()));
        assert_eq!(Format::of_static(8), Some(Format::pcma()));
        assert_eq!(Format::of_static(18).unwrap().to_string(), "G729/8000");
        assert_eq!(Format::of_static(101), None, "dynamic");
        assert_eq!(Format::of_static(2), None, "reserved");
    }

    #[test]
    fn the_nearest_format_is_found() {
        let amr = |pt, fmtp: &str| Format {
            fmtp: Some(fmtp.into()),
            ..Format::of_rtpmap(&format!("{pt} AMR/8000")).unwrap()
        };
        let formats = [amr(96, "octet-align=1"), amr(97, "mode-set=7"), Format::pcmu()];
        for (like, want) in [
            (amr(97, ""), Some(97)),
            (amr(120, "mode-set=7"), Some(97)),
            (amr(120, "none such"), Some(96)),
            (Format::pcma(), None),
        ] {
            assert_eq!(find_like(&formats, &like).map(|f| f.payload_type), want);
        }
    }
}
