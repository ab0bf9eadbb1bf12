//! The packets of a stream: RTP with PCMU's 160 bytes, in which is written whose they are, which of
//! them and when they were sent, and a pattern that shows whether they arrive as they were sent.
//!
//! Owns: the layout. Never: a clock, a socket.

/// Bytes of a packet: 20 ms of PCMU.
pub const SIZE: usize = 172;
/// How far the RTP timestamp goes on per packet.
pub const TICKS: u32 = 160;
/// How often a stream sends, in ns.
pub const PERIOD_NS: u64 = 20_000_000;
const HEADER: usize = 12;
const PAYLOAD_TYPE: u8 = 0;
/// Where the pattern starts, behind the header and what is written in the payload.
const PATTERN_AT: usize = HEADER + 24;
const PATTERN_LEN: usize = SIZE - PATTERN_AT;
/// Each stream's pattern starts at another place of this.
const PATTERN: [u8; PATTERN_LEN + 256] = pattern();

/// What is written in a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Of which run: packets of an earlier one are strangers.
    pub run: u32,
    /// Of which stream.
    pub stream: u32,
    /// The how many-th, from zero.
    pub seq: u32,
    /// When it was sent, in ns since 1970.
    pub sent_ns: u64,
}

/// The header as it arrived: a relay may have made it anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The sequence number.
    pub seq: u16,
    /// The timestamp.
    pub time: u32,
    /// The source.
    pub ssrc: u32,
}

/// Why something that arrived is not a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// RTCP, which a relay may send as well.
    Rtcp,
    /// Of another run, or no RTP at all.
    Foreign,
    /// Ours, and not as it was sent.
    Damaged,
}

/// Writes a packet.
pub fn write(packet: &mut [u8; SIZE], header: Header, stamp: Stamp) {
    packet[0] = 0x80;
    packet[1] = PAYLOAD_TYPE;
    packet[2..4].copy_from_slice(&header.seq.to_be_bytes());
    packet[4..8].copy_from_slice(&header.time.to_be_bytes());
    packet[8..12].copy_from_slice(&header.ssrc.to_be_bytes());
    packet[12..16].copy_from_slice(&stamp.run.to_be_bytes());
    packet[16..20].copy_from_slice(&stamp.stream.to_be_bytes());
    packet[20..24].copy_from_slice(&stamp.seq.to_be_bytes());
    packet[24..32].copy_from_slice(&stamp.sent_ns.to_be_bytes());
    packet[32..36].copy_from_slice(&check(stamp).to_be_bytes());
    packet[PATTERN_AT..].copy_from_slice(pattern_of(stamp.stream));
}

/// Reads one of this run.
///
/// # Errors
/// What it is otherwise.
pub fn read(packet: &[u8], run: u32) -> Result<(Header, Stamp), Flaw> {
    if packet.len() < HEADER || packet[0] >> 6 != 2 {
        return Err(Flaw::Foreign);
    }
    if (192..=223).contains(&packet[1]) {
        return Err(Flaw::Rtcp);
    }
    if packet.len() < 16 || word(packet, 12) != run {
        return Err(Flaw::Foreign);
    }
    if packet.len() != SIZE || packet[0] != 0x80 || packet[1] & 0x7f != PAYLOAD_TYPE {
        return Err(Flaw::Damaged);
    }
    let header = Header {
        seq: u16::from_be_bytes([packet[2], packet[3]]),
        time: word(packet, 4),
        ssrc: word(packet, 8),
    };
    let sent_ns = u64::from(word(packet, 24)) << 32 | u64::from(word(packet, 28));
    let stamp = Stamp { run, stream: word(packet, 16), seq: word(packet, 20), sent_ns };
    let is_whole =
        word(packet, 32) == check(stamp) && packet[PATTERN_AT..] == *pattern_of(stamp.stream);
    if is_whole { Ok((header, stamp)) } else { Err(Flaw::Damaged) }
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// Guards the numbers; the pattern guards itself.
fn check(stamp: Stamp) -> u32 {
    let numbers = u64::from(stamp.stream) << 32 | u64::from(stamp.seq);
    let mixed = (numbers ^ stamp.sent_ns.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32 ^ stamp.run
}

fn pattern_of(stream: u32) -> &'static [u8] {
    let at = (stream % 256) as usize;
    &PATTERN[at..at + PATTERN_LEN]
}

const fn pattern() -> [u8; PATTERN_LEN + 256] {
    let mut bytes = [0; PATTERN_LEN + 256];
    let mut state: u32 = 0x2545_f491;
    let mut at = 0;
    while at < bytes.len() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[at] = (state >> 11) as u8;
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 77, stream: 300, seq: 5, sent_ns: 1_700_000_000_123_456_789 };
    const HEADER_SENT: Header = Header { seq: 65_535, time: 800, ssrc: 0xdead_beef };

    fn packet() -> [u8; SIZE] {
        let mut packet = [0; SIZE];
        write(&mut packet, HEADER_SENT, STAMP);
        packet
    }

    #[test]
    fn what_was_written_is_read_and_a_relay_may_make_the_header_anew() {
        let mut sent = packet();
        assert_eq!(read(&sent, 77), Ok((HEADER_SENT, STAMP)));
        sent[1] |= 0x80;
        sent[2..12].fill(9);
        let (header, stamp) = read(&sent, 77).unwrap();
        assert_eq!((header.seq, header.ssrc, stamp), (0x0909, 0x0909_0909, STAMP));
    }

    #[test]
    fn any_changed_byte_of_the_payload_shows() {
        for at in 16..SIZE {
            let mut sent = packet();
            sent[at] ^= 1;
            assert_eq!(read(&sent, 77), Err(Flaw::Damaged), "byte {at}");
        }
        assert_eq!(read(&packet()[..SIZE - 1], 77), Err(Flaw::Damaged), "cut");
        let mut sent = packet();
        sent[1] = 8;
        assert_eq!(read(&sent, 77), Err(Flaw::Damaged), "as another codec");
    }

    #[test]
    fn strangers_and_rtcp_are_known() {
        assert_eq!(read(&packet(), 78), Err(Flaw::Foreign));
        assert_eq!(read(b"OPTIONS", 77), Err(Flaw::Foreign));
        assert_eq!(read(&[], 77), Err(Flaw::Foreign));
        let report = [0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&report, 77), Err(Flaw::Rtcp));
    }
}
