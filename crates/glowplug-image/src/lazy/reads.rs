//! Which chunks were read, in order: a file of their numbers that the filler appends to.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use glowplug_core::Timestamp;

use super::READS_FILE;
use super::plan::{ChunkId, Plan};
use crate::store::is_living;
use crate::touched::{Touched, TouchedFile};

const ID_BYTES: usize = size_of::<ChunkId>();

pub(super) struct Recorder {
    file: File,
    seen: Vec<AtomicBool>,
}

impl Recorder {
    pub(super) fn new(folder: &Path, chunks: usize) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(folder.join(READS_FILE))?;
        Ok(Self { file, seen: (0..chunks).map(|_| AtomicBool::new(false)).collect() })
    }

    /// A reader does not wait for this: what cannot be written is not recorded.
    pub(super) fn note(&self, id: ChunkId) {
        if !self.seen[id as usize].swap(true, Ordering::Relaxed) {
            let _ = (&self.file).write_all(&id.to_le_bytes());
        }
    }
}

/// A late image that runners use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    folder: PathBuf,
}

impl Late {
    /// `folder`: what [`folder`](Self::folder) said of it, perhaps to another process.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether its filler lives. Without one, reads of what the kernel does not have fail.
    pub fn is_served(&self) -> bool {
        is_living(&self.folder)
    }

    /// The files that the filler was asked for so far, and which parts of them, beside what is in the tree. By
    /// whichever runner. Blocks.
    pub fn reads(&self, now: Timestamp) -> io::Result<Touched> {
        let plan = Plan::read(&self.folder)?;
        let bytes = match fs::read(self.folder.join(READS_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes?,
        };
        Ok(Touched::new(now, files(&plan, &bytes)))
    }
}

fn files(plan: &Plan, bytes: &[u8]) -> Vec<TouchedFile> {
    let mut files: Vec<TouchedFile> = Vec::new();
    let mut places: HashMap<u32, usize> = HashMap::new();
    for id in bytes.chunks_exact(ID_BYTES) {
        let id = ChunkId::from_le_bytes(id.try_into().expect("it is cut to this length"));
        let Some(chunk) = plan.chunks.stored.get(id as usize) else { continue };
        let place = *places.entry(chunk.file).or_insert_with(|| {
            let path = plan.chunks.files[chunk.file as usize].path.clone();
            files.push(TouchedFile { path, ranges: Vec::new() });
            files.len() - 1
        });
        files[place].ranges.push(chunk.offset..chunk.offset + chunk.bytes);
    }
    files
}
