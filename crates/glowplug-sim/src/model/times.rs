//! Measured times from a file, to draw from.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use crate::scenario::duration_of;
use crate::trace::Unit;
use crate::trace::limits::TIME_MAX;

/// Bytes of the file: some million times. More are refused.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("it has more than {FILE_BYTES_MAX} bytes; some thousand times say as much")]
    TooLong,
    #[error(
        "line {line} is `{text}`; each line must be a time from 0 to 100 years, such as 2.5 or 2500ms"
    )]
    NoTime { line: u64, text: String },
    #[error("it holds no times; write one a line")]
    Empty,
}

/// One time a line: a number, or a duration with its unit such as `2s`. A first line that is neither names
/// them, and its ending says what the numbers count, as in `load_ms`; seconds without one. Empty lines and
/// those that begin with `#` say nothing. The result is never empty.
pub fn read(path: &Path) -> Result<Vec<Duration>, Error> {
    let file = File::open(path)?;
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(Error::TooLong);
    }
    let mut per_second = 1.0;
    let mut times = Vec::new();
    let mut is_first = true;
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line?;
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let is_head =
            std::mem::take(&mut is_first) && text.starts_with(|c: char| c.is_alphabetic());
        match time(text, per_second) {
            Some(time) => times.push(time),
            None if is_head && text.parse::<f64>().is_err() => {
                per_second = Unit::of_name(text).map_or(1.0, Unit::per_second);
            }
            None => return Err(Error::NoTime { line: number, text: text.to_owned() }),
        }
    }
    if times.is_empty() { Err(Error::Empty) } else { Ok(times) }
}

/// `None`: it is negative, no time, or beyond all bounds.
fn time(text: &str, per_second: f64) -> Option<Duration> {
    let time = match text.parse::<f64>() {
        Ok(number) => Duration::try_from_secs_f64(number / per_second).ok(),
        Err(_) => duration_of(text),
    };
    time.filter(|time| *time <= TIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_their_unit_and_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str, expected: Result<&[u64], &str>| {
            let path = dir.path().join("times.txt");
            std::fs::write(&path, text).unwrap();
            match (read(&path), expected) {
                (Ok(found), expected) => {
                    let millis: Vec<u128> = found.iter().map(Duration::as_millis).collect();
                    let expected = expected.unwrap().iter().map(|time| u128::from(*time));
                    assert_eq!(millis, expected.collect::<Vec<_>>(), "{text}");
                }
                (Err(found), expected) => {
                    let (found, expected) = (found.to_string(), expected.unwrap_err());
                    assert!(found.contains(expected), "{text}: {found}");
                }
            }
        };
        check("1.5\n\n 2\n", Ok(&[1_500, 2_000]));
        check("load_ms\n1500\n", Ok(&[1_500]));
        check("setup\n1\n", Ok(&[1_000]));
        check("# measured\n2s\n250ms\n", Ok(&[2_000, 250]));
        for bad in ["-1", "nan", "inf", "1e300", "4e9", "soon"] {
            check(&format!("1\n{bad}\n"), Err("line 2 is"));
        }
        check("1e300\n", Err("line 1 is"));
        check("nan\n", Err("line 1 is"));
        check("seconds\n", Err("holds no times"));
        check("", Err("holds no times"));
    }
}
