//! RTP packets (RFC 3550 5.1): read, rewritten in place, and made.
//!
//! Owns: the header's fields and their wrapping arithmetic; the only file that names `rtp_rs`.
//! Never: decides where a packet goes.

use super::discard::Discard;
use rtp_rs::{RtpPacketBuilder, RtpReader};
use std::{ops::Range, time::Duration};

/// The longest packet that is relayed: more than an Ethernet frame holds. A reader's buffer needs one
/// byte more, to tell a packet that was cut.
pub const DATAGRAM_MAX: usize = 2048;
/// Fixed part of the header.
const HEADER_LEN: usize = 12;

/// A sequence number; later ones are greater modulo 2^16.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SequenceNumber(pub u16);

impl SequenceNumber {
    /// Returns how many packets this is after `other`; negative if it is before.
    pub(super) fn since(self, other: Self) -> i16 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// Returns the number that many packets later.
    pub(super) fn plus(self, packets: u16) -> Self {
        Self(self.0.wrapping_add(packets))
    }

    /// Returns the number after this.
    pub(super) fn next(self) -> Self {
        self.plus(1)
    }
}

/// A timestamp in units of the stream's clock; later ones are greater modulo 2^32.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Timestamp(pub u32);

impl Timestamp {
    /// Returns how many units this is after `other`; negative if it is before.
    pub(super) fn since(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// Returns the timestamp that many units later.
    pub(super) fn plus(self, units: u32) -> Self {
        Self(self.0.wrapping_add(units))
    }
}

/// Returns how many units of a clock pass in a time, modulo 2^32.
pub(super) fn units(elapsed: Duration, clock_rate_hz: u32) -> u32 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let units = micros.saturating_mul(clock_rate_hz.into()) / 1_000_000;
    (units & u64::from(u32::MAX)) as u32
}

/// A synchronization source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ssrc(pub u32);

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) sequence: SequenceNumber,
    pub(super) timestamp: Timestamp,
    pub(super) ssrc: Ssrc,
}

/// Reads the header, and where the payload begins and ends. Header extensions and contributing
/// sources are skipped, padding is left out.
pub(super) fn read(packet: &[u8]) -> Result<(Header, Range<usize>), Discard> {
    if packet.len() < HEADER_LEN {
        return Err(Discard::TooShort);
    }
    if packet.len() > DATAGRAM_MAX {
        return Err(Discard::TooLong);
    }
    let reader = RtpReader::new(packet).map_err(|_| Discard::NotRtp)?;
    let begin = reader.payload_offset();
    let end = packet.len().saturating_sub(reader.padding().unwrap_or(0).into());
    let header = Header {
        marker: reader.mark(),
        payload_type: reader.payload_type(),
        sequence: SequenceNumber(reader.sequence_number().into()),
        timestamp: Timestamp(reader.timestamp()),
        ssrc: Ssrc(reader.ssrc()),
    };
    Ok((header, begin..end))
}

/// Writes the header's fields over those of a packet that [`read`] accepted.
pub(super) fn rewrite(packet: &mut [u8], header: &Header) {
    let Some([_, kind, rest @ ..]) = packet.first_chunk_mut::<HEADER_LEN>() else {
        debug_assert!(false, "a packet without a header was accepted");
        return;
    };
    *kind = (u8::from(header.marker) << 7) | (header.payload_type & 0x7f);
    let [s1, s2] = header.sequence.0.to_be_bytes();
    let [t1, t2, t3, t4] = header.timestamp.0.to_be_bytes();
    let [i1, i2, i3, i4] = header.ssrc.0.to_be_bytes();
    *rest = [s1, s2, t1, t2, t3, t4, i1, i2, i3, i4];
}

/// Makes a packet and returns its length, which is 0 if it does not fit.
pub(super) fn build(header: &Header, payload: &[u8], buffer: &mut [u8]) -> usize {
    let built = RtpPacketBuilder::new()
        .marked(header.marker)
        .payload_type(header.payload_type & 0x7f)
        .sequence(header.sequence.0.into())
        .timestamp(header.timestamp.0)
        .ssrc(header.ssrc.0)
        .payload(payload)
        .build_into(buffer);
    debug_assert!(built.is_ok(), "{built:?}");
    built.unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet for the tests of this and the other modules.
    pub(in crate::media) fn packet(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; HEADER_LEN + payload.len()];
        let len = build(header, payload, &mut buffer);
        assert_eq!(len, buffer.len());
        buffer
    }

    pub(in crate::media) fn header(payload_type: u8, sequence: u16, timestamp: u32) -> Header {
        Header {
            marker: false,
            payload_type,
            sequence: SequenceNumber(sequence),
            timestamp: Timestamp(timestamp),
            ssrc: Ssrc(0xCAFE),
        }
    }

    proptest! {
        #[test]
        fn what_is_rewritten_reads_back(
            first in header_strategy(), second in header_strategy(), payload: Vec<u8>,
        ) {
            let mut bytes = packet(&first, &payload);
            let (read_first, range) = read(&bytes).unwrap();
            prop_assert_eq!(read_first, first);
            prop_assert_eq!(&bytes[range.clone()], &payload[..]);
            rewrite(&mut bytes, &second);
            prop_assert_eq!(read(&bytes).unwrap(), (second, range));
        }

        #[test]
        fn no_datagram_is_a_panic(mut bytes: Vec<u8>) {
            for first in [0x80, 0x90, 0xb0, 0xbf] {
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                if let Ok((header, range)) = read(&bytes) {
                    prop_assert!(bytes.get(range).is_some());
                    rewrite(&mut bytes, &header);
                }
            }
        }
    }

    prop_compose! {
        fn header_strategy()(
            marker: bool, payload_type in 0..128_u8, sequence: u16, timestamp: u32, ssrc: u32,
        ) -> Header {
            Header {
                marker,
                payload_type,
                sequence: SequenceNumber(sequence),
                timestamp: Timestamp(timestamp),
                ssrc: Ssrc(ssrc),
            }
        }
    }

    #[test]
    fn refuses_what_is_not_rtp() {
        let good = packet(&header(0, 1, 2), &[1, 2, 3, 4]);
        let with_first = |first: u8| [&[first], &good[1..]].concat();
        assert!(read(&good).is_ok());
        assert_eq!(read(&good[..11]), Err(Discard::TooShort));
        assert_eq!(read(&[0x80; DATAGRAM_MAX + 1]), Err(Discard::TooLong));
        assert_eq!(read(&with_first(0x00)), Err(Discard::NotRtp), "version 0 is STUN");
        assert_eq!(read(&with_first(0x8f)), Err(Discard::NotRtp), "15 sources do not fit");
        assert_eq!(read(&with_first(0x90)), Err(Discard::NotRtp), "the extension does not fit");
        assert_eq!(read(&with_first(0xa0)).unwrap().1, 12..12, "4 bytes of padding");
    }

    #[test]
    fn order_wraps() {
        assert_eq!(SequenceNumber(2).since(SequenceNumber(65_534)), 4);
        assert_eq!(SequenceNumber(65_534).since(SequenceNumber(2)), -4);
        assert_eq!(Timestamp(100).since(Timestamp(u32::MAX)), 101);
    }
}
