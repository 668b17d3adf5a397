//! What a layer of an image holds, entry by entry, in the order of its archive.

pub(crate) mod archive;
pub(crate) mod name;
pub mod unpack;

use serde::{Deserialize, Serialize};

use crate::ContentId;

/// One entry of a layer's archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the root, without `.`, `..`, empty parts and a slash at either end. Empty: the root itself.
    pub path: Vec<u8>,
    pub meta: Meta,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    Directory,
    File(Content),
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of a file of this layer, or of one below.
    HardLink {
        target: Vec<u8>,
    },
    Special(Special),
    /// What layers below have under this path is gone. The path is that of the victim.
    Whiteout,
    /// What layers below have in this directory is gone.
    OpaqueDirectory,
}

/// What is neither directory, file nor link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Special {
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    Empty,
    /// In the pack of small files of a layer.
    Packed(Slice),
    /// In the store of contents, shared between all images.
    Shared {
        id: ContentId,
        bytes: u64,
    },
    /// With the filler of an image that is started before it is here. Never in the index of a layer.
    Late {
        number: u32,
        bytes: u64,
    },
}

impl Content {
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Packed(slice) => slice.bytes as u64,
            Self::Shared { bytes, .. } | Self::Late { bytes, .. } => *bytes,
        }
    }
}

/// A part of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// In bytes from the start of the pack.
    pub offset: u64,
    pub bytes: u32,
}

/// What an inode says beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permissions with set-uid, set-gid and sticky: the lower 12 bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the Unix epoch.
    pub modified: (i64, u32),
    /// Full names and values, sorted by name, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
