//! The place that a program runs in whose memory can be captured, and that a captured one is restored in.
//!
//! ```text
//! shim ──┬─ init      pid 1: makes the place, then sleeps and lets the kernel reap
//!        ├─ program   pid 1001: sees the host's files and network, and its own pids only
//!        └─ criu      low pids: works in the same namespaces, so none of them is part of what it captures
//! ```
//!
//! It confines nothing. It is there so that a process finds after a restore what it knew before: its own pid
//! and those of its children, which other processes of the host may have by then, and its socket at one path,
//! which is another directory for each runner. Mounts go with it, as in a container; needs root.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces,
};

use crate::cgroup::go_through;
use crate::container::{fork, retire, sleep_for_ever};

/// Above whatever CRIU's own processes get in a fresh enclosure.
const PROGRAM_PID_MIN: u32 = 1_001;
/// The longest report of an init: what went wrong.
const REPORT_BYTES_MAX: u64 = 4 << 10;
/// What an init reports that has made its enclosure.
const MADE: &str = "made";

/// Made, and empty but for its init.
#[derive(Debug)]
pub(crate) struct Enclosure {
    init: Pid,
    /// Names the init even after its end.
    handle: OwnedFd,
    /// Of this process, to come back to.
    own_pids: File,
}

/// What an enclosure is made from.
#[derive(Debug)]
pub(crate) struct Enclosing<'a> {
    /// The runner's own, on the host.
    pub(crate) socket_dir: &'a Path,
    /// Where it is inside: the same for all runners.
    pub(crate) place: &'a Path,
    /// Of the runner's control groups.
    pub(crate) doors: &'a [OwnedFd],
    pub(crate) pids: FirstPid,
}

/// Which pid the first process gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstPid {
    /// One of a program that is to be captured.
    Program,
    /// The lowest: CRIU comes first, and gives the program the pid that it had.
    Lowest,
}

impl Enclosure {
    /// The caller must have one thread.
    pub(crate) fn make(enclosing: &Enclosing<'_>) -> Result<Self, String> {
        let own_pids = File::open("/proc/self/ns/pid")
            .map_err(|error| format!("cannot hold on to the host's pids: {error}"))?;
        #[expect(unsafe_code, reason = "leaving a namespace has no safe interface")]
        // SAFETY: this flag leaves no table of descriptors behind, and the process has one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
            .map_err(|error| format!("cannot make a pid namespace: {error}"))?;
        let forked = fork(|report| run(enclosing, &report));
        come_back(&own_pids)?;
        let (init, report) =
            forked.map_err(|error| format!("cannot start its first process: {error}"))?;
        let handle = pidfd_open(init, PidfdFlags::empty())
            .map_err(|error| format!("cannot hold on to its first process: {error}"))?;
        heard(&report)?;
        Ok(Self { init, handle, own_pids })
    }

    pub(crate) fn init(&self) -> Pid {
        self.init
    }

    /// Does this while children of the calling process begin inside.
    pub(crate) fn spawn_inside<T>(&self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let kind = Some(LinkNameSpaceType::ProcessID);
        let pids = File::open(format!("/proc/{}/ns/pid", self.init.as_raw_nonzero()))?;
        move_into_link_name_space(pids.as_fd(), kind)?;
        let spawned = spawn();
        move_into_link_name_space(self.own_pids.as_fd(), kind)?;
        spawned
    }

    /// What such a child needs to be inside with all it has.
    pub(crate) fn door(&self, dir: &Path) -> io::Result<EnclosureDoor> {
        let dir = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?;
        Ok(EnclosureDoor { handle: self.handle.try_clone()?, dir })
    }

    /// Processes that the program has started and lost: a capture of the program would leave them out.
    pub(crate) fn has_strays(&self) -> bool {
        let init = self.init.as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children"));
        children.is_ok_and(|children| !children.trim().is_empty())
    }
}

/// Held by the child between fork and exec.
#[derive(Debug)]
pub(crate) struct EnclosureDoor {
    handle: OwnedFd,
    dir: std::ffi::CString,
}

impl EnclosureDoor {
    /// Makes system calls only. The pids come with the fork.
    pub(crate) fn join(&self) -> io::Result<()> {
        let kinds = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
        move_into_thread_name_spaces(self.handle.as_fd(), kinds)?;
        // A session, a folder and a null device of the host's could not be found again from inside.
        rustix::process::setsid()?;
        rustix::process::chdir(&*self.dir)?;
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        keep_standard_streams_only()
    }
}

/// What the node was given by whoever started it, and handed on without knowing, ends with the exec.
fn keep_standard_streams_only() -> io::Result<()> {
    const FIRST_OTHER: libc::c_uint = 3;
    #[expect(unsafe_code, reason = "this has no safe interface")]
    // SAFETY: takes no pointers, and closes nothing that this process still uses before it becomes another.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_OTHER,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn come_back(own_pids: &File) -> Result<(), String> {
    move_into_link_name_space(own_pids.as_fd(), Some(LinkNameSpaceType::ProcessID))
        .map_err(|error| format!("cannot come back to the host's pids: {error}"))
}

fn heard(report: &UnixStream) -> Result<(), String> {
    let mut text = String::new();
    let read = report.take(REPORT_BYTES_MAX).read_to_string(&mut text);
    match (read, text.as_str()) {
        (Ok(_), MADE) => Ok(()),
        (Err(_), _) | (_, "") => Err("its first process ended without a word".to_owned()),
        (Ok(_), problem) => Err(problem.to_owned()),
    }
}

/// Comes back only if it could not be made, or nobody is there to report to.
fn run(enclosing: &Enclosing<'_>, report: &UnixStream) {
    // Dies with the shim. If that is gone already, the report finds nobody and this ends as well.
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let made = tied
        .map_err(|error| format!("cannot tie it to its supervisor: {error}"))
        .and_then(|()| make(enclosing))
        .and_then(|()| retire().map_err(|error| format!("cannot give up its rights: {error}")));
    let mut channel = report;
    let told = channel
        .write_all(made.as_ref().map_or_else(String::as_str, |()| MADE).as_bytes())
        .and_then(|()| report.shutdown(std::net::Shutdown::Write));
    if made.is_ok() && told.is_ok() {
        sleep_for_ever();
    }
}

/// In words that need no more context.
fn make(enclosing: &Enclosing<'_>) -> Result<(), String> {
    go_through(enclosing.doors);
    // Not in the way of what is aimed at the shim's own group.
    let _ = rustix::process::setsid();
    #[expect(unsafe_code, reason = "leaving a namespace has no safe interface")]
    // SAFETY: these flags leave no table of descriptors behind, and the process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWIPC) }
        .map_err(|error| format!("cannot make its namespaces: {error}"))?;
    // What the host mounts later is seen inside; what is mounted inside is not seen outside.
    let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", follow).map_err(|error| format!("cannot have mounts of its own: {error}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None)
        .map_err(|error| format!("cannot show its own processes: {error}"))?;
    mount_bind(enclosing.socket_dir, enclosing.place).map_err(|error| {
        format!("cannot put its socket's folder at {}: {error}", enclosing.place.display())
    })?;
    if enclosing.pids == FirstPid::Program {
        let last = PathBuf::from("/proc/sys/kernel/ns_last_pid");
        std::fs::write(&last, (PROGRAM_PID_MIN - 1).to_string())
            .map_err(|error| format!("cannot choose the program's pid: {error}"))?;
    }
    Ok(())
}
