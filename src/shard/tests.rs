//! What must hold whatever a call does: faults stay where they are, former users are gone.

use super::*;
use crate::{
    config::{self, Files},
    ids::Transport,
    registrar::Binding,
    sim::epoch,
};

const TRUNK: &str = "192.0.2.20:5060";

#[test]
fn a_fault_costs_one_call_and_leaves_its_record() {
    let now = epoch();
    let mut shard = shard(USERS, now);
    let calls: Vec<CallId> = ["one", "two"].map(|call_id| open(&mut shard, call_id, now)).into();
    while shard.poll_output().is_some() {}

    shard.step(calls[0], now, |_, _| panic!("a fault, as the test wants it"));
    shard.settle(now);
    // Its media worker never reports, as nobody plays one here.
    shard.handle_timeout(now + Duration::from_secs(60));
    let left: Vec<CallId> = shard.calls(now).iter().map(|call| call.call).collect();
    assert_eq!(left, calls[1..]);
    assert_eq!(shard.counters().panics, 1);
    let records: Vec<String> = std::iter::from_fn(|| shard.poll_output())
        .filter_map(|output| match output {
            Output::Record(Record::Cdr(cdr)) => Some(cdr.ending.why?.code),
            Output::Record(_)
            | Output::Transmit { .. }
            | Output::Pass { .. }
            | Output::Media(..)
            | Output::Ask(_) => None,
        })
        .collect();
    assert_eq!(records, ["X001"]);
}

#[test]
fn a_fault_outside_of_calls_costs_nothing() {
    let now = epoch();
    let mut shard = shard(USERS, now);
    let call = open(&mut shard, "one", now);
    shard.guarded(|_| panic!("a fault, as the test wants it"));
    assert_eq!(shard.counters().panics, 1);
    assert!(shard.hang_up(call, now));
}

#[test]
fn whoever_is_configured_no_more_is_reachable_no_more() {
    let now = epoch();
    let mut shard = shard(USERS, now);
    let location = shard.core.shared.location.clone();
    for user in ["1001", "1002"] {
        location.bind(binding(user));
    }
    shard.configure(config("[user.1002]\npassword = \"x\"\n"), now);
    let left: Vec<_> = location.all(SystemTime::UNIX_EPOCH).into_iter().map(|b| b.aor).collect();
    assert_eq!(left, ["1002".into()]);
    let unbound = std::iter::from_fn(|| shard.poll_output()).any(
        |output| matches!(output, Output::Record(Record::Unbind { aor, .. }) if *aor == *"1001"),
    );
    assert!(unbound, "the store forgets as well");
}

pub(super) const USERS: &str = "[user.1001]\npassword = \"x\"\n[user.1002]\npassword = \"x\"\n";

fn config(users: &str) -> Arc<Config> {
    let text = format!(
        "dialplan = \"rules.toml\"\n{users}[trunk.carrier]\nuri = \"carrier.example.com\"\n\
         address = \"{TRUNK}\"\ncaller_id = \"+14155550100\"\n"
    );
    let rules = "[[inbound.rule]]\nmatch = \"re:.*\"\necho = true\n";
    let files = Files::default().with("pbx.toml", &text).with("rules.toml", rules);
    let checked = config::check("pbx.toml", &files);
    Arc::new(checked.config.unwrap_or_else(|| panic!("{:?}", checked.report.problems())))
}

pub(super) fn shard(users: &str, now: Instant) -> Shard {
    let key = MintKey::draw(&mut Entropy::from_u64(1));
    let shared = Shared { config: config(users), location: Location::new(), key };
    Shard::new(ShardId(0), shared, [7; 32], now, SystemTime::UNIX_EPOCH)
}

/// The trunk calls.
pub(super) fn open(shard: &mut Shard, call_id: &str, now: Instant) -> CallId {
    let before: Vec<CallId> = shard.calls(now).iter().map(|call| call.call).collect();
    shard.handle_message(flow(), Bytes::from(invite(call_id)), now);
    let after = shard.calls(now);
    after.iter().map(|call| call.call).find(|call| !before.contains(call)).unwrap()
}

/// The trunk's INVITE.
pub(super) fn invite(call_id: &str) -> String {
    format!(
        "INVITE sip:+14155550100@10.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP {TRUNK};branch=z9hG4bK{call_id}\r\nMax-Forwards: 60\r\n\
         From: <sip:+442071838750@carrier.example.com>;tag=a\r\nTo: <sip:+14155550100@10.0.0.1>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:{TRUNK}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

pub(super) fn flow() -> Flow {
    let local = "10.0.0.1:5060".parse().unwrap();
    Flow { transport: Transport::Udp, local, remote: TRUNK.parse().unwrap() }
}

pub(super) fn binding(user: &str) -> Binding {
    Binding {
        aor: user.into(),
        contact: format!("sip:{user}@192.0.2.7").into(),
        flow: flow(),
        received: flow().remote,
        path: vec![],
        instance: None,
        reg_id: None,
        q: 1000,
        call_id: "c".into(),
        cseq: 1,
        updated_at: SystemTime::UNIX_EPOCH,
        expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(600),
        user_agent: None,
        stored_until: SystemTime::UNIX_EPOCH + Duration::from_secs(600),
    }
}
