//! Which part of a file a `Range` means (RFC 9110 §14).

use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// No range, several, or none that can be read: all of these get the whole file.
    Whole,
    Part(Range<u64>),
    /// Beyond the end of the file.
    Unsatisfiable,
}

/// Reads a header for a file of this many bytes. Several ranges at once are not served as such.
pub(super) fn asked(header: Option<&str>, bytes: u64) -> Asked {
    let range = header.and_then(|value| value.trim().strip_prefix("bytes="));
    let ends = range.and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = ends.filter(|_| !header.unwrap_or_default().contains(',')) else {
        return Asked::Whole;
    };
    let part = match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => first..bytes,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (None, Some(last)) if first.is_empty() => bytes.saturating_sub(last)..bytes,
        _ => return Asked::Whole,
    };
    if part.is_empty() { Asked::Unsatisfiable } else { Asked::Part(part) }
}

/// Digits alone, and however many: what is more than there can be is beyond the end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let part = |from, to| Asked::Part(from..to);
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=3-", part(3, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=8-99999999999999999999999", part(8, 10)),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(asked(Some(header), 10), expected, "{header}");
        }
        assert_eq!(asked(None, 10), Asked::Whole);
        assert_eq!(asked(Some("bytes=0-"), 0), Asked::Unsatisfiable);
    }
}
