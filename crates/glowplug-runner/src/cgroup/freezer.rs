//! Taking the processor from a group, and giving it back.
//!
//! In version 2 any group can be frozen, and what is frozen can still be killed. In version 1 only groups of
//! one controller can, and a signal is kept until they are thawed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::proc_table::group_members;

/// Version 2: the switch, and where it is told that all has come to rest.
const SWITCH: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";
/// Version 1: both in one.
const STATE: &str = "freezer.state";
/// A process that sits in the kernel, as on a slow disk, comes to rest late.
const REST_PAUSE: Duration = Duration::from_micros(50);
const REST_LOOKS_MAX: u32 = 10_000;
/// Asked back of a frozen group at a time. The kernel stops where there is no more.
const RECLAIM_BYTES: &str = "64G";

/// Where one runner can be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Freezer {
    Unified(PathBuf),
    Legacy(PathBuf),
}

impl Freezer {
    /// Among the groups of a runner.
    pub(super) fn among(dirs: &[PathBuf]) -> Option<Self> {
        let unified = dirs.iter().find(|dir| dir.join(SWITCH).exists());
        let legacy = || dirs.iter().find(|dir| dir.join(STATE).exists());
        let unified = unified.cloned().map(Self::Unified);
        unified.or_else(|| legacy().cloned().map(Self::Legacy))
    }

    fn dir(&self) -> &Path {
        match self {
            Self::Unified(dir) | Self::Legacy(dir) => dir,
        }
    }

    /// Until all in it rests; if that takes too long, all is as before.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        match self {
            Self::Unified(dir) => write(&dir.join(SWITCH), "1")?,
            Self::Legacy(dir) => write(&dir.join(STATE), "FROZEN")?,
        }
        for _ in 0..REST_LOOKS_MAX {
            if self.is_at_rest()? {
                return Ok(());
            }
            std::thread::sleep(REST_PAUSE);
        }
        self.thaw()?;
        Err(io::ErrorKind::TimedOut.into())
    }

    fn is_at_rest(&self) -> io::Result<bool> {
        match self {
            Self::Unified(dir) => {
                let events = fs::read_to_string(dir.join(EVENTS))?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
            Self::Legacy(dir) => Ok(fs::read_to_string(dir.join(STATE))?.trim() == "FROZEN"),
        }
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        match self {
            Self::Unified(dir) => write(&dir.join(SWITCH), "0"),
            Self::Legacy(dir) => write(&dir.join(STATE), "THAWED"),
        }
    }

    /// Its members' part of the memory, where they share pages with others.
    pub(crate) fn held_bytes(&self) -> u64 {
        group_members(self.dir()).into_iter().filter_map(proportional_bytes).sum()
    }
}

fn proportional_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Asks the kernel to take back what a frozen group of the memory controller holds: to swap, if there is some.
/// Without it that would only drop pages of files, which other runners may share and which are quick to have
/// again only from memory.
pub(super) fn reclaim(memory: &Path) {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        return;
    }
    // An error says that less was to be had.
    if write(&memory.join("memory.reclaim"), RECLAIM_BYTES).is_err() {
        let _ = write(&memory.join("memory.force_empty"), "0");
    }
}

/// What was killed in a frozen group of version 1 ends once it is thawed.
pub(super) fn let_go(dir: &Path) {
    // Other groups have no such file.
    let _ = write(&dir.join(STATE), "THAWED");
}

/// Makes no file where there is none.
fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{Bounds, CgroupPlan, RunnerGroups};

    /// Where there is no version 2, what is killed while it is frozen must end all the same.
    #[test]
    fn groups_of_version_1_freeze_and_let_go() {
        let plan = CgroupPlan { freezer: CgroupPlan::discover().freezer, ..CgroupPlan::default() };
        if plan.freezer.is_none() {
            println!("skipped: this host has no freezer of version 1 that may be written");
            return;
        }
        let name = format!("glowplug-freezer-test-{}", std::process::id());
        let (groups, notes) = RunnerGroups::create(&plan, &name, &Bounds::default());
        assert!(notes.is_empty(), "{notes:?}");
        #[expect(clippy::disallowed_methods, reason = "the test is the owner of this child")]
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        groups.gather(|| vec![pid]);
        for _ in 0..2 {
            assert!(groups.freeze().unwrap() > 0);
            groups.thaw().unwrap();
        }
        groups.freeze().unwrap();
        groups.kill();
        assert!(!child.wait().unwrap().success());
        assert!(groups.remove());
    }
}
