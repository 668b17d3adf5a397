//! Identifiers. Each is its own type, so that a runner's cannot be passed where a request's is meant.

use std::fmt;
use std::str::FromStr;

/// Why a text is not the identifier it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not {}", self.text, self.expected)
    }
}

impl std::error::Error for ParseIdError {}

/// An app as the engine knows it: a small dense number given out by the node. Never shown to people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AppId(pub u32);

/// Who sent a request, as far as fairness must know: equal for the requests of one caller. Drivers make it
/// from whatever tells callers apart; 0 is nobody in particular.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CallerId(pub u64);

impl CallerId {
    /// The caller with this name (a key id, say). Who has no name is nobody in particular.
    pub fn of(name: &str) -> Self {
        if name.is_empty() { Self::default() } else { Self(digest(name)) }
    }
}

/// A routing hint, as far as equality goes. Drivers make it from the hint's text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HintId(pub u64);

impl HintId {
    pub fn of(text: &str) -> Self {
        Self(digest(text))
    }
}

/// A number for a short text, the same on every node and in every life of one. Nothing but a runner's
/// choice or a place in line hangs on it, so that texts made to meet harm their makers alone.
fn digest(text: &str) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(SPREAD);
        #[expect(clippy::cast_possible_truncation, reason = "each half is meant")]
        let (high, low) = ((product >> 64) as u64, product as u64);
        high ^ low
    };
    let words = text.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    // The length tells a text from the same one with zeros behind.
    words.fold(mix(SPREAD, text.len() as u64), mix)
}

/// A runner, from the decision to start it until its record is dropped.
///
/// `boot` counts the starts of the node, `sequence` the runners since that start, so no id is ever given
/// out twice on one data directory. Written `r<boot>-<sequence>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerId {
    pub boot: u32,
    pub sequence: u32,
}

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}-{}", self.boot, self.sequence)
    }
}

impl fmt::Debug for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunnerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parse = || {
            let (boot, sequence) = text.strip_prefix('r')?.split_once('-')?;
            Some(Self { boot: boot.parse().ok()?, sequence: sequence.parse().ok()? })
        };
        parse().ok_or_else(|| ParseIdError {
            text: text.to_owned(),
            expected: "a runner id (such as r3-17)",
        })
    }
}

/// A request, from arrival to its answer, over all its attempts. Written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            id >> 96,
            (id >> 80) & 0xffff,
            (id >> 64) & 0xffff,
            (id >> 48) & 0xffff,
            id & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RequestId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let groups_fit = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        match u128::from_str_radix(&digits, 16) {
            Ok(id) if groups_fit => Ok(Self(id)),
            _ => Err(ParseIdError { text: text.to_owned(), expected: "a request id (a UUID)" }),
        }
    }
}

/// One attempt of a request on a runner. A report that carries an older attempt than the engine's is
/// from a past it has given up, and changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease {
    pub request: RequestId,
    /// Counted from 1.
    pub attempt: u32,
    pub runner: RunnerId,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, attempt, runner } = self;
        write!(f, "attempt {attempt} of {request} at {runner}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip() {
        let runner = RunnerId { boot: 3, sequence: 17 };
        assert_eq!(runner.to_string(), "r3-17");
        assert_eq!("r3-17".parse(), Ok(runner));
        let request = RequestId(0x0192_f0a1_0000_7abc_8def_0123_4567_89ab);
        assert_eq!(request.to_string(), "0192f0a1-0000-7abc-8def-0123456789ab");
        assert_eq!(request.to_string().parse(), Ok(request));
    }

    #[test]
    fn texts_are_told_apart() {
        assert_eq!(CallerId::of(""), CallerId(0));
        assert_eq!(HintId::of("model-a"), HintId::of("model-a"));
        let texts =
            ["", "a", "b", "a\0", "ab", "ba", "model-1", "model-2", "a longer text", "longer"];
        for (nth, one) in texts.iter().enumerate() {
            for other in &texts[..nth] {
                assert_ne!(HintId::of(one), HintId::of(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn malformed_ids_are_named() {
        for text in ["", "r", "r1", "1-2", "r1-x", "r-1-2"] {
            assert!(text.parse::<RunnerId>().is_err(), "{text}");
        }
        for text in [
            "",
            "0192f0a1",
            "0192f0a1-0000-7abc-8def-0123456789aZ",
            "0192f0a10000-7abc-8def-0123456789ab-",
        ] {
            assert!(text.parse::<RequestId>().is_err(), "{text}");
        }
        let error = "x".parse::<RunnerId>().unwrap_err();
        assert_eq!(error.to_string(), "`x` is not a runner id (such as r3-17)");
    }
}
