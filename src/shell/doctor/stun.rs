//! How the world sees an address of ours (RFC 8489): one question, one answer.
//!
//! Owns: the Binding request and the mapped address in its answer.
//! Never: authenticates, or keeps anything open.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};

const COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// How often a question is sent again, and how long each waits (RFC 8489 6.2.1 begins with 500 ms).
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_millis(500);

/// Asks a server how it sees `socket`.
pub(super) async fn mapped(
    socket: &UdpSocket,
    server: SocketAddr,
    transaction: [u8; 12],
) -> io::Result<SocketAddr> {
    let request = request(transaction);
    let mut buffer = [0; 1500];
    for _ in 0..TRIES {
        socket.send_to(&request, server).await?;
        let answer = timeout(WAIT, async {
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await?;
                let found = buffer.get(..len).and_then(|bytes| read(bytes, transaction));
                if let (true, Some(mapped)) = (from == server, found) {
                    return Ok::<_, io::Error>(mapped);
                }
            }
        });
        if let Ok(mapped) = answer.await {
            return mapped;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn request(transaction: [u8; 12]) -> Vec<u8> {
    let mut bytes = BINDING_REQUEST.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(COOKIE.to_be_bytes());
    bytes.extend(transaction);
    bytes
}

/// Reads the mapped address of a Binding success (RFC 8489 14.1, 14.2).
fn read(bytes: &[u8], transaction: [u8; 12]) -> Option<SocketAddr> {
    let (head, attributes) = bytes.split_at_checked(20)?;
    let is_ours = head.get(4..8)? == COOKIE.to_be_bytes() && head.get(8..)? == transaction;
    if number(head)? != BINDING_SUCCESS || !is_ours {
        return None;
    }
    let mut plain = None;
    let mut rest = attributes;
    while let Some((attribute, after)) = rest.split_at_checked(4) {
        let (kind, len) = (number(attribute)?, usize::from(number(attribute.get(2..)?)?));
        let value = after.get(..len)?;
        match kind {
            XOR_MAPPED_ADDRESS => return address(value, &mask(transaction)),
            MAPPED_ADDRESS => plain = address(value, &[0; 16]),
            _ => {}
        }
        rest = after.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    plain
}

/// The magic cookie, then the transaction: what addresses are hidden with from meddling NATs.
fn mask(transaction: [u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    let bytes = COOKIE.to_be_bytes().into_iter().chain(transaction);
    mask.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    mask
}

fn address(value: &[u8], mask: &[u8; 16]) -> Option<SocketAddr> {
    let family = *value.get(1)?;
    let port = number(value.get(2..)?)? ^ number(mask)?;
    let mut octets = value.get(4..)?.iter().zip(mask).map(|(byte, mask)| byte ^ mask);
    let ip = match (family, value.len()) {
        (1, 8) => {
            let mut v4 = [0; 4];
            v4.iter_mut().try_for_each(|to| octets.next().map(|from| *to = from))?;
            IpAddr::from(Ipv4Addr::from(v4))
        }
        (2, 20) => {
            let mut v6 = [0; 16];
            v6.iter_mut().try_for_each(|to| octets.next().map(|from| *to = from))?;
            IpAddr::from(Ipv6Addr::from(v6))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The first two bytes as a number.
fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[expect(clippy::arithmetic_side_effects, reason = "a few bytes of our own")]
    /// Answers a Binding request as a server does that sees it from `seen`.
    pub(in crate::shell::doctor) fn answer(request: &[u8], seen: SocketAddr) -> Vec<u8> {
        let mask = mask(request[8..20].try_into().unwrap());
        let octets = match seen.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut value = vec![0, if octets.len() == 4 { 1 } else { 2 }];
        value.extend((seen.port() ^ number(&mask).unwrap()).to_be_bytes());
        value.extend(octets.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        let mut bytes = BINDING_SUCCESS.to_be_bytes().to_vec();
        let software = [0x80, 0x22, 0, 3, b'x', b'y', b'z', 0];
        bytes.extend(((software.len() + 4 + value.len()) as u16).to_be_bytes());
        bytes.extend(&request[4..20]);
        bytes.extend(software);
        bytes.extend(XOR_MAPPED_ADDRESS.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
        bytes
    }

    /// RFC 5769 2.2 and 2.3: the address is 192.0.2.1:32853, and its like in IPv6.
    #[test]
    fn the_vectors_of_rfc_5769_read() {
        let transaction: [u8; 12] = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
        let mut v4 = b"\x01\x01\x00\x0c\x21\x12\xa4\x42".to_vec();
        v4.extend(transaction);
        v4.extend(b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
        assert_eq!(read(&v4, transaction), Some("192.0.2.1:32853".parse().unwrap()));
        let mut v6 = b"\x01\x01\x00\x18\x21\x12\xa4\x42".to_vec();
        v6.extend(transaction);
        v6.extend(b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79");
        v6.extend(b"\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9");
        let want = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(read(&v6, transaction), Some(want));
    }

    #[test]
    fn what_is_no_answer_to_our_question_is_none() {
        let transaction = [7; 12];
        let seen = "203.0.113.7:4711".parse().unwrap();
        let good = answer(&request(transaction), seen);
        assert_eq!(read(&good, transaction), Some(seen));
        assert_eq!(read(&good, [8; 12]), None);
        for len in 0..good.len() {
            assert_eq!(read(&good[..len], transaction), None, "{len} bytes");
        }
        assert_eq!(read(&request(transaction), transaction), None);
    }
}
