//! What a reload would change, in an operator's words.
//!
//! Owns: the comparison of two configurations.
//! Never: shows a value: there are secrets among them.

use super::checked::Config;
use std::collections::{BTreeMap, BTreeSet};

/// Returns a line for each section, trunk, user and context that differs: `[user.1003] added`.
pub fn difference(old: &Config, new: &Config) -> Vec<String> {
    let sections = [
        ("[node]", old.node != new.node),
        ("[sip]", old.sip != new.sip),
        ("[tls]", old.tls != new.tls),
        ("[rtp]", old.rtp != new.rtp),
        ("[http]", old.http != new.http),
        ("[store]", old.store != new.store),
        ("[log]", old.log != new.log),
        ("[control]", old.control != new.control),
        ("[emergency]", old.emergency != new.emergency),
    ];
    let changed = sections.into_iter().filter(|(_, differs)| *differs);
    let mut lines: Vec<String> = changed.map(|(name, _)| format!("{name} changed")).collect();
    compare(&old.trunks, &new.trunks, |name| format!("[trunk.{name}]"), &mut lines);
    compare(&old.users, &new.users, |name| format!("[user.{name}]"), &mut lines);
    let (before, after) = (&old.dialplan, &new.dialplan);
    compare(&before.contexts, &after.contexts, |name| format!("dialplan {name}"), &mut lines);
    compare(&before.hours, &after.hours, |name| format!("hours {name}"), &mut lines);
    lines
}

fn compare<T: PartialEq>(
    old: &BTreeMap<Box<str>, T>,
    new: &BTreeMap<Box<str>, T>,
    called: impl Fn(&str) -> String,
    lines: &mut Vec<String>,
) {
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).map(|name| &**name).collect();
    for name in names {
        let what = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => "changed",
            (None, _) => "added",
            (Some(_), None) => "removed",
        };
        lines.push(format!("{} {what}", called(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Files};

    fn read(config: &str, rules: &str) -> Config {
        let config = format!("dialplan = \"rules.toml\"\n{config}");
        let files = Files::default().with("pbx.toml", &config).with("rules.toml", rules);
        let checked = config::check("pbx.toml", &files);
        checked.config.unwrap_or_else(|| panic!("{:?}", checked.report.problems()))
    }

    #[test]
    fn what_differs_is_named_and_no_value_shown() {
        let rule = |number: &str| format!("[[internal.rule]]\nmatch = \"{number}\"\necho = true\n");
        let old = read(
            "[trunk.a]\nuri = \"b.example\"\n[user.1001]\npassword = \"a secret\"\n[user.1002]\npassword = \"x\"\n",
            &rule("1"),
        );
        assert_eq!(difference(&old, &old), [""; 0]);
        let new = read(
            "[sip]\nrealm = \"r\"\n[user.1001]\npassword = \"another\"\n[user.1003]\npassword = \"x\"\n\
             [trunk.a]\nuri = \"a.example\"\n",
            &rule("2"),
        );
        let lines = difference(&old, &new);
        let want = [
            "[sip] changed",
            "[trunk.a] changed",
            "[user.1001] changed",
            "[user.1002] removed",
            "[user.1003] added",
            "dialplan internal changed",
        ];
        assert_eq!(lines, want);
    }
}
