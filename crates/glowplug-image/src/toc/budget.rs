//! What the tables of one image may take in memory together, whatever number of layers it has.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{CHUNKS_MAX, Error, TABLE_INFLATED_BYTES_MAX};

/// Of one image. An image with half a million files has a twentieth of each.
const BYTES_MAX: u64 = TABLE_INFLATED_BYTES_MAX;
const FILES_MAX: u64 = 4_000_000;

/// What is left for the tables of an image, which may be read side by side.
#[derive(Debug)]
pub struct Budget {
    bytes: Share,
    files: Share,
    chunks: Share,
}

#[derive(Debug)]
struct Share {
    of: &'static str,
    limit: u64,
    left: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BYTES_MAX, FILES_MAX, CHUNKS_MAX as u64)
    }
}

impl Budget {
    /// Bytes are those of the plain tables.
    pub const fn new(bytes: u64, files: u64, chunks: u64) -> Self {
        Self {
            bytes: Share::new("bytes", bytes),
            files: Share::new("files", files),
            chunks: Share::new("chunks", chunks),
        }
    }

    /// Before a table is inflated.
    pub(super) fn take_bytes(&self, bytes: u64) -> Result<(), Error> {
        self.bytes.take(bytes)
    }

    pub(super) fn take_file(&self) -> Result<(), Error> {
        self.files.take(1)
    }

    pub(super) fn take_chunk(&self) -> Result<(), Error> {
        self.chunks.take(1)
    }
}

impl Share {
    const fn new(of: &'static str, limit: u64) -> Self {
        Self { of, limit, left: AtomicU64::new(limit) }
    }

    fn take(&self, amount: u64) -> Result<(), Error> {
        let less = |left: u64| left.checked_sub(amount);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let Self { of, limit, .. } = *self;
        taken.map(drop).map_err(|_| Error::TooManyInAll { of, limit })
    }
}
