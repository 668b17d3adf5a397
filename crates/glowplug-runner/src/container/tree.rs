//! Mounts as descriptors: taken on the host, given their limits, and put into place where the container's
//! root is the root, so that no link in an image leads a mount astray.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::Writes;

/// A copy of a part of the host's tree that is mounted nowhere yet.
#[derive(Debug)]
pub(super) struct Tree {
    fd: OwnedFd,
    pub(super) is_dir: bool,
}

impl Tree {
    /// A copy of what is at `source`, with all that is mounted below it.
    pub(super) fn copy(source: &Path, writes: Writes) -> io::Result<Self> {
        let is_dir = std::fs::metadata(source)?.is_dir();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let fd = open_tree(CWD, source, flags)?;
        let mut limits = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if writes == Writes::Refused {
            limits |= libc::MOUNT_ATTR_RDONLY;
        }
        limit(fd.as_fd(), limits, Reach::All)?;
        Ok(Self { fd, is_dir })
    }

    /// Puts it at `target`, which is resolved by this process's own root.
    pub(super) fn attach(&self, target: &Path) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        Ok(move_mount(&self.fd, c"", CWD, target, flags)?)
    }
}

/// How far down a restriction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// This mount alone.
    This,
    /// All mounts below it too.
    All,
}

/// Restricts a mount.
pub(super) fn limit(tree: BorrowedFd<'_>, attributes: u64, reach: Reach) -> io::Result<()> {
    let change =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = match reach {
        Reach::This => libc::AT_EMPTY_PATH,
        Reach::All => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    #[expect(unsafe_code, reason = "mount_setattr has no safe interface here")]
    // SAFETY: the descriptor is open, the path is an empty string, and the change is of the size that is
    // given with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
