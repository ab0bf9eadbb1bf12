//! What is shipped beside the program says the same as the program.

use std::fs;
use tandem::config::{Files, check};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker");

#[test]
fn the_image_s_configurations_are_free_of_mistakes_and_their_cases_hold() {
    for file in ["etc/pbx.toml", "caller/pbx.toml"] {
        let files = Files::default()
            .with_public("etc/pbx.toml", &read(file))
            .with_public("etc/dialplan/default.toml", &read("etc/dialplan/default.toml"))
            .with_env("PHONE_1001_PASSWORD", "one")
            .with_env("PHONE_1001_HA1", &"0123456789abcdef".repeat(2))
            .with_env("PHONE_1002_PASSWORD", "two");
        let checked = check("etc/pbx.toml", &files);
        assert_eq!(checked.report.diagnostics.len(), 0, "{}", checked.report.render(false));
        let config = checked.config.expect("no mistakes");
        assert!(!checked.cases.is_empty());
        for case in &checked.cases {
            assert_eq!(case.differences(&config), Vec::<String>::new());
        }
    }
}

/// The container's folders, user and ports appear in several files, and must agree.
#[test]
fn image_compose_file_and_unit_agree() {
    for (file, facts) in [
        (
            "Dockerfile",
            &[
                "--uid 5060",
                "/run/tandem",
                "/var/lib/tandem",
                "EXPOSE 5060/udp",
                "RUN bench/profiled --here\n",
                "/src/target/profiled/tandem /usr/bin/tandem\n",
            ][..],
        ),
        (
            "../bench/profiled",
            &["work=$PWD/target/profiled\n", "\"$work/tandem\"\n", "train --tandem"],
        ),
        ("compose.yaml", &["uid=5060", "/run/tandem", "/var/lib/tandem", "127.0.0.1:5060"]),
        (
            "tandem.service",
            &[
                "RuntimeDirectory=tandem\n",
                "StateDirectory=tandem\n",
                "Type=notify\n",
                "WatchdogSec=",
            ],
        ),
        ("caller/Dockerfile", &["sip-tester", "call.xml", "call.sh"]),
    ] {
        let text = read(file);
        for fact in facts {
            assert!(text.contains(fact), "docker/{file}: no {fact}");
        }
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"))
}
