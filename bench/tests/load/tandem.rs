//! The generator drives Tandem, whose binary `cargo test --workspace` builds beside ours.

use crate::rig::{FROM_USER, PROGRAM, Target, free, own};
use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// A folder of its own, removed in the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(folder: &Path, listen: SocketAddr, callee: SocketAddr) -> PathBuf {
    let (place, caller) = (folder.display(), own(10));
    let conf = format!(
        r#"dialplan = ["rules.toml"]
[sip]
listen = ["udp:{listen}"]
[rtp]
ports = "40000-40999"
[http]
listen = false
[store]
url = "sqlite:{place}/tandem.db"
[control]
socket = "{place}/tandem.sock"
[trunk.in]
uri = "{caller}:5060"
context = "bench"
[trunk.out]
uri = "{callee}"
context = "bench"
caller_id = "{FROM_USER}"
[user.1001]
password = "phone-secret"
context = "bench"
"#
    );
    let path = folder.join("pbx.toml");
    fs::write(&path, conf).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    let rules = "[[bench.rule]]\nmatch = \"_+.\"\ndial = \"trunk:out\"\n";
    fs::write(folder.join("rules.toml"), rules).expect("written");
    path
}

#[test]
fn calls_with_and_without_digest_and_registrations() {
    let program = Path::new(PROGRAM).with_file_name("tandem");
    assert!(program.exists(), "no {}: `cargo build` makes it", program.display());
    let scratch = Scratch(env::temp_dir().join(format!("bench-tandem-{}", process::id())));
    fs::create_dir_all(&scratch.0).expect("made");
    let (listen, callee) = (free(2), free(24));
    let mut command = Command::new(program);
    command.args(["run", "-c"]).arg(write(&scratch.0, listen, callee));
    let tandem = Target::start(&mut command, listen);

    let plain = tandem.called(callee, &["calls", "--rate", "50", "--count", "50"]);
    assert_eq!(plain.faults, Vec::<String>::new());
    assert_eq!(plain.figure("done"), Some(50.0), "{plain:?}");

    let user = ["--user", "1001", "--password", "phone-secret"];
    let caller = format!("{}:0", own(12));
    let load = ["calls", "--rate", "50", "--count", "50", "--caller", &caller];
    let ends = ["--callee", &callee.to_string(), "--from-user", FROM_USER];
    let digest = tandem.run(&[&load[..], &user, &ends].concat());
    assert_eq!(digest.faults, Vec::<String>::new());
    assert_eq!(digest.figure("done"), Some(50.0), "{digest:?}");

    let load = ["register", "--phones", "1", "--rounds", "5", "--user", "1001"];
    let phones = format!("{}:0", own(11));
    let register =
        |per_s| tandem.run(&[&load[..], &["--phones-at", &phones, "--rate", per_s]].concat());
    let mut registered = register("10");
    // Where an answer takes longer than that, one is still under way when the next is due: then more slowly.
    if registered.faults == ["1 x a phone whose last registration is not over"] {
        registered = register("0.5");
    }
    assert_eq!(registered.faults, Vec::<String>::new());
    assert_eq!(registered.figure("done"), Some(5.0), "{registered:?}");
}

/// Played to one that writes no profile: the loads are what is tried here.
#[test]
fn a_profile_guided_build_has_something_to_learn_from() {
    let output = Command::new(PROGRAM)
        .args(["train", "--tandem"])
        .arg(Path::new(PROGRAM).with_file_name("tandem"))
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    for what in ["calls: ", "calls with digest: ", "registrations: ", "too many calls: ", "media: "]
    {
        assert!(told.lines().any(|line| line.starts_with(what)), "no {what:?} in {told}");
    }
}
