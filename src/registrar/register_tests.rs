//! RFC 3261 10.3 step by step, with RFC 3327, RFC 5626 and what NATs do to a Contact.

use super::*;
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, net::SocketAddr, time::UNIX_EPOCH};

const PHONE: &str = "203.0.113.9:40000";

#[test]
fn a_contact_is_bound_and_named_with_its_time() {
    let bench = Bench::new();
    let reply = bench.register(1, "Contact: <sip:1001@203.0.113.9:40000;ob>\r\nExpires: 600\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(bench.contacts(&reply), ["<sip:1001@203.0.113.9:40000;ob>;expires=600"]);
    assert_eq!(header(&reply, HeaderName::Date), Some("Fri, 15 Jan 2027 08:00:00 GMT"));
    assert_eq!(header(&reply, HeaderName::Supported), Some("path, outbound"));
    let [RegisterEvent::Bound(binding)] = &reply.events[..] else { panic!("{reply:?}") };
    assert_eq!(**binding, bench.bound()[0]);
    assert_eq!(binding.user_agent.as_deref(), Some("Bench/1"));
    assert_eq!((&*binding.aor, &*binding.call_id, binding.cseq), ("1001", "call-1", 1));
}

/// Contact parameter, Expires header, what is granted.
#[test]
fn the_time_is_the_contacts_then_the_requests_then_ours() {
    for (param, expires, want) in [
        ("", None, Ok(3600)),
        ("", Some("600"), Ok(600)),
        (";expires=700", Some("600"), Ok(700)),
        (";expires=700", None, Ok(700)),
        (";expires=99999", None, Ok(7200)),
        (";expires=99999999999999999999", None, Ok(7200)),
        ("", Some("4294967296"), Ok(7200)),
        (";expires=\"soon\"", Some("600"), Ok(3600)),
        (";expires=", None, Ok(3600)),
        ("", Some("soon"), Ok(3600)),
        (";expires=60", None, Ok(60)),
        (";expires=59", None, Err(423)),
        ("", Some("1"), Err(423)),
    ] {
        let bench = Bench::new();
        let expires = expires.map(|s| format!("Expires: {s}\r\n")).unwrap_or_default();
        let reply = bench.register(1, &format!("Contact: <sip:a@192.0.2.1>{param}\r\n{expires}"));
        let case = format!("{param} {expires}");
        match want {
            Ok(s) => {
                assert_eq!(
                    bench.contacts(&reply),
                    [format!("<sip:a@192.0.2.1>;expires={s}")],
                    "{case}"
                );
            }
            Err(status) => {
                assert_eq!(reply.status, status, "{case}");
                assert_eq!(header(&reply, HeaderName::MinExpires), Some("60"));
                assert!(bench.bound().is_empty());
            }
        }
    }
}

/// After how many seconds, what of the phone is new; whether the store is told.
#[test]
fn a_refresh_soon_after_the_last_is_not_stored() {
    let mut bench = Bench::new();
    for (n, (wait_s, call_id, lines, is_news)) in [
        (0, "call-1", "Contact: <sip:a@192.0.2.1>\r\n", true),
        (60, "call-1", "Contact: <sip:a@192.0.2.1>\r\n", false),
        (119, "call-1", "Contact: <sip:a@192.0.2.1>\r\n", false),
        (1, "call-1", "Contact: <sip:a@192.0.2.1>\r\n", true),
        (1, "call-2", "Contact: <sip:a@192.0.2.1>\r\n", true),
        (1, "call-2", "Contact: <sip:a@192.0.2.1>;q=0.5\r\n", true),
        (1, "call-2", "Contact: <sip:a@192.0.2.1>;q=0.5;expires=600\r\n", true),
        (29, "call-2", "Contact: <sip:a@192.0.2.1>;q=0.5;expires=600\r\n", false),
        (1, "call-2", "Contact: <sip:a@192.0.2.1>;q=0.5;expires=600\r\n", true),
    ]
    .into_iter()
    .enumerate()
    {
        bench.wall += Duration::from_secs(wait_s);
        bench.call_id = call_id;
        let reply = bench.register(n as u32 + 1, lines);
        let [RegisterEvent::Bound(binding)] = &reply.events[..] else { panic!("{n}: {reply:?}") };
        assert_eq!(binding.is_news(), is_news, "{n}");
        assert_eq!(**binding, bench.bound()[0]);
        let early = binding.expires_at.duration_since(binding.stored_until).unwrap();
        assert!(early < Duration::from_secs(180), "{n}: {early:?}");
    }
}

/// What is asked for, by how much it is to be shorter, the shortest time of all, what is granted.
#[test]
fn a_long_time_is_shortened_a_little_and_a_short_one_is_not() {
    for (asked, by, min, want) in [
        (3600, 0, 60, 3600),
        (3600, 1, 60, 3597),
        (3600, 100, 60, 3240),
        (3600, 900, 60, 3240),
        (600, 99, 60, 541),
        (600, 100, 590, 590),
        (599, 100, 60, 599),
        (60, 100, 60, 60),
        (0, 100, 60, 0),
        (90_000, 100, 60, 6480),
    ] {
        let mut bench = Bench::new();
        bench.policy.shortened_by = by;
        bench.policy.min_expires = Duration::from_secs(min);
        let reply = bench.register(1, &format!("Contact: <sip:a@192.0.2.1>;expires={asked}\r\n"));
        let want = (want > 0).then(|| format!("<sip:a@192.0.2.1>;expires={want}"));
        assert_eq!(bench.contacts(&reply), Vec::from_iter(want), "{asked} by {by}");
    }
}

#[test]
fn several_contacts_come_and_go_on_their_own() {
    let bench = Bench::new();
    bench.register(1, "Contact: <sip:a@192.0.2.1>;q=0.7, <sip:b@192.0.2.2>;q=0.25;expires=90\r\n");
    bench.register(2, "m: \"C, D\" <sip:c@192.0.2.3>\r\n");
    let reply =
        bench.register(3, "Contact: <sip:b@192.0.2.2>;expires=0\r\nContact: <sip:d@192.0.2.4>\r\n");
    assert_eq!(
        bench.contacts(&reply),
        [
            "<sip:a@192.0.2.1>;expires=3600;q=0.700",
            "<sip:c@192.0.2.3>;expires=3600",
            "<sip:d@192.0.2.4>;expires=3600",
        ]
    );
    assert_eq!(names(&reply.events), ["-sip:b@192.0.2.2", "+sip:d@192.0.2.4"]);
}

#[test]
fn a_fetch_changes_nothing_and_counts_down() {
    let mut bench = Bench::new();
    bench.register(1, "Contact: <sip:a@192.0.2.1>;expires=600\r\n");
    bench.wall += Duration::from_millis(100_500);
    let reply = bench.register(2, "");
    assert_eq!(bench.contacts(&reply), ["<sip:a@192.0.2.1>;expires=500"]);
    assert!(reply.events.is_empty());
    assert_eq!(bench.bound()[0].cseq, 1);
    bench.wall += Duration::from_secs(500);
    let reply = bench.register(3, "");
    assert!(bench.contacts(&reply).is_empty());
    assert_eq!(names(&reply.events), ["-sip:a@192.0.2.1"]);
}

#[test]
fn a_star_removes_all() {
    let bench = Bench::new();
    bench.register(1, "Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.2>\r\n");
    for bad in [
        "Contact: *\r\n",
        "Contact: *\r\nExpires: 60\r\n",
        "Contact: *, <sip:a@192.0.2.1>\r\nExpires: 0\r\n",
    ] {
        assert_eq!(bench.register(2, bad).status, 400, "{bad}");
    }
    assert_eq!(bench.bound().len(), 2);
    assert_eq!(bench.register(1, "Contact: *\r\nExpires: 0\r\n").status, 500);
    let reply = bench.register(2, "Contact: *\r\nExpires: 0\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(names(&reply.events), ["-sip:a@192.0.2.1", "-sip:b@192.0.2.2"]);
    assert!(bench.location.is_empty());
}

#[test]
fn the_order_of_one_call_id_is_kept() {
    let mut bench = Bench::new();
    bench.register(5, "Contact: <sip:a@192.0.2.1>\r\n");
    for (cseq, contact, status) in [
        (4, "<sip:a@192.0.2.1>", 500),
        (5, "<sip:a@192.0.2.1>", 500),
        (4, "<sip:a@192.0.2.1>;expires=0", 500),
        (4, "<sip:new@192.0.2.2>, <sip:a@192.0.2.1>", 500),
        (6, "<sip:a@192.0.2.1>", 200),
    ] {
        let reply = bench.register(cseq, &format!("Contact: {contact}\r\n"));
        assert_eq!(reply.status, status, "{cseq} {contact}");
    }
    // Another Call-ID: the phone has restarted.
    bench.call_id = "call-2";
    assert_eq!(bench.register(1, "Contact: <sip:a@192.0.2.1>\r\n").status, 200);
    assert_eq!(bench.bound().len(), 1);
}

#[test]
fn one_bad_contact_spoils_the_request() {
    let long = format!("<sip:{}@192.0.2.1>", "a".repeat(1100));
    for bad in ["<mailto:a@example.com>", "<sips:a@192.0.2.2>", "<tel:+14155550199>", &long] {
        let bench = Bench::new();
        bench.register(1, "Contact: <sip:old@192.0.2.1>\r\n");
        let before = bench.bound();
        let reply = bench.register(2, &format!("Contact: <sip:a@192.0.2.1>, {bad}\r\n"));
        assert_eq!((reply.status, reply.events.len()), (400, 0), "{bad}");
        assert_eq!(bench.bound(), before);
    }
}

#[test]
fn a_user_has_a_limited_number_of_contacts() {
    let mut bench = Bench::new();
    bench.policy.max_contacts = 2;
    bench.register(
        1,
        "Contact: <sip:a@192.0.2.1>, <sip:b@192.0.2.2>;+sip.instance=\"<urn:uuid:b>\"\r\n",
    );
    let reply = bench.register(2, "Contact: <sip:c@192.0.2.3>\r\n");
    assert_eq!(reply.status, 403);
    assert_eq!(reply.reason, "Too Many Contacts, 2 Are Registered Already");
    assert_eq!(bench.bound().len(), 2);
    // A refresh, a device on a new port, an exchange in one request, and a place that has become free.
    for contact in [
        "<sip:a@192.0.2.1>",
        "<sip:b@192.0.2.2:5070>;+sip.instance=\"<urn:uuid:b>\"",
        "<sip:a@192.0.2.1>;expires=0, <sip:c@192.0.2.3>",
    ] {
        bench.cseq += 1;
        let reply = bench.register(bench.cseq + 2, &format!("Contact: {contact}\r\n"));
        assert_eq!((reply.status, bench.bound().len()), (200, 2), "{contact}");
    }
    bench.wall += Duration::from_secs(3600);
    assert_eq!(bench.register(9, "Contact: <sip:d@192.0.2.4>\r\n").status, 200);
    // A limit lowered later does not keep the others from refreshing.
    bench.register(10, "Contact: <sip:e@192.0.2.5>\r\n");
    bench.policy.max_contacts = 1;
    assert_eq!(bench.register(11, "Contact: <sip:e@192.0.2.5>\r\n").status, 200);
    assert_eq!(bench.register(12, "Contact: <sip:f@192.0.2.6>\r\n").status, 403);
}

#[test]
fn a_device_on_a_new_port_replaces_itself_in_the_store_too() {
    let bench = Bench::new();
    bench.register(1, "Contact: <sip:a@192.0.2.1:40000>;+sip.instance=\"<urn:uuid:b>\"\r\n");
    let reply =
        bench.register(2, "Contact: <sip:a@192.0.2.1:40001>;+sip.instance=\"<urn:uuid:B>\"\r\n");
    assert_eq!(names(&reply.events), ["-sip:a@192.0.2.1:40000", "+sip:a@192.0.2.1:40001"]);
    let want = "<sip:a@192.0.2.1:40001>;expires=3600;+sip.instance=\"<urn:uuid:B>\"";
    assert_eq!(bench.contacts(&reply), [want]);
}

#[test]
fn of_one_device_twice_in_a_request_the_last_counts() {
    let bench = Bench::new();
    let [first, second] = ["1", "2"].map(|port| {
        format!("Contact: <sip:a@192.0.2.1:{port}>;+sip.instance=\"<urn:uuid:b>\"\r\n")
    });
    bench.register(1, &first);
    let reply = bench.register(2, &format!("{first}{second}"));
    assert_eq!(names(&reply.events), ["-sip:a@192.0.2.1:1", "+sip:a@192.0.2.1:2"]);
    assert_eq!(bench.bound().len(), 1);
}

#[test]
fn what_is_required_must_be_known() {
    let bench = Bench::new();
    let reply = bench.register(1, "Contact: <sip:a@192.0.2.1>\r\nRequire: path, gruu, x-y\r\n");
    assert_eq!(reply.status, 420);
    assert_eq!(header(&reply, HeaderName::Unsupported), Some("gruu, x-y"));
    assert!(bench.bound().is_empty());
    assert_eq!(bench.register(2, "Contact: <sip:a@192.0.2.1>\r\nRequire: path\r\n").status, 200);
}

#[test]
fn the_path_is_kept_and_returned() {
    let bench = Bench::new();
    let path = "Path: <sip:edge@198.51.100.1;lr>, <sip:core.example;lr>\r\n";
    let reply = bench.register(1, &format!("Contact: <sip:a@192.0.2.1>\r\n{path}"));
    let (uri, flow, routes) = bench.bound()[0].target();
    assert_eq!(uri, "sip:a@192.0.2.1");
    assert_eq!(flow, bench.flow);
    assert_eq!(routes, ["<sip:edge@198.51.100.1;lr>".into(), "<sip:core.example;lr>".into()]);
    assert_eq!(header(&reply, HeaderName::Path), Some("<sip:edge@198.51.100.1;lr>"));
    for bad in ["Path: <tel:1>\r\n", "Path: <sip:a\r\n", &"Path: <sip:a;lr>\r\n".repeat(9)] {
        assert_eq!(bench.register(2, &format!("Contact: <sip:a@192.0.2.1>\r\n{bad}")).status, 400);
    }
}

/// Transport, Contact, Via sent-by, and whether calls go over the flow or to which address.
#[test]
fn calls_go_where_the_phone_can_be_reached() {
    use Transport::{Tcp, Udp};
    for (transport, contact, via, want) in [
        (Udp, "sip:a@203.0.113.9:40000", "203.0.113.9:40000;rport", PHONE),
        (Udp, "sip:a@192.168.1.9:5060", "192.168.1.9:5060;rport", PHONE),
        (Udp, "sip:a@192.168.1.9:5060", "192.168.1.9:5060", PHONE),
        (Udp, "sip:a@10.1.2.3", "203.0.113.9:40000", PHONE),
        (Udp, "sip:a@100.64.1.1", "203.0.113.9:40000", PHONE),
        (Udp, "sip:a@127.0.0.1", "203.0.113.9:40000", PHONE),
        (Udp, "sip:a@df7jal23ls0d.invalid", "df7jal23ls0d.invalid;rport", PHONE),
        (Udp, "sip:a@phone.example.com", "203.0.113.9:40000", PHONE),
        (Udp, "sip:a@203.0.113.9:1024", "203.0.113.9:1024;rport", PHONE),
        (Udp, "sip:a@203.0.113.9:5062", "203.0.113.9:5062", "203.0.113.9:5062"),
        (Udp, "sip:a@203.0.113.9", "203.0.113.9", "203.0.113.9:5060"),
        (Udp, "sip:a@203.0.113.9:5062;ob", "203.0.113.9:5062", PHONE),
        (Udp, "sip:a@198.51.100.7", "203.0.113.9:40000", "198.51.100.7:5060"),
        (Udp, "sip:a@198.51.100.7", "192.168.1.9", PHONE),
        (Udp, "sip:a@[2001:db8::1]", "203.0.113.9:40000", PHONE),
        (Tcp, "sip:a@203.0.113.9:5060;transport=tcp", "203.0.113.9:5060", PHONE),
        (Tcp, "sip:a@198.51.100.7;transport=tcp", "203.0.113.9:5060", PHONE),
    ] {
        let mut bench = Bench::new();
        bench.flow.transport = transport;
        bench.via = via;
        let reply = bench.register(1, &format!("Contact: <{contact}>\r\n"));
        assert_eq!(reply.status, 200);
        let (uri, flow, _) = bench.bound()[0].target();
        let remote: SocketAddr = want.parse().unwrap();
        assert_eq!(
            (uri.as_str(), flow),
            (contact, Flow { remote, ..bench.flow }),
            "{contact} {via}"
        );
    }
}

#[test]
fn outbound_is_for_connections() {
    let contact = "Contact: <sip:a@192.0.2.1;ob>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n";
    let supported = "Supported: path, outbound\r\n";
    for (transport, lines, want) in [
        (Transport::Tcp, format!("{contact}{supported}"), Some(1)),
        (Transport::Tcp, contact.to_owned(), None),
        (Transport::Tcp, format!("{contact}{supported}Path: <sip:198.51.100.1;lr>\r\n"), None),
        (
            Transport::Tcp,
            format!("{contact}{supported}Path: <sip:198.51.100.1;lr;ob>\r\n"),
            Some(1),
        ),
        (Transport::Udp, format!("{contact}{supported}"), None),
    ] {
        let mut bench = Bench::new();
        bench.flow.transport = transport;
        let reply = bench.register(1, &lines);
        assert_eq!(bench.bound()[0].reg_id, want, "{lines}");
        assert_eq!(header(&reply, HeaderName::Require), want.map(|_| "outbound"));
        let is_named = bench.contacts(&reply)[0].contains(";reg-id=1");
        assert_eq!(is_named, want.is_some());
    }
}

#[test]
fn escapes_of_rfc_4475_are_two_contacts() {
    let bench = Bench::new();
    let reply =
        bench.register(1, "Contact: <sip:%00@192.0.2.1>\r\nContact: <sip:%00%00@192.0.2.1>\r\n");
    assert_eq!(
        bench.contacts(&reply),
        ["<sip:%00@192.0.2.1>;expires=3600", "<sip:%00%00@192.0.2.1>;expires=3600",]
    );
}

#[test]
fn q_is_read_as_the_grammar_has_it() {
    for (text, want) in [
        ("1", Some(1000)),
        ("1.000", Some(1000)),
        ("0.7", Some(700)),
        ("0.75", Some(750)),
        (".5", Some(500)),
        ("0", Some(0)),
        ("1.1", None),
        ("0.7777", None),
        ("-1", None),
        ("0.x", None),
    ] {
        assert_eq!(parse_q(text), want, "{text}");
    }
}

/// Contacts that a random phone may register; the last two are one device.
const CONTACTS: [&str; 6] = [
    "<sip:a@192.0.2.1>",
    "<sip:a@192.0.2.1;transport=udp>",
    "<sip:b@192.0.2.1:5070>;q=0.5",
    "<mailto:c@example.com>",
    "<sip:d@192.0.2.4:40000>;+sip.instance=\"<urn:uuid:d>\"",
    "<sip:d@192.0.2.4:40001>;+sip.instance=\"<urn:uuid:d>\"",
];

proptest! {
    /// Whatever is asked in whatever order: the store, which only sees events, knows what the
    /// location service knows; refusals change nothing; the limit holds; the answer is the truth.
    #[test]
    fn events_tell_the_whole_story(
        requests in vec((vec((0..6_usize, 0..4_usize), 0..4), 0..300_u64, 0..4_u32), 1..30),
    ) {
        let mut bench = Bench::new();
        bench.policy.max_contacts = 3;
        let mut store: BTreeMap<Box<str>, Binding> = BTreeMap::new();
        let mut cseq = 1;
        for (contacts, wait_s, step) in requests {
            bench.wall += Duration::from_secs(wait_s);
            cseq += step;
            let line = |(contact, expires): &(usize, usize)| {
                let expires_s = [0, 30, 60, 600][*expires];
                format!("Contact: {};expires={expires_s}\r\n", CONTACTS[*contact])
            };
            let before = bench.bound();
            let reply = bench.register(cseq, &contacts.iter().map(line).collect::<String>());
            let after = bench.bound();
            if reply.status != 200 {
                prop_assert!(reply.events.is_empty());
                prop_assert_eq!(&before, &after);
            } else {
                prop_assert_eq!(bench.contacts(&reply).len(), after.len());
            }
            for event in reply.events {
                match event {
                    RegisterEvent::Bound(binding) => _ = store.insert(binding.contact.clone(), *binding),
                    RegisterEvent::Unbound { contact, .. } => {
                        prop_assert!(store.remove(&contact).is_some(), "{} was not bound", contact);
                    }
                }
            }
            prop_assert!(after.len() <= 3);
            let mut stored: Vec<_> = store.values().filter(|b| !b.is_expired(bench.wall)).cloned().collect();
            let mut bound = after;
            stored.sort_by(|a, b| a.contact.cmp(&b.contact));
            bound.sort_by(|a, b| a.contact.cmp(&b.contact));
            prop_assert_eq!(stored, bound);
        }
    }
}

struct Bench {
    location: Location,
    policy: Policy,
    flow: Flow,
    wall: SystemTime,
    call_id: &'static str,
    via: &'static str,
    cseq: u32,
}

impl Bench {
    fn new() -> Self {
        let local = "198.51.100.100:5060".parse().unwrap();
        Self {
            location: Location::new(),
            policy: Policy::default(),
            flow: Flow { transport: Transport::Udp, local, remote: PHONE.parse().unwrap() },
            wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            call_id: "call-1",
            via: "203.0.113.9:40000;rport",
            cseq: 0,
        }
    }

    fn register(&self, cseq: u32, lines: &str) -> Reply {
        let text = format!(
            "REGISTER sip:pbx.example SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {via};branch=z9hG4bK{cseq}\r\n\
             From: <sip:1001@pbx.example>;tag=1\r\n\
             To: <sip:1001@pbx.example>\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} REGISTER\r\n\
             Max-Forwards: 70\r\n\
             User-Agent: Bench/1\r\n\
             {lines}Content-Length: 0\r\n\r\n",
            transport = self.flow.transport.token(),
            via = self.via,
            call_id = self.call_id,
        );
        let request = Message::parse(Bytes::from(text)).unwrap();
        handle_register(&request, self.flow, "1001", &self.policy, &self.location, self.wall)
    }

    fn bound(&self) -> Vec<Binding> {
        self.location.all(self.wall)
    }

    fn contacts(&self, reply: &Reply) -> Vec<String> {
        assert_eq!(reply.status, 200, "{reply:?}");
        let contacts = reply.headers.iter().filter(|(name, _)| *name == HeaderName::Contact);
        contacts.map(|(_, value)| value.clone()).collect()
    }
}

fn header(reply: &Reply, name: HeaderName) -> Option<&str> {
    reply.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
}

fn names(events: &[RegisterEvent]) -> Vec<String> {
    let name = |event: &RegisterEvent| match event {
        RegisterEvent::Bound(binding) => format!("+{}", binding.contact),
        RegisterEvent::Unbound { contact, .. } => format!("-{contact}"),
    };
    events.iter().map(name).collect()
}
