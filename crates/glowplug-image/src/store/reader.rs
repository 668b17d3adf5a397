//! A look into a store that belongs to another process, such as a node.
//!
//! Whatever has a name in a store is whole and never changes, so reading needs no lock. What is read here may be
//! removed at any moment; then it is missing, and nothing worse.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use super::durability::Durability;
use super::{Error, Image, Inner, Layer, Result, Store, failed, mounts, names};
use crate::ContentId;
use crate::contents::Contents;
use crate::digest::Digest;
use crate::layer::Content;
use crate::pins::PinTable;
use crate::touched::Touched;

/// Cheap to clone. Changes nothing.
#[derive(Clone, Debug)]
pub struct Reader {
    store: Store,
}

impl Store {
    /// For what only reads.
    pub fn reader(&self) -> Reader {
        Reader { store: self.clone() }
    }
}

impl Reader {
    /// Fails where there is no store.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = fs::canonicalize(folder).map_err(|source| failed("find", folder, source))?;
        let contents = folder.join("contents");
        let contents =
            Contents::open(&contents).map_err(|source| failed("open", &contents, source))?;
        let inner = Inner {
            contents,
            durability: Durability::new(&folder),
            layers: PinTable::default(),
            names: names::Names::open(&folder),
            collecting: Mutex::default(),
            touched: Mutex::default(),
            mounts: Mutex::new(mounts::Mounts::default()),
            writing_out: Mutex::default(),
            mounting: OnceLock::new(),
            _lock: None,
            folder,
        };
        Ok(Self { store: Store { inner: Arc::new(inner) } })
    }

    /// `None`: it is not here.
    pub fn image(&self, digest: &Digest) -> Result<Option<Image>> {
        self.store.image(digest)
    }

    /// As it was when the reader was opened.
    pub fn named(&self, name: &str) -> Option<Digest> {
        self.store.named(name).map(|named| named.digest)
    }

    pub fn layer(&self, digest: &Digest) -> Result<Layer> {
        self.store.layer(digest)
    }

    /// What any app touched; empty if no start was recorded.
    pub fn touched(&self, image: &Digest) -> Result<Touched> {
        self.store.touched(image)
    }

    /// A file's bytes, all of them.
    pub fn read(&self, layer: &Layer, content: &Content) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read =
            self.content(layer, content).and_then(|mut content| content.read_to_end(&mut bytes));
        read.map_err(|source| failed("read a file of", &self.store.inner.folder, source))?;
        if bytes.len() as u64 != content.bytes() {
            let short = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(failed("read a file of", &self.store.inner.folder, short));
        }
        Ok(bytes)
    }

    /// Reads the pack of a layer and compares it with its sum: small files are not compared when they are read.
    pub fn check_pack(&self, digest: &Digest, layer: &Layer) -> Result<()> {
        if self.store.is_pack_intact(digest, layer) {
            return Ok(());
        }
        Err(Error::LayerDamaged { layer: digest.clone() })
    }

    /// A file's bytes, one after the other. Those of a large file are compared with its name: the last of them are
    /// not given where it is damaged.
    pub fn content<'l>(
        &self,
        layer: &'l Layer,
        content: &Content,
    ) -> io::Result<Box<dyn Read + 'l>> {
        Ok(match content {
            Content::Empty => Box::new(io::empty()),
            Content::Packed(slice) => Box::new(io::Cursor::new(layer.packed(slice)?)),
            Content::Shared { id, bytes } => {
                let file = File::open(self.store.contents().path(id))?;
                Box::new(Compared { file, hasher: blake3::Hasher::new(), left: *bytes, id: *id })
            }
            // No layer's index has one.
            Content::Late { .. } => return Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    /// The error of an image that is not here.
    pub fn missing(digest: &Digest) -> Error {
        Error::ImageMissing { image: digest.clone() }
    }
}

/// Why a content cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("content {id} is damaged: `glowplug image fsck` finds out what else is")]
struct ContentDamaged {
    id: ContentId,
}

/// Whether a read failed because what is in the store is not what it should be.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.and_then(|inner| inner.downcast_ref::<ContentDamaged>()).is_some()
}

/// A content that is compared with its name while it is read.
struct Compared {
    file: File,
    hasher: blake3::Hasher,
    /// Bytes that are still to come.
    left: u64,
    id: ContentId,
}

impl Read for Compared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..wanted])?;
        self.hasher.update(&buffer[..read]);
        self.left -= read as u64;
        let is_short = read == 0;
        let is_other = self.left == 0 && ContentId::from(self.hasher.finalize()) != self.id;
        if is_short || is_other {
            let damaged = ContentDamaged { id: self.id };
            return Err(io::Error::new(io::ErrorKind::InvalidData, damaged));
        }
        Ok(read)
    }
}
