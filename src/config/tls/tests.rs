//! What is said about certificates.

use crate::config::{
    Files, check,
    tests::{assert_problems, files},
};
use crate::tls::Clients;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::time::{Duration, SystemTime};

const RULES: &str = "[[internal.rule]]\nmatch = \"_1XXX\"\nreject = 404\n\
                     [[inbound.rule]]\nmatch = \"_.\"\nreject = 404\n";

/// A certificate from 2026-11-01 to 2026-12-01, and its key.
fn pair() -> (String, String) {
    let mut params = CertificateParams::new(vec!["pbx.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2026, 11, 1);
    params.not_after = date_time_ymd(2026, 12, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A configuration with a user, the files `a.pem`, `a.key`, `b.key`, `open.key`, at a time.
fn with(pbx: &str, s: u64) -> Files {
    let ((pem, key), (_, other)) = (pair(), pair());
    files(&format!("{pbx}\n[user.1001]\npassword = \"x\"\n"), RULES)
        .with("conf/a.pem", &pem)
        .with("conf/a.key", &key)
        .with("conf/b.key", &other)
        .with_public("conf/open.key", &key)
        .at(SystemTime::UNIX_EPOCH + Duration::from_secs(s))
}

/// 2026-11-05, when it holds and is not to be renewed yet.
const FINE: u64 = 1_793_491_200 + 4 * 86_400;
const TLS: &str =
    "[sip]\nlisten = 'tls:0.0.0.0:5061'\n[tls]\ncertificate = 'a.pem'\nkey = 'a.key'\n";

#[test]
fn a_certificate_and_its_key_make_an_identity() {
    let checked = check("conf/pbx.toml", &with(TLS, FINE));
    assert_eq!(checked.report.to_string(), "");
    let tls = checked.config.unwrap().tls.unwrap();
    assert_eq!(tls.clients, Clients::Off);
    for (more, want) in [
        ("client_ca = 'a.pem'", "Require(Authorities(1))"),
        ("client_ca = 'a.pem'\nclient_certificates = 'optional'", "Optional(Authorities(1))"),
        ("client_ca = 'a.pem'\nclient_certificates = 'off'", "Off"),
    ] {
        let checked = check("conf/pbx.toml", &with(&format!("{TLS}{more}\n"), FINE));
        let tls = checked.config.unwrap().tls.unwrap();
        assert_eq!(format!("{:?}", tls.clients), want);
    }
}

/// What needs no secret works without the files.
#[test]
fn without_secrets_there_is_no_certificate_and_no_mistake() {
    let pbx = "[sip]\nlisten = 'tls:0.0.0.0:5061'\n[tls]\ncertificate = 'x.pem'\nkey = 'x.key'\n";
    let files = with(pbx, FINE);
    let checked = check("conf/pbx.toml", &crate::config::WithoutSecrets(&files));
    assert_eq!(checked.report.to_string(), "");
    assert_eq!(checked.config.unwrap().tls, None);
}

#[test]
fn each_mistake_about_certificates_has_its_sentence() {
    let pem = "PEM files begin with `-----BEGIN`; a key must not be behind a passphrase";
    for (pbx, want) in [
        (
            "[sip]\nlisten = 'tls:0.0.0.0:5061'",
            "2 C072 a TLS listener needs a certificate | add `[tls]` with `certificate = \
             \"fullchain.pem\"` and `key = \"privkey.pem\"`"
                .to_owned(),
        ),
        ("[tls]\ncertificate = 'a.pem'", "2 C030 `certificate` without `key`".to_owned()),
        ("[tls]\nkey = 'a.key'", "2 C030 `key` without `certificate`".to_owned()),
        (
            "[tls]\nclient_certificates = 'require'",
            "2 C030 `client_certificates` without `client_ca`".to_owned(),
        ),
        (
            "[tls]\ncertificate = 'none.pem'\nkey = 'a.key'",
            "2 C006 cannot read `conf/none.pem`: no such file".to_owned(),
        ),
        (
            "[tls]\ncertificate = 'a.pem'\nkey = 'none.key'",
            "3 C006 cannot read `conf/none.key`: no such file".to_owned(),
        ),
        (
            "[tls]\ncertificate = 'a.key'\nkey = 'a.key'",
            format!("2 C070 cannot use `conf/a.key`: there is no certificate in it | {pem}"),
        ),
        (
            "[tls]\ncertificate = 'a.pem'\nkey = 'a.pem'",
            format!("3 C070 cannot use `conf/a.pem`: there is no private key in it | {pem}"),
        ),
        (
            "[tls]\ncertificate = 'a.pem'\nkey = 'b.key'",
            "3 C071 the key in `conf/b.key` is not that of the certificate in `conf/a.pem` | \
             `certificate` and `key` come from one request, such as `fullchain.pem` and \
             `privkey.pem`"
                .to_owned(),
        ),
        (
            "[tls]\ncertificate = 'a.pem'\nkey = 'open.key'",
            "3 C043 others can read `conf/open.key`, which holds a secret | chmod 600 \
             conf/open.key"
                .to_owned(),
        ),
        (
            "[tls]\nclient_ca = 'a.key'",
            format!("2 C070 cannot use `conf/a.key`: there is no certificate in it | {pem}"),
        ),
        (
            "[tls]\nclient_certificates = 'requires'",
            "2 C011 `requires` is not one of `off`, `optional`, `require` | did you mean `require`?"
                .to_owned(),
        ),
        (
            "[sip]\nlisten = ['tcp:0.0.0.0:5061', 'tls:0.0.0.0:5061']\n\
             [tls]\ncertificate = 'a.pem'\nkey = 'a.key'",
            "2 C014 `tls:0.0.0.0:5061` is listened on twice".to_owned(),
        ),
    ] {
        assert_problems(&with(pbx, FINE), &[&want]);
    }
}

#[test]
fn each_mistake_about_a_trunk_s_tls_has_its_sentence() {
    for (pbx, want) in [
        (
            "[trunk.a]\nuri = 'a.b'\ntransport = 'tls'\ntls = { verify = false }",
            "4 C078 anybody can pretend to be this trunk: its certificate is not checked | remove \
             `verify = false`, and name the carrier's authority in `ca`"
                .to_owned(),
        ),
        (
            "[trunk.a]\nuri = 'a.b'\ntls = { ca = 'a.pem' }",
            "3 C079 `tls` without `transport = \"tls\"`: the trunk is called in the clear | write \
             `transport = \"tls\"`"
                .to_owned(),
        ),
        (
            "[trunk.a]\nuri = 'a.b:5060'\ntransport = 'tls'",
            "2 C076 port 5060 is the one without TLS | write 5061, or leave the port out"
                .to_owned(),
        ),
        (
            "[trunk.a]\nuri = 'a.b'\ntransport = 'tls'\naddress = '127.0.0.1:5060'\nsource = []",
            "4 C076 port 5060 is the one without TLS | write 5061, or leave the port out"
                .to_owned(),
        ),
        (
            "[trunk.a]\nuri = 'a.b'\ntransport = 'tls'\nsource = '192.0.2.1'",
            "3 C077 the trunk cannot call us over TLS: there is no TLS listener | add \
             \"tls:0.0.0.0:5061\" to `[sip] listen`"
                .to_owned(),
        ),
        (
            "[trunk.a]\nuri = 'a.b'\ntransport = 'tls'\ntls = { server_name = 'a b' }",
            "4 C020 `a b` is not the name of a host | write only the host, such as \
             \"example.pstn.twilio.com\""
                .to_owned(),
        ),
    ] {
        assert_problems(&with(pbx, FINE), &[&want]);
    }
}

#[test]
fn a_certificate_must_hold_and_go_on_holding() {
    let day = |n: u64| 1_793_491_200 + n * 86_400;
    let soon = "renew it, then `tandem reload`: connections stay";
    for (s, want) in [
        (day(0) - 1, "holds only in 1 day | look at this machine's clock, or use it later".into()),
        (day(20), format!("expires in 10 days | {soon}")),
        (day(30) - 1, format!("expires in less than a day | {soon}")),
        (day(30) + 1, format!("expired less than a day ago | {soon}")),
        (day(37) + 1, format!("expired 7 days ago | {soon}")),
    ] {
        let code = if want.starts_with("holds") {
            "C074"
        } else if want.starts_with("expired") {
            "C073"
        } else {
            "C075"
        };
        let line = format!("4 {code} the certificate in `conf/a.pem` {want}");
        assert_problems(&with(TLS, s), &[&line]);
    }
}
