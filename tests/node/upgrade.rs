//! The program replaced while it works: what is under way stays, what is new is the new one's.
#![expect(clippy::disallowed_methods, reason = "somebody talks while the test does other things")]

use super::{
    lasting::user,
    phone::{Phone, Talk, sdp},
    program::{Program, listens_at},
    rig::{PATIENCE, Rig, UDP_AND_TCP, soon},
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};
use tandem::{
    observe::status::{CdrQuery, Request, Response},
    shell::control,
    sip::Message,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

/// What somebody says at least, from when the echo is there: enough for a loss to be seen, however quick the machine.
const SAID_MIN: u16 = 25;

/// Somebody who talks to an echo and listens: a packet every 20 ms, until told to stop.
struct Talker {
    talking: JoinHandle<Vec<u16>>,
    stop: oneshot::Sender<()>,
    said: Arc<AtomicU16>,
}

impl Talker {
    fn start(socket: UdpSocket, to: SocketAddr) -> Self {
        let (stop, stopped) = oneshot::channel();
        let said = Arc::new(AtomicU16::new(0));
        let talking = tokio::spawn(talk_and_listen(socket, to, stopped, said.clone()));
        Self { talking, stop, said }
    }

    /// How many packets it has sent.
    fn said(&self) -> u16 {
        self.said.load(Relaxed)
    }

    /// Returns the numbers of those that did not come back, of all since the first that did.
    async fn stop(self) -> Vec<u16> {
        self.stop.send(()).unwrap();
        soon("the end of the talk", self.talking).await.unwrap()
    }
}

async fn talk_and_listen(
    socket: UdpSocket,
    to: SocketAddr,
    mut stopped: oneshot::Receiver<()>,
    said: Arc<AtomicU16>,
) -> Vec<u16> {
    let (mut sent, mut came) = (0, BTreeSet::new());
    let mut every = interval(Duration::from_millis(20));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; 500];
    let mut is_told_to_stop = false;
    while !is_told_to_stop || came.first().is_none_or(|first| sent - first < SAID_MIN) {
        tokio::select! {
            _ = &mut stopped, if !is_told_to_stop => is_told_to_stop = true,
            _ = every.tick() => {
                socket.send_to(&rtp(sent), to).await.unwrap();
                sent += 1;
                said.store(sent, Relaxed);
            }
            got = socket.recv_from(&mut buffer) => {
                came.insert(number_in(&buffer[..got.unwrap().0]));
            }
        }
    }
    let lost = |came: &BTreeSet<u16>| {
        let since = *came.first().unwrap();
        (since..sent).filter(|number| !came.contains(number)).collect::<Vec<_>>()
    };
    // What is still on its way.
    while !lost(&came).is_empty()
        && let Ok(got) = timeout(PATIENCE / 3, socket.recv_from(&mut buffer)).await
    {
        came.insert(number_in(&buffer[..got.unwrap().0]));
    }
    lost(&came)
}

/// A packet that says its own number.
fn rtp(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 160).to_be_bytes());
    packet.extend([1, 2, 3, 4]);
    packet.extend(seq.to_be_bytes());
    packet.extend([0x55; 158]);
    packet
}

fn number_in(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[12], packet[13]])
}

/// A socket at an even port.
async fn media() -> UdpSocket {
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if socket.local_addr().unwrap().port().is_multiple_of(2) {
            return socket;
        }
    }
}

