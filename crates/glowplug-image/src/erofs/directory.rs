//! Directories: blocks of entries, each block with its names at the end, sorted over the whole directory.

use std::collections::BTreeMap;
use std::ops::Range;

use super::layout::Position;
use super::{BLOCK_LEN, Error};
use crate::layer::Special;
use crate::tree::{Node, NodeId, NodeKind};

/// The kernel's own limit.
pub(super) const NAME_BYTES_MAX: usize = 255;

const ENTRY_BYTES: usize = 12;

/// A directory whose entries are spread over blocks, before it is known where its children are.
#[derive(Debug)]
pub(super) struct Directory<'t> {
    /// `.` and `..` among them, in the order of their bytes.
    entries: Vec<(&'t [u8], NodeId)>,
    blocks: Vec<Range<usize>>,
    bytes: u64,
}

impl<'t> Directory<'t> {
    pub(super) fn new(
        this: NodeId,
        parent: NodeId,
        children: &'t BTreeMap<Vec<u8>, NodeId>,
    ) -> Result<Self, Error> {
        let mut entries: Vec<(&[u8], NodeId)> = vec![(b".", this), (b"..", parent)];
        entries.extend(children.iter().map(|(name, child)| (name.as_slice(), *child)));
        // Some names come before the dots.
        entries.sort_unstable_by_key(|(name, _)| *name);
        let mut blocks = Vec::new();
        let (mut start, mut used) = (0, 0);
        for (at, (name, _)) in entries.iter().enumerate() {
            if name.len() > NAME_BYTES_MAX {
                return Err(Error::NameTooLong { bytes: name.len() });
            }
            let needed = ENTRY_BYTES + name.len();
            if used + needed > BLOCK_LEN {
                blocks.push(start..at);
                (start, used) = (at, 0);
            }
            used += needed;
        }
        let bytes = (blocks.len() * BLOCK_LEN + used) as u64;
        blocks.push(start..entries.len());
        Ok(Self { entries, blocks, bytes })
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The content: every block but the last is full, padded with zeros.
    pub(super) fn content(&self, describe: impl Fn(NodeId) -> (Position, FileType)) -> Vec<u8> {
        let mut content = Vec::with_capacity(self.blocks.len() * BLOCK_LEN);
        for block in &self.blocks {
            content.resize(content.len().next_multiple_of(BLOCK_LEN), 0);
            let entries = &self.entries[block.clone()];
            let mut name_offset = entries.len() * ENTRY_BYTES;
            for (name, node) in entries {
                let (position, file_type) = describe(*node);
                content.extend(position.number().to_le_bytes());
                let offset = u16::try_from(name_offset).expect("a block is shorter than that");
                content.extend(offset.to_le_bytes());
                content.extend([file_type.0, 0]);
                name_offset += name.len();
            }
            for (name, _) in entries {
                content.extend(*name);
            }
        }
        content
    }
}

/// What an entry says of its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileType(u8);

impl FileType {
    pub(super) const fn of(node: &Node) -> Self {
        Self(match &node.kind {
            NodeKind::File(_) => 1,
            NodeKind::Directory(_) => 2,
            NodeKind::Special(Special::CharacterDevice { .. }) => 3,
            NodeKind::Special(Special::BlockDevice { .. }) => 4,
            NodeKind::Special(Special::Fifo) => 5,
            NodeKind::Special(Special::Socket) => 6,
            NodeKind::Symlink(_) => 7,
        })
    }

    /// The bits of the mode that say the same.
    pub(super) const fn mode_bits(self) -> u16 {
        match self.0 {
            1 => 0o100_000,
            2 => 0o040_000,
            3 => 0o020_000,
            4 => 0o060_000,
            5 => 0o010_000,
            6 => 0o140_000,
            _ => 0o120_000,
        }
    }
}
