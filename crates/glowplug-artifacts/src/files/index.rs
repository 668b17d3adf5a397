//! What the disk holds, in memory: names, how many of them each content has, and when they are over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use glowplug_core::Timestamp;

use super::{Digest, Error, FileId, Record, Result, UploadId};

#[derive(Debug, Default)]
pub(super) struct Index {
    names: HashMap<FileId, Arc<Record>>,
    /// Names that are being written.
    claimed: HashSet<FileId>,
    contents: HashMap<Digest, Kept>,
    expiries: BTreeSet<(Timestamp, FileId)>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    names: usize,
    bytes: u64,
}

/// Whether a name can be written.
#[derive(Debug)]
pub(super) enum Claim {
    New,
    /// The same bytes have that name already.
    Again(Arc<Record>),
}

impl Index {
    pub(super) fn find(&self, id: FileId) -> Option<Arc<Record>> {
        self.names.get(&id).cloned()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.names.values().map(|record| &**record)
    }

    /// Files, and contents.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.names.len(), self.contents.len())
    }

    /// Until [`Index::settle`], nobody else writes this name.
    pub(super) fn claim(&mut self, record: &Record, files_max: usize) -> Result<Claim> {
        let id = record.id;
        if let Some(known) = self.names.get(&id) {
            let same = known.content == record.content;
            return if same { Ok(Claim::Again(known.clone())) } else { Err(Error::Exists { id }) };
        }
        if self.names.len() + self.claimed.len() >= files_max {
            return Err(Error::Full { reason: format!("there may be at most {files_max} files") });
        }
        if self.claimed.insert(id) { Ok(Claim::New) } else { Err(Error::Busy { id }) }
    }

    pub(super) fn settle(&mut self, record: &Arc<Record>, written: bool) {
        self.claimed.remove(&record.id);
        if written {
            self.insert(record.clone());
        }
    }

    pub(super) fn insert(&mut self, record: Arc<Record>) {
        if let Some(at) = record.expires_at {
            self.expiries.insert((at, record.id));
        }
        self.names.insert(record.id, record);
    }

    /// Takes the name away; its content is still counted.
    pub(super) fn remove(&mut self, id: FileId) -> Option<Arc<Record>> {
        let record = self.names.remove(&id)?;
        if let Some(at) = record.expires_at {
            self.expiries.remove(&(at, id));
        }
        Some(record)
    }

    pub(super) fn is_new(&self, content: Digest) -> bool {
        !self.contents.contains_key(&content)
    }

    /// Bytes of all contents.
    pub(super) fn bytes(&self) -> u64 {
        self.contents.values().map(|kept| kept.bytes).sum()
    }

    /// Uploads in parts that became files.
    pub(super) fn uploads(&self) -> impl Iterator<Item = UploadId> {
        self.names.values().filter_map(|record| record.upload)
    }

    /// One name more for a content. Says whether it is there already.
    pub(super) fn refer(&mut self, content: Digest, bytes: u64) -> bool {
        let kept = self.contents.entry(content).or_insert(Kept { names: 0, bytes });
        kept.names += 1;
        kept.names > 1
    }

    /// One name less. Its bytes, if it was the last.
    pub(super) fn unrefer(&mut self, content: Digest) -> Option<u64> {
        let kept = self.contents.get_mut(&content)?;
        kept.names -= 1;
        let Kept { names, bytes } = *kept;
        if names > 0 {
            return None;
        }
        self.contents.remove(&content);
        Some(bytes)
    }

    /// Names whose time is over, the longest first.
    pub(super) fn expired(&self, now: Timestamp, limit: usize) -> Vec<FileId> {
        let due = self.expiries.iter().take_while(|(at, _)| *at <= now);
        due.take(limit).map(|(_, id)| *id).collect()
    }
}
