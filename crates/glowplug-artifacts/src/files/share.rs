//! Counts what each owner keeps, and what of theirs is on its way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Options, Result};

#[derive(Debug)]
pub(super) struct Shares {
    /// Owners of nothing are not in it.
    owners: Mutex<HashMap<String, Counted>>,
    bytes_max: u64,
    files_max: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    bytes: u64,
    files: usize,
}

/// Bytes, and perhaps a file, that were counted. Dropped, they are free again.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    owner: String,
    counted: Counted,
}

impl Shares {
    pub(super) fn new(options: &Options) -> Arc<Self> {
        let (bytes_max, files_max) = (options.owner_bytes_max, options.owner_files_max);
        Arc::new(Self { owners: Mutex::default(), bytes_max, files_max })
    }

    /// What is about to be counted for an owner.
    pub(super) fn begin(self: &Arc<Self>, owner: &str) -> Share {
        let (owner, counted) = (owner.to_owned(), Counted::default());
        Share { shares: self.clone(), owner, counted }
    }

    /// Refuses at once what would be refused on the way.
    pub(super) fn look(&self, owner: &str, bytes: u64) -> Result<()> {
        let used = self.owners().get(owner).map_or(0, |counted| counted.bytes);
        self.check_bytes(used.saturating_add(bytes))
    }

    /// Counts what is there already.
    pub(super) fn add(&self, owner: &str, bytes: u64, files: usize) {
        let mut owners = self.owners();
        let counted = owners.entry(owner.to_owned()).or_default();
        counted.bytes += bytes;
        counted.files += files;
    }

    pub(super) fn free(&self, owner: &str, bytes: u64, files: usize) {
        let mut owners = self.owners();
        let Some(counted) = owners.get_mut(owner) else { return };
        counted.bytes = counted.bytes.saturating_sub(bytes);
        counted.files = counted.files.saturating_sub(files);
        if *counted == Counted::default() {
            owners.remove(owner);
        }
    }

    fn check_bytes(&self, bytes: u64) -> Result<()> {
        let limit = self.bytes_max;
        if bytes > limit { Err(Error::Quota { limit, of: "bytes" }) } else { Ok(()) }
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<String, Counted>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Counts more bytes, if the owner may have them.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<()> {
        self.force(bytes);
        let shares = &self.shares;
        let all = shares.owners().get(&self.owner).map_or(0, |counted| counted.bytes);
        shares.check_bytes(all)
    }

    /// Counts bytes that take the place of others, which are freed later.
    pub(super) fn force(&mut self, bytes: u64) {
        self.shares.add(&self.owner, bytes, 0);
        self.counted.bytes += bytes;
    }

    /// Counts a file, if the owner may have another.
    pub(super) fn name(&mut self) -> Result<()> {
        let limit = self.shares.files_max;
        let mut owners = self.shares.owners();
        let counted = owners.entry(self.owner.clone()).or_default();
        if counted.files >= limit {
            return Err(Error::Quota { limit: limit as u64, of: "files" });
        }
        counted.files += 1;
        self.counted.files += 1;
        Ok(())
    }

    /// It stays counted until somebody frees it.
    pub(super) fn keep(mut self) {
        self.counted = Counted::default();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.free(&self.owner, self.counted.bytes, self.counted.files);
    }
}
