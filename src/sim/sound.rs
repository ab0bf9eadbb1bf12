//! The session descriptions of simulated peers: what they hear, written plainly.
//!
//! Owns: one peer's side of one call's SDP.
//! Never: shares the product's way of writing or negotiating it.

use super::sdes::{KeyRing, Sdes, keys};
use crate::{
    media::srtp::Keys,
    sdp::{Audio, Codec, Crypto, Description, Direction, Format},
};
use bytes::Bytes;
use std::{fmt::Write, net::SocketAddr};

/// A codec by its name, and the payload type under which our peers offer it.
const CODECS: &[(&str, u8, &str)] = &[
    ("PCMU", 0, "PCMU/8000"),
    ("PCMA", 8, "PCMA/8000"),
    ("G722", 9, "G722/8000"),
    ("OPUS", 111, "opus/48000/2"),
    ("TELEPHONE-EVENT", 101, "telephone-event/8000"),
];

/// One peer's side of a call's media.
#[derive(Clone, Debug)]
pub(super) struct Sound {
    /// Where it wants RTP.
    pub(super) rtp: SocketAddr,
    /// What `o=` names; Twilio's is private, another than where the media is.
    pub(super) origin: Option<std::net::IpAddr>,
    /// Names out of [`CODECS`], best first.
    pub(super) codecs: Vec<&'static str>,
    /// What this side wants; the answer to an offer is also bound by the offer.
    pub(super) wants: Direction,
    /// What was agreed last.
    pub(super) agreed: Option<Agreement>,
    /// How it speaks SRTP, if it can.
    ring: Option<KeyRing>,
    /// Whether it answers with the first codec it knows, instead of with all.
    pub(super) is_terse: bool,
    version: u32,
    said: Option<String>,
    /// Whether what it said last is RTP/SAVP, and the keys in it.
    profile: (bool, Vec<Crypto>),
}

/// What one offer and one answer led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreement {
    /// The codec this side speaks: `PCMU`.
    pub codec: String,
    /// Under this number.
    pub payload_type: u8,
    /// Where this side wants RTP.
    pub local: SocketAddr,
    /// Where the peer wants RTP.
    pub remote: SocketAddr,
    /// This side's.
    pub direction: Direction,
    /// The number of telephone-event, where both know it.
    pub events: Option<u8>,
    /// The keys of SRTP, where it is that.
    pub keys: Option<Keys>,
}

