//! Runs CRIU inside an enclosure, and makes sense of what it leaves.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use super::signals;
use crate::cgroup::{RunnerGroups, go_through};
use crate::enclosure::Enclosure;

/// What a capture adds to what CRIU writes.
pub(super) const CAPTURED_FILE: &str = "captured.json";
const IMAGE_SUFFIX: &str = ".img";
const DUMP_LOG: &str = "dump.log";
const RESTORE_LOG: &str = "restore.log";
/// Of a log of CRIU's, the end is looked at.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// Of what it complains about, this many lines are told.
const COMPLAINTS_MAX: usize = 3;
/// It raises its own limits where it may; where it may not, that harms nothing.
const HARMLESS: &str = "Can't setup RLIMIT_NOFILE for self";

/// [`CAPTURED_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Captured {
    /// Of the program, inside its enclosure.
    pub(super) pid: i32,
    /// The inodes of the pipes that it wrote its log to.
    pub(super) stdout_inode: u64,
    pub(super) stderr_inode: u64,
    /// The bytes of each file that CRIU has written: it waits for ever for what is cut off.
    pub(super) files: BTreeMap<String, u64>,
}

impl Captured {
    /// Adds what CRIU has written.
    pub(super) fn complete(mut self, images: &Path) -> io::Result<Self> {
        self.files = sizes(images)?;
        Ok(self)
    }

    /// `Err`: what is not as it was left.
    pub(super) fn check(&self, images: &Path) -> Result<(), String> {
        let found =
            sizes(images).map_err(|error| format!("its files cannot be listed: {error}"))?;
        for (name, bytes) in &self.files {
            match found.get(name) {
                Some(now) if now == bytes => {}
                Some(now) => return Err(format!("{name} has {now} bytes instead of {bytes}")),
                None => return Err(format!("{name} is missing")),
            }
        }
        Ok(())
    }
}

/// Of CRIU's images; logs are none.
fn sizes(images: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(images)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(IMAGE_SUFFIX) {
            sizes.insert(name, entry.metadata()?.len());
        }
    }
    Ok(sizes)
}

/// What both of CRIU's uses need.
pub(super) struct Criu<'a> {
    pub(super) program: &'a Path,
    pub(super) enclosure: &'a Enclosure,
    pub(super) groups: &'a RunnerGroups,
    pub(super) images: &'a Path,
}

impl Criu<'_> {
    /// Captures the program, which ends with it. If that fails, the program goes on.
    pub(super) fn dump(&self, pid: i32) -> io::Result<Pid> {
        let mut command = self.command("dump", self.images, DUMP_LOG);
        command.arg("--tree").arg(pid.to_string());
        self.spawn(command, Vec::new())
    }

    /// Restores the program as a child of this process. `work`: where CRIU may leave a log.
    pub(super) fn restore(
        &self,
        captured: &Captured,
        work: &Path,
        (stdout, stderr): (OwnedFd, OwnedFd),
    ) -> io::Result<Pid> {
        let mut command = self.command("restore", work, RESTORE_LOG);
        command.args(["--restore-detached", "--restore-sibling"]);
        let pipes = [(stdout, captured.stdout_inode), (stderr, captured.stderr_inode)];
        for (pipe, inode) in &pipes {
            command.arg("--inherit-fd").arg(format!("fd[{}]:pipe:[{inode}]", pipe.as_raw_fd()));
        }
        self.spawn(command, pipes.map(|(pipe, _)| pipe).into())
    }

    fn command(&self, action: &str, work: &Path, log: &str) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the shim is the owner of this child")]
        let mut command = Command::new(self.program);
        command
            .arg(action)
            .arg("--images-dir")
            .arg(self.images)
            .arg("--work-dir")
            .arg(work)
            .args(["--log-file", log, "-v2", "--manage-cgroups=ignore"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn spawn(&self, mut command: Command, inherited: Vec<OwnedFd>) -> io::Result<Pid> {
        let door = self.enclosure.door(Path::new("/"))?;
        let doors = self.groups.doors()?;
        #[expect(unsafe_code, reason = "the child must enter before it becomes CRIU")]
        // SAFETY: makes system calls only: it allocates nothing, takes no lock, and runs no code of others. The
        // shim has one thread, so the child is a complete copy of it.
        unsafe {
            command.pre_exec(move || {
                signals::unblock_all();
                go_through(&doors);
                door.join()?;
                for pipe in &inherited {
                    rustix::io::fcntl_setfd(pipe, rustix::io::FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let child = self.enclosure.spawn_inside(|| command.spawn())?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| io::Error::other("the kernel gave it no usable pid"))
    }
}

/// How it ended, if it has.
pub(super) fn ended(criu: Pid) -> Option<Result<(), String>> {
    match waitpid(Some(criu), WaitOptions::NOHANG) {
        Ok(None) | Err(rustix::io::Errno::INTR) => None,
        Ok(Some((_, status))) if status.exit_status() == Some(0) => Some(Ok(())),
        Ok(Some((_, status))) => Some(Err(describe(status))),
        Err(error) => Some(Err(format!("it was lost: {error}"))),
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("CRIU failed with code {code}"),
        (None, Some(signal)) => format!("CRIU was killed by signal {signal}"),
        (None, None) => "CRIU failed".to_owned(),
    }
}

/// What a failed dump has complained about.
pub(super) fn dump_complaints(images: &Path) -> String {
    complaints(&images.join(DUMP_LOG))
}

/// What a failed restore has complained about.
pub(super) fn restore_complaints(work: &Path) -> String {
    complaints(&work.join(RESTORE_LOG))
}

/// Empty, or to be put behind a description.
fn complaints(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(LOG_BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let said = text.lines().filter(|line| !line.contains(HARMLESS)).filter_map(complaint);
    let said: Vec<&str> = said.take(COMPLAINTS_MAX).collect();
    if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
}

/// Of a line such as `(00.041145)   1001: Error (file.c:1790): text`, the text of an error.
fn complaint(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    let (_, text) = rest.split_once("): ")?;
    Some(text.trim())
}

/// A process's pid in the innermost of its namespaces.
pub(super) fn innermost_pid(of: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{of}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_of_a_log_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let text = "(00.01) Warn  (a.c:1): w\n\
                    (00.02) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: no\n\
                    (00.03)   1001: Error (criu/sk.c:200): inet: Connected TCP socket\n\
                    (00.04) Error (criu/x.c:1): Dump files failed\n";
        std::fs::write(dir.path().join(DUMP_LOG), text).unwrap();
        assert_eq!(dump_complaints(dir.path()), ": inet: Connected TCP socket; Dump files failed");
        assert_eq!(restore_complaints(dir.path()), "");
    }
}
