//! The program itself: signals, exit codes, and what it writes to its log.

use super::{
    lasting::user,
    phone::{Phone, sdp},
    rig::{PASSWORD, Rig, TRUNK_PASSWORD, UDP_AND_TCP, soon},
};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
};
use tandem::{
    observe::status::{Request, Response},
    shell::control,
};
use tokio::net::{UdpSocket, UnixDatagram};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");

/// `tandem run`, told to speak to us instead of systemd.
pub(crate) struct Program {
    child: Child,
    systemd: UnixDatagram,
}

impl Program {
    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(rig: &Rig, log: &str) -> Self {
        Self::start_by(Command::new(PROGRAM), rig, log).await
    }

    /// The same with a disk of so many kilobytes where `disk/` is, in a namespace of its own. `None`
    /// where we may not have one.
    pub(crate) async fn start_on_disk(rig: &Rig, kilobytes: u32) -> Option<Self> {
        let may = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) {
            return None;
        }
        let disk = rig.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={kilobytes}k none '{}' && exec '{PROGRAM}' \"$@\"",
            disk.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script, "sh"]);
        Some(Self::start_by(command, rig, "info").await)
    }

    async fn start_by(mut command: Command, rig: &Rig, log: &str) -> Self {
        _ = std::fs::remove_file(rig.path("notify"));
        let systemd = UnixDatagram::bind(rig.path("notify")).unwrap();
        let child = command
            .args(["run", "-c"])
            .arg(rig.config())
            .env("NOTIFY_SOCKET", rig.path("notify"))
            .env("TANDEM_LOG", log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(rig.path("log")).unwrap())
            .spawn()
            .unwrap();
        let program = Self { child, systemd };
        program.says("READY=1").await;
        program
    }

    /// Waits until it tells systemd so.
    async fn says(&self, state: &str) {
        let mut buffer = [0; 1024];
        let hearing = async {
            loop {
                let len = self.systemd.recv(&mut buffer).await.unwrap();
                if String::from_utf8_lossy(&buffer[..len]).lines().any(|line| line == state) {
                    return;
                }
            }
        };
        soon(state, hearing).await;
    }

    /// Waits until it says which process systemd shall watch from now on.
    pub(crate) async fn hands_over(&self) -> u32 {
        let mut buffer = [0; 1024];
        let hearing = async {
            loop {
                let len = self.systemd.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                let pid = text.lines().find_map(|line| line.strip_prefix("MAINPID="));
                let pid = pid.map(|pid| pid.parse().unwrap());
                if let Some(pid) = pid.filter(|pid| *pid != self.child.id()) {
                    return pid;
                }
            }
        };
        soon("the next process", hearing).await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it where it is not worth waiting for: it answers copies of requests for half a minute.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end. The socket to systemd tells of it by the last state it wrote.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let waiting = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        soon("the end of the program", waiting).await.unwrap()
    }
}

