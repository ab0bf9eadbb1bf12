//! What a process and its descendants use: CPU time, memory, threads, file descriptors.
//!
//! Owns: the reading of `/proc`. Never: changes anything there.

use crate::Sample;
use anyhow::{Context, Result, anyhow};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

/// What a process tree uses at one moment; CPU time is since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, ended ones included.
    pub cpu: Duration,
    /// Proportional set size: shared pages count by their share.
    pub pss_kb: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub fds: u64,
}

impl Usage {
    /// Reads it. Ended children are missed: none of the programs here ends children at work.
    ///
    /// # Errors
    /// If the process is not there, or not ours to read.
    pub fn of(pid: u32) -> Result<Self> {
        let mut all = Self::default();
        for pid in tree(pid)? {
            let dir = Path::new("/proc").join(pid.to_string());
            all.cpu += cpu_of(pid)?;
            all.pss_kb += pss_kb(&fs::read_to_string(dir.join("smaps_rollup"))?)?;
            all.threads += fs::read_dir(dir.join("task"))?.count() as u64;
            all.fds += fs::read_dir(dir.join("fd"))?.count() as u64;
        }
        Ok(all)
    }

    /// Notes memory, threads and descriptors as `name_pss_kb`, `name_threads` and `name_fds`.
    #[must_use]
    pub fn note(&self, name: &str, sample: Sample) -> Sample {
        sample
            .got(&format!("{name}_pss_kb"), self.pss_kb as f64)
            .got(&format!("{name}_threads"), self.threads as f64)
            .got(&format!("{name}_fds"), self.fds as f64)
    }
}

/// CPU time of a process tree since its start: cheaper than all of `Usage`, which walks page tables.
///
/// # Errors
/// If the process is not there.
pub fn cpu(pid: u32) -> Result<Duration> {
    tree(pid)?.into_iter().map(cpu_of).sum()
}

/// Reads the CPU time of one process tree again and again, cheaply: whom it consists of is found out
/// once.
#[derive(Clone, Debug)]
pub struct Meter {
    pids: Vec<u32>,
}

impl Meter {
    /// Of the tree as it is now.
    ///
    /// # Errors
    /// If the process is not there.
    pub fn new(pid: u32) -> Result<Self> {
        Ok(Self { pids: tree(pid)? })
    }

    /// CPU time since their start.
    ///
    /// # Errors
    /// If one of them has ended.
    pub fn cpu(&self) -> Result<Duration> {
        self.pids.iter().copied().map(cpu_of).sum()
    }
}

/// To the nanosecond: `/proc/PID/stat` counts in hundredths of a second.
fn cpu_of(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))
        .with_context(|| format!("process {pid}"))?;
    Ok(Duration::from(clock.now()?))
}

/// The process and its descendants.
fn tree(pid: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        children.entry(parent(&stat)?).or_default().push(child);
    }
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    Ok(found)
}

/// The parent in a line of `/proc/PID/stat`, whose second field may hold anything, in parentheses.
fn parent(stat: &str) -> Result<u32> {
    let after = stat.rsplit_once(')').map(|(_, after)| after);
    let parent = after.and_then(|after| after.split_whitespace().nth(1));
    parent.and_then(|parent| parent.parse().ok()).ok_or_else(|| anyhow!("not a stat line: {stat}"))
}

fn pss_kb(rollup: &str) -> Result<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| anyhow!("no Pss in smaps_rollup"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{process, time::Instant};

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(parent("12 (a) b (c)) S 7 12 12 0 -1").unwrap(), 7);
        assert!(parent("12 a").is_err());
        let rollup =
            "55d0-7ffd ---p 00 00:00 0 [rollup]\nRss:  5000 kB\nPss:    1234 kB\nPss_Dirty: 9 kB\n";
        assert_eq!(pss_kb(rollup).unwrap(), 1234);
        assert!(pss_kb("Rss: 5000 kB\n").is_err());
    }

    #[test]
    fn this_process_and_its_child_are_seen() {
        let before = Usage::of(process::id()).unwrap();
        assert!(before.pss_kb > 100 && before.fds >= 3 && before.threads >= 1, "{before:?}");
        let until = Instant::now() + Duration::from_millis(30);
        while Instant::now() < until {}
        let burnt = cpu(process::id()).unwrap() - before.cpu;
        assert!(burnt > Duration::from_millis(5), "{burnt:?}");

        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(tree(process::id()).unwrap().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Usage::of(child.id()).is_err(), "it is gone");
    }
}
