//! The machine: its clock, its ports, its limits.
//!
//! Owns: what is asked of the kernel and of a time server.
//! Never: changes a setting.

use super::report::{Finding, Verdict};
use crate::{
    config::{KernelPath, Listen, Rtp},
    ids::Transport,
    shell::{exposure, kernel, listeners::is_free, udp},
};
use rsntp::AsyncSntpClient;
use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    time::Duration,
};

/// Beyond this, logs and records mislead, and beyond the second, certificates look wrong.
const DRIFT_NOTE: Duration = Duration::from_secs(1);
const DRIFT_WRONG: Duration = Duration::from_secs(30);
const TIME_SERVER_WAIT: Duration = Duration::from_secs(3);
/// Two legs, each with RTP and RTCP.
const SOCKETS_A_CALL: u64 = 4;
/// Everything else that is open: listeners, the store, the control socket, connections.
const FILES_BESIDE: u64 = 64;
/// Below this many calls at a time somebody will be surprised.
const CALLS_FEW: u64 = 10;

/// Compares the clock with a time server's.
pub(super) async fn clock(server: &str) -> Finding {
    let mut client = AsyncSntpClient::new();
    client.set_timeout(TIME_SERVER_WAIT);
    match client.synchronize(server).await {
        Ok(result) => drift(result.clock_offset().as_secs_f64()).of(server),
        Err(_) => Finding::new("clock", Verdict::Unknown, "the time server does not answer")
            .of(server)
            .help("name one that can be reached: `--ntp HOST`"),
    }
}

fn drift(offset_s: f64) -> Finding {
    let off = Duration::try_from_secs_f64(offset_s.abs()).unwrap_or(Duration::MAX);
    let way = if offset_s > 0.0 { "behind" } else { "ahead" };
    let found = format!("{} ms {way}", off.as_millis());
    let help = "let a time service keep the clock: `timedatectl set-ntp true`";
    if off > DRIFT_WRONG {
        Finding::new("clock", Verdict::Wrong, found).help(help)
    } else if off > DRIFT_NOTE {
        Finding::new("clock", Verdict::Note, found).help(help)
    } else {
        Finding::new("clock", Verdict::Well, found)
    }
}

/// Tries whether a SIP port can be bound. `held` are those that a running tandem has.
pub(super) fn listener(listen: &Listen, held: &[String]) -> Finding {
    let name = format!("{}:{}", listen.transport.param(), listen.address);
    let finding = |verdict, found: &str| Finding::new("port", verdict, found).of(&name);
    if held.contains(&name) {
        return finding(Verdict::Well, "the running tandem listens there");
    }
    match is_free(listen.transport, listen.address) {
        Ok(()) => finding(Verdict::Well, "free"),
        Err(error) => finding(Verdict::Wrong, &error.to_string()).help(match listen.transport {
            Transport::Udp | Transport::Tcp | Transport::Tls => {
                "stop the program that has the port, or change `[sip] listen`"
            }
        }),
    }
}

/// Looks at the RTP ports: how many calls they carry, and who else uses them.
pub(super) fn media_ports(rtp: &Rtp, is_running: bool) -> Finding {
    let (first, last) = rtp.ports;
    let ports = u64::from(last - first) + 1;
    let calls = ports / SOCKETS_A_CALL;
    let range = format!("{first}-{last}");
    let taken = if is_running { 0 } else { taken(first, last) };
    let found = format!("room for {calls} calls at a time, {taken} ports taken by others");
    let finding = |verdict| Finding::new("rtp ports", verdict, &found).of(&range);
    let ephemeral = ephemeral_ports().filter(|(low, high)| first <= *high && *low <= last);
    if calls < CALLS_FEW {
        finding(Verdict::Note).help("widen `[rtp] ports`")
    } else if taken * 2 > ports {
        finding(Verdict::Wrong).help("move `[rtp] ports` to a range that nobody else uses")
    } else if let Some((low, high)) = ephemeral {
        finding(Verdict::Note).help(format!(
            "the system gives {low}-{high} to outgoing connections: move `[rtp] ports` below that"
        ))
    } else {
        finding(Verdict::Well)
    }
}

fn taken(first: u16, last: u16) -> u64 {
    let is_taken = |port: &u16| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)).is_err();
    (first..=last).filter(is_taken).count() as u64
}

/// Linux's range for outgoing connections.
fn ephemeral_ports() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Looks at how many SIP messages may wait while the program is busy.
pub(super) fn bursts() -> Finding {
    let socket = udp::bind((Ipv4Addr::LOCALHOST, 0).into());
    let finding = |verdict, found: &str| Finding::new("bursts", verdict, found);
    match socket.map(|socket| udp::capped_at(&socket)) {
        Ok(None) => finding(Verdict::Well, "the kernel keeps what comes at once"),
        Ok(Some(bytes)) => {
            let found = format!("the kernel keeps {} KiB of what comes at once", bytes >> 10);
            finding(Verdict::Note, &found).help(udp::CAP_HELP)
        }
        Err(error) => finding(Verdict::Unknown, &error.to_string()),
    }
}

