//! The program itself, as it is run, and somebody who asks now and then whether it is well.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How many have been started: each has media ports of its own.
static PROGRAMS: AtomicU32 = AtomicU32::new(0);
const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");
/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a question over UDP waits for its answer before it is asked again: where more comes in than a socket holds,
/// the kernel throws away what comes then.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How many may wait longer than anybody should where it is not the shipped program's figures that are asked for, of
/// few and of many: the machine is taken away now and then, and whoever asks then waits for it.
const LATE_MAX: usize = 3;
const LATE_SHARE: usize = 50;
/// Where ports for media begin: below those that the kernel gives to whoever asks for any.
const MEDIA: u32 = 10_000;
/// From where the trunk calls.
pub(crate) const TRUNK: [u8; 4] = [127, 0, 3, 1];

const RULES: &str = "[[internal.rule]]\nmatch = \"600\"\necho = true\n[[internal.rule]]\nmatch = \"_1XXX\"\n\
                     dial = \"user:{number}\"\n[[inbound.rule]]\nmatch = \"re:.*\"\necho = true\n";

/// Whether the figures are those of the program as it is shipped; a build without optimization is slower, and
/// others use the machine as well.
pub(crate) const IS_SHIPPED: bool = !cfg!(debug_assertions);

/// Returns `figure` for the program as it is shipped, ten times that for another.
pub(crate) fn within(figure: Duration) -> Duration {
    if IS_SHIPPED { figure } else { figure * 10 }
}

