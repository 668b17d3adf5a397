//! How much room the disk has left.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::StoreError;

/// Stands for a disk that has not been asked.
const UNKNOWN: u64 = u64::MAX;

/// The disk of a database.
pub(super) struct Disk {
    folder: PathBuf,
    reserve_bytes: u64,
    /// What was free when the group of writes at hand began.
    free_bytes: AtomicU64,
}

impl Disk {
    pub(super) fn of(database: &Path, reserve_bytes: u64) -> Self {
        let folder = match database.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Self { folder, reserve_bytes, free_bytes: AtomicU64::new(UNKNOWN) }
    }

    /// What was known of the disk is too old.
    pub(super) fn changed(&self) {
        self.free_bytes.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Refuses new work where it could take the room that the answers to older work need.
    pub(super) fn check_reserve(&self, operation: &'static str) -> Result<(), StoreError> {
        let mut free_bytes = self.free_bytes.load(Ordering::Relaxed);
        if free_bytes == UNKNOWN {
            free_bytes = self.ask();
            self.free_bytes.store(free_bytes, Ordering::Relaxed);
        }
        self.judge(free_bytes, operation)
    }

    /// As [`check_reserve`](Self::check_reserve), and asks the disk again.
    pub(super) fn check_now(&self, operation: &'static str) -> Result<(), StoreError> {
        self.judge(self.ask(), operation)
    }

    fn judge(&self, free_bytes: u64, operation: &'static str) -> Result<(), StoreError> {
        if free_bytes >= self.reserve_bytes {
            return Ok(());
        }
        let problem = format!(
            "the disk of {} has {free_bytes} bytes left, and {} are kept for the answers to what was \
             accepted",
            self.folder.display(),
            self.reserve_bytes
        );
        Err(StoreError::Full { operation, problem })
    }

    /// A disk that does not say counts as one with room: whatever is wrong shows when it is written to.
    fn ask(&self) -> u64 {
        free_bytes(&self.folder).unwrap_or(UNKNOWN - 1)
    }
}

/// What is free on the disk of a folder, for programs that are not the administrator's.
pub fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
