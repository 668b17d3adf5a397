//! Bytes on their way to the disk: hashed and written as they come, at most [`FLUSH_BYTES`] in memory.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};

use super::folder::Draft;
use super::room::{Held, Room};
use super::share::Share;
use super::{Digest, Error, Result};

/// Bytes of a body that are gathered before they are written. One more frame may be held with them.
const FLUSH_BYTES: usize = 1 << 20;
/// What a piece of a body is taken to need beside its bytes, so that many small ones are not held either.
const PIECE_BYTES: usize = 64;
/// And how long anything is gathered: who sends slowly is waited for with the disk, not with memory.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Runs what waits for a disk where it keeps nobody else waiting. It runs to its end even if nobody waits
/// for it any more.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Closing),
        },
    }
}

/// A file that is being written.
pub(super) struct Incoming {
    draft: Draft,
    file: File,
    hash: Sha256,
    bytes: u64,
    held: Held,
    share: Share,
    bytes_max: u64,
}

/// Bytes of a body that wait to be written.
struct Gathered {
    chunks: Vec<Bytes>,
    ended: bool,
}

/// A file that was written and is durable, but has no name.
#[derive(Debug)]
pub(super) struct Written {
    draft: Draft,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    held: Held,
    /// `None` once it was taken, to be kept or not with what the bytes become.
    share: Option<Share>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Incoming {
    pub(super) fn begin(
        draft: Draft,
        room: Arc<Room>,
        share: Share,
        bytes_max: u64,
    ) -> Result<Self> {
        let file = draft.create()?;
        let held = Held::nothing(room);
        Ok(Self { draft, file, hash: Sha256::new(), bytes: 0, held, share, bytes_max })
    }

    /// Writes a whole body.
    pub(super) async fn take<S, E>(mut self, body: S) -> Result<Written>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: fmt::Display,
    {
        let mut body = pin!(body);
        loop {
            let Gathered { chunks, ended } = self.gather(body.as_mut()).await?;
            if ended {
                return blocking(move || self.write(&chunks)?.finish()).await;
            }
            self = blocking(move || self.write(&chunks)).await?;
        }
    }

    /// What is to be written next.
    async fn gather<S, E>(&mut self, mut body: Pin<&mut S>) -> Result<Gathered>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: fmt::Display,
    {
        let mut chunks = Vec::new();
        let mut held_bytes = 0;
        let mut flush_at = None;
        while held_bytes < FLUSH_BYTES {
            let next = match flush_at {
                None => body.next().await,
                Some(at) => match timeout_at(at, body.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(chunk) = next else { return Ok(Gathered { chunks, ended: true }) };
            let chunk = chunk.map_err(|error| Error::Body { reason: error.to_string() })?;
            self.count(chunk.len() as u64)?;
            held_bytes += chunk.len() + PIECE_BYTES;
            chunks.push(chunk);
            flush_at.get_or_insert_with(|| Instant::now() + FLUSH_AFTER);
        }
        Ok(Gathered { chunks, ended: false })
    }

    fn count(&mut self, bytes: u64) -> Result<()> {
        let all = self.bytes + bytes;
        if all > self.bytes_max {
            return Err(Error::TooLarge { limit: self.bytes_max });
        }
        self.bytes = all;
        Ok(())
    }

    fn write(mut self, chunks: &[Bytes]) -> Result<Self> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.held.grow(bytes)?;
        self.share.grow(bytes)?;
        for chunk in chunks {
            self.append(chunk)?;
        }
        Ok(self)
    }

    fn append(&mut self, chunk: &[u8]) -> Result<()> {
        self.hash.update(chunk);
        let path = self.draft.path();
        self.file.write_all(chunk).map_err(|source| Error::io("write", path, source))
    }

    /// Adds bytes of a part, which goes when the whole is there.
    pub(super) fn append_part(&mut self, chunk: &[u8]) -> Result<()> {
        self.count(chunk.len() as u64)?;
        self.held.force(chunk.len() as u64);
        self.share.force(chunk.len() as u64);
        self.append(chunk)
    }

    /// After this the bytes are on the disk, whatever happens.
    pub(super) fn finish(self) -> Result<Written> {
        let Self { draft, file, hash, bytes, held, share, .. } = self;
        file.sync_all().map_err(|source| Error::io("write", draft.path(), source))?;
        let (digest, share) = (Digest(hash.finalize().into()), Some(share));
        Ok(Written { draft, digest, bytes, held, share })
    }
}

impl Written {
    /// What its owner has of it. It is counted for as long as this is held, or kept.
    pub(super) fn take_share(&mut self) -> Share {
        self.share.take().expect("it is taken once, by what gives the bytes their place")
    }

    /// Its bytes stay counted.
    pub(super) fn place_at(self, place: &Path) -> Result<()> {
        self.draft.rename_to(place)?;
        self.held.keep();
        Ok(())
    }
}
