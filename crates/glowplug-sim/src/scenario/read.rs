//! From the text of a scenario to everything that a simulation of it needs.

mod app;
mod happening;
mod model;
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use glowplug_core::engine;
use glowplug_core::resources::{Capacity, Gpu};

use super::Scenario;
use super::document::{self, Problem, Raw, Table};
use super::expect;
use super::value::Reader;
use crate::simulation::Untidiness;

/// CPU and memory of a scenario that does not say how much there is: enough for any.
const CPU_MILLIS_UNSAID: u64 = 1 << 40;
const MEMORY_BYTES_UNSAID: u64 = 1 << 60;
/// GPUs of one machine.
const GPUS_MAX: u32 = 1_024;
/// CPU cores of one machine, or of all that a scenario takes for one.
const CORES_MAX: f64 = 1e6;

/// Reads a scenario. `dir`: where the files it names are.
pub(super) fn read(text: &str, dir: &Path) -> Result<Scenario, Vec<Problem>> {
    let mut reader = Reader::default();
    let mut file = document::parse(text).map_err(|problem| vec![problem])?;
    let scenario = scenario(&mut reader, &mut file, dir);
    file.finish(&mut reader.problems);
    match scenario {
        Some(scenario) if reader.problems.is_empty() => Ok(scenario),
        _ => {
            reader.problems.sort_by_key(|problem| problem.line);
            // A happening that stands for many apps has its mistakes once for each.
            reader.problems.dedup();
            Err(reader.problems)
        }
    }
}

fn scenario(reader: &mut Reader, file: &mut Table, dir: &Path) -> Option<Scenario> {
    let seed = reader.count(file, "seed").unwrap_or(1);
    let before = reader.problems.len();
    let line = file.line_of("length");
    let length = reader.duration(file, "length");
    if length.is_none() && reader.problems.len() == before {
        let help = Some("add `length = \"1h\"`".to_owned());
        reader.problem(1, "the scenario does not say its `length`".to_owned(), help);
    }
    if length.is_some_and(|length| length.is_zero()) {
        let help = Some("write a longer one, such as `length = \"1h\"`".to_owned());
        reader.problem(line, "`length` is 0, so nothing could happen".to_owned(), help);
    }
    let length = length.unwrap_or(Duration::from_hours(1));
    let until = reader.duration(file, "until");
    let unsaid = Capacity {
        cpu_millis: CPU_MILLIS_UNSAID,
        memory_bytes: MEMORY_BYTES_UNSAID,
        gpus: Vec::new(),
    };
    let capacity = match reader.table(file, "capacity") {
        Some(mut table) => {
            let capacity = self::capacity(reader, &mut table, &unsaid);
            table.finish(&mut reader.problems);
            capacity
        }
        None => unsaid,
    };
    let engine = engine(reader, file);
    let untidiness = untidiness(reader, file);
    let mut expectations = reader
        .table(file, "expect")
        .map(|table| expect::read(reader, table, false))
        .unwrap_or_default();

    let (mut apps, mut streams, mut by_name) = (Vec::new(), Vec::new(), BTreeMap::new());
    let tables = reader.table(file, "apps").map(|mut table| table.take_all()).unwrap_or_default();
    for entry in tables {
        let name = entry.key.clone();
        let Some(read) = app::read(reader, entry, length, dir) else {
            // Its name is known all the same: what else speaks of it has no mistake for that.
            by_name.insert(name, Vec::new());
            continue;
        };
        let mut indices = Vec::new();
        for (model, mut own) in read.models.into_iter().zip(read.streams) {
            let index = u32::try_from(apps.len()).ok()?;
            for stream in &mut own {
                stream.app = index;
            }
            expectations.extend(read.expectations.iter().map(|expect| expect.for_app(index)));
            indices.push(index);
            apps.push(model);
            streams.extend(own);
        }
        by_name.insert(name, indices);
    }
    if by_name.is_empty() {
        let help = Some("add a table such as [apps.hello]".to_owned());
        reader.problem(1, "the scenario has no apps".to_owned(), help);
    }
    let tables = reader.tables(file, "happenings");
    let named = happening::Apps { by_name: &by_name, models: &apps, capacity: &capacity };
    let happenings = happening::read(reader, tables, &named);
    Some(Scenario {
        seed: u64::from(seed),
        length,
        until,
        engine,
        capacity,
        apps,
        streams,
        happenings,
        untidiness,
        expectations,
    })
}

