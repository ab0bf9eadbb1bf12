//! Where configuration comes from, as seen by those who must not open files.
//!
//! Owns: the trait the shell implements, files in memory, and arithmetic with paths.
//! Never: touches the disk.

use std::{collections::BTreeMap, time::SystemTime};

/// The text of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Text {
    /// Its contents.
    pub text: String,
    /// Whether others than its owner may read it.
    pub is_public: bool,
}

/// Files and the environment.
pub trait Source {
    /// Reads a file; an error is a few words on why not.
    fn read(&self, path: &str) -> Result<Text, String>;
    /// Returns the files that fit a pattern such as `dialplan/*.toml`, sorted.
    fn list(&self, pattern: &str) -> Vec<String>;
    /// Returns whether there is such a file.
    fn exists(&self, path: &str) -> bool;
    /// Returns an environment variable.
    fn env(&self, name: &str) -> Option<String>;
    /// Reads a file that holds a secret.
    fn secret(&self, path: &str) -> Result<Text, String> {
        self.read(path)
    }
    /// Returns whether secrets can be read at all; without them, what needs one is passed over.
    fn has_secrets(&self) -> bool {
        true
    }
    /// Returns the time of day, if somebody wants to know whether a certificate holds.
    fn wall(&self) -> Option<SystemTime> {
        None
    }
}

/// Files in memory: the embedded defaults, and tests.
#[derive(Clone, Debug, Default)]
pub struct Files {
    files: BTreeMap<String, Text>,
    env: BTreeMap<String, String>,
    wall: Option<SystemTime>,
}

impl Files {
    /// Adds a file that only its owner may read.
    #[must_use]
    pub fn with(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), Text { text: text.to_owned(), is_public: false });
        self
    }

    /// Adds a file that anybody may read.
    #[must_use]
    pub fn with_public(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), Text { text: text.to_owned(), is_public: true });
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the time of day.
    #[must_use]
    pub fn at(mut self, wall: SystemTime) -> Self {
        self.wall = Some(wall);
        self
    }
}

impl Source for Files {
    fn read(&self, path: &str) -> Result<Text, String> {
        self.files.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    }

    fn list(&self, pattern: &str) -> Vec<String> {
        self.files.keys().filter(|path| fits(pattern, path)).cloned().collect()
    }

    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn wall(&self) -> Option<SystemTime> {
        self.wall
    }
}

/// The same files for those who need no secrets: each has a value that means nothing.
pub struct WithoutSecrets<'s>(pub &'s dyn Source);

/// Good as a password and as an `ha1`.
const NO_SECRET: &str = "00000000000000000000000000000000";

impl Source for WithoutSecrets<'_> {
    fn read(&self, path: &str) -> Result<Text, String> {
        self.0.read(path).map(|file| Text { is_public: false, ..file })
    }

    fn list(&self, pattern: &str) -> Vec<String> {
        self.0.list(pattern)
    }

    fn exists(&self, path: &str) -> bool {
        self.0.exists(path)
    }

    fn env(&self, _name: &str) -> Option<String> {
        Some(NO_SECRET.to_owned())
    }

    fn secret(&self, _path: &str) -> Result<Text, String> {
        Ok(Text { text: NO_SECRET.to_owned(), is_public: false })
    }

    fn has_secrets(&self) -> bool {
        false
    }
}

/// Returns whether a path fits a pattern: `*` is any run of characters within one folder, `?` one.
pub fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut folders) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), folders.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if fits_name(pattern.as_bytes(), name.as_bytes()) => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}

/// Matches one name in time proportional to the product of the lengths: only the last `*` is retried.
fn fits_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b) if *b == b'?' || *b == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match star {
                None => return false,
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Returns what `path` means when it is written in `file`: relative to that file's folder.
pub(super) fn beside(file: &str, path: &str) -> String {
    if path.starts_with('/') {
        return tidied(path);
    }
    match file.rsplit_once('/') {
        Some((folder, _)) => tidied(&format!("{folder}/{path}")),
        None => tidied(path),
    }
}

/// Removes `.` and, where the folder is known, `..`.
fn tidied(path: &str) -> String {
    let mut kept: Vec<&str> = vec![];
    for (index, part) in path.split('/').enumerate() {
        match (part, kept.last()) {
            ("", _) if index == 0 => kept.push(""),
            ("." | "", _) => {}
            ("..", Some(folder)) if !folder.is_empty() && *folder != ".." => {
                kept.pop();
            }
            (part, _) => kept.push(part),
        }
    }
    kept.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        for (file, path, want) in [
            ("conf/pbx.toml", "../dialplan/*.toml", "dialplan/*.toml"),
            ("pbx.toml", "../dialplan/*.toml", "../dialplan/*.toml"),
            ("/etc/tandem/pbx.toml", "dialplan/a.toml", "/etc/tandem/dialplan/a.toml"),
            ("/etc/tandem/pbx.toml", "../../../x", "/../x"),
            ("conf/pbx.toml", "/run/secret", "/run/secret"),
            ("pbx.toml", "./a//b", "a/b"),
        ] {
            assert_eq!(beside(file, path), want, "{file} {path}");
        }
    }

    #[test]
    fn patterns_stay_within_a_folder() {
        for (pattern, path, want) in [
            ("dialplan/*.toml", "dialplan/default.toml", true),
            ("dialplan/*.toml", "dialplan/a/b.toml", false),
            ("dialplan/*.toml", "dialplan/a.toml.bak", false),
            ("*/a?.toml", "x/ab.toml", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a", "a/b", false),
            ("**", "", true),
        ] {
            assert_eq!(fits(pattern, path), want, "{pattern} {path}");
        }
    }
}
