//! Layers on disk: an index of what the archive holds, and a pack of its small files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::sealed::{seal, unseal};
use super::sum::{Sum, Summed};
use super::{Error, Result, Store, failed, names_in};
use crate::contents::Pins;
use crate::digest::Digest;
use crate::erofs;
use crate::layer::unpack::Unpacked;
use crate::layer::{Entry, Slice};

const FOLDER: &str = "layers";
const INDEX_FILE: &str = "index";
const PACK_FILE: &str = "pack";
/// Changes with the form of the index; layers of another form are unpacked anew.
const INDEX_MAGIC: &[u8] = b"glowplug layer 2";
const PACK_BUFFER_BYTES: usize = 256 << 10;

/// A layer that is complete.
#[derive(Debug)]
pub struct Layer {
    /// In the order of the archive.
    pub entries: Vec<Entry>,
    /// What the pack should be.
    pub(super) sum: Sum,
    pack: File,
}

/// Keeps layers of an image that is not complete yet from being collected, until it is dropped.
#[derive(Debug)]
pub struct LayerPins {
    store: Store,
    layers: Vec<Digest>,
}

impl Drop for LayerPins {
    fn drop(&mut self) {
        for layer in &self.layers {
            self.store.inner.layers.unpin(layer);
        }
    }
}

/// A layer that is being unpacked. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct NewLayer {
    folder: TempDir,
    place: PathBuf,
    pub pins: Pins,
    pub pack: BufWriter<Summed>,
}

/// The packs of an image's layers, lowest first.
pub(super) struct Packs<'a>(pub(super) &'a [Layer]);

impl erofs::Packs for Packs<'_> {
    fn read(&self, layer: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0[layer as usize].read_pack(offset, into)
    }
}

impl Store {
    /// To be called before [`has_layer`](Self::has_layer): what is there then stays there. Layers may be pinned
    /// before they exist.
    pub fn pin_layers<'d>(&self, layers: impl IntoIterator<Item = &'d Digest>) -> LayerPins {
        let layers: Vec<Digest> = layers.into_iter().cloned().collect();
        for layer in &layers {
            self.inner.layers.pin(layer);
        }
        LayerPins { store: self.clone(), layers }
    }

    pub fn has_layer(&self, digest: &Digest) -> bool {
        self.layer_folder(digest).exists()
    }

    pub fn layer(&self, digest: &Digest) -> Result<Layer> {
        Layer::open(&self.inner.folder, digest)
    }

    /// Begins to write a layer.
    pub fn new_layer(&self, digest: &Digest) -> Result<NewLayer> {
        self.inner.durability.begin()?;
        let made = || {
            let folder = tempfile::tempdir_in(self.unfinished())?;
            let pack = File::create_new(folder.path().join(PACK_FILE))?;
            Ok((folder, BufWriter::with_capacity(PACK_BUFFER_BYTES, Summed::new(pack))))
        };
        let (folder, pack) =
            made().map_err(|source| failed("make a layer in", &self.unfinished(), source))?;
        let place = self.layer_folder(digest);
        Ok(NewLayer { folder, place, pins: self.contents().pins(), pack })
    }

    /// The names of all layers, in no order.
    pub(super) fn layer_names(&self) -> Result<Vec<Digest>> {
        names_in(&self.inner.folder.join("layers"))
    }

    /// Whether the pack is what the index says.
    pub(super) fn is_pack_intact(&self, digest: &Digest, layer: &Layer) -> bool {
        Sum::of_file(&self.pack_path(digest)).is_ok_and(|sum| sum == layer.sum)
    }

    pub(super) fn pack_path(&self, digest: &Digest) -> PathBuf {
        self.layer_folder(digest).join(PACK_FILE)
    }

    pub(super) fn layer_folder(&self, digest: &Digest) -> PathBuf {
        self.inner.folder.join(FOLDER).join(digest.hex())
    }
}

impl Layer {
    /// Needs no store that is open: whoever has a layer pinned otherwise may read it.
    pub(crate) fn open(store: &Path, digest: &Digest) -> Result<Self> {
        let folder = store.join(FOLDER).join(digest.hex());
        let path = folder.join(INDEX_FILE);
        let index = match fs::read(&path) {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::LayerMissing { layer: digest.clone() });
            }
            Err(error) => return Err(failed("read", &path, error)),
        };
        let damaged = || Error::LayerDamaged { layer: digest.clone() };
        let (sum, entries) = unseal(INDEX_MAGIC, &index).ok_or_else(damaged)?;
        let path = folder.join(PACK_FILE);
        let pack = File::open(&path).map_err(|source| failed("open", &path, source))?;
        Ok(Self { entries, sum, pack })
    }

    pub(crate) fn read_pack(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.pack.read_exact_at(into, offset)
    }
}

impl Layer {
    /// A small file.
    pub(super) fn packed(&self, slice: &Slice) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; slice.bytes as usize];
        self.pack.read_exact_at(&mut bytes, slice.offset)?;
        Ok(bytes)
    }
}

impl NewLayer {
    /// Gives the layer its name; what was unpacked is complete and of the right digest. A layer that is
    /// there already stays as it is.
    pub fn finish(mut self, unpacked: &Unpacked) -> Result<()> {
        let path = self.folder.path().join(INDEX_FILE);
        let written = self.pack.flush().and_then(|()| {
            let sum = self.pack.get_ref().sum();
            fs::write(&path, seal(INDEX_MAGIC, &(&sum, &unpacked.entries)))
        });
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
