//! What the node and a runner's shim tell each other: on the control connection, and in the files of
//! the runner's directory.
//!
//! The environment of the program travels on the connection only, so secrets never reach the disk.
//! Messages are JSON, one a line. Files are written under another name and renamed, so a reader sees
//! either nothing or the whole; they are not synced, since they matter only while the machine is up.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_core::Rung;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::{ExitCause, Limits, RunnerAddress, Warm};
use crate::cgroup::{Bounds, CgroupPlan};
use crate::container::{ContainerSpec, Hook, Runtime, allowed_devices};
use crate::proc_table::ProcessMark;

/// The longest launch order (above all the environment) that a shim reads.
pub(crate) const ORDER_BYTES_MAX: usize = 4 << 20;
/// The longest of all other messages.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The environment variable by which every process of a runner can be told from all others.
pub(crate) const MARKER_VARIABLE: &str = "GLOWPLUG_RUNNER";

/// In the directory of the program's socket: where an enclosed program is told of its capture and restore.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";
/// The environment variable that names it to the program.
pub(crate) const CONTROL_VARIABLE: &str = "GLOWPLUG_CONTROL_SOCKET";

/// Written by the node before the start: all that a later node needs to take the runner over.
pub(crate) const RECORD_FILE: &str = "runner.json";
/// Written by the shim once the program runs.
pub(crate) const PROCESSES_FILE: &str = "processes.json";
/// Written at the end: by the shim, or by a node that found the shim gone.
pub(crate) const EXIT_FILE: &str = "exit.json";
/// Exists once a node has told the engine of the end.
pub(crate) const REPORTED_FILE: &str = "reported";
/// What the shim itself says when it breaks.
pub(crate) const SHIM_ERRORS_FILE: &str = "shim-errors";
/// Names the namespaces of a container.
pub(crate) const NAMESPACES_FILE: &str = "namespaces";
/// What a recorded start has opened: paths, each with a zero byte behind it.
pub(crate) const OPENED_FILE: &str = "opened";
pub(crate) const LOG_FILE: &str = "log";
/// The part of the log before [`LOG_FILE`], replaced at each rotation.
pub(crate) const OLDER_LOG_FILE: &str = "log.older";

/// How much of a runner's log is kept, and how fast it may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCaps {
    /// A longer line is cut.
    pub line_bytes_max: usize,
    /// On disk, both files together. The oldest half goes when they are full.
    pub total_bytes_max: u64,
    /// Sustained rate; lines above it are dropped and counted. One second's worth may come at once.
    pub bytes_per_second_max: u64,
}

impl Default for LogCaps {
    fn default() -> Self {
        Self { line_bytes_max: 16 << 10, total_bytes_max: 8 << 20, bytes_per_second_max: 4 << 20 }
    }
}

/// All that the shim must know to start and end a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchOrder {
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) identity: Option<Identity>,
    /// Then `identity` is `None`, and `cwd` and the program are the container's.
    pub(crate) container: Option<ContainerSpec>,
    pub(crate) warm: Warm,
    pub(crate) limits: Limits,
    pub(crate) cgroups: CgroupPlan,
    pub(crate) cgroup_name: String,
    pub(crate) grace: Duration,
    pub(crate) orphan_timeout: Duration,
    pub(crate) log_caps: LogCaps,
    pub(crate) control_path: PathBuf,
    /// The directory of the program's own socket, removed at the end.
    pub(crate) socket_dir: Option<PathBuf>,
    /// Where that directory is for a program that is, or was, captured: the same for all runners.
    pub(crate) enclosed_socket_dir: PathBuf,
}

impl LaunchOrder {
    /// What the runner's groups are to hold it to.
    pub(crate) fn bounds(&self) -> Bounds {
        let container = self.container.as_ref();
        let devices = container.map(|container| allowed_devices(&container.devices));
        Bounds { limits: self.limits, devices }
    }

    pub(crate) fn has_oci_runtime(&self) -> bool {
        self.container.as_ref().is_some_and(|container| container.runtime != Runtime::Native)
    }

    /// Hooks are made for OCI runtimes; what a container without one lacks for it is told in its log.
    pub(crate) fn hooks_that_are_not_run(&self) -> Option<String> {
        let container = self.container.as_ref()?;
        if container.hooks.is_empty() || container.runtime != Runtime::Native {
            return None;
        }
        let name =
            |hook: &Hook| hook.args.get(1).or(hook.args.first()).cloned().unwrap_or_default();
        let names: Vec<String> = container.hooks.iter().map(name).collect();
        Some(format!(
            "hooks of its devices are not run without an OCI runtime ({}): set `runtime` if the program \
             lacks something of the driver",
            names.join(", ")
        ))
    }

