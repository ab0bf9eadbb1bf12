//! The programs that are measured: how each is configured, started, known to be ready, and ended.
//!
//! Owns: their processes and configurations. Never: a load.

use super::place::Place;
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    fmt::Write as _,
    fs,
    fs::{File, Permissions},
    net::UdpSocket,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end before it is killed.
const END_MAX: Duration = Duration::from_secs(5);
/// Where all of them listen.
pub(super) const TARGET: &str = "127.0.0.1:5060";
/// Where rtpengine is controlled.
pub(super) const RTPENGINE: &str = "127.0.0.1:2223";
/// The forced From.
pub(super) const FROM_USER: &str = "+17756187988";
/// The caller with digest and the phones.
pub(super) const PASSWORD: &str = "phone-secret";

/// A program at work.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// From starting the process to being told that it is ready.
    pub(super) ready: Duration,
}

impl Running {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // Two: the second one ends calls that are up.
        let is_told = (0..2).all(|_| kill(pid, Signal::SIGTERM).is_ok());
        if !is_told || !self.wait(END_MAX) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What differs between Tandem's configurations here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Setup {
    /// Media workers on all cores; without it one, and all of Tandem on the target's core.
    pub(super) workers: Option<u32>,
    /// Users 100000 and up.
    pub(super) phones: u32,
    /// The knob of the media workers, in ms.
    pub(super) coalesce_ms: u32,
}

/// Starts Tandem as users would, its log in a file.
///
/// # Errors
/// If its configuration has mistakes, or it does not get ready.
pub(super) fn tandem(place: &Place, program: &Path, setup: Setup) -> Result<Running> {
    let folder = place.folder().join("tandem");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("pbx.toml"), configuration(&folder, setup)?)?;
    // There are passwords in it, of which there would be a warning each.
    fs::set_permissions(folder.join("pbx.toml"), Permissions::from_mode(0o600))?;
    fs::write(
        folder.join("rules.toml"),
        "[[bench.rule]]\nmatch = \"_+.\"\ndial = \"trunk:out\"\n",
    )?;
    let socket = folder.join("ready.sock");
    let ready = UnixDatagram::bind(&socket)?;
    ready.set_read_timeout(Some(START_MAX))?;
    let log = File::create(folder.join("log"))?;
    let mut command = Command::new(program);
    command.args(["run", "-c"]).arg(folder.join("pbx.toml"));
    command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    let start = Instant::now();
    let child = match setup.workers {
        Some(_) => place.spawn_on_both(&mut command)?,
        None => place.spawn_on(place.target_core, &mut command)?,
    };
    let mut running = Running { child, ready: Duration::ZERO };
    let mut buffer = [0; 1024];
    ready.set_read_timeout(Some(Duration::from_millis(50)))?;
    while start.elapsed() < START_MAX {
        if let Ok(length) = ready.recv(&mut buffer) {
            running.ready = start.elapsed();
            if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(running);
            }
        }
        if running.child.try_wait()?.is_some() {
            break;
        }
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    bail!("{} does not get ready: {}", program.display(), log.lines().last().unwrap_or_default())
}

fn configuration(folder: &Path, setup: Setup) -> Result<String> {
    let folder = folder.display();
    let workers = setup.workers.unwrap_or(1);
    let mut text = format!(
        r#"dialplan = ["rules.toml"]
[node]
country = "US"
public_ip = "127.0.0.1"
[sip]
listen = ["udp:{TARGET}"]
[rtp]
ports = "10000-59999"
workers = {workers}
"#
    );
    if setup.coalesce_ms > 0 {
        writeln!(text, "coalesce = \"{}ms\"", setup.coalesce_ms)?;
    }
    write!(
        text,
        r#"[http]
listen = "127.0.0.1:8090"
[store]
url = "sqlite:{folder}/tandem.db"
[log]
level = "info"
[control]
socket = "{folder}/tandem.sock"
[trunk.in]
uri = "127.0.0.10:5060"
context = "bench"
max_rate = false
[trunk.out]
uri = "127.0.0.20:5060"
context = "bench"
caller_id = "{FROM_USER}"
max_rate = false
[user.1001]
password = "{PASSWORD}"
context = "bench"
"#
    )?;
    for user in 100_000..100_000 + setup.phones {
        writeln!(text, "[user.{user}]\npassword = \"{PASSWORD}\"\ncontext = \"bench\"")?;
    }
    Ok(text)
}

