//! What extended headers say about the member that follows.

use std::io;

use super::{Member, invalid};

const XATTR: &[u8] = b"SCHILY.xattr.";
/// GNU's newer ways to store files with holes; their content begins with a map, and is not the file's.
const SPARSE: &[u8] = b"GNU.sparse.";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) bytes: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    /// Records of the form `LENGTH KEY=VALUE\n`, the length being that of all of it.
    pub(super) fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            let (key, value, rest) =
                record(records).ok_or_else(|| invalid("an extended header is malformed"))?;
            self.record(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.starts_with(SPARSE) {
            return Err(invalid(
                "it has a file with holes in a form that is not supported: pack it without `--sparse`",
            ));
        }
        // An empty value takes back what an earlier header said.
        if value.is_empty() && !key.starts_with(XATTR) {
            return Ok(());
        }
        let number = || {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse().ok())
                .ok_or_else(|| invalid("a number in an extended header is malformed"))
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.bytes = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.modified = std::str::from_utf8(value).ok().and_then(seconds),
            _ => {
                let xattr = key.strip_prefix(XATTR);
                self.xattrs.extend(xattr.map(|name| (name.to_vec(), value.to_vec())));
            }
        }
        Ok(())
    }

    pub(super) fn apply(self, member: &mut Member) {
        fn set<T>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(&mut member.path, self.path);
        set(&mut member.target, self.target);
        set(&mut member.uid, self.uid);
        set(&mut member.gid, self.gid);
        set(&mut member.modified, self.modified);
        member.xattrs = self.xattrs;
    }
}

/// The first record's key and value, and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let bytes: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..bytes)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[bytes..]))
}

/// `1700000000.25` as seconds and nanoseconds; before the epoch the nanoseconds count upwards all the same.
fn seconds(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (whole_seconds, nanoseconds): (i64, u32) = (whole.parse().ok()?, digits.parse().ok()?);
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((whole_seconds - 1, 1_000_000_000 - nanoseconds));
    }
    Some((whole_seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_anything() {
        let mut extensions = Extensions::default();
        extensions
            .read_pax(b"16 path=a=b\nc/d\n31 SCHILY.xattr.user.x=\0\n=y \0z\n8 path=\n")
            .unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"a=b\nc/d"[..]));
        assert_eq!(extensions.xattrs, [(b"user.x".to_vec(), b"\0\n=y \0z".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 8] = [
            b"x",
            b"7 a=b",
            b"99 a=b\n",
            b"0 a=b\n",
            b"5 ab\n",
            b"18446744073709551616 a=b\n",
            b"11 size=1x\n",
            b"22 GNU.sparse.major=1\n",
        ];
        for case in cases {
            assert!(Extensions::default().read_pax(case).is_err(), "{}", case.escape_ascii());
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let cases = [
            ("1700000000.25", Some((1_700_000_000, 250_000_000))),
            ("7", Some((7, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("now", None),
        ];
        for (text, expected) in cases {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
