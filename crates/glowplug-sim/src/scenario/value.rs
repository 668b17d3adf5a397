//! Values of a scenario as people write them.

use std::time::Duration;

use glowplug_core::spec::{WAIT_PRICES, wait_price};

use super::document::{Entry, Problem, Raw, Table, suggest};
use super::size::{Part, Size};

/// No length in a scenario is longer: ten years.
const DURATION_SECS_MAX: f64 = 10.0 * 365.0 * 86_400.0;
/// No number in a scenario is larger.
const NUMBER_MAX: f64 = 1e12;
/// Bytes of memory: 1 PiB.
const BYTES_MAX: f64 = 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0;

const BYTE_UNITS: [(&str, f64); 8] = [
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
    ("TiB", 1024.0 * 1024.0 * 1024.0 * 1024.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
];

/// Takes values out of tables, and keeps what is wrong with them and how much they come to.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    size: Size,
}

impl Reader {
    pub(super) fn problem(&mut self, line: usize, message: String, help: Option<String>) {
        self.problems.push(Problem { line, message, help });
    }

    /// Whether so many more of a part of the scenario still fit. If not, it is a problem.
    pub(super) fn fits(&mut self, part: Part, count: u64, line: usize, path: &str) -> bool {
        let grown = self.size.grow(part, count, line, path);
        let fits = grown.is_ok();
        self.problems.extend(grown.err());
        fits
    }

    /// What `read` makes of a key's value; if nothing, it is a problem and counts as not being there.
    fn read<T>(
        &mut self,
        table: &mut Table,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Raw) -> Option<T>,
    ) -> Option<T> {
        let entry = table.take(key)?;
        let value = read(&entry.value);
        if value.is_none() {
            let message = format!(
                "`{key}`{} must be {expected}, not {}",
                table.place(),
                entry.value.describe()
            );
            self.problem(entry.line, message, None);
        }
        value
    }

    /// As [`Reader::read`], for a key that must be there.
    pub(super) fn need<T>(
        &mut self,
        table: &Table,
        key: &str,
        example: &str,
        value: Option<T>,
        before: usize,
    ) -> Option<T> {
        // A value that is there and wrong has been told already.
        if value.is_none() && self.problems.len() == before {
            let message = format!("[{}] does not say its `{key}`", table.path);
            self.problem(table.line, message, Some(format!("add `{key} = {example}`")));
        }
        value
    }

    pub(super) fn duration(&mut self, table: &mut Table, key: &'static str) -> Option<Duration> {
        self.read(table, key, "a duration such as \"30s\" or \"5m\"", duration)
    }

    pub(super) fn duration_needed(
        &mut self,
        table: &mut Table,
        key: &'static str,
    ) -> Option<Duration> {
        let before = self.problems.len();
        let value = self.duration(table, key);
        self.need(table, key, "\"10m\"", value, before)
    }

    /// In events per second.
    pub(super) fn rate(&mut self, table: &mut Table, key: &'static str) -> Option<f64> {
        self.read(table, key, "a rate such as 0.5 (a second), \"30/min\" or \"100/h\"", rate)
    }

    pub(super) fn rate_needed(&mut self, table: &mut Table, key: &'static str) -> Option<f64> {
        let before = self.problems.len();
        let value = self.rate(table, key);
        self.need(table, key, "\"30/min\"", value, before)
    }

    pub(super) fn number(&mut self, table: &mut Table, key: &'static str) -> Option<f64> {
        self.read(table, key, "a number of 0 or more", number)
    }

    pub(super) fn number_needed(&mut self, table: &mut Table, key: &'static str) -> Option<f64> {
        let before = self.problems.len();
        let value = self.number(table, key);
        self.need(table, key, "10", value, before)
    }

    pub(super) fn count(&mut self, table: &mut Table, key: &'static str) -> Option<u32> {
        self.read(table, key, "a whole number of 0 or more", count)
    }

    pub(super) fn count_needed(&mut self, table: &mut Table, key: &'static str) -> Option<u32> {
        let before = self.problems.len();
        let value = self.count(table, key);
        self.need(table, key, "10", value, before)
    }

    pub(super) fn share(&mut self, table: &mut Table, key: &'static str) -> Option<f64> {
        self.read(table, key, "a share such as 0.05 or \"5%\"", share)
    }

    pub(super) fn bytes(&mut self, table: &mut Table, key: &'static str) -> Option<u64> {
        self.read(table, key, "an amount of memory such as \"16GiB\"", bytes)
    }

    /// What a second of waiting is worth: a number, or a name for one.
    pub(super) fn wait_price(&mut self, table: &mut Table, key: &'static str) -> Option<f64> {
        let names = WAIT_PRICES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let expected = format!("a number of 0 or more, or one of {names}");
        self.read(table, key, &expected, |raw| match raw {
            Raw::Text(name) => wait_price(name),
            raw => number(raw),
        })
    }

    pub(super) fn text(&mut self, table: &mut Table, key: &'static str) -> Option<String> {
        self.read(table, key, "text in quotes", |raw| match raw {
            Raw::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn list(&mut self, table: &mut Table, key: &'static str) -> Option<Vec<Raw>> {
        self.read(table, key, "a list", |raw| match raw {
            Raw::List(items) => Some(items.clone()),
            _ => None,
        })
    }

    /// One of these names; which of them.
    pub(super) fn choice(
        &mut self,
        table: &mut Table,
        key: &'static str,
        choices: &[&str],
    ) -> Option<usize> {
        let entry = table.take(key)?;
        let found = match &entry.value {
            Raw::Text(text) => choices.iter().position(|choice| choice == text),
            _ => None,
        };
        if found.is_none() {
            let help = match &entry.value {
                Raw::Text(text) => suggest(text, choices),
                _ => suggest("", choices),
            };
            let message = format!("`{key}`{} cannot be {}", table.place(), entry.value.describe());
            self.problem(entry.line, message, Some(help));
        }
        found
    }

    pub(super) fn table(&mut self, table: &mut Table, key: &'static str) -> Option<Table> {
        let entry = table.take(key)?;
        self.table_of(entry, table.inner(key))
    }

    pub(super) fn table_of(&mut self, entry: Entry, path: String) -> Option<Table> {
        match entry.value {
            Raw::Table(entries) => Some(Table::new(path, entry.line, entries)),
            other => {
                let message = format!("[{path}] must be a table, not {}", other.describe());
                self.problem(entry.line, message, None);
                None
            }
        }
    }

    /// One table, or several that were written with double brackets.
    pub(super) fn tables(&mut self, table: &mut Table, key: &'static str) -> Vec<Table> {
        let Some(entry) = table.take(key) else { return Vec::new() };
        let path = table.inner(key);
        let Raw::List(items) = entry.value else {
            return self.table_of(entry, path).into_iter().collect();
        };
        let mut tables = Vec::new();
        for value in items {
            // Tables in a list have no line of their own; that of their first key is near enough.
            let line = match &value {
                Raw::Table(entries) => entries.first().map_or(entry.line, |first| first.line),
                _ => entry.line,
            };
            let item = Entry { key: entry.key.clone(), line, value };
            tables.extend(self.table_of(item, path.clone()));
        }
        tables
    }
}

pub(super) fn number(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Number(number) if (0.0..=NUMBER_MAX).contains(number) => Some(*number),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a whole number that a u32 holds"
)]
pub(super) fn count(raw: &Raw) -> Option<u32> {
    number(raw)
        .filter(|number| number.fract() == 0.0 && *number <= f64::from(u32::MAX))
        .map(|number| number as u32)
}

pub(super) fn share(raw: &Raw) -> Option<f64> {
    let share = match raw {
        Raw::Text(text) => text.strip_suffix('%')?.trim().parse::<f64>().ok()? / 100.0,
        _ => number(raw)?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

pub(super) fn duration(raw: &Raw) -> Option<Duration> {
    match raw {
        Raw::Text(text) => duration_of(text),
        _ => seconds(number(raw)?),
    }
}

fn seconds(number: f64) -> Option<Duration> {
    (0.0..=DURATION_SECS_MAX).contains(&number).then(|| Duration::from_secs_f64(number))
}

/// Reads `30s`, `1h30m`, `250ms`, `2d`.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total_secs = 0.0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        total_secs += number.parse::<f64>().ok()? * unit_secs(unit)?;
        rest = next.trim_start();
    }
    (!text.trim().is_empty()).then(|| seconds(total_secs)).flatten()
}

fn unit_secs(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" | "day" => 86_400.0,
        _ => return None,
    })
}

