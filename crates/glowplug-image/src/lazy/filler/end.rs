//! When a filler has done its work.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use fuser::BackgroundSession;
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};

use crate::lazy::{FILES_MOUNT, LOCK_FILE, TREE_MOUNT, USERS_FILE};
use crate::store;

const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Checks in a row that find nobody: a start may follow on another.
const UNUSED_CHECKS: u32 = 6;

/// Waits until nobody uses the image, or its mount is gone. What is returned keeps new users away.
pub(super) fn wait(folder: &Path, session: &BackgroundSession) -> Option<File> {
    let tree = folder.join(TREE_MOUNT);
    let mut unused = 0;
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        if session.guard.is_finished() {
            return None;
        }
        if is_taken_away(folder) {
            return None;
        }
        // Who is about to start a runner holds it too, so the kernel need not be asked all the time.
        let users = take(folder);
        let is_used = users.is_none() || store::is_under_an_overlay(&tree).unwrap_or(true);
        unused = if is_used { 0 } else { unused + 1 };
        if unused >= UNUSED_CHECKS {
            return users;
        }
    }
}

/// Who prepared it went away before the first use, and took what it knew of with it: nobody else will come.
fn is_taken_away(folder: &Path) -> bool {
    let is_missing = |name: &&str| {
        let found = fs::symlink_metadata(folder.join(name));
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    [USERS_FILE, LOCK_FILE, TREE_MOUNT].iter().any(is_missing)
}

fn take(folder: &Path) -> Option<File> {
    let users = File::open(folder.join(USERS_FILE)).ok()?;
    flock(&users, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(users)
}

/// Leaves nothing of the image.
pub(super) fn clean(folder: &Path) {
    for mount in [FILES_MOUNT, TREE_MOUNT] {
        // One that is not there need not go.
        let _ = unmount(folder.join(mount), UnmountFlags::DETACH);
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), "the late image stays on the disk: {error}");
        }
        _ => {}
    }
}
