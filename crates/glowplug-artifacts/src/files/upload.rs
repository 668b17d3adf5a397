//! Uploads in numbered parts, which come in any order, several at once, and again if need be.
//!
//! ```text
//! begin ──► open ──parts──► open ──complete──► a file
//!             └── abort, or idle for too long ──► nothing
//! ```
//!
//! Each part is a file named after its number, its SHA-256 and its length, and durable before it is answered.
//! Completing writes the parts one after the other into a body and keeps that like any other; until it has its
//! name the parts stay, so a crash costs nothing but another `complete`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::Stream;
use glowplug_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::incoming::{Written, blocking};
use super::record::micros;
use super::{
    Digest, Error, FileId, FileStore, NewFile, PARTS_MAX, Record, Result, UploadId, folder,
};

/// Bytes copied at once when parts are put together.
const COPY_BYTES: usize = 1 << 20;
pub(super) const MANIFEST: &str = "upload.json";

/// An upload that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The name the file will have.
    pub file: FileId,
    pub upload: UploadId,
}

/// A part that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub etag: Digest,
    pub bytes: u64,
}

/// A part as its uploader names it, to have the file made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOrder {
    pub number: u32,
    pub etag: Digest,
}

/// What the disk knows of an upload besides its parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) file: FileId,
    pub(super) about: NewFile,
    #[serde(with = "micros")]
    pub(super) begun_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Upload {
    pub(super) id: UploadId,
    pub(super) manifest: Manifest,
    /// Held while the file is made, so that nobody makes it twice.
    completing: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    parts: BTreeMap<u32, Part>,
    touched_at: Timestamp,
    /// Nothing is added to it any more.
    over: bool,
}

impl Upload {
    pub(super) fn new(
        id: UploadId,
        manifest: Manifest,
        parts: BTreeMap<u32, Part>,
        now: Timestamp,
    ) -> Arc<Self> {
        let state = Mutex::new(State { parts, touched_at: now, over: false });
        Arc::new(Self { id, manifest, completing: Arc::default(), state })
    }

    pub(super) fn owner(&self) -> &str {
        &self.manifest.about.owner
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state().parts.values().map(|part| part.bytes).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a part's file is named, so that it is known after a restart without being read.
pub(super) fn part_file(number: u32, part: Part) -> String {
    format!("{number}.{}.{}", part.etag, part.bytes)
}

pub(super) fn parse_part_file(name: &str) -> Option<(u32, Part)> {
    let mut fields = name.split('.');
    let number = fields.next()?.parse().ok()?;
    let part = Part { etag: fields.next()?.parse().ok()?, bytes: fields.next()?.parse().ok()? };
    (fields.next().is_none() && part_file(number, part) == name).then_some((number, part))
}

impl FileStore {
    pub async fn begin_upload(self: &Arc<Self>, about: NewFile, now: Timestamp) -> Result<Begun> {
        let (file, upload) = (FileId::random(), UploadId::random());
        let manifest = Manifest { file, about, begun_at: now };
        let store = self.clone();
        blocking(move || {
            let limit = store.options.uploads_max;
            if store.uploads().len() >= limit {
                let reason = format!("there may be at most {limit} unfinished uploads");
                return Err(Error::Full { reason });
            }
            let owner = &manifest.about.owner;
            let limit = store.options.owner_uploads_max;
            if store.uploads().values().filter(|upload| upload.owner() == owner).count() >= limit {
                return Err(Error::Quota { limit: limit as u64, of: "unfinished uploads" });
            }
            store.room.look(0)?;
            let draft = store.folder.draft();
            folder::make_dir(draft.path())?;
            let json = serde_json::to_vec(&manifest).expect("it has only text and numbers");
            let inside = store.folder.draft();
            inside.write(&json)?;
            inside.place_at(&draft.path().join(MANIFEST))?;
            draft.place_at(&store.folder.upload(upload))?;
            store.reached("files.upload.begun");
            let begun = Upload::new(upload, manifest, BTreeMap::new(), now);
            store.uploads().insert(upload, begun);
            Ok(Begun { file, upload })
        })
        .await
    }

    /// What an unfinished upload will be, and whose.
    pub fn upload(&self, id: UploadId) -> Option<(FileId, NewFile)> {
        let uploads = self.uploads();
        let manifest = &uploads.get(&id)?.manifest;
        Some((manifest.file, manifest.about.clone()))
    }

    /// Takes a part in. Put again, it replaces what it was.
    pub async fn put_part<S, E>(
        self: &Arc<Self>,
        upload: UploadId,
        number: u32,
        length: Option<u64>,
        now: Timestamp,
        body: S,
    ) -> Result<Part>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(Error::PartNumber { number });
        }
        let upload = self.open_upload(upload)?;
        upload.state().touched_at = now;
        self.look(upload.owner(), length)?;
        let written = self.incoming(upload.owner())?.take(body).await?;
        let store = self.clone();
        blocking(move || {
            store.reached("files.part.written");
            store.keep_part(&upload, number, written, now)
        })
        .await
    }

