//! The shipped files, and files that are too strange; [`super::mistakes_tests`] has those that are wrong.

use super::*;
use crate::{
    dialplan::{Decision, LocalTime, Query, Step},
    ids::Transport,
    network::Network,
    sdp::{Codec, Srtp},
    trunk::source::TWILIO_SIGNALLING,
};
use proptest::prelude::*;
use std::time::Duration;

const PBX: &str = include_str!("../../conf/pbx.toml");
pub(super) const DIALPLAN: &str = include_str!("../../dialplan/default.toml");
const REFERENCE: &str = include_str!("../../conf/reference.toml");
const REFERENCE_DIALPLAN: &str = include_str!("../../conf/reference-dialplan.toml");

/// The files as shipped, and whatever else the tests name.
pub(super) fn files(pbx: &str, dialplan: &str) -> Files {
    let (certificate, key) = certificate();
    Files::default()
        .with("conf/tls/fullchain.pem", certificate)
        .with("conf/tls/privkey.pem", key)
        .with("conf/tls/phones-ca.pem", certificate)
        .with("conf/tls/carrier-ca.pem", certificate)
        .with("conf/pbx.toml", pbx)
        .with("dialplan/default.toml", dialplan)
        .with_env("TWILIO_TRUNK_PASSWORD", "t")
        .with_env("PHONE_1001_PASSWORD", "a")
        .with_env("PHONE_1002_PASSWORD", "b")
        .with_env("PHONE_1002_MD5", "0123456789abcdef0123456789ABCDEF")
        .with_env("PHONE_PASSWORD", "p")
        .with_env("TRUNK_PASSWORD", "t")
        .with("conf/secrets/1002.sha256", &format!("{}\n", "5".repeat(64)))
        .with("conf/closed.wav", "")
        .with("conf/nobody.wav", "")
        .with("conf/welcome.wav", "")
        .with("conf/local/more.toml", "")
        .with("conf/reference-dialplan.toml", REFERENCE_DIALPLAN)
}

