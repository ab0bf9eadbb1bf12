//! The generator drives the floor for a second, and finds nothing wrong.

use std::{
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tandem_bench::Sample;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem-bench");

struct Floor {
    process: Child,
    address: SocketAddr,
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Floor {
    fn start(callee: SocketAddr) -> Self {
        let address = free("127.0.7.1");
        let process = Command::new(PROGRAM)
            .args(["floor-b2bua", "--listen", &address.to_string()])
            .args(["--callee", &callee.to_string()])
            .spawn()
            .expect("it starts");
        let floor = Self { process, address };
        floor.answers();
        floor
    }

    fn answers(&self) {
        let socket = UdpSocket::bind("127.0.7.9:0").expect("bound");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        let options = "OPTIONS sip:floor SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nCall-ID: 1\r\n\r\n";
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            socket.send_to(options.as_bytes(), self.address).expect("sent");
            if socket.recv(&mut [0; 2000]).is_ok() {
                return;
            }
        }
        panic!("the floor does not answer");
    }
}

fn free(address: &str) -> SocketAddr {
    UdpSocket::bind((address, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

fn called(floor: &Floor, callee: SocketAddr, arguments: &[&str]) -> Sample {
    let callee = callee.to_string();
    let ends = ["--caller", "127.0.7.10:0", "--callee", &callee, "--from-user", "+17756187988"];
    run(floor, &[arguments, &ends].concat())
}

fn run(floor: &Floor, arguments: &[&str]) -> Sample {
    let (load, rest) = arguments.split_first().expect("a load");
    let output = Command::new(PROGRAM)
        .args([load, "--target", &floor.address.to_string(), "--subject", "floor"])
        .args(["--pid", &floor.process.id().to_string(), "--settle", "0.1"])
        .args(rest)
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    Sample::read(&String::from_utf8_lossy(&output.stdout)).expect("a line")
}

#[test]
fn a_second_of_calls() {
    let callee = free("127.0.7.20");
    let floor = Floor::start(callee);
    let sample = called(&floor, callee, &["calls", "--rate", "200", "--seconds", "1"]);
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(200.0), "{sample:?}");
    assert_eq!(sample.figure("failed"), Some(0.0));
    let cpu = sample.figure("cpu_ms_per_call").expect("a cost");
    assert!(cpu > 0.001 && cpu < 20.0, "{cpu} ms");
    assert!(sample.figure("setup_p50_ms") > Some(0.0));
}

#[test]
fn another_number_than_the_forced_one_is_seen_on_every_call() {
    let callee = free("127.0.7.21");
    let floor = Floor::start(callee);
    let callee = callee.to_string();
    let ends = ["--caller", "127.0.7.10:0", "--callee", &callee, "--from-user", "+1"];
    let sample = run(&floor, &[&["calls", "--rate", "100", "--count", "20"][..], &ends].concat());
    let told = "20 x a From of \"+17756187988\", which must be \"+1\"";
    assert_eq!(sample.faults, [told], "{sample:?}");
}

#[test]
fn calls_are_held_while_others_come_and_go() {
    let callee = free("127.0.7.22");
    let floor = Floor::start(callee);
    let load = ["held", "--calls", "20", "--rate", "200", "--seconds", "0.1", "--beside", "30"];
    let sample = called(&floor, callee, &load);
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(50.0), "{sample:?}");
    assert_eq!(sample.figure("fds_per_call"), Some(0.0));
    assert!(sample.figure("beside_cpu_ms_per_call") > Some(0.0), "{sample:?}");
}

#[test]
fn phones_register_and_refresh() {
    let floor = Floor::start(free("127.0.7.23"));
    let load = ["register", "--phones", "20", "--rounds", "3", "--rate", "200"];
    let sample = run(&floor, &[&load[..], &["--phones-at", "127.0.7.11:0"]].concat());
    assert_eq!(sample.faults, Vec::<String>::new());
    assert_eq!(sample.figure("done"), Some(60.0), "{sample:?}");
    assert!(sample.figure("challenge_p50_ms") <= sample.figure("register_p50_ms"), "{sample:?}");
}
