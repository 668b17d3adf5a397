//! Images on disk.
//!
//! ```text
//! contents/ab/cdef…   contents of large files, each once, for all images
//! layers/HEX/         index (what the layer's archive holds) and pack (contents of its small files)
//! images/HEX/         image.json and tree (an EROFS image of all layers together)
//! touched/HEX         what starts of an image touched; outlives the image
//! names.json          which image a name such as `example.com/a:1` means, and when it was last used
//! mounts/HEX          where the tree of an image is mounted
//! late/               images that are started before they are here, see [`lazy`](crate::lazy)
//! tmp/                what is not finished; emptied when the store is opened
//! lock                held by the process that owns the store
//! ```
//!
//! **Crashes.** Whatever has its final name is complete: everything is written under `tmp` and renamed. A killed
//! process leaves only what `open` sweeps away. A power cut may take back what was not synced, names and bytes
//! alike, and nothing is synced while a start waits for it: so while anything is not synced, `unsynced` names
//! this boot of the machine, and a store that is opened with the mark of another boot checks everything that
//! was written since, and drops what does not hold.
//!
//! **Limits.** The owner's budget, see [`Store::collect`]; a tree has at most
//! [`NODES_MAX`](crate::tree::NODES_MAX) files.
//!
//! All calls block.

mod check;
mod collect;
mod directory;
mod durability;
mod late;
mod layers;
mod mounting;
mod mounts;
mod names;
mod reader;
pub(crate) mod sealed;
mod sum;
mod touched;
mod usage;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use self::check::{Checked, Findings, Repair};
pub use self::collect::Collected;
use self::durability::Durability;
pub(crate) use self::late::{LayerPacks, is_living};
pub use self::layers::{Layer, LayerPins, NewLayer};
pub use self::mounting::Mounting;
pub use self::mounts::Mounted;
pub(crate) use self::mounts::is_under_an_overlay;
pub use self::names::Named;
pub use self::reader::Reader;
pub(crate) use self::reader::is_damage;
use self::sum::{Sum, Summed};
pub use self::usage::{LayerUsage, SharedWith, Usage};
use crate::config::ImageConfig;
use crate::contents::{self, Contents};
use crate::digest::Digest;
use crate::erofs;
use crate::pins::PinTable;
use crate::tree::{self, Tree};

const IMAGE_FILE: &str = "image.json";
const TREE_FILE: &str = "tree";
const TREE_BUFFER_BYTES: usize = 1 << 20;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    contents: Contents,
    durability: Durability,
    /// What unfinished images rely on.
    layers: PinTable<Digest>,
    names: names::Names,
    /// Held while a list of touched files is replaced.
    touched: Mutex<()>,
    /// Held over a collection or a repair.
    collecting: Mutex<()>,
    mounts: Mutex<mounts::Mounts>,
    /// Held while an image is written out.
    writing_out: Mutex<()>,
    /// What the kernel can do, once it was asked.
    mounting: OnceLock<Mounting>,
    /// `None`: what only reads needs none.
    _lock: Option<File>,
}

/// An image that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Of its manifest for this platform.
    pub digest: Digest,
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<Digest>,
    /// Of the layers as they came.
    pub compressed_bytes: u64,
    /// Of each layer as it came. Empty for images that were pulled before this was noted.
    #[serde(default)]
    pub layer_bytes: Vec<u64>,
    /// Of all files that are in it; filled in by [`Store::publish`].
    pub bytes: u64,
}

