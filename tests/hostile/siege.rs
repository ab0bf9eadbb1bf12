//! The running program under mutated messages, floods and dripping connections: it neither falls nor hangs,
//! others are answered in time, and memory and descriptors come back.
//!
//! `TANDEM_SIEGE=1000000` sends as many mutated messages; without it, a few thousand.

use crate::{
    mutate::{Random, mutate},
    node::{
        IS_SHIPPED, PATIENCE, Peer, Program, TRUNK, Waits, connect, count, probe_stream, within,
    },
};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

/// How many are sent between two questions.
const BETWEEN: usize = 50;

/// Nobody waits longer for an answer, whatever else comes in, but for the machine.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// What may be kept after it all, in KiB: the allocator's reserve, and answers that are not forgotten yet.
const KEPT_MAX_KIB: i64 = 24 * 1024;
/// What a connection may take, in KiB.
const CONNECTION_MAX_KIB: i64 = 8;

#[test]
fn mutated_messages_over_udp() {
    let mut program = Program::start();
    let corpus = messages();
    let mut peers = [[127, 0, 2, 1], TRUNK, [127, 0, 2, 2]].map(|ip| Peer::new(ip, program.udp));
    let (messages, mut before) = (count(12_000), None);
    for n in 0..messages {
        let mut random = Random::new(n as u64);
        let mut bytes = random.of(&corpus).clone();
        mutate(&mut bytes, &corpus, &mut random);
        // Mostly strangers; a tenth comes from the trunk, whose calls are taken.
        let peer = &mut peers[if n % 10 == 1 { 1 } else { 2 * (n % 2) }];
        match peer.socket.send(&bytes[..bytes.len().min(65_000)]) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
        if n % BETWEEN == 0 {
            peers.iter_mut().for_each(|peer| drop(peer.probe()));
        }
        // Everything that is used once is in use by then.
        if n == messages / 5 {
            before = Some((program.memory_kib(), program.descriptors()));
        }
    }
    program.is_well();
    let mut waits = Waits::default();
    peers.iter_mut().for_each(|peer| waits.extend(std::mem::take(&mut peer.waits)));
    let (memory, descriptors) = before.expect("a fifth was sent");
    let kept = program.memory_kib() - memory;
    println!("{messages} over UDP: slowest OPTIONS {:?}, {kept} KiB kept", waits.slowest());
    waits.are_within(ANSWER_MAX);
    assert!(kept < KEPT_MAX_KIB, "{kept} KiB");
    // Two sockets for each call that is up, of 32 at most.
    program.comes_down_to(descriptors + 64, &mut peers[0]);
}

#[test]
fn mutated_messages_over_tcp() {
    let mut program = Program::start();
    let corpus = messages();
    let mut peer = Peer::new([127, 0, 2, 9], program.udp);
    let (messages, mut before) = (count(12_000), None);
    let mut stream: Option<TcpStream> = None;
    for n in 0..messages {
        let mut random = Random::new(n as u64 + 7);
        let mut bytes = random.of(&corpus).clone();
        mutate(&mut bytes, &corpus, &mut random);
        let ip = [127, 0, 4, 1 + (n / 1000 % 200) as u8];
        let mut open = stream.take().filter(|_| n % 16 != 0);
        let writing = match &mut open {
            Some(open) => open.write_all(&bytes),
            None => connect(ip, program.tcp).and_then(|mut new| {
                new.write_all(&bytes)?;
                open = Some(new);
                Ok(())
            }),
        };
        stream = open.filter(|_| writing.is_ok());
        if n % BETWEEN == 0 {
            peer.probe();
            let mut other = connect([127, 0, 2, 9], program.tcp).expect("a connection");
            let (_, took) = probe_stream(&mut other, n as u64).expect("an answer");
            peer.waits.note(took);
        }
        if n == messages / 5 {
            before = Some((program.memory_kib(), program.descriptors()));
        }
    }
    drop(stream);
    peer.probe();
    program.is_well();
    let (memory, descriptors) = before.expect("a fifth was sent");
    let kept = program.memory_kib() - memory;
    println!("{messages} over TCP: slowest OPTIONS {:?}, {kept} KiB kept", peer.waits.slowest());
    peer.waits.are_within(ANSWER_MAX);
    assert!(kept < KEPT_MAX_KIB, "{kept} KiB");
    // Those of the stream and the question that were open then.
    program.comes_down_to(descriptors, &mut peer);
}

