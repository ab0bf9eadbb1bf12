//! The configuration's files on disk.
//!
//! Owns: opening them, their modes, the environment; where the file is if nobody says.
//! Never: understands a line of them.

use crate::config::{self, Checked, Source, Text, WithoutSecrets, fits};
use std::{
    fs, io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::SystemTime,
};

/// Where the configuration is looked for if nobody says, the first that exists.
pub const PATHS: [&str; 2] = ["conf/pbx.toml", "/etc/tandem/pbx.toml"];

/// Returns the configuration file to use: the one that was named, or the first that exists.
pub fn path(named: Option<&str>) -> &str {
    named.unwrap_or_else(|| {
        PATHS.into_iter().find(|path| Path::new(path).exists()).unwrap_or(PATHS[0])
    })
}

/// Reads the configuration for somebody who need not know its secrets: where the socket is, say.
pub fn load_without_secrets(path: &str) -> Checked {
    config::check(path, &WithoutSecrets(&Disk))
}

/// Reads and checks the configuration that begins with the file at `path`.
pub fn load(path: &str) -> Checked {
    // To read tens of thousands of users takes several times the memory of what is kept of them. The
    // allocator gives it back to the system when the thread that took it ends.
    thread::scope(|scope| match scope.spawn(|| config::check(path, &Disk)).join() {
        Ok(checked) => checked,
        Err(panic) => resume_unwind(panic),
    })
}

/// The disk and the environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Source for Disk {
    fn read(&self, path: &str) -> Result<Text, String> {
        let text = fs::read_to_string(path).map_err(|error| why(&error))?;
        Ok(Text { text, is_public: is_public(path) })
    }

    fn list(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![];
        let folder = if pattern.starts_with('/') { "/" } else { "" };
        descend(PathBuf::from(folder), pattern.trim_start_matches('/'), &mut found);
        found.sort();
        found
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).is_file()
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn wall(&self) -> Option<SystemTime> {
        Some(SystemTime::now())
    }
}

/// Collects the files below `folder` that fit the rest of a pattern, one folder at a time.
fn descend(folder: PathBuf, pattern: &str, found: &mut Vec<String>) {
    let (part, rest) = match pattern.split_once('/') {
        Some((part, rest)) => (part, Some(rest)),
        None => (pattern, None),
    };
    if !part.contains(['*', '?']) {
        return arrive(folder.join(part), rest, found);
    }
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
    for entry in fs::read_dir(here).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // As in a shell, a pattern does not find what is hidden.
        if fits(part, &name) && (!name.starts_with('.') || part.starts_with('.')) {
            arrive(folder.join(&*name), rest, found);
        }
    }
}

fn arrive(path: PathBuf, rest: Option<&str>, found: &mut Vec<String>) {
    match rest {
        Some(rest) => descend(path, rest, found),
        None if path.is_file() => found.push(path.to_string_lossy().into_owned()),
        None => {}
    }
}

/// Says in a few words why a file cannot be read.
fn why(error: &io::Error) -> String {
    let known = [
        (io::ErrorKind::NotFound, "no such file"),
        (io::ErrorKind::PermissionDenied, "no permission"),
        (io::ErrorKind::InvalidData, "not UTF-8 text"),
    ];
    let words = known.into_iter().find(|(kind, _)| *kind == error.kind());
    words.map_or_else(|| error.to_string(), |(_, words)| words.to_owned())
}

#[cfg(unix)]
fn is_public(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    /// Group and others may read.
    const READABLE: u32 = 0o044;
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & READABLE != 0)
}

#[cfg(not(unix))]
fn is_public(_path: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_read_like_memory() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::create_dir(at("dialplan")).unwrap();
        for name in ["dialplan/b.toml", "dialplan/a.toml", "dialplan/.hidden.toml", "dialplan/x"] {
            fs::write(at(name), "x = 1").unwrap();
        }
        assert_eq!(
            Disk.list(&at("dialplan/*.toml")),
            [at("dialplan/a.toml"), at("dialplan/b.toml")]
        );
        assert_eq!(Disk.list(&at("*/a.toml")), [at("dialplan/a.toml")]);
        assert_eq!(Disk.list(&at("nowhere/*.toml")), [""; 0]);
        assert_eq!(Disk.read(&at("dialplan/a.toml")).unwrap().text, "x = 1");
        assert_eq!(Disk.read(&at("nowhere")).unwrap_err(), "no such file");
        assert!(Disk.exists(&at("dialplan/x")) && !Disk.exists(&at("dialplan")));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_for_its_owner_is_not_public() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_string_lossy().into_owned();
        for (mode, want) in [(0o600, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Disk.read(&path).unwrap().is_public, want, "{mode:o}");
        }
    }
}
