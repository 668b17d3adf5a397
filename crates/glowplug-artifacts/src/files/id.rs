//! Names of files, uploads and contents. All are hexadecimal digits, so all are safe in paths and addresses.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The name of a file: 128 random bits. Whoever knows it may read the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FileId(pub [u8; 16]);

/// The name of an upload in parts: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UploadId(pub [u8; 16]);

/// The SHA-256 of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub [u8; 32]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{kind}` is written in {digits} hexadecimal digits, in lower case")]
pub struct Malformed {
    kind: &'static str,
    digits: usize,
}

impl FileId {
    pub fn random() -> Self {
        Self(random())
    }
}

impl UploadId {
    pub(super) fn random() -> Self {
        Self(random())
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    rand::rng().fill(&mut bytes);
    bytes
}

macro_rules! hexadecimal {
    ($kind:ident, $bytes:literal, $name:literal) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $kind {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                parse(text).map(Self).ok_or(Malformed { kind: $name, digits: 2 * $bytes })
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $kind {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }
    };
}

hexadecimal!(FileId, 16, "file");
hexadecimal!(UploadId, 16, "upload");
hexadecimal!(Digest, 32, "etag");

/// One spelling each, so that one thing has one address.
fn parse<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