/// Where the program listens for UDP.
pub(crate) async fn listens_at(rig: &Rig) -> SocketAddr {
    let answer = soon("the status", control::ask(&rig.socket(), &Request::Status)).await;
    let Ok(Response::Status(status)) = answer else { panic!("{answer:?}") };
    status.listeners.iter().find_map(|l| l.strip_prefix("udp:")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_first_sigterm_drains() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "info").await;
    let mut phone = Phone::udp("1001", listens_at(&rig).await).await;
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    program.signal("TERM");
    program.says("STOPPING=1").await;
    // The order to drain follows; until it has come, one more call may be taken.
    loop {
        let (answer, mut more) = phone.call("600").await;
        if answer.status() == 503 {
            break;
        }
        assert_eq!(phone.hang_up(&mut more).await.status(), 200);
    }
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn the_second_sigterm_ends_at_once() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "info").await;
    let mut phone = Phone::udp("1001", listens_at(&rig).await).await;
    assert_eq!(phone.call("600").await.0.status(), 200);
    program.signal("TERM");
    program.says("STOPPING=1").await;
    program.signal("TERM");
    phone.is_hung_up().await;
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_sighup_reads_the_configuration_again() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "info").await;
    rig.configure(UDP_AND_TCP, &user("1003"));
    program.signal("HUP");
    let waiting = async {
        loop {
            let answer = control::ask(&rig.socket(), &Request::Phones).await;
            let Ok(Response::Phones(phones)) = answer else { panic!("{answer:?}") };
            if phones.len() == 2 {
                return;
            }
        }
    };
    soon("the new user", waiting).await;
    program.signal("INT");
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_taken_port_ends_the_program_with_a_sentence() {
    let taken = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let rig = Rig::listening(&format!(r#"["udp:{address}"]"#), "");
    let output = Command::new(PROGRAM).args(["run", "-c"]).arg(rig.config()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains(&format!("error: cannot listen on udp:{address}: ")), "{told}");
}

/// Exit codes are 0 well, 1 something is wrong, 2 not understood.
#[tokio::test]
async fn operators_commands_have_stable_exit_codes() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "info").await;
    let config = rig.config().to_string_lossy().into_owned();
    for (arguments, code, text) in [
        ("status", 0, "node"),
        ("status --json", 0, "\"listeners\""),
        ("calls", 0, "no calls"),
        ("phones", 0, "not registered"),
        ("trunks", 0, "carrier"),
        ("cdr", 0, "no records"),
        ("hangup c00-1", 1, "there is no call"),
        ("hangup nonsense", 2, ""),
        ("reload", 0, "in use"),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(arguments.split(' ')).args(["-c", &config]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = soon(arguments, output).await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {told}");
        assert!(told.contains(text), "{arguments}: {told}");
    }
    program.signal("INT");
    assert!(program.ended().await.success());
}

/// Calls out and in, refusals and wrong passwords, with the log at its most talkative: no number in
/// full, no secret.
#[tokio::test]
async fn the_log_tells_no_number_and_no_secret() {
    let carrier = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let rig = Rig::with_carrier(carrier.local_addr().unwrap());
    rig.configure(UDP_AND_TCP, &user("1002"));
    let program = Program::start(&rig, "trace").await;
    let remote = listens_at(&rig).await;
    let mut carrier = Phone::over("carrier", remote, carrier).await;
    let mut phone = Phone::udp("1001", remote).await;
    assert_eq!(phone.register(600).await.status(), 200);

    phone.dial("4155550199").await;
    challenge(&mut carrier).await;
    let invite = carrier.heard().await;
    carrier.answer(&invite, 180, "").await;
    carrier.answer(&invite, 200, &sdp(carrier.link.local())).await;
    assert_eq!(carrier.heard().await.method_token(), "ACK");
    let (ok, mut talk) = phone.dialled().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    carrier.is_hung_up().await;

    phone.dial("4155550199").await;
    challenge(&mut carrier).await;
    let invite = carrier.heard().await;
    let words = "403 From +17756187988 May Not Call +14155550199";
    carrier.answer_with(&invite, words, "X-Twilio-Error: 32204 4155550199\r\n", "").await;
    let (refused, _) = phone.dialled().await;
    assert_eq!(refused.status(), 403);

    // As people write numbers, and in words of others.
    let (unknown, _) = phone.call("(415)%20555-0199%20ext%2077").await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(refused_by_phone(&mut phone, remote).await, 486);

    // Somebody outside calls a number that nobody has.
    let (unknown, _) = carrier.call("+442071838750").await;
    assert_eq!(unknown.status(), 404);

    program.signal("INT");
    assert!(program.ended().await.success());
    let log = std::fs::read_to_string(rig.path("log")).unwrap();
    for fact in ["call started", "call ended", "trunk refused", "TRACE"] {
        assert!(log.contains(fact), "{fact}\n{log}");
    }
    for secret in ["5550199", "555-0199", "6187988", "71838750", PASSWORD, TRUNK_PASSWORD] {
        let leak = log.lines().find(|line| line.contains(secret));
        assert_eq!(leak, None, "{secret}");
    }
}

/// A core dump would hold every password and key. What aborts leaves none, whatever the machine does with
/// them, and its owner can still look at it.
#[tokio::test]
async fn there_are_no_core_dumps() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "info").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let soft = limit.split_whitespace().nth(4).unwrap();
    assert!(["0", "1"].contains(&soft), "{limit}");
    assert!(std::fs::read_dir(format!("/proc/{}/fd", program.pid())).is_ok());
    program.signal("ABRT");
    let status = program.ended().await;
    assert!(!status.core_dumped() && status.signal() == Some(6), "{status}");
}