impl Sound {
    pub(super) fn new(rtp: SocketAddr, codecs: &[&'static str]) -> Self {
        let codecs = codecs.to_vec();
        let wants = Direction::SendRecv;
        Self {
            rtp,
            origin: None,
            codecs,
            wants,
            agreed: None,
            ring: None,
            is_terse: false,
            version: 0,
            said: None,
            profile: (false, vec![]),
        }
    }

    /// Lets it speak SRTP.
    pub(super) fn with_sdes(mut self, sdes: Option<&Sdes>) -> Self {
        self.ring = sdes.map(|sdes| KeyRing::new(sdes.clone(), self.rtp.port().into()));
        self
    }

    /// Writes an offer.
    pub(super) fn offer(&mut self) -> String {
        let formats: Vec<_> = CODECS
            .iter()
            .filter(|(name, ..)| self.codecs.contains(name))
            .map(|(name, payload_type, map)| (*payload_type, (*map).to_owned(), *name))
            .collect();
        let place = |name| self.codecs.iter().position(|codec| *codec == name);
        let mut formats = formats;
        formats.sort_by_key(|(.., name)| place(*name));
        let formats: Vec<_> = formats.into_iter().map(|(pt, map, _)| (pt, map)).collect();
        let crypto = self.ring.as_mut().map(KeyRing::offer).unwrap_or_default();
        self.profile = (self.ring.as_ref().is_some_and(|ring| ring.sdes.insists), crypto);
        self.write(&formats, self.wants)
    }

    /// Answers an offer; `None` where there is nothing in common.
    pub(super) fn answer(&mut self, offer: &[u8]) -> Option<String> {
        let offer = read(offer)?;
        let known = |name: &str| self.codecs.iter().any(|codec| codec.eq_ignore_ascii_case(name));
        let mut speeches = 0;
        let mut is_wanted = |codec: &Codec| {
            speeches += u32::from(codec.is_speech());
            !(self.is_terse && codec.is_speech()) || speeches == 1
        };
        let common: Vec<_> = offer
            .formats
            .iter()
            .filter(|format| known(format.codec.name()) && is_wanted(&format.codec))
            .map(|format| (format.payload_type, format.to_string()))
            .collect();
        let direction = self.wants.and(offer.direction.reversed());
        let lines = self.ring.as_mut().and_then(|ring| ring.answer(&offer));
        let insists = offer.is_srtp || self.ring.as_ref().is_some_and(|ring| ring.sdes.insists);
        if lines.is_none() && insists {
            return None;
        }
        let both = lines.as_ref().and_then(|(theirs, ours)| keys(ours, theirs));
        self.profile = (offer.is_srtp, lines.into_iter().map(|(_, ours)| ours).collect());
        self.agree(&offer, direction, both)?;
        Some(self.write(&common, direction))
    }

    /// Takes the answer to our offer; returns whether it can be used.
    pub(super) fn accept(&mut self, answer: &[u8]) -> bool {
        let Some(answer) = read(answer) else { return false };
        let direction = self.wants.and(answer.direction.reversed());
        let (is_srtp, offered) = &self.profile;
        let both = self.ring.as_ref().and_then(|ring| ring.settle(offered, &answer));
        if answer.is_srtp != *is_srtp || (*is_srtp && both.is_none()) {
            return false;
        }
        self.agree(&answer, direction, both).is_some()
    }

    /// Returns the direction agreed on, as SDP spells it.
    pub(super) fn direction(&self) -> &'static str {
        self.agreed.as_ref().map_or("none", |agreed| agreed.direction.attribute())
    }

    fn agree(&mut self, theirs: &Audio, direction: Direction, keys: Option<Keys>) -> Option<()> {
        let is_ours = |name: &str| self.codecs.iter().any(|codec| codec.eq_ignore_ascii_case(name));
        let format =
            theirs.formats.iter().find(|f| f.codec.is_speech() && is_ours(f.codec.name()))?;
        let is_event = |f: &&Format| f.codec == Codec::TelephoneEvent && is_ours(f.codec.name());
        let events = theirs.formats.iter().find(is_event).map(|f| f.payload_type);
        self.agreed = Some(Agreement {
            codec: format.codec.name().to_owned(),
            payload_type: format.payload_type,
            local: self.rtp,
            remote: theirs.rtp,
            direction,
            events,
            keys,
        });
        Some(())
    }

    /// Says it, under the next version where it is news.
    fn write(&mut self, formats: &[(u8, String)], direction: Direction) -> String {
        let again = self.text(formats, direction);
        if self.said.as_ref() == Some(&again) {
            return again;
        }
        self.version += 1;
        let news = self.text(formats, direction);
        self.said = Some(news.clone());
        news
    }

    fn text(&self, formats: &[(u8, String)], direction: Direction) -> String {
        let (ip, port) = (self.rtp.ip(), self.rtp.port());
        let kind = if ip.is_ipv4() { "IP4" } else { "IP6" };
        let origin = self.origin.unwrap_or(ip);
        let version = self.version;
        let (is_srtp, crypto) = &self.profile;
        let profile = if *is_srtp { "RTP/SAVP" } else { "RTP/AVP" };
        let mut text = format!(
            "v=0\r\no=- 1 {version} IN {kind} {origin}\r\ns=call\r\nc=IN {kind} {ip}\r\nt=0 0\r\n\
             m=audio {port} {profile}"
        );
        // Writing to a string cannot fail.
        for (payload_type, _) in formats {
            let _ = write!(text, " {payload_type}");
        }
        text.push_str("\r\n");
        for line in crypto {
            let _ = write!(text, "a=crypto:{}\r\n", line.value());
        }
        for (payload_type, map) in formats {
            let _ = write!(text, "a=rtpmap:{payload_type} {map}\r\n");
            if map.starts_with("telephone-event") {
                let _ = write!(text, "a=fmtp:{payload_type} 0-16\r\n");
            }
        }
        let _ = write!(text, "a=ptime:20\r\na={}\r\n", direction.attribute());
        text
    }
}

