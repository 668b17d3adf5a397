//! One layer: pieces of an archive, compressed side by side, each into a frame of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::table::{Stored, StoredChunk};
use super::{BATCH_BYTES, Blob, CHUNK_BYTES, FIRST_USE_BYTES, header, order, table};
use crate::digest::Digest;
use crate::layer::EntryKind;
use crate::store::{Layer, Reader};
use crate::touched::Touched;

const WRITE_BYTES: usize = 1 << 20;
/// What ends an archive.
const END_BYTES: usize = 2 * header::BLOCK_BYTES;
const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
/// Before what a skipped frame holds.
const SKIPPED_HEAD_BYTES: u64 = 8;

/// What a layer is written from.
pub(super) struct Writing<'w> {
    pub(super) reader: &'w Reader,
    pub(super) layer: &'w Layer,
    pub(super) touched: &'w Touched,
    pub(super) level: i32,
}

/// What becomes a frame.
enum Piece {
    /// Headers and padding.
    Names(Vec<u8>),
    /// Of the content of this entry, from this byte on.
    Chunk { entry: usize, offset: u64, bytes: Vec<u8> },
    /// What starts touch ends here; no frame.
    FirstUseEnds,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Names(bytes) | Self::Chunk { bytes, .. } => bytes,
            Self::FirstUseEnds => &[],
        }
    }
}

impl Writing<'_> {
    pub(super) fn write(&self, scratch: &Path, tell: &mut dyn FnMut(u64)) -> io::Result<Blob> {
        let order = order::of(&self.layer.entries, self.touched);
        let out = Out {
            file: BufWriter::with_capacity(WRITE_BYTES, tempfile::tempfile_in(scratch)?),
            hash: Sha256::new(),
            position: 0,
        };
        let mut frames = Frames {
            out,
            plain: Sha256::new(),
            level: self.level,
            stored: vec![Stored::default(); order.entries.len()],
            open: None,
            batch: Vec::new(),
            batch_bytes: 0,
            first_use_bytes: None,
            tell,
        };
        let mut names = Vec::new();
        for (number, entry) in order.entries.iter().enumerate() {
            if order.first == Some(number) {
                frames.add(Piece::FirstUseEnds)?;
            }
            let EntryKind::File(content) = entry.kind else {
                names.extend(header::of(entry, 0)?);
                continue;
            };
            let bytes = content.bytes();
            names.extend(header::of(entry, bytes)?);
            if bytes == 0 {
                continue;
            }
            frames.add(Piece::Names(std::mem::take(&mut names)))?;
            let mut content = self.reader.content(self.layer, &content)?;
            let mut offset = 0;
            while offset < bytes {
                let piece = CHUNK_BYTES.min(bytes - offset);
                let mut chunk = vec![0; usize::try_from(piece).expect("a chunk fits into memory")];
                content.read_exact(&mut chunk)?;
                frames.add(Piece::Chunk { entry: number, offset, bytes: chunk })?;
                offset += piece;
            }
            let padding = bytes.next_multiple_of(header::BLOCK_BYTES as u64) - bytes;
            names.resize(usize::try_from(padding).expect("less than a block"), 0);
        }
        if order.first == Some(order.entries.len()) {
            frames.add(Piece::FirstUseEnds)?;
        }
        names.resize(names.len() + END_BYTES, 0);
        frames.add(Piece::Names(names))?;
        frames.finish(&order.entries)
    }
}

/// The layer as it is written.
struct Out {
    file: BufWriter<File>,
    hash: Sha256,
    position: u64,
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }
}

struct Frames<'t> {
    out: Out,
    /// Of the plain archive.
    plain: Sha256,
    level: i32,
    /// By entry.
    stored: Vec<Stored>,
    /// The entry of several chunks that comes now, and the hash of what came.
    open: Option<(usize, Sha256)>,
    batch: Vec<Piece>,
    batch_bytes: u64,
    first_use_bytes: Option<u64>,
    tell: &'t mut dyn FnMut(u64),
}

