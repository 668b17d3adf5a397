//! Headers of an archive's members: ustar, with PAX where a value does not fit.

use std::io;

use crate::layer::{Entry, EntryKind, Special};

pub(super) const BLOCK_BYTES: usize = 512;
/// Seven and eleven octal digits.
const SMALL_MAX: u64 = 0o7_777_777;
const LARGE_MAX: u64 = 0o77_777_777_777;
const NAME_BYTES_MAX: usize = 100;
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: usize = 124;
const MODIFIED: usize = 136;
const CHECKSUM: usize = 148;
const KIND: usize = 156;
const TARGET: usize = 157;
const MAGIC: usize = 257;
const MAJOR: usize = 329;
const MINOR: usize = 337;

/// What a layer calls an entry: folders end with a slash, whiteouts have their prefix.
pub(super) fn name(entry: &Entry) -> Vec<u8> {
    match entry.kind {
        EntryKind::Directory if entry.path.is_empty() => b"./".to_vec(),
        EntryKind::Directory => [&*entry.path, b"/"].concat(),
        EntryKind::Whiteout => {
            let slash = entry.path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            [&entry.path[..slash], b".wh.", &entry.path[slash..]].concat()
        }
        EntryKind::OpaqueDirectory if entry.path.is_empty() => b".wh..wh..opq".to_vec(),
        EntryKind::OpaqueDirectory => [&*entry.path, b"/.wh..wh..opq"].concat(),
        _ => entry.path.clone(),
    }
}

/// The header, and what extends it, for an entry with so many bytes of content.
pub(super) fn of(entry: &Entry, bytes: u64) -> io::Result<Vec<u8>> {
    let name = name(entry);
    let mut block = Block::new();
    let mut pax = Vec::new();
    block.text(0..NAME_BYTES_MAX, &name, "path", &mut pax);
    let (kind, target) = match &entry.kind {
        EntryKind::Directory => (b'5', &[][..]),
        EntryKind::File(_) | EntryKind::Whiteout | EntryKind::OpaqueDirectory => (b'0', &[][..]),
        EntryKind::Symlink { target } => (b'2', &**target),
        EntryKind::HardLink { target } => (b'1', &**target),
        EntryKind::Special(special) => {
            let (kind, major, minor) = match *special {
                Special::CharacterDevice { major, minor } => (b'3', major, minor),
                Special::BlockDevice { major, minor } => (b'4', major, minor),
                Special::Fifo => (b'6', 0, 0),
                Special::Socket => {
                    return Err(io::Error::other("an archive cannot hold a socket"));
                }
            };
            block.number(MAJOR, 7, u64::from(major));
            block.number(MINOR, 7, u64::from(minor));
            (kind, &[][..])
        }
    };
    block.bytes[KIND] = kind;
    block.text(TARGET..TARGET + NAME_BYTES_MAX, target, "linkpath", &mut pax);
    let meta = &entry.meta;
    block.number(MODE, 7, u64::from(meta.mode));
    for (at, name, id) in [(UID, "uid", meta.uid), (GID, "gid", meta.gid)] {
        if u64::from(id) > SMALL_MAX {
            record(&mut pax, name.as_bytes(), id.to_string().as_bytes());
        } else {
            block.number(at, 7, u64::from(id));
        }
    }
    if bytes > LARGE_MAX {
        record(&mut pax, b"size", bytes.to_string().as_bytes());
    } else {
        block.number(SIZE, 11, bytes);
    }
    modified(meta.modified, &mut block, &mut pax);
    for (name, value) in &meta.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", &**name].concat(), value);
    }
    let mut header = Vec::new();
    if !pax.is_empty() {
        let mut extension = Block::new();
        extension.bytes[..10].copy_from_slice(b"PaxHeaders");
        extension.bytes[KIND] = b'x';
        extension.number(MODE, 7, 0o644);
        extension.number(SIZE, 11, pax.len() as u64);
        extension.number(MODIFIED, 11, 0);
        header.extend(extension.sealed());
        header.extend(&pax);
        header.resize(header.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    header.extend(block.sealed());
    Ok(header)
}

/// To the second in the header; what does not fit there as a decimal number.
fn modified((seconds, nanoseconds): (i64, u32), block: &mut Block, pax: &mut Vec<u8>) {
    let whole = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LARGE_MAX);
    block.number(MODIFIED, 11, whole.unwrap_or(0));
    if whole.is_some() && nanoseconds == 0 {
        return;
    }
    if nanoseconds == 0 {
        return record(pax, b"mtime", seconds.to_string().as_bytes());
    }
    let text = if seconds < 0 {
        // Before the epoch the parts of a second count backwards.
        format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    };
    record(pax, b"mtime", text.trim_end_matches('0').as_bytes());
}