    /// What asks the program to end.
    pub(crate) fn stop_signal(&self) -> Signal {
        let wanted = self.container.as_ref().map(|container| container.stop_signal);
        wanted.and_then(Signal::from_named_raw).unwrap_or(Signal::TERM)
    }
}

/// The user that a program runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToShim {
    /// The first message, on the connection that the shim was started with.
    Launch(Box<LaunchOrder>),
    /// The node has found the runner ready; told to nodes that attach later.
    Ready,
    Stop {
        grace: Duration,
    },
    Kill,
    /// Take the program's processor away, or give it back.
    Freeze,
    Thaw,
    /// Asks for [`FromShim::LogCaughtUp`].
    CatchUpLog,
    /// Asks for the program's memory in this directory, and for [`FromShim::Captured`].
    Capture {
        dir: PathBuf,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// The answer to attaching.
    Attached {
        ready: bool,
        stopping: bool,
        /// Shims of an earlier version freeze nothing.
        #[serde(default)]
        frozen: bool,
    },
    Spawned {
        #[serde(with = "RungRecord")]
        rung: Rung,
    },
    /// What the program had written when the node asked is in the log file now. One answer for each question.
    LogCaughtUp,
    /// What the program has opened until it was ready is in [`OPENED_FILE`].
    Recorded {
        is_complete: bool,
    },
    /// Its snapshot was of no use, and the program is started plainly instead. Comes before `Spawned`.
    NotRestored {
        problem: String,
    },
    /// The answers to [`ToShim::Freeze`] and [`ToShim::Thaw`].
    Frozen {
        held_bytes: u64,
    },
    NotFrozen {
        problem: String,
    },
    Thawed,
    /// The answer to [`ToShim::Capture`].
    Captured {
        problem: Option<String>,
    },
    /// The last message: nothing of the runner is left but the shim, which ends now.
    Exited(ExitCause),
}

/// How a [`Rung`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Rung", rename_all = "snake_case")]
enum RungRecord {
    Idle,
    Frozen,
    Zygote,
    Snapshot,
    ImageCached,
    Cold,
}

/// [`RECORD_FILE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunnerRecord {
    pub(crate) app: String,
    pub(crate) revision: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) started_at_micros: u64,
    #[serde(with = "AddressRecord")]
    pub(crate) address: RunnerAddress,
    pub(crate) health_path: Option<String>,
    /// The value of [`MARKER_VARIABLE`] in the runner's processes.
    pub(crate) marker: String,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) control_path: PathBuf,
    pub(crate) socket_dir: Option<PathBuf>,
}

/// How a [`RunnerAddress`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "RunnerAddress")]
enum AddressRecord {
    Tcp(SocketAddr),
    Unix(PathBuf),
    InNamespace { namespaces: PathBuf, port: u16 },
    UnixInNamespace { namespaces: PathBuf, path: PathBuf },
}

/// [`PROCESSES_FILE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessesRecord {
    pub(crate) shim: ProcessMark,
    pub(crate) program: ProcessMark,
}

/// [`EXIT_FILE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) cause: ExitCause,
}

/// `message` as one line of JSON.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes `content` to `dir/name`, readable by this user only; a reader never sees a part of it.
pub(crate) fn write_file(dir: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    write_bytes(dir, name, &serde_json::to_vec(content)?)
}

/// Likewise, as it is.
pub(crate) fn write_bytes(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    std::fs::rename(temporary, dir.join(name))
}

/// The content of `dir/name`; `None` if there is no such file or it is not what it should be.
pub(crate) fn read_file<T: DeserializeOwned>(dir: &Path, name: &str) -> Option<T> {
    let bytes = std::fs::read(dir.join(name)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_file_reads_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let exit = ExitRecord { cause: ExitCause::Code(3) };
        write_file(dir.path(), EXIT_FILE, &exit).unwrap();
        let back: ExitRecord = read_file(dir.path(), EXIT_FILE).unwrap();
        assert_eq!(back.cause, exit.cause);
        std::fs::write(dir.path().join(EXIT_FILE), b"{\"cau").unwrap();
        assert!(read_file::<ExitRecord>(dir.path(), EXIT_FILE).is_none());
        assert!(read_file::<ExitRecord>(dir.path(), RECORD_FILE).is_none());
    }
}
