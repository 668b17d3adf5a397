//! Where everything goes, decided before a byte is written.

use std::collections::HashMap;

use super::attributes::Attributes;
use super::directory::Directory;
use super::{BLOCK_BYTES, Error, superblock};
use crate::layer::Content;
use crate::tree::{NodeId, NodeKind, Tree};

pub(super) const INODE_BYTES: u64 = 64;
/// Inodes begin at multiples of it; the number of an inode is its offset in this unit.
const SLOT_BYTES: u64 = 32;
/// The entry of a chunk that is not in the image.
pub(super) const CHUNK_ENTRY_BYTES: u64 = 4;
const CHUNK_BITS_MAX: u16 = 31;

/// The place of an inode, in bytes from the start of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(pub(super) u64);

impl Position {
    pub(super) const fn number(self) -> u64 {
        self.0 / SLOT_BYTES
    }
}

#[derive(Debug)]
pub(super) struct Planned<'t> {
    pub(super) node: NodeId,
    pub(super) position: Position,
    pub(super) attributes: Attributes,
    pub(super) body: Body<'t>,
    pub(super) place: Place,
    pub(super) links: u32,
}

/// What an inode's data is.
#[derive(Debug)]
pub(super) enum Body<'t> {
    Nothing,
    Directory(Directory<'t>),
    Link(&'t [u8]),
    Packed(crate::layer::Slice),
}

impl Body<'_> {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Directory(directory) => directory.bytes(),
            Self::Link(target) => target.len() as u64,
            Self::Packed(slice) => u64::from(slice.bytes),
        }
    }
}

/// Where an inode's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In whole blocks from the first one on, and in `tail_bytes` after the inode.
    Here { first_block: u64, blocks: u64, tail_bytes: u64 },
    /// In the store: one absent chunk of 2^(12 + `chunk_bits`) bytes covers the file.
    Elsewhere { bytes: u64, chunk_bits: u16 },
}

#[derive(Debug)]
pub(super) struct Layout<'t> {
    /// In the order of their positions.
    pub(super) inodes: Vec<Planned<'t>>,
    pub(super) positions: HashMap<NodeId, Position>,
    /// Where the blocks of data begin, a multiple of the block size.
    pub(super) data_start: u64,
    pub(super) blocks: u32,
}

impl<'t> Layout<'t> {
    pub(super) fn of(tree: &'t Tree) -> Result<Self, Error> {
        let links = tree.link_counts();
        let parents = parents(tree);
        let mut inodes = Vec::new();
        let mut positions = HashMap::new();
        let mut end = (superblock::OFFSET + superblock::BYTES) as u64;
        for node in tree.walk() {
            let parent = parents.get(&node).copied().unwrap_or(NodeId::ROOT);
            let links = links.get(&node).copied().unwrap_or(1);
            let planned = plan(tree, node, parent, links, end)?;
            positions.insert(node, planned.position);
            end = planned.end();
            inodes.push(planned);
        }
        let data_start = end.next_multiple_of(BLOCK_BYTES);
        let mut block = data_start / BLOCK_BYTES;
        for planned in &mut inodes {
            if let Place::Here { first_block, blocks, .. } = &mut planned.place {
                *first_block = if *blocks == 0 { 0 } else { block };
                block += *blocks;
            }
        }
        let blocks = u32::try_from(block).map_err(|_| Error::ImageTooLarge { blocks: block })?;
        Ok(Self { inodes, positions, data_start, blocks })
    }
}

impl Planned<'_> {
    /// The bytes after the inode's own: attributes, and the tail or the chunk.
    fn end(&self) -> u64 {
        let after = match self.place {
            Place::Here { tail_bytes, .. } => tail_bytes,
            Place::Elsewhere { .. } => CHUNK_ENTRY_BYTES,
        };
        self.position.0 + INODE_BYTES + self.attributes.as_bytes().len() as u64 + after
    }
}

fn plan(
    tree: &Tree,
    node: NodeId,
    parent: NodeId,
    links: u32,
    end: u64,
) -> Result<Planned<'_>, Error> {
    let content = &tree.node(node).kind;
    let (body, elsewhere) = match content {
        NodeKind::Directory(children) => {
            (Body::Directory(Directory::new(node, parent, children)?), None)
        }
        NodeKind::Symlink(target) => (Body::Link(target), None),
        NodeKind::File(Content::Packed(slice)) => (Body::Packed(*slice), None),
        NodeKind::File(Content::Shared { id, bytes }) => {
            (Body::Nothing, Some((id.relative_path(), *bytes)))
        }
        NodeKind::File(Content::Late { number, bytes }) => {
            (Body::Nothing, Some((crate::lazy::relative_path(*number), *bytes)))
        }
        NodeKind::File(Content::Empty) | NodeKind::Special(_) => (Body::Nothing, None),
    };
    let redirect = elsewhere.as_ref().map(|(path, _)| path.as_str());
    let attributes = Attributes::of(&tree.node(node).meta.xattrs, redirect)?;
    let header = INODE_BYTES + attributes.as_bytes().len() as u64;
    let (place, position) = match elsewhere {
        Some((_, bytes)) => (absent(bytes)?, place_header(end)),
        None => place_data(body.bytes(), header, end),
    };
    Ok(Planned { node, position, attributes, body, place, links })
}

/// Splits data into blocks and a tail. A tail lies after its inode and within one block, so one that would
/// not fit is a block of its own.
fn place_data(bytes: u64, header: u64, end: u64) -> (Place, Position) {
    let tail_bytes = bytes % BLOCK_BYTES;
    if tail_bytes == 0 || header + tail_bytes > BLOCK_BYTES {
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        return (Place::Here { first_block: 0, blocks, tail_bytes: 0 }, place_header(end));
    }
    let mut position = place_header(end);
    if (position.0 + header) % BLOCK_BYTES + tail_bytes > BLOCK_BYTES {
        position = Position(position.0.next_multiple_of(BLOCK_BYTES));
    }
    (Place::Here { first_block: 0, blocks: bytes / BLOCK_BYTES, tail_bytes }, position)
}

/// The next place where an inode fits into one block.
fn place_header(end: u64) -> Position {
    let position = end.next_multiple_of(SLOT_BYTES);
    if position % BLOCK_BYTES + INODE_BYTES > BLOCK_BYTES {
        return Position(position.next_multiple_of(BLOCK_BYTES));
    }
    Position(position)
}

fn absent(bytes: u64) -> Result<Place, Error> {
    let covers = |chunk_bits: u16| bytes.div_ceil(BLOCK_BYTES) <= 1 << chunk_bits;
    let chunk_bits = (0..=CHUNK_BITS_MAX).find(|bits| covers(*bits));
    let chunk_bits = chunk_bits.ok_or(Error::FileTooLarge { bytes })?;
    Ok(Place::Elsewhere { bytes, chunk_bits })
}

/// The directory that each directory is in.
fn parents(tree: &Tree) -> HashMap<NodeId, NodeId> {
    let mut parents = HashMap::new();
    for directory in tree.walk() {
        if let NodeKind::Directory(children) = &tree.node(directory).kind {
            parents.extend(children.values().map(|child| (*child, directory)));
        }
    }
    parents
}
