//! Writes a file tree as an EROFS image: a read-only file system that the kernel mounts straight from a file.
//!
//! ```text
//! superblock | inodes, each with its attributes and the tail of its data | whole blocks of data
//! ```
//!
//! Small files are in the image. A large one is an inode with its size and no blocks, and names its content in
//! the store by attributes of overlayfs: under an overlay whose data-only lower layer is the store, it reads
//! as if it were here. So an image with gigabytes of content is a few megabytes, and written in one pass.
//! Uncompressed: what is small and read at a start is wanted without a detour.
//!
//! Format: the kernel's `fs/erofs/erofs_fs.h`. Everything is little-endian; inodes are of the extended kind.

mod attributes;
mod directory;
mod layout;
mod superblock;
mod write;

use std::io;

use crate::layer::Slice;

pub use write::write;

/// The size of a block, in bytes; every kernel with EROFS takes it.
pub const BLOCK_BYTES: u64 = BLOCK_LEN as u64;
const BLOCK_LEN: usize = 4096;

/// Where the contents of small files are read from.
pub trait Packs {
    /// Fills `into` with the bytes of the layer's pack from `offset` on.
    fn read(&self, layer: u32, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    pub inodes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    #[error("cannot read the content of a small file: bytes {} to {} of layer {layer}", slice.offset, slice.offset + u64::from(slice.bytes))]
    Read {
        layer: u32,
        slice: Slice,
        #[source]
        source: io::Error,
    },
    #[error("the extended attribute `{name}` is of a kind that an image cannot have")]
    UnknownAttribute { name: String },
    #[error(
        "the extended attributes of one file take {bytes} bytes, at most {} are possible",
        attributes::BYTES_MAX
    )]
    AttributesTooLong { bytes: usize },
    #[error("a file name has {bytes} bytes, at most {} are possible", directory::NAME_BYTES_MAX)]
    NameTooLong { bytes: usize },
    #[error("a file of {bytes} bytes is larger than an image can say")]
    FileTooLarge { bytes: u64 },
    #[error("the tree needs {blocks} blocks, more than an image can have")]
    ImageTooLarge { blocks: u64 },
}
