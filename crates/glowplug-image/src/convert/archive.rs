//! A plain archive of files that are written one after the other.

use std::io::{self, Read, Write};

use super::header::{self, BLOCK_BYTES};
use crate::layer::{Content, Entry, EntryKind, Meta};

pub(super) struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    pub(super) fn add(&mut self, name: &str, bytes: u64, content: impl Read) -> io::Result<()> {
        let meta = Meta { mode: 0o644, ..Meta::default() };
        let kind = EntryKind::File(Content::Empty);
        let entry = Entry { path: name.as_bytes().to_vec(), meta, kind };
        self.out.write_all(&header::of(&entry, bytes)?)?;
        let written = io::copy(&mut content.take(bytes), &mut self.out)?;
        if written != bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let block = BLOCK_BYTES as u64;
        let padding = bytes.next_multiple_of(block) - bytes;
        io::copy(&mut io::repeat(0).take(padding), &mut self.out).map(drop)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush()?;
        Ok(self.out)
    }
}
