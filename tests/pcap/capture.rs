//! Reads what tshark writes on a loopback interface: classic pcap, IPv4 and IPv6, UDP and TCP.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};
use tandem::{
    ids::Transport,
    sip::framing::{Frame, Framer},
};

/// Microseconds, written by a little-endian machine.
const MAGIC: u32 = 0xa1b2_c3d4;
const UDP: u8 = 17;
const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// One SIP message, or the end of a connection.
pub(crate) struct Packet {
    /// From the first packet of the capture.
    pub(crate) at_ms: u64,
    pub(crate) transport: Transport,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) what: What,
}

pub(crate) enum What {
    Message(Bytes),
    Closed,
}

/// Returns what a capture holds, in order.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Packet>, &'static str> {
    let mut rest = Reader(file);
    if rest.little_u32()? != MAGIC {
        return Err("not a classic little-endian pcap in microseconds");
    }
    rest.take(16)?;
    let link = Link::parse(rest.little_u32()?)?;
    let mut streams = BTreeMap::new();
    let mut packets = vec![];
    let mut start_us = None;
    while !rest.0.is_empty() {
        let at_us = u64::from(rest.little_u32()?) * 1_000_000 + u64::from(rest.little_u32()?);
        let kept = rest.little_u32()?;
        if rest.little_u32()? != kept {
            return Err("a packet is cut off");
        }
        let frame = Reader(rest.take(kept as usize)?);
        let at_ms = (at_us - *start_us.get_or_insert(at_us)) / 1000;
        segment(link.packet(frame)?, at_ms, &mut streams, &mut packets)?;
    }
    Ok(packets)
}

/// What stands before the IP header.
#[derive(Clone, Copy)]
enum Link {
    Ethernet,
    Null,
    Raw,
    Cooked,
}

impl Link {
    fn parse(number: u32) -> Result<Self, &'static str> {
        match number {
            0 => Ok(Self::Null),
            1 => Ok(Self::Ethernet),
            101 => Ok(Self::Raw),
            113 => Ok(Self::Cooked),
            _ => Err("an unknown link type"),
        }
    }

    fn packet(self, mut frame: Reader<'_>) -> Result<Reader<'_>, &'static str> {
        frame.take(match self {
            Self::Ethernet => 14,
            Self::Null => 4,
            Self::Raw => 0,
            Self::Cooked => 16,
        })?;
        Ok(frame)
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    next: Option<u32>,
    framer: Framer,
}

type Streams = BTreeMap<(SocketAddr, SocketAddr), Stream>;

/// Reads one IP packet.
fn segment(
    mut ip: Reader<'_>,
    at_ms: u64,
    streams: &mut Streams,
    packets: &mut Vec<Packet>,
) -> Result<(), &'static str> {
    let (protocol, from, to, mut body) = addresses(&mut ip)?;
    let (from_port, to_port) = (body.big_u16()?, body.big_u16()?);
    let (from, to) = (SocketAddr::new(from, from_port), SocketAddr::new(to, to_port));
    let mut push = |transport, what| packets.push(Packet { at_ms, transport, from, to, what });
    match protocol {
        UDP => {
            body.take(4)?;
            push(Transport::Udp, What::Message(Bytes::copy_from_slice(body.0)));
        }
        TCP => {
            let stream = streams.entry((from, to)).or_default();
            let flags = stream.take(body)?;
            while let Some(frame) = stream.framer.next() {
                match frame {
                    Frame::Message(bytes) => push(Transport::Tcp, What::Message(bytes)),
                    Frame::Ping | Frame::Pong => {}
                    Frame::Broken => return Err("a stream that is not SIP"),
                }
            }
            if flags & (FIN | RST) != 0 {
                streams.remove(&(from, to));
                push(Transport::Tcp, What::Closed);
            }
        }
        _ => return Err("neither UDP nor TCP"),
    }
    Ok(())
}

