//! Inflates chunks from a run of a layer's bytes, and compares each with its digest.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

use super::plan::{ChunkId, Chunks};
use super::{Error, Result, failed};
use crate::digest::Digest;
use crate::source::Compression;

const COPY_BYTES: usize = 64 << 10;

/// Reads the layer from the first chunk's beginning on, writes each chunk to its place in the cache, and says
/// which were what their digests say. A chunk that is not does not keep the others from coming; the first such
/// error is returned.
pub(super) fn inflate(
    chunks: &Chunks,
    ids: &[ChunkId],
    compression: Compression,
    bytes: impl Read,
    cache: &File,
    mut arrived: impl FnMut(ChunkId),
) -> Result<()> {
    let mut bytes = BufReader::with_capacity(COPY_BYTES, bytes);
    let mut at = ids.first().map_or(0, |id| chunks.chunk(*id).range.start);
    let mut outcome = Ok(());
    for &id in ids {
        let range = chunks.chunk(id).range.clone();
        let unread = failed("read a layer");
        io::copy(&mut (&mut bytes).take(range.start - at), &mut io::sink()).map_err(unread)?;
        let mut part = (&mut bytes).take(range.end - range.start);
        let is_right = one(chunks, id, compression, &mut part, cache)?;
        // What is not needed of it lies before the next one all the same.
        io::copy(&mut part, &mut io::sink()).map_err(failed("read a layer"))?;
        at = range.end;
        if is_right {
            arrived(id);
        } else if outcome.is_ok() {
            outcome = Err(Error::WrongBytes { path: chunks.path(id) });
        }
    }
    outcome
}

/// `false`: what came is something else.
fn one(
    chunks: &Chunks,
    id: ChunkId,
    compression: Compression,
    part: &mut impl BufRead,
    cache: &File,
) -> Result<bool> {
    // A source that breaks is told from a stream that cannot be inflated.
    let mut part = Watched { from: part, broken: None };
    let copied = match compression {
        Compression::None => copy(chunks, id, &mut part, cache),
        Compression::Gzip => copy(chunks, id, flate2::bufread::GzDecoder::new(&mut part), cache),
        Compression::Zstd => match zstd::Decoder::with_buffer(&mut part) {
            Ok(decoder) => copy(chunks, id, decoder, cache),
            Err(_) => Ok(false),
        },
    };
    match part.broken {
        Some(error) => Err(failed("read a layer")(error)),
        None => copied,
    }
}

fn copy(chunks: &Chunks, id: ChunkId, mut from: impl Read, cache: &File) -> Result<bool> {
    let chunk = chunks.chunk(id);
    let (mut place, mut left) = (chunks.place(id), chunk.bytes);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_BYTES);
        // An error is one of the stream's form: those of its source are kept apart.
        let Ok(read @ 1..) = from.read(&mut buffer[..wanted]) else { return Ok(false) };
        hasher.update(&buffer[..read]);
        cache.write_all_at(&buffer[..read], place).map_err(failed("write the cache"))?;
        place += read as u64;
        left -= read as u64;
    }
    Ok(Digest::of_hash(hasher.finalize().into()) == chunk.digest)
}

struct Watched<'f, R> {
    from: &'f mut R,
    broken: Option<io::Error>,
}

impl<R: BufRead> Watched<'_, R> {
    fn keep(&mut self, error: io::Error) -> io::Error {
        let copy = io::Error::from(error.kind());
        if error.kind() != io::ErrorKind::Interrupted {
            self.broken = Some(error);
        }
        copy
    }
}

impl<R: BufRead> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|error| self.keep(error))
    }
}

impl<R: BufRead> BufRead for Watched<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(error) = self.from.fill_buf() {
            return Err(self.keep(error));
        }
        self.from.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.from.consume(bytes);
    }
}
