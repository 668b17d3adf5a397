//! Where everything of a late image is: written by who prepares it, read by its filler.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::PLAN_FILE;
use crate::digest::Digest;
use crate::source::LayerDescriptor;
use crate::store::sealed;
use crate::toc::{ChunkData, TocFile};

/// Changes with the form.
const MAGIC: &[u8] = b"glowplug late 1";
/// Files begin at such places in the cache.
const PAGE_BYTES: u64 = 4096;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// For people: where the image is from.
    pub(super) name: String,
    pub(super) layers: Vec<LayerDescriptor>,
    pub(super) chunks: Chunks,
    /// What is in the cache already.
    pub(super) here: Vec<ChunkId>,
}

/// An index into the chunks of a plan, which are in the order of the layers and their bytes.
pub(super) type ChunkId = u32;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Chunks {
    pub(super) files: Vec<LateFile>,
    pub(super) stored: Vec<StoredChunk>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LateFile {
    /// In the image.
    pub(super) path: Vec<u8>,
    /// In its layer, where a folder on the way may be a link in the image.
    pub(super) entry: Vec<u8>,
    pub(super) bytes: u64,
    /// In the cache.
    pub(super) place: u64,
    pub(super) layer: u32,
    /// In the order of the file: each stored chunk with its first byte. What is in none is zero.
    pub(super) chunks: Vec<(u64, ChunkId)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredChunk {
    pub(super) file: u32,
    pub(super) layer: u32,
    /// In the file.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// In the layer, compressed.
    pub(super) range: Range<u64>,
    pub(super) digest: Digest,
}

/// A file of a layer's table that may come late.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) path: Vec<u8>,
    pub(super) entry: Vec<u8>,
    pub(super) layer: u32,
    pub(super) content: TocFile,
}

impl Chunks {
    /// The candidates' numbers stay what they are.
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let (mut files, mut stored, mut place) = (Vec::new(), Vec::new(), 0_u64);
        for (number, candidate) in (0..).zip(candidates) {
            let Candidate { path, entry, layer, content } = candidate;
            let bytes = content.bytes;
            for chunk in content.chunks {
                let ChunkData::Stored { range, digest } = chunk.data else { continue };
                let (offset, bytes) = (chunk.offset, chunk.bytes);
                stored.push(StoredChunk { file: number, layer, offset, bytes, range, digest });
            }
            files.push(LateFile { path, entry, bytes, place, layer, chunks: Vec::new() });
            place = place.saturating_add(bytes.next_multiple_of(PAGE_BYTES));
        }
        stored.sort_by_key(|chunk| (chunk.layer, chunk.range.start));
        for (id, chunk) in (0..).zip(&stored) {
            let file: &mut LateFile = &mut files[chunk.file as usize];
            file.chunks.push((chunk.offset, id));
        }
        for file in &mut files {
            file.chunks.sort_unstable();
        }
        Self { files, stored }
    }

    pub(super) fn chunk(&self, id: ChunkId) -> &StoredChunk {
        &self.stored[id as usize]
    }

    /// Where in the cache a chunk begins.
    pub(super) fn place(&self, id: ChunkId) -> u64 {
        let chunk = self.chunk(id);
        self.files[chunk.file as usize].place + chunk.offset
    }

    /// Those that have a byte of this part of a file.
    pub(super) fn covering(&self, file: u32, part: Range<u64>) -> impl Iterator<Item = ChunkId> {
        let chunks = &self.files[file as usize].chunks;
        let first = chunks.partition_point(|(offset, _)| *offset <= part.start).saturating_sub(1);
        let in_part = move |id: &ChunkId| {
            let chunk = self.chunk(*id);
            chunk.offset + chunk.bytes > part.start
        };
        let end = part.end;
        let before_end = move |(offset, _): &&(u64, ChunkId)| *offset < end;
        chunks[first..].iter().take_while(before_end).map(|(_, id)| *id).filter(in_part)
    }

    /// For people.
    pub(super) fn path(&self, id: ChunkId) -> String {
        let file = &self.files[self.chunk(id).file as usize];
        String::from_utf8_lossy(&file.path).into_owned()
    }

    /// Of all of them, inflated: what the cache may come to take.
    pub(super) fn bytes(&self) -> u64 {
        self.stored.iter().map(|chunk| chunk.bytes).sum()
    }

    /// As they are stored.
    pub(super) fn stored_bytes(&self, ids: impl IntoIterator<Item = ChunkId>) -> u64 {
        ids.into_iter().map(|id| self.chunk(id).range.end - self.chunk(id).range.start).sum()
    }

    /// Of these files, which have different paths.
    pub(super) fn numbers_by_path(&self, live: &BTreeSet<u32>) -> HashMap<&[u8], u32> {
        live.iter().map(|number| (&*self.files[*number as usize].path, *number)).collect()
    }
}

impl Plan {
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        fs::write(folder.join(PLAN_FILE), sealed::seal(MAGIC, self))
    }

    pub(super) fn read(folder: &Path) -> std::io::Result<Self> {
        let sealed = fs::read(folder.join(PLAN_FILE))?;
        sealed::unseal(MAGIC, &sealed)
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toc::Chunk;

    /// Chunks of 10 bytes; what has no place in the layer is zero.
    fn file(layer: u32, places: &[Option<u64>]) -> Candidate {
        let chunk = |(number, place): (u64, &Option<u64>)| {
            let data = place.map_or(ChunkData::Zeros, |start| ChunkData::Stored {
                range: start..start + 5,
                digest: Digest::of(b""),
            });
            Chunk { offset: number * 10, bytes: 10, data }
        };
        let chunks: Vec<Chunk> = (0..).zip(places).map(chunk).collect();
        let content = TocFile { bytes: chunks.len() as u64 * 10, digest: None, chunks };
        Candidate { path: b"a".to_vec(), entry: b"a".to_vec(), layer, content }
    }

    #[test]
    fn a_part_of_a_file_needs_the_chunks_that_it_touches() {
        let files = vec![
            file(1, &[Some(0), None, Some(50), Some(20)]),
            file(0, &[Some(7)]),
            file(0, &[None]),
            file(1, &[]),
        ];
        let chunks = Chunks::new(files);
        assert_eq!(chunks.files[1].place, PAGE_BYTES);
        // By layer and byte: the second file's is first.
        let cases: [(u32, Range<u64>, &[ChunkId]); 8] = [
            (0, 0..1, &[1]),
            (0, 9..11, &[1]),
            (0, 10..20, &[]),
            (0, 15..25, &[3]),
            (0, 29..31, &[3, 2]),
            (0, 0..40, &[1, 3, 2]),
            (1, 0..100, &[0]),
            (2, 0..10, &[]),
        ];
        for (file, part, expected) in cases {
            let found: Vec<ChunkId> = chunks.covering(file, part.clone()).collect();
            assert_eq!(found, expected, "{file} {part:?}");
        }
        assert_eq!(chunks.place(2), 30);
        assert_eq!(chunks.stored_bytes([0, 3]), 10);
    }
}