/// The messages of real clients, over both: valid requests are answered, nothing answers a response or an ACK.
/// (Those of the RFCs: `tests/interop/test_torture.py`.)
#[test]
fn every_message_of_the_corpus_is_reacted_to() {
    let mut program = Program::start();
    let mut wrong = vec![];
    for (nth, (name, class, bytes)) in real_messages().into_iter().enumerate() {
        let mut peer = Peer::new([127, 0, 2, 1 + nth as u8], program.udp);
        peer.socket.send(&bytes).expect("sent");
        let heard = peer.probe().concat();
        wrong.extend(judge(&class, &bytes, &heard).map(|why| format!("{name} over UDP: {why}")));
        let mut stream = connect([127, 0, 5, 1 + nth as u8], program.tcp).expect("a connection");
        // Where it is no message of a stream, the connection ends.
        if stream.write_all(&bytes).is_ok()
            && let Some((heard, _)) = probe_stream(&mut stream, 1)
        {
            let why = judge(&class, &bytes, &heard).filter(|_| class != "valid");
            wrong.extend(why.map(|why| format!("{name} over TCP: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    program.is_well();
}

/// Returns what is wrong with these answers.
fn judge(class: &str, message: &[u8], heard: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(heard);
    let codes: Vec<u16> = text
        .split("SIP/2.0 ")
        .skip(1)
        .filter_map(|rest| rest.get(..3)?.parse().ok())
        .filter(|code| *code >= 200)
        .collect();
    let is_silent = message.starts_with(b"SIP/2.0 ") || message.starts_with(b"ACK ");
    let is_sensible = |code: &u16| *code != 400 && (*code < 500 || *code == 501 || *code >= 600);
    match class {
        _ if is_silent => (!codes.is_empty()).then(|| format!("answered {codes:?}")),
        "valid" if codes.is_empty() => Some("no answer".to_owned()),
        "valid" => (!codes.iter().all(is_sensible)).then(|| format!("{codes:?}")),
        "invalid" => codes.iter().any(|code| *code < 400).then(|| format!("taken: {codes:?}")),
        _ => None,
    }
}

/// Calls of strangers, as fast as it takes them: others do not notice, and nothing is kept.
#[test]
fn a_flood_of_calls_costs_nothing() {
    let mut program = Program::start();
    let (mut other, flooder) =
        (Peer::new([127, 0, 2, 1], program.udp), Peer::new([127, 0, 2, 2], program.udp));
    let calls: u32 = if IS_SHIPPED { 20_000 } else { 2_000 };
    flooder.socket.set_nonblocking(true).expect("a socket");
    let mut memory = 0;
    for call in 0..calls + calls / 5 {
        // The first ones warm it up.
        if call == calls / 5 {
            other.waits = Waits::default();
            memory = program.memory_kib();
        }
        flooder.socket.send(invite(call).as_bytes()).expect("sent");
        while flooder.socket.recv(&mut [0; 2048]).is_ok() {}
        if call % 10 == 0 {
            other.probe();
        }
    }
    other.probe();
    program.is_well();
    let kept = program.memory_kib() - memory;
    let slowest = other.waits.slowest();
    println!("{calls} calls of a stranger: {kept} KiB kept, slowest OPTIONS {slowest:?}");
    assert!(kept < 1024, "{kept} KiB");
    other.waits.are_within(within(Duration::from_millis(20)));
}

fn invite(call: u32) -> String {
    format!(
        "INVITE sip:1001@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.2.2;branch=z9hG4bKf{call};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:x@127.0.0.1>;tag={call}\r\nTo: <sip:1001@127.0.0.1>\r\n\
         Call-ID: flood-{call}\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.2.2>\r\nContent-Length: 0\r\n\r\n"
    )
}

/// Connections that say a byte now and then, from many sources: all are closed in time, and meanwhile others
/// connect and are answered.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
fn dripping_connections_hold_nobody_up() {
    let mut program = Program::start();
    // More than one source may keep; fewer than a process may open where nothing was configured.
    let per_source = if IS_SHIPPED { 500 } else { 290 };
    let sources: u8 = if IS_SHIPPED { 18 } else { 3 };
    let mut other = Peer::new([127, 0, 2, 1], program.udp);
    let mut standing = connect([127, 0, 2, 1], program.tcp).expect("a connection");
    probe_stream(&mut standing, 0).expect("an answer");
    let (memory, began) = (program.memory_kib(), Instant::now());
    let mut open: Vec<(Instant, TcpStream)> = vec![];
    let (mut closed, mut oldest, mut serial) = (0_usize, Duration::ZERO, 0_u64);
    let drips = b"OPTIONS sip:pbx SIP/2.0\r\nX: ";
    for source in 0..sources {
        for _ in 0..per_source {
            let Ok(mut stream) = connect([127, 0, 6, 1 + source], program.tcp) else { continue };
            let _ = stream.write_all(drips);
            stream.set_nonblocking(true).expect("a socket");
            open.push((Instant::now(), stream));
        }
        ask(&mut other, &mut standing, &mut serial, &program);
    }
    let count = open.len();
    while !open.is_empty() && began.elapsed() < PATIENCE {
        open.retain_mut(|(since, stream)| {
            let is_open = stream.write(b"x").is_ok()
                && matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            if !is_open {
                closed += 1;
                oldest = oldest.max(since.elapsed());
            }
            is_open
        });
        ask(&mut other, &mut standing, &mut serial, &program);
        std::thread::sleep(Duration::from_millis(200));
    }
    program.is_well();
    let (kept, slowest) = (program.memory_kib() - memory, other.waits.slowest());
    println!(
        "{count} dripping: {closed} closed, the last after {oldest:?}; slowest {slowest:?}; {kept} KiB kept"
    );
    // What connections took is kept for the next ones, of which there can be no more than are configured.
    assert!(kept < KEPT_MAX_KIB + CONNECTION_MAX_KIB * count as i64, "{kept} KiB");
    assert_eq!(closed, count, "after {oldest:?}");
    // Twelve seconds, and until it is noticed.
    let noticed = Duration::from_secs(if IS_SHIPPED { 15 } else { 30 });
    assert!(oldest < noticed, "{oldest:?}");
    other.waits.are_within(within(Duration::from_millis(100)));
}

/// Asks over UDP, over a connection that stands, and over a new one; notes how long each took.
#[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
fn ask(other: &mut Peer, standing: &mut TcpStream, serial: &mut u64, program: &Program) {
    *serial += 1;
    other.probe();
    let (_, stood) = probe_stream(standing, *serial).expect("who stands is answered");
    let began = Instant::now();
    let mut new = connect([127, 0, 2, 3], program.tcp).expect("room for one more");
    probe_stream(&mut new, *serial).expect("who is new is answered");
    other.waits.note(stood);
    other.waits.note(began.elapsed());
}

/// The corpora of the readers: those of 60 KB make it slow.
fn messages() -> Vec<Vec<u8>> {
    let folders = ["rfc4475", "rfc5118", "real"];
    let files =
        folders.iter().flat_map(|folder| fs::read_dir(corpus().join(folder)).expect("a folder"));
    let mut paths: Vec<_> = files.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let mut messages: Vec<_> =
        paths.iter().map(|path| fs::read(path).expect("a message")).collect();
    messages.retain(|message| message.len() < 5000);
    messages
}

/// Those of real clients: name, class, bytes.
fn real_messages() -> Vec<(String, String, Vec<u8>)> {
    let facts = fs::read(corpus().join("facts.json")).expect("facts.json");
    let facts: Vec<serde_json::Value> = serde_json::from_slice(&facts).expect("JSON");
    let of_real = facts.iter().filter_map(|fact| {
        let (name, class) = (fact["path"].as_str()?, fact["cls"].as_str()?);
        let is_real = name.starts_with("real/");
        is_real.then(|| {
            (name.to_owned(), class.to_owned(), fs::read(corpus().join(name)).expect("a message"))
        })
    });
    let all: Vec<_> = of_real.collect();
    assert_eq!(all.len(), 67);
    all
}

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}
