//! A simulated trunk as a program: its scenario, where it listens, what it says in the end.

use crate::kinds::{FAR_KEYS, NEAR_KEYS, RINGING, Ringing};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const CALLER_ID: &str = "+17756187988";
/// From one call to a phone to the next, more than the longest of them takes where the machine is away for a second.
const EVERY: &str = "5s";
/// How much of the tone a far end must hear, in ms.
const TONE_MIN: u64 = 400;
/// Packets that may be missing: those on their way as a call is put on hold have nowhere to go.
const LOST_MAX: u64 = 3;

/// Which of the two trunks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Trunk {
    /// UDP, TCP, and plain RTP; found by its names.
    Plain,
    /// TLS and SRTP, and nothing else.
    Secure,
}

impl Trunk {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Secure => "secure",
        }
    }

    pub(crate) fn termination(self) -> String {
        format!("{}.pstn.twilio.com", self.name())
    }

    /// The second byte of its addresses.
    pub(crate) fn block(self) -> u8 {
        match self {
            Self::Plain => address(128, 1).octets()[1],
            Self::Secure => address(190, 1).octets()[1],
        }
    }
}

/// An address that no other run of this test has at the same time: by process.
pub(crate) fn address(block: u8, last: u8) -> Ipv4Addr {
    let [low, high, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, block + high % 60, low.max(1), last)
}

/// The number of a phone.
pub(crate) fn number(phone: usize) -> String {
    format!("+1775618{:04}", 7000 + phone)
}

/// A running trunk.
pub(crate) struct Carrier {
    trunk: Trunk,
    child: Child,
    said: BufReader<ChildStdout>,
    /// By transport, and `dns`.
    pub(crate) places: BTreeMap<String, SocketAddr>,
    /// Whom a PBX must trust.
    pub(crate) authority: PathBuf,
    calls_each: usize,
}

impl Carrier {
    /// Starts it; it calls the PBX, which is at these addresses by transport, once it is told to.
    pub(crate) fn start(
        trunk: Trunk,
        folder: &Path,
        pbx: &BTreeMap<&str, SocketAddr>,
        calls_each: usize,
    ) -> Self {
        let at = |ending: &str| folder.join(format!("{}.{ending}", trunk.name()));
        std::fs::write(at("toml"), scenario(trunk, pbx, calls_each)).unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["twilio-sim", "--strict", "--json", "--wait", "--scenario"])
            .arg(at("toml"))
            .arg("--ca-out")
            .arg(at("pem"))
            .env("TANDEM_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut places = BTreeMap::new();
        // The name server comes last.
        while !places.contains_key("dns") {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "the {} trunk has ended", trunk.name());
            let told: Value = serde_json::from_str(&line).unwrap();
            let address = told["address"].as_str().unwrap().parse().unwrap();
            places.insert(told["transport"].as_str().unwrap().to_owned(), address);
        }
        Self { trunk, child, said, places, authority: at("pem"), calls_each }
    }

    /// Lets it call.
    pub(crate) fn begin_calling(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    /// Ends it, and returns what is wrong. `talking` phones of it must have been heard, and the keys of
    /// `pressing` of them.
    pub(crate) fn close(mut self, (talking, pressing): (usize, usize)) -> Vec<String> {
        signal(&self.child, "INT");
        let mut problems = vec![];
        let (mut talked, mut pressed) = (0, 0);
        let mut total = Value::Null;
        for line in self.said.by_ref().lines() {
            let line = line.unwrap();
            let told: Value = serde_json::from_str(&line).unwrap();
            match told["event"].as_str() {
                Some("deviation") => problems.push(line),
                Some("call") => {
                    talked += usize::from(told["heard_ms"].as_u64() >= Some(TONE_MIN));
                    pressed += usize::from(told["digits"] == NEAR_KEYS);
                    if told["lost"].as_u64().is_none_or(|lost| lost > LOST_MAX) {
                        problems.push(format!("packets lost: {line}"));
                    }
                }
                Some("total") => total = told,
                _ => {}
            }
        }
        let wanted = (talking * self.calls_each, pressing * self.calls_each);
        let name = self.trunk.name();
        if talked < wanted.0 || pressed != wanted.1 {
            problems.push(format!(
                "far ends of the {name} trunk heard the tone in {talked} calls and keys in {pressed}, not \
                 {wanted:?}"
            ));
        }
        if total["open"].as_u64() != Some(0) || total["deviations"].as_u64() != Some(0) {
            problems.push(format!("the {name} trunk in the end: {total}"));
        }
        let status = self.child.wait().unwrap();
        if !status.success() {
            problems.push(format!("the {name} trunk ended with {status}"));
        }
        problems
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        _ = self.child.kill();
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

fn scenario(trunk: Trunk, pbx: &BTreeMap<&str, SocketAddr>, calls_each: usize) -> String {
    let (block, termination) = (trunk.block(), trunk.termination());
    let names = Ipv4Addr::new(127, block, 0, 53);
    let is_secure = trunk == Trunk::Secure;
    let mut text = format!(
        "[account]\ntermination = \"{termination}\"\nnumbers = [\"{CALLER_ID}\"]\n\
         username = \"Load\"\npassword = \"{PASSWORD}\"\n\
         [policy]\nsecure = {is_secure}\n\
         [place]\nedges = \"127.{block}.0.0\"\nport = 0\ndns = \"{names}:0\"\n\
         [far_end]\nvoice = \"tone\"\npress = \"{FAR_KEYS}\"\npost_dial = \"100ms\"\nring = \"500ms\"\n",
    );
    let phones = RINGING.iter().enumerate().filter(|(index, _)| Ringing::trunk(*index) == trunk);
    for (index, kind) in phones {
        let transport = match trunk {
            Trunk::Plain => ["udp", "tcp"][index / 4],
            Trunk::Secure => "tls",
        };
        write!(
            text,
            "[[call]]\nto = \"{transport}:{}\"\ndid = \"{}\"\nthrough = \"127.{block}.{}.1\"\n\
             at = \"{}ms\"\ncount = {calls_each}\nevery = \"{EVERY}\"\npress = \"{FAR_KEYS}\"\n{}\n",
            pbx[transport],
            number(index),
            index + 1,
            index * 100,
            kind.caller,
        )
        .unwrap();
    }
    text
}
