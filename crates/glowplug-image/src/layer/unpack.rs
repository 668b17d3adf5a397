//! Reads a layer's archive, and puts what it holds where the image will find it.
//!
//! Nothing is unpacked under a name from the archive, so no entry can reach out of anything: names are
//! checked and written down in the index, contents go to the store by their hash, and small ones to the
//! layer's pack.

use std::io::{self, Read, Write};

use super::archive::{Archive, Kind, Member, TooLong};
use super::name::{self, Name};
use super::{Content, Entry, EntryKind, Meta, Slice, Special};
use crate::contents::Pins;

/// Files from this size on are shared between images; smaller ones would cost more as files than they save.
pub const SHARED_BYTES_MIN: u64 = 32 << 10;
/// Attributes that an image can have. Others say something about the machine that packed it.
const XATTRS: [&[u8]; 3] = [b"user.", b"security.capability", b"system.posix_acl_"];

/// What a layer may be at most. The defaults are far above what images are in practice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the archive, inflated, and of all its files together.
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
    let failed = |source| archive_error(source, limits);
    let mut archive = Archive::new(archive, limits.bytes_max);
    while let Some(member) = archive.next().map_err(failed)? {
        unpacking.member(member, &mut archive)?;
    }
    archive.finish().map_err(failed)?;
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
    fn member<R: Read>(&mut self, member: Member, archive: &mut Archive<R>) -> Result<(), Error> {
        if self.unpacked.entries.len() as u64 >= self.limits.entries_max {
            return Err(Error::TooManyEntries { limit: self.limits.entries_max });
        }
        let (path, kind) = match name::read(&member.path)? {
            Name::Plain(path) => {
                let kind = self.kind(&path, &member, archive)?;
                (path, kind)
            }
            Name::Whiteout(victim) => (victim, EntryKind::Whiteout),
            Name::OpaqueDirectory(directory) => (directory, EntryKind::OpaqueDirectory),
            // What one builder's storage driver keeps beside the files.
            Name::Ignored => return Ok(()),
        };
        let meta = meta(member).map_err(Error::Archive)?;
        self.unpacked.entries.push(Entry { path, meta, kind });
        Ok(())
    }

    fn kind<R: Read>(
        &mut self,
        path: &[u8],
        member: &Member,
        archive: &mut Archive<R>,
    ) -> Result<EntryKind, Error> {
        match kind_without_content(path, member, self.limits.devices)? {
            Some(kind) => Ok(kind),
            None => self.content(path, member.bytes, archive).map(EntryKind::File),
        }
    }

    fn content<R: Read>(
        &mut self,
        path: &[u8],
        bytes: u64,
        archive: &mut Archive<R>,
    ) -> Result<Content, Error> {
        let limit = self.limits.file_bytes_max;
        if bytes > limit {
            return Err(Error::FileTooLarge { path: text(path), bytes, limit });
        }
        self.unpacked.bytes = self.unpacked.bytes.saturating_add(bytes);
        if self.unpacked.bytes > self.limits.bytes_max {
            return Err(Error::TooLarge { limit: self.limits.bytes_max });
        }
        let failed = |source: io::Error| match archive_error(source, self.limits) {
            Error::Archive(source) => Error::Store { path: text(path), source },
            error => error,
        };
        if bytes == 0 {
            return Ok(Content::Empty);
        }
        if bytes >= SHARED_BYTES_MIN {
            let stored = self.pins.store(archive).map_err(failed)?;
            self.unpacked.known_bytes += if stored.is_known { bytes } else { 0 };
            return Ok(Content::Shared { id: stored.id, bytes });
        }
        let offset = self.unpacked.packed_bytes;
        self.unpacked.packed_bytes += io::copy(archive, &mut self.pack).map_err(failed)?;
        let bytes = u32::try_from(bytes).expect("it is below the size of shared files");
        Ok(Content::Packed(Slice { offset, bytes }))
    }
}

/// What a member is, by the rules for all images, whoever describes it. `None`: a file.
pub(crate) fn kind_without_content(
    path: &[u8],
    member: &Member,
    devices: Devices,
) -> Result<Option<EntryKind>, Error> {
    let device = |device: Special| match devices {
        Devices::Refused => Err(Error::Device { path: text(path) }),
        Devices::Kept => Ok(EntryKind::Special(device)),
    };
    let kind = match member.kind {
        Kind::File => return Ok(None),
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink { target: target(path, member)? },
        Kind::HardLink => match name::read(&target(path, member)?)? {
            Name::Plain(target) => EntryKind::HardLink { target },
            _ => return Err(Error::Outside { path: text(path) }),
        },
        Kind::Fifo => EntryKind::Special(Special::Fifo),
        // Overlayfs marks in this way what is gone. In an image's tree it would hide what is there.
        Kind::CharacterDevice { major: 0, minor: 0 } => EntryKind::Whiteout,
        Kind::CharacterDevice { major, minor } => {
            device(Special::CharacterDevice { major, minor })?
        }
        Kind::BlockDevice { major, minor } => device(Special::BlockDevice { major, minor })?,
        Kind::Other(other) => {
            let kind = format!("member of type `{}`", other.escape_ascii());
            return Err(Error::Unsupported { path: text(path), kind });
        }
    };
    Ok(Some(kind))
}

fn archive_error(source: io::Error, limits: &Limits) -> Error {
    if source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooLong>) {
        return Error::TooLarge { limit: limits.bytes_max };
    }
    Error::Archive(source)
}

fn target(path: &[u8], member: &Member) -> Result<Vec<u8>, Error> {
    let target = &member.target;
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Outside { path: text(path) });
    }
    if target.len() > name::PATH_BYTES_MAX {
        return Err(Error::NameTooLong { path: text(path) });
    }
    Ok(target.clone())
}

/// What an image keeps of what is said about a member.
pub(crate) fn meta(member: Member) -> io::Result<Meta> {
    let id =
        |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an owner's number is too large"));
    let mut xattrs = member.xattrs;
    xattrs.retain(|(name, _)| XATTRS.iter().any(|wanted| name.starts_with(wanted)));
    // Of two with one name the later counts.
    xattrs.reverse();
    xattrs.sort_by(|one, other| one.0.cmp(&other.0));
    xattrs.dedup_by(|later, earlier| later.0 == earlier.0);
    let (uid, gid) = (id(member.uid)?, id(member.gid)?);
    Ok(Meta { mode: member.mode, uid, gid, modified: member.modified, xattrs })
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
