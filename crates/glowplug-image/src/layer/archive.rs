//! Reads tar archives as layers are made: ustar, PAX and GNU, with an end marker or none.
//!
//! An archive is somebody else's: everything that is kept in memory has a limit, and what two readers could
//! understand differently is read as Go's `archive/tar` does, which made most layers.

mod extension;
mod header;
mod sparse;

use std::io::{self, Read};

use self::extension::Extensions;
use self::header::Header;
use self::sparse::{Holes, Sparse};

const BLOCK_BYTES: usize = 512;
/// Of one extended header; a name has 4 KiB and an attribute 64 KiB at most.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Extended headers before one member.
const EXTENSIONS_MAX: u32 = 16;
/// After the end marker. Tapes were written in blocks of 10 KiB.
const TRAILING_BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharacterDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    /// Its type as it is in the archive.
    Other(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) kind: Kind,
    /// Of its content, holes included.
    pub(crate) bytes: u64,
    pub(crate) mode: u16,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds since the Unix epoch.
    pub(crate) modified: (i64, u32),
    /// As they are in the archive.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) struct Archive<R> {
    reader: R,
    /// All that may be read; what is left of it.
    budget_bytes: u64,
    /// Of the present member's content as it is stored.
    content_bytes: u64,
    padding_bytes: u64,
    holes: Option<Holes>,
}

/// The limit on all bytes of the archive was reached.
#[derive(Debug, thiserror::Error)]
#[error("the archive is too long")]
pub(crate) struct TooLong;

impl<R: Read> Archive<R> {
    /// At most `bytes_max` are read.
    pub(crate) fn new(reader: R, bytes_max: u64) -> Self {
        Self { reader, budget_bytes: bytes_max, content_bytes: 0, padding_bytes: 0, holes: None }
    }

    /// After [`next`](Self::next) it stands where the content begins.
    pub(crate) fn reader(&self) -> &R {
        &self.reader
    }

    /// The next member, whatever of the last one's content was read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extensions = Extensions::default();
        for _ in 0..=EXTENSIONS_MAX {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                if extensions != Extensions::default() {
                    return Err(invalid("the archive ends before the member that it describes"));
                }
                return Ok(None);
            };
            match header.kind() {
                // Go's tools ignore them as well: `git archive` leaves a comment there.
                b'g' => self.expect(header.bytes()?),
                b'x' => extensions.read_pax(&self.extension(&header)?)?,
                b'L' => extensions.path = Some(until_nul(self.extension(&header)?)),
                b'K' => extensions.target = Some(until_nul(self.extension(&header)?)),
                _ => return self.member(&header, extensions).map(Some),
            }
        }
        Err(invalid("there are too many extended headers before one member"))
    }

    /// What follows the end marker belongs to the archive's digest all the same.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let trailing =
            io::copy(&mut (&mut self.reader).take(TRAILING_BYTES_MAX + 1), &mut io::sink())?;
        if trailing > TRAILING_BYTES_MAX {
            return Err(invalid("too much follows the end of the archive"));
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> io::Result<Member> {
        let mut member = header.member()?;
        let has_content = matches!(member.kind, Kind::File | Kind::Other(_));
        let stored = match extensions.bytes {
            Some(bytes) => bytes,
            None => header.bytes()?,
        };
        // What these say about their size means nothing, and no content follows.
        let stored = if has_content { stored } else { 0 };
        extensions.apply(&mut member);
        member.bytes = stored;
        if header.kind() == b'S' {
            let sparse = Sparse::read(header, || self.block())?;
            member.bytes = sparse.bytes;
            self.holes = Some(Holes::new(sparse, stored)?);
        }
        self.expect(stored);
        Ok(member)
    }

    fn expect(&mut self, bytes: u64) {
        self.content_bytes = bytes;
        self.padding_bytes = bytes.wrapping_neg() % BLOCK_BYTES as u64;
    }

    /// `None`: the end, marked or not.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK_BYTES];
        let filled = fill(&mut self.reader, &mut block)?;
        if filled == 0 || (filled == BLOCK_BYTES && block == [0; BLOCK_BYTES]) {
            return Ok(None);
        }
        if filled < BLOCK_BYTES {
            return Err(early_end("it ends in the middle of a header"));
        }
        self.spend(BLOCK_BYTES as u64)?;
        Header::read(&block).map(Some)
    }

    fn block(&mut self) -> io::Result<[u8; BLOCK_BYTES]> {
        let mut block = [0; BLOCK_BYTES];
        self.spend(BLOCK_BYTES as u64)?;
        self.reader.read_exact(&mut block)?;
        Ok(block)
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let bytes = header.bytes()?;
        if bytes > EXTENSION_BYTES_MAX {
            return Err(invalid(&format!(
                "an extended header has {bytes} bytes, at most {EXTENSION_BYTES_MAX} are allowed"
            )));
        }
        self.expect(bytes);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip_content(&mut self) -> io::Result<()> {
        self.holes = None;
        io::copy(self, &mut io::sink())?;
        // The last one may be left out with the end marker.
        let padding = std::mem::take(&mut self.padding_bytes);
        let skipped = io::copy(&mut (&mut self.reader).take(padding), &mut io::sink())?;
        self.spend(skipped)
    }

    fn spend(&mut self, bytes: u64) -> io::Result<()> {
        let left = self.budget_bytes.checked_sub(bytes);
        self.budget_bytes = left.ok_or_else(|| io::Error::other(TooLong))?;
        Ok(())
    }

    /// Of the content as it is stored.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.content_bytes).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..wanted])?;
        if read == 0 {
            let left = self.content_bytes;
            return Err(early_end(&format!("it ends {left} bytes before its file does")));
        }
        self.content_bytes -= read as u64;
        self.spend(read as u64)?;
        Ok(read)
    }
}

/// The content of the present member: never short without an error.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut holes) = self.holes.take() else { return self.read_stored(buffer) };
        let read = holes.read(buffer, |buffer| self.read_stored(buffer));
        self.holes = Some(holes);
        read
    }
}

/// As much as there is.
fn fill(reader: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn early_end(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

#[cfg(test)]
mod tests;
