//! How calls are set up through what is measured: by SIP, by rtpengine's own protocol, or not at
//! all, where the relay has its pairs of ports from the start.
//!
//! Owns: the choice. Never: an RTP packet.

use super::{ng::Ng, phones::Phones};
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};

/// Ports of a call at a relay without signalling: RTP and RTCP of either side.
pub const DIRECT_PORTS: usize = 4;

/// One of the ways.
pub enum Way {
    /// Pairs of ports from this one on.
    Direct(SocketAddr, usize),
    /// SIP.
    Sip(Box<Phones>),
    /// Offers and answers.
    Ng(Box<Ng>),
}

impl Way {
    /// Sets calls up whose ends listen at these ports, and returns for each where its near and its
    /// far end send to.
    ///
    /// # Errors
    /// If one of them does not come about.
    pub fn connect(&mut self, ports: &[[u16; 2]]) -> Result<Vec<[SocketAddr; 2]>> {
        match self {
            Self::Direct(first, taken) => {
                let from = *taken;
                *taken += ports.len();
                (from..*taken).map(|call| pair_at(*first, call)).collect()
            }
            Self::Sip(phones) => phones.dial(ports),
            Self::Ng(ng) => ports.iter().map(|ports| ng.connect(*ports)).collect(),
        }
    }

    /// Answers what has come meanwhile.
    pub fn tend(&mut self) {
        match self {
            Self::Direct(..) | Self::Ng(_) => {}
            Self::Sip(phones) => phones.tend(),
        }
    }

    /// Ends all calls. Returns how many had ended before, which is nobody's wish.
    ///
    /// # Errors
    /// If one cannot be ended.
    pub fn close(&mut self) -> Result<usize> {
        match self {
            Self::Direct(..) => Ok(0),
            Self::Sip(phones) => phones.hang_up(),
            Self::Ng(ng) => ng.close().map(|()| 0),
        }
    }
}

/// Where near and far end of a call send to at a relay with fixed ports.
fn pair_at(first: SocketAddr, call: usize) -> Result<[SocketAddr; 2]> {
    let port = usize::from(first.port()) + call * DIRECT_PORTS;
    let at = |port| u16::try_from(port).map(|port| SocketAddr::new(first.ip(), port));
    Ok([at(port)?, at(port + 2)?])
}

/// What a session description says: where media goes to.
///
/// # Errors
/// If it says nothing, or that there is no stream.
pub fn media_address(sdp: &str) -> Result<SocketAddr> {
    let line = |prefix: &str| sdp.lines().find_map(|line| line.strip_prefix(prefix));
    let ip = line("c=IN IP4 ").context("no c= line")?.trim();
    let ip: IpAddr = ip.split('/').next().unwrap_or(ip).parse().context("c= line")?;
    let media = line("m=audio ").context("no m= line")?;
    let port = media.split_whitespace().next().unwrap_or_default().parse().context("m= line")?;
    anyhow::ensure!(port != 0, "the stream was refused");
    Ok(SocketAddr::new(ip, port))
}

/// A session description of one PCMU stream.
pub fn description(ip: IpAddr, port: u16) -> String {
    format!(
        "v=0\r\no=bench 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_say_where_media_goes() {
        let here: SocketAddr = "127.0.0.2:4000".parse().unwrap();
        assert_eq!(media_address(&description(here.ip(), 4000)).unwrap(), here);
        assert!(media_address(&description(here.ip(), 0)).is_err());
        assert!(media_address("v=0\r\n").is_err());
        assert!(media_address("c=IN IP4 127.0.0.1\r\nm=video 4 RTP/AVP 0\r\n").is_err());
    }

    #[test]
    fn fixed_ports_go_four_by_four_and_end_at_the_last() {
        let first: SocketAddr = "127.0.0.9:20000".parse().unwrap();
        let mut way = Way::Direct(first, 0);
        way.connect(&[[0; 2]; 3]).unwrap();
        let next = way.connect(&[[0; 2]]).unwrap();
        let ports = next[0].map(|address| address.port());
        assert_eq!(ports, [20_012, 20_014]);
        assert!(way.connect(&vec![[0; 2]; 20_000]).is_err());
    }
}