/// Says how many are sent: `usual`, or what `TANDEM_SIEGE` asks for.
pub(crate) fn count(usual: usize) -> usize {
    std::env::var("TANDEM_SIEGE").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// `tandem run`.
pub(crate) struct Program {
    child: Child,
    folder: TempDir,
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl Program {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with these lines at the end of its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        Self::start_as("", more)
    }

    /// The same with these lines in `[sip]`.
    pub(crate) fn start_as(sip: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let before = PROGRAMS.fetch_add(1, Ordering::Relaxed);
        let ports = MEDIA + (std::process::id() % 34) * 640 + before % 10 * 64;
        let [a, b, c, d] = TRUNK;
        let config = format!(
            "dialplan = \"rules.toml\"\n[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n{sip}\n\
             [rtp]\nports = \"{ports}-{}\"\nworkers = 1\n[store]\nurl = \"sqlite:{at}/tandem.db\"\n\
             [http]\nlisten = false\n[control]\nsocket = \"{at}/tandem.sock\"\n[trunk.carrier]\nuri = \"carrier.example.com\"\n\
             address = \"127.0.0.1:9\"\nsource = [\"{a}.{b}.{c}.{d}\"]\nqualify = false\n\
             caller_id = \"+17756187988\"\n[user.1001]\npassword = \"correct horse\"\n{more}",
            ports + 63,
        );
        for (name, text) in [("pbx.toml", &*config), ("rules.toml", RULES)] {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        }
        let child = Command::new(PROGRAM)
            .args(["run", "-c"])
            .arg(folder.path().join("pbx.toml"))
            .env("TANDEM_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("the program runs");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program = Self { child, folder, udp: nowhere, tcp: nowhere };
        (program.udp, program.tcp) = program.listeners();
        program
    }

    /// Asks as an operator does, until there is an answer.
    #[expect(clippy::disallowed_methods, reason = "waits for another process")]
    fn listeners(&self) -> (SocketAddr, SocketAddr) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let mut status = Command::new(PROGRAM);
            status.args(["status", "--json", "-c"]).arg(self.folder.path().join("pbx.toml"));
            let said = status.output().expect("the program runs").stdout;
            let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
            let address = |kind: &str| {
                let all = said["listeners"].as_array()?.iter().filter_map(|l| l.as_str());
                all.filter_map(|listener| listener.strip_prefix(kind)).next()?.parse().ok()
            };
            if let (Some(udp), Some(tcp)) = (address("udp:"), address("tcp:")) {
                return (udp, tcp);
            }
        }
        panic!("it does not start: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Asserts that it runs, and that no step of it has panicked.
    pub(crate) fn is_well(&mut self) {
        assert_eq!(self.child.try_wait().expect("a child"), None, "it is gone: {}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// Memory that is its own, in KiB: without what is mapped from files.
    pub(crate) fn memory_kib(&self) -> i64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Asks `peer` until no more than `max` descriptors are open: connections end a little after their peers.
    #[expect(clippy::disallowed_methods, reason = "waits for another process")]
    pub(crate) fn comes_down_to(&self, max: usize, peer: &mut Peer) {
        let began = Instant::now();
        while self.descriptors() > max {
            assert!(began.elapsed() < PATIENCE, "{} descriptors, not {max}", self.descriptors());
            peer.probe();
        }
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("Linux").count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// How long each of many waited.
#[derive(Debug, Default)]
pub(crate) struct Waits(Vec<Duration>);

impl Waits {
    pub(crate) fn note(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) fn slowest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// Asserts that nobody waited as long as this; where the program is not the one that is shipped, but for those whom
    /// the machine kept waiting.
    pub(crate) fn are_within(&self, most: Duration) {
        let late: Vec<_> = self.0.iter().filter(|took| **took >= most).collect();
        let many = self.0.len();
        let late_max = if IS_SHIPPED { 0 } else { LATE_MAX + many / LATE_SHARE };
        assert!(late.len() <= late_max, "{late:?} of {many}, not {most:?}");
    }
}

/// Somebody unknown with a socket of its own.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) socket: UdpSocket,
    serial: u64,
    /// How long it waited for each answer to OPTIONS.
    pub(crate) waits: Waits,
}

impl Peer {
    pub(crate) fn new(ip: [u8; 4], remote: SocketAddr) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).expect("a socket");
        socket.connect(remote).expect("loopback");
        socket.set_read_timeout(Some(ASK_AGAIN)).expect("a limit");
        Self { socket, serial: 0, waits: Waits::default() }
    }

    /// Asks OPTIONS; returns whatever came before its answer.
    #[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
    pub(crate) fn probe(&mut self) -> Vec<Vec<u8>> {
        self.serial += 1;
        let (local, began) = (self.socket.local_addr().expect("bound"), Instant::now());
        let probe = options("UDP", local, self.serial);
        self.socket.send(probe.as_bytes()).expect("sent");
        let (wanted, mut before) = (call_id(local, self.serial), vec![]);
        let mut buffer = vec![0; 70_000];
        loop {
            let len = match self.socket.recv(&mut buffer) {
                Ok(len) => len,
                Err(error) => {
                    let is_early = [ErrorKind::WouldBlock, ErrorKind::Interrupted];
                    assert!(is_early.contains(&error.kind()), "{error}");
                    assert!(began.elapsed() < PATIENCE, "OPTIONS is not answered");
                    self.socket.send(probe.as_bytes()).expect("sent");
                    continue;
                }
            };
            let heard = buffer[..len].to_vec();
            if String::from_utf8_lossy(&heard).contains(&wanted) {
                assert!(heard.starts_with(b"SIP/2.0 200 "), "{}", heard.escape_ascii());
                self.waits.note(began.elapsed());
                return before;
            }
            before.push(heard);
        }
    }
}

/// Asks OPTIONS over a connection; returns what came before the answer, and how long it took.
#[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
pub(crate) fn probe_stream(stream: &mut TcpStream, serial: u64) -> Option<(Vec<u8>, Duration)> {
    let (local, began) = (stream.local_addr().ok()?, Instant::now());
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(options("TCP", local, serial).as_bytes()).ok()?;
    let (wanted, mut heard) = (call_id(local, serial), vec![]);
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer).ok().filter(|len| *len > 0)?;
        heard.extend_from_slice(&buffer[..len]);
        let text = String::from_utf8_lossy(&heard);
        if let Some(at) = text.find(&wanted) {
            let begin = text[..at].rfind("SIP/2.0 200 ")?;
            heard.truncate(begin);
            return Some((heard, began.elapsed()));
        }
    }
}

fn call_id(local: SocketAddr, serial: u64) -> String {
    format!("probe-{serial}-of-{}", local.port())
}

pub(crate) fn options(transport: &str, local: SocketAddr, serial: u64) -> String {
    format!(
        "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bKp{serial};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:probe@pbx>;tag=1\r\nTo: <sip:pbx>\r\nCall-ID: {}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        call_id(local, serial)
    )
}

/// Connects from an address of ours.
pub(crate) fn connect(ip: [u8; 4], remote: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), 0).into())?;
    // Closed at once and without a trace: ports are scarce.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect(&remote.into())?;
    Ok(socket.into())
}