impl Frames<'_> {
    fn add(&mut self, piece: Piece) -> io::Result<()> {
        self.batch_bytes += piece.bytes().len() as u64;
        self.batch.push(piece);
        if self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Compresses what is there on all cores, and hashes the plain archive beside it.
    fn flush(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let level = self.level;
        let compress = || -> io::Result<Vec<(Vec<u8>, Option<Digest>)>> {
            let new = || zstd::bulk::Compressor::new(level);
            let each = |compressor: &mut io::Result<_>, piece: &Piece| {
                let compressor: &mut zstd::bulk::Compressor<'_> =
                    compressor.as_mut().map_err(|error| io::Error::other(error.to_string()))?;
                match piece {
                    Piece::FirstUseEnds => Ok((Vec::new(), None)),
                    Piece::Names(bytes) => Ok((compressor.compress(bytes)?, None)),
                    Piece::Chunk { bytes, .. } => {
                        let digest = Digest::of_hash(Sha256::digest(bytes).into());
                        Ok((compressor.compress(bytes)?, Some(digest)))
                    }
                }
            };
            batch.par_iter().map_init(new, each).collect()
        };
        let plain = &mut self.plain;
        let hash = || batch.iter().for_each(|piece| plain.update(piece.bytes()));
        let (frames, ()) = rayon::join(compress, hash);
        for (piece, (frame, digest)) in batch.iter().zip(frames?) {
            match piece {
                Piece::Names(_) => self.out.write(&frame)?,
                Piece::Chunk { entry, offset, bytes } => {
                    let digest = digest.expect("every chunk has one");
                    self.chunk(*entry, *offset, bytes, &frame, digest)?;
                }
                Piece::FirstUseEnds => self.first_use_bytes = Some(self.out.position),
            }
        }
        (self.tell)(self.batch_bytes);
        self.batch_bytes = 0;
        Ok(())
    }

    fn chunk(
        &mut self,
        entry: usize,
        offset: u64,
        bytes: &[u8],
        frame: &[u8],
        digest: Digest,
    ) -> io::Result<()> {
        let start = self.out.position;
        self.out.write(frame)?;
        let stored = &mut self.stored[entry];
        if offset == 0 {
            stored.digest = Some(digest.clone());
            self.open = Some((entry, Sha256::new()));
        }
        let (_, hash) = self.open.as_mut().expect("the first chunk of a file comes first");
        hash.update(bytes);
        if offset > 0 {
            stored.digest = Some(Digest::of_hash(hash.clone().finalize().into()));
        }
        stored.end = self.out.position;
        let bytes = bytes.len() as u64;
        stored.chunks.push(StoredChunk { offset, bytes, start, digest });
        Ok(())
    }

    fn finish(mut self, entries: &[crate::layer::Entry]) -> io::Result<Blob> {
        self.flush()?;
        let mut annotations = BTreeMap::new();
        if let Some(plain) = table::of(entries, &self.stored) {
            let table = zstd::bulk::compress(&plain, self.level)?;
            // A table that is too long for a frame is left out, and the layer is a plain one.
            if let Some(frame) = table::skipped(&table) {
                let (offset, bytes) = (self.out.position + SKIPPED_HEAD_BYTES, table.len() as u64);
                let plain_bytes = plain.len() as u64;
                self.out.write(&frame)?;
                let footer = table::footer(offset, bytes, plain_bytes);
                self.out.write(&table::skipped(&footer).expect("a footer is short"))?;
                let position = format!("{offset}:{bytes}:{plain_bytes}:{}", table::KIND);
                annotations.insert(POSITION.to_owned(), position);
                annotations.insert(CHECKSUM.to_owned(), Digest::of(&table).to_string());
                if let Some(bytes) = self.first_use_bytes {
                    annotations.insert(FIRST_USE_BYTES.to_owned(), bytes.to_string());
                }
            }
        }
        let Out { file, hash, position } = self.out;
        Ok(Blob {
            file: file.into_inner().map_err(io::IntoInnerError::into_error)?,
            digest: Digest::of_hash(hash.finalize().into()),
            bytes: position,
            diff_id: Digest::of_hash(self.plain.finalize().into()),
            annotations,
            first_use_bytes: self.first_use_bytes,
        })
    }
}