fn read(sdp: &[u8]) -> Option<Audio> {
    Description::parse(Bytes::copy_from_slice(sdp)).ok()?.audio().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::CryptoSuite;

    #[test]
    fn offers_and_answers_meet() {
        let rtp = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut a = Sound::new(rtp(4000), &["PCMA", "PCMU", "TELEPHONE-EVENT"]);
        let mut b = Sound::new(rtp(5000), &["PCMU", "TELEPHONE-EVENT"]);
        let offer = a.offer();
        assert!(offer.contains("m=audio 4000 RTP/AVP 8 0 101\r\n"), "{offer}");
        b.wants = Direction::SendOnly;
        let answer = b.answer(offer.as_bytes()).unwrap();
        assert!(answer.contains("m=audio 5000 RTP/AVP 0 101\r\n"), "{answer}");
        assert!(a.accept(answer.as_bytes()));
        assert_eq!((a.direction(), b.direction()), ("recvonly", "sendonly"));
        let agreed = a.agreed.unwrap();
        assert_eq!((agreed.remote, agreed.events), (rtp(5000), Some(101)));

        b.is_terse = true;
        b.codecs = vec!["PCMU", "PCMA", "TELEPHONE-EVENT"];
        let answer = b.answer(offer.as_bytes()).unwrap();
        assert!(
            answer.contains("m=audio 5000 RTP/AVP 8 101\r\n"),
            "the first of the offer: {answer}"
        );

        let mut c = Sound::new(rtp(6000), &["OPUS"]);
        assert_eq!(c.answer(offer.as_bytes()), None);
    }

    /// Who offers what, and whether they agree: not at all, without keys, with keys.
    #[test]
    fn keys_are_agreed_on_where_both_have_them() {
        let gcm = Sdes::optional().with_suites(&[CryptoSuite::AeadAes128Gcm]);
        let (must, may) = (Some(Sdes::mandatory()), Some(Sdes::optional()));
        for (offerer, answerer, want) in [
            (None, None, Some(false)),
            (None, may.clone(), Some(false)),
            (None, must.clone(), None),
            (may.clone(), None, Some(false)),
            (may.clone(), may.clone(), Some(true)),
            (may.clone(), must.clone(), Some(true)),
            (may.clone(), Some(gcm.clone()), Some(false)),
            (must.clone(), None, None),
            (must.clone(), Some(gcm), None),
            (must.clone(), may, Some(true)),
            (must, Some(Sdes::twilio()), Some(true)),
        ] {
            let rtp = |port| SocketAddr::from(([192, 0, 2, 1], port));
            let mut a = Sound::new(rtp(4000), &["PCMU"]).with_sdes(offerer.as_ref());
            let mut b = Sound::new(rtp(5000), &["PCMU"]).with_sdes(answerer.as_ref());
            let offer = a.offer();
            let answer = b.answer(offer.as_bytes());
            assert_eq!(answer.is_some(), want.is_some(), "{offerer:?} {answerer:?}");
            let Some(answer) = answer else { continue };
            assert!(a.accept(answer.as_bytes()), "{offer}{answer}");
            let [ours, theirs] = [a, b].map(|side| side.agreed.unwrap().keys);
            assert_eq!(ours.is_some(), want.unwrap());
            let crossed = theirs.map(|keys| Keys { send: keys.receive, receive: keys.send });
            assert_eq!(ours, crossed);
        }
    }
}
