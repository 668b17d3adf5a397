//! Counts the bytes that are kept, and those that are on their way.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Result};

#[derive(Debug)]
pub(super) struct Room {
    used: AtomicU64,
    total_bytes_max: u64,
    disk_reserve_bytes: u64,
    folder: PathBuf,
}

/// Bytes that were counted. Dropped, they are free again.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    pub(super) fn new(folder: PathBuf, total_bytes_max: u64, disk_reserve_bytes: u64) -> Self {
        Self { used: AtomicU64::new(0), total_bytes_max, disk_reserve_bytes, folder }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts what is there already.
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn free(&self, bytes: u64) {
        let freed = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, freed);
    }

    /// Refuses at once what would be refused on the way.
    pub(super) fn look(&self, bytes: u64) -> Result<()> {
        self.check(self.used().saturating_add(bytes))?;
        self.look_at_disk(bytes)
    }

    pub(super) fn look_at_disk(&self, bytes: u64) -> Result<()> {
        // Where the file system cannot say, writing will.
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.disk_reserve_bytes.saturating_add(bytes) {
            let reserve = self.disk_reserve_bytes;
            let reason = format!("the disk has {free} bytes left, of which {reserve} stay free");
            return Err(Error::Full { reason });
        }
        Ok(())
    }

    fn check(&self, used: u64) -> Result<()> {
        let limit = self.total_bytes_max;
        if used <= limit {
            return Ok(());
        }
        Err(Error::Full { reason: format!("all files together may have at most {limit} bytes") })
    }
}

impl Held {
    pub(super) fn nothing(room: Arc<Room>) -> Self {
        Self { room, bytes: 0 }
    }

    /// Counts more bytes, if there is room for them.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<()> {
        let before = self.room.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        self.room.check(before.saturating_add(bytes))?;
        self.room.look_at_disk(bytes)
    }

    /// Counts bytes that take the place of others, which are freed later.
    pub(super) fn force(&mut self, bytes: u64) {
        self.room.add(bytes);
        self.bytes += bytes;
    }

    /// They stay counted until somebody frees them.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.free(self.bytes);
    }
}
