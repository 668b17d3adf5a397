//! Where the files of runners are, and who owns them.
//!
//! A runner's directory belongs to whoever holds its lock: the node while it prepares the start, then the
//! shim, which inherits the very same lock, and after the shim's end the node that clears up. So two
//! nodes never start one runner, and a directory whose lock is free has no shim.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use glowplug_core::RunnerId;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};

use crate::backend::BackendError;

/// What fits into a socket address, the closing zero not counted.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// No runner has this name.
const ENCLOSED_DIR: &str = "enclosed";
const LOCK_SUFFIX: &str = ".lock";
/// Each further attempt means that another has just cleared the runner away.
const LOCK_ATTEMPTS_MAX: usize = 16;
/// Runners found on the disk at once; far above what a node can run.
const RUNNERS_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Layout {
    runners: PathBuf,
    sockets: PathBuf,
    /// Tells the groups and markers of this directory's runners from those of others.
    namespace: String,
}

pub(super) enum Ownership {
    Ours(OwnedFd),
    /// A shim lives, or another node is just starting or clearing it.
    Taken,
}

impl Layout {
    pub(super) fn prepare(runners: &Path, sockets: &Path) -> Result<Self, BackendError> {
        make_dir(runners, 0o700)?;
        let runners = fs::canonicalize(runners).map_err(|e| failed("resolve", runners, e))?;
        let namespace = format!("{:016x}", fingerprint(runners.as_os_str().as_encoded_bytes()));
        let absolute =
            std::path::absolute(sockets).map_err(|error| failed("resolve", sockets, error))?;
        let sockets = if longest_socket_path(&absolute) <= SOCKET_PATH_BYTES_MAX {
            absolute
        } else {
            std::env::temp_dir().join(format!("glowplug-{namespace}"))
        };
        // Others may pass through (runners may have users of their own), not look around.
        make_dir(&sockets, 0o711)?;
        let owner = fs::symlink_metadata(&sockets).map_err(|e| failed("look at", &sockets, e))?;
        if !owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw() {
            let problem = io::Error::other("it is not a directory of this user");
            return Err(failed("use", &sockets, problem));
        }
        Ok(Self { runners, sockets, namespace })
    }

    pub(super) fn dir(&self, id: RunnerId) -> PathBuf {
        self.runners.join(id.to_string())
    }

    fn lock_file(&self, id: RunnerId) -> PathBuf {
        self.runners.join(format!("{id}{LOCK_SUFFIX}"))
    }

    pub(super) fn control(&self, id: RunnerId) -> PathBuf {
        self.sockets.join(format!("{id}.ctl"))
    }

    /// The directory of the program's own socket.
    pub(super) fn socket_dir(&self, id: RunnerId) -> PathBuf {
        self.sockets.join(id.to_string())
    }

    /// Where each enclosed program has the directory of its socket.
    pub(super) fn enclosed_socket_dir(&self) -> PathBuf {
        self.sockets.join(ENCLOSED_DIR)
    }

    /// Makes that: an empty directory to mount on.
    pub(super) fn make_enclosed_socket_dir(&self) -> io::Result<()> {
        let made = DirBuilder::new().mode(0o711).create(self.enclosed_socket_dir());
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// A name for the runner that is unique on this host.
    pub(super) fn unique_name(&self, id: RunnerId) -> String {
        format!("glowplug-{}-{id}", self.namespace)
    }

    /// Takes the runner's lock unless somebody has it.
    pub(super) fn own(&self, id: RunnerId) -> Result<Ownership, BackendError> {
        let path = self.lock_file(id);
        self.try_own(&path).map_err(|error| failed("lock", &path, error))
    }

    #[expect(clippy::unused_self, reason = "locks are the layout's business")]
    fn try_own(&self, path: &Path) -> io::Result<Ownership> {
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Ownership::Taken),
                Err(error) => return Err(error.into()),
            }
            // The holder before may have removed the file after this opened it.
            let opened = fstat(&file)?;
            if stat(path).is_ok_and(|now| now.st_ino == opened.st_ino) {
                return Ok(Ownership::Ours(file));
            }
        }
        Ok(Ownership::Taken)
    }

    /// Makes the runner's directory, which must not exist.
    pub(super) fn create(&self, id: RunnerId) -> io::Result<PathBuf> {
        let dir = self.dir(id);
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(dir)
    }

    /// Deletes all files of the runner, the lock last.
    pub(super) fn remove(&self, id: RunnerId, lock: OwnedFd) -> Result<(), BackendError> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let remove_all = || {
            gone(fs::remove_file(self.control(id)))?;
            gone(fs::remove_dir_all(self.socket_dir(id)))?;
            gone(fs::remove_dir_all(self.dir(id)))?;
            gone(fs::remove_file(self.lock_file(id)))
        };
        remove_all().map_err(|error| failed("delete", &self.dir(id), error))?;
        drop(lock);
        Ok(())
    }

    /// Every runner that has files here, if only a lock: a node that dies between taking a lock and making
    /// the directory leaves that.
    pub(super) fn list(&self) -> Result<Vec<RunnerId>, BackendError> {
        let entries =
            fs::read_dir(&self.runners).map_err(|error| failed("list", &self.runners, error))?;
        let ids = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let name = name.to_str()?;
            name.strip_suffix(LOCK_SUFFIX).unwrap_or(name).parse().ok()
        });
        let mut ids: Vec<RunnerId> = ids.take(2 * RUNNERS_MAX).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

fn longest_socket_path(dir: &Path) -> usize {
    let id = RunnerId { boot: u32::MAX, sequence: u32::MAX };
    dir.join(id.to_string()).join(super::launch::APP_SOCKET).as_os_str().len()
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), BackendError> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|error| failed("make the directory", dir, error))
}

fn failed(operation: &str, path: &Path, source: io::Error) -> BackendError {
    BackendError::Io { operation: format!("{operation} {}", path.display()), source }
}

/// FNV-1a: stable over processes and releases, which the standard hasher is not.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RunnerId = RunnerId { boot: 1, sequence: 2 };

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&dir.path().join("r"), &dir.path().join("s")).unwrap();
        let Ownership::Ours(lock) = layout.own(ID).unwrap() else { panic!("nobody had it") };
        assert!(matches!(layout.own(ID).unwrap(), Ownership::Taken));
        layout.create(ID).unwrap();
        assert_eq!(layout.list().unwrap(), [ID]);
        fs::remove_dir(layout.dir(ID)).unwrap();
        assert_eq!(layout.list().unwrap(), [ID], "the lock is left");
        layout.remove(ID, lock).unwrap();
        assert!(layout.list().unwrap().is_empty());
        assert!(matches!(layout.own(ID).unwrap(), Ownership::Ours(_)));
    }

    #[test]
    fn long_directories_do_not_make_long_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(90)).join("e".repeat(90));
        let layout = Layout::prepare(&deep.join("r"), &deep.join("s")).unwrap();
        assert!(longest_socket_path(&layout.sockets) <= SOCKET_PATH_BYTES_MAX);
        let again = Layout::prepare(&deep.join("r"), &deep.join("s")).unwrap();
        assert_eq!(again.control(ID), layout.control(ID));
        fs::remove_dir_all(&layout.sockets).unwrap();
    }
}
