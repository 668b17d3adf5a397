//! The files of an archive, in a folder or in a tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use sha2::Digest as _;

use super::Compression;
use crate::digest::Digest;
use crate::layer::archive::{Archive, Kind};

/// Files in a tar; an image has a few for each layer.
const MEMBERS_MAX: usize = 100_000;
/// Old archives have layers that are links to equal ones.
const LINKS_MAX: u32 = 8;
const COPY_BYTES: usize = 1 << 20;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

#[derive(Debug)]
pub(super) enum Place {
    Folder(File),
    Tar { file: Arc<File>, members: HashMap<String, Member> },
}

#[derive(Debug)]
pub(super) enum Member {
    File { offset: u64, bytes: u64 },
    Link(String),
}

/// One file of an archive.
#[derive(Clone, Debug)]
pub(super) struct Span {
    file: Arc<File>,
    offset: u64,
    pub(super) bytes: u64,
}

impl Place {
    pub(super) fn open(path: &Path, scratch: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Self::Folder(file));
        }
        let whole = Span { file: Arc::new(file), offset: 0, bytes: metadata.len() };
        let plain = match whole.compression()? {
            Compression::None => whole.file,
            compression => Arc::new(inflated(&whole, compression, scratch, bytes_max)?),
        };
        let members = members(&plain)?;
        Ok(Self::Tar { file: plain, members })
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.span(path).is_ok()
    }

    pub(super) fn span(&self, path: &str) -> io::Result<Span> {
        match self {
            Self::Folder(folder) => {
                // Links may lead to other places within, and never out.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = File::from(openat2(folder, path, flags, Mode::empty(), resolve)?);
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"));
                }
                Ok(Span { file: Arc::new(file), offset: 0, bytes: metadata.len() })
            }
            Self::Tar { file, members } => {
                let mut path = path;
                for _ in 0..LINKS_MAX {
                    match members.get(path) {
                        Some(Member::Link(target)) => path = target,
                        Some(Member::File { offset, bytes }) => {
                            return Ok(Span {
                                file: Arc::clone(file),
                                offset: *offset,
                                bytes: *bytes,
                            });
                        }
                        None => break,
                    }
                }
                Err(io::Error::new(io::ErrorKind::NotFound, "it is not in the archive"))
            }
        }
    }
}

impl Span {
    /// At most `bytes` of it from byte `from` on; less at its end only.
    pub(super) fn read(&self, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.bytes.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut read = vec![0; bytes.min(left)];
        self.file.read_exact_at(&mut read, self.offset + from)?;
        Ok(read)
    }

    pub(super) fn compression(&self) -> io::Result<Compression> {
        let start = self.read(0, ZSTD_MAGIC.len())?;
        Ok(if start.starts_with(GZIP_MAGIC) {
            Compression::Gzip
        } else if start.starts_with(ZSTD_MAGIC) {
            Compression::Zstd
        } else {
            Compression::None
        })
    }

    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut hasher = sha2::Sha256::new();
        let mut from = 0;
        loop {
            let chunk = self.read(from, COPY_BYTES)?;
            if chunk.is_empty() {
                return Ok(Digest::of_hash(hasher.finalize().into()));
            }
            hasher.update(&chunk);
            from += chunk.len() as u64;
        }
    }
}

fn inflated(
    whole: &Span,
    compression: Compression,
    scratch: &Path,
    bytes_max: u64,
) -> io::Result<File> {
    let compressed = &*whole.file;
    let mut plain = tempfile::tempfile_in(scratch)?;
    let limit = bytes_max.saturating_add(1);
    let bytes = if compression == Compression::Zstd {
        io::copy(&mut zstd::Decoder::new(compressed)?.take(limit), &mut plain)?
    } else {
        let buffered = io::BufReader::with_capacity(COPY_BYTES, compressed);
        let decoder = flate2::bufread::MultiGzDecoder::new(buffered);
        io::copy(&mut decoder.take(limit), &mut plain)?
    };
    if bytes > bytes_max {
        let message = format!("it inflates to more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    plain.rewind()?;
    Ok(plain)
}

fn members(file: &File) -> io::Result<HashMap<String, Member>> {
    let mut archive = Archive::new(Counted { file, bytes: 0 }, u64::MAX);
    let mut members = HashMap::new();
    while let Some(member) = archive.next()? {
        if members.len() >= MEMBERS_MAX {
            let message = format!("it has more than {MEMBERS_MAX} files");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let Some(path) = normal(&[], &member.path) else { continue };
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let found = match member.kind {
            Kind::File => {
                Some(Member::File { offset: archive.reader().bytes, bytes: member.bytes })
            }
            Kind::Symlink => normal(folder.as_bytes(), &member.target).map(Member::Link),
            Kind::HardLink => normal(&[], &member.target).map(Member::Link),
            _ => None,
        };
        members.extend(found.map(|found| (path, found)));
    }
    Ok(members)
}

/// A path as one from the archive's root. `None`: it leads out, or is no text.
fn normal(folder: &[u8], path: &[u8]) -> Option<String> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in folder.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    String::from_utf8(parts.join(&b'/')).ok()
}

/// How far a file was read.
#[derive(Debug)]
struct Counted<'f> {
    file: &'f File,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.bytes)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