/// Tries whether the kernel may relay, if it is to.
pub(super) fn kernel_path(wanted: &KernelPath) -> Finding {
    let finding = |verdict, found: String| Finding::new("kernel relay", verdict, found);
    match (kernel::probe(wanted), wanted) {
        (Ok(_), KernelPath::Off) => {
            finding(Verdict::Well, "off; it could run here: `[rtp] kernel = true`".to_owned())
        }
        (Err(error), KernelPath::Off) => {
            finding(Verdict::Well, format!("off; it could not run here: {error}"))
        }
        (Ok(interfaces), KernelPath::All | KernelPath::These(_)) => {
            finding(Verdict::Well, format!("between {}", interfaces.join(" ")))
        }
        (Err(error), KernelPath::All | KernelPath::These(_)) => {
            let found = format!("{error}: packets are relayed by tandem itself");
            finding(Verdict::Note, found).help(error.help())
        }
    }
}

/// Whether others on this machine can replace a file of ours, or read it.
pub(super) fn exposure(what: &'static str, path: &Path) -> Finding {
    let finding = |verdict, found: &str| Finding::new(what, verdict, found).of(path.display());
    if let Some(risk) = exposure::of_folder(path) {
        return finding(Verdict::Wrong, &risk).help(exposure::FOLDER_HELP);
    }
    match exposure::of_file(path) {
        Some(risk) => finding(Verdict::Note, &risk).help(exposure::FILE_HELP),
        None if path.exists() => finding(Verdict::Well, "ours alone"),
        None => finding(Verdict::Well, "not there yet"),
    }
}

/// Compares how many files this user may open with what the RTP ports can carry.
pub(super) fn files(rtp: &Rtp) -> Finding {
    let Some(limit) =
        fs::read_to_string("/proc/self/limits").ok().and_then(|text| open_files(&text))
    else {
        return Finding::new("files", Verdict::Unknown, "the limit cannot be read");
    };
    enough_files(limit, (u64::from(rtp.ports.1 - rtp.ports.0) + 1) / SOCKETS_A_CALL)
}

fn enough_files(limit: u64, calls: u64) -> Finding {
    let possible = limit.saturating_sub(FILES_BESIDE) / SOCKETS_A_CALL;
    let found = format!("{limit} at a time, enough for {possible} calls");
    let help = "raise it: `LimitNOFILE=` of the systemd unit, `ulimit -n`";
    if possible < CALLS_FEW {
        Finding::new("files", Verdict::Wrong, found).help(help)
    } else if possible < calls {
        Finding::new("files", Verdict::Note, found).help(help)
    } else {
        Finding::new("files", Verdict::Well, found)
    }
}

/// Reads the hard limit, to which a program may raise its own.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Codec;

    #[test]
    fn a_clock_may_be_a_little_off() {
        for (offset_s, verdict, found) in [
            (0.003, Verdict::Well, "3 ms behind"),
            (-2.0, Verdict::Note, "2000 ms ahead"),
            (3600.0, Verdict::Wrong, "3600000 ms behind"),
        ] {
            let finding = drift(offset_s);
            assert_eq!((finding.verdict, &*finding.found), (verdict, found));
        }
    }

    #[tokio::test]
    async fn a_port_is_free_ours_or_somebody_elses() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let listen = Listen { transport: Transport::Udp, address };
        assert_eq!(listener(&listen, &[]).verdict, Verdict::Wrong);
        assert_eq!(listener(&listen, &[format!("udp:{address}")]).verdict, Verdict::Well);
        drop(taken);
        assert_eq!(listener(&listen, &[]).verdict, Verdict::Well);
    }

    #[test]
    fn files_are_ours_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tandem.db");
        let verdict = || exposure("database", &file).verdict;
        assert_eq!(verdict(), Verdict::Well, "not there yet");
        fs::write(&file, "x").unwrap();
        for (mode, want) in [(0o600, Verdict::Well), (0o644, Verdict::Note)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(verdict(), want);
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let found = exposure("database", &file);
        assert_eq!(found.verdict, Verdict::Wrong);
        assert!(found.help.unwrap().contains("chmod go-w"));
    }

    #[test]
    fn what_the_kernel_keeps_is_no_mistake() {
        assert!(matches!(bursts().verdict, Verdict::Well | Verdict::Note));
    }

    #[test]
    fn media_ports_are_counted() {
        let rtp = |ports| Rtp {
            ports,
            codecs: vec![Codec::Pcmu],
            timeout: Duration::from_secs(60),
            unanswered: Duration::from_secs(30),
            workers: 1,
            coalesce: Duration::ZERO,
            dscp: 46,
            kernel: KernelPath::Off,
        };
        let few = media_ports(&rtp((10_000, 10_019)), true);
        assert_eq!(few.verdict, Verdict::Note, "{few:?}");
        assert!(few.found.starts_with("room for 5 calls"), "{few:?}");
        assert_eq!(media_ports(&rtp((10_000, 20_000)), true).verdict, Verdict::Well);
        assert_eq!(media_ports(&rtp((40_000, 50_000)), true).verdict, Verdict::Note);
    }

    #[test]
    fn the_limit_of_files_is_read_and_judged() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(524_288));
        for (limit, calls, verdict) in [
            (524_288, 2_500, Verdict::Well),
            (1_024, 2_500, Verdict::Note),
            (64, 1, Verdict::Wrong),
        ] {
            assert_eq!(enough_files(limit, calls).verdict, verdict, "{limit}");
        }
    }
}