/// Starts the least possible B2BUA.
///
/// # Errors
/// If it does not answer.
pub(super) fn floor_b2bua(place: &Place) -> Result<Running> {
    let mut command = own();
    command.args(["floor-b2bua", "--from-user", FROM_USER, "--listen", TARGET]);
    answering(place, &mut command)
}

/// Starts the least possible forwarder of RTP.
///
/// # Errors
/// If it does not get ready.
pub(super) fn floor_relay(place: &Place, calls: u32, coalesce_ms: u32) -> Result<Running> {
    let mut command = own();
    command.args(["floor-relay", "--calls", &calls.to_string()]);
    command.args(["--coalesce", &(coalesce_ms * 1000).to_string()]).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = place.spawn_on(place.target_core, &mut command)?;
    let output = child.stdout.take().context("a pipe")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    let running = Running { child, ready: start.elapsed() };
    if line.trim() == "ready" { Ok(running) } else { bail!("floor-relay does not get ready") }
}

/// Starts Kamailio as a proxy that stays in the dialog.
///
/// # Errors
/// If it is not installed, or does not answer.
pub(super) fn kamailio(place: &Place) -> Result<Running> {
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/kamailio.cfg");
    let mut command = Command::new("kamailio");
    // -DD: in the foreground, with its children.
    command.args(["-DD", "-E", "-m", "256", "-M", "16", "-f"]).arg(configuration);
    command.arg("-Y").arg(place.folder());
    command.stdout(Stdio::null()).stderr(File::create(place.folder().join("kamailio.log"))?);
    answering(place, &mut command)
}

/// Starts rtpengine as a relay in user space.
///
/// # Errors
/// If it is not installed, or does not answer.
pub(super) fn rtpengine(place: &Place) -> Result<Running> {
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/rtpengine.conf");
    let mut command = Command::new("rtpengine");
    command.arg(format!("--config-file={}", configuration.display()));
    command.stdout(Stdio::null()).stderr(File::create(place.folder().join("rtpengine.log"))?);
    answering_to(place, &mut command, RTPENGINE, "1 d7:command4:pinge")
}

/// Starts SIPp's own called side.
///
/// # Errors
/// If it is not installed.
pub(super) fn sipp_callee(place: &Place) -> Result<Running> {
    let mut command = Command::new("sipp");
    command.args(["-sn", "uas", "-i", "127.0.0.20", "-p", "5060", "-nostdin"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir(place.folder());
    let child = place.spawn_on(place.own_core, &mut command)?;
    Ok(Running { child, ready: Duration::ZERO })
}

/// Starts a program that answers OPTIONS once it is ready.
fn answering(place: &Place, command: &mut Command) -> Result<Running> {
    let local = "127.0.0.9:5060";
    let options = format!(
        "OPTIONS sip:{TARGET} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKready;rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:bench@{local}>;tag=1\r\nTo: <sip:{TARGET}>\r\n\
         Call-ID: ready\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    answering_to(place, command, TARGET, &options)
}

/// Starts a program that answers a datagram once it is ready.
fn answering_to(
    place: &Place,
    command: &mut Command,
    target: &str,
    question: &str,
) -> Result<Running> {
    let start = Instant::now();
    let child = place.spawn_on(place.target_core, command)?;
    let mut running = Running { child, ready: Duration::ZERO };
    let socket = UdpSocket::bind("127.0.0.9:5060")?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    while start.elapsed() < START_MAX && running.child.try_wait()?.is_none() {
        // Before it listens, sending may meet a closed port.
        let _ = socket.send_to(question.as_bytes(), target);
        if socket.recv(&mut [0; 2048]).is_ok() {
            running.ready = start.elapsed();
            return Ok(running);
        }
    }
    bail!("{command:?} does not answer")
}

/// This program again.
pub(super) fn own() -> Command {
    // In the worst case the shell's path has it.
    Command::new(env::current_exe().unwrap_or_else(|_| PathBuf::from("tandem-bench")))
}
