//! Lengths of time and amounts of memory as people write them.

use std::fmt::Write;
use std::time::Duration;

/// Memory of one machine: 1 PiB.
pub(super) const BYTES_MAX: u64 = 1 << 50;
/// The longest duration the config takes, 10 years; a setting may have a lower limit of its own.
const DURATION_SECS_MAX: f64 = 10.0 * 365.0 * 86_400.0;

/// `None`: negative, not a number, or beyond ten years.
pub(super) fn seconds(number: f64) -> Option<Duration> {
    (0.0..=DURATION_SECS_MAX).contains(&number).then(|| Duration::from_secs_f64(number))
}

/// Reads `30s`, `5m`, `1h30m`, `250ms`, `2d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits_end);
        let unit_end =
            tail.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit_seconds;
        rest = next.trim_start();
    }
    (!text.is_empty()).then(|| seconds(total)).flatten()
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `16GiB`, `512 MB`, `1.5GiB`; a bare number is bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit_bytes = match unit.trim() {
        "" => 1,
        unit => BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_bytes).filter(|bytes| *bytes <= BYTES_MAX);
    }
    #[expect(clippy::cast_precision_loss, reason = "units are far below 2^52")]
    let bytes = number.parse::<f64>().ok()? * unit_bytes as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked to lie between 0 and BYTES_MAX, which is a power of two"
    )]
    (0.0..=BYTES_MAX as f64).contains(&bytes).then_some(bytes as u64)
}

/// The inverse of [`parse_duration`].
pub fn write_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, millis) in
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
    {
        if left >= millis {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", left / millis);
            left %= millis;
        }
    }
    text
}

/// The inverse of [`parse_bytes`], with the largest unit that loses nothing.
pub fn write_bytes(bytes: u64) -> String {
    let unit = BYTE_UNITS.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    match unit {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let check = |text, millis: Option<u64>| {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        };
        check("30", Some(30_000));
        check("30s", Some(30_000));
        check("0.5", Some(500));
        check("1.5h", Some(5_400_000));
        check("1h30m", Some(5_400_000));
        check("1h 30m", Some(5_400_000));
        check("250ms", Some(250));
        check("2d", Some(172_800_000));
        for bad in
            ["", " ", "s", "-1", "-1s", "30x", "nan", "inf", "1..5s", "30 apples", "99999999d"]
        {
            check(bad, None);
        }
        for millis in [0, 1, 250, 10_000, 5_400_000, 90_061_001] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&write_duration(duration)), Some(duration));
        }
    }

    #[test]
    fn amounts_of_memory_are_read_and_written() {
        let check = |text, bytes| assert_eq!(parse_bytes(text), bytes, "{text}");
        check("16GiB", Some(16 << 30));
        check("512 MB", Some(512_000_000));
        check("1.5gib", Some(3 << 29));
        check("1024", Some(1_024));
        for bad in ["", "GiB", "-1", "16 GiBs", "16G", "1e3", "99999999999TiB"] {
            check(bad, None);
        }
        for bytes in [0, 1, 1_000, 1_024, 16 << 30, 15_000_000_000, 12_345_677] {
            assert_eq!(parse_bytes(&write_bytes(bytes)), Some(bytes));
        }
    }
}
