//! Where files are that the configuration does not place.
//!
//! Owns: the order in which folders are considered.
//! Never: creates anything.

use std::path::{Path, PathBuf};

/// The socket's name in its folder.
const SOCKET: &str = "tandem.sock";
/// The database's name in its folder.
const DATABASE: &str = "tandem.db";

/// What is asked about the world, so that a test can answer.
pub struct World<'a> {
    /// An environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a path exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

impl World<'_> {
    /// Returns the world as it is.
    pub fn real() -> World<'static> {
        World { env: &|name| std::env::var(name).ok(), exists: &|path: &Path| path.exists() }
    }

    fn folder(&self, variable: &str) -> Option<PathBuf> {
        (self.env)(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn existing(&self, path: &str) -> Option<PathBuf> {
        (self.exists)(Path::new(path)).then(|| path.into())
    }

    /// Returns where the control socket goes: the folder that systemd made for us, else the
    /// system's, else the user's own, else one beside us.
    pub fn control_socket(&self) -> PathBuf {
        self.folder("RUNTIME_DIRECTORY")
            .or_else(|| self.existing("/run/tandem"))
            .or_else(|| self.folder("XDG_RUNTIME_DIR"))
            .unwrap_or_else(|| self.fallback())
            .join(SOCKET)
    }

    /// Returns where the database goes: the same order, among folders that survive a restart.
    pub fn database(&self) -> PathBuf {
        self.folder("STATE_DIRECTORY")
            .or_else(|| self.existing("/var/lib/tandem"))
            .or_else(|| self.folder("XDG_STATE_HOME").map(|folder| folder.join("tandem")))
            .or_else(|| self.folder("HOME").map(|home| home.join(".local/state/tandem")))
            .unwrap_or_else(|| self.fallback())
            .join(DATABASE)
    }

    /// Without a home there is no better place than here: a shared `/tmp` is none.
    fn fallback(&self) -> PathBuf {
        self.folder("HOME").map_or_else(|| ".tandem".into(), |home| home.join(".tandem"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_considered_in_order() {
        for (set, there, socket, database) in [
            (
                &["RUNTIME_DIRECTORY=/run/x", "STATE_DIRECTORY=/var/lib/x", "HOME=/root"][..],
                &["/run/tandem", "/var/lib/tandem"][..],
                "/run/x/tandem.sock",
                "/var/lib/x/tandem.db",
            ),
            (
                &["HOME=/root", "XDG_RUNTIME_DIR=/run/user/0"],
                &["/run/tandem", "/var/lib/tandem"],
                "/run/tandem/tandem.sock",
                "/var/lib/tandem/tandem.db",
            ),
            (
                &["HOME=/home/a", "XDG_RUNTIME_DIR=/run/user/1", "XDG_STATE_HOME=/s"],
                &[],
                "/run/user/1/tandem.sock",
                "/s/tandem/tandem.db",
            ),
            (
                &["HOME=/home/a", "XDG_RUNTIME_DIR="],
                &[],
                "/home/a/.tandem/tandem.sock",
                "/home/a/.local/state/tandem/tandem.db",
            ),
            (&[], &[], ".tandem/tandem.sock", ".tandem/tandem.db"),
        ] {
            let env = |name: &str| {
                let found = set.iter().filter_map(|pair| pair.split_once('='));
                found.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            };
            let exists = |path: &Path| there.iter().any(|known| path == Path::new(known));
            let world = World { env: &env, exists: &exists };
            assert_eq!(world.control_socket(), Path::new(socket));
            assert_eq!(world.database(), Path::new(database));
        }
    }
}
