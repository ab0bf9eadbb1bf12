//! What the pure SIP path costs: `cargo bench --bench core`.
//!
//! Prints nanoseconds and allocations: of reading and writing a message, of digest, SDP and the dialplan, and
//! of whole calls and registrations through a shard without sockets. A call is 13 messages on two legs.
//! The instructions of some of it are in `benches/instructions.txt`, which `make instructions` holds.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails may panic")]

mod scene;

use divan::{AllocProfiler, Bencher, counter::ItemsCount};
use scene::{Kind, Scene, message, play};
use std::{hint::black_box, net::SocketAddr};
use tandem::{
    dialplan::{Action, Country, Dialplan, LocalTime, Origin, Pattern, Query, Rule},
    sdp::{self, Codec, Description, Local, Policy},
    sip::{
        Builder, HeaderName, Message,
        digest::{self, Algorithm},
    },
};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

/// How many calls are measured at a time.
const CALLS: usize = 200;

fn main() {
    divan::main();
}

#[divan::bench(args = ["INVITE", "SIP/2.0 200", "ACK", "BYE"])]
fn parse(bencher: Bencher<'_, '_>, start: &str) {
    let bytes = message(Kind::Trunk, start);
    bencher.bench_local(|| Message::parse(bytes.clone()).unwrap());
}

#[divan::bench]
fn write_reply(bencher: Bencher<'_, '_>) {
    let invite = Message::parse(message(Kind::Trunk, "INVITE")).unwrap();
    let from: SocketAddr = scene::CALLER.parse().unwrap();
    bencher.bench_local(|| {
        let mut reply = Builder::reply(&invite, 180, "Ringing", Some("00f00d"), from);
        reply.header(HeaderName::Contact, "<sip:caller@10.0.0.1:5060>");
        reply.finish()
    });
}

#[divan::bench(args = [Algorithm::Md5, Algorithm::Sha256])]
fn digest_of_password(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let ha1 = || digest::ha1(algorithm, "2001", "pbx.example.com", "the secret of 2001");
    bencher.bench_local(ha1);
}

#[divan::bench]
fn sdp_offer_and_answer(bencher: Bencher<'_, '_>) {
    let invite = Message::parse(message(Kind::Trunk, "INVITE")).unwrap();
    let answer = Message::parse(message(Kind::Trunk, "SIP/2.0 200")).unwrap();
    let (offer, answer) = (invite.sdp().unwrap(), answer.sdp().unwrap());
    let policy = Policy::trunk(vec![Codec::Pcmu, Codec::Pcma]);
    let rtp: SocketAddr = "10.0.0.1:10000".parse().unwrap();
    bencher.bench_local(|| {
        let offer = Description::parse(offer.clone()).unwrap();
        let (mut caller, mut callee) = (Local::new(1, rtp), Local::new(2, rtp));
        let ours = sdp::offer_from(&offer, &policy, &mut callee).unwrap();
        let ours = Description::parse(ours).unwrap();
        let theirs = Description::parse(answer.clone()).unwrap();
        let agreed = sdp::accept_answer(ours.audio().unwrap(), &theirs).unwrap();
        sdp::answer_from(&offer, &agreed, &policy, &mut caller).unwrap()
    });
}

/// The last of so many rules applies.
#[divan::bench(args = [1, 10, 100])]
fn dialplan(bencher: Bencher<'_, '_>, rules: usize) {
    let country = Country::parse("US").unwrap();
    let mut plan = Dialplan::empty(country);
    let rule = |n: usize| Rule {
        name: format!("internal[{n}]").into(),
        origin: Origin::default(),
        matches: vec![Pattern::parse(&format!("_+1{n:03}555XXXX")).unwrap()],
        from: vec![],
        when: vec![],
        actions: vec![Action::Hangup],
    };
    plan.contexts.insert("internal".into(), (1..=rules).map(rule).collect());
    let dialled = format!("+1{rules:03}5550142");
    let at = LocalTime::parse("2026-11-03 10:30").unwrap();
    bencher.bench_local(|| {
        plan.route(&Query { context: "internal", from: "1001", dialled: &dialled, at })
    });
}

/// Plays a whole scene; the figures are per call or registration.
fn whole(bencher: Bencher<'_, '_>, scene: &Scene) {
    bencher
        .counter(ItemsCount::new(CALLS))
        .with_inputs(|| (scene.shard(), scene.script.clone()))
        .bench_local_values(|(mut shard, script)| {
            black_box(play(&mut shard, script));
            shard
        });
}

/// Calls from trunk to trunk while so many others are held.
#[divan::bench(args = [10, 1000, 5000], sample_count = 10, sample_size = 1)]
fn call(bencher: Bencher<'_, '_>, held: usize) {
    whole(bencher, &Scene::record(Kind::Trunk, held, CALLS, "SHA-256"));
}

/// Calls from phones, challenged, to a trunk.
#[divan::bench(args = ["MD5", "SHA-256"], sample_count = 10, sample_size = 1)]
fn call_with_digest(bencher: Bencher<'_, '_>, algorithm: &str) {
    whole(bencher, &Scene::record(Kind::Phone, 10, CALLS, algorithm));
}

/// Registrations with digest: two requests, two answers.
#[divan::bench(args = ["MD5", "SHA-256"], sample_count = 10, sample_size = 1)]
fn register(bencher: Bencher<'_, '_>, algorithm: &str) {
    whole(bencher, &Scene::record(Kind::Register, 0, CALLS, algorithm));
}