/// Per second.
fn rate(raw: &Raw) -> Option<f64> {
    let Raw::Text(text) = raw else { return number(raw) };
    let (number, unit) = text.split_once('/')?;
    let number: f64 = number.trim().parse().ok()?;
    let rate = number / unit_secs(unit.trim())?;
    (0.0..=NUMBER_MAX).contains(&rate).then_some(rate)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to lie between 0 and BYTES_MAX"
)]
pub(super) fn bytes(raw: &Raw) -> Option<u64> {
    let bytes = match raw {
        Raw::Text(text) => {
            let unit_begin = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = text.split_at(unit_begin);
            let (_, size) = BYTE_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            number.parse::<f64>().ok()? * size
        }
        _ => number(raw)?,
    };
    (0.0..=BYTES_MAX).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn durations_are_read() {
        let check = |raw: Raw, millis: Option<u64>| {
            assert_eq!(duration(&raw), millis.map(Duration::from_millis), "{raw:?}");
        };
        check(text("20s"), Some(20_000));
        check(text("1h30m"), Some(5_400_000));
        check(text("1h 30min"), Some(5_400_000));
        check(text("0.5d"), Some(43_200_000));
        check(Raw::Number(0.25), Some(250));
        for bad in ["", " ", "20", "s", "-1s", "20x", "1..5s", "99999999d"] {
            check(text(bad), None);
        }
        check(Raw::Number(-1.0), None);
        check(Raw::Number(f64::NAN), None);
        check(Raw::Bool(true), None);
    }

    #[test]
    fn rates_are_per_second() {
        let check = |raw: Raw, expected: Option<f64>| assert_eq!(rate(&raw), expected, "{raw:?}");
        check(text("30/min"), Some(0.5));
        check(text("1800 / h"), Some(0.5));
        check(text("43200/day"), Some(0.5));
        check(Raw::Number(0.5), Some(0.5));
        for bad in ["30", "30/x", "/s", "-1/s", "inf/s", "nan/s"] {
            check(text(bad), None);
        }
    }

    #[test]
    fn shares_and_amounts_are_read() {
        assert_eq!(share(&text("5%")), Some(0.05));
        assert_eq!(share(&Raw::Number(0.5)), Some(0.5));
        assert_eq!(share(&text("101%")), None);
        assert_eq!(share(&text("nan%")), None);
        assert_eq!(count(&Raw::Number(3.0)), Some(3));
        assert_eq!(count(&Raw::Number(3.5)), None);
        assert_eq!(bytes(&text("1.5GiB")), Some(3 << 29));
        assert_eq!(bytes(&text("16 GB")), Some(16_000_000_000));
        assert_eq!(bytes(&text("16")), None);
        assert_eq!(bytes(&text("16G")), None);
    }
}
