//! Names in a layer's archive, and what they mean.

use super::unpack::Error;

/// The kernel's own limit for a path.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with two prefixes belong to the storage driver that made the archive.
const DRIVER: &[u8] = b".wh..wh.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Plain(Vec<u8>),
    /// The path of what is gone.
    Whiteout(Vec<u8>),
    OpaqueDirectory(Vec<u8>),
    Ignored,
}

/// Brings a name into the form of [`Entry::path`](super::Entry::path).
///
/// Source: OCI image specification, "Image Layer Filesystem Changeset", Whiteouts.
pub(crate) fn read(name: &[u8]) -> Result<Name, Error> {
    let text = || String::from_utf8_lossy(name).into_owned();
    if name.len() > PATH_BYTES_MAX {
        return Err(Error::NameTooLong { path: text() });
    }
    let is_part = |part: &&[u8]| !part.is_empty() && *part != b".";
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(is_part).collect();
    if parts.contains(&&b".."[..]) || name.contains(&0) {
        return Err(Error::Outside { path: text() });
    }
    let Some((last, folders)) = parts.split_last() else { return Ok(Name::Plain(Vec::new())) };
    if folders.iter().any(|folder| folder.starts_with(DRIVER)) {
        return Ok(Name::Ignored);
    }
    if *last == OPAQUE {
        return Ok(Name::OpaqueDirectory(folders.join(&b'/')));
    }
    if last.starts_with(DRIVER) {
        return Ok(Name::Ignored);
    }
    match last.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err(Error::Outside { path: text() }),
        Some(victim) => {
            let mut path = folders.to_vec();
            path.push(victim);
            Ok(Name::Whiteout(path.join(&b'/')))
        }
        None => Ok(Name::Plain(parts.join(&b'/'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &Name) {
        assert_eq!(&read(name.as_bytes()).unwrap(), expected, "{name}");
    }

    #[test]
    fn names_are_brought_into_one_form() {
        for name in ["a/b", "/a/b", "./a/b", "a//b/", "a/./b"] {
            check(name, &Name::Plain(b"a/b".to_vec()));
        }
        for name in ["", "/", ".", "./"] {
            check(name, &Name::Plain(Vec::new()));
        }
    }

    #[test]
    fn whiteouts_name_their_victims() {
        check("a/.wh.b", &Name::Whiteout(b"a/b".to_vec()));
        check(".wh.b", &Name::Whiteout(b"b".to_vec()));
        check("a/.wh..wh..opq", &Name::OpaqueDirectory(b"a".to_vec()));
        check(".wh..wh..opq", &Name::OpaqueDirectory(Vec::new()));
        check(".wh..wh.plnk/7.8", &Name::Ignored);
        check(".wh..wh.aufs", &Name::Ignored);
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["..", "../a", "a/../../b", "a/..", "a\0b", ".wh..", ".wh...", "a/.wh."] {
            assert!(matches!(read(name.as_bytes()), Err(Error::Outside { .. })), "{name}");
        }
        let long = "a/".repeat(PATH_BYTES_MAX);
        assert!(matches!(read(long.as_bytes()), Err(Error::NameTooLong { .. })));
    }
}
