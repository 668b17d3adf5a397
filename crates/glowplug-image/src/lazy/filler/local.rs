//! Takes chunks from layers that were pulled completely since the start, so that nothing comes twice.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::contents;
use crate::digest::Digest;
use crate::layer::{Content, EntryKind};
use crate::lazy::plan::{ChunkId, Chunks};
use crate::store::Layer;

/// Larger chunks are fetched: these are held in memory.
const CHUNK_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Local {
    store: PathBuf,
    layers: Vec<Digest>,
    /// By their position in the image.
    known: Mutex<HashMap<u32, Arc<LocalLayer>>>,
}

struct LocalLayer {
    layer: Layer,
    contents: HashMap<Vec<u8>, Content>,
}

impl Local {
    pub(super) fn new(store: PathBuf, layers: Vec<Digest>) -> Self {
        Self { store, layers, known: Mutex::default() }
    }

    /// `true`: the chunk was here, is what its digest says, and is in the cache. Blocks.
    pub(super) fn copy(&self, chunks: &Chunks, id: ChunkId, cache: &File) -> bool {
        let chunk = chunks.chunk(id);
        let path = &chunks.files[chunk.file as usize].entry;
        let Some(layer) = self.layer(chunk.layer) else { return false };
        let Some(bytes) =
            usize::try_from(chunk.bytes).ok().filter(|_| chunk.bytes <= CHUNK_BYTES_MAX)
        else {
            return false;
        };
        let mut buffer = vec![0; bytes];
        let read = match layer.contents.get(path) {
            Some(Content::Packed(slice)) => {
                layer.layer.read_pack(slice.offset + chunk.offset, &mut buffer)
            }
            Some(Content::Shared { id, .. }) => {
                let content = self.store.join(contents::FOLDER).join(id.relative_path());
                File::open(content).and_then(|file| file.read_exact_at(&mut buffer, chunk.offset))
            }
            _ => return false,
        };
        // The archive may say something else than its table: then the table counts.
        read.is_ok()
            && Digest::of(&buffer) == chunk.digest
            && cache.write_all_at(&buffer, chunks.place(id)).is_ok()
    }

    fn layer(&self, number: u32) -> Option<Arc<LocalLayer>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = known.get(&number) {
            return Some(Arc::clone(layer));
        }
        let layer = Layer::open(&self.store, &self.layers[number as usize]).ok()?;
        let content = |entry: &crate::layer::Entry| match entry.kind {
            EntryKind::File(content) => Some((entry.path.clone(), content)),
            _ => None,
        };
        let contents = layer.entries.iter().filter_map(content).collect();
        let layer = Arc::new(LocalLayer { layer, contents });
        known.insert(number, Arc::clone(&layer));
        Some(layer)
    }
}
