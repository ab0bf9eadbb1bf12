//! Real clients' side of captured calls, replayed into a shard in virtual time: what comes of it is
//! the ladder beside the capture (`pcap-fixtures/README.md`).

mod capture;
mod diff;
mod replay;

use replay::Outcome;
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tandem::config::{self, Config, Files};

macro_rules! captures {
    ($($test:ident = $name:literal,)*) => {
        const NAMES: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*
    };
}

captures! {
    baresip_calls_baresip = "baresip-calls-baresip",
    baresip_calls_linphone = "baresip-calls-linphone",
    baresip_gives_up = "baresip-gives-up",
    baresip_is_refused = "baresip-is-refused",
    linphone_calls_baresip = "linphone-calls-baresip",
    old_baresip_calls_by_tcp = "old-baresip-calls-by-tcp",
    pjsua_and_baresip_ring_together = "pjsua-and-baresip-ring-together",
    pjsua_calls_the_busy = "pjsua-calls-the-busy",
    pjsua_holds_and_resumes = "pjsua-holds-and-resumes",
    pjsua_wants_it_reliable = "pjsua-wants-it-reliable",
    sipp_calls_the_carrier = "sipp-calls-the-carrier",
    sipp_calls_the_echo_by_ipv6 = "sipp-calls-the-echo-by-ipv6",
    sipsak_pings_and_registers = "sipsak-pings-and-registers",
    the_carrier_calls = "the-carrier-calls",
}

#[test]
fn every_capture_is_replayed() {
    let mut found = vec![];
    for entry in fs::read_dir(folder()).expect("pcap-fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "pcap") {
            found.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
        }
    }
    found.sort();
    assert_eq!(found, NAMES);
}

/// Replays one capture; `TANDEM_BLESS` in the environment writes its ladder instead of comparing it.
fn check(name: &str) {
    let folder = folder();
    let capture = fs::read(folder.join(name).with_extension("pcap")).expect("a capture");
    let packets = capture::read(&capture).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    let Outcome { ladder: got, faults } = replay::replay(&packets, configuration(name));
    let file = folder.join(name).with_extension("ladder");
    if env::var_os("TANDEM_BLESS").is_some() {
        fs::write(&file, &got).expect("the ladder can be written");
    }
    let want = fs::read_to_string(&file).unwrap_or_default();
    if got != want {
        let (file, diff) = (file.display(), diff::lines(&want, &got));
        panic!("{file} (-) is not what came of it (+):\n{diff}{faults:#?}");
    }
    assert!(faults.is_empty(), "{faults:#?}\n{got}");
}

/// `NAME.toml` where there is one, else `pbx.toml`.
fn configuration(name: &str) -> Arc<Config> {
    let text = |file: &str| fs::read_to_string(folder().join(file));
    let mut files = Files::default();
    for file in ["pbx.toml", "rules.toml"] {
        files = files.with(file, &text(file).expect("the configuration"));
    }
    let own = format!("{name}.toml");
    let checked = match text(&own) {
        Ok(text) => config::check(&own, &files.with(&own, &text)),
        Err(_) => config::check("pbx.toml", &files),
    };
    Arc::new(checked.config.unwrap_or_else(|| panic!("{}", checked.report)))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap-fixtures")
}
