//! rtpengine's "ng" protocol, as far as a plain call needs it: a cookie and a bencoded dictionary
//! in each datagram.
//!
//! Owns: its socket, the calls that are up. Never: an RTP packet.

use super::way::{description, media_address};
use anyhow::{Context, Result, bail};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 4;

/// A client of rtpengine.
#[derive(Debug)]
pub struct Ng {
    socket: UdpSocket,
    ips: [Ipv4Addr; 2],
    asked: u64,
    calls: Vec<String>,
}

impl Ng {
    /// Its control port is there; the ends of calls are at `ips`.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn new(control: SocketAddr, ips: [Ipv4Addr; 2]) -> Result<Self> {
        let socket = UdpSocket::bind((ips[0], 0))?;
        socket.connect(control)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, ips, asked: 0, calls: vec![] })
    }

    /// Offers and answers a call whose ends listen at these ports.
    ///
    /// # Errors
    /// If it is refused.
    pub fn connect(&mut self, ports: [u16; 2]) -> Result<[SocketAddr; 2]> {
        let call = format!("bench-{}-{}", std::process::id(), self.calls.len());
        let [near, far] = self.ips.map(IpAddr::V4);
        let (near_sdp, far_sdp) = (description(near, ports[0]), description(far, ports[1]));
        let plain = [("ICE", "remove"), ("transport-protocol", "RTP/AVP")];
        let mut offer = vec![("call-id", &*call), ("command", "offer"), ("from-tag", "near")];
        offer.extend(plain);
        offer.push(("sdp", &near_sdp));
        let to_far = self.ask(&offer)?;

        let mut answer = vec![("call-id", &*call), ("command", "answer"), ("from-tag", "near")];
        answer.extend(plain);
        answer.extend([("sdp", &*far_sdp), ("to-tag", "far")]);
        let to_near = self.ask(&answer)?;

        let address = |answer: &[u8]| media_address(field(answer, "sdp").context("no SDP")?);
        let ends = [address(&to_near)?, address(&to_far)?];
        self.calls.push(call);
        Ok(ends)
    }

    /// Deletes all calls.
    ///
    /// # Errors
    /// If that is refused.
    pub fn close(&mut self) -> Result<()> {
        for call in std::mem::take(&mut self.calls) {
            self.ask(&[
                ("call-id", &call),
                ("command", "delete"),
                ("delete-delay", "0"),
                ("from-tag", "near"),
            ])?;
        }
        Ok(())
    }

    /// Asks until there is an answer.
    fn ask(&mut self, entries: &[(&str, &str)]) -> Result<Vec<u8>> {
        self.asked += 1;
        let cookie = format!("{}_{} ", std::process::id(), self.asked);
        let question = format!("{cookie}{}", dictionary(entries));
        let mut room = [0; 8192];
        for _ in 0..ATTEMPTS {
            self.socket.send(question.as_bytes())?;
            while let Ok(len) = self.socket.recv(&mut room) {
                let Some(answer) = room[..len].strip_prefix(cookie.as_bytes()) else { continue };
                if field(answer, "result") != Some("ok") {
                    bail!("rtpengine: {}", String::from_utf8_lossy(answer));
                }
                return Ok(answer.to_vec());
            }
        }
        bail!("rtpengine does not answer")
    }
}

/// A bencoded dictionary of strings; its keys must come in order.
fn dictionary(entries: &[(&str, &str)]) -> String {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable();
    let text = |text: &str| format!("{}:{text}", text.len());
    let inside: String = sorted.iter().map(|(key, value)| text(key) + &text(value)).collect();
    format!("d{inside}e")
}

/// A string in a bencoded dictionary; other values are passed over.
fn field<'a>(dictionary: &'a [u8], key: &str) -> Option<&'a str> {
    let mut rest = dictionary.strip_prefix(b"d")?;
    while rest.first() != Some(&b'e') {
        let (found, after) = string(rest)?;
        if found == key.as_bytes() {
            return std::str::from_utf8(string(after)?.0).ok();
        }
        rest = skip(after)?;
    }
    None
}

/// A string, and what comes after it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(len)
}

/// What comes after a value.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.first()? {
        b'i' => Some(&bytes[bytes.iter().position(|byte| *byte == b'e')? + 1..]),
        b'd' | b'l' => {
            let mut rest = &bytes[1..];
            while *rest.first()? != b'e' {
                rest = skip(rest)?;
            }
            Some(&rest[1..])
        }
        _ => Some(string(bytes)?.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn dictionaries_are_written_in_order_and_read_past_what_is_unknown() {
        assert_eq!(dictionary(&[("b", "xyz"), ("a", "")]), "d1:a0:1:b3:xyze");
        let answer = b"d4:agesli1ei2ed1:xi3eee6:result2:ok3:sdp4:v=0\ne";
        assert_eq!(field(answer, "result"), Some("ok"));
        assert_eq!(field(answer, "sdp"), Some("v=0\n"));
        assert_eq!(field(answer, "ages"), None);
        for broken in ["", "d", "d3:abce", "d1:a9:xe", "dx:ae", "d1:al"] {
            assert_eq!(field(broken.as_bytes(), "sdp"), None, "{broken}");
        }
    }

    #[test]
    fn a_call_is_offered_answered_and_deleted() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let control = server.local_addr().unwrap();
        let engine = thread::spawn(move || {
            let mut seen = vec![];
            let mut room = [0; 4096];
            let mut answered = vec![];
            for port in [7000, 7002, 0] {
                let (text, from) = loop {
                    let (len, from) = server.recv_from(&mut room).unwrap();
                    let text = String::from_utf8(room[..len].to_vec()).unwrap();
                    // Whoever had to wait has asked again meanwhile.
                    if !answered.contains(&text) {
                        answered.push(text.clone());
                        break (text, from);
                    }
                };
                let (cookie, asked) = text.split_once(' ').unwrap();
                let get = |key| field(asked.as_bytes(), key).unwrap_or("-").to_owned();
                let sdp = media_address(&get("sdp")).map(|at| at.to_string());
                seen.push((get("command"), get("to-tag"), sdp.unwrap_or_default()));
                let sdp = description("127.0.0.9".parse().unwrap(), port);
                let answer = dictionary(&[("result", "ok"), ("sdp", &sdp)]);
                server.send_to(format!("{cookie} {answer}").as_bytes(), from).unwrap();
            }
            seen
        });
        let mut ng = Ng::new(control, [[127, 0, 0, 2].into(), [127, 0, 0, 3].into()]).unwrap();
        let ends = ng.connect([4000, 5000]).unwrap();
        assert_eq!(ends.map(|end| end.to_string()), ["127.0.0.9:7002", "127.0.0.9:7000"]);
        ng.close().unwrap();
        let seen = engine.join().unwrap();
        let seen: Vec<_> = seen.iter().map(|(a, b, c)| [a.as_str(), b, c]).collect();
        let wanted = [
            ["offer", "-", "127.0.0.2:4000"],
            ["answer", "far", "127.0.0.3:5000"],
            ["delete", "-", ""],
        ];
        assert_eq!(seen, wanted);
    }
}