/// Where the answer wants media.
fn media_of(answer: &Message) -> SocketAddr {
    let sdp = String::from_utf8_lossy(answer.body()).into_owned();
    let line = sdp.lines().find(|line| line.starts_with("m=audio ")).unwrap();
    let port = line.split(' ').nth(1).unwrap().parse().unwrap();
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

async fn ask(rig: &Rig, request: Request) -> Response {
    soon("the operator's answer", control::ask(&rig.socket(), &request)).await.unwrap()
}

async fn calls(rig: &Rig) -> usize {
    let Response::Calls(calls) = ask(rig, Request::Calls).await else { panic!() };
    calls.len()
}

/// Calls a phone of the house, which answers; both stay.
async fn talk(caller: &mut Phone, callee: &mut Phone, number: &str) -> Talk {
    caller.dial(number).await;
    let invite = callee.heard().await;
    callee.answer(&invite, 200, &sdp(callee.link.local())).await;
    assert_eq!(callee.heard().await.method_token(), "ACK");
    let (ok, talk) = caller.dialled().await;
    assert_eq!(ok.status(), 200);
    talk
}

/// How many calls the trunk carries, and how many 1001 has had in the last hour.
async fn counted(rig: &Rig) -> (u64, u32) {
    let Response::Trunks(trunks) = ask(rig, Request::Trunks).await else { panic!() };
    let Response::Budgets(rows) = ask(rig, Request::Budgets).await else { panic!() };
    let row = rows.iter().find(|row| row.name == "1001");
    (trunks[0].calls, row.map_or(0, |row| row.calls_per_hour.used))
}

/// Why calls ended of which there are records; waits for the first.
async fn lost(socket: &Path) -> Vec<String> {
    let looking = async {
        loop {
            let answer = control::ask(socket, &Request::Cdr(CdrQuery::default())).await;
            let Ok(Response::Cdrs(cdrs)) = answer else { panic!("{answer:?}") };
            if !cdrs.is_empty() {
                return cdrs.into_iter().map(|cdr| cdr.ending.why.unwrap().code).collect();
            }
        }
    };
    soon("a record", looking).await
}

/// What limits and budgets go by does not begin anew: the call of the old process counts until it ends.
#[tokio::test]
async fn the_new_process_counts_what_the_old_one_has_counted() {
    let carrier = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let rig = Rig::with_carrier(carrier.local_addr().unwrap());
    let old = Program::start(&rig, "info").await;
    let remote = listens_at(&rig).await;
    let mut carrier = Phone::over("carrier", remote, carrier).await;
    let mut phone = Phone::udp("1001", remote).await;
    let mut call = talk(&mut phone, &mut carrier, "4155550199").await;
    old.signal("USR2");
    let heir = old.hands_over().await;
    assert_ne!(heir, old.pid());
    assert_eq!(counted(&rig).await, (1, 1));
    assert_eq!(phone.hang_up(&mut call).await.status(), 200);
    carrier.is_hung_up().await;
    let ended = async { while counted(&rig).await != (0, 1) {} };
    soon("the end of the call", ended).await;
    // Each has its own, and the new one's are counted as well.
    let mut call = talk(&mut phone, &mut carrier, "4155550199").await;
    assert_eq!(counted(&rig).await, (1, 2));
    assert_eq!(phone.hang_up(&mut call).await.status(), 200);
    carrier.is_hung_up().await;
    kill(heir, "INT");
    old.kill();
}

/// Whichever of the two processes is killed: its call counts no more, and the other one's goes on and can be hung up.
#[tokio::test]
async fn the_calls_of_a_process_that_is_killed_count_no_more() {
    for is_heir_killed in [true, false] {
        let carrier = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let rig = Rig::with_carrier(carrier.local_addr().unwrap());
        rig.configure(UDP_AND_TCP, &user("1002"));
        let old = Program::start(&rig, "info").await;
        let remote = listens_at(&rig).await;
        let mut carrier = Phone::over("carrier", remote, carrier).await;
        let mut phones = [Phone::udp("1001", remote).await, Phone::udp("1002", remote).await];
        let mut elders = talk(&mut phones[0], &mut carrier, "4155550199").await;
        old.signal("USR2");
        let heir = old.hands_over().await;
        let mut heirs = talk(&mut phones[1], &mut carrier, "4155550199").await;
        let aside = rig.path("tandem.sock.00");
        let counted = async |socket: &Path| {
            let answer = control::ask(socket, &Request::Trunks).await;
            let Ok(Response::Trunks(trunks)) = answer else { panic!("{answer:?}") };
            trunks[0].calls
        };
        for socket in [&aside, &rig.socket()] {
            soon("both calls", async { while counted(socket).await != 2 {} }).await;
        }
        // What is killed before a call is written down leaves no record of it.
        let file = rusqlite::Connection::open(rig.path("tandem.db")).unwrap();
        let count = || file.query_row("SELECT count(*) FROM running", [], |row| row.get(0));
        soon("the rows of both calls", async {
            while count() != Ok(2_i64) {
                tokio::task::yield_now().await
            }
        })
        .await;
        if is_heir_killed {
            kill(heir, "KILL");
            soon("one call", async { while counted(&aside).await != 1 {} }).await;
            assert_eq!(lost(&aside).await, ["X002"]);
            // What is new is not for a process that ends with its calls.
            assert_eq!(phones[1].call("600").await.0.status(), 503);
            assert_eq!(phones[0].hang_up(&mut elders).await.status(), 200);
            carrier.is_hung_up().await;
            assert!(old.ended().await.success());
        } else {
            old.kill();
            soon("one call", async { while counted(&rig.socket()).await != 1 {} }).await;
            assert_eq!(lost(&rig.socket()).await, ["X002"]);
            assert_eq!(phones[1].hang_up(&mut heirs).await.status(), 200);
            carrier.is_hung_up().await;
            soon("no call", async { while counted(&rig.socket()).await != 0 {} }).await;
            kill(heir, "INT");
        }
    }
}

#[tokio::test]
async fn an_upgrade_loses_no_call_no_packet_and_no_registration() {
    let rig = Rig::new(&format!("{}{}", user("1002"), user("1003")));
    let old = Program::start(&rig, "info").await;
    let remote = listens_at(&rig).await;

    // One talks to the echo, with media; one is registered over a connection and rings.
    let socket = media().await;
    let mut speaker = Phone::udp("1001", remote).await;
    speaker.media = Some(socket.local_addr().unwrap());
    let (ok, mut speech) = speaker.call("600").await;
    assert_eq!(ok.status(), 200);
    let talker = Talker::start(socket, media_of(&ok));
    let mut callee = Phone::tcp("1002", remote).await;
    assert_eq!(callee.register(600).await.status(), 200);
    let mut mobile = Phone::udp("1003", remote).await;
    assert_eq!(mobile.register(600).await.status(), 200);
    mobile.dial("1002").await;
    let ringing = callee.heard().await;
    callee.answer(&ringing, 180, "").await;

    old.signal("USR2");
    let heir = old.hands_over().await;
    assert_ne!(heir, old.pid());
    assert_eq!(calls(&rig).await, 2, "the new process tells of the calls of the old one");

    // What was under way goes on: by the connection that the old process has, and past it.
    callee.answer(&ringing, 200, &sdp(callee.link.local())).await;
    assert_eq!(callee.heard().await.method_token(), "ACK");
    let (ok, mut mobile_talk) = mobile.dialled().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(mobile.hang_up(&mut mobile_talk).await.status(), 200);
    callee.is_hung_up().await;

    // What is new is the new one's, also for a phone whose connection the old one has.
    assert_eq!(callee.register(600).await.status(), 200);
    let mut talk = talk(&mut mobile, &mut callee, "1002").await;
    assert_eq!(calls(&rig).await, 2);
    assert_eq!(mobile.hang_up(&mut talk).await.status(), 200);
    callee.is_hung_up().await;

    assert_eq!(talker.stop().await, [0; 0], "packets are lost");
    assert_eq!(speaker.hang_up(&mut speech).await.status(), 200);
    // Each process writes its own, and not at once.
    let recorded = async {
        loop {
            let answer = ask(&rig, Request::Cdr(CdrQuery::default())).await;
            let Response::Cdrs(cdrs) = answer else { panic!("{answer:?}") };
            if cdrs.len() == 3 {
                return;
            }
        }
    };
    soon("three records", recorded).await;

    // Whoever is asked to end while the old process answers copies of requests waits for it.
    kill(heir, "INT");
    old.kill();
}

/// Whoever loses a connection connects and registers anew: not all at once.
#[tokio::test]
async fn connections_of_the_old_process_end_one_after_the_other() {
    const COUNT: u32 = 300;
    let least = Duration::from_millis(5) * COUNT * 2 / 3;
    let mut too_short = vec![];
    // Whoever is held up sees ends together that came one after the other: then it is tried again.
    while too_short.len() < 5 {
        let took = ending(COUNT).await;
        if took >= least {
            return;
        }
        too_short.push(took);
    }
    panic!("{too_short:?} for {COUNT}, not {least:?}");
}

/// Upgrades a program that so many are connected to. Returns how long it is from the end of the first connection to
/// that of the last.
async fn ending(count: u32) -> Duration {
    let rig = Rig::new("");
    let old = Program::start(&rig, "info").await;
    let remote = listens_at(&rig).await;
    let mut streams = vec![];
    for n in 0..count {
        let mut stream = TcpStream::connect(remote).await.unwrap();
        let options = format!(
            "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK{n}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@pbx>;tag=1\r\nTo: <sip:pbx>\r\nCall-ID: {n}\r\n\
             CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(options.as_bytes()).await.unwrap();
        let mut buffer = [0; 2048];
        let len = soon("an answer", stream.read(&mut buffer)).await.unwrap();
        assert!(buffer[..len].starts_with(b"SIP/2.0 200 "));
        streams.push(stream);
    }
    old.signal("USR2");
    let heir = old.hands_over().await;
    let mut ends = vec![];
    let mut closing = JoinSet::new();
    for mut stream in streams {
        closing.spawn(async move {
            let read = stream.read(&mut [0; 64]).await.unwrap();
            assert_eq!(read, 0, "it is closed, and not cut off");
            std::time::Instant::now()
        });
    }
    while let Some(end) = soon("the end of a connection", closing.join_next()).await {
        ends.push(end.unwrap());
    }
    kill(heir, "INT");
    old.kill();
    ends.sort();
    ends[ends.len() - 1] - ends[0]
}

/// Each with another user, while somebody talks.
#[tokio::test]
async fn a_hundred_reloads_lose_no_call_and_no_packet() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "warn").await;
    let socket = media().await;
    let mut speaker = Phone::udp("1001", listens_at(&rig).await).await;
    speaker.media = Some(socket.local_addr().unwrap());
    let (ok, mut speech) = speaker.call("600").await;
    assert_eq!(ok.status(), 200);
    let talker = Talker::start(socket, media_of(&ok));
    let mut n = 0;
    // However quick they are, something is said meanwhile.
    while n < 100 || talker.said() < 2 * SAID_MIN {
        rig.configure(UDP_AND_TCP, &user(&format!("{}", 1100 + n % 800)));
        n += 1;
        let Response::Reload(report) = ask(&rig, Request::Reload).await else { panic!() };
        assert!(report.is_applied && !report.changes.is_empty(), "{report:?}");
    }
    assert_eq!(talker.stop().await, [0; 0], "packets are lost");
    assert_eq!(calls(&rig).await, 1);
    assert_eq!(speaker.hang_up(&mut speech).await.status(), 200);
    program.kill();
}

