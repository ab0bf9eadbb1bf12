//! What the documents show is true: every TOML block loads, every command is one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tandem::config::{self, Files};

/// What the examples' `env:` names hold, and the certificate that they name.
fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(["pbx.example.com".to_owned()]).expect("made");
    let files = Files::default()
        .with("conf/fullchain.pem", &made.cert.pem())
        .with("conf/privkey.pem", &made.signing_key.serialize_pem());
    ["TWILIO_TRUNK_PASSWORD", "PHONE_1001_PASSWORD", "PHONE_1002_PASSWORD"]
        .into_iter()
        .fold(files, |files, name| files.with_env(name, "a secret"))
}

#[test]
fn the_first_screen_is_what_is_shipped_and_is_enough() {
    let readme = text("README.md");
    let blocks = blocks(&readme, "toml");
    let conf = named(&blocks, "# conf/pbx.toml");
    let plan = named(&blocks, "# dialplan/default.toml");
    assert_eq!(conf.trim(), text("conf/pbx.toml").trim(), "README and conf/pbx.toml differ");
    let shipped = text("dialplan/default.toml");
    assert_eq!(plan.trim(), shipped.trim(), "README and dialplan/default.toml differ");

    let files = files().with("conf/pbx.toml", &conf).with("dialplan/default.toml", &plan);
    let checked = config::check("conf/pbx.toml", &files);
    assert_eq!(checked.report.errors(), 0, "{}", checked.report.render(false));
    let config = checked.config.expect("no errors");
    assert_eq!(config.users.len(), 2);
    assert_eq!(config.dialplan.contexts.len(), 2, "the dialplan was found");
}

#[test]
fn every_other_toml_block_loads() {
    for path in documents() {
        let document = fs::read_to_string(&path).expect("document is readable");
        for block in blocks(&document, "toml") {
            if block.contains("[account]") {
                let files = Files::default().with("scenario.toml", &block);
                let (_, report) = config::scenario::check("scenario.toml", &files);
                assert_eq!(report.to_string(), "", "{}", path.display());
                continue;
            }
            let is_plan = block.contains(".rule]]");
            let files = match is_plan {
                true => files()
                    .with("conf/pbx.toml", &text("conf/pbx.toml"))
                    .with("dialplan/x.toml", &block),
                false => files().with("conf/pbx.toml", &block),
            };
            let checked = config::check("conf/pbx.toml", &files);
            let shown = checked.report.render(false);
            assert_eq!(checked.report.errors(), 0, "{}:\n{shown}", path.display());
        }
    }
}

/// `--help` at the end makes the parser read what comes before it, and nothing happen.
#[test]
fn every_command_in_the_documents_is_one() {
    let mut tried = 0;
    for path in documents() {
        let document = fs::read_to_string(&path).expect("document is readable");
        let lines = blocks(&document, "sh");
        let commands = lines.iter().flat_map(|block| block.lines());
        for line in commands.filter_map(|line| line.trim().strip_prefix("tandem ")) {
            let line = line.split(" #").next().unwrap_or_default();
            let mut arguments = words(line);
            if !arguments.iter().any(|argument| argument == "--help") {
                arguments.push("--help".to_owned());
            }
            let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
                .args(&arguments)
                .output()
                .expect("the binary runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: tandem {line}\n{said}", path.display());
            tried += 1;
        }
    }
    assert!(tried >= 10, "only {tried} commands were found: is the search still right?");
}

/// Relative links between documents lead somewhere.
#[test]
fn links_lead_somewhere() {
    for path in documents() {
        let document = fs::read_to_string(&path).expect("document is readable");
        let targets = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|t| !t.starts_with("http") && !t.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            let at = path.parent().expect("documents are in folders").join(file);
            assert!(at.exists(), "{} links to {target}", path.display());
        }
    }
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "bench", "docker", "docs", "pcap-fixtures"].map(|folder| root.join(folder));
    let mut found = vec![];
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let is_document = |path: &PathBuf| path.extension().is_some_and(|e| e == "md");
        found.extend(entries.map(|entry| entry.path()).filter(is_document));
    }
    found
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn blocks(document: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let opened = document.split(&start).skip(1);
    opened.filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

fn named(blocks: &[String], first_line: &str) -> String {
    let found = blocks.iter().find(|block| block.starts_with(first_line));
    found.unwrap_or_else(|| panic!("no block begins with {first_line}")).clone()
}

/// Splits a command line as a shell would, double quotes included.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
