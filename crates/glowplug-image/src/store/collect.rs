//! Makes room: the images that were not used for longest go first, then what only they needed.
//!
//! A pull may go on at the same time. What it relies on is pinned before it looks whether it is there, and what
//! was pinned at any moment since the collection began stays.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::sync::PoisonError;

use glowplug_core::Timestamp;

use super::{Error, Result, Store, failed};
use crate::ContentId;
use crate::digest::Digest;
use crate::layer::{Content, EntryKind};

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub images: Vec<Digest>,
    pub layers: usize,
    pub contents: usize,
    pub bytes: u64,
}

/// What a store holds, and who needs what.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    pub(super) images: BTreeMap<Digest, HeldImage>,
    /// What late images have of their files by now. It goes with its fillers, not with a collection.
    pub(super) late_bytes: u64,
    pub(super) layers: BTreeMap<Digest, HeldLayer>,
    /// With their sizes in bytes.
    pub(super) contents: BTreeMap<ContentId, u64>,
}

#[derive(Clone, Debug)]
pub(super) struct HeldImage {
    /// Of its file tree, and of its files where they are written out.
    pub(super) bytes: u64,
    last_use: Option<Timestamp>,
    is_in_use: bool,
    /// In use or wanted.
    is_kept: bool,
    pub(super) layers: Vec<Digest>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct HeldLayer {
    /// Of its index and pack.
    pub(super) bytes: u64,
    pub(super) contents: Vec<ContentId>,
    /// What it needs cannot be known.
    is_damaged: bool,
}

impl Holding {
    /// Whether a runner uses, or a filler of a `late` image may take files from, a layer whose contents are not known.
    fn has_unknown_needs(&self, late: &HashSet<Digest>) -> bool {
        let in_use = self.images.values().filter(|image| image.is_in_use);
        let is_unknown =
            |layer: &Digest| self.layers.get(layer).is_some_and(|held| held.is_damaged);
        let is_missing = |layer: &Digest| !self.layers.contains_key(layer);
        in_use.flat_map(|image| &image.layers).any(|layer| is_unknown(layer) || is_missing(layer))
            // Layers of a late image come one after the other, so one that is missing has no contents yet.
            || late.iter().any(is_unknown)
    }

    /// The images that go so that all that is left takes at most `budget_bytes`, as far as that is possible.
    fn images_to_remove(&self, budget_bytes: u64) -> Vec<Digest> {
        let mut candidates: Vec<_> =
            self.images.iter().filter(|(_, image)| !image.is_kept).collect();
        candidates.sort_by_key(|(digest, image)| (image.last_use, *digest));
        let mut left = Left::of(self);
        let mut removed = Vec::new();
        for (digest, image) in candidates {
            if left.bytes <= budget_bytes {
                break;
            }
            left.remove(self, image);
            removed.push(digest.clone());
        }
        removed
    }

    /// Layers that no image has.
    fn orphaned_layers(&self) -> Vec<Digest> {
        let needed: HashSet<_> = self.images.values().flat_map(|image| &image.layers).collect();
        self.layers.keys().filter(|layer| !needed.contains(layer)).cloned().collect()
    }

    /// Contents that no layer has.
    fn orphaned_contents(&self) -> Vec<ContentId> {
        let needed: HashSet<_> = self.layers.values().flat_map(|layer| &layer.contents).collect();
        self.contents.keys().filter(|content| !needed.contains(content)).copied().collect()
    }
}

/// What is left while images go one after the other.
struct Left<'h> {
    bytes: u64,
    /// How many images have each layer, and how many of those layers have each content.
    layers: BTreeMap<&'h Digest, u32>,
    contents: BTreeMap<ContentId, u32>,
}

impl<'h> Left<'h> {
    fn of(holding: &'h Holding) -> Self {
        let mut left =
            Self { bytes: holding.late_bytes, layers: BTreeMap::new(), contents: BTreeMap::new() };
        for image in holding.images.values() {
            left.bytes += image.bytes;
            for layer in distinct(&image.layers) {
                let count = left.layers.entry(layer).or_default();
                *count += 1;
                if *count == 1
                    && let Some(layer) = holding.layers.get(layer)
                {
                    left.add_layer(holding, layer);
                }
            }
        }
        left
    }