/// Where it listens is what only another process can change: a reload starts it.
#[tokio::test]
async fn a_reload_that_moves_the_listeners_keeps_the_calls() {
    let rig = Rig::new("");
    let old = Program::start(&rig, "info").await;
    let former = listens_at(&rig).await;
    let mut speaker = Phone::udp("1001", former).await;
    let (ok, mut speech) = speaker.call("600").await;
    assert_eq!(ok.status(), 200);

    rig.configure(r#"["udp:127.0.0.2:0"]"#, &user("1002"));
    let Response::Reload(plan) = ask(&rig, Request::PlanReload).await else { panic!() };
    assert!(plan.is_plan && plan.is_replaceable && plan.process.is_none(), "{plan:?}");
    assert_eq!(plan.by_process, ["[sip] listen"]);
    let Response::Reload(report) = ask(&rig, Request::Reload).await else { panic!() };
    assert!(report.is_applied, "{report:?}");
    let heir = old.hands_over().await;
    assert_eq!(report.process, Some(heir));

    let moved = listens_at(&rig).await;
    assert_eq!(moved.ip(), Ipv4Addr::new(127, 0, 0, 2));
    let mut phone = Phone::udp("1002", moved).await;
    assert_eq!(phone.register(600).await.status(), 200);
    // The former address is its calls' alone: what else is asked there has no answer.
    assert!(TcpStream::connect(former).await.is_err());
    let options = speaker.options();
    speaker.link.send(options.as_bytes()).await;
    let end = speaker.hang_up(&mut speech).await;
    assert_eq!((end.status(), end.cseq().method), (200, tandem::sip::Method::Bye));
    let gone = async { while calls(&rig).await > 0 {} };
    soon("the end of the call", gone).await;
    kill(heir, "INT");
    old.kill();
}

/// Without a sound configuration there is no other process, and no change at all.
#[tokio::test]
async fn a_reload_that_moves_a_listener_to_a_taken_port_changes_nothing() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let rig = Rig::new("");
    let program = Program::start(&rig, "info").await;
    let remote = listens_at(&rig).await;
    rig.configure(&format!("[\"udp:{}\"]", taken.local_addr().unwrap()), &user("1002"));
    let Response::Reload(report) = ask(&rig, Request::Reload).await else { panic!() };
    assert!(!report.is_applied && report.process.is_none(), "{report:?}");
    let why = report.problems.last().unwrap();
    assert!(why.contains("the new process does not come to serve: it has ended"), "{report:?}");
    assert_eq!(listens_at(&rig).await, remote);
    let Response::Phones(phones) = ask(&rig, Request::Phones).await else { panic!() };
    assert_eq!(phones.len(), 1, "the new user is not there either");
    let mut phone = Phone::udp("1001", remote).await;
    assert_eq!(phone.register(600).await.status(), 200);
    program.kill();
}

