//! The file in which chunks are kept, and the small files in it that go into the tree.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::erofs;
use crate::store::LayerPacks;

/// Where the tree's small files are: in the packs of layers that are here, and in the cache.
pub(super) struct SmallFiles {
    pub(super) layers: LayerPacks,
    pub(super) cache: Arc<File>,
}

impl erofs::Packs for SmallFiles {
    fn read(&self, layer: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self.layers.read(layer, offset, into) {
            Some(read) => read,
            None => self.cache.read_exact_at(into, offset),
        }
    }
}
