//! Real clients' side of captured calls, replayed into a shard in virtual time: what comes of it is
//! the ladder beside the capture (`pcap-fixtures/README.md`).

mod capture;
mod diff;
mod replay;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

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
    baresip_is_refused = "baresip-is-refused",
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
    let text = |file: &str| fs::read_to_string(folder.join(file)).expect("the configuration");
    let got = replay::replay(&packets, &text("pbx.toml"), &text("rules.toml"));
    let file = folder.join(name).with_extension("ladder");
    if env::var_os("TANDEM_BLESS").is_some() {
        fs::write(&file, &got).expect("the ladder can be written");
        return;
    }
    let want = fs::read_to_string(&file).unwrap_or_default();
    if got != want {
        let file = file.display();
        panic!("{file} (-) is not what came of it (+):\n{}", diff::lines(&want, &got));
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap-fixtures")
}