    fn add_layer(&mut self, holding: &Holding, layer: &HeldLayer) {
        self.bytes += layer.bytes;
        for content in distinct(&layer.contents) {
            let count = self.contents.entry(*content).or_default();
            *count += 1;
            if *count == 1 {
                self.bytes += holding.contents.get(content).copied().unwrap_or(0);
            }
        }
    }

    fn remove(&mut self, holding: &Holding, image: &HeldImage) {
        self.bytes -= image.bytes;
        for layer in distinct(&image.layers) {
            let Some(count) = self.layers.get_mut(layer) else { continue };
            *count -= 1;
            if *count == 0
                && let Some(layer) = holding.layers.get(layer)
            {
                self.remove_layer(holding, layer);
            }
        }
    }

    fn remove_layer(&mut self, holding: &Holding, layer: &HeldLayer) {
        self.bytes -= layer.bytes;
        for content in distinct(&layer.contents) {
            let Some(count) = self.contents.get_mut(content) else { continue };
            *count -= 1;
            if *count == 0 {
                self.bytes -= holding.contents.get(content).copied().unwrap_or(0);
            }
        }
    }
}

fn distinct<T: Ord>(all: &[T]) -> BTreeSet<&T> {
    all.iter().collect()
}

impl Store {
    /// Removes images that are neither in use nor `wanted` until what is left takes at most `budget_bytes`, and
    /// all layers and contents that nothing needs. Blocks as long as it takes to read the index of every layer.
    pub fn collect(&self, budget_bytes: u64, wanted: &HashSet<Digest>) -> Result<Collected> {
        let _turn = self.inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        // Begun before anything is looked up.
        let _layers = self.inner.layers.collect();
        let _contents = self.contents().collect();
        let mut holding = self.holding(wanted)?;
        let mut collected = Collected::default();
        for image in holding.images_to_remove(budget_bytes) {
            match self.remove_image(&image) {
                Ok(()) | Err(Error::ImageMissing { .. }) => {}
                // A runner was faster.
                Err(Error::InUse { .. }) => continue,
                Err(error) => return Err(error),
            }
            collected.bytes += holding.images.remove(&image).map_or(0, |image| image.bytes);
            collected.images.push(image);
        }
        let late = self.late_layers()?;
        for layer in holding.orphaned_layers().into_iter().filter(|layer| !late.contains(layer)) {
            if self.remove_layer_unless_pinned(&layer)? {
                collected.layers += 1;
                collected.bytes += holding.layers.remove(&layer).map_or(0, |layer| layer.bytes);
            }
        }
        if holding.has_unknown_needs(&late) {
            return Ok(collected);
        }
        let folder = self.contents().folder();
        for content in holding.orphaned_contents() {
            let bytes = self.contents().remove_unpinned(&content);
            let bytes = bytes.map_err(|source| failed("remove a content in", folder, source))?;
            collected.contents += usize::from(bytes > 0);
            collected.bytes += bytes;
        }
        Ok(collected)
    }

    /// What [`collect`](Self::collect) would remove if it were called now. Nothing is changed.
    pub fn would_collect(&self, budget_bytes: u64, wanted: &HashSet<Digest>) -> Result<Collected> {
        let _turn = self.inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holding = self.holding(wanted)?;
        let mut collected =
            Collected { images: holding.images_to_remove(budget_bytes), ..Collected::default() };
        for image in &collected.images {
            collected.bytes += holding.images.remove(image).map_or(0, |image| image.bytes);
        }
        let late = self.late_layers()?;
        for layer in holding.orphaned_layers().into_iter().filter(|layer| !late.contains(layer)) {
            collected.layers += 1;
            collected.bytes += holding.layers.remove(&layer).map_or(0, |layer| layer.bytes);
        }
        if holding.has_unknown_needs(&late) {
            return Ok(collected);
        }
        for content in holding.orphaned_contents() {
            let bytes = holding.contents.remove(&content).unwrap_or(0);
            collected.contents += usize::from(bytes > 0);
            collected.bytes += bytes;
        }
        Ok(collected)
    }

