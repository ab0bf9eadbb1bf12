//! Rules about the source itself, checked like any other behaviour.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a module may name of the others.
#[derive(Clone, Copy)]
enum May {
    Name(&'static [&'static str]),
    NameAllBelow,
}

/// Every module of the library, bottom to top: `sip sdp` < `transaction` < `dialog` < `call` <
/// `shard` < `shell`. A new module is a new line.
const LAYERS: &[(&str, May)] = &[
    ("ids", May::Name(&[])),
    ("few", May::Name(&[])),
    ("table", May::Name(&[])),
    ("timers", May::Name(&["table"])),
    ("network", May::Name(&[])),
    ("wipe", May::Name(&[])),
    ("locate", May::Name(&["ids"])),
    ("sip", May::Name(&["ids"])),
    ("sdp", May::Name(&["ids", "wipe"])),
    ("media", May::Name(&["ids", "network", "timers", "wipe"])),
    ("observe", May::Name(&["ids"])),
    ("transaction", May::Name(&["ids", "sip", "table", "timers"])),
    ("dialplan", May::Name(&["observe"])),
    ("guard", May::Name(&["dialplan", "ids", "network", "observe"])),
    ("trunk", May::Name(&["ids", "locate", "network", "observe", "sip"])),
    ("tls", May::Name(&[])),
    (
        "config",
        May::Name(&[
            "dialplan", "guard", "ids", "network", "observe", "sdp", "sip", "tls", "trunk", "wipe",
        ]),
    ),
    ("registrar", May::Name(&["config", "ids", "network", "observe", "sip", "wipe"])),
    ("dialog", May::Name(&["ids", "sip", "table", "timers", "transaction"])),
    ("call", May::NameAllBelow),
    ("shard", May::NameAllBelow),
    ("sim", May::NameAllBelow),
    ("shell", May::NameAllBelow),
];

/// What touches the world, and is therefore named by the shell and the binary alone.
const WORLD: &[&str] = &[
    "tokio::",
    "rustix::",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "Utc::now",
    "Local::now",
];

/// Where one of them is named outside, and why.
const EXCUSED: &[(&str, &str, &str)] =
    &[("src/sim/world.rs", "Instant::now", "virtual time must start somewhere")];

/// Where each foreign crate's types may be seen: a replacement touches these files and no other.
/// Crates that are a language of their own (bytes, serde, thiserror, tracing) are seen everywhere.
const FOREIGN: &[(&str, &[&str])] = &[
    ("aes", &["src/media/srtp/cipher.rs"]),
    ("annotate_snippets", &["src/config/"]),
    ("axum", &["src/shell/"]),
    ("aya", &["src/shell/kernel/program.rs"]),
    ("base64", &["src/sdp/crypto.rs"]),
    ("chrono", &["src/config/timezone.rs", "src/dialplan/", "src/observe/cdr.rs", "src/shell/"]),
    ("chrono_tz", &["src/config/timezone.rs"]),
    ("clap", &["src/main.rs", "src/shell/"]),
    ("ctr", &["src/media/srtp/cipher.rs"]),
    ("dashmap", &["src/registrar/location.rs"]),
    ("hickory_resolver", &["src/shell/"]),
    ("hmac", &["src/media/srtp/cipher.rs"]),
    ("hound", &["src/media/prompt.rs"]),
    ("md5", &["src/sip/digest.rs"]),
    ("mimalloc", &["src/main.rs"]),
    ("nix", &["src/shell/datagrams.rs"]),
    ("prometheus_client", &["src/observe/metrics"]),
    ("rand_chacha", &["src/ids.rs", "src/sim/"]),
    ("rcgen", &["src/shell/"]),
    ("regex", &["src/dialplan/pattern.rs"]),
    ("ring", &["src/media/srtp/cipher.rs"]),
    ("rlibphonenumber", &["src/dialplan/number.rs"]),
    ("rtcp_types", &["src/media/rtcp.rs"]),
    ("rtp_rs", &["src/media/rtp.rs"]),
    ("rusqlite", &["src/shell/store"]),
    (
        "rustix",
        &[
            "src/shell/core_dumps.rs",
            "src/shell/epoll.rs",
            "src/shell/exposure.rs",
            "src/shell/files.rs",
            "src/shell/kernel/program.rs",
            "src/shell/succession/descriptors.rs",
        ],
    ),
    ("rustls", &["src/tls/"]),
    ("rustls_native_certs", &["src/shell/"]),
    ("sd_notify", &["src/shell/"]),
    ("sha1", &["src/media/srtp/cipher.rs"]),
    ("sha2", &["src/sip/digest.rs"]),
    ("siphasher", &["src/ids/mint.rs"]),
    ("socket2", &["src/shell/"]),
    ("tokio", &["src/main.rs", "src/shell/"]),
    ("tokio_rustls", &["src/shell/"]),
    ("toml", &["src/config/"]),
    ("tracing_subscriber", &["src/observe/log.rs", "src/shell/"]),
    ("zeroize", &["src/wipe.rs"]),
];

