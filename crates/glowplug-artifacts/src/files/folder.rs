//! Where things are on disk, and how they get there for good.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Digest, Error, FileId, Result, UploadId};

/// Folders that the first two digits of a name choose from: no folder gets too long to be searched.
const SHARDS: u32 = 256;

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    drafts: AtomicU64,
}

impl Folder {
    /// Makes what is missing of it.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let folder = Self { root: root.to_owned(), drafts: AtomicU64::new(0) };
        make_dir(root)?;
        for name in ["tmp", "uploads", "content", "names"] {
            make_dir(&root.join(name))?;
        }
        for (parent, shard) in ["content", "names"]
            .iter()
            .flat_map(|parent| (0..SHARDS).map(move |shard| (parent, shard)))
        {
            make_dir(&root.join(parent).join(format!("{shard:02x}")))?;
        }
        for name in ["content", "names", ""] {
            sync_dir(&root.join(name))?;
        }
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn contents(&self) -> PathBuf {
        self.root.join("content")
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn content(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.contents().join(&name[..2]).join(name)
    }

    pub(super) fn name(&self, id: FileId) -> PathBuf {
        let name = id.to_string();
        self.names().join(&name[..2]).join(format!("{name}.json"))
    }

    pub(super) fn upload(&self, id: UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    /// A place that nothing refers to.
    pub(super) fn draft(&self) -> Draft {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        Draft { path: self.temporary().join(number.to_string()), placed: false }
    }
}

/// A file or folder that is removed unless it is put in place.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    placed: bool,
}

impl Draft {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn create(&self) -> Result<File> {
        File::create_new(&self.path).map_err(|source| Error::io("create", &self.path, source))
    }

    /// Writes a small file whole.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut file = self.create()?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|source| Error::io("write", &self.path, source))
    }

    /// Takes over something that was in its place.
    pub(super) fn take(&self, from: &Path) -> Result<()> {
        match fs::rename(from, &self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", from, source))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rename_to(mut self, place: &Path) -> Result<()> {
        fs::rename(&self.path, place).map_err(|source| Error::io("write", place, source))?;
        self.placed = true;
        Ok(())
    }

    pub(super) fn place_at(self, place: &Path) -> Result<()> {
        self.rename_to(place)?;
        sync_parent(place)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed && fs::remove_file(&self.path).is_err() {
            // Most often there is nothing. What cannot be removed now is when the store is opened.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))
}

/// A file that is gone already is as good as removed.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, source))
        }
        _ => Ok(()),
    }
}

pub(super) fn sync_parent(path: &Path) -> Result<()> {
    sync_dir(path.parent().unwrap_or(path))
}

fn sync_dir(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|source| Error::io("write", path, source))
}