    fn keep_part(
        &self,
        upload: &Upload,
        number: u32,
        mut written: Written,
        now: Timestamp,
    ) -> Result<Part> {
        let share = written.take_share();
        let part = Part { etag: written.digest, bytes: written.bytes };
        let folder = self.folder.upload(upload.id);
        let place = folder.join(part_file(number, part));
        let mut state = upload.state();
        if state.over {
            return Err(Error::NoUpload { id: upload.id });
        }
        let others: u64 =
            state.parts.iter().filter(|(at, _)| **at != number).map(|(_, part)| part.bytes).sum();
        self.check_size(others.saturating_add(part.bytes))?;
        written.place_at(&place)?;
        self.reached("files.part.placed");
        state.touched_at = now;
        share.keep();
        if let Some(earlier) = state.parts.insert(number, part) {
            self.room.free(earlier.bytes);
            self.shares.free(upload.owner(), earlier.bytes, 0);
            if earlier != part {
                folder::remove_file(&folder.join(part_file(number, earlier)))?;
            }
        }
        drop(state);
        folder::sync_parent(&place)?;
        Ok(part)
    }

    /// Makes the file of these parts. Asked again after it was made, it says so again.
    pub async fn complete_upload(
        self: &Arc<Self>,
        file: FileId,
        upload: UploadId,
        parts: Vec<PartOrder>,
        now: Timestamp,
    ) -> Result<Arc<Record>> {
        let made = |id| self.find(id, now).filter(|record| record.upload == Some(upload));
        let open = match self.open_upload(upload) {
            Ok(open) if open.manifest.file == file => open,
            _ => return made(file).ok_or(Error::NoUpload { id: upload }),
        };
        let turn = open.completing.clone().lock_owned().await;
        if let Some(record) = made(file) {
            return Ok(record);
        }
        let store = self.clone();
        blocking(move || {
            let record = store.assemble(&open, parts, now);
            drop(turn);
            record
        })
        .await
    }

    fn assemble(
        &self,
        upload: &Upload,
        parts: Vec<PartOrder>,
        now: Timestamp,
    ) -> Result<Arc<Record>> {
        let parts = self.ordered(upload, parts)?;
        let bytes = parts.iter().map(|(_, part)| part.bytes).sum();
        self.check_size(bytes)?;
        self.room.look_at_disk(bytes)?;
        let mut whole = self.incoming(upload.owner())?;
        let mut buffer = vec![0; COPY_BYTES];
        for (path, part) in parts {
            let read = |source| Error::io("read", &path, source);
            let mut file = File::open(&path).map_err(read)?;
            let mut left = part.bytes;
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
                file.read_exact(&mut buffer[..wanted]).map_err(read)?;
                whole.append_part(&buffer[..wanted])?;
                left -= wanted as u64;
            }
        }
        let written = whole.finish()?;
        let retention = self.options.retention;
        let about = upload.manifest.about.clone();
        let mut record = about.record(upload.manifest.file, &written, now, retention);
        record.upload = Some(upload.id);
        let record = self.keep(written, record)?;
        self.reached("files.upload.complete");
        self.end_upload(upload.id)?;
        Ok(record)
    }

    /// The files of the parts, in the order of their numbers.
    fn ordered(&self, upload: &Upload, mut parts: Vec<PartOrder>) -> Result<Vec<(PathBuf, Part)>> {
        let wrong = |problem: String| Error::Parts { problem };
        if parts.is_empty() {
            return Err(wrong("is empty; name every part with its etag".to_owned()));
        }
        // Clients list parts as their uploads ended.
        parts.sort_by_key(|part| part.number);
        if let Some(twice) = parts.windows(2).find(|pair| pair[0].number == pair[1].number) {
            return Err(wrong(format!("names part {} twice", twice[0].number)));
        }
        let folder = self.folder.upload(upload.id);
        let state = upload.state();
        let path = |order: &PartOrder| {
            let number = order.number;
            let part = *state.parts.get(&number).ok_or_else(|| {
                wrong(format!("names part {number}, which was not uploaded; upload it first"))
            })?;
            if part.etag != order.etag {
                let problem =
                    format!("names part {number} by another etag than it has; upload it again");
                return Err(wrong(problem));
            }
            Ok((folder.join(part_file(number, part)), part))
        };
        parts.iter().map(path).collect()
    }

    /// Drops an unfinished upload. Says whether there was one.
    pub async fn abort_upload(self: &Arc<Self>, id: UploadId) -> Result<bool> {
        let Ok(upload) = self.open_upload(id) else { return Ok(false) };
        let turn = upload.completing.clone().lock_owned().await;
        let store = self.clone();
        blocking(move || {
            let ended = store.end_upload(id);
            drop(turn);
            ended
        })
        .await
    }

    fn end_upload(&self, id: UploadId) -> Result<bool> {
        let Some(upload) = self.uploads().remove(&id) else { return Ok(false) };
        let bytes = {
            let mut state = upload.state();
            state.over = true;
            state.parts.values().map(|part| part.bytes).sum()
        };
        let trash = self.folder.draft();
        trash.take(&self.folder.upload(id))?;
        drop(trash);
        self.room.free(bytes);
        self.shares.free(upload.owner(), bytes, 0);
        Ok(true)
    }

    pub(super) fn idle_uploads(&self, now: Timestamp) -> Vec<UploadId> {
        let idle_max = self.options.upload_idle_max;
        let uploads = self.uploads();
        let idle = uploads.values().filter(|upload| upload.state().touched_at + idle_max <= now);
        idle.map(|upload| upload.id).collect()
    }

    fn open_upload(&self, id: UploadId) -> Result<Arc<Upload>> {
        self.uploads().get(&id).cloned().ok_or(Error::NoUpload { id })
    }
}
