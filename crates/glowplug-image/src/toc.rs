//! Tables of contents that layers bring: what is in a layer, and where in it, without reading it.
//!
//! ```text
//! manifest ──digest──► annotation ──digest──► table ──digest──► chunk
//! ```
//!
//! Two formats have one: *zstd:chunked* (Podman, Buildah) and *eStargz* (containerd). Both are ordinary layers with a
//! table at their end, whose digest is an annotation of the layer in the manifest. A table without one cannot be
//! trusted, and is not looked at. What a table says of files is judged by the rules that hold for archives.
//!
//! This reads tables and gives no contents; `lazy` does that, and verifies each chunk before it is used.
//!
//! **Limits.** [`TABLE_BYTES_MAX`], [`TABLE_INFLATED_BYTES_MAX`], [`CHUNKS_MAX`], and those of archives; of all layers
//! of an image together, [`Budget`].

mod budget;
mod fetch;
mod place;
mod read;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::layer::unpack;
use crate::layer::{Meta, Special};

pub use self::budget::Budget;
pub use self::fetch::fetch;
pub use self::place::{Format, Place};
pub use self::read::read;

/// Of a table as it is stored; that of an image with half a million files has about 30 MiB.
pub const TABLE_BYTES_MAX: u64 = 64 << 20;
pub const TABLE_INFLATED_BYTES_MAX: u64 = 512 << 20;
/// Of one layer. Writers cut files every 64 KiB to 4 MiB.
pub const CHUNKS_MAX: usize = 16_000_000;
/// Ours, on a layer: so many of its first bytes hold the files that starts have touched.
pub const FIRST_USE_BYTES: &str = "dev.glowplug.first-use-bytes";

/// What a layer holds, in the order of its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toc {
    pub entries: Vec<TocEntry>,
    /// So many of the layer's first bytes are worth having before a start, as far as the layer says.
    pub first_use_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocEntry {
    /// As in [`Entry::path`](crate::layer::Entry::path).
    pub path: Vec<u8>,
    pub meta: Meta,
    pub kind: TocKind,
}

/// As [`EntryKind`](crate::layer::EntryKind), with places in the layer instead of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TocKind {
    Directory,
    File(TocFile),
    Symlink { target: Vec<u8> },
    HardLink { target: Vec<u8> },
    Special(Special),
    Whiteout,
    OpaqueDirectory,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TocFile {
    pub bytes: u64,
    /// Of the whole file. Each chunk has its own in any case.
    pub digest: Option<Digest>,
    /// In the order of the file, without gaps, from its first byte to its last. Empty for an empty file.
    pub chunks: Vec<Chunk>,
}

/// A part of a file that can be read and verified alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// In the file.
    pub offset: u64,
    /// Of the file, never 0.
    pub bytes: u64,
    pub data: ChunkData,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkData {
    Zeros,
    Stored {
        /// Where in the layer the compressed stream begins, and where at the latest it ends. What it inflates
        /// to may be longer than the chunk: the rest is another's.
        range: Range<u64>,
        /// Of what it inflates to.
        digest: Digest,
    },
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the annotation `{name}` is `{value}`, which is malformed")]
    Annotation { name: &'static str, value: String },
    #[error("the table of contents has {bytes} bytes, at most {limit} are allowed")]
    TooLong { bytes: u64, limit: u64 },
    #[error("the layer's end does not say where its table of contents is")]
    NoFooter,
    #[error("the table of contents is not what its digest says")]
    WrongDigest,
    #[error("the table of contents cannot be read: {problem}")]
    Malformed { problem: String },
    #[error("the table of contents names what no image may have: {0}")]
    Refused(std::sync::Arc<unpack::Error>),
    #[error("`{path}` {problem}")]
    File { path: String, problem: &'static str },
    #[error("the table of contents has more than {limit} {of}")]
    TooMany { of: &'static str, limit: u64 },
    #[error("the tables of contents of the image's layers have more than {limit} {of} together")]
    TooManyInAll { of: &'static str, limit: u64 },
    #[error(transparent)]
    Source(#[from] crate::source::Error),
}

impl From<unpack::Error> for Error {
    fn from(error: unpack::Error) -> Self {
        Self::Refused(std::sync::Arc::new(error))
    }
}

#[cfg(test)]
mod tests;