/// Some certificate, and its key.
fn certificate() -> (&'static str, &'static str) {
    static MADE: std::sync::OnceLock<(String, String)> = std::sync::OnceLock::new();
    let (certificate, key) = MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["pbx.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    });
    (certificate, key)
}

fn sound(pbx: &str) -> Config {
    let checked = check("conf/pbx.toml", &files(pbx, DIALPLAN_INTERNAL));
    assert_eq!(checked.report.errors(), 0, "{}", checked.report);
    checked.config.unwrap()
}

pub(super) const DIALPLAN_INTERNAL: &str = "[[internal.rule]]\nmatch = \"_1XXX\"\nreject = 404\n";

#[test]
fn the_shipped_files_are_enough() {
    let checked = check("conf/pbx.toml", &files(PBX, DIALPLAN));
    assert_eq!(checked.report.to_string(), "");
    let config = checked.config.unwrap();

    assert_eq!(config.node.country.to_string(), "US");
    assert_eq!(config.sip.listen.len(), 2);
    let trunk = &config.trunks["twilio"];
    assert_eq!(&*trunk.uris[0].host, "asterisk-pbx1.pstn.twilio.com");
    assert_eq!(trunk.username.as_deref(), Some("Asterisk"));
    assert_eq!(trunk.password.as_ref().map(Secret::expose), Some("t"));
    assert_eq!(trunk.codecs, [Codec::Pcmu, Codec::Pcma]);
    assert_eq!(trunk.sources, TWILIO_SIGNALLING);
    assert_eq!(trunk.qualify.unwrap().every, Duration::from_secs(30));
    assert!(trunk.e164 && !trunk.session_timers && !trunk.prack && !trunk.update);
    assert_eq!(config.users["1001"].secret, UserSecret::Password(Secret::new("a")));

    let at = LocalTime::parse("2026-11-20 12:00").unwrap();
    let query = Query { context: "internal", from: "1001", dialled: "(415) 555-0199", at };
    let Decision::Matched { rule, steps, .. } = config.dialplan.route(&query) else { panic!() };
    assert_eq!(&*rule, "internal[2]");
    let [Step::Dial(dial)] = steps.as_slice() else { panic!("{steps:?}") };
    let outbound = config.outbound("1001", dial, &dial.groups[0][0]).unwrap().unwrap();
    assert_eq!(outbound.caller_ids[0].expose(), "+17756187988");
}

#[test]
fn the_node_is_where_its_first_trunk_is() {
    for (trunks, want) in [
        ("", "US"),
        ("[trunk.a]\nuri = 'a.nl'\ncaller_id = '+31207654321'", "NL"),
        (
            "[trunk.b]\nuri = 'b.de'\ncaller_id = '+4930901820'\n\
             [trunk.a]\nuri = 'a.nl'\ncaller_id = '+31207654321'",
            "DE",
        ),
        ("[node]\ncountry = 'FR'\n[trunk.a]\nuri = 'a.nl'\ncaller_id = '+31207654321'", "FR"),
    ] {
        let pbx = format!("{trunks}\n[user.1001]\npassword = 'x'\n");
        assert_eq!(sound(&pbx).node.country.to_string(), want, "{trunks}");
    }
}

#[test]
fn trunks_can_be_tested_on_loopback() {
    let config = sound(
        "[trunk.twilio]\npreset = 'twilio'\nuri = ['a.pstn.twilio.com', 'b.pstn.twilio.com:5080']\n\
         address = '127.0.0.1:5070'\ntransport = 'tcp'\ncaller_id = '+17756187988'\n",
    );
    let trunk = &config.trunks["twilio"];
    assert_eq!(trunk.address.unwrap().to_string(), "127.0.0.1:5070");
    assert_eq!(trunk.transport, Transport::Tcp);
    assert_eq!(trunk.uris[1].port, Some(5080));
    assert!(Network::any(&trunk.sources, "127.0.0.1".parse().unwrap()));
    assert!(Network::any(&trunk.media_sources, "127.0.0.1".parse().unwrap()));
    assert!(Network::any(&trunk.sources, "54.172.60.1".parse().unwrap()));
}

/// Twilio's secure trunks want TLS and SRTP, the others neither.
#[test]
fn srtp_goes_with_tls() {
    for (preset, transport, srtp, want, suites) in [
        ("none", "udp", "", Srtp::Prefer, 4),
        ("none", "tls", "", Srtp::Prefer, 4),
        ("none", "tls", "srtp = 'require'", Srtp::Require, 4),
        ("none", "tls", "srtp = 'off'", Srtp::Off, 4),
        ("twilio", "tcp", "", Srtp::Prefer, 2),
        ("twilio", "tls", "", Srtp::Require, 2),
        ("twilio", "tls", "srtp = 'off'", Srtp::Off, 2),
    ] {
        let config = sound(&format!(
            "[trunk.a]\npreset = '{preset}'\nuri = 'a.pstn.twilio.com'\ntransport = '{transport}'\n\
             caller_id = '+17756187988'\n{srtp}\n",
        ));
        let trunk = &config.trunks["a"];
        let got = (trunk.srtp, trunk.srtp_suites.len());
        assert_eq!(got, (want, suites), "{preset} {transport} {srtp}");
    }
}

#[test]
fn secrets_come_from_files_and_hashes_are_told_apart() {
    let config = sound(
        "[user.1001]\npassword = 'file:secrets/1002.sha256'\n\
         [user.1002]\nha1 = ['env:PHONE_1002_MD5', 'file:secrets/1002.sha256']\n",
    );
    let five = Secret::new(&"5".repeat(64));
    assert_eq!(config.users["1001"].secret, UserSecret::Password(five.clone()));
    let md5 = Some(Secret::new("0123456789abcdef0123456789abcdef"));
    assert_eq!(config.users["1002"].secret, UserSecret::Ha1 { md5, sha256: Some(five) });
    assert!(!format!("{config:?}").contains("5555"));
}

#[test]
fn users_are_rung_by_their_own_numbers() {
    let config = sound(
        "[trunk.a]\nuri = 'a.example.com'\n[user.1001]\npassword = 'x'\ndid = '+17756187988'\n",
    );
    let at = LocalTime::parse("2026-11-20 12:00").unwrap();
    let from = "+14155550199";
    let query = Query { context: "inbound", from, dialled: "+17756187988", at };
    let Decision::Matched { rule, .. } = config.dialplan.route(&query) else { panic!() };
    assert_eq!(&*rule, "user.1001.did");
}

#[test]
fn included_files_are_part_of_the_whole() {
    let files = files("include = ['users/*.toml']\n[node]\nname = 'a'\n", DIALPLAN_INTERNAL)
        .with("conf/users/a.toml", "[user.1001]\npassword = 'x'\n")
        .with("conf/users/b.toml", "[user.1002]\npassword = 'x'\n[node]\ntimezone = 'UTC'\n");
    let config = check("conf/pbx.toml", &files).config.unwrap();
    assert_eq!(config.users.len(), 2);
    assert_eq!(&*config.node.name, "a");
}

/// Turns `#key = value` into `key = value`; `# Prose` stays.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_reference_has_every_key() {
    let text = uncommented(REFERENCE);
    let (checked, [asked, found]) = read("conf/pbx.toml", &files(&text, ""));
    assert_eq!(checked.report.to_string(), "");
    let absent: Vec<_> = asked.difference(&found).collect();
    assert_eq!(absent, [&("", ""); 0], "these are in the code, but not in conf/reference*.toml");

    let config = checked.config.unwrap();
    for case in &checked.cases {
        assert_eq!(case.differences(&config), [""; 0], "{case}");
    }
}

