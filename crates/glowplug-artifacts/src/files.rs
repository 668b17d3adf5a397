//! Files that callers upload and that apps make: kept below one folder, found by names nobody can guess.
//!
//! ```text
//! body ──► tmp/… ──fsync──► content/ab/ab12…  (once for equal bytes)
//!                               ▲  ▲
//!          names/7f/7f03….json ─┘  └─ names/c4/c4aa….json   (fsync, then rename)
//! parts ──► uploads/{id}/{number}.{etag}.{bytes} ──complete──► as a body
//! ```
//!
//! A name is written after the content it means and removed before it, so whatever instant a crash chooses,
//! a name that exists can be read. What the crash left without a name is removed when the store is opened
//! again. A body is never whole in memory.
//!
//! Content is addressed by SHA-256, because HTTP knows it: the address is the `ETag` of a file and its
//! `Repr-Digest` (RFC 9530), so everybody can check what was downloaded with tools that every machine has.
//! A faster hash would not make uploads faster than the disk.
//!
//! Limits: [`Options`]. The store has no clock and no timer: its owner says what time it is and calls
//! [`FileStore::sweep`].

mod content;
mod error;
mod folder;
mod id;
mod incoming;
mod index;
mod open;
mod record;
mod room;
mod share;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use glowplug_core::Timestamp;

pub use content::Content;
pub use error::Error;
pub use id::{Digest, FileId, UploadId};
pub use record::{NewFile, Record};
pub use upload::{Begun, Part, PartOrder};

use folder::Folder;
use incoming::{Incoming, Written};
use index::Index;
use room::Room;
use share::Shares;
use upload::Upload;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Numbers of the parts of an upload go from 1 to this.
pub const PARTS_MAX: u32 = 10_000;
/// Names dropped before others get their turn at the store.
const SWEEP_BATCH_MAX: usize = 256;

#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of one file. Beyond it: [`Error::TooLarge`].
    pub file_bytes_max: u64,
    /// Bytes of all files and unfinished uploads. Beyond it: [`Error::Full`].
    pub total_bytes_max: u64,
    /// Files there may be. Each takes some hundred bytes of memory. Beyond it: [`Error::Full`].
    pub files_max: usize,
    /// Bytes and files of one owner. Equal content counts for everyone who keeps it, and parts of unfinished
    /// uploads count too. Beyond it: [`Error::Quota`].
    pub owner_bytes_max: u64,
    pub owner_files_max: usize,
    /// Bytes of the disk that are left free. With less: [`Error::Full`].
    pub disk_reserve_bytes: u64,
    /// How long a file is kept whose uploader did not say.
    pub retention: Duration,
    /// Unfinished uploads in parts. Beyond it: [`Error::Full`].
    pub uploads_max: usize,
    /// Of these, those of one owner. Beyond it: [`Error::Quota`].
    pub owner_uploads_max: usize,
    /// An unfinished upload to which nothing was added for this long is dropped.
    pub upload_idle_max: Duration,
    /// Called with a name at every point where a crash could lose or double something, so that tests can
    /// have one there: [`CRASH_POINTS`].
    pub crash_point: fn(&'static str),
}

/// What [`Options::crash_point`] is called with.
pub const CRASH_POINTS: [&str; 10] = [
    "files.body.written",
    "files.content.placed",
    "files.name.written",
    "files.name.placed",
    "files.name.removed",
    "files.content.removed",
    "files.part.written",
    "files.part.placed",
    "files.upload.begun",
    "files.upload.complete",
];

impl Default for Options {
    fn default() -> Self {
        Self {
            file_bytes_max: 16 << 30,
            total_bytes_max: 64 << 30,
            files_max: 1_000_000,
            owner_bytes_max: u64::MAX,
            owner_files_max: usize::MAX,
            disk_reserve_bytes: 1 << 30,
            retention: Duration::from_hours(30 * 24),
            uploads_max: 4_000,
            owner_uploads_max: 1_000,
            upload_idle_max: Duration::from_hours(24),
            crash_point: |_| {},
        }
    }
}

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: usize,
    /// Contents: fewer than files where files are equal.
    pub contents: usize,
    pub uploads: usize,
    /// Of contents, of parts, and of what is being written.
    pub bytes: u64,
}

/// What a sweep dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub files: usize,
    pub uploads: usize,
}

/// The files of one folder. Made by [`FileStore::open`].
#[derive(Debug)]
pub struct FileStore {
    folder: Folder,
    options: Options,
    room: Arc<Room>,
    shares: Arc<Shares>,
    index: Mutex<Index>,
    uploads: Mutex<HashMap<UploadId, Arc<Upload>>>,
}

