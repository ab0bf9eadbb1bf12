//! The media of the trunk's calls, and what is judged by it.
//!
//! Owns: where the far ends listen, and the rules about packets and handshakes.
//! Never: sees a packet: whoever runs the trunk tells.

use super::{
    super::{sdes::Sdes, sound::Sound},
    CallNumber, Event, FarEnd, PRIVATE, Rule, Stage, Twilio,
    numbers::Then,
};
use crate::ids::Flow;
use std::{net::SocketAddr, time::Instant};

/// Packets with this IP TTL, or less, are dropped.
const TTL_TOO_LOW: u8 = 10;
/// Comfort noise, which belongs to no codec (RFC 3389).
const COMFORT_NOISE: u8 = 13;
/// The first dynamic payload type (RFC 3551 6); telephone-event has one of those.
const DYNAMIC: u8 = 96;

/// An RTP packet that came for a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// From where.
    pub source: SocketAddr,
    /// The IP TTL with which it came, where that is known.
    pub ttl: Option<u8>,
    /// What it says it is.
    pub payload_type: u8,
}

impl Twilio {
    /// Gives a call its RTP address.
    pub fn media_at(&mut self, call: CallNumber, rtp: SocketAddr, now: Instant) {
        let Some(index) = self.index(call) else { return };
        self.calls[index].sound = Some(self.sound(rtp));
        match self.calls[index].stage {
            Stage::Trying => self.begin(index, now),
            Stage::Calling => self.send_invite(index, now),
            Stage::Answered | Stage::Cancelling | Stage::Up | Stage::Leaving | Stage::Over => {}
        }
    }

    /// Judges an RTP packet for a call; returns whether it is taken. A packet that is not is dropped
    /// without a word, and noted once per call.
    pub fn rtp_arrives(&mut self, call: CallNumber, packet: Packet) -> bool {
        let Some(index) = self.index(call) else { return false };
        let Packet { source, ttl, payload_type } = packet;
        let agreed = self.calls[index].sound.as_ref().and_then(|sound| sound.agreed.as_ref());
        let Some(agreed) = agreed else { return false };
        let fault = if ttl.is_some_and(|ttl| ttl <= TTL_TOO_LOW) {
            Some((Rule::MediaTtl, format!("a packet with TTL {}", ttl.unwrap_or_default())))
        } else if source != agreed.remote && !self.setup.policy.symmetric {
            let evidence = format!("a packet from {source}, SDP says {}", agreed.remote);
            Some((Rule::MediaSource, evidence))
        } else if payload_type < DYNAMIC
            && payload_type != agreed.payload_type
            && payload_type != COMFORT_NOISE
        {
            let evidence =
                format!("payload type {payload_type}, {} was answered", agreed.payload_type);
            Some((Rule::MediaCodec, evidence))
        } else {
            None
        };
        let is_taken = fault.is_none();
        if let Some((rule, evidence)) = fault
            && self.calls[index].complained.insert(rule)
        {
            self.deviate(rule, evidence);
        }
        is_taken
    }

    /// Learns of a TLS handshake, and of the name that it asked for.
    pub fn tls_arrives(&mut self, flow: Flow, server_name: Option<&str>) {
        if server_name.is_none_or(|name| name.parse::<std::net::IpAddr>().is_ok()) {
            let asked = server_name.unwrap_or("no name");
            self.deviate(
                Rule::SniIsName,
                format!("TLS from {} asked for {asked}", flow.remote.ip()),
            );
        }
    }

    /// Learns of a TLS handshake that failed, and why.
    pub fn tls_failed(&mut self, flow: Flow, why: &str) {
        self.deviate(Rule::TlsVersion, format!("TLS from {}: {why}", flow.remote.ip()));
    }

    pub(super) fn first_sound(&self, number: CallNumber) -> Option<Sound> {
        let port = 10_000 + u16::try_from(number.0 % 20_000).unwrap_or(0) * 2;
        self.setup.media.map(|ip| self.sound(SocketAddr::new(ip, port)))
    }

    fn sound(&self, rtp: SocketAddr) -> Sound {
        let mut sound = Sound::new(rtp, &["PCMU", "PCMA", "TELEPHONE-EVENT"]);
        sound.origin = Some(PRIVATE.into());
        sound.is_terse = true;
        sound.with_sdes(self.setup.policy.secure.then(Sdes::twilio).as_ref())
    }

    /// Tells that the far end may speak and listen.
    pub(super) fn start_media(&mut self, index: usize) {
        let call = &mut self.calls[index];
        if matches!(call.far_end, FarEnd::Answers { then: Then::IsMute, .. }) {
            return;
        }
        let Some(sound) = &call.sound else { return };
        let Some(agreed) = &sound.agreed else { return };
        call.is_sounding = true;
        call.stream = call.stream.max(1);
        let (agreed, stream) = (agreed.clone(), call.stream);
        self.events.push_back(Event::MediaStart { call: call.number, agreed, stream });
    }

    /// What the far end says next is another stream: its SSRC and its port change.
    pub(super) fn change_stream(&mut self, index: usize) {
        let call = &mut self.calls[index];
        call.stream += u32::from(call.is_sounding);
    }
}