/// `LENGTH NAME=VALUE` and a line's end, the length's own digits counted.
fn record(pax: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    pax.extend(length.to_string().bytes());
    for part in [b" ", name, b"=", value, b"\n"] {
        pax.extend(part);
    }
}

struct Block {
    bytes: [u8; BLOCK_BYTES],
}

impl Block {
    fn new() -> Self {
        let mut bytes = [0; BLOCK_BYTES];
        bytes[MAGIC..MAGIC + 8].copy_from_slice(b"ustar\x0000");
        let mut block = Self { bytes };
        block.number(UID, 7, 0);
        block.number(GID, 7, 0);
        block
    }

    /// A text that is too long, or that Go would not take from here, is said by PAX.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8], name: &str, pax: &mut Vec<u8>) {
        let fits = text.len().min(field.len());
        self.bytes[field.start..field.start + fits].copy_from_slice(&text[..fits]);
        if text.len() > field.len() || !text.is_ascii() {
            record(pax, name.as_bytes(), text);
        }
    }

    fn number(&mut self, at: usize, digits: usize, number: u64) {
        let text = format!("{number:0digits$o}\0");
        self.bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    }

    fn sealed(mut self) -> [u8; BLOCK_BYTES] {
        self.bytes[CHECKSUM..CHECKSUM + 8].fill(b' ');
        let sum: u64 = self.bytes.iter().map(|byte| u64::from(*byte)).sum();
        let text = format!("{sum:06o}\0 ");
        self.bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(text.as_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::archive::{Archive, Kind};
    use crate::layer::{Content, Meta};

    #[test]
    fn records_count_their_own_length() {
        for (bytes, expected) in
            [(1, "6 a=x\n"), (3, "8 a=xxx\n"), (4, "9 a=xxxx\n"), (5, "11 a=xxxxx\n")]
        {
            let mut pax = Vec::new();
            record(&mut pax, b"a", "x".repeat(bytes).as_bytes());
            assert_eq!(String::from_utf8(pax).unwrap(), expected);
        }
    }

    #[test]
    fn every_entry_is_read_as_it_was_written() {
        let file = || EntryKind::File(Content::Empty);
        let long = vec![b'n'; 300];
        let cases = [
            (b"plain".to_vec(), file(), (5, 0), 7, 0),
            (long.clone(), file(), (5, 500_000_000), 7, 0),
            (b"\xff\xfe".to_vec(), file(), (-5, 250_000_000), u32::MAX, 9_000_000_000),
            (
                "\u{e4}".into(),
                EntryKind::Symlink { target: long.clone() },
                (i64::from(u32::MAX) * 100, 0),
                1,
                0,
            ),
            (b"h".to_vec(), EntryKind::HardLink { target: long }, (-1, 0), 2_097_152, 0),
            (b"d".to_vec(), EntryKind::Directory, (0, 1), 0, 0),
            (b"p".to_vec(), EntryKind::Special(Special::Fifo), (0, 0), 0, 0),
        ];
        for (path, kind, modified, uid, bytes) in cases {
            let xattrs = vec![(b"user.a".to_vec(), b"1\n=\0".to_vec())];
            let meta = Meta { mode: 0o4755, uid, gid: uid, modified, xattrs };
            let entry = Entry { path, meta, kind };
            let header = of(&entry, bytes).unwrap();
            assert_eq!(header.len() % BLOCK_BYTES, 0);
            let member = Archive::new(&header[..], u64::MAX).next().unwrap().unwrap();
            assert_eq!(member.path, name(&entry));
            assert_eq!((member.mode, member.uid, member.bytes), (0o4755, u64::from(uid), bytes));
            assert_eq!(member.modified, modified, "{:?}", entry.path);
            assert_eq!(member.xattrs.len(), 1);
            let target = match &entry.kind {
                EntryKind::Symlink { target } | EntryKind::HardLink { target } => target.clone(),
                _ => Vec::new(),
            };
            assert_eq!(member.target, target);
            assert_eq!(member.kind == Kind::Directory, entry.kind == EntryKind::Directory);
        }
    }
}