/// Whether it is the configuration or the program, nothing has happened.
#[tokio::test]
async fn where_the_new_process_does_not_start_the_old_one_goes_on() {
    let rig = Rig::new(&user("1002"));
    let program = Program::start(&rig, "info").await;
    let remote = listens_at(&rig).await;
    let mut callee = Phone::tcp("1002", remote).await;
    assert_eq!(callee.register(600).await.status(), 200);
    rig.write("pbx.toml", "[sip]\nlisten = \"nonsense\"\n");
    let Response::Refused(why) = ask(&rig, Request::Upgrade).await else { panic!() };
    assert!(why.contains("the new process does not come to serve"), "{why}");
    rig.configure(UDP_AND_TCP, &user("1002"));

    let mut caller = Phone::udp("1001", remote).await;
    let mut talk = talk(&mut caller, &mut callee, "1002").await;
    assert_eq!(caller.hang_up(&mut talk).await.status(), 200);
    callee.is_hung_up().await;

    // And then it can.
    let Response::Done(said) = ask(&rig, Request::Upgrade).await else { panic!() };
    assert!(said.contains("serves"), "{said}");
    let heir = program.hands_over().await;
    let (ok, mut talk) = caller.call("600").await;
    assert_eq!(ok.status(), 200);
    assert_eq!(caller.hang_up(&mut talk).await.status(), 200);
    kill(heir, "INT");
    program.kill();
}

fn kill(pid: u32, signal: &str) {
    let status = std::process::Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(status.unwrap().success());
}
