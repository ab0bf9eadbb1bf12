//! The shipped configuration, read from the disk as `tandem` reads it.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};
use tandem::{
    config::Source,
    shell::{
        cli_check::{OK, WRONG, check, dialplan_test, dialplan_try},
        config_files::{Disk, load},
    },
};

const PBX: &str = "conf/pbx.toml";

/// Copies the shipped files, with passwords in files instead of the environment, and returns the
/// path of the configuration.
fn copied(folder: &Path) -> io::Result<String> {
    for name in ["conf", "dialplan"] {
        fs::create_dir(folder.join(name))?;
    }
    for file in ["dialplan/default.toml", "dialplan/cases.toml"] {
        fs::copy(file, folder.join(file))?;
    }
    let text = fs::read_to_string(PBX)?.replace("\"env:", "\"file:");
    fs::write(folder.join(PBX), text)?;
    for secret in ["TWILIO_TRUNK_PASSWORD", "PHONE_1001_PASSWORD", "PHONE_1002_PASSWORD"] {
        let path = folder.join("conf").join(secret);
        fs::write(&path, "secret\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(folder.join(PBX).to_string_lossy().into_owned())
}

#[test]
fn the_shipped_configuration_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = copied(folder.path()).unwrap();
    let outcome = check(&path, false);
    assert_eq!(outcome.text, format!("{path}: 1 trunk, 2 users, 3 rules, 9 tests\n"));
    assert_eq!(outcome.code, OK);
    let config = load(&path).config.unwrap();
    assert_eq!(config.trunks["twilio"].password.as_ref().unwrap().expose(), "secret");
}

#[test]
fn the_shipped_dialplan_does_what_its_cases_say() {
    let outcome = dialplan_test(PBX);
    assert_eq!(outcome.code, OK, "{}", outcome.text);
}

#[test]
fn trying_a_number_needs_no_secret() {
    let outcome = dialplan_try(PBX, "1001", "020 765 43 21", Some("2026-11-20 12:00"));
    assert!(outcome.text.contains("no rule applies"), "{}", outcome.text);
    let outcome = dialplan_try(PBX, "1001", "+31 20 765 43 21", None);
    assert!(outcome.text.contains("dial +31207654321 via trunk twilio"), "{}", outcome.text);
    let guard = "guard: +31207654321 via trunk twilio is refused with 403 Country Not Allowed: G010 \
                 calls to NL are not allowed (help: add \"NL\" to `allow = { countries = [...] }` of \
                 the trunk, the user or the rule)";
    assert!(outcome.text.contains(guard), "{}", outcome.text);
    assert_eq!(outcome.code, WRONG);
    let outcome = dialplan_try(PBX, "1001", "(415) 555-0199", None);
    assert_eq!(outcome.code, OK, "{}", outcome.text);
}

#[test]
fn a_mistake_is_found_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = copied(folder.path()).unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("pstn.twilio.com", "sip.twilio.com");
    fs::write(&path, text).unwrap();
    let outcome = check(&path, false);
    assert!(outcome.text.starts_with("error[C019]"), "{}", outcome.text);
    assert!(outcome.text.ends_with(&format!("{path}: 1 error\n")), "{}", outcome.text);
    assert_eq!(outcome.code, WRONG);
}

/// The two files of the README are these, word for word.
#[test]
fn the_readme_shows_the_shipped_files() {
    let Ok(readme) = Disk.read("README.md") else { return };
    for file in [PBX, "dialplan/default.toml"] {
        let text = fs::read_to_string(file).unwrap();
        assert!(readme.text.contains(&text), "README.md does not contain {file}");
    }
}
