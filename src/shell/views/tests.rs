//! What each command prints, word for word.

use super::*;
use crate::{
    ids::{CallId, ShardId},
    observe::{
        cdr::{
            Direction,
            tests::{answered, refused},
        },
        status::{
            AddressRow, BanRow, BudgetRow, CallCounts, CertificateRow, ContactRow, LegRow, Phase,
            PortCounts, StoreReport, Used,
        },
    },
};

fn trunk(state: TrunkState) -> TrunkRow {
    TrunkRow {
        name: "twilio".into(),
        state,
        since: Some(UtcMs(1_793_873_533_456)),
        target: "x.pstn.twilio.com 54.172.60.0:5060".into(),
        rtt_ms: Some(12.34),
        calls: 2,
        calls_max: Some(10),
        waiting: 0,
        seen_as: Some([203, 0, 113, 1].into()),
        last_refusal: refused(1).ending.why,
        addresses: vec![],
    }
}

fn report(state: TrunkState) -> StatusReport {
    StatusReport {
        node: "pbx1".into(),
        version: "0.1.0".into(),
        uptime_s: 93_784,
        started: UtcMs(0),
        configured: UtcMs(1_000),
        listeners: vec!["udp:0.0.0.0:5060".into(), "tcp:0.0.0.0:5060".into()],
        public_ip: Some([203, 0, 113, 1].into()),
        calls: CallCounts { ringing: 1, talking: 2, total: 9, failed: 3 },
        phones: 4,
        ports: PortCounts { used: 6, total: 5_000 },
        store: StoreReport::default(),
        trunks: vec![trunk(state)],
        ..StatusReport::default()
    }
}

fn running() -> CallSummary {
    CallSummary {
        call: CallId::new(ShardId(0), 42),
        phase: Phase::Talking,
        direction: Direction::Outbound,
        from: "1001".into(),
        to: "+14155550199".into(),
        rule: Some("internal[2]".into()),
        trunk: Some("twilio".into()),
        start: UtcMs(0),
        duration_s: 3_723,
    }
}

#[test]
fn status_is_a_page_and_what_is_wrong() {
    let want = "\
node        pbx1, tandem 0.1.0
up          1 d 02:03:04, since 1970-01-01T00:00:00.000Z
configured  1970-01-01T00:00:01.000Z
listening   udp:0.0.0.0:5060 tcp:0.0.0.0:5060
public      203.0.113.1
calls       1 ringing, 2 talking; 9 since the start, 3 failed
phones      4 registered
rtp         6 of 5000 port pairs taken
sip         0 transactions, 0 dialogs, 0 connections
sip so far  0 sent again, 0 unanswered, 0 not sent, 0 discarded, 0 overrun
store       open, 0 waiting, 0 lost

TRUNK   STATE  SINCE                     RTT      CALLS    TARGET
twilio  down   2026-11-05T10:12:13.456Z  12.3 ms  2 of 10  x.pstn.twilio.com 54.172.60.0:5060
twilio sees us as 203.0.113.1
twilio refused a call: T001: the carrier does not let us call from +1775****988 (help: set \
`caller_id` to a number of this account)

wrong: trunk twilio is down
";
    assert_eq!(text(&Response::Status(Box::new(report(TrunkState::Down)))), want);
}

#[test]
fn status_says_how_long_certificates_hold() {
    let row = |of: &str, left_s| CertificateRow { of: of.into(), left_s };
    let mut report = report(TrunkState::Up);
    report.certificates = vec![row("listener", 30 * 86_400 + 5), row("trunk twilio", -5)];
    let page = text(&Response::Status(Box::new(report)));
    let want = "certificate  listener holds 30 days, trunk twilio expired 1 days ago\n";
    assert!(page.contains(want), "{page}");
    assert!(page.contains("wrong: the certificate of trunk twilio has expired"), "{page}");
}

#[test]
fn calls_are_a_table() {
    let want = "\
CALL    PHASE    DIRECTION  FROM  TO            RULE         TRUNK   TIME
c00-2a  talking  outbound   1001  +1415****199  internal[2]  twilio  1:02:03
";
    assert_eq!(text(&Response::Calls(vec![running()])), want);
    assert_eq!(text(&Response::Calls(vec![])), "no calls\n");
}