impl FileStore {
    /// Keeps a body under a new name.
    pub async fn put<S, E>(
        self: &Arc<Self>,
        file: NewFile,
        now: Timestamp,
        body: S,
    ) -> Result<Arc<Record>>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        self.put_as(FileId::random(), file, now, body).await
    }

    /// Keeps a body under a name that was given out before. Once there, it may be put again with the same
    /// bytes, and not with others.
    pub async fn put_as<S, E>(
        self: &Arc<Self>,
        id: FileId,
        file: NewFile,
        now: Timestamp,
        body: S,
    ) -> Result<Arc<Record>>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        self.look(&file.owner, file.length)?;
        let written = self.incoming(&file.owner)?.take(body).await?;
        let store = self.clone();
        incoming::blocking(move || {
            store.reached("files.body.written");
            let record = file.record(id, &written, now, store.options.retention);
            store.keep(written, record)
        })
        .await
    }

    /// The file of that name, unless its time is over.
    pub fn find(&self, id: FileId, now: Timestamp) -> Option<Arc<Record>> {
        self.index().find(id).filter(|record| record.expires_at.is_none_or(|at| at > now))
    }

    /// The bytes of a file. They can be read to their end even if it is deleted meanwhile.
    pub async fn content(self: &Arc<Self>, record: &Record) -> Result<Content> {
        let (store, id, digest) = (self.clone(), record.id, record.content);
        let bytes = record.bytes;
        incoming::blocking(move || {
            let opened = Content::open(&store.folder.content(digest), bytes);
            // It may have been deleted since it was found.
            opened.map_err(|error| match store.index().find(id) {
                Some(_) => error,
                None => Error::NoFile { id },
            })
        })
        .await
    }

    /// Drops a name, and its content if it was the last. Says whether there was one. When it says so, not even
    /// a power cut brings the name back.
    pub async fn delete(self: &Arc<Self>, id: FileId) -> Result<bool> {
        let store = self.clone();
        incoming::blocking(move || {
            let dropped = store.drop_name(id)?;
            folder::sync_parent(&store.folder.name(id))?;
            Ok(dropped)
        })
        .await
    }

    /// Drops what is over: files past their time and uploads nobody goes on with.
    pub async fn sweep(self: &Arc<Self>, now: Timestamp) -> Result<Swept> {
        let mut swept = Swept::default();
        loop {
            let due = self.index().expired(now, SWEEP_BATCH_MAX);
            if due.is_empty() {
                break;
            }
            let store = self.clone();
            swept.files += incoming::blocking(move || {
                due.into_iter()
                    .try_fold(0, |dropped, id| Ok(dropped + usize::from(store.drop_name(id)?)))
            })
            .await?;
        }
        for upload in self.idle_uploads(now) {
            swept.uploads += usize::from(self.abort_upload(upload).await?);
        }
        Ok(swept)
    }

    pub fn usage(&self) -> Usage {
        let (files, contents) = self.index().counts();
        Usage { files, contents, uploads: self.uploads().len(), bytes: self.room.used() }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Gives written bytes their name. The bytes are durable before the name, the name before the answer.
    fn keep(&self, mut written: Written, record: Record) -> Result<Arc<Record>> {
        let record = Arc::new(record);
        match self.index().claim(&record, self.options.files_max)? {
            index::Claim::New => {}
            index::Claim::Again(known) => return Ok(known),
        }
        let mut share = written.take_share();
        let named = share
            .name()
            .and_then(|()| self.place(written, &record))
            .and_then(|()| self.write_name(&record));
        self.index().settle(&record, named.is_ok());
        named?;
        share.keep();
        Ok(record)
    }

    fn place(&self, written: Written, record: &Record) -> Result<()> {
        let place = self.folder.content(record.content);
        // Held across the rename: content is never removed and put in place at the same time.
        let mut index = self.index();
        if index.refer(record.content, record.bytes) {
            drop(index);
        } else {
            let placed = written.place_at(&place);
            if placed.is_err() {
                index.unrefer(record.content);
            }
            drop(index);
            placed?;
        }
        self.reached("files.content.placed");
        // Whoever put it there may not have come to this yet.
        let synced = folder::sync_parent(&place);
        if synced.is_err() {
            self.release(record.content)?;
        }
        synced
    }

    fn write_name(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record).expect("a record has only text and numbers");
        let (draft, place) = (self.folder.draft(), self.folder.name(record.id));
        let written = draft.write(&json).and_then(|()| {
            self.reached("files.name.written");
            draft.place_at(&place)
        });
        if let Err(error) = written {
            folder::remove_file(&place)?;
            self.release(record.content)?;
            return Err(error);
        }
        self.reached("files.name.placed");
        Ok(())
    }

    fn drop_name(&self, id: FileId) -> Result<bool> {
        let Some(record) = self.index().remove(id) else { return Ok(false) };
        self.shares.free(&record.owner, record.bytes, 1);
        folder::remove_file(&self.folder.name(id))?;
        self.reached("files.name.removed");
        self.release(record.content)?;
        Ok(true)
    }

    /// One name less for a content.
    fn release(&self, content: Digest) -> Result<()> {
        let trash = self.folder.draft();
        {
            let mut index = self.index();
            let Some(bytes) = index.unrefer(content) else { return Ok(()) };
            trash.take(&self.folder.content(content))?;
            self.room.free(bytes);
        }
        // Freeing the blocks of a large file takes a while, and nobody need wait for it at the index.
        drop(trash);
        self.reached("files.content.removed");
        Ok(())
    }

    fn incoming(&self, owner: &str) -> Result<Incoming> {
        let (room, share) = (self.room.clone(), self.shares.begin(owner));
        Incoming::begin(self.folder.draft(), room, share, self.options.file_bytes_max)
    }

    /// Refuses at once what would be refused on the way.
    fn look(&self, owner: &str, length: Option<u64>) -> Result<()> {
        let Some(bytes) = length else { return Ok(()) };
        self.check_size(bytes)?;
        self.shares.look(owner, bytes)?;
        self.room.look(bytes)
    }

    fn check_size(&self, bytes: u64) -> Result<()> {
        let limit = self.options.file_bytes_max;
        if bytes > limit { Err(Error::TooLarge { limit }) } else { Ok(()) }
    }

    fn reached(&self, point: &'static str) {
        (self.options.crash_point)(point);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uploads(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Upload>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
