//! The generator's RTP sockets, and what arrives on them, with the kernel's stamp of when.
//!
//! Owns: sockets, buffers. Never: knows what a packet means.

use anyhow::{Context, Result};
use nix::{
    cmsg_space,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, setsockopt,
            sockopt::{RcvBuf, RcvBufForce, ReceiveTimestampns},
        },
        time::TimeSpec,
    },
};
use std::{
    collections::BTreeSet,
    fs,
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

/// Packets taken by one system call.
const BATCH: usize = 16;
/// Room for a packet; ours are smaller.
const ROOM: usize = 512;
/// Room for what arrives between two visits, at 1 KB of the kernel's memory a packet.
const RECEIVE_BYTES: usize = 1 << 20;
/// Where ports are looked for.
const PORT_FIRST: u16 = 2_000;

/// A socket for RTP, and one at the next port that takes RTCP and lets it lie.
#[derive(Debug)]
pub struct RtpSocket {
    /// Does not block.
    pub rtp: UdpSocket,
    _rtcp: UdpSocket,
    /// The port of `rtp`, an even one.
    pub port: u16,
}

/// Opens sockets on one address.
#[derive(Clone, Copy, Debug)]
pub struct Opener {
    ip: Ipv4Addr,
    next: u16,
}

impl Opener {
    /// On this address.
    pub fn new(ip: Ipv4Addr) -> Self {
        Self { ip, next: PORT_FIRST }
    }

    /// Opens the next one.
    ///
    /// # Errors
    /// If there is no free pair of ports, or no file descriptor.
    pub fn open(&mut self) -> Result<RtpSocket> {
        while let Some(after) = self.next.checked_add(2) {
            let port = self.next;
            self.next = after;
            let bind = |port| UdpSocket::bind((self.ip, port));
            let (rtp, rtcp) = match (bind(port), bind(port + 1)) {
                (Ok(rtp), Ok(rtcp)) => (rtp, rtcp),
                (Err(error), _) | (_, Err(error)) => {
                    // Somebody else's port: the next one.
                    if error.kind() == std::io::ErrorKind::AddrInUse {
                        continue;
                    }
                    return Err(error).with_context(|| format!("port {port} on {}", self.ip));
                }
            };
            rtp.set_nonblocking(true)?;
            setsockopt(&rtp, ReceiveTimestampns, &true)?;
            // Beyond the system's limit where we may.
            if setsockopt(&rtp, RcvBufForce, &RECEIVE_BYTES).is_err() {
                setsockopt(&rtp, RcvBuf, &RECEIVE_BYTES)?;
            }
            setsockopt(&rtcp, RcvBuf, &0)?;
            return Ok(RtpSocket { rtp, _rtcp: rtcp, port });
        }
        anyhow::bail!("no free port on {}", self.ip)
    }
}

/// Lets this process have as many file descriptors as it may.
///
/// # Errors
/// If not even that can be asked for.
pub fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // More than the limit is for those who may; the limit itself is for all.
    let wanted = hard.max(100_000);
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// Takes packets from sockets.
#[derive(Debug)]
pub struct Receiver {
    headers: MultiHeaders<()>,
    buffers: Box<[[u8; ROOM]; BATCH]>,
}

impl Default for Receiver {
    fn default() -> Self {
        let headers = MultiHeaders::preallocate(BATCH, Some(cmsg_space!(TimeSpec)));
        Self { headers, buffers: Box::new([[0; ROOM]; BATCH]) }
    }
}

impl Receiver {
    /// Takes everything that waits, and hands over each packet with its time of arrival in ns since
    /// 1970. `expected` is how many are likely.
    ///
    /// # Errors
    /// If a packet has no stamp.
    pub fn drain(
        &mut self,
        socket: &UdpSocket,
        expected: usize,
        mut take: impl FnMut(&[u8], u64),
    ) -> Result<()> {
        // One more than expected: the call then finds out by itself that there is nothing more.
        let batch = (expected + 1).min(BATCH);
        loop {
            let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            let slices = slices.iter_mut().take(batch);
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            // Nothing there, or the kernel's word that an earlier packet found nobody.
            let Ok(messages) = recvmmsg(fd, &mut self.headers, slices, flags, None) else {
                return Ok(());
            };
            let mut count = 0;
            for message in messages {
                count += 1;
                let stamp = message.cmsgs()?.find_map(|control| {
                    if let ControlMessageOwned::ScmTimestampns(at) = control {
                        Some(at)
                    } else {
                        None
                    }
                });
                let at = stamp.context("a packet without the kernel's stamp")?;
                let at_ns = at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64;
                take(message.iovs().next().unwrap_or_default(), at_ns);
            }
            if count < batch {
                return Ok(());
            }
        }
    }
}

/// How many packets the kernel has thrown away at sockets of these addresses, since they were
/// opened: for want of room, so by a reader's fault.
///
/// # Errors
/// If the kernel's list cannot be read.
pub fn drops_at(ips: &[Ipv4Addr]) -> Result<u64> {
    let list = fs::read_to_string("/proc/self/net/udp")?;
    let ips: BTreeSet<_> = ips.iter().copied().collect();
    Ok(list.lines().skip(1).filter_map(|line| drops_of(line, &ips)).sum())
}

/// The last field of a line about an RTP socket (an even port) at one of these addresses.
fn drops_of(line: &str, ips: &BTreeSet<Ipv4Addr>) -> Option<u64> {
    let (ip, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    let is_rtp = u16::from_str_radix(port, 16).ok()?.is_multiple_of(2);
    if !ips.contains(&ip) || !is_rtp {
        return None;
    }
    line.split_whitespace().next_back()?.parse().ok()
}

/// The address without its port.
///
/// # Errors
/// If it is not IPv4.
pub fn v4(address: SocketAddr) -> Result<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => anyhow::bail!("{ip} is not IPv4"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn everything_that_waits_is_taken_with_the_time_of_its_arrival() {
        let ip = Ipv4Addr::new(127, 0, 0, 1);
        let mut opener = Opener::new(ip);
        let (to, other) = (opener.open().unwrap(), opener.open().unwrap());
        assert!(to.port.is_multiple_of(2) && to.port < other.port);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = now();
        for n in 0..40_u8 {
            other.rtp.send_to(&[n; 200], (ip, to.port)).unwrap();
        }
        let mut taken = vec![];
        let mut receiver = Receiver::default();
        receiver.drain(&to.rtp, 3, |packet, at| taken.push((packet[0], packet.len(), at))).unwrap();
        let after = now();
        assert_eq!(taken.len(), 40);
        for (n, (byte, len, at)) in taken.into_iter().enumerate() {
            assert_eq!((usize::from(byte), len), (n, 200));
            assert!((before..=after).contains(&at), "{before} {at} {after}");
        }
        receiver.drain(&to.rtp, 3, |_, _| panic!("nothing is left")).unwrap();
    }

    #[test]
    fn drops_are_those_of_rtp_sockets_at_our_addresses() {
        let ips = BTreeSet::from([Ipv4Addr::new(127, 0, 0, 2)]);
        let line = |address: &str| {
            format!(
                " 1143: {address} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        \
                 0 4421 2 0000000000000000 17"
            )
        };
        assert_eq!(drops_of(&line("0200007F:4000"), &ips), Some(17));
        assert_eq!(drops_of(&line("0200007F:4001"), &ips), None, "RTCP");
        assert_eq!(drops_of(&line("0300007F:4000"), &ips), None, "another's");
        assert_eq!(drops_of("", &ips), None);
    }
}
