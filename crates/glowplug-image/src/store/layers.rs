//! Layers on disk: an index of what the archive holds, and a pack of its small files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Error, Result, Store, failed};
use crate::contents::Pins;
use crate::digest::Digest;
use crate::erofs;
use crate::layer::Entry;
use crate::layer::unpack::Unpacked;

const INDEX_FILE: &str = "index";
const PACK_FILE: &str = "pack";
/// Changes with the form of the index; layers of another form are unpacked anew.
const INDEX_MAGIC: &[u8] = b"glowplug layer 1";
const HASH_BYTES: usize = 32;
const PACK_BUFFER_BYTES: usize = 256 << 10;

/// A layer that is complete.
#[derive(Debug)]
pub struct Layer {
    /// In the order of the archive.
    pub entries: Vec<Entry>,
    pack: File,
}

/// A layer that is being unpacked. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct NewLayer {
    folder: TempDir,
    place: PathBuf,
    pub pins: Pins,
    pub pack: BufWriter<File>,
}

/// The packs of an image's layers, lowest first.
pub(super) struct Packs<'a>(pub(super) &'a [Layer]);

impl erofs::Packs for Packs<'_> {
    fn read(&self, layer: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0[layer as usize].pack.read_exact_at(into, offset)
    }
}

impl Store {
    pub fn has_layer(&self, digest: &Digest) -> bool {
        self.layer_folder(digest).exists()
    }

    pub fn layer(&self, digest: &Digest) -> Result<Layer> {
        let folder = self.layer_folder(digest);
        let path = folder.join(INDEX_FILE);
        let index = match fs::read(&path) {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::LayerMissing { layer: digest.clone() });
            }
            Err(error) => return Err(failed("read", &path, error)),
        };
        let damaged = || Error::LayerDamaged { layer: digest.clone() };
        let entries = decode(&index).ok_or_else(damaged)?;
        let path = folder.join(PACK_FILE);
        let pack = File::open(&path).map_err(|source| failed("open", &path, source))?;
        Ok(Layer { entries, pack })
    }

    /// Begins to write a layer.
    pub fn new_layer(&self, digest: &Digest) -> Result<NewLayer> {
        self.inner.durability.begin()?;
        let made = || {
            let folder = tempfile::tempdir_in(self.unfinished())?;
            let pack = File::create_new(folder.path().join(PACK_FILE))?;
            Ok((folder, BufWriter::with_capacity(PACK_BUFFER_BYTES, pack)))
        };
        let (folder, pack) =
            made().map_err(|source| failed("make a layer in", &self.unfinished(), source))?;
        let place = self.layer_folder(digest);
        Ok(NewLayer { folder, place, pins: self.contents().pins(), pack })
    }

    fn layer_folder(&self, digest: &Digest) -> PathBuf {
        self.inner.folder.join("layers").join(digest.hex())
    }
}

impl NewLayer {
    /// Gives the layer its name; what was unpacked is complete and of the right digest. A layer that is
    /// there already stays as it is.
    pub fn finish(mut self, unpacked: &Unpacked) -> Result<()> {
        let path = self.folder.path().join(INDEX_FILE);
        let written = self.pack.flush().and_then(|()| fs::write(&path, encode(&unpacked.entries)));
        written.map_err(|source| failed("write", &path, source))?;
        rename_into_place(self.folder, &self.place)
    }
}

/// Whoever is second finds the place taken by the same thing, and its own goes.
pub(super) fn rename_into_place(made: TempDir, place: &Path) -> Result<()> {
    // The folder was made for this process alone.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(made.path(), open).map_err(|source| failed("open", made.path(), source))?;
    match fs::rename(made.path(), place) {
        Ok(()) => {
            // It is not there any more under its old name.
            let _ = made.keep();
            Ok(())
        }
        Err(_) if place.exists() => Ok(()),
        Err(error) => Err(failed("make", place, error)),
    }
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let body = postcard::to_allocvec(entries).expect("plain data has a form");
    let mut index = INDEX_MAGIC.to_vec();
    index.extend(blake3::hash(&body).as_bytes());
    index.extend(body);
    index
}

/// `None` unless it is whole.
fn decode(index: &[u8]) -> Option<Vec<Entry>> {
    let (hash, body) = index.strip_prefix(INDEX_MAGIC)?.split_at_checked(HASH_BYTES)?;
    (blake3::hash(body).as_bytes() == hash).then_some(())?;
    postcard::from_bytes(body).ok()
}