fn engine(reader: &mut Reader, file: &mut Table) -> engine::Config {
    let mut config = engine::Config::default();
    if let Some(mut table) = reader.table(file, "node") {
        if let Some(waiting_max) = reader.count(&mut table, "waiting_max") {
            config.waiting_max = waiting_max as usize;
        }
        if let Some(wait_max) = reader.duration(&mut table, "contention_wait_max") {
            config.contention_wait_max = wait_max;
        }
        table.finish(&mut reader.problems);
    }
    config
}

fn untidiness(reader: &mut Reader, file: &mut Table) -> Untidiness {
    let Some(mut table) = reader.table(file, "untidiness") else { return Untidiness::default() };
    let mut share = |key| reader.share(&mut table, key).unwrap_or(0.0);
    let untidiness = Untidiness { lost: share("lost"), late: share("late"), twice: share("twice") };
    table.finish(&mut reader.problems);
    untidiness
}

/// What there is; what is not said is as in `base`.
fn capacity(reader: &mut Reader, table: &mut Table, base: &Capacity) -> Capacity {
    Capacity {
        cpu_millis: cores(reader, table).unwrap_or(base.cpu_millis),
        memory_bytes: reader.bytes(table, "memory").unwrap_or(base.memory_bytes),
        gpus: gpus(reader, table).unwrap_or_else(|| base.gpus.clone()),
    }
}

/// `cpu`, in cores.
fn cores(reader: &mut Reader, table: &mut Table) -> Option<u64> {
    let line = table.line;
    let cores = reader.number(table, "cpu")?;
    if cores > CORES_MAX {
        let message = format!("`cpu`{} is more than {CORES_MAX} cores", table.place());
        reader.problem(line, message, None);
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and CORES_MAX"
    )]
    Some((cores * 1_000.0).round() as u64)
}

/// A number of them that differ in nothing, or a list such as `[{ kind = "L40", memory = "48GiB", count = 2 }]`.
fn gpus(reader: &mut Reader, table: &mut Table) -> Option<Vec<Gpu>> {
    let entry = table.take("gpus")?;
    let groups = match &entry.value {
        Raw::List(items) => items.clone(),
        count => vec![Raw::Table(vec![document::Entry {
            key: "count".to_owned(),
            line: entry.line,
            value: count.clone(),
        }])],
    };
    let mut gpus = Vec::new();
    for value in groups {
        let group = document::Entry { key: entry.key.clone(), line: entry.line, value };
        let mut group = reader.table_of(group, table.inner("gpus"))?;
        let kind = reader.text(&mut group, "kind").unwrap_or_else(|| "GPU".to_owned());
        let memory_bytes = reader.bytes(&mut group, "memory").unwrap_or(MEMORY_BYTES_UNSAID);
        let count = reader.count(&mut group, "count").unwrap_or(1);
        group.finish(&mut reader.problems);
        for _ in 0..count.min(GPUS_MAX) {
            let index = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
            gpus.push(Gpu { index, kind: kind.clone(), memory_bytes });
        }
        if gpus.len() > GPUS_MAX as usize || count > GPUS_MAX {
            let message = format!("`gpus`{} are more than {GPUS_MAX}", table.place());
            reader.problem(entry.line, message, None);
            return None;
        }
    }
    Some(gpus)
}

#[cfg(test)]
mod tests;
