//! Times and lengths as people write them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use super::super::options::Unit;

/// What logs write in brackets: `10/Oct/2000:13:55:36 -0700`.
const LOG_TIME: &str = "%d/%b/%Y:%H:%M:%S %z";
/// What stands where nothing is known.
const NOTHING: &[&str] = &["", "-", "null", "NULL", "None", "nan", "NaN"];

/// Reads the times of one file. Most follow each other within a second, and are written alike until there.
#[derive(Debug)]
pub(super) struct Clock {
    unit: Option<Unit>,
    /// The whole second that was read last.
    seen: String,
    micros: u64,
}

impl Clock {
    /// `unit`: what numbers count; `None`: told by their size.
    pub(super) fn new(unit: Option<Unit>) -> Self {
        Self { unit, seen: String::new(), micros: 0 }
    }

    /// Microseconds since 1970, or since a beginning of the file's own. `None`: that is no time, or it is
    /// before the beginning.
    pub(super) fn read(&mut self, text: &str) -> Option<u64> {
        /// Of `2024-11-15 16:57:50`.
        const SECOND_BYTES: usize = 19;
        let text = text.trim();
        if let Ok(number) = text.parse::<f64>() {
            return self.number(number);
        }
        // Only digits behind the second: no zone, or that of the one before.
        let (second, rest) = text.split_at_checked(SECOND_BYTES).unwrap_or((text, ""));
        if !rest.is_empty() || second.len() < SECOND_BYTES {
            return whole(text);
        }
        if self.seen != second {
            self.micros = whole(second)?;
            second.clone_into(&mut self.seen);
        }
        Some(self.micros)
    }

    /// `10/Oct/2000:13:55:36 -0700`, or any other time.
    pub(super) fn read_log(&mut self, text: &str) -> Option<u64> {
        // Before the first time `seen` is empty, and so may be a field.
        if !text.is_empty() && self.seen == text {
            return Some(self.micros);
        }
        let Ok(broken_down) = strtime::parse(LOG_TIME, text) else { return self.read(text) };
        let micros = broken_down.to_timestamp().ok().and_then(since_1970)?;
        self.micros = micros;
        text.clone_into(&mut self.seen);
        Some(micros)
    }

    pub(super) fn number(&self, number: f64) -> Option<u64> {
        let unit = self.unit.unwrap_or_else(|| Unit::of_unix(number));
        micros_of(number, unit)
    }
}

/// A date with a time and perhaps a zone. Without one it is UTC.
fn whole(text: &str) -> Option<u64> {
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return since_1970(timestamp);
    }
    let civil: DateTime = text.parse().ok()?;
    since_1970(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn since_1970(timestamp: Timestamp) -> Option<u64> {
    u64::try_from(timestamp.as_microsecond()).ok()
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none, as when a field is empty.
    Nothing,
    Of(Duration),
    /// Negative, or no number, or beyond all bounds.
    Bad,
}

/// `1.25`, in `unit`, or with a unit of its own: `35ms`, `1.2s`, `800µs`.
pub(super) fn length(text: &str, unit: Unit) -> Length {
    const SUFFIXES: &[(&str, Unit)] = &[
        ("ms", Unit::Millis),
        ("us", Unit::Micros),
        ("µs", Unit::Micros),
        ("ns", Unit::Nanos),
        ("s", Unit::Seconds),
    ];
    let text = text.trim();
    if NOTHING.contains(&text) {
        return Length::Nothing;
    }
    let suffix =
        SUFFIXES.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = suffix.unwrap_or((text, unit));
    let number = number.trim_end().parse::<f64>().ok();
    number.map_or(Length::Bad, |number| length_of(number, unit))
}

pub(super) fn length_of(number: f64, unit: Unit) -> Length {
    micros_of(number, unit).map_or(Length::Bad, |micros| Length::Of(Duration::from_micros(micros)))
}

/// Rounded to the nearest. `None`: negative, not finite, or more than 10,000 years.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
fn micros_of(number: f64, unit: Unit) -> Option<u64> {
    const MICROS_MAX: f64 = 10_000.0 * 366.0 * 86_400.0 * 1e6;
    let micros = (number * (1e6 / unit.per_second())).round();
    (0.0..=MICROS_MAX).contains(&micros).then_some(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let mut clock = Clock::new(None);
        let mut check = |text: &str, expected: Option<u64>| {
            assert_eq!(clock.read_log(text), expected, "{text}");
        };
        let noon = 1_731_689_870_000_000;
        check("", None);
        check("2024-11-15T16:57:50Z", Some(noon));
        check("2024-11-15 16:57:50", Some(noon));
        check("2024-11-15 16:57:50", Some(noon));
        check("2024-11-15 16:57:51", Some(noon + 1_000_000));
        check("2024-11-15 16:57:50.25", Some(noon + 250_000));
        check("2024-11-15 16:57:50.1234567", Some(noon + 123_456));
        check("2024-11-15T17:57:50+01:00", Some(noon));
        check("2024-11-15 16:57:50 UTC", Some(noon));
        check("15/Nov/2024:17:57:50 +0100", Some(noon));
        check("15/Nov/2024:17:57:50 +0100", Some(noon));
        check("15/Nov/2024:16:57:50 +0000", Some(noon));
        check("1731689870", Some(noon));
        check("1731689870.25", Some(noon + 250_000));
        check("1731689870250", Some(noon + 250_000));
        check("1731689870250000", Some(noon + 250_000));
        check("1731689870250000000", Some(noon + 250_000));
        check("0.5", Some(500_000));
        check("-1", None);
        check("1969-12-31 23:59:59", None);
        check("yesterday", None);
        check("2024-13-15 16:57:50", None);
        check("inf", None);
        check("", None);
    }

    #[test]
    fn lengths_have_units() {
        let check = |text: &str, unit, expected| assert_eq!(length(text, unit), expected, "{text}");
        let of = |micros| Length::Of(Duration::from_micros(micros));
        check("32.0", Unit::Seconds, of(32_000_000));
        check("32", Unit::Millis, of(32_000));
        check("32", Unit::Nanos, of(0));
        check("35ms", Unit::Seconds, of(35_000));
        check("1.2s", Unit::Millis, of(1_200_000));
        check("800µs", Unit::Seconds, of(800));
        check("0.000", Unit::Seconds, of(0));
        check("-", Unit::Seconds, Length::Nothing);
        check(" ", Unit::Seconds, Length::Nothing);
        check("null", Unit::Seconds, Length::Nothing);
        check("-1", Unit::Seconds, Length::Bad);
        check("1e300", Unit::Seconds, Length::Bad);
        check("fast", Unit::Seconds, Length::Bad);
    }
}
