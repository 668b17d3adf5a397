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
pub(crate) mod oci;
mod passwd;
mod root;
mod secrets;
mod spec;
mod system_calls;
mod tree;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
};
use serde::{Deserialize, Serialize};

pub use self::capabilities::Capabilities;
pub(crate) use self::devices::allowed as allowed_devices;
pub(crate) use self::enter::Entrance;
pub(crate) use self::init::{fork, retire, sleep_for_ever};
pub use self::spec::{
    Bind, ContainerSpec, ContainerUser, Hook, HookStage, Network, Recording, Root, Runtime,
    Scratch, SecretFiles, SystemCalls, Writes,
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
    workshop: Option<Workshop>,
}

/// Who the program will be, by the container's own files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedUser {
    pub(crate) identity: Identity,
    pub(crate) home: String,
}

/// What an init says once.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Prepared(Prepared),
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Prepared {
    user: ResolvedUser,
    /// For an OCI runtime.
    workshop: Option<Numbers>,
}

/// Descriptors of the init, which it keeps until the shim has them.
#[derive(Debug, Serialize, Deserialize)]
struct Numbers {
    mounts: i32,
    bundle: i32,
}

/// Where an OCI runtime works on a container: mounts that show the host's files, the image's and the
/// bundle. Nothing in the container is in them, and they are gone when this is.
#[derive(Debug)]
pub(crate) struct Workshop {
    mounts: OwnedFd,
    bundle: OwnedFd,
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
        let own = File::open("/proc/self/ns/pid")
            .map_err(|error| format!("cannot hold on to the host's pids: {error}"))?;
        // From here on the children of this process are in the new pid namespace, not this process.
        unshare(UnshareFlags::NEWPID)
            .map_err(|error| format!("cannot make a pid namespace: {error}"))?;
        let (init, channel) = init::start(preparation)
            .map_err(|error| format!("cannot start the container's first process: {error}"))?;
        if preparation.spec.runtime != Runtime::Native {
            // The next child is a runtime, which has to see the host's processes.
            move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))
                .map_err(|error| format!("cannot come back to the host's pids: {error}"))?;
        }
        let handle = pidfd_open(init, PidfdFlags::empty())
            .map_err(|error| format!("cannot hold on to the container: {error}"))?;
        let prepared = match read_report(&channel) {
            Some(Report::Prepared(prepared)) => prepared,
            Some(Report::Failed(problem)) => return Err(problem),
            None => return Err("the container's first process ended without a word".to_owned()),
        };
        let workshop = prepared.workshop.map(|numbers| Workshop::take(init, &numbers)).transpose();
        let workshop = workshop
            .map_err(|error| format!("cannot hold on to the container's mounts: {error}"))?;
        // Nobody needs the init's descriptors any more.
        (&channel)
            .write_all(&[0])
            .map_err(|error| format!("the container's first process ended: {error}"))?;
        Ok(Self { init, handle, user: prepared.user, workshop })
    }

    pub(crate) fn workshop(&self) -> Option<&Workshop> {
        self.workshop.as_ref()
    }

    pub(crate) fn init(&self) -> Pid {
        self.init
    }

    /// The namespaces that the program joins. Makes system calls only.
    fn join(&self) -> io::Result<()> {
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

impl Workshop {
    fn take(init: Pid, numbers: &Numbers) -> io::Result<Self> {
        let take = |number: i32| {
            let path = format!("/proc/{}/fd/{number}", init.as_raw_nonzero());
            Ok::<_, io::Error>(OwnedFd::from(File::open(path)?))
        };
        Ok(Self { mounts: take(numbers.mounts)?, bundle: take(numbers.bundle)? })
    }

    /// For a process that is to work there.
    pub(crate) fn mounts(&self) -> io::Result<Mounts> {
        Ok(Mounts(self.mounts.try_clone()?))
    }

    /// A file of the bundle, as this process can reach it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.bundle.as_raw_fd()).into()
    }
}

/// Mounts that a process can join.
#[derive(Debug)]
pub(crate) struct Mounts(OwnedFd);

impl Mounts {
    /// Makes a system call only.
    pub(crate) fn join(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::Mount);
        Ok(move_into_link_name_space(self.0.as_fd(), kind)?)
    }
}

/// Gives the root of a container that a runtime has made, and not started yet, the limits that it was
/// mounted with: runtimes lose them when they move it into its place.
pub(crate) fn seal_root(program: Pid, spec: &ContainerSpec) -> Result<(), String> {
    let seal = || {
        let own = File::open("/proc/self/ns/mnt")?;
        let theirs = File::open(format!("/proc/{}/ns/mnt", program.as_raw_nonzero()))?;
        let kind = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(theirs.as_fd(), kind)?;
        let sealed = root::restrict(spec);
        move_into_link_name_space(own.as_fd(), kind)?;
        sealed
    };
    seal().map_err(|error: io::Error| format!("cannot restrict the container's root: {error}"))
}

fn read_report(from: &UnixStream) -> Option<Report> {
    let mut text = Vec::new();
    from.take(REPORT_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(unsafe_code, reason = "leaving a namespace has no safe interface")]
    // SAFETY: no table of descriptors is left behind by these flags, which is what makes this call unsafe;
    // and the process has one thread.
    let left = unsafe { rustix::thread::unshare_unsafe(flags) };
    Ok(left?)
}
