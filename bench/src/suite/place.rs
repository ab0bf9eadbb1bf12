//! Where the runs happen: a network of their own, a core each for target and generator, a folder.
//!
//! Owns: all three. Never: changes the machine's own network.

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Pid, getgid, getuid},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// In which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// An empty one with loopback, made for this.
    Own,
    /// The one that is here: for a container's build, which may make none and has one to itself.
    Here,
}

/// A network, two cores and a folder, which is removed in the end.
#[derive(Debug)]
pub(super) struct Place {
    /// The target's core.
    pub(super) target_core: usize,
    /// The generator's core; the same where there is only one.
    pub(super) own_core: usize,
    folder: PathBuf,
}

impl Place {
    /// Enters it; the process must have one thread.
    ///
    /// # Errors
    /// Without the right to leave the machine's network: root, or user namespaces.
    pub(super) fn enter(network: Network) -> Result<Self> {
        if network == Network::Own {
            leave_network()?;
            let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            ensure!(status.context("`ip` (iproute2)")?.success(), "loopback cannot be set up");
        }
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
        let target_core = cores.next().context("no core")?;
        let own_core = cores.next().unwrap_or(target_core);
        let folder = env::temp_dir().join(format!("tandem-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { target_core, own_core, folder })
    }

    /// The folder for what a run needs.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a program that stays on one core, with all its threads.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) fn spawn_on(&self, core: usize, command: &mut Command) -> Result<Child> {
        self.spawn_at(&[core], command)
    }

    /// Starts a program that may use the generator's core as well.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) fn spawn_on_both(&self, command: &mut Command) -> Result<Child> {
        self.spawn_at(&[self.target_core, self.own_core], command)
    }

    fn spawn_at(&self, cores: &[usize], command: &mut Command) -> Result<Child> {
        // A child begins where its parent is.
        pin(cores)?;
        let child = command.spawn().with_context(|| format!("starting {command:?}"));
        pin(&[self.own_core])?;
        child
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cores {cores:?}"))
}

fn leave_network() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
                .context("a network namespace needs root, or user namespaces")?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
            Ok(())
        }
        Err(error) => Err(error).context("a network namespace"),
    }
}

/// Raises how many descriptors this process and its children may have to what it may, and tells it.
///
/// # Errors
/// If the system does not say.
pub(super) fn raise_descriptors() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// What the machine is, for the record.
pub(super) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let fields: Vec<_> = cpu.lines().filter_map(|line| line.split_once(':')).collect();
    let find = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name.trim() == wanted);
        found.map_or("unknown", |(_, value)| value.trim())
    };
    let processors = fields.iter().filter(|(name, _)| name.trim() == "processor").count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{processors} x {} at {} MHz, Linux {}",
        find("model name"),
        find("cpu MHz"),
        kernel.trim()
    )
}

/// What a command prints, on one line; empty if it cannot be run.
pub(super) fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().replace('\n', " "),
    )
}
