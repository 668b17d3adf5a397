//! The device nodes of a container: the few that every program may expect, and those it is given.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chmodat, chownat, major, minor, mknodat};

const ALWAYS: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const LINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// A node of the host, to be made anew in the container.
#[derive(Debug)]
pub(super) struct DeviceNode {
    pub(super) path: PathBuf,
    pub(super) kind: FileType,
    pub(super) mode: Mode,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) device: u64,
}

/// The terminals that a container makes for itself, in the words of a control group.
const TERMINALS: [&str; 2] = ["c 5:2 rwm", "c 136:* rwm"];

/// The devices that a container may use, in the words of a control group.
pub(crate) fn allowed(wanted: &[PathBuf]) -> Vec<String> {
    // What cannot be looked at stops the start later, with a reason.
    let nodes = look_up(wanted).unwrap_or_default();
    let words = nodes.iter().map(|node| {
        let kind = if node.kind == FileType::BlockDevice { 'b' } else { 'c' };
        format!("{kind} {}:{} rwm", major(node.device), minor(node.device))
    });
    words.chain(TERMINALS.map(str::to_owned)).collect()
}

/// The standard nodes and the wanted ones, as the host has them now.
pub(super) fn look_up(wanted: &[PathBuf]) -> Result<Vec<DeviceNode>, String> {
    let standard = ALWAYS.map(PathBuf::from);
    standard.iter().chain(wanted).map(|path| look_at(path)).collect()
}

fn look_at(path: &Path) -> Result<DeviceNode, String> {
    if !path.starts_with("/dev") {
        return Err(format!("{} is no device: its path must begin with /dev", path.display()));
    }
    let found = fs::metadata(path)
        .map_err(|error| format!("the host has no device {}: {error}", path.display()))?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => FileType::CharacterDevice,
        kind if kind.is_block_device() => FileType::BlockDevice,
        _ => return Err(format!("{} is no device of the host", path.display())),
    };
    Ok(DeviceNode {
        path: path.to_owned(),
        kind,
        mode: Mode::from_raw_mode(found.mode() & 0o777),
        uid: found.uid(),
        gid: found.gid(),
        device: found.rdev(),
    })
}

/// Makes them in `/dev` of the root that this process is in.
pub(super) fn make(nodes: &[DeviceNode]) -> Result<(), String> {
    for node in nodes {
        make_node(node)
            .map_err(|error| format!("cannot make the device {}: {error}", node.path.display()))?;
    }
    for (path, target) in LINKS {
        symlink(target, path).map_err(|error| format!("cannot make the link {path}: {error}"))?;
    }
    Ok(())
}

fn make_node(node: &DeviceNode) -> io::Result<()> {
    if let Some(parent) = node.path.parent() {
        fs::create_dir_all(parent)?;
    }
    mknodat(CWD, &node.path, node.kind, node.mode, node.device)?;
    // What was asked for is cut by the mask of this process.
    chmodat(CWD, &node.path, node.mode, AtFlags::empty())?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    Ok(chownat(CWD, &node.path, Some(uid), Some(gid), AtFlags::empty())?)
}
