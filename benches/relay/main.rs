//! What the relay takes for a packet, without the sockets: `cargo bench --bench relay`.
//!
//! One iteration is one packet of G.711 that is forwarded. `alloc` must not be among the columns.
#![expect(clippy::disallowed_methods, reason = "virtual time begins at some real one")]

mod calls;

use calls::{Calls, Kind};
use divan::{AllocProfiler, Bencher};
use std::{fmt, time::Instant};
use tandem::media::{Convert, Law, decode, encode, srtp::Suite};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const SAME: Convert = Convert::Keep;
const OTHER: Convert = Convert::UlawToAlaw;

const KINDS: [Kind; 7] = [
    Kind { calls: 1, convert: SAME, suite: None },
    Kind { calls: 1, convert: OTHER, suite: None },
    Kind { calls: 1, convert: SAME, suite: Some(Suite::AesCm128HmacSha1_80) },
    Kind { calls: 1, convert: SAME, suite: Some(Suite::AeadAes128Gcm) },
    Kind { calls: 800, convert: SAME, suite: None },
    Kind { calls: 800, convert: OTHER, suite: None },
    Kind { calls: 5000, convert: SAME, suite: None },
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codecs = if self.convert == SAME { "PCMU" } else { "PCMU to PCMA" };
        write!(f, "{:4} calls, {codecs}", self.calls)?;
        self.suite.map_or(Ok(()), |suite| write!(f, ", one side {suite:?}"))
    }
}

fn main() {
    divan::main();
}

#[divan::bench(args = KINDS)]
fn relay(bencher: Bencher<'_, '_>, kind: Kind) {
    let mut calls = Calls::new(kind, Instant::now());
    bencher.bench_local(move || calls.talk(1));
}

/// 20 ms of G.711, to linear samples and back.
#[divan::bench(args = [Law::Mu, Law::A])]
fn g711_there_and_back(bencher: Bencher<'_, '_>, law: Law) {
    let mut frame = [0x55; 160];
    bencher.bench_local(|| {
        frame.iter_mut().for_each(|code| *code = encode(law, decode(law, divan::black_box(*code))));
        divan::black_box(&frame);
    });
}
