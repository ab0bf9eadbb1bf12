//! The shipped files, and what is said about wrong ones.

use super::*;

const PBX: &str = include_str!("../../conf/pbx.toml");
const DIALPLAN: &str = include_str!("../../dialplan/default.toml");

fn shipped() -> Files {
    Files::default()
        .with("conf/pbx.toml", PBX)
        .with("dialplan/default.toml", DIALPLAN)
        .with_env("TWILIO_TRUNK_PASSWORD", "t")
        .with_env("PHONE_1001_PASSWORD", "a")
        .with_env("PHONE_1002_PASSWORD", "b")
}

#[test]
fn the_shipped_files_are_enough() {
    let checked = check("conf/pbx.toml", &shipped());
    assert_eq!(checked.report.to_string(), "");
    let config = checked.config.unwrap();
    assert_eq!(config.node.country.to_string(), "US");
}