#[test]
fn a_call_shows_its_legs_and_why_it_went_there() {
    let leg = LegRow {
        leg: "l00-1".into(),
        name: "1001".into(),
        sip_call_id: "a@b".into(),
        flow: "udp:192.0.2.1:5060".into(),
        state: "confirmed".into(),
        codec: Some("PCMU".into()),
        srtp: Some("AEAD_AES_128_GCM".into()),
        rtp_port: Some(10_000),
        rtp_remote: None,
    };
    let detail = CallDetail {
        summary: running(),
        dialled: "(415) 555-0199".into(),
        caller_id: Some("+17756187988".into()),
        legs: vec![leg],
        is_transcoded: true,
        why: vec!["internal[2] matches +14155550199".into(), "dial trunk:twilio".into()],
    };
    let page = text(&Response::Call(Box::new(detail)));
    for line in [
        "to         +1415****199 (dialled (415)****199)",
        "caller id  +1775****988",
        "LEG    NAME  STATE      FLOW                CODEC  SRTP              RTP    RTP FROM  SIP CALL-ID",
        "l00-1  1001  confirmed  udp:192.0.2.1:5060  PCMU   AEAD_AES_128_GCM  10000  -         a@b",
        "internal[2] matches +1415****199",
        "dial trunk:twilio",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}

#[test]
fn phones_have_a_line_for_each_contact() {
    let contact = |at: &str| ContactRow {
        contact: "sip:1001@10.0.0.7:5060".into(),
        flow: at.into(),
        user_agent: Some("evil\u{1b}[2J".into()),
        expires_s: 61,
        rtt_ms: None,
        missed_pings: 0,
    };
    let silent = ContactRow { rtt_ms: Some(12.34), missed_pings: 3, ..contact("udp:c") };
    let phone =
        |user: &str, contacts| PhoneRow { user: user.into(), name: None, contacts, calls: 1 };
    let rows = vec![phone("1001", vec![contact("udp:a"), silent]), phone("1002", vec![])];
    let want = "\
PHONE  NAME  CALLS  CONTACT                 AT     EXPIRES  RTT                DEVICE
1001   -     1      sip:1001@10.0.0.7:5060  udp:a  1:01     -                  evil [2J
1001   -     1      sip:1001@10.0.0.7:5060  udp:c  1:01     12.3 ms, 3 missed  evil [2J
1002   -     1      not registered          -      -        -                  -
";
    assert_eq!(text(&Response::Phones(rows)), want);
}

#[test]
fn records_are_a_table_that_says_why() {
    let page = text(&Response::Cdrs(vec![refused(2), answered(1)]));
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("403     refused: T001: the carrier does not let us"), "{page}");
    assert!(lines[2].contains("0:05  200     answered"), "{page}");
}

#[test]
fn a_past_call_is_told_in_full() {
    let want = "\
call          c00-2a, over
direction     outbound
from          1001, a42@phone
to            +1415****199, b42
dialled       (415)****199
caller id     +1775****988
rule          internal[2]
trunk         twilio
attempt       +1 ms twilio acme.pstn.twilio.com at udp:54.172.60.0:5060: answered after 899 ms
start         1970-01-01T00:23:40.000Z
ring          1970-01-01T00:23:40.100Z (+100 ms)
answer        1970-01-01T00:23:40.900Z (+900 ms)
end           1970-01-01T00:23:45.900Z (+5900 ms)
talk          5000 ms
ended         answered by caller, 200, Q.850 16
caller media  PCMU; received 250 packets, 1 lost, jitter 1.5 ms, MOS 4.4; sent 250 packets, \
0 lost, jitter 1.5 ms, MOS 4.4; relay 120 µs, transcoded
callee media  PCMA over SRTP (AES_CM_128_HMAC_SHA1_80); received 250 packets, 1 lost, jitter 1.5 ms, MOS 4.4; sent 250 packets, \
0 lost, jitter 1.5 ms, MOS 4.4; relay 120 µs, transcoded
quality       good: loss at most 0.4 %, jitter at most 2 ms
";
    assert_eq!(text(&Response::Record(Box::new(answered(42)))), want);
    let failed = text(&Response::Record(Box::new(refused(42))));
    assert!(failed.contains("\nhelp          set `caller_id`"), "{failed}");
    assert!(failed.contains("\nanswer        -\n"), "{failed}");
    assert!(failed.contains(": refused after 899 ms (403 Forbidden)\n"), "{failed}");
}

#[test]
fn trunks_show_each_address() {
    let live = AddressRow {
        host: "acme.pstn.twilio.com".into(),
        address: "udp:54.172.60.0:5060".into(),
        state: "live".into(),
        state_s: 3_600,
        rtt_ms: Some(84.0),
        last_refusal: Some("503 Trunk CPS limit exceeded".into()),
    };
    let dead = AddressRow {
        address: "udp:54.172.60.1:5060".into(),
        state: "dead".into(),
        state_s: 61,
        rtt_ms: None,
        last_refusal: Some("no answer to INVITE".into()),
        ..live.clone()
    };
    let row = TrunkRow { last_refusal: None, addresses: vec![live, dead], ..trunk(TrunkState::Up) };
    let want = "\
TRUNK   STATE  SINCE                     RTT      CALLS    TARGET
twilio  up     2026-11-05T10:12:13.456Z  12.3 ms  2 of 10  x.pstn.twilio.com 54.172.60.0:5060
twilio sees us as 203.0.113.1

TRUNK   EDGE                  ADDRESS               STATE  FOR      RTT      LAST FAILURE
twilio  acme.pstn.twilio.com  udp:54.172.60.0:5060  live   1:00:00  84.0 ms  503 Trunk CPS limit \
exceeded
twilio  acme.pstn.twilio.com  udp:54.172.60.1:5060  dead   1:01     -        no answer to INVITE
";
    assert_eq!(text(&Response::Trunks(vec![row])), want);
}

#[test]
fn a_reload_says_what_is_in_use() {
    let applied = ReloadReport { is_applied: true, ..ReloadReport::default() };
    let refused = ReloadReport {
        is_applied: false,
        problems: vec!["pbx.toml:3: C012 unknown key\n".into()],
        ..ReloadReport::default()
    };
    let plan = ReloadReport {
        is_plan: true,
        changes: vec!["[user.1003] added".into()],
        by_process: vec!["[sip] listen".into()],
        ..ReloadReport::default()
    };
    let replaced = ReloadReport {
        is_applied: true,
        is_plan: false,
        is_replaceable: true,
        process: Some(77),
        ..plan.clone()
    };
    assert_eq!(text(&Response::Reload(applied)), "the new configuration is in use\n");
    assert_eq!(
        text(&Response::Reload(plan.clone())),
        "the new configuration can be used; the old one is\n[user.1003] added\n\
         by a restart only: [sip] listen\n"
    );
    assert_eq!(
        text(&Response::Reload(replaced)),
        "the new configuration is in use\n\
         process 77 has taken over; this one keeps its calls until they end\n\
         [user.1003] added\nby a new process, which takes over: [sip] listen\n"
    );
    assert_eq!(exit(&Response::Reload(plan)), Exit::Ok);
    assert_eq!(
        text(&Response::Reload(refused)),
        "the old configuration stays in use\npbx.toml:3: C012 unknown key\n"
    );
}

fn budget(calls: u32) -> BudgetRow {
    BudgetRow {
        kind: "user".into(),
        name: "1001".into(),
        calls_per_hour: Used { used: calls, limit: Some(10) },
        minutes_per_day: Used { used: 61, limit: None },
        ..BudgetRow::default()
    }
}

#[test]
fn budgets_say_what_of_what() {
    assert_eq!(text(&Response::Budgets(vec![])), "nobody has called by a trunk\n");
    assert_eq!(
        text(&Response::Budgets(vec![budget(9)])),
        "WHOSE  NAME  CALLS/H  CALLS/D  MIN/H  MIN/D  COUNTRIES/D\n\
         user   1001  9 of 10  0        0      61     0\n"
    );
}

#[test]
fn bans_say_who_why_and_for_how_long() {
    assert_eq!(text(&Response::Bans(vec![])), "nobody is banned\n");
    let ban = BanRow {
        source: "2001:db8:1:2::/64".into(),
        why: "guesses".into(),
        since: UtcMs(1_800_000_000_000),
        until: UtcMs(1_800_000_300_000),
        left_s: 250,
        dropped: 12,
    };
    assert_eq!(
        text(&Response::Bans(vec![ban])),
        "SOURCE             WHY      SINCE                     LEFT  DROPPED\n\
         2001:db8:1:2::/64  guesses  2027-01-15T08:00:00.000Z  4:10  12\n"
    );
}

#[test]
fn exit_codes_are_stable() {
    for (response, want) in [
        (Response::Status(Box::new(report(TrunkState::Up))), 0),
        (Response::Status(Box::new(report(TrunkState::Down))), 1),
        (Response::Trunks(vec![trunk(TrunkState::Suspect)]), 0),
        (Response::Trunks(vec![trunk(TrunkState::Down)]), 1),
        (Response::Budgets(vec![budget(9)]), 0),
        (Response::Budgets(vec![budget(10)]), 1),
        (Response::Calls(vec![]), 0),
        (Response::Bans(vec![BanRow::default()]), 0),
        (Response::Cdrs(vec![refused(1)]), 0),
        (Response::Reload(ReloadReport::default()), 1),
        (Response::Done("ends".into()), 0),
        (Response::NotFound("no such call".into()), 1),
        (Response::Refused("not now".into()), 1),
    ] {
        assert_eq!(exit(&response).code(), want, "{response:?}");
    }
    assert_eq!(Exit::Usage.code(), 2);
}

#[test]
fn json_is_the_answer_and_text_hides_numbers() {
    for response in [
        Response::Calls(vec![running()]),
        Response::Cdrs(vec![answered(1), refused(2)]),
        Response::Record(Box::new(answered(1))),
    ] {
        let (json, text) = (json(&response), text(&response));
        assert!(json.contains("+14155550199") && json.ends_with("\n"), "{json}");
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        for leak in ["5550199", "555-0199", "7756187988"] {
            assert!(!text.contains(leak), "{text}");
        }
    }
    assert_eq!(json(&Response::NotFound("no".into())), "{\n  \"not_found\": \"no\"\n}\n");
}

#[test]
fn time_spans_grow_by_need() {
    for (s, want) in [(0, "0:00"), (59, "0:59"), (61, "1:01"), (3_600, "1:00:00")] {
        assert_eq!(span(s), want);
    }
    assert_eq!(span(86_400), "1 d 00:00:00");
}