/// Returns the protocol, the two addresses and what is in the IP packet, without padding.
fn addresses<'a>(ip: &mut Reader<'a>) -> Result<(u8, IpAddr, IpAddr, Reader<'a>), &'static str> {
    match ip.byte(0)? >> 4 {
        4 => {
            let header = usize::from(ip.byte(0)? & 15) * 4;
            let mut whole = Reader(ip.take(usize::from(ip.big_u16_at(2)?))?);
            if whole.big_u16_at(6)? & 0x3fff != 0 {
                return Err("a fragment");
            }
            let mut head = Reader(whole.take(header)?);
            let protocol = head.byte(9)?;
            head.take(12)?;
            Ok((protocol, head.ip::<4>()?, head.ip::<4>()?, whole))
        }
        6 => {
            let mut head = Reader(ip.take(40)?);
            let (length, protocol) = (head.big_u16_at(4)?, head.byte(6)?);
            head.take(8)?;
            let body = Reader(ip.take(usize::from(length))?);
            Ok((protocol, head.ip::<16>()?, head.ip::<16>()?, body))
        }
        _ => Err("not IP"),
    }
}

impl Stream {
    /// Takes one segment, which must be the next one or one that was there already.
    fn take(&mut self, mut segment: Reader<'_>) -> Result<u8, &'static str> {
        let sequence = u32::from(segment.big_u16()?) << 16 | u32::from(segment.big_u16()?);
        segment.take(4)?;
        let header = usize::from(segment.byte(0)? >> 4) * 4;
        let flags = segment.byte(1)?;
        segment.take(header - 12)?;
        let begins = sequence.wrapping_add(u32::from(flags & SYN != 0));
        let next = *self.next.get_or_insert(begins);
        if next == begins {
            self.framer.push(segment.0);
            self.next = Some(begins.wrapping_add(segment.0.len() as u32));
        } else if begins.wrapping_sub(next) < 1 << 31 {
            return Err("a segment is missing");
        }
        Ok(flags)
    }
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a packet is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| "a packet is too short")
    }

    fn byte(&self, at: usize) -> Result<u8, &'static str> {
        self.0.get(at).copied().ok_or("a packet is too short")
    }

    fn big_u16_at(&self, at: usize) -> Result<u16, &'static str> {
        Ok(u16::from_be_bytes([self.byte(at)?, self.byte(at + 1)?]))
    }

    fn big_u16(&mut self) -> Result<u16, &'static str> {
        self.array().map(u16::from_be_bytes)
    }

    fn little_u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    fn ip<const N: usize>(&mut self) -> Result<IpAddr, &'static str>
    where
        IpAddr: From<[u8; N]>,
    {
        self.array::<N>().map(IpAddr::from)
    }
}

#[test]
fn every_link_type_reads_the_same() {
    let ethernet = example();
    let want: Vec<u64> = read(&ethernet).expect("a capture").iter().map(|p| p.at_ms).collect();
    for (number, header) in [(0, 4), (101, 0), (113, 16)] {
        let mut file = ethernet[..20].to_vec();
        file.extend_from_slice(&u32::to_le_bytes(number));
        let mut rest = Reader(&ethernet[24..]);
        while !rest.0.is_empty() {
            file.extend_from_slice(rest.take(8).expect("a time"));
            let length = rest.little_u32().expect("a length");
            rest.take(4).expect("a length");
            let frame = rest.take(length as usize).expect("a frame");
            file.extend_from_slice(&[(length - 14 + header).to_le_bytes(); 2].concat());
            file.extend_from_slice(&vec![0; header as usize]);
            file.extend_from_slice(&frame[14..]);
        }
        let got = read(&file).unwrap_or_else(|problem| panic!("link type {number}: {problem}"));
        assert!(got.iter().map(|packet| packet.at_ms).eq(want.iter().copied()), "{number}");
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    let good = example();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        read(&bad).err()
    };
    assert_eq!(read(&good[..10]).err(), Some("a packet is too short"));
    assert_eq!(read(&good[..good.len() - 1]).err(), Some("a packet is too short"));
    assert_eq!(with(0, 0x0a), Some("not a classic little-endian pcap in microseconds"));
    assert_eq!(with(20, 99), Some("an unknown link type"));
    assert_eq!(with(32, 1), Some("a packet is cut off"));
    assert_eq!(with(24 + 16 + 14, 0x55), Some("not IP"));
    assert_eq!(with(24 + 16 + 14 + 6, 0x20), Some("a fragment"));
    assert_eq!(with(24 + 16 + 14 + 9, 1), Some("neither UDP nor TCP"));
}

fn example() -> Vec<u8> {
    std::fs::read(crate::folder().join("old-baresip-calls-by-tcp.pcap")).expect("a capture")
}
