//! How long SRTP takes for a packet of 20 ms of G.711: `cargo bench --bench srtp`.

use divan::{AllocProfiler, Bencher, black_box};
use tandem::{
    ids::Entropy,
    media::srtp::{MasterKey, Receiver, Sender, Suite, TRAILER_MAX},
};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const PACKET_LEN: usize = 172;
type Packet = [u8; PACKET_LEN + TRAILER_MAX];

fn main() {
    divan::main();
}

fn packet(number: u16) -> Packet {
    let mut packet = [0; PACKET_LEN + TRAILER_MAX];
    packet[0] = 0x80;
    packet[2..4].copy_from_slice(&number.to_be_bytes());
    packet
}

fn pair(suite: Suite) -> (Sender, Receiver) {
    let key = MasterKey::draw(suite, &mut Entropy::from_u64(1));
    let pair = Sender::new(&key).zip(Receiver::new(&key));
    pair.expect("a fresh key serves both directions")
}

#[divan::bench(args = Suite::ALL)]
fn protect(bencher: Bencher<'_, '_>, suite: Suite) {
    let (mut sender, _) = pair(suite);
    let mut number = 0_u16;
    bencher.bench_local(|| {
        let mut packet = packet(number);
        number = number.wrapping_add(1);
        black_box(sender.protect_rtp(&mut packet, PACKET_LEN))
    });
}

#[divan::bench(args = Suite::ALL)]
fn unprotect(bencher: Bencher<'_, '_>, suite: Suite) {
    let (mut sender, mut receiver) = pair(suite);
    let mut number = 0_u16;
    let mut next = || {
        let mut packet = packet(number);
        number = number.wrapping_add(1);
        let len = sender.protect_rtp(&mut packet, PACKET_LEN).unwrap_or_default();
        (packet, len)
    };
    bencher.with_inputs(&mut next).bench_local_values(|(mut packet, len)| {
        let opened = receiver.unprotect_rtp(&mut packet[..len]);
        assert_eq!(black_box(opened), Ok(PACKET_LEN));
    });
}
