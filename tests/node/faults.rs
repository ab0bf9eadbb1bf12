//! What a killed process and a broken disk cost: no call that can be kept, and no record.
#![expect(clippy::disallowed_methods, reason = "how long a restart takes is what is measured")]

use super::{
    lasting::user,
    phone::{Phone, Talk, sdp},
    program::{Program, listens_at},
    rig::{PATIENCE, Rig, ask, at, fetch, own_address, soon, until},
};
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tandem::{
    ids::Transport,
    observe::{
        cdr::{Cdr, EndedBy},
        status::{CdrQuery, Request, Response, StatusReport},
    },
    shell::control,
};

/// How many calls are up when the process is killed; `TANDEM_KILL_CALLS` says more.
const CALLS: u16 = 50;
/// Calls that ended before.
const ENDED: usize = 5;
/// What the restart may take, where that many calls were asked for.
const RESTART_MAX: Duration = Duration::from_secs(1);

async fn tell(rig: &Rig, request: Request) -> Response {
    soon("the operator's answer", control::ask(&rig.socket(), &request)).await.unwrap()
}

/// Returns every record there is.
async fn records(rig: &Rig) -> Vec<Cdr> {
    // What the shard has said before this, the store has.
    let Response::Calls(_) = tell(rig, Request::Calls).await else { panic!("no calls") };
    let query = CdrQuery { limit: 1_000, ..CdrQuery::default() };
    let Response::Cdrs(cdrs) = tell(rig, Request::Cdr(query)).await else { panic!("no records") };
    cdrs
}

async fn records_are(rig: &Rig, count: usize) {
    let waiting = async { while records(rig).await.len() < count {} };
    soon("the records", waiting).await;
}

async fn status(rig: &Rig) -> StatusReport {
    let Response::Status(report) = tell(rig, Request::Status).await else { panic!("no status") };
    *report
}

/// Calls the echo and hangs up.
async fn short_call(phone: &mut Phone) {
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
}

/// Calls a phone of the house, which answers.
async fn reach(caller: &mut Phone, callee: &mut Phone) -> Talk {
    caller.dial("1002").await;
    let invite = callee.heard().await;
    assert_eq!(invite.method_token(), "INVITE");
    callee.answer(&invite, 200, &sdp(callee.link.local())).await;
    let (ok, talk) = caller.dialled().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(callee.heard().await.method_token(), "ACK");
    talk
}

