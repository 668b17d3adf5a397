//! Measured setup times from a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use glowplug_sim::model::Model;
use glowplug_sim::trace::Unit;
use glowplug_sim::trace::limits::TIME_MAX;

use crate::failure::Failure;

/// Bytes of the file: some million times. More are refused.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One time a line. A first line that is no number names them; its ending says what they count, as in
/// `load_ms`. Seconds without one.
pub(super) fn from_file(path: &Path) -> Result<Model, Failure> {
    let name = path.display();
    let failed = |error: &std::io::Error| Failure::user(format!("cannot read `{name}`: {error}"));
    let file = File::open(path).map_err(|error| failed(&error))?;
    if file.metadata().map_err(|error| failed(&error))?.len() > FILE_BYTES_MAX {
        return Err(Failure::user(format!(
            "`{name}` has more than {FILE_BYTES_MAX} bytes; some thousand times say as much"
        )));
    }
    let mut per_second = 1.0;
    let mut times = Vec::new();
    for (line, number) in BufReader::new(file).lines().zip(1_u64..) {
        let line = line.map_err(|error| failed(&error))?;
        let text = line.trim();
        match text.parse::<f64>() {
            _ if text.is_empty() => {}
            Err(_) if number == 1 => per_second = per_second_of(text),
            value => times.push(value.ok().and_then(|value| time(value / per_second)).ok_or_else(|| {
                Failure::user(format!(
                    "line {number} of `{name}` is `{text}`; each line must be a time, from 0 to 100 years"
                ))
            })?),
        }
    }
    if times.is_empty() {
        return Err(Failure::user(format!("`{name}` holds no times; write one a line")));
    }
    Ok(Model::Empirical(times.into()))
}

/// `None`: it is negative, no number, or beyond all bounds.
fn time(secs: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(secs).ok().filter(|time| *time <= TIME_MAX)
}

fn per_second_of(name: &str) -> f64 {
    match Unit::of_name(name) {
        Some(Unit::Millis) => 1e3,
        Some(Unit::Micros) => 1e6,
        Some(Unit::Nanos) => 1e9,
        Some(Unit::Seconds) | None => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_their_unit_and_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str, expected: Result<Model, &str>| {
            let path = dir.path().join("times.txt");
            std::fs::write(&path, text).unwrap();
            match (from_file(&path), expected) {
                (Ok(found), expected) => assert_eq!(Ok(found), expected, "{text}"),
                (Err(found), expected) => {
                    let (found, expected) = (found.to_string(), expected.unwrap_err());
                    assert!(found.contains(expected), "{text}: {found}");
                }
            }
        };
        let of = |millis: &[u64]| {
            Ok(Model::Empirical(millis.iter().copied().map(Duration::from_millis).collect()))
        };
        check("1.5\n\n 2\n", of(&[1_500, 2_000]));
        check("load_ms\n1500\n", of(&[1_500]));
        check("setup\n1\n", of(&[1_000]));
        for bad in ["-1", "nan", "inf", "1e300", "4e9", "soon"] {
            check(&format!("1\n{bad}\n"), Err("line 2 of"));
        }
        check("1e300\n", Err("line 1 of"));
        check("seconds\n", Err("holds no times"));
    }
}
