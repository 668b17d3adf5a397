//! The superblock.

use super::layout::Position;

/// Where it is, in bytes from the start of the image.
pub(super) const OFFSET: usize = 1024;
pub(super) const BYTES: usize = 128;

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
/// Files may be made of chunks, which may be absent.
const INCOMPATIBLE_CHUNKED_FILES: u32 = 0x4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Superblock {
    pub(super) root: Position,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(12, &[BLOCK_BITS]);
        let root = u16::try_from(self.root.number()).expect("the root is the first inode");
        put(14, &root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(80, &INCOMPATIBLE_CHUNKED_FILES.to_le_bytes());
        bytes
    }
}
