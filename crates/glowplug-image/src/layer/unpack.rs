//! Reads a layer's archive, and puts what it holds where the image will find it.
//!
//! Nothing is unpacked under a name from the archive, so no entry can reach out of anything: names are
//! checked and written down in the index, contents go to the store by their hash, and small ones to the
//! layer's pack.

use std::io::{self, Read, Write};

use tar::{Archive, EntryType, Header};

use super::name::{self, Name};
use super::{Content, Entry, EntryKind, Meta, Slice, Special};
use crate::contents::Pins;

/// Files from this size on are shared between images; smaller ones would cost more as files than they save.
pub const SHARED_BYTES_MIN: u64 = 32 << 10;
/// Attributes that an image can have. Others say something about the machine that packed it.
const XATTRS: [&[u8]; 3] = [b"user.", b"security.capability", b"system.posix_acl_"];
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";

/// What a layer may be at most. The defaults are far above what images are in practice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all its files together, inflated.
    pub bytes_max: u64,
    pub file_bytes_max: u64,
    pub entries_max: u64,
    pub devices: Devices,
}

/// What becomes of device nodes in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    Refused,
    /// They are in the image; whether a runner may open them is the sandbox's business.
    Kept,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 512 << 30,
            file_bytes_max: 256 << 30,
            entries_max: 4_000_000,
            devices: Devices::Refused,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    #[error("cannot store `{path}`")]
    Store {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` leads out of the image")]
    Outside { path: String },
    #[error("`{path}` has more than {} bytes in its name", name::PATH_BYTES_MAX)]
    NameTooLong { path: String },
    #[error(
        "`{path}` is a device, which images may not bring: mount the device into the app instead"
    )]
    Device { path: String },
    #[error("`{path}` is a {kind}, which an image cannot hold")]
    Unsupported { path: String, kind: String },
    #[error("`{path}` has {bytes} bytes, at most {limit} are allowed")]
    FileTooLarge { path: String, bytes: u64, limit: u64 },
    #[error("it inflates to more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("it has more than {limit} files")]
    TooManyEntries { limit: u64 },
}

/// What a layer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// In the order of the archive.
    pub entries: Vec<Entry>,
    /// Of all files together.
    pub bytes: u64,
    /// Of these, in the pack.
    pub packed_bytes: u64,
    /// Of these, in contents that were in the store before.
    pub known_bytes: u64,
}

/// Reads the archive to its end, an end marker or none. Blocking.
pub fn unpack(
    archive: impl Read,
    pins: &mut Pins,
    pack: impl Write,
    limits: &Limits,
) -> Result<Unpacked, Error> {
    let unpacked = Unpacked { entries: Vec::new(), bytes: 0, packed_bytes: 0, known_bytes: 0 };
    let mut unpacking = Unpacking { pins, pack, limits, unpacked };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(Error::Archive)? {
        let mut entry = entry.map_err(Error::Archive)?;
        unpacking.entry(&mut entry)?;
    }
    // What follows the end marker belongs to the layer's digest all the same.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Error::Archive)?;
    unpacking
        .pack
        .flush()
        .map_err(|source| Error::Store { path: "the pack".to_owned(), source })?;
    Ok(unpacking.unpacked)
}

struct Unpacking<'a, W> {
    pins: &'a mut Pins,
    pack: W,
    limits: &'a Limits,
    unpacked: Unpacked,
}

impl<W: Write> Unpacking<'_, W> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Error> {
        let file_type = entry.header().entry_type();
        if file_type == EntryType::XGlobalHeader {
            return Ok(());
        }
        if self.unpacked.entries.len() as u64 >= self.limits.entries_max {
            return Err(Error::TooManyEntries { limit: self.limits.entries_max });
        }
        let (path, kind) = match name::read(&entry.path_bytes())? {
            Name::Plain(path) => {
                let kind = self.kind(&path, file_type, entry)?;
                (path, kind)
            }
            Name::Whiteout(victim) => (victim, EntryKind::Whiteout),
            Name::OpaqueDirectory(directory) => (directory, EntryKind::OpaqueDirectory),
            // What one builder's storage driver keeps beside the files.
            Name::Ignored => return Ok(()),
        };
        let meta = meta(entry).map_err(Error::Archive)?;
        self.unpacked.entries.push(Entry { path, meta, kind });
        Ok(())
    }

    fn kind<R: Read>(
        &mut self,
        path: &[u8],
        file_type: EntryType,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<EntryKind, Error> {
        let device = |make: fn(u32, u32) -> Special, header: &Header| match self.limits.devices {
            Devices::Refused => Err(Error::Device { path: text(path) }),
            Devices::Kept => {
                let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
                let (major, minor) = (number(header.device_major()), number(header.device_minor()));
                Ok(EntryKind::Special(make(major, minor)))
            }
        };
        match file_type {
            EntryType::Directory => Ok(EntryKind::Directory),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.content(path, entry).map(EntryKind::File)
            }
            EntryType::Symlink => Ok(EntryKind::Symlink { target: target(path, entry)? }),
            EntryType::Link => {
                let target = target(path, entry)?;
                match name::read(&target)? {
                    Name::Plain(target) => Ok(EntryKind::HardLink { target }),
                    _ => Err(Error::Outside { path: text(path) }),
                }
            }
            EntryType::Fifo => Ok(EntryKind::Special(Special::Fifo)),
            EntryType::Char => {
                device(|major, minor| Special::CharacterDevice { major, minor }, entry.header())
            }
            EntryType::Block => {
                device(|major, minor| Special::BlockDevice { major, minor }, entry.header())
            }
            other => Err(Error::Unsupported { path: text(path), kind: format!("{other:?}") }),
        }
    }

    fn content<R: Read>(
        &mut self,
        path: &[u8],
        file: &mut tar::Entry<'_, R>,
    ) -> Result<Content, Error> {
        let bytes = file.size();
        let limit = self.limits.file_bytes_max;
        if bytes > limit {
            return Err(Error::FileTooLarge { path: text(path), bytes, limit });
        }
        self.unpacked.bytes = self.unpacked.bytes.saturating_add(bytes);
        if self.unpacked.bytes > self.limits.bytes_max {
            return Err(Error::TooLarge { limit: self.limits.bytes_max });
        }
        let failed = |source| Error::Store { path: text(path), source };
        if bytes == 0 {
            return Ok(Content::Empty);
        }
        let mut exact = Exact { inner: file, left: bytes };
        if bytes >= SHARED_BYTES_MIN {
            let stored = self.pins.store(&mut exact).map_err(failed)?;
            self.unpacked.known_bytes += if stored.is_known { bytes } else { 0 };
            return Ok(Content::Shared { id: stored.id, bytes });
        }
        let offset = self.unpacked.packed_bytes;
        self.unpacked.packed_bytes += io::copy(&mut exact, &mut self.pack).map_err(failed)?;
        let bytes = u32::try_from(bytes).expect("it is below the size of shared files");
        Ok(Content::Packed(Slice { offset, bytes }))
    }
}

/// A file that must have the bytes it announced: an archive that ends early is broken.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            let message = format!("the archive ends {} bytes before its file does", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

fn target<R: Read>(path: &[u8], entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, Error> {
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Outside { path: text(path) });
    }
    if target.len() > name::PATH_BYTES_MAX {
        return Err(Error::NameTooLong { path: text(path) });
    }
    Ok(target)
}

fn meta<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Meta> {
    let header = entry.header();
    let mode = u16::try_from(header.mode()? & 0o7777).expect("twelve bits");
    let id =
        |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an owner's number is too large"));
    let (mut uid, mut gid) = (id(header.uid()?)?, id(header.gid()?)?);
    let mut modified = (i64::try_from(header.mtime()?).unwrap_or(0), 0);
    let mut xattrs = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let value = extension.value_bytes();
            let number = || std::str::from_utf8(value).ok();
            match extension.key_bytes() {
                b"uid" => uid = number().and_then(|text| text.parse().ok()).unwrap_or(uid),
                b"gid" => gid = number().and_then(|text| text.parse().ok()).unwrap_or(gid),
                b"mtime" => modified = number().and_then(seconds).unwrap_or(modified),
                key => xattrs.extend(xattr(key, value)),
            }
        }
    }
    xattrs.sort();
    xattrs.dedup_by(|later, earlier| later.0 == earlier.0);
    Ok(Meta { mode, uid, gid, modified, xattrs })
}

fn xattr(key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let name = key.strip_prefix(PAX_XATTR)?;
    let is_wanted = XATTRS.iter().any(|wanted| name.starts_with(wanted));
    is_wanted.then(|| (name.to_vec(), value.to_vec()))
}

/// `1700000000.25` as seconds and nanoseconds.
fn seconds(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((whole.parse().ok()?, digits.parse().ok()?))
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
