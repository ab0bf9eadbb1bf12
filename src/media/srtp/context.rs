//! What has to be remembered from packet to packet, in each direction.
//!
//! Owns: the sources of a key and their indices; the key before, until the new one is heard.
//! Never: computes a cipher.

use super::{
    cipher::{Cipher, RTCP_HEADER_LEN, TRAILER_MAX},
    suite::MasterKey,
    window::{Window, guess},
};

/// The fixed part of an RTP header.
const RTP_HEADER_LEN: usize = 12;
/// As many sources of one key are remembered; the one that was silent longest goes first. A peer has
/// one, and another whenever it starts anew.
const SOURCES_MAX: usize = 8;
/// The longest packet that can be tried with several keys.
const PACKET_MAX: usize = 2048 + TRAILER_MAX + u8::MAX as usize;
/// An RTCP packet's index has 31 bits.
const RTCP_INDEX_MAX: u32 = (1 << 31) - 1;

/// Why a packet stays shut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shut {
    /// It is shorter than its header and tag, or no packet at all.
    Malformed,
    /// Its tag is not right: it is forged, damaged, plain, or of another key.
    Unauthentic,
    /// It was here before, or is too old to tell.
    Replayed,
    /// The key has protected as many packets as it may, or the buffer is too small.
    Exhausted,
}

/// Where an RTP packet's payload begins, and what its index follows from.
#[derive(Clone, Copy)]
struct RtpHeader {
    len: usize,
    sequence: u16,
    ssrc: u32,
}

impl RtpHeader {
    /// Reads as much of the header as stays readable: RFC 3711 3.1.
    fn read(packet: &[u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_at_checked(RTP_HEADER_LEN)?;
        let [first, _, n0, n1, _, _, _, _, s0, s1, s2, s3] = *fixed else { return None };
        if first >> 6 != 2 {
            return None;
        }
        let sources_len = usize::from(first & 0x0f).saturating_mul(4);
        let mut len = RTP_HEADER_LEN.saturating_add(sources_len);
        if first & 0x10 != 0 {
            let extension = rest.get(sources_len..)?.get(..4)?;
            let [_, _, l0, l1] = *extension else { return None };
            let words = usize::from(u16::from_be_bytes([l0, l1]));
            len = len.saturating_add(4).saturating_add(words.saturating_mul(4));
        }
        let (sequence, ssrc) = (u16::from_be_bytes([n0, n1]), u32::from_be_bytes([s0, s1, s2, s3]));
        (len <= packet.len()).then_some(Self { len, sequence, ssrc })
    }
}

/// Reads the source of an RTCP packet, which is at the same place in all of them.
fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let [first, _, _, _, s0, s1, s2, s3] = *packet.get(..RTCP_HEADER_LEN)? else { return None };
    (first >> 6 == 2).then_some(u32::from_be_bytes([s0, s1, s2, s3]))
}

/// What we send under one key.
#[derive(Debug)]
pub struct Sender {
    rtp: Cipher,
    rtcp: Cipher,
    /// The source, and the highest index that it has used.
    source: Option<(u32, u64)>,
    rtcp_index: u32,
}

impl Sender {
    /// Starts with a key.
    pub fn new(key: &MasterKey) -> Option<Self> {
        let (rtp, rtcp) = (Cipher::rtp(key)?, Cipher::rtcp(key)?);
        Some(Self { rtp, rtcp, source: None, rtcp_index: 0 })
    }

    /// Returns whether sequence numbers have begun again under this key. Peers disagree whether a new
    /// key takes the counter over, so that what follows had better be a new source.
    pub fn has_rolled_over(&self) -> bool {
        self.source.is_some_and(|(_, highest)| highest > u64::from(u16::MAX))
    }

    /// Protects the RTP packet in `buffer[..len]`, which needs room for [`TRAILER_MAX`] more; returns
    /// the new length.
    pub fn protect_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Shut> {
        let packet = buffer.get(..len).ok_or(Shut::Malformed)?;
        let header = RtpHeader::read(packet).ok_or(Shut::Malformed)?;
        let before = self.source.filter(|(ssrc, _)| *ssrc == header.ssrc);
        let index = before.map_or(header.sequence.into(), |(_, at)| guess(at, header.sequence));
        let at = (header.len, len);
        let sealed = self.rtp.seal_rtp(buffer, at, header.ssrc, index).ok_or(Shut::Exhausted)?;
        let highest = before.map_or(index, |(_, highest)| highest.max(index));
        self.source = Some((header.ssrc, highest));
        Ok(sealed)
    }

    /// Protects the compound RTCP packet in `buffer[..len]`, likewise.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Shut> {
        let ssrc = buffer.get(..len).and_then(rtcp_ssrc).ok_or(Shut::Malformed)?;
        let index = self.rtcp_index;
        if index == RTCP_INDEX_MAX {
            return Err(Shut::Exhausted);
        }
        let sealed = self.rtcp.seal_rtcp(buffer, len, ssrc, index).ok_or(Shut::Exhausted)?;
        self.rtcp_index = index.saturating_add(1);
        Ok(sealed)
    }
}

/// The sources of one key, the latest heard last.
#[derive(Debug)]
struct Sources(Vec<(u32, Window)>);

impl Sources {
    fn new() -> Self {
        Self(Vec::with_capacity(SOURCES_MAX))
    }

    fn find(&self, ssrc: u32) -> Option<&Window> {
        self.0.iter().rev().find(|(known, _)| *known == ssrc).map(|(_, window)| window)
    }