    /// What all of it takes on the disk.
    pub fn bytes(&self) -> Result<u64> {
        let holding = self.holding(&HashSet::new())?;
        let images = holding.images.values().map(|image| image.bytes);
        let layers = holding.layers.values().map(|layer| layer.bytes);
        let late = [holding.late_bytes];
        Ok(images.chain(layers).chain(holding.contents.into_values()).chain(late).sum())
    }

    /// `false`: an unfinished image relies on it.
    pub(super) fn remove_layer_unless_pinned(&self, layer: &Digest) -> Result<bool> {
        let (place, gone) = (self.layer_folder(layer), self.unfinished().join(layer.hex()));
        let renamed = self.inner.layers.unless_pinned(layer, || fs::rename(&place, &gone));
        match renamed {
            None => Ok(false),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Some(Err(error)) => Err(failed("remove", &place, error)),
            Some(Ok(())) => {
                fs::remove_dir_all(&gone).map_err(|source| failed("remove", &gone, source))?;
                Ok(true)
            }
        }
    }

    /// In this order: whatever a later step finds was needed, or pinned, when an earlier one looked. A collection
    /// has begun.
    pub(super) fn holding(&self, wanted: &HashSet<Digest>) -> Result<Holding> {
        let contents = self.contents().list();
        let contents =
            contents.map_err(|source| failed("list", self.contents().folder(), source))?;
        let mut layers = BTreeMap::new();
        for digest in self.layer_names()? {
            layers.insert(digest.clone(), self.held_layer(&digest)?);
        }
        let images = self.images()?;
        let in_use = self.in_use(images.iter().map(|image| &image.digest))?;
        let held = |image: super::Image| {
            let held = HeldImage {
                bytes: self.bytes_of(&image),
                last_use: self.last_use(&image.digest),
                is_in_use: in_use.contains(&image.digest),
                is_kept: in_use.contains(&image.digest) || wanted.contains(&image.digest),
                layers: image.layers,
            };
            (image.digest, held)
        };
        let images = images.into_iter().map(held).collect();
        let contents = contents.into_iter().collect();
        Ok(Holding { images, late_bytes: self.late_bytes()?, layers, contents })
    }

    /// A layer that cannot be read is kept or removed like others.
    fn held_layer(&self, digest: &Digest) -> Result<HeldLayer> {
        let layer = match self.layer(digest) {
            Ok(layer) => layer,
            Err(Error::LayerDamaged { .. } | Error::LayerMissing { .. }) => {
                return Ok(HeldLayer { is_damaged: true, ..HeldLayer::default() });
            }
            Err(error) => return Err(error),
        };
        let index = self.layer_folder(digest).join("index");
        let bytes = layer.sum.bytes + fs::metadata(index).map_or(0, |index| index.len());
        let shared = |entry: &crate::layer::Entry| match entry.kind {
            EntryKind::File(Content::Shared { id, .. }) => Some(id),
            _ => None,
        };
        let contents = layer.entries.iter().filter_map(shared).collect();
        Ok(HeldLayer { bytes, contents, is_damaged: false })
    }

    /// What it takes that no other image has. Files that are written out may share their blocks with the contents
    /// that they were made of; they are counted as if they did not.
    fn bytes_of(&self, image: &super::Image) -> u64 {
        let is_written_out = self.directory_of(&image.digest).exists();
        self.tree_bytes(&image.digest) + if is_written_out { image.bytes } else { 0 }
    }

    pub(super) fn tree_bytes(&self, image: &Digest) -> u64 {
        let tree = self.image_folder(image).join(super::TREE_FILE);
        fs::metadata(tree).map_or(0, |tree| tree.len())
    }
}

#[cfg(test)]
mod tests;
