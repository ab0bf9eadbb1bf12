//! What outlives a restart, a reload, a broken store; and how a node comes to its end.

use super::{
    phone::Phone,
    rig::{PASSWORD, Rig, UDP_AND_TCP, ask, at, fetch, own_address, soon, until},
};
use tandem::{
    ids::Transport,
    observe::status::{CdrQuery, Request, Response},
    shell::{control, node::Node},
};

#[tokio::test]
async fn registrations_survive_a_restart() {
    let ip = own_address();
    let rig = Rig::listening(&format!(r#"["udp:{ip}:0"]"#), &user("1002"));
    let node = rig.start().await;
    let port = at(&node, Transport::Udp).port();
    let mut callee = Phone::udp("1002", at(&node, Transport::Udp)).await;
    assert_eq!(callee.register(600).await.status(), 200);
    node.stop().await;

    let listen = format!(r#"["udp:{ip}:{port}"]"#);
    rig.configure(&listen, &user("1002"));
    let node = rig.start().await;
    let mut caller = Phone::udp("1001", at(&node, Transport::Udp)).await;
    caller.dial("1002").await;
    let invite = callee.heard().await;
    assert_eq!(invite.method_token(), "INVITE");
    callee.answer(&invite, 486, "").await;
    assert_eq!(caller.dialled().await.0.status(), 486);
    node.stop().await;
}

/// Somebody who is no longer configured is not reachable either.
#[tokio::test]
async fn a_removed_user_is_not_restored() {
    let rig = Rig::new(&user("1002"));
    let node = rig.start().await;
    let mut phone = Phone::udp("1002", at(&node, Transport::Udp)).await;
    assert_eq!(phone.register(600).await.status(), 200);
    node.stop().await;

    rig.configure(UDP_AND_TCP, "");
    let node = rig.start().await;
    assert_eq!(status(&node).await.phones, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_reload_brings_users_and_rules_and_keeps_the_call() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let remote = at(&node, Transport::Udp);
    let mut phone = Phone::udp("1001", remote).await;
    assert_eq!(phone.call("700").await.0.status(), 404);
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);

    rig.configure(
        UDP_AND_TCP,
        &format!("{}{}", user("1003"), "[trunk.second]\nuri = \"x.example\"\n"),
    );
    rig.write("rules.toml", "[[internal.rule]]\nmatch = \"700\"\nreject = 603\n");
    let changes = ["[trunk.second] added", "[user.1003] added", "dialplan internal changed"];
    let Response::Reload(plan) = ask(&node, Request::PlanReload).await else { panic!() };
    assert!(plan.is_plan && !plan.is_applied && plan.changes == changes, "{plan:?}");
    assert_eq!(phone.call("700").await.0.status(), 404, "a plan changes nothing");
    let Response::Reload(report) = ask(&node, Request::Reload).await else { panic!() };
    assert!(report.is_applied && report.by_process.is_empty(), "{report:?}");
    assert_eq!(report.changes, changes);

    assert_eq!(phone.call("700").await.0.status(), 603);
    let mut third = Phone::udp("1003", remote).await;
    assert_eq!(third.register(600).await.status(), 200);
    let Response::Trunks(trunks) = ask(&node, Request::Trunks).await else { panic!() };
    let names: Vec<_> = trunks.iter().map(|trunk| &*trunk.name).collect();
    assert_eq!(names, ["carrier", "second"]);
    assert_eq!(status(&node).await.calls.talking, 1);
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    node.stop().await;
}

#[tokio::test]
async fn a_reload_of_nonsense_changes_nothing_and_says_why() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    rig.write("rules.toml", "[[internal.rule]]\nmatch = \"600\"\ndial = \"trunk:nobody\"\n");
    let Response::Reload(report) = ask(&node, Request::Reload).await else { panic!() };
    assert!(!report.is_applied, "{report:?}");
    assert!(report.problems.iter().any(|p| p.contains("nobody")), "{report:?}");
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    node.stop().await;
}

/// What a running node cannot change is named.
#[tokio::test]
async fn a_reload_names_what_needs_a_restart() {
    let rig = Rig::new("");
    let node = rig.start().await;
    rig.configure(r#"["udp:127.0.0.1:5099", "tcp:127.0.0.1:0"]"#, "[log]\nlevel = \"debug\"\n");
    let Response::Reload(report) = ask(&node, Request::Reload).await else { panic!() };
    assert_eq!(report.by_process, ["[sip] listen", "[log]"]);
    assert!(!report.is_replaceable && report.process.is_none(), "{report:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_drain_refuses_new_calls_and_ends_with_the_last() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    let Response::Done(_) = ask(&node, Request::Drain { within_s: None }).await else { panic!() };

    let (refused, _) = phone.call("600").await;
    assert_eq!(refused.status(), 503);
    let retry = refused.number(tandem::sip::HeaderName::RetryAfter);
    assert!(retry.is_some(), "the carrier goes elsewhere, and comes back");
    let ready = fetch(node.http().unwrap(), "/readyz").await;
    assert!(ready.contains("503") && ready.contains("draining"), "{ready}");

    let drained = node.drained();
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    soon("the end of the drain", drained.wait()).await;
    node.stop().await;
}

/// Whoever talks on for ever does not keep it.
#[tokio::test]
async fn a_drain_has_an_end() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.call("600").await.0.status(), 200);
    let drained = node.drained();
    let Response::Done(_) = ask(&node, Request::Drain { within_s: Some(0) }).await else {
        panic!()
    };
    let (_, is_drained) = tokio::join!(phone.is_hung_up(), soon("the end", drained.wait()));
    assert!(is_drained);
    node.stop().await;
}

/// A node that must end at once hangs up, and its records are written.
#[tokio::test]
async fn a_stop_hangs_up_and_leaves_a_record() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    let (ok, _) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    let (_, ()) = tokio::join!(node.stop(), phone.is_hung_up());

    let node = rig.start().await;
    let records = control::ask(&rig.socket(), &Request::Cdr(CdrQuery::default())).await;
    let Ok(Response::Cdrs(records)) = records else { panic!("{records:?}") };
    assert_eq!(records.len(), 1, "{records:?}");
    node.stop().await;
}

/// Without a store calls go on; only the record has to wait.
#[tokio::test]
async fn a_store_that_cannot_be_opened_costs_no_call() {
    let rig = Rig::new("");
    std::fs::create_dir(rig.path("tandem.db")).unwrap();
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.register(600).await.status(), 200);
    let (ok, mut talk) = phone.call("600").await;
    assert_eq!(ok.status(), 200);
    assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
    until(&node, Request::Calls, |answer| *answer == Response::Calls(vec![])).await;

    let ready = fetch(node.http().unwrap(), "/readyz").await;
    assert!(ready.contains("503") && ready.contains("the store cannot be written"), "{ready}");
    let healthy = fetch(node.http().unwrap(), "/healthz").await;
    assert!(healthy.contains("200"), "{healthy}");
    let problems = status(&node).await.problems();
    assert!(problems.iter().any(|p| p.contains("tandem.db cannot be written to")), "{problems:?}");
    node.stop().await;
}

pub(crate) fn user(name: &str) -> String {
    format!("[user.{name}]\npassword = \"{PASSWORD}\"\n")
}

async fn status(node: &Node) -> tandem::observe::status::StatusReport {
    let Response::Status(report) = ask(node, Request::Status).await else { panic!("no status") };
    *report
}
