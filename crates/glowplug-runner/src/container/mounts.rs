//! The root of a container and what is mounted in it.
//!
//! The order is what keeps an image from leading a mount astray: parts of the host are taken as
//! descriptors first, then the root is changed and the host's tree let go, and only then is anything put
//! at a path, which by then can name nothing but the container's own files.

use std::ffi::CString;
use std::io;
use std::path::{Component, Path};

use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount,
};

use super::devices::{self, DeviceNode};
use super::spec::{Bind, ContainerSpec};
use super::tree::Tree;
use super::{Preparation, SOCKET_DIR, root};

/// The files that a container's own writes may be spread over, for each MiB that they may take.
const FILES_PER_MEBIBYTE: u64 = 256;
const FILES_MIN: u64 = 4_096;
/// For a socket and what belongs to it.
const SOCKET_DIR_BYTES: u64 = 64 << 10;
const SOCKET_DIR_FILES: u64 = 64;

/// Of `/proc` and `/sys`: what tells of, or reaches into, the host.
pub(super) const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes the root of the container the root of this process, with everything in it.
pub(super) fn build(preparation: &Preparation<'_>) -> Result<(), String> {
    let spec = preparation.spec;
    part_from_host()?;
    let binds = take_binds(preparation)?;
    let nodes = devices::look_up(&spec.devices)?;
    root::enter(&root::assemble(spec, preparation.scaffold)?)?;

    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    place("proc", "/proc", inert, None)?;
    place("sysfs", "/sys", inert | MountFlags::RDONLY, None)?;
    make_dev(spec, &nodes)?;
    for scratch in &spec.scratch {
        check_target(&scratch.target)?;
        let options =
            format!("mode=1777,size={},nr_inodes={}", scratch.bytes, files(scratch.bytes));
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        place("tmpfs", &scratch.target, flags, Some(&options))?;
    }
    make_socket_dir()?;
    for (tree, bind) in &binds {
        make_place(&bind.target, tree.is_dir).map_err(|error| failed(&bind.target, error))?;
        tree.attach(&bind.target).map_err(|error| failed(&bind.target, error))?;
    }
    hide_host()
}

/// From here on what is mounted is seen by this process and those that join it, and goes with them.
pub(super) fn part_from_host() -> Result<(), String> {
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", propagation).map_err(|error| cannot("part from the host's mounts", error))
}

/// On the way to it no link is followed from outside, so an image may have none there.
fn make_socket_dir() -> Result<(), String> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = format!("mode=0700,size={SOCKET_DIR_BYTES},nr_inodes={SOCKET_DIR_FILES}");
    place("tmpfs", SOCKET_DIR, flags, Some(&options))?;
    check_socket_dir()
}

/// To be called where the container's root is the root, once the directory is there.
pub(super) fn check_socket_dir() -> Result<(), String> {
    match std::fs::canonicalize(SOCKET_DIR) {
        Ok(real) if real == Path::new(SOCKET_DIR) => Ok(()),
        Ok(_) => {
            Err(format!("the image has a link on the way to {SOCKET_DIR}: make it a directory"))
        }
        Err(error) => Err(failed(Path::new(SOCKET_DIR), error)),
    }
}

/// The last act: whatever had to be made in the root is made.
pub(super) fn seal(spec: &ContainerSpec) -> Result<(), String> {
    root::restrict(spec).map_err(|error| cannot("restrict the container's root", error))
}

pub(super) fn take_binds(preparation: &Preparation<'_>) -> Result<Vec<(Tree, Bind)>, String> {
    let take = |bind: &Bind| {
        check_target(&bind.target)?;
        let tree = Tree::copy(&bind.source, bind.writes).map_err(|error| {
            format!("cannot give the container {}: {error}", bind.source.display())
        })?;
        Ok((tree, bind.clone()))
    };
    preparation.spec.binds.iter().map(take).collect()
}

fn make_dev(spec: &ContainerSpec, nodes: &[DeviceNode]) -> Result<(), String> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    place("tmpfs", "/dev", quiet, Some("mode=0755,size=65536"))?;
    place("devpts", "/dev/pts", quiet, Some("newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
    let bytes = spec.shared_memory_bytes;
    let options = format!("mode=1777,size={bytes},nr_inodes={}", files(bytes));
    place("tmpfs", "/dev/shm", quiet | MountFlags::NODEV, Some(&options))?;
    place("mqueue", "/dev/mqueue", quiet | MountFlags::NODEV, None)?;
    devices::make(nodes)
}

/// After all binds, so that none of them uncovers anything.
fn hide_host() -> Result<(), String> {
    for path in MASKED.map(Path::new) {
        let Ok(found) = std::fs::symlink_metadata(path) else { continue };
        let hidden = if found.is_dir() {
            mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, c"size=4096,nr_inodes=2")
        } else {
            mount_bind("/dev/null", path)
        };
        hidden.map_err(|error| failed(path, error))?;
    }
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    for path in READ_ONLY.map(Path::new).into_iter().filter(|path| path.exists()) {
        mount_bind_recursive(path, path)
            .and_then(|()| mount_remount(path, flags, c""))
            .map_err(|error| failed(path, error))?;
    }
    Ok(())
}

pub(super) fn place(
    kind: &str,
    target: impl AsRef<Path>,
    flags: MountFlags,
    options: Option<&str>,
) -> Result<(), String> {
    let target = target.as_ref();
    let options = options.map(|text| CString::new(text).expect("options hold no zero byte"));
    let placed = make_place(target, true).and_then(|()| {
        // An image with a link here would have the container's own files appear somewhere else.
        if !std::fs::symlink_metadata(target)?.is_dir() {
            return Err(io::Error::other("the image has no directory there but something else"));
        }
        Ok(mount(kind, target, kind, flags, options.as_deref())?)
    });
    placed.map_err(|error| failed(target, error))
}

/// Makes what a mount is put on, unless the image has it.
pub(super) fn make_place(target: &Path, is_dir: bool) -> io::Result<()> {
    if is_dir {
        return make_dirs(target);
    }
    if let Some(parent) = target.parent() {
        make_dirs(parent)?;
    }
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(target);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn make_dirs(target: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(target)
}

/// The kernel's own file systems are nobody else's to cover.
pub(super) fn check_target(target: &Path) -> Result<(), String> {
    let is_plain = target.is_absolute()
        && target.components().count() > 1
        && target
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if is_plain && !target.starts_with("/proc") && !target.starts_with("/sys") {
        return Ok(());
    }
    Err(format!(
        "nothing can be mounted at {}: give a full path outside of /proc and /sys",
        target.display()
    ))
}

pub(super) fn files(bytes: u64) -> u64 {
    (bytes >> 20).saturating_mul(FILES_PER_MEBIBYTE).max(FILES_MIN)
}

pub(super) fn cannot(what: &str, error: impl Into<io::Error>) -> String {
    format!("cannot {what}: {}", error.into())
}

pub(super) fn failed(path: &Path, error: impl Into<io::Error>) -> String {
    format!("cannot prepare {} in the container: {}", path.display(), error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_stay_out_of_what_is_the_kernels() {
        for (target, allowed) in [
            ("/models", true),
            ("/var/run/x", true),
            ("/", false),
            ("models", false),
            ("/proc/sys", false),
            ("/sys", false),
            ("/a/../proc", false),
        ] {
            assert_eq!(check_target(Path::new(target)).is_ok(), allowed, "{target}");
        }
    }
}
