//! Whether others on this machine could read a file of ours, or put another in its place.
//!
//! Owns: which permissions are too many.
//! Never: changes any; whoever runs the program may have a reason.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// Group and others may write into it.
const WRITABLE: u32 = 0o022;
/// Only who owns a file may rename it, as in `/tmp`.
const STICKY: u32 = 0o1000;
/// Group and others may read it, or write.
const SHARED: u32 = 0o066;

/// What to do about a folder that others may change.
pub(super) const FOLDER_HELP: &str =
    "chmod go-w the folder, or choose one of our own: `[control] socket`, `[store] url`";
/// What to do about a file that others may read.
pub(super) const FILE_HELP: &str = "chmod 600 the file: it holds who called whom";

/// Returns what is wrong with the folder of a file that only we should replace: somebody else owns it, or
/// may rename what is in it. `None` where nothing is, or nothing is known.
pub(super) fn of_folder(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let found = fs::metadata(folder.unwrap_or(Path::new("."))).ok()?;
    let (mode, owner) = (found.permissions().mode() & 0o7777, found.uid());
    let ours = fs::metadata(path).map_or(rustix::process::geteuid().as_raw(), |file| file.uid());
    if owner != 0 && owner != ours {
        return Some(format!(
            "its folder belongs to user {owner}, who may put another in its place"
        ));
    }
    let is_open = mode & WRITABLE != 0 && mode & STICKY == 0;
    is_open.then(|| format!("others may put another in its place: its folder has mode {mode:o}"))
}

/// Returns what is wrong with a file that only we should read.
pub(super) fn of_file(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & SHARED != 0).then(|| format!("others may read or write it: it has mode {mode:o}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    /// The mode of the folder, and that of the file in it; what is wrong with either.
    #[test]
    fn who_may_replace_or_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tandem.db");
        fs::write(&file, "x").unwrap();
        for (of_the_folder, mode, wrong_folder, wrong_file) in [
            (0o700, 0o600, None, None),
            (0o750, 0o640, None, Some("640")),
            (0o755, 0o604, None, Some("604")),
            (0o1777, 0o700, None, None),
            (0o770, 0o620, Some("770"), Some("620")),
            (0o777, 0o644, Some("777"), Some("644")),
        ] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(of_the_folder)).unwrap();
            for (risk, wrong) in [(of_folder(&file), wrong_folder), (of_file(&file), wrong_file)] {
                let says = risk.as_deref().and_then(|risk| risk.rsplit(' ').next());
                assert_eq!(says, wrong, "{of_the_folder:o} {mode:o}");
            }
        }
        assert_eq!(of_file(&folder.path().join("none")), None);
        assert_eq!(of_folder(Path::new("/nowhere/at/all")), None);
    }
}
