//! What an image takes on the disk, and how much of it others have as well.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::PoisonError;

use super::collect::{HeldImage, Holding};
use super::{Error, Result, Store};
use crate::ContentId;
use crate::digest::Digest;
use crate::layer::EntryKind;

/// Of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Lowest first.
    pub layers: Vec<LayerUsage>,
    /// On the disk, what it shares with others included.
    pub disk_bytes: u64,
    /// Of these, what no other image needs: what would go with it.
    pub own_bytes: u64,
    /// The other images that have something of it, those with most first.
    pub shared: Vec<SharedWith>,
    /// A runner uses it, or is about to.
    pub is_used: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUsage {
    pub digest: Digest,
    /// As it came, where that is known.
    pub compressed_bytes: Option<u64>,
    /// Of its files.
    pub bytes: u64,
    pub files: usize,
    /// Other images that have this very layer.
    pub other_images: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedWith {
    pub image: Digest,
    pub bytes: u64,
}

/// What an image is made of, each once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    layers: BTreeSet<Digest>,
    contents: BTreeSet<ContentId>,
}

impl Store {
    /// Blocks as long as it takes to read the index of every layer.
    pub fn usage(&self, digest: &Digest) -> Result<Usage> {
        let _turn = self.inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let image =
            self.image(digest)?.ok_or_else(|| Error::ImageMissing { image: digest.clone() })?;
        let holding = self.holding(&HashSet::new())?;
        let layer = |(place, layer): (usize, &Digest)| {
            let mut usage = LayerUsage {
                digest: layer.clone(),
                compressed_bytes: image.layer_bytes.get(place).copied(),
                bytes: 0,
                files: 0,
                other_images: 0,
            };
            for entry in self.layer(layer)?.entries {
                if let EntryKind::File(content) = entry.kind {
                    usage.bytes += content.bytes();
                    usage.files += 1;
                }
            }
            let has = |(other, held): &(&Digest, &HeldImage)| {
                *other != digest && held.layers.contains(layer)
            };
            usage.other_images = holding.images.iter().filter(has).count();
            Ok(usage)
        };
        let layers = image.layers.iter().enumerate().map(layer).collect::<Result<_>>()?;
        let is_used = !self.in_use([digest].into_iter())?.is_empty();
        let Shares { disk_bytes, own_bytes, shared } = holding.shares(digest);
        Ok(Usage { layers, disk_bytes, own_bytes, shared, is_used })
    }

    /// Whether a runner uses the image, or is about to.
    pub fn is_used(&self, digest: &Digest) -> Result<bool> {
        Ok(!self.in_use([digest].into_iter())?.is_empty())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Shares {
    disk_bytes: u64,
    own_bytes: u64,
    shared: Vec<SharedWith>,
}

impl Holding {
    fn parts(&self, image: &HeldImage) -> Parts {
        let layers: BTreeSet<Digest> = image.layers.iter().cloned().collect();
        let held = layers.iter().filter_map(|layer| self.layers.get(layer));
        let contents = held.flat_map(|layer| layer.contents.iter().copied()).collect();
        Parts { layers, contents }
    }

    fn bytes<'p>(
        &self,
        layers: impl IntoIterator<Item = &'p Digest>,
        contents: impl IntoIterator<Item = &'p ContentId>,
    ) -> u64 {
        let layers = layers.into_iter().filter_map(|layer| self.layers.get(layer));
        let contents = contents.into_iter().filter_map(|content| self.contents.get(content));
        layers.map(|layer| layer.bytes).sum::<u64>() + contents.sum::<u64>()
    }

    fn shares(&self, digest: &Digest) -> Shares {
        let Some(image) = self.images.get(digest) else {
            return Shares { disk_bytes: 0, own_bytes: 0, shared: Vec::new() };
        };
        let parts = self.parts(image);
        let mut own = Parts { layers: parts.layers.clone(), contents: parts.contents.clone() };
        let mut shared = BTreeMap::new();
        for (other, held) in self.images.iter().filter(|(other, _)| *other != digest) {
            let theirs = self.parts(held);
            let bytes = self.bytes(
                parts.layers.intersection(&theirs.layers),
                parts.contents.intersection(&theirs.contents),
            );
            own.layers.retain(|layer| !theirs.layers.contains(layer));
            own.contents.retain(|content| !theirs.contents.contains(content));
            if bytes > 0 {
                shared.insert(other.clone(), bytes);
            }
        }
        let mut shared: Vec<SharedWith> =
            shared.into_iter().map(|(image, bytes)| SharedWith { image, bytes }).collect();
        shared.sort_by_key(|shared| std::cmp::Reverse(shared.bytes));
        Shares {
            disk_bytes: image.bytes + self.bytes(&parts.layers, &parts.contents),
            own_bytes: image.bytes + self.bytes(&own.layers, &own.contents),
            shared,
        }
    }
}