/// Lines before the tests. A file that needs more is two files.
const FILE_LINES_MAX: usize = 600;
/// Where a longer file is the lesser evil, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Where Rust is written: the product, its tests, the load generator.
const ROOTS: &[&str] = &["src", "tests", "bench"];

/// Notes to oneself and to a tracker: a reader of the code has neither.
const NOTES: &[&str] = &["TODO", "FIXME", "XXX:", "HACK", "issue 1", "issue 2", "issue #"];

#[test]
fn layers_point_downwards() {
    let mut wrong = vec![];
    for (path, text) in code("src") {
        let Some(layer) = layer_of(&path) else { continue };
        let Some(height) = LAYERS.iter().position(|(name, _)| *name == layer) else {
            panic!("{}: `{layer}` is not in LAYERS", path.display());
        };
        let (below, above) = LAYERS.split_at(height);
        let may = above.first().map(|(_, may)| *may);
        for named in modules_named(&text).into_iter().filter(|named| *named != layer) {
            let is_below = below.iter().any(|(name, _)| *name == named);
            let is_known = match may {
                Some(May::Name(names)) => names.contains(&&*named),
                Some(May::NameAllBelow) | None => true,
            };
            if !is_below || !is_known {
                wrong.push(format!("{}: {layer} names {named}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_shell_touches_the_world() {
    let mut wrong = vec![];
    for (path, text) in code("src").filter(|(path, _)| !is_shell(path)) {
        for (number, line) in text.lines().enumerate() {
            for word in WORLD.iter().filter(|word| line.contains(**word)) {
                if EXCUSED.iter().any(|(file, what, _)| path.ends_with(file) && what == word) {
                    continue;
                }
                wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn foreign_types_stay_in_their_module() {
    let mut wrong = vec![];
    for (path, text) in code("src") {
        for (krate, homes) in FOREIGN {
            let is_home = homes.iter().any(|home| path.to_string_lossy().starts_with(home));
            if !is_home && names_crate(&text, krate) {
                wrong.push(format!("{}: {krate} (its place: {})", path.display(), homes.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_fit_in_the_head() {
    for (path, text) in code("src").chain(code("bench")) {
        let lines = text.lines().count();
        let excused = LONG_FILES.iter().any(|(file, _)| path.ends_with(file));
        assert!(lines <= FILE_LINES_MAX || excused, "{}: {lines} lines", path.display());
    }
}

#[test]
fn modules_say_what_they_are_for() {
    let mut wrong = vec![];
    for (path, text) in ROOTS.iter().flat_map(|dir| files(dir, &["rs"])) {
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: begins without a `//!`", path.display()));
        }
    }
    for (path, text) in code("src").filter(|(path, _)| layer_of(path).is_some()) {
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        for word in ["Owns: ", "Never: "] {
            if !head.contains(word) {
                wrong.push(format!("{}: no `{}`", path.display(), word.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lints_are_expected_with_a_reason_never_allowed() {
    for (path, text) in ROOTS.iter().flat_map(|dir| files(dir, &["rs"])) {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let is_allowed = ["#[", "#!["].iter().any(|hash| {
                line.strip_prefix(hash).is_some_and(|attribute| attribute.starts_with("allow"))
            });
            assert!(!is_allowed, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = vec![];
    for dir in ["src", "bench", "conf", "dialplan", "docker", "tests"] {
        for (path, text) in files(dir, &["rs", "toml", "py", "md", "yaml"]) {
            if path.ends_with("tests/tidy.rs") {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                for note in NOTES.iter().filter(|note| line.contains(**note)) {
                    wrong.push(format!("{}:{}: {note}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let mut wrong = vec![];
    for path in ["Cargo.toml", "bench/Cargo.toml"] {
        let manifest = fs::read_to_string(path).expect("the package has a manifest");
        let mut section = "";
        for line in manifest.lines() {
            let is_bare = line.contains('=') && !line.contains(" # ");
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]") && is_bare {
                wrong.push(format!("{path}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first folder (or file) below `src`; none for the crate's roots.
fn layer_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.iter().next()?.to_string_lossy();
    let layer = first.strip_suffix(".rs").unwrap_or(&first);
    (!["lib", "main", "bin"].contains(&layer)).then(|| layer.to_owned())
}

fn is_shell(path: &Path) -> bool {
    layer_of(path).is_none_or(|layer| layer == "shell")
}

/// The modules in `crate::name` and `use crate::{name::.., name}`.
fn modules_named(text: &str) -> BTreeSet<String> {
    text.split("crate::").skip(1).flat_map(after_crate).collect()
}

fn after_crate(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![identifier(rest)];
    };
    let mut names = vec![];
    let mut depth = 0_u32;
    let mut start = 0;
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b',' | b'}' if depth == 0 => {
                names.push(identifier(group[start..at].trim_start()));
                start = at + 1;
                if byte == b'}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `krate::` stands there as a path's beginning.
fn names_crate(text: &str, krate: &str) -> bool {
    let needle = format!("{krate}::");
    text.match_indices(&needle).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn names_are_found_in_groups_and_paths() {
    let text =
        "use crate::{call::{Call, Leg}, sip,\n  ids::Flow,\n};\nlet x = crate::media::run();";
    let named: Vec<_> = modules_named(text).into_iter().collect();
    assert_eq!(named, ["call", "ids", "media", "sip"]);
    assert!(names_crate("use toml::Value;", "toml"));
    assert!(!names_crate("use crate::toml::Value; my_toml::x", "toml"));
}

/// Source without its tests and comments other than the head.
fn code(dir: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let all: Vec<_> = files(dir, &["rs"]).collect();
    let tests: BTreeSet<_> = all.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    let is_test = move |path: &PathBuf| {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        let is_below = path.parent().is_some_and(|dir| tests.contains(&dir.with_extension("rs")));
        tests.contains(path) || is_below || name.is_some_and(|name| name.ends_with("_tests"))
    };
    all.into_iter().filter(move |(path, _)| !is_test(path)).map(|(path, text)| {
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines = text[..end].lines().map(|line| {
            let is_comment = line.trim_start().starts_with("//") && !line.starts_with("//!");
            if is_comment { "" } else { line }
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        (path, text)
    })
}

/// The files that a file declares as `#[cfg(test)] mod name;`.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|root| path.ends_with(root));
    let dir = if is_root { path.with_file_name("") } else { path.with_extension("") };
    let mut found = vec![];
    let mut is_test = false;
    for line in text.lines() {
        let module = line.strip_prefix("mod ").and_then(|line| line.strip_suffix(';'));
        match module {
            Some(name) if is_test => found.push(dir.join(name).with_extension("rs")),
            Some(_) | None => {}
        }
        is_test = line == "#[cfg(test)]" || (is_test && line.starts_with("#["));
    }
    found
}

fn files(dir: &str, endings: &'static [&str]) -> impl Iterator<Item = (PathBuf, String)> {
    let mut found = vec![];
    let mut todo = vec![PathBuf::from(dir)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension() {
                None if path.is_dir() => todo.push(path),
                Some(ending) if endings.iter().any(|known| ending == *known) => {
                    let text = fs::read_to_string(&path).expect("source is readable");
                    found.push((path, text));
                }
                Some(_) | None => {}
            }
        }
    }
    found.sort();
    found.into_iter()
}
