//! What is brought before a start, and whether starting late is worth it.

use std::collections::BTreeSet;

use super::plan::{ChunkId, Chunks};
use crate::layer::unpack::SHARED_BYTES_MIN;
use crate::touched::Touched;

/// Of the image's bytes: who touches more is better off with all of them at once.
const FIRST_PERCENT_MAX: u64 = 30;
/// A file of which a part was touched is brought whole up to this size.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// What to bring of a late image, and when.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct First {
    /// Before the start, in the order of the layers.
    pub(super) chunks: Vec<ChunkId>,
    /// Files that are small and whole then: they go into the tree.
    pub(super) packed: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No layer that matters has a table of contents that can be used.
    NoTable,
    Small,
    /// Starts touch so much of it.
    TouchesMuch,
    /// The image comes from where another process cannot get it.
    Elsewhere,
    /// All of its layers are here.
    Here,
    /// The kernel cannot mount it.
    Kernel,
    /// The disk could not take all of it.
    NoRoom,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoTable => "its layers have no table of contents (zstd:chunked or eStargz)",
            Self::Small => "it is small",
            Self::TouchesMuch => "its starts touch much of it",
            Self::Elsewhere => "it is not in a registry",
            Self::Here => "its layers are here",
            Self::Kernel => "the kernel cannot mount images from their files",
            Self::NoRoom => "the disk has no room for all of it",
        })
    }
}

/// `live` are the files that have a name in the image; `first_use` says for each layer how many of its first
/// bytes are worth having.
pub(super) fn first(
    chunks: &Chunks,
    live: &BTreeSet<u32>,
    touched: &Touched,
    first_use: &[Option<u64>],
) -> First {
    let mut wanted = BTreeSet::new();
    let numbers = chunks.numbers_by_path(live);
    for file in touched.files() {
        let Some(&number) = numbers.get(&*file.path) else { continue };
        let bytes = chunks.files[number as usize].bytes;
        if file.ranges.is_empty() || bytes <= WHOLE_BYTES_MAX {
            wanted.extend(chunks.covering(number, 0..bytes));
        } else {
            let ranges = file.ranges.iter().cloned();
            wanted.extend(ranges.flat_map(|range| chunks.covering(number, range)));
        }
    }
    if touched.files().is_empty() {
        let is_early = |id: &ChunkId| {
            let chunk = chunks.chunk(*id);
            let early = first_use.get(chunk.layer as usize).copied().flatten().unwrap_or(0);
            live.contains(&chunk.file) && chunk.range.start < early
        };
        let all = 0..ChunkId::try_from(chunks.stored.len()).unwrap_or(ChunkId::MAX);
        wanted.extend(all.filter(is_early));
    }
    let is_whole = |file: &u32| {
        let late = &chunks.files[*file as usize];
        late.bytes < SHARED_BYTES_MIN && late.chunks.iter().all(|(_, id)| wanted.contains(id))
    };
    let packed = live.iter().copied().filter(is_whole).collect();
    First { chunks: wanted.into_iter().collect(), packed }
}

/// Whether so much is to come first that all may come first.
pub(super) fn touches_much(first_bytes: u64, image_bytes: u64) -> bool {
    first_bytes.saturating_mul(100) > image_bytes.saturating_mul(FIRST_PERCENT_MAX)
}
