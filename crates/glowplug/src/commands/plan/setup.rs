//! Measured setup times from a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use glowplug_sim::model::Model;
use glowplug_sim::trace::Unit;

use crate::failure::Failure;

/// Bytes read: some million times.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One time a line. A first line that is no number names them; its ending says what they count, as in
/// `load_ms`. Seconds without one.
pub(super) fn from_file(path: &Path) -> Result<Model, Failure> {
    let name = path.display();
    let failed = |error: &std::io::Error| Failure::user(format!("cannot read `{name}`: {error}"));
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut per_second = 1.0;
    let mut times = Vec::new();
    for (line, number) in BufReader::new(file.take(FILE_BYTES_MAX)).lines().zip(1_u64..) {
        let line = line.map_err(|error| failed(&error))?;
        let text = line.trim();
        match text.parse::<f64>() {
            _ if text.is_empty() => {}
            Ok(value) if value.is_finite() && value >= 0.0 => {
                times.push(Duration::from_secs_f64(value / per_second));
            }
            Err(_) if number == 1 => per_second = per_second_of(text),
            _ => {
                return Err(Failure::user(format!(
                    "line {number} of `{name}` is `{text}`; each line must be a time, 0 or more"
                )));
            }
        }
    }
    if times.is_empty() {
        return Err(Failure::user(format!("`{name}` holds no times; write one a line")));
    }
    Ok(Model::Empirical(times.into()))
}

fn per_second_of(name: &str) -> f64 {
    match Unit::of_name(name) {
        Some(Unit::Millis) => 1e3,
        Some(Unit::Micros) => 1e6,
        Some(Unit::Nanos) => 1e9,
        Some(Unit::Seconds) | None => 1.0,
    }
}
