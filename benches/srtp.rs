//! How long SRTP takes for a packet: `cargo bench --bench srtp`.
//!
//! Prints the median of several rounds, in nanoseconds for a packet of 20 ms of G.711.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints"
)]

use std::{hint::black_box, time::Instant};
use tandem::{
    ids::Entropy,
    media::srtp::{MasterKey, Receiver, Sender, Suite, TRAILER_MAX},
};

const ROUNDS: usize = 15;
const PACKETS: u16 = 20_000;
const PACKET_LEN: usize = 172;

fn main() {
    println!("{:24} {:>12} {:>12}", "ns/packet", "protect", "unprotect");
    for suite in Suite::ALL {
        let mut rounds = (0..ROUNDS).map(|_| round(suite)).collect::<Vec<_>>();
        let mut median = |of: fn(&(f64, f64)) -> f64| {
            rounds.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&rounds[ROUNDS / 2])
        };
        let (protect, unprotect) = (median(|round| round.0), median(|round| round.1));
        println!("{:24} {protect:>12.0} {unprotect:>12.0}", format!("{suite:?}"));
    }
}

fn round(suite: Suite) -> (f64, f64) {
    let key = MasterKey::draw(suite, &mut Entropy::from_u64(1));
    let (Some(mut sender), Some(mut receiver)) = (Sender::new(&key), Receiver::new(&key)) else {
        return (f64::NAN, f64::NAN);
    };
    let mut packets = (0..PACKETS)
        .map(|n| {
            let mut packet = [0; PACKET_LEN + TRAILER_MAX];
            packet[0] = 0x80;
            packet[2..4].copy_from_slice(&n.to_be_bytes());
            (packet, 0)
        })
        .collect::<Vec<_>>();

    let begin = Instant::now();
    for (packet, len) in &mut packets {
        *len = sender.protect_rtp(packet, PACKET_LEN).unwrap_or_default();
    }
    let protected = begin.elapsed();
    let begin = Instant::now();
    for (packet, len) in &mut packets {
        let opened = receiver.unprotect_rtp(&mut packet[..*len]);
        assert_eq!(black_box(opened), Ok(PACKET_LEN));
    }
    let opened = begin.elapsed();
    let each = f64::from(PACKETS);
    (protected.as_nanos() as f64 / each, opened.as_nanos() as f64 / each)
}
