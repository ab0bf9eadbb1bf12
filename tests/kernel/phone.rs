//! A telephone, as far as RTP goes.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// Whoever waits longer than this waits in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Phone {
    rtp: UdpSocket,
    pub(crate) rtcp: UdpSocket,
    /// The relay's port for it.
    pub(crate) to: SocketAddr,
    /// Of the next packet.
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    /// How many frames and events were made.
    pub(crate) said: u64,
    ssrc: u32,
    payload_type: u8,
}

/// A packet that came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Heard {
    pub(crate) from: SocketAddr,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    /// What the payload begins with.
    pub(crate) says: u16,
}

impl Phone {
    /// A telephone on this machine. Its sequence numbers wrap soon.
    pub(crate) fn new(ip: Ipv4Addr, payload_type: u8) -> Self {
        let [rtp, rtcp] = [4000, 4001].map(|port| UdpSocket::bind((ip, port)).expect("free"));
        for socket in [&rtp, &rtcp] {
            socket.set_read_timeout(Some(PATIENCE)).expect("set");
        }
        let ssrc = u32::from(ip);
        let to = SocketAddr::new(ip.into(), 0);
        let (sequence, timestamp) = (65_400, 0xffff_0000);
        Self { rtp, rtcp, to, sequence, timestamp, said: 0, ssrc, payload_type }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.rtp.local_addr().expect("bound")
    }

    /// Makes the next frame. It says its own number.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut packet = vec![0x80, self.payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.resize(12 + 160, 0xd5);
        self.sequence = self.sequence.wrapping_add(1);
        self.said += 1;
        self.timestamp = self.timestamp.wrapping_add(160);
        packet
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        self.rtp.send_to(packet, self.to).expect("sent");
    }

    pub(crate) fn say(&mut self) {
        let packet = self.next();
        self.send(&packet);
    }

    /// Presses a key as RFC 4733 has it: three packets of its end.
    pub(crate) fn press(&mut self, payload_type: u8) {
        let mut packet = self.next();
        packet.truncate(12);
        packet[1] = 0x80 | payload_type;
        packet.extend([1, 0x80 | 10, 0x03, 0x20]);
        for _ in 0..3 {
            packet[2..4].copy_from_slice(&self.sequence.wrapping_sub(1).to_be_bytes());
            self.send(&packet);
            packet[1] = payload_type;
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.sequence = self.sequence.wrapping_sub(1);
        self.said += 2;
    }

    /// Waits for a packet. The kernel has checked its checksum.
    pub(crate) fn hear(&self) -> Heard {
        let mut packet = [0; 2048];
        let (len, from) = self.rtp.recv_from(&mut packet).expect("something is heard");
        assert!(len >= 16 && packet[0] == 0x80, "{:?}", &packet[..len]);
        let [a, b, c, d, e, f, g, h, i, j] = std::array::from_fn(|n| packet[2 + n]);
        Heard {
            from,
            payload_type: packet[1] & 0x7f,
            sequence: u16::from_be_bytes([a, b]),
            timestamp: u32::from_be_bytes([c, d, e, f]),
            ssrc: u32::from_be_bytes([g, h, i, j]),
            says: u16::from_be_bytes([packet[12], packet[13]]),
        }
    }

    /// Waits until a certain frame is heard, and returns what was heard before.
    pub(crate) fn hear_until(&self, says: u16) -> VecDeque<Heard> {
        let mut all = VecDeque::new();
        loop {
            let heard = self.hear();
            all.push_back(heard);
            if heard.says == says {
                return all;
            }
        }
    }
}
