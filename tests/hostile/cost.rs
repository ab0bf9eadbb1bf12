//! What the largest messages cost the whole core, whatever is in them.

use crate::subject::{STRANGER, Subject};
use rustix::time::{ClockId, clock_gettime};
use std::{hint::black_box, time::Duration};

/// What fits into a datagram.
const SIZE: usize = 65_000;
/// What each may take of a processor, in a build without optimization as well, or more where a machine is that much
/// slower: see [`yardstick`]. What they do take is printed.
const EACH_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 1 });
/// How many yards that is on a machine of today.
const YARDS_MAX: u32 = if cfg!(debug_assertions) { 40 } else { 15 };
/// The quickest of so many counts, until one is quick enough: others use the machine as well.
const ROUNDS: usize = 8;
/// How many of the slowest are printed.
const PRINTED: usize = 8;

/// What headers are filled with.
const UNITS: [&str; 28] = [
    ",",
    ";",
    "<",
    "\"",
    "\\",
    "\"\\\"",
    "\"a\",",
    "\"a\"b",
    "\"aaaaaaa\"bbbbbbb",
    ";a=\"\\\\\"",
    "<a>",
    "<a:b>,",
    ";a=b",
    ";a=\"",
    "a:b,",
    "%41",
    "\r\n ",
    " ",
    "Digest a=",
    "Digest realm=\"r\",",
    "(",
    "()",
    "a,",
    "\t",
    "=",
    "@",
    "[",
    "x",
];
/// Headers that are read for a stranger.
const NAMES: [&str; 21] = [
    "Via",
    "From",
    "To",
    "Contact",
    "Route",
    "Record-Route",
    "Authorization",
    "Require",
    "Supported",
    "Proxy-Require",
    "Content-Type",
    "Content-Disposition",
    "Content-Encoding",
    "Max-Forwards",
    "Subject",
    "Allow",
    "Path",
    "Privacy",
    "P-Asserted-Identity",
    "Session-Expires",
    "Call-ID",
];
/// Lines that are repeated.
const LINES: [&str; 4] = [
    "Via: SIP/2.0/UDP h,SIP/2.0/UDP h\r\n",
    "a:\r\n",
    "Contact: <a:b>\r\n",
    "Authorization: Digest\r\n",
];
/// Bodies, and what they are filled with.
const BODIES: [(&str, &str); 5] = [
    ("application/sdp", "m=audio 1 RTP/AVP 0\r\n"),
    ("application/sdp", "a=rtpmap:0 PCMU/8000\r\n"),
    ("application/sdp", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n"),
    ("multipart/mixed;boundary=b", "--b\r\n\r\n"),
    ("multipart/mixed;boundary=b", "--"),
];

#[test]
fn the_largest_message_costs_little_whatever_its_shape() {
    let mut costs: Vec<(Duration, String)> = shapes()
        .into_iter()
        .map(|(shape, message)| {
            let mut quickest = Duration::MAX;
            for _ in 0..ROUNDS {
                // One that has not heard it before.
                let mut subject = Subject::new();
                let before = processor_time();
                black_box(subject.tell(&message, STRANGER));
                quickest = quickest.min(processor_time().saturating_sub(before));
                if quickest < EACH_MAX / 2 {
                    break;
                }
            }
            (quickest, shape)
        })
        .collect();
    costs.sort_unstable_by(|a, b| b.cmp(a));
    println!("the slowest of {}: {:#?}", costs.len(), &costs[..PRINTED]);
    println!("a yard is {:?}", yardstick());
    let most = EACH_MAX.max(yardstick() * YARDS_MAX);
    costs.retain(|(took, _)| *took > most);
    assert!(costs.is_empty(), "{costs:#?}");
}

/// What it takes to go through as many bytes as there are in the largest message, and to do as little with each as there
/// is to do: the quickest of several.
fn yardstick() -> Duration {
    let text = "Contact: <a:b>\r\n".repeat(SIZE / 16);
    let rounds = (0..ROUNDS).map(|_| {
        let before = processor_time();
        black_box(text.bytes().fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(byte)));
        processor_time().saturating_sub(before)
    });
    rounds.min().unwrap_or_default()
}

/// What this thread has used of a processor.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// Messages that are one header, one line over and over, one body, one URI.
fn shapes() -> Vec<(String, Vec<u8>)> {
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    let mut shapes = vec![];
    for (method, names) in
        [("INVITE", &NAMES[..]), ("REGISTER", &["Contact", "Path", "Authorization"])]
    {
        for name in names {
            for unit in UNITS {
                let mut lines = head(method, name);
                lines.push_str(&format!("{name}: {}\r\n\r\n", start(name, &fill(unit))));
                shapes.push((format!("{method} {name} {unit:?}"), lines.into_bytes()));
            }
        }
        for line in LINES {
            let text = format!("{}{}\r\n", head(method, ""), fill(line));
            shapes.push((format!("{method} {line:?}"), text.into_bytes()));
        }
        for (kind, unit) in BODIES {
            let body = fill(unit);
            let text = format!("{}Content-Type: {kind}\r\n\r\n{body}", head(method, ""));
            shapes.push((format!("{method} {kind} {unit:?}"), text.into_bytes()));
        }
    }
    for unit in UNITS {
        shapes.push((format!("nothing but {unit:?}"), fill(unit).into_bytes()));
        let uri = format!(
            "INVITE sip:{} SIP/2.0\r\n{}",
            fill(unit),
            head("INVITE", "").split_once("\r\n").expect("lines").1
        );
        shapes.push((format!("a URI of {unit:?}"), format!("{uri}\r\n").into_bytes()));
    }
    shapes
}

/// The lines that a request needs, without one.
fn head(method: &str, without: &str) -> String {
    let lines = [
        ("", format!("{method} sip:1001@192.0.2.1 SIP/2.0")),
        ("Via", "Via: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bK1;rport".to_owned()),
        ("From", "From: <sip:1001@192.0.2.1>;tag=1".to_owned()),
        ("To", "To: <sip:1001@192.0.2.1>".to_owned()),
        ("Call-ID", "Call-ID: x".to_owned()),
        ("CSeq", format!("CSeq: 1 {method}")),
    ];
    let kept = lines.iter().filter(|(name, _)| name.is_empty() || *name != without);
    kept.map(|(_, line)| format!("{line}\r\n")).collect()
}

/// Begins a value as the header wants it, so that the rest is looked at.
fn start(name: &str, rest: &str) -> String {
    match name {
        "Via" => format!("SIP/2.0/UDP h;branch=z9hG4bK1{rest}"),
        "From" | "To" => format!("<sip:1001@192.0.2.1>;tag=1{rest}"),
        "Contact" | "Route" | "Record-Route" | "Path" => format!("<sip:1001@192.0.2.66>{rest}"),
        "Authorization" => format!("Digest username=\"1001\",realm=\"tandem\"{rest}"),
        _ => rest.to_owned(),
    }
}
