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

/// What a meter reads.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// CPU time of all since their start.
    pub cpu: Duration,
    /// That of each thread.
    pub threads: BTreeMap<u32, Duration>,
}

impl Meter {
    /// Of the tree as it is now.
    ///
    /// # Errors
    /// If the process is not there.
    pub fn new(pid: u32) -> Result<Self> {
        Ok(Self { pids: tree(pid)? })
    }

    /// Reads it.
    ///
    /// # Errors
    /// If one of them has ended.
    pub fn read(&self) -> Result<Reading> {
        let mut threads = BTreeMap::new();
        for pid in &self.pids {
            for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
                // A thread may have ended meanwhile.
                let Ok(ran) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
                let thread = entry.file_name().to_string_lossy().parse()?;
                threads.insert(thread, ran_for(&ran)?);
            }
        }
        Ok(Reading { cpu: self.pids.iter().copied().map(cpu_of).sum::<Result<_>>()?, threads })
    }
}

impl Reading {
    /// What each thread has used since an earlier reading, the busiest first.
    pub fn since(&self, before: &Self) -> Vec<Duration> {
        let used = |(thread, cpu): (&u32, &Duration)| {
            cpu.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
        };
        let mut all: Vec<_> = self.threads.iter().map(used).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }
}

/// The first field of a `schedstat`, in ns.
fn ran_for(schedstat: &str) -> Result<Duration> {
    let ns = schedstat.split_whitespace().next().and_then(|field| field.parse().ok());
    ns.map(Duration::from_nanos).ok_or_else(|| anyhow!("not a schedstat: {schedstat}"))
}

/// How long the host has let cores of this machine wait that had work to do, all together.
///
/// # Errors
/// If the kernel does not tell.
pub fn stolen() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    stolen_in(&stat).ok_or_else(|| anyhow!("no CPU in /proc/stat"))
}

fn stolen_in(stat: &str) -> Option<Duration> {
    // "cpu  user nice system idle iowait irq softirq steal .." in hundredths of a second.
    let ticks: u64 = stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 10))
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
    use std::process;

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(parent("12 (a) b (c)) S 7 12 12 0 -1").unwrap(), 7);
        assert!(parent("12 a").is_err());
        let rollup =
            "55d0-7ffd ---p 00 00:00 0 [rollup]\nRss:  5000 kB\nPss:    1234 kB\nPss_Dirty: 9 kB\n";
        assert_eq!(pss_kb(rollup).unwrap(), 1234);
        assert!(pss_kb("Rss: 5000 kB\n").is_err());
        assert_eq!(ran_for("1500 20 3\n").unwrap(), Duration::from_nanos(1500));
        assert!(ran_for("").is_err());
        let stat = "cpu  9 8 7 6 5 4 3 25 0 0\ncpu0 1 1 1 1 1 1 1 20 0 0\n";
        assert_eq!(stolen_in(stat), Some(Duration::from_millis(250)));
    }

    #[test]
    fn this_process_and_its_child_are_seen() {
        let before = Usage::of(process::id()).unwrap();
        assert!(before.pss_kb > 100 && before.fds >= 3 && before.threads >= 1, "{before:?}");
        // However busy the machine is, it is CPU time that is spent here.
        let spend = |until: Duration| while cpu(process::id()).unwrap() < until {};
        spend(before.cpu + Duration::from_millis(20));
        assert!(Usage::of(process::id()).unwrap().cpu >= before.cpu + Duration::from_millis(20));

        let meter = Meter::new(process::id()).unwrap();
        let first = meter.read().unwrap();
        spend(first.cpu + Duration::from_millis(50));
        let second = meter.read().unwrap();
        let burnt = second.since(&first);
        assert!(burnt[0] > Duration::ZERO && burnt.is_sorted_by(|a, b| a >= b), "{burnt:?}");
        assert!(second.cpu >= first.cpu + Duration::from_millis(50));

        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(tree(process::id()).unwrap().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Usage::of(child.id()).is_err(), "it is gone");
    }
}
