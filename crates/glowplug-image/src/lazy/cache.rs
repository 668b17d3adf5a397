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
            None => read_padded(&self.cache, into, offset),
        }
    }
}

/// The cache ends with the last chunk that is here: what files have of zeros beyond that is not in it.
pub(super) fn read_padded(cache: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match cache.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into[filled..].fill(0);
    Ok(())
}
