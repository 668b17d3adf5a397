//! How long things take, as a scenario says it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::document::{Entry, Raw, Table};
use super::super::value::{self, Reader};
use crate::model::{Faults, Model, times};

/// Reads `"20s"`, `{ median = "20s", sigma = 0.5 }`, `{ mean = "20s" }` (memoryless), or a list of times.
pub(super) fn read(
    reader: &mut Reader,
    table: &mut Table,
    key: &'static str,
    dir: &Path,
) -> Option<Model> {
    let Entry { value, line, .. } = table.take(key)?;
    if let Some(constant) = value::duration(&value) {
        return Some(Model::Constant(constant));
    }
    let path = table.inner(key);
    if let Raw::List(items) = &value {
        return listed(reader, line, &path, items, false);
    }
    let Raw::Table(entries) = value else {
        let message = format!(
            "`{key}`{} must be a duration such as \"20s\", a list of them, or a table such as \
             {{ median = \"20s\", sigma = 0.5 }}, not {}",
            table.place(),
            value.describe()
        );
        reader.problem(line, message, None);
        return None;
    };
    let mut table = Table::new(path, line, entries);
    let model = from_table(reader, &mut table, dir);
    table.finish(&mut reader.problems);
    model
}

fn from_table(reader: &mut Reader, table: &mut Table, dir: &Path) -> Option<Model> {
    let before = reader.problems.len();
    let median = reader.duration(table, "median");
    let sigma = reader.number(table, "sigma");
    let mean = reader.duration(table, "mean");
    let values = reader.list(table, "values");
    let file = reader.text(table, "file");
    let in_order = reader.choice(table, "order", &["random", "given"]) == Some(1);
    let (line, path) = (table.line, table.path.clone());
    match (median, mean, values, file) {
        (Some(median), None, None, None) => Some(Model::LogNormal {
            median_secs: median.as_secs_f64(),
            sigma: sigma.unwrap_or(0.5),
        }),
        (None, Some(mean), None, None) => Some(match sigma {
            None => Model::Exponential { mean_secs: mean.as_secs_f64() },
            Some(sigma) => {
                let median_secs = mean.as_secs_f64() * (-sigma * sigma / 2.0).exp();
                Model::LogNormal { median_secs, sigma }
            }
        }),
        (None, None, Some(values), None) => listed(reader, line, &path, &values, in_order),
        (None, None, None, Some(file)) => from_file(reader, line, &dir.join(file), in_order),
        _ => {
            if reader.problems.len() == before {
                let message =
                    format!("[{path}] must have one of `median`, `mean`, `values` and `file`");
                reader.problem(line, message, None);
            }
            None
        }
    }
}

fn listed(
    reader: &mut Reader,
    line: usize,
    path: &str,
    items: &[Raw],
    in_order: bool,
) -> Option<Model> {
    let mut times = Vec::with_capacity(items.len());
    for item in items {
        let Some(time) = value::duration(item) else {
            let message =
                format!("[{path}] must hold durations such as \"20s\", not {}", item.describe());
            reader.problem(line, message, None);
            return None;
        };
        times.push(time);
    }
    if times.is_empty() {
        reader.problem(line, format!("[{path}] holds no time"), None);
        return None;
    }
    Some(model_of(times, in_order))
}

/// See [`times::read`].
fn from_file(reader: &mut Reader, line: usize, file: &Path, in_order: bool) -> Option<Model> {
    match times::read(file) {
        Ok(times) => Some(model_of(times, in_order)),
        Err(times::Error::Read(error)) => {
            reader.problem(line, format!("cannot read {}: {error}", file.display()), None);
            None
        }
        Err(error) => {
            reader.problem(line, format!("{}: {error}", file.display()), None);
            None
        }
    }
}

fn model_of(times: Vec<Duration>, in_order: bool) -> Model {
    let times: Arc<[Duration]> = times.into();
    if in_order { Model::InOrder(times) } else { Model::Empirical(times) }
}

/// Reads `{ setup_crash = "10%", … }`; what is not said does not go wrong.
pub(super) fn faults(reader: &mut Reader, mut table: Table) -> Faults {
    let mut share = |key| reader.share(&mut table, key).unwrap_or(0.0);
    let faults = Faults {
        setup_crash: share("setup_crash"),
        setup_hang: share("setup_hang"),
        crash: share("crash"),
        error: share("error"),
    };
    table.finish(&mut reader.problems);
    faults
}
