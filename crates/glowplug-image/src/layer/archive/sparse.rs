//! Files with holes, in the form that GNU's tar has had for longest: a map in the header and the blocks after it.

use std::io;

use super::header::{Header, number};
use super::{BLOCK_BYTES, invalid};

/// Parts between holes in one file.
const PARTS_MAX: usize = 1 << 16;
const FIELD_BYTES: usize = 12;
const MAP_AT: usize = 386;
const MAP_PARTS: usize = 4;
const HAS_MORE_AT: usize = 482;
const REAL_BYTES_AT: usize = 483;
const MORE_PARTS: usize = 21;
const MORE_HAS_MORE_AT: usize = 504;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Of the file with its holes.
    pub(super) bytes: u64,
    /// Offset and length of each part that is stored, in bytes.
    parts: Vec<(u64, u64)>,
}

impl Sparse {
    pub(super) fn read(
        header: &Header,
        mut more: impl FnMut() -> io::Result<[u8; BLOCK_BYTES]>,
    ) -> io::Result<Self> {
        let block = header.block();
        let bytes = field(block, REAL_BYTES_AT)?;
        let mut parts = Vec::new();
        add(&mut parts, &block[MAP_AT..], MAP_PARTS)?;
        let mut has_more = block[HAS_MORE_AT] != 0;
        while has_more {
            let block = more()?;
            add(&mut parts, &block, MORE_PARTS)?;
            if parts.len() > PARTS_MAX {
                return Err(invalid("a file has too many holes"));
            }
            has_more = block[MORE_HAS_MORE_AT] != 0;
        }
        Ok(Self { bytes, parts })
    }
}

fn add(parts: &mut Vec<(u64, u64)>, map: &[u8], count: usize) -> io::Result<()> {
    for part in 0..count {
        let at = part * 2 * FIELD_BYTES;
        // The first blank entry ends the map.
        if map[at] == 0 {
            break;
        }
        parts.push((field(map, at)?, field(map, at + FIELD_BYTES)?));
    }
    Ok(())
}

fn field(block: &[u8], at: usize) -> io::Result<u64> {
    let number = number(&block[at..at + FIELD_BYTES])?;
    u64::try_from(number).map_err(|_| invalid("a file has a negative size"))
}

/// Reads the file with zeros where its holes are.
#[derive(Debug)]
pub(super) struct Holes {
    sparse: Sparse,
    position: u64,
    /// The part that comes next, or goes on.
    next: usize,
}

impl Holes {
    /// The map must fit the file and what is `stored` of it.
    pub(super) fn new(sparse: Sparse, stored: u64) -> io::Result<Self> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, bytes) in &sparse.parts {
            let next =
                offset.checked_add(*bytes).filter(|next| *offset >= end && *next <= sparse.bytes);
            end = next.ok_or_else(|| invalid("a file's map of holes makes no sense"))?;
            sum += bytes;
        }
        if sum != stored {
            return Err(invalid("a file's map of holes does not fit its content"));
        }
        Ok(Self { sparse, position: 0, next: 0 })
    }

    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        stored: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        while let Some((offset, bytes)) = self.sparse.parts.get(self.next)
            && self.position >= offset + bytes
        {
            self.next += 1;
        }
        let part = self.sparse.parts.get(self.next);
        let (is_hole, end) = match part {
            Some((offset, bytes)) if self.position >= *offset => (false, offset + bytes),
            Some((offset, _)) => (true, *offset),
            None => (true, self.sparse.bytes),
        };
        let wanted = usize::try_from(end - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..wanted];
        let read = if is_hole {
            buffer.fill(0);
            wanted
        } else {
            stored(buffer)?
        };
        self.position += read as u64;
        Ok(read)
    }
}
