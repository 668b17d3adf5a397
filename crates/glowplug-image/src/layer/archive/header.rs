//! The block of 512 bytes before each member of an archive.

use std::io;
use std::ops::Range;

use super::{BLOCK_BYTES, Kind, Member, invalid};

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const BYTES: Range<usize> = 124..136;
const MODIFIED: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const TARGET: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

#[derive(Debug)]
pub(super) struct Header {
    block: [u8; BLOCK_BYTES],
}

impl Header {
    pub(super) fn read(block: &[u8; BLOCK_BYTES]) -> io::Result<Self> {
        let header = Self { block: *block };
        let said = number(&block[CHECKSUM]).ok();
        let byte = |at: usize| if CHECKSUM.contains(&at) { b' ' } else { block[at] };
        let unsigned: i64 = (0..BLOCK_BYTES).map(|at| i64::from(byte(at))).sum();
        // Some old programs took bytes for signed numbers.
        let signed: i64 = (0..BLOCK_BYTES).map(|at| i64::from(byte(at).cast_signed())).sum();
        if said != Some(unsigned) && said != Some(signed) {
            return Err(invalid("a header's checksum is wrong: it is no archive, or damaged"));
        }
        Ok(header)
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[KIND]
    }

    /// Of the content that follows.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        positive(&self.block[BYTES])
    }

    pub(super) fn block(&self) -> &[u8; BLOCK_BYTES] {
        &self.block
    }

    /// Without what extended headers say.
    pub(super) fn member(&self) -> io::Result<Member> {
        let path = self.path();
        let device = || -> io::Result<(u32, u32)> {
            let part = |range| {
                u32::try_from(positive(&self.block[range])?)
                    .map_err(|_| invalid("a device's number is too large"))
            };
            Ok((part(MAJOR)?, part(MINOR)?))
        };
        let kind = match self.kind() {
            // Before there were types, a slash at the end made a folder.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device().map(|(major, minor)| Kind::CharacterDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let mode = positive(&self.block[MODE])? & 0o7777;
        Ok(Member {
            path,
            target: text(&self.block[TARGET]).to_vec(),
            kind,
            bytes: 0,
            mode: u16::try_from(mode).expect("twelve bits"),
            uid: positive(&self.block[UID])?,
            gid: positive(&self.block[GID])?,
            modified: (number(&self.block[MODIFIED])?, 0),
            xattrs: Vec::new(),
        })
    }

    fn path(&self) -> Vec<u8> {
        let name = text(&self.block[NAME]);
        // GNU's own form has other things there.
        let prefix = if self.block[MAGIC] == *b"ustar\0" { text(&self.block[PREFIX]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn positive(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| invalid("a header has a negative number"))
}

/// Octal digits, or binary where the first bit is set. A blank field is 0.
pub(super) fn number(field: &[u8]) -> io::Result<i64> {
    let [first, rest @ ..] = field else { return Ok(0) };
    if first & 0x80 != 0 {
        return binary(*first, rest).ok_or_else(|| invalid("a number in a header is too large"));
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.split(is_blank).find(|digits| !digits.is_empty()).unwrap_or_default();
    digits.iter().try_fold(0_i64, |number, digit| match digit {
        b'0'..=b'7' => Ok(number * 8 + i64::from(digit - b'0')),
        _ => Err(invalid("a number in a header has other than octal digits")),
    })
}

/// Two's complement, without the first bit.
fn binary(first: u8, rest: &[u8]) -> Option<i64> {
    let is_negative = first & 0x40 != 0;
    let first = i64::from(first & 0x3f) - if is_negative { 0x40 } else { 0 };
    rest.iter()
        .try_fold(first, |number, byte| number.checked_mul(256)?.checked_add(i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_all_their_forms() {
        let cases: [(&[u8], i64); 10] = [
            (b"", 0),
            (b"        ", 0),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"77777777", 0o7777_7777),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\x00", -256),
            (b"777777777777", 0o7777_7777_7777),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field).unwrap(), expected, "{field:?}");
        }
        for field in [&b"0000abc\0"[..], b"12x\0", b"-1\0\0", &[0xbf; 12]] {
            assert!(number(field).is_err(), "{field:?}");
        }
    }
}
