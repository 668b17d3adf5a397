//! Keeps what a bench of containers starts, mounts and groups to the bench itself.
//!
//! The bench starts over in namespaces of its own for processes and mounts. However it ends, the kernel then
//! ends every engine, daemon and container below it, and takes every mount back. What namespaces do not hold
//! are the control groups that engines make: all of them are below one of the bench's own.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::UnshareFlags;

use crate::command::Program;

/// What all control groups of the engines are below, in every hierarchy.
pub(super) const GROUP: &str = "glowplug-bench";
/// Set for the bench that has namespaces of its own.
const INSIDE: &str = "GLOWPLUG_BENCH_INSIDE";
/// A place with a short name, in memory and of this bench alone: podman takes no other for what runs.
pub(super) const IN_MEMORY: &str = "/mnt";
const HIERARCHIES: &str = "/sys/fs/cgroup";
/// Groups below groups: engines make three levels.
const GROUP_DEPTH_MAX: usize = 8;
/// Where both versions of control groups are mounted, the second one is here.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Goes on with this program in namespaces of its own. The shell between is there to bury what daemons leave.
pub(super) fn enter() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("this bench mounts file systems: run it as root");
    }
    if std::env::var_os(INSIDE).is_some() {
        remove_groups();
        return keep_to_memory();
    }
    let this = std::env::current_exe().context("cannot find the program of this bench")?;
    let inside = Program::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1");
    Err(inside.replace_this())
}

/// Whatever engines leave in [`IN_MEMORY`] and in `/run` is gone with the mounts of this bench.
fn keep_to_memory() -> Result<()> {
    mount(c"tmpfs", IN_MEMORY, c"tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount memory on {IN_MEMORY}"))?;
    for name in ["upper", "work"] {
        fs::create_dir(Path::new(IN_MEMORY).join(name)).context("cannot write to memory")?;
    }
    let options =
        CString::new(format!("lowerdir=/run,upperdir={IN_MEMORY}/upper,workdir={IN_MEMORY}/work"));
    let options = options.context("cannot name a place in memory")?;
    mount(c"overlay", c"/run", c"overlay", MountFlags::empty(), &*options)
        .context("cannot keep writes to /run in memory")
}

/// Removes the control groups of the engines, as far as nothing is in them.
pub(super) fn remove_groups() {
    let Ok(hierarchies) = fs::read_dir(HIERARCHIES) else { return };
    let own = hierarchies.flatten().map(|hierarchy| hierarchy.path().join(GROUP));
    for group in own.chain([Path::new(HIERARCHIES).join(GROUP)]) {
        remove_group(&group, GROUP_DEPTH_MAX);
    }
}

fn remove_group(group: &Path, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let Ok(below) = fs::read_dir(group) else { return };
    for entry in below.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_group(&entry.path(), depth);
    }
    // Refused while something is in it: then the next bench tries again.
    let _ = fs::remove_dir(group);
}

/// Removes a folder with all that is mounted below it. An engine that was just told to end may still mount and
/// unmount there, so that it takes a few tries.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    const TRIES_MAX: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(100);
    for _ in 1..TRIES_MAX {
        if try_to_remove(folder).is_ok() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    try_to_remove(folder)
}

fn try_to_remove(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let below: Vec<&Path> = places.filter(|place| place.starts_with(folder)).collect();
    for place in below.into_iter().rev() {
        unmount(place, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", place.display()))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Does `work` where only the first version of control groups is to be seen: crun refuses to work where both
/// are mounted. Only the programs that `work` starts are concerned, since it runs on a thread that has left
/// the mounts of all others.
pub(super) fn without_hybrid_groups<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let apart = thread::Builder::new().name("mounts".into()).spawn_scoped(scope, || {
            leave_mounts()?;
            work()
        });
        let apart = apart.context("cannot start a thread")?;
        apart.join().map_err(|_| anyhow!("what ran in mounts of its own has panicked"))?
    })
}

fn leave_mounts() -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if !table.lines().any(|line| line.split(' ').nth(1) == Some(UNIFIED)) {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "leaving a namespace has no safe interface")]
    // SAFETY: of this thread alone, the table of mounts and the working directory are left behind, no table
    // of descriptors.
    let left = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
    left.context("cannot leave the mounts")?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).context("cannot make mounts private")?;
    unmount(UNIFIED, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {UNIFIED}"))
}
