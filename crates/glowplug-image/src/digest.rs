//! The name of a manifest, a configuration or a layer: the hash of its bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "sha256:";
const HEX_DIGITS: usize = 64;

/// `sha256:` and 64 lower-case hexadecimal digits. Registries may use other algorithms; in practice none does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a digest: it should be `sha256:` and 64 hexadecimal digits")]
pub struct InvalidDigest {
    text: String,
}

impl Digest {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::of_hash(sha2::Sha256::digest(bytes).into())
    }

    /// Of the hash of some bytes.
    pub fn of_hash(hash: [u8; 32]) -> Self {
        use fmt::Write;
        let mut text = PREFIX.to_owned();
        for byte in hash {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        Self(text)
    }

    /// The 64 digits: safe as a file's name.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix(PREFIX).unwrap_or_default();
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() == HEX_DIGITS && hex.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDigest { text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_are_digests() {
        let zeros = format!("sha256:{}", "0".repeat(64));
        assert_eq!(zeros.parse(), Ok(Digest::of_hash([0; 32])));
        assert_eq!(Digest::of_hash([0xa5; 32]).hex(), "a5".repeat(32));
        let upper = format!("sha256:{}", "A".repeat(64));
        for text in ["", "sha256:", "sha256:00", &zeros[7..], &upper, "sha256:../../../etc"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