/// What proves who a phone is, and what its voice is encrypted with, is nowhere but on the wire.
#[tokio::test]
async fn keys_and_proofs_are_shown_to_nobody() {
    let rig = Rig::new("");
    rig.configure(UDP_AND_TCP, "srtp = \"require\"\n");
    let program = Program::start(&rig, "trace").await;
    let mut phone = Phone::udp("1001", listens_at(&rig).await).await;
    assert_eq!(phone.register(600).await.status(), 200);
    let key = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let mut talk = phone.talk("600");
    let body = sdp(phone.link.local()).replace("RTP/AVP", "RTP/SAVP")
        + &format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n");
    let (ok, proof) = phone.prove(&mut talk, "INVITE", &body).await;
    assert_eq!(ok.status(), 200);
    let answer = String::from_utf8_lossy(&ok.sdp().unwrap()).into_owned();
    let ours = answer.split("inline:").nth(1).unwrap().lines().next().unwrap().to_owned();
    let response = proof.split("response=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let config = rig.config().to_string_lossy().into_owned();
    let Ok(Response::Calls(calls)) = control::ask(&rig.socket(), &Request::Calls).await else {
        panic!("no calls")
    };
    let call = calls[0].call;
    let mut shown = String::new();
    for command in
        ["calls", "phones", "status", "cdr", "call show ID", "call ladder ID", "explain ID"]
    {
        for json in ["", " --json"] {
            let command = format!("{command}{json}").replace("ID", &call.to_string());
            let mut run = Command::new(PROGRAM);
            run.args(command.split(' ')).args(["-c", &config]);
            let output = tokio::task::spawn_blocking(move || run.output().unwrap());
            shown += &String::from_utf8_lossy(&soon("an answer", output).await.unwrap().stdout);
        }
    }
    assert!(shown.contains("AES_CM_128_HMAC_SHA1_80"), "{shown}");
    program.signal("INT");
    program.signal("INT");
    assert!(program.ended().await.success());
    shown += &std::fs::read_to_string(rig.path("log")).unwrap();
    shown += &String::from_utf8_lossy(&std::fs::read(rig.path("tandem.db")).unwrap());
    assert!(shown.contains("TRACE") && shown.contains("call started"));
    for secret in [key, &ours, &response, PASSWORD] {
        assert!(secret.len() > 15, "{secret}");
        assert!(!shown.contains(secret), "{secret}\n{shown}");
    }
}

/// Calls a user of the house who refuses, and tells a number in the refusal.
async fn refused_by_phone(caller: &mut Phone, remote: SocketAddr) -> u16 {
    let mut callee = Phone::udp("1002", remote).await;
    assert_eq!(callee.register(600).await.status(), 200);
    caller.dial("1002").await;
    let invite = callee.heard().await;
    callee.answer_with(&invite, "486 Try +14155550199", "", "").await;
    caller.dialled().await.0.status()
}

/// Hears an INVITE without credentials and asks for some.
async fn challenge(carrier: &mut Phone) {
    let invite = carrier.heard().await;
    let header = "Proxy-Authenticate: Digest realm=\"sip.twilio.com\",qop=\"auth\",nonce=\"n\"\r\n";
    carrier.answer_with(&invite, "407 Proxy Authentication Required", header, "").await;
    assert_eq!(carrier.heard().await.method_token(), "ACK");
}
