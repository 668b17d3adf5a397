//! Looking at processes through `/proc`, and ending those of one runner without ever hitting another.
//!
//! A pid alone names nothing: it may have been given out again. Here a process is known by its pid
//! together with its start time, or by the marker in its environment, and it is signalled through a
//! pidfd that was opened before that check.
//!
//! Limit: a process that has left its parents, cleared its environment and been given no control group
//! is found only by a living shim, whose child it has become, not by a node that finds the shim killed.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::protocol::MARKER_VARIABLE;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    pub(crate) pid: i32,
    /// In clock ticks since the machine started.
    pub(crate) start_ticks: u64,
}

impl ProcessMark {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, start_ticks: stat.start_ticks })
    }

    /// Whether it still runs (a zombie does not).
    pub(crate) fn is_alive(self) -> bool {
        Stat::read(self.pid)
            .is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_dead())
    }
}

/// The few fields of `/proc/PID/stat` that matter here.
struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may itself hold blanks and brackets.
        let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start_ticks })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Who would be told of its end.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    Stat::read(pid).map(|stat| stat.parent)
}

/// Every pid there is now.
fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The children of this (single-threaded) process, zombies among them.
pub(crate) fn own_children() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    match fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        Ok(list) => list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        // The kernel was built without that file.
        Err(_) => {
            all_pids().filter(|pid| Stat::read(*pid).is_some_and(|s| s.parent == own)).collect()
        }
    }
}

/// The living processes that this one has started, directly or through others.
pub(crate) fn descendants() -> Vec<i32> {
    let mut found = own_children();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(children(pid));
    }
    found.retain(|pid| Stat::read(*pid).is_some_and(|stat| !stat.is_dead()));
    found
}

/// The children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .collect()
}

/// The processes in a control group.
pub(crate) fn group_members(dir: &Path) -> Vec<i32> {
    let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Living processes whose environment holds this marker.
pub(crate) fn marked(marker: &str) -> Vec<i32> {
    let entry = format!("{MARKER_VARIABLE}={marker}").into_bytes();
    all_pids().filter(|pid| is_marked(*pid, &entry)).collect()
}

fn is_marked(pid: i32, entry: &[u8]) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == entry)
        && Stat::read(pid).is_some_and(|stat| !stat.is_dead())
}

/// SIGKILL to `pid` if `is_meant` still holds once no other process can take over the pid.
pub(crate) fn kill_if(pid: i32, is_meant: impl FnOnce() -> bool) {
    let Some(process) = Pid::from_raw(pid) else { return };
    if let Ok(pidfd) = pidfd_open(process, PidfdFlags::empty())
        && is_meant()
    {
        // It may have ended in between, which is what was wanted.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// SIGKILL to every process with this marker. Returns how many there were.
pub(crate) fn kill_marked(marker: &str) -> usize {
    let entry = format!("{MARKER_VARIABLE}={marker}").into_bytes();
    let pids = marked(marker);
    for pid in &pids {
        kill_if(*pid, || is_marked(*pid, &entry));
    }
    pids.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_shift_the_fields() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 1 0 98765 1000";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 7, 98765));
        assert!(Stat::parse("42 (cut").is_none());
    }

    #[test]
    fn a_mark_with_another_start_time_is_another_process() {
        let own = ProcessMark::of(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(own.is_alive());
        let recycled = ProcessMark { start_ticks: own.start_ticks + 1, ..own };
        assert!(!recycled.is_alive());
    }
}