#[test]
fn the_reference_has_the_defaults() {
    let least = "[trunk.example]\nuri = 'sip.example.com'\n\
                 [user.1001]\npassword = 'env:PHONE_PASSWORD'\n";
    assert_eq!(sound(REFERENCE), sound(least));

    let preset = "[trunk.twilio]\npreset = 'twilio'\nuri = 'example.pstn.twilio.com'\n\
                  caller_id = '+17756187988'\n";
    let reference = check("conf/pbx.toml", &files(&uncommented(REFERENCE), "")).config.unwrap();
    assert_eq!(reference.trunks["twilio"], sound(preset).trunks["twilio"]);
}

/// What a diagnostic says, on one line: place, code, sentence, help.
fn line(report: &Report, diagnostic: &Diagnostic) -> String {
    let problem = &diagnostic.problem;
    let help = problem.help().map_or(String::new(), |help| format!(" | {help}"));
    let line = report.origin(&diagnostic.span).line;
    format!("{line} {} {problem}{help}", problem.code())
}

#[track_caller]
pub(super) fn assert_problems(files: &Files, want: &[&str]) {
    let checked = check("conf/pbx.toml", files);
    let report = &checked.report;
    let got: Vec<_> = report.diagnostics.iter().map(|d| line(report, d)).collect();
    assert_eq!(got, want);
    assert_eq!(checked.config.is_none(), report.errors() > 0);
}

proptest! {
    /// Whatever the files are, reading them ends, and what is wrong can be drawn.
    #[test]
    fn no_file_is_too_strange(text in "\\PC{0,200}", lines in prop::collection::vec(toml_line(), 0..30)) {
        let text = format!("{}\n{text}", lines.join("\n"));
        let checked = check("conf/pbx.toml", &files(&text, &text));
        prop_assert_eq!(checked.config.is_none(), checked.report.errors() > 0);
        checked.report.render(true);
    }
}

/// Lines that are nearly right, so that more than the parser of TOML is reached.
fn toml_line() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "[trunk.a]",
        "[user.1001]",
        "[sip]",
        "[rtp]",
        "[node]",
        "[hours.x]",
        "[[internal.rule]]",
        "[[inbound.rule]]",
        "[[test]]",
        "[internal.rule]",
        "[log]",
    ]);
    let key = prop::sample::select(vec![
        "uri",
        "preset",
        "password",
        "caller_id",
        "qualify",
        "source",
        "did",
        "listen",
        "ports",
        "match",
        "from",
        "when",
        "dial",
        "on",
        "else",
        "goto",
        "steps",
        "play",
        "reject",
        "want",
        "at",
        "days",
        "times",
        "holidays",
        "timezone",
        "include",
        "dialplan",
    ]);
    let value = prop::sample::select(vec![
        "\"twilio\"",
        "\"_1XXX\"",
        "\"_+.\"",
        "\"re:(?<a>.)\"",
        "\"user:{number}\"",
        "\"trunk:a/{a}\"",
        "[[\"user:1001\"], [\"sip:x@y\"]]",
        "[]",
        "{}",
        "5",
        "true",
        "1.5",
        "\"next\"",
        "{ goto = \"internal\" }",
        "\"internal/{number}0\"",
        "2026-12-25",
        "\"10000-20000\"",
        "\"\\u0000\"",
        "\"x/*.toml\"",
        "{ dial = \"user:1\", else = \"next\" }",
    ]);
    prop_oneof![
        1 => header.prop_map(str::to_owned),
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}