    fn note(&mut self, ssrc: u32, index: u64) {
        if let Some(at) = self.0.iter().rposition(|(known, _)| *known == ssrc) {
            if let Some(later) = self.0.get_mut(at..) {
                later.rotate_left(1);
            }
            if let Some((_, window)) = self.0.last_mut() {
                window.note(index);
            }
            return;
        }
        if self.0.len() == SOURCES_MAX {
            self.0.remove(0);
        }
        self.0.push((ssrc, Window::new(index)));
    }
}

/// What comes under one key.
#[derive(Debug)]
struct Context {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_sources: Sources,
    rtcp_sources: Sources,
}

impl Context {
    fn new(key: &MasterKey) -> Option<Self> {
        Some(Self {
            rtp: Cipher::rtp(key)?,
            rtcp: Cipher::rtcp(key)?,
            rtp_sources: Sources::new(),
            rtcp_sources: Sources::new(),
        })
    }

    /// Opens an RTP packet. `kept` is an index of the same source from before the key: some peers take
    /// their rollover counter over to a new key.
    fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header: RtpHeader,
        kept: Option<u64>,
    ) -> Result<usize, Shut> {
        let RtpHeader { len, sequence, ssrc } = header;
        let window = self.rtp_sources.find(ssrc);
        let index = match (window, kept) {
            (Some(window), _) => guess(window.highest, sequence),
            (None, Some(kept)) => guess(kept, sequence),
            (None, None) => sequence.into(),
        };
        if window.is_some_and(|window| !window.is_new(index)) {
            return Err(Shut::Replayed);
        }
        let opened = self.rtp.open_rtp(packet, len, ssrc, index).ok_or(Shut::Unauthentic)?;
        self.rtp_sources.note(ssrc, index);
        Ok(opened)
    }

    fn open_rtcp(&mut self, packet: &mut [u8], ssrc: u32) -> Result<usize, Shut> {
        let word = self.rtcp.rtcp_word(packet).ok_or(Shut::Malformed)?;
        let index = u64::from(word & RTCP_INDEX_MAX);
        if self.rtcp_sources.find(ssrc).is_some_and(|window| !window.is_new(index)) {
            return Err(Shut::Replayed);
        }
        let opened = self.rtcp.open_rtcp(packet, ssrc, word).ok_or(Shut::Unauthentic)?;
        self.rtcp_sources.note(ssrc, index);
        Ok(opened)
    }
}

/// What comes from a peer, under its key; for a while after a new key, under the one before as well.
#[derive(Debug)]
pub struct Receiver {
    current: Context,
    former: Option<Box<Context>>,
}

impl Receiver {
    /// Starts with a key.
    pub fn new(key: &MasterKey) -> Option<Self> {
        Some(Self { current: Context::new(key)?, former: None })
    }

    /// Goes on with a new key. Packets of the old one are taken until the first of the new one comes:
    /// those that are under way when an offer is answered (RFC 4568 7.1.4).
    #[must_use]
    pub fn rekeyed(self, key: &MasterKey) -> Option<Self> {
        let is_unheard = self.current.rtp_sources.0.is_empty();
        let former = self.former.filter(|_| is_unheard);
        let former = former.unwrap_or_else(|| Box::new(self.current));
        Some(Self { current: Context::new(key)?, former: Some(former) })
    }

    /// Opens an RTP packet; returns its length without what protected it.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Shut> {
        let header = RtpHeader::read(packet).ok_or(Shut::Malformed)?;
        let Some(former) = &mut self.former else {
            return self.current.open_rtp(packet, header, None);
        };
        let kept = former.rtp_sources.find(header.ssrc).map(|window| window.highest);
        let spare = Spare::of(packet, self.current.rtp.keeps_on_failure())?;
        let mut opened = self.current.open_rtp(packet, header, None);
        if opened == Err(Shut::Unauthentic) && kept.is_some() {
            spare.restore(packet);
            opened = self.current.open_rtp(packet, header, kept);
        }
        if opened == Err(Shut::Unauthentic) {
            spare.restore(packet);
            return former.open_rtp(packet, header, None);
        }
        if opened.is_ok() {
            self.former = None;
        }
        opened
    }

    /// Opens a compound RTCP packet; returns its length without what protected it.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Shut> {
        let ssrc = rtcp_ssrc(packet).ok_or(Shut::Malformed)?;
        let Some(former) = &mut self.former else { return self.current.open_rtcp(packet, ssrc) };
        let spare = Spare::of(packet, self.current.rtcp.keeps_on_failure())?;
        self.current.open_rtcp(packet, ssrc).or_else(|_| {
            spare.restore(packet);
            former.open_rtcp(packet, ssrc)
        })
    }
}

/// A copy of a packet, where a failed attempt to open it destroys it.
struct Spare {
    bytes: [u8; PACKET_MAX],
    is_needed: bool,
}

impl Spare {
    fn of(packet: &[u8], keeps: bool) -> Result<Self, Shut> {
        let mut bytes = [0; PACKET_MAX];
        if !keeps {
            bytes.get_mut(..packet.len()).ok_or(Shut::Malformed)?.copy_from_slice(packet);
        }
        Ok(Self { bytes, is_needed: !keeps })
    }

    fn restore(&self, packet: &mut [u8]) {
        if let Some(bytes) = self.bytes.get(..packet.len()).filter(|_| self.is_needed) {
            packet.copy_from_slice(bytes);
        }
    }
}
