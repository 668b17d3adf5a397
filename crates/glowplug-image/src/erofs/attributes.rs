//! Extended attributes, in the place after an inode.

use super::Error;

/// What the count in an inode can say.
pub(super) const BYTES_MAX: usize = HEADER_BYTES + (u16::MAX as usize - 1) * UNIT;

const HEADER_BYTES: usize = 12;
const UNIT: usize = 4;

/// Prefixes that are one byte in an image, with that byte.
const PREFIXES: [(&str, u8); 5] = [
    ("user.", 1),
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("trusted.", 4),
    ("security.", 6),
];
/// What overlayfs keeps its own state in. From an image it would name contents of others.
const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";

/// The attributes of one inode as they are written; empty if there are none.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    bytes: Vec<u8>,
}

impl Attributes {
    pub(super) fn of(xattrs: &[(Vec<u8>, Vec<u8>)], redirect: Option<&str>) -> Result<Self, Error> {
        let mut attributes = Self::default();
        for (name, value) in xattrs {
            if name.starts_with(OVERLAY_PREFIX) {
                return Err(unknown(name));
            }
            attributes.push(name, value)?;
        }
        if let Some(path) = redirect {
            // Source: Documentation/filesystems/overlayfs.rst, "Data-only lower layers".
            attributes.push(b"trusted.overlay.metacopy", b"")?;
            let path = format!("/{path}");
            attributes.push(b"trusted.overlay.redirect", path.as_bytes())?;
        }
        if attributes.bytes.len() > BYTES_MAX {
            return Err(Error::AttributesTooLong { bytes: attributes.bytes.len() });
        }
        Ok(attributes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number in the inode from which a reader computes their length.
    pub(super) fn count(&self) -> u16 {
        let units = self.bytes.len().saturating_sub(HEADER_BYTES) / UNIT;
        let count = if self.bytes.is_empty() { 0 } else { units + 1 };
        u16::try_from(count).expect("their length was checked")
    }

    fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let known = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix.as_bytes()));
        let (prefix, index) = known.ok_or_else(|| unknown(name))?;
        let rest = &name[prefix.len()..];
        let too_long = |_| Error::AttributesTooLong { bytes: name.len() + value.len() };
        let name_bytes = u8::try_from(rest.len()).map_err(too_long)?;
        let value_bytes = u16::try_from(value.len()).map_err(too_long)?;
        if self.bytes.is_empty() {
            self.bytes.resize(HEADER_BYTES, 0);
        }
        self.bytes.extend([name_bytes, *index]);
        self.bytes.extend(value_bytes.to_le_bytes());
        self.bytes.extend(rest);
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(UNIT), 0);
        Ok(())
    }
}

fn unknown(name: &[u8]) -> Error {
    Error::UnknownAttribute { name: String::from_utf8_lossy(name).into_owned() }
}