/// As it is in the image's file.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    image: Image,
    tree_bytes: u64,
    /// BLAKE3, hexadecimal.
    tree_hash: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the images in {} belong to another process: ask the node, or stop it first", folder.display())]
    Taken { folder: PathBuf },
    #[error("layer {layer} is not in the store")]
    LayerMissing { layer: Digest },
    #[error("layer {layer} is damaged: `glowplug image fsck` finds out what else is")]
    LayerDamaged { layer: Digest },
    #[error(
        "image {image} is damaged: `glowplug image fsck --repair` takes it away, and the next pull brings it again"
    )]
    ImageDamaged { image: Digest },
    #[error("the layers do not fit together")]
    Tree(#[from] tree::Error),
    #[error("the image's file tree cannot be written")]
    Erofs(#[from] erofs::Error),
    #[error("image {image} is not in the store: pull it first")]
    ImageMissing { image: Digest },
    #[error("image {image} is in use by a runner")]
    InUse { image: Digest },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Store {
    /// Makes the folder if it is missing, and sweeps away what a killed process left unfinished.
    pub fn open(folder: &Path) -> Result<Self> {
        for name in ["", "layers", "images", "mounts", "touched", late::FOLDER] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(|source| failed("make", &path, source))?;
        }
        let folder = fs::canonicalize(folder).map_err(|source| failed("find", folder, source))?;
        let lock = own(&folder)?;
        let unfinished = folder.join("tmp");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("empty", &unfinished, error));
            }
            _ => {}
        }
        fs::create_dir(&unfinished).map_err(|source| failed("make", &unfinished, source))?;
        let contents = folder.join(contents::FOLDER);
        let contents =
            Contents::open(&contents).map_err(|source| failed("open", &contents, source))?;
        let durability = Durability::new(&folder);
        let names = names::Names::open(&folder);
        let inner = Inner {
            folder,
            contents,
            durability,
            layers: PinTable::default(),
            names,
            touched: Mutex::default(),
            collecting: Mutex::default(),
            mounts: Mutex::default(),
            writing_out: Mutex::default(),
            mounting: OnceLock::new(),
            _lock: Some(lock),
        };
        let store = Self { inner: Arc::new(inner) };
        store.check_after_a_power_cut()?;
        store.sweep_late(None)?;
        Ok(store)
    }

    /// As [`open`](Self::open), without asking the kernel what it can do.
    pub fn open_for(folder: &Path, mounting: Mounting) -> Result<Self> {
        let store = Self::open(folder)?;
        let _ = store.inner.mounting.set(mounting);
        Ok(store)
    }

    /// A folder on the store's disk for what is not kept: emptied when the store is opened.
    pub fn scratch(&self) -> PathBuf {
        self.unfinished()
    }

    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    pub fn contents(&self) -> &Contents {
        &self.inner.contents
    }

    /// `None`: it is not here.
    pub fn image(&self, digest: &Digest) -> Result<Option<Image>> {
        let path = self.image_folder(digest).join(IMAGE_FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(|record: Record| Some(record.image))
                .map_err(|_| Error::ImageDamaged { image: digest.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    /// All images, by digest.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for digest in names_in(&self.inner.folder.join("images"))? {
            images.extend(self.image(&digest)?);
        }
        images.sort_by(|one, other| one.digest.cmp(&other.digest));
        Ok(images)
    }

    /// Makes the image's file tree of its layers, all of which are here, and gives the image its name.
    /// An image that is here already stays as it is.
    pub fn publish(&self, mut image: Image) -> Result<Image> {
        if let Some(image) = self.image(&image.digest)? {
            return Ok(image);
        }
        let place = self.image_folder(&image.digest);
        self.inner.durability.begin()?;
        let _pins = self.pin_layers(&image.layers);
        let (layers, tree) = self.merged(&image)?;
        image.bytes = tree.bytes();
        let made = tempfile::tempdir_in(self.unfinished())
            .map_err(|source| failed("make a folder in", &self.unfinished(), source))?;
        let path = made.path().join(TREE_FILE);
        let file = File::create_new(&path).map_err(|source| failed("make", &path, source))?;
        let mut file = io::BufWriter::with_capacity(TREE_BUFFER_BYTES, Summed::new(file));
        erofs::write(&tree, &layers::Packs(&layers), &mut file)?;
        let Sum { bytes: tree_bytes, hash: tree_hash } = file.get_ref().sum();
        let path = made.path().join(IMAGE_FILE);
        let record = Record { image: image.clone(), tree_bytes, tree_hash: tree_hash.to_string() };
        let record = serde_json::to_vec_pretty(&record)
            .map_err(|error| failed("write", &path, error.into()))?;
        fs::write(&path, record).map_err(|source| failed("write", &path, source))?;
        layers::rename_into_place(made, &place)?;
        Ok(image)
    }

    /// The layers of an image, all of which are here, and the tree that they make together.
    fn merged(&self, image: &Image) -> Result<(Vec<Layer>, Tree)> {
        let layers: Vec<Layer> =
            image.layers.iter().map(|layer| self.layer(layer)).collect::<Result<_>>()?;
        let mut tree = Tree::default();
        for (number, layer) in (0..).zip(&layers) {
            tree.apply(number, &layer.entries)?;
        }
        Ok((layers, tree))
    }

    /// What the disk of the store has to give to this user, in bytes.
    pub fn free_bytes(&self) -> Result<u64> {
        let folder = &self.inner.folder;
        let statvfs = rustix::fs::statvfs(folder);
        let statvfs = statvfs.map_err(|error| failed("look at", folder, error.into()))?;
        Ok(statvfs.f_bavail.saturating_mul(statvfs.f_frsize))
    }

    /// Takes an image away, unless a runner uses it. Its layers and contents stay until they are collected.
    pub fn remove_image(&self, digest: &Digest) -> Result<()> {
        let (place, unfinished) = (self.image_folder(digest), self.unfinished().join(digest.hex()));
        let renamed = self.unmount_and(digest, || fs::rename(&place, &unfinished))?;
        match renamed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::ImageMissing { image: digest.clone() });
            }
            Err(error) => return Err(failed("remove", &place, error)),
        }
        self.inner.names.forget(digest)?;
        fs::remove_dir_all(&unfinished).map_err(|source| failed("remove", &unfinished, source))
    }

    /// Waits until everything that was published before this call outlives a power cut.
    pub fn sync(&self) -> Result<()> {
        self.inner.durability.sync()
    }

    fn image_folder(&self, digest: &Digest) -> PathBuf {
        self.inner.folder.join("images").join(digest.hex())
    }

    fn unfinished(&self) -> PathBuf {
        self.inner.folder.join("tmp")
    }
}

/// The digests that are the names of what is in a folder, in no order. What is not ours is left alone.
fn names_in(folder: &Path) -> Result<Vec<Digest>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| failed("list", folder, source))? {
        let entry = entry.map_err(|source| failed("list", folder, source))?;
        names.extend(format!("sha256:{}", entry.file_name().display()).parse::<Digest>());
    }
    Ok(names)
}

fn own(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| failed("open", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Taken { folder: folder.to_owned() }),
        Err(error) => Err(failed("lock", &path, error.into())),
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { operation, path: path.to_owned(), source }
}
