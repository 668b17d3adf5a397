//! Late images: those that runners use before they are here. What they are is in [`crate::lazy`].
//!
//! Each has a living filler, or goes.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::layers::Layer;
use super::mounts::{Hold, Mounted};
use super::{Result, Store, failed};
use crate::digest::Digest;
use crate::lazy::{
    CACHE_FILE, FILES_MOUNT, LOCK_FILE, RECORD_FILE, TREE_FILE, TREE_MOUNT, USERS_FILE,
};

pub(super) const FOLDER: &str = "late";
/// In which the system counts what a file takes.
const BLOCK_BYTES: u64 = 512;

/// The packs of those layers of an image that are here, by their position in it.
#[derive(Debug, Default)]
pub(crate) struct LayerPacks(BTreeMap<u32, Layer>);

impl LayerPacks {
    pub(crate) fn insert(&mut self, number: u32, layer: Layer) {
        self.0.insert(number, layer);
    }

    /// `None`: the layer is not here.
    pub(crate) fn read(&self, number: u32, offset: u64, into: &mut [u8]) -> Option<io::Result<()>> {
        self.0.get(&number).map(|layer| layer.read_pack(offset, into))
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    image: Digest,
    layers: Vec<Digest>,
}

impl Store {
    /// A folder for a late image; it goes when it is dropped.
    pub(crate) fn new_late(&self, image: &Digest, layers: &[Digest]) -> Result<TempDir> {
        const DIGITS: usize = 16;
        let parent = self.late_parent();
        let made = || {
            let prefix = format!("{}-", &image.hex()[..DIGITS]);
            let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent)?;
            let record = Record { image: image.clone(), layers: layers.to_vec() };
            let record = serde_json::to_vec(&record)?;
            for name in [FILES_MOUNT, TREE_MOUNT] {
                fs::create_dir(folder.path().join(name))?;
            }
            File::create(folder.path().join(USERS_FILE))?;
            fs::write(folder.path().join(RECORD_FILE), record)?;
            Ok(folder)
        };
        made().map_err(|source| failed("make a late image in", &parent, source))
    }

    /// The late image whose filler lives, if there is one.
    pub(crate) fn living_late(&self, image: &Digest) -> Result<Option<Mounted>> {
        for folder in self.late_folders()? {
            let is_it = record(&folder).is_some_and(|record| record.image == *image);
            if is_it && is_living(&folder) {
                // Whoever is about to end lets nobody in.
                if let Some(mounted) = self.hold_late(&folder) {
                    return Ok(Some(mounted));
                }
            }
        }
        Ok(None)
    }

    /// Mounts the tree of a late image whose filler serves.
    pub(crate) fn mount_late(&self, folder: &Path) -> Result<Mounted> {
        let (source, tree) = (folder.join(TREE_FILE), folder.join(TREE_MOUNT));
        let mounted = self.hold_late(folder).ok_or_else(|| {
            failed("use", folder, io::Error::other("its filler has ended already"))
        })?;
        mount(&source, &tree, "erofs", MountFlags::RDONLY | MountFlags::NODEV, None)
            .map_err(|error| failed("mount", &source, error.into()))?;
        Ok(mounted)
    }

    /// Takes away what has no living filler: of one image that nobody prepares, or of all while nobody prepares any.
    /// A folder without a record may be one that is being made.
    pub(crate) fn sweep_late(&self, image: Option<&Digest>) -> Result<()> {
        for folder in self.late_folders()? {
            let is_of =
                |image: &Digest| record(&folder).is_some_and(|record| record.image == *image);
            let is_meant = image.is_none_or(is_of);
            if is_meant && !is_living(&folder) {
                remove(&folder)?;
            }
        }
        Ok(())
    }

    /// Layers that fillers may take files from.
    pub(super) fn late_layers(&self) -> Result<HashSet<Digest>> {
        let records = self.late_folders()?.into_iter().filter_map(|folder| record(&folder));
        Ok(records.flat_map(|record| record.layers).collect())
    }

    /// What their fillers have brought by now. One that ends at this moment counts for nothing.
    pub(super) fn late_bytes(&self) -> Result<u64> {
        let taken = |folder: PathBuf| {
            fs::metadata(folder.join(CACHE_FILE)).map_or(0, |cache| cache.blocks() * BLOCK_BYTES)
        };
        Ok(self.late_folders()?.into_iter().map(taken).sum())
    }

    fn hold_late(&self, folder: &Path) -> Option<Mounted> {
        let users = File::open(folder.join(USERS_FILE)).ok()?;
        flock(&users, FlockOperation::NonBlockingLockShared).ok()?;
        Some(Mounted {
            tree: folder.join(TREE_MOUNT),
            contents: Some(self.contents().folder().to_owned()),
            late: Some(folder.join(FILES_MOUNT)),
            hold: Hold::Late { folder: folder.to_owned(), _users: users },
        })
    }

    fn late_parent(&self) -> PathBuf {
        self.inner.folder.join(FOLDER)
    }

    fn late_folders(&self) -> Result<Vec<PathBuf>> {
        let parent = self.late_parent();
        let mut folders = Vec::new();
        for entry in fs::read_dir(&parent).map_err(|source| failed("list", &parent, source))? {
            let entry = entry.map_err(|source| failed("list", &parent, source))?;
            // Beside them is only what fillers say.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
        Ok(folders)
    }
}

fn record(folder: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder.join(RECORD_FILE)).ok()?).ok()
}

pub(crate) fn is_living(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK_FILE)) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// A dead filler's mounts answer nobody: whoever still has them as a layer is no worse off without their names.
fn remove(folder: &Path) -> Result<()> {
    for name in [FILES_MOUNT, TREE_MOUNT] {
        let _ = unmount(folder.join(name), UnmountFlags::DETACH);
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", folder, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_made_stays_when_another_image_is_swept() {
        let folder = tempfile::tempdir().expect("the disk takes a folder");
        let store = Store::open(folder.path()).expect("the folder is empty");
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let made = |image| store.new_late(image, &[]).expect("the disk takes folders").keep();
        let (dead, others, unfinished) = (made(&one), made(&other), made(&other));
        fs::remove_file(unfinished.join(RECORD_FILE)).expect("it was written");
        let there = || [&dead, &others, &unfinished].map(|folder| folder.exists());
        store.sweep_late(Some(&one)).expect("its folder can be removed");
        assert_eq!(there(), [false, true, true]);
        store.sweep_late(None).expect("the folders can be removed");
        assert_eq!(there(), [false; 3]);
    }
}
