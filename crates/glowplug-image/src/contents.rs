//! Contents of large files, each once, by its hash.
//!
//! ```text
//! written without a name ──hashed──► pinned ──linked──► ab/cdef…   (if it is there already, what was written goes)
//! ```
//!
//! A content has a name only when it is whole. It is not synced on its own: see the store for what
//! holds after a power cut. A *pin* says that a layer which is not complete yet relies on a content: what is
//! pinned is not collected.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::ContentId;
use crate::pins::{Collection, PinTable};

/// In the folder of a store.
pub(crate) const FOLDER: &str = "contents";
/// Read and hashed at once.
const COPY_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
pub struct Contents {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// What unfinished layers rely on.
    pins: PinTable<ContentId>,
}

/// The pins of one unfinished layer, given back when it is dropped.
#[derive(Debug)]
pub struct Pins {
    contents: Contents,
    held: Vec<ContentId>,
    /// Kept from one content to the next: fresh memory costs more than the copy into it.
    buffer: Vec<u8>,
}

/// A content that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: ContentId,
    pub bytes: u64,
    /// It was there already.
    pub is_known: bool,
}

impl Contents {
    /// `folder` is made if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for shard in 0..=u8::MAX {
            let shard = folder.join(format!("{shard:02x}"));
            match fs::create_dir(&shard) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let inner = Inner { folder: folder.to_owned(), pins: PinTable::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    pub fn path(&self, id: &ContentId) -> PathBuf {
        self.inner.folder.join(id.relative_path())
    }

    pub fn pins(&self) -> Pins {
        Pins { contents: self.clone(), held: Vec::new(), buffer: vec![0; COPY_BYTES] }
    }

    /// Every content with its size in bytes, in no order.
    pub fn list(&self) -> io::Result<Vec<(ContentId, u64)>> {
        let mut found = Vec::new();
        for shard in fs::read_dir(self.folder())? {
            let shard = shard?;
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name =
                    [shard.file_name(), entry.file_name()].map(std::ffi::OsString::into_string);
                // What is not ours stays where it is.
                let [Ok(shard), Ok(rest)] = name else { continue };
                if let Ok(id) = format!("{shard}{rest}").parse() {
                    found.push((id, entry.metadata()?.len()));
                }
            }
        }
        Ok(found)
    }

    /// Removes a content that no layer has, unless an unfinished one relies on it. The bytes that went.
    pub fn remove_unpinned(&self, id: &ContentId) -> io::Result<u64> {
        let path = self.path(id);
        let remove = || {
            let bytes = fs::metadata(&path)?.len();
            fs::remove_file(&path)?;
            Ok(bytes)
        };
        self.inner.pins.unless_pinned(id, remove).unwrap_or(Ok(0))
    }

    /// From here on nothing goes that was pinned at any moment since.
    pub(crate) fn collect(&self) -> Collection<'_, ContentId> {
        self.inner.pins.collect()
    }

    /// Reads a content and says whether it is what its name says.
    pub fn is_intact(&self, id: &ContentId) -> io::Result<bool> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(self.path(id))?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(ContentId::from(hasher.finalize()) == *id),
                bytes => hasher.update(&buffer[..bytes]),
            };
        }
    }

    /// A file without a name, on the file system of the contents.
    fn nameless(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::RGRP | Mode::ROTH;
        Ok(File::from(rustix::fs::openat(CWD, self.folder(), flags, mode)?))
    }
}

impl Pins {
    /// Writes what `content` gives and pins it.
    pub fn store(&mut self, mut content: impl Read) -> io::Result<Stored> {
        let mut file = self.contents.nameless()?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        loop {
            let read = content.read(&mut self.buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&self.buffer[..read]);
            file.write_all(&self.buffer[..read])?;
            bytes += read as u64;
        }
        let id = ContentId::from(hasher.finalize());
        let is_known = self.name(&OwnedFd::from(file), id)?;
        Ok(Stored { id, bytes, is_known })
    }

    /// Gives a complete file its name. `true`: another has it already.
    fn name(&mut self, file: &OwnedFd, id: ContentId) -> io::Result<bool> {
        // First pinned, then looked up, so that it cannot be collected in between.
        self.contents.inner.pins.pin(&id);
        self.held.push(id);
        match rustix::fs::linkat(file, "", CWD, self.contents.path(&id), AtFlags::EMPTY_PATH) {
            Ok(()) => Ok(false),
            Err(Errno::EXIST) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for id in &self.held {
            self.contents.inner.pins.unpin(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        let mut pins = contents.pins();
        let first = pins.store(&b"same"[..]).unwrap();
        assert_eq!((first.bytes, first.is_known), (4, false));
        let second = pins.store(&b"same"[..]).unwrap();
        assert!(second.is_known);
        assert_eq!(contents.list().unwrap(), [(first.id, 4)]);
        assert_eq!(fs::read(contents.path(&first.id)).unwrap(), b"same");
        assert!(contents.is_intact(&first.id).unwrap());
    }

    #[test]
    fn what_an_unfinished_layer_relies_on_stays() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        let (mut one, mut other) = (contents.pins(), contents.pins());
        let stored = one.store(&b"content"[..]).unwrap();
        other.store(&b"content"[..]).unwrap();
        drop(one);
        assert_eq!(contents.remove_unpinned(&stored.id).unwrap(), 0);
        assert!(contents.path(&stored.id).exists());
        drop(other);
        assert_eq!(contents.remove_unpinned(&stored.id).unwrap(), 7);
        assert!(!contents.path(&stored.id).exists());
    }

    #[test]
    fn a_damaged_content_is_known_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        let stored = contents.pins().store(&b"content"[..]).unwrap();
        let path = contents.path(&stored.id);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"Content").unwrap();
        assert!(!contents.is_intact(&stored.id).unwrap());
    }

    /// A source that breaks half-way.
    struct Broken(u8);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("broken"))?;
            buffer[0] = 1;
            Ok(1)
        }
    }

    #[test]
    fn half_a_content_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        assert!(contents.pins().store(Broken(3)).is_err());
        assert_eq!(contents.list().unwrap(), []);
    }
}
