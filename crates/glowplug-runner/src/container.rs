//! The sandbox that a runner's program can be put into: made by the shim, right before the program starts.
//!
//! ```text
//! shim ──┬─ init      pid 1: makes the namespaces, mounts the root, then sleeps and lets the kernel reap
//!        └─ program   pid 2: joins them, gives up its rights, becomes the program
//! ```
//!
//! Both are children of the shim, so it waits for, signals and buries a program in a container just as it
//! does any other. The program is not pid 1, because the kernel withholds from pid 1 every signal that it
//! does not handle: an ordinary server would sit out its whole time of grace. Pid 1 has no files, no rights
//! and no code to run; it is there to take in orphans, and its end is the end of all in the container.
//!
//! Everything is made in the mount namespace of the container and goes with it: a killed shim takes pid 1
//! along, and with it the mounts, the network and what was written. Needs root and Linux 5.12.

mod capabilities;
mod devices;
mod enter;
mod files;
mod init;
mod mounts;
mod network;
mod passwd;
mod spec;
mod system_calls;
mod tree;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

pub use self::capabilities::Capabilities;
pub(crate) use self::devices::allowed as allowed_devices;
pub(crate) use self::enter::Entrance;
pub use self::spec::{
    Bind, ContainerSpec, ContainerUser, Network, Recording, Root, Scratch, SystemCalls, Writes,
};
use crate::protocol::Identity;

/// Where the directory of the program's own socket is in a container. In memory, like all it can write to.
pub(crate) const SOCKET_DIR: &str = "/run/glowplug";
/// The longest report of an init: an error, or a user.
const REPORT_BYTES_MAX: u64 = 64 << 10;

/// A container that waits for its program.
#[derive(Debug)]
pub(crate) struct Sandbox {
    init: Pid,
    /// Names the init even after its end.
    handle: OwnedFd,
    pub(crate) user: ResolvedUser,
}

/// Who the program will be, by the container's own files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedUser {
    pub(crate) identity: Identity,
    pub(crate) home: String,
}

/// What an init says once, through its pipe.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Prepared(ResolvedUser),
    Failed(String),
}

/// What an init must know.
#[derive(Debug)]
pub(crate) struct Preparation<'a> {
    pub(crate) spec: &'a ContainerSpec,
    /// An empty place to mount on, in the container's own mounts only.
    pub(crate) scaffold: &'a Path,
    pub(crate) working_dir: &'a Path,
    /// Of the runner's control groups.
    pub(crate) doors: &'a [OwnedFd],
}

impl Sandbox {
    /// Makes the sandbox. The caller must have one thread, and its next child is the program.
    pub(crate) fn prepare(preparation: &Preparation<'_>) -> Result<Self, String> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| format!("cannot make a pipe for the container: {error}"))?;
        // From here on the children of this process are in the new pid namespace, not this process.
        unshare(UnshareFlags::NEWPID)
            .map_err(|error| format!("cannot make a pid namespace: {error}"))?;
        let init = init::fork(preparation, writer)
            .map_err(|error| format!("cannot start the container's first process: {error}"))?;
        let handle = pidfd_open(init, PidfdFlags::empty())
            .map_err(|error| format!("cannot hold on to the container: {error}"))?;
        match read_report(reader) {
            Some(Report::Prepared(user)) => Ok(Self { init, handle, user }),
            Some(Report::Failed(problem)) => Err(problem),
            None => Err("the container's first process ended without a word".to_owned()),
        }
    }

    pub(crate) fn init(&self) -> Pid {
        self.init
    }

    /// The namespaces that the program joins. Makes system calls only.
    fn join(&self) -> io::Result<()> {
        use std::os::fd::AsFd;
        // The pid namespace comes with the fork. Joining the host's network, where the init has stayed,
        // changes nothing.
        let kinds = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::CONTROL_GROUP;
        Ok(rustix::thread::move_into_thread_name_spaces(self.handle.as_fd(), kinds)?)
    }
}

fn read_report(reader: OwnedFd) -> Option<Report> {
    let mut text = Vec::new();
    std::fs::File::from(reader).take(REPORT_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(unsafe_code, reason = "leaving a namespace has no safe interface")]
    // SAFETY: no table of descriptors is left behind by these flags, which is what makes this call unsafe;
    // and the process has one thread.
    let left = unsafe { rustix::thread::unshare_unsafe(flags) };
    Ok(left?)
}
