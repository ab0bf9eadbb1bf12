//! A target for the generator, and the generator.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{self, Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};
use tandem_bench::Sample;

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem-bench");
/// The forced From.
pub(crate) const FROM_USER: &str = "+17756187988";

/// A SIP server at work, killed in the end.
pub(crate) struct Target {
    process: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Target {
    /// Starts it, and waits until it answers.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> Self {
        let process =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut target = Self { process, address };
        let socket = UdpSocket::bind((own(9), 0)).expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        let local = socket.local_addr().expect("bound");
        let options = format!(
            "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK1;rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@{local}>;tag=1\r\nTo: <sip:{address}>\r\n\
             Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            assert_eq!(target.process.try_wait().expect("a status"), None, "it has ended");
            socket.send_to(options.as_bytes(), address).expect("sent");
            if socket.recv(&mut [0; 2000]).is_ok() {
                return target;
            }
        }
        panic!("{command:?} does not answer");
    }

    /// The least possible B2BUA.
    pub(crate) fn floor(callee: SocketAddr) -> Self {
        let address = free(1);
        let mut command = Command::new(PROGRAM);
        command.args(["floor-b2bua", "--listen", &address.to_string()]);
        command.args(["--callee", &callee.to_string()]);
        Self::start(&mut command, address)
    }

    /// Puts load on it: calls that must show the forced From.
    pub(crate) fn called(&self, callee: SocketAddr, arguments: &[&str]) -> Sample {
        let (caller, callee) = (format!("{}:0", own(10)), callee.to_string());
        let ends = ["--caller", &caller, "--callee", &callee, "--from-user", FROM_USER];
        self.run(&[arguments, &ends].concat())
    }

    /// Puts load on it; the first argument is the kind.
    pub(crate) fn run(&self, arguments: &[&str]) -> Sample {
        let (load, rest) = arguments.split_first().expect("a load");
        let output = Command::new(PROGRAM)
            .args([load, "--target", &self.address.to_string(), "--settle", "0.1"])
            .args(["--pid", &self.process.id().to_string()])
            .args(rest)
            .stderr(Stdio::inherit())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        Sample::read(&String::from_utf8_lossy(&output.stdout)).expect("a line")
    }
}

/// An address of this process: others take no ports there.
pub(crate) fn own(last: u8) -> Ipv4Addr {
    let [low, high, ..] = process::id().to_le_bytes();
    Ipv4Addr::new(127, 210 + high % 40, low, last)
}

/// A port that is free at an address of this process. Each is given once.
pub(crate) fn free(last: u8) -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let socket = UdpSocket::bind((own(last), 0)).expect("a free port");
        let address = socket.local_addr().expect("bound");
        if GIVEN.lock().expect("nobody panics").insert(address) {
            return address;
        }
    }
}
