//! Writes what was laid out, from the first byte to the last.

use std::io::{self, Write};

use super::directory::FileType;
use super::layout::{Body, Layout, Place, Planned};
use super::superblock::{self, Superblock};
use super::{BLOCK_BYTES, BLOCK_LEN, Error, Packs, Written};
use crate::layer::{Slice, Special};
use crate::tree::{NodeId, NodeKind, Tree};

const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
const LAYOUT_CHUNKED: u16 = 4;
const VERSION_EXTENDED: u16 = 1;
const ABSENT_CHUNK: u32 = u32::MAX;

/// Writes the tree's image to `out`, which starts empty. Equal trees give equal images.
pub fn write(tree: &Tree, packs: &dyn Packs, out: impl Write) -> Result<Written, Error> {
    let layout = Layout::of(tree)?;
    let mut writer = Writer { tree, packs, layout: &layout, out: Counted { out, bytes: 0 } };
    writer.superblock()?;
    for planned in &layout.inodes {
        writer.inode(planned)?;
    }
    writer.pad_to(layout.data_start)?;
    for planned in &layout.inodes {
        writer.blocks(planned)?;
    }
    writer.out.flush().map_err(Error::Write)?;
    Ok(Written { bytes: writer.out.bytes, inodes: layout.inodes.len() as u64 })
}

struct Writer<'a, W> {
    tree: &'a Tree,
    packs: &'a dyn Packs,
    layout: &'a Layout<'a>,
    out: Counted<W>,
}

impl<W: Write> Writer<'_, W> {
    fn superblock(&mut self) -> Result<(), Error> {
        let superblock = Superblock {
            root: self.layout.positions[&NodeId::ROOT],
            inodes: self.layout.inodes.len() as u64,
            blocks: self.layout.blocks,
        };
        self.pad_to(superblock::OFFSET as u64)?;
        self.put(&superblock.encode())
    }

    /// The inode, its attributes, and the tail of its data.
    fn inode(&mut self, planned: &Planned<'_>) -> Result<(), Error> {
        self.pad_to(planned.position.0)?;
        let header = self.header(planned);
        self.put(&header)?;
        self.put(planned.attributes.as_bytes())?;
        match planned.place {
            Place::Here { tail_bytes: 0, .. } => Ok(()),
            Place::Here { blocks, .. } => {
                let start = blocks * BLOCK_BYTES;
                let tail = self.data(planned, start, planned.body.bytes())?;
                self.put(&tail)
            }
            Place::Elsewhere { .. } => self.put(&ABSENT_CHUNK.to_le_bytes()),
        }
    }

    fn blocks(&mut self, planned: &Planned<'_>) -> Result<(), Error> {
        let Place::Here { first_block, blocks: 1.., tail_bytes } = planned.place else {
            return Ok(());
        };
        self.pad_to(first_block * BLOCK_BYTES)?;
        let data = self.data(planned, 0, planned.body.bytes() - tail_bytes)?;
        self.put(&data)?;
        self.pad_to(self.out.bytes.next_multiple_of(BLOCK_BYTES))
    }

    fn header(&self, planned: &Planned<'_>) -> [u8; 64] {
        let node = self.tree.node(planned.node);
        let (layout, data, bytes) = match planned.place {
            Place::Here { tail_bytes: 0, first_block, .. } => {
                (LAYOUT_PLAIN, block_number(first_block), planned.body.bytes())
            }
            Place::Here { first_block, .. } => {
                (LAYOUT_INLINE, block_number(first_block), planned.body.bytes())
            }
            Place::Elsewhere { bytes, chunk_bits } => {
                (LAYOUT_CHUNKED, u32::from(chunk_bits), bytes)
            }
        };
        let data = match node.kind {
            NodeKind::Special(special) => device_number(special),
            _ => data,
        };
        let mode = FileType::of(node).mode_bits() | (node.meta.mode & 0o7777);
        let number = u32::try_from(planned.node.index() + 1).expect("a tree has fewer nodes");
        let (seconds, nanoseconds) = node.meta.modified;
        let mut header = [0; 64];
        let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
        put(0, &(VERSION_EXTENDED | layout << 1).to_le_bytes());
        put(2, &planned.attributes.count().to_le_bytes());
        put(4, &mode.to_le_bytes());
        put(8, &bytes.to_le_bytes());
        put(16, &data.to_le_bytes());
        put(20, &number.to_le_bytes());
        put(24, &node.meta.uid.to_le_bytes());
        put(28, &node.meta.gid.to_le_bytes());
        put(32, &seconds.to_le_bytes());
        put(40, &nanoseconds.to_le_bytes());
        put(44, &planned.links.to_le_bytes());
        header
    }

    /// The node's data from byte `start` to byte `end`.
    fn data(&self, planned: &Planned<'_>, start: u64, end: u64) -> Result<Vec<u8>, Error> {
        let part = |whole: &[u8]| whole[to_index(start)..to_index(end)].to_vec();
        match &planned.body {
            Body::Nothing => Ok(Vec::new()),
            Body::Link(target) => Ok(part(target)),
            Body::Directory(directory) => Ok(part(&directory.content(|child| {
                (self.layout.positions[&child], FileType::of(self.tree.node(child)))
            }))),
            Body::Packed(slice) => self.packed(planned.node, *slice, start, end),
        }
    }

    fn packed(&self, node: NodeId, slice: Slice, start: u64, end: u64) -> Result<Vec<u8>, Error> {
        let layer = self.tree.node(node).layer;
        let mut data = vec![0; to_index(end - start)];
        let read = self.packs.read(layer, slice.offset + start, &mut data);
        read.map_err(|source| Error::Read { layer, slice, source })?;
        Ok(data)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Write)
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), Error> {
        const ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];
        debug_assert!(self.out.bytes <= offset, "the layout does not overlap");
        let missing = to_index(offset - self.out.bytes);
        self.put(&ZEROS[..missing])
    }
}

/// A position within one file or directory of an image, all of which is in memory.
fn to_index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it is in memory")
}

fn block_number(block: u64) -> u32 {
    u32::try_from(block).expect("the number of blocks was checked")
}

/// As the kernel writes a device's number into 32 bits.
fn device_number(special: Special) -> u32 {
    match special {
        Special::CharacterDevice { major, minor } | Special::BlockDevice { major, minor } => {
            (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
        }
        Special::Fifo | Special::Socket => 0,
    }
}

struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