#[tokio::test]
async fn a_killed_process_leaves_a_record_of_every_call_and_its_registrations() {
    let asked = std::env::var("TANDEM_KILL_CALLS").ok().and_then(|calls| calls.parse().ok());
    let calls: u16 = asked.unwrap_or(CALLS);
    // It comes back where it was: nobody may take its port meanwhile.
    let ip = own_address();
    let listen = format!(r#"["udp:{ip}:0", "tcp:{ip}:0"]"#);
    // Some legs are open before they are wanted, where many are.
    let rig = Rig::with_legs(calls + 32, &listen, &user("1002"));
    let program = Program::start(&rig, "warn").await;
    let remote = listens_at(&rig).await;
    let mut callee = Phone::udp("1002", remote).await;
    assert_eq!(callee.register(600).await.status(), 200);
    let mut caller = Phone::udp("1001", remote).await;
    for _ in 0..ENDED {
        short_call(&mut caller).await;
    }
    for _ in 1..calls {
        assert_eq!(caller.call("600").await.0.status(), 200);
    }
    // The last one rings.
    caller.dial("1002").await;
    callee.heard().await;
    // A copy comes after half a second, longer than news of a call wait to be written.
    assert_eq!(callee.link.message().await.method_token(), "INVITE");
    records_are(&rig, ENDED).await;
    let before = records(&rig).await;
    program.kill();

    let listen = format!(r#"["udp:{remote}", "tcp:{remote}"]"#);
    rig.configure(&listen, &user("1002"));
    let began = Instant::now();
    let program = Program::start(&rig, "warn").await;
    let mut caller = Phone::udp("1001", remote).await;
    let mut talk = reach(&mut caller, &mut callee).await;
    let took = began.elapsed();
    assert!(asked.is_none() || took <= RESTART_MAX, "{took:?} to the first registered call");
    assert_eq!(caller.hang_up(&mut talk).await.status(), 200);
    callee.is_hung_up().await;

    let all = usize::from(calls) + ENDED + 1;
    records_are(&rig, all).await;
    let after = records(&rig).await;
    assert_eq!(after.len(), all);
    let keys: BTreeSet<_> = after.iter().map(|cdr| (cdr.call, cdr.times.start)).collect();
    assert_eq!(keys.len(), all, "one record a call");
    assert!(before.iter().all(|cdr| after.contains(cdr)), "what was recorded is as it was");
    let is_lost = |cdr: &&Cdr| cdr.ending.why.as_ref().is_some_and(|why| why.code == "X002");
    let lost: Vec<&Cdr> = after.iter().filter(is_lost).collect();
    assert_eq!(lost.len(), usize::from(calls));
    assert!(lost.iter().all(|cdr| cdr.ending.by == EndedBy::Tandem));
    assert_eq!(lost.iter().filter(|cdr| cdr.times.answer.is_none()).count(), 1);
    let Response::Story(story) = tell(&rig, Request::CallExplain { call: lost[0].call }).await
    else {
        panic!("no story")
    };
    assert!(story.to_string().contains("X002: tandem ended while the call was up"), "{story}");

    // Nobody closes them twice.
    program.kill();
    let program = Program::start(&rig, "warn").await;
    assert_eq!(records(&rig).await.len(), all);
    program.kill();
    println!("{calls} calls up; {took:?} from the start to the first registered call");
}

/// The process that was upgraded lives, and so do its calls; when it is killed, the other closes them.
#[tokio::test]
async fn an_upgrade_closes_no_call_of_the_process_before() {
    let rig = Rig::new("");
    let program = Program::start(&rig, "warn").await;
    let mut phone = Phone::udp("1001", listens_at(&rig).await).await;
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    let (ok, _) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    program.signal("USR2");
    let heir = program.hands_over().await;
    assert_eq!(records(&rig).await, []);
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    records_are(&rig, 1).await;
    assert_eq!(records(&rig).await[0].ending.why, None);

    // Both die.
    program.kill();
    let pid = heir.to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let gone = async { while is_there(heir) {} };
    soon("the end of the heir", gone).await;
    let program = Program::start(&rig, "warn").await;
    records_are(&rig, 2).await;
    let codes: Vec<_> =
        records(&rig).await.into_iter().map(|cdr| cdr.ending.why.map(|why| why.code)).collect();
    assert_eq!(codes, [Some("X002".to_owned()), None]);
    program.kill();
}

/// Whether it still runs: what is left of a process that nobody waits for does not.
fn is_there(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

/// Takes all room that a disk has.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[tokio::test]
async fn a_full_disk_costs_no_call_and_no_record() {
    let rig = Rig::with_disk("");
    let Some(program) = Program::start_on_disk(&rig, 2_048).await else {
        println!("NOT TESTED: no namespaces here");
        return;
    };
    let disk = Path::new("/proc").join(program.pid().to_string()).join("root");
    let disk = disk.join(rig.path("disk").strip_prefix("/").unwrap());
    let mut phone = Phone::udp("1001", listens_at(&rig).await).await;
    short_call(&mut phone).await;
    records_are(&rig, 1).await;
    fill(&disk.join("filler"));

    let mut calls = 1;
    while status(&rig).await.problems().is_empty() {
        short_call(&mut phone).await;
        calls += 1;
    }
    for _ in 0..5 {
        short_call(&mut phone).await;
        calls += 1;
    }
    let waiting = async { while status(&rig).await.store.queued < 5 {} };
    soon("records that wait", waiting).await;
    let ill = status(&rig).await;
    assert!(ill.problems().iter().any(|p| p.contains("cannot be written to")), "{ill:?}");
    assert_eq!(ill.store.dropped, 0);

    std::fs::remove_file(disk.join("filler")).unwrap();
    let waiting = async { while !status(&rig).await.problems().is_empty() {} };
    soon("a store that works again", waiting).await;
    records_are(&rig, calls).await;
    assert_eq!(status(&rig).await.store.queued, 0);
    program.kill();
}

#[tokio::test]
async fn a_database_that_another_program_has_costs_no_call_and_no_record() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.register(600).await.status(), 200);
    let file = rig.path("tandem.db");
    let lock = Connection::open(&file).unwrap();
    lock.busy_timeout(PATIENCE).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..3 {
        short_call(&mut phone).await;
    }
    until(
        &node,
        Request::Status,
        |answer| matches!(answer, Response::Status(status) if status.store.problem.is_some()),
    )
    .await;
    let ready = fetch(node.http().unwrap(), "/readyz").await;
    assert!(ready.contains("503") && ready.contains("the store cannot be written"), "{ready}");
    lock.execute_batch("ROLLBACK").unwrap();
    until(
        &node,
        Request::Status,
        |answer| matches!(answer, Response::Status(status) if status.store.problem.is_none()),
    )
    .await;
    let ready = fetch(node.http().unwrap(), "/readyz").await;
    assert!(ready.contains("200"), "{ready}");
    records_are(&rig, 3).await;
    node.stop().await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_begun_anew() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let remote: SocketAddr = at(&node, Transport::Udp);
    let mut phone = Phone::udp("1001", remote).await;
    short_call(&mut phone).await;
    records_are(&rig, 1).await;
    for name in ["tandem.db", "tandem.db-wal", "tandem.db-shm"] {
        std::fs::remove_file(rig.path(name)).unwrap();
    }
    short_call(&mut phone).await;
    records_are(&rig, 1).await;
    node.stop().await;
    let node = rig.start().await;
    assert_eq!(records(&rig).await.len(), 1, "written where it is read");
    let Response::Calls(calls) = ask(&node, Request::Calls).await else { panic!() };
    assert_eq!(calls, []);
    node.stop().await;
}
