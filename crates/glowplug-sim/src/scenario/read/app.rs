//! `[apps.NAME]` of a scenario.

use std::path::Path;
use std::time::Duration;

use glowplug_core::resources::MachineType;
use glowplug_core::retry::Rules;
use glowplug_core::scaler::{self, Load};
use glowplug_core::spec::{AppSpec, Overrides, PolicyName, Scaling};

use super::super::document::{Entry, Table};
use super::super::expect::{self, Expectation};
use super::super::size::Part;
use super::super::source::{Creep, Origin, Stream, zipf};
use super::super::value::Reader;
use super::{model, traffic};
use crate::model::{AppModel, Model};

/// Apps that one table may stand for.
const COPIES_MAX: u32 = 100_000;
/// How long a runner takes to end, if nothing is said.
const EXIT: Duration = Duration::from_millis(200);

/// An app of the file, or several that differ in nothing but their share of the traffic.
pub(super) struct Read {
    /// As it stands in the file.
    pub(super) name: String,
    pub(super) models: Vec<AppModel>,
    /// Of each of the models. The app's index is entered later.
    pub(super) streams: Vec<Vec<Stream>>,
    pub(super) expectations: Vec<Expectation>,
}

pub(super) fn read(
    reader: &mut Reader,
    entry: Entry,
    length: Duration,
    dir: &Path,
) -> Option<Read> {
    let name = entry.key.clone();
    let mut table = reader.table_of(entry, format!("apps.{name}"))?;
    let table_ = &mut table;
    let scaling = scaling(reader, table_, Scaling::default());
    let machine = machine(reader, table_);
    let constant = |time| Model::Constant(time);
    let setup =
        model::read(reader, table_, "setup", dir).unwrap_or(constant(Duration::from_secs(10)));
    let service =
        model::read(reader, table_, "service", dir).unwrap_or(constant(Duration::from_secs(1)));
    let app = AppModel {
        spec: AppSpec {
            name: name.clone(),
            revision: 1,
            scaling,
            machine_types: vec![machine],
            retry: Rules::default(),
        },
        pull: model::read(reader, table_, "pull", dir),
        setup,
        service,
        exit: model::read(reader, table_, "exit", dir).unwrap_or(constant(EXIT)),
        slowdown: reader.number(table_, "slowdown").unwrap_or(0.0),
        faults: reader
            .table(table_, "faults")
            .map(|faults| model::faults(reader, faults))
            .unwrap_or_default(),
    };
    let creep = reader.table(table_, "creep").and_then(|table| creep(reader, table, length));
    let of_app = traffic::OfApp { service: &app.service, creep, length, dir };
    let streams: Vec<Stream> = reader
        .tables(table_, "traffic")
        .into_iter()
        .filter_map(|table| traffic::read(reader, table, &of_app))
        .collect();
    let expectations = reader
        .table(table_, "expect")
        .map(|table| expect::read(reader, table, true))
        .unwrap_or_default();
    let copies = reader.count(table_, "copies").unwrap_or(1);
    let exponent = reader.number(table_, "zipf").unwrap_or(0.0);
    if !(1..=COPIES_MAX).contains(&copies) {
        let message = format!("`copies`{} must be from 1 to {COPIES_MAX}", table.place());
        reader.problem(table.line, message, None);
        return None;
    }
    let recorded = |stream: &Stream| matches!(stream.origin, Origin::Replay(_));
    if copies > 1 && streams.iter().any(recorded) {
        let message = format!("`copies`{} cannot share a recorded trace", table.place());
        reader.problem(table.line, message, None);
    }
    let (line, path) = (table.line, table.path.clone());
    table.finish(&mut reader.problems);
    let one = Read { name, models: vec![app], streams: vec![streams], expectations };
    let fits = fits(reader, &one, u64::from(copies), line, &path);
    fits.then(|| copied(one, copies, exponent))
}

/// Whether there may be so many copies of an app beside what was read before it.
fn fits(reader: &mut Reader, one: &Read, copies: u64, line: usize, path: &str) -> bool {
    let floor = |app: &AppModel| scaler::target(&app.spec.scaling, Load::default()).desired;
    let floors: u64 = one.models.iter().map(floor).map(u64::from).sum();
    let streams = one.streams.iter().map(Vec::len).sum::<usize>() as u64;
    [
        (Part::Apps, 1),
        (Part::FloorRunners, floors),
        (Part::Streams, streams),
        (Part::Expectations, one.expectations.len() as u64),
    ]
    .into_iter()
    .all(|(part, each)| reader.fits(part, copies.saturating_mul(each), line, path))
}

/// Divides the traffic of an app among so many copies of it.
fn copied(one: Read, copies: u32, exponent: f64) -> Read {
    let (Some(model), Some(streams)) = (one.models.first(), one.streams.first()) else {
        return one;
    };
    if copies <= 1 {
        return one;
    }
    let (mut models, mut streams_of) = (Vec::new(), Vec::new());
    for (nth, weight) in (1..=copies).zip(zipf(copies, exponent)) {
        let mut model = model.clone();
        model.spec.name = format!("{}-{nth}", one.name);
        models.push(model);
        let scaled = |stream: &Stream| {
            let mut stream = stream.clone();
            if let Origin::Shape(shape) = &mut stream.origin {
                *shape = shape.scaled(weight);
            }
            stream
        };
        streams_of.push(streams.iter().map(scaled).collect());
    }
    Read { models, streams: streams_of, ..one }
}

/// The scaling parameters, under the names they have in the config.
pub(super) fn scaling(reader: &mut Reader, table: &mut Table, base: Scaling) -> Scaling {
    let before = reader.problems.len();
    let line = table.line;
    let policy = reader.choice(table, "policy", PolicyName::NAMES);
    let price = reader.wait_price(table, "wait_price");
    let percent = reader.number(table, "wait_budget_percent");
    let mut duration = |key| reader.duration(table, key);
    let timed = Overrides {
        wait_budget: duration("wait_budget"),
        keep_alive: duration("keep_alive"),
        scaling_delay: duration("scaling_delay"),
        startup_timeout: duration("startup_timeout"),
        request_timeout: duration("request_timeout"),
        unused_runner_timeout: duration("unused_runner_timeout"),
        termination_grace_period: duration("termination_grace_period_seconds"),
        frozen_for: duration("frozen_for"),
        ..Overrides::default()
    };
    let mut count = |key| reader.count(table, key);
    let overrides = Overrides {
        policy: policy.map(|nth| PolicyName::ALL[nth]),
        wait_budget_percent: percent,
        wait_price: price,
        min_concurrency: count("min_concurrency"),
        max_concurrency: count("max_concurrency"),
        concurrency_buffer: count("concurrency_buffer"),
        concurrency_buffer_perc: count("concurrency_buffer_perc"),
        max_multiplexing: count("max_multiplexing"),
        ..timed
    };
    match overrides.apply(base) {
        Ok(scaling) => scaling,
        Err(error) => {
            if reader.problems.len() == before {
                reader.problem(line, format!("{error}{}", table.place()), None);
            }
            base
        }
    }
}

/// What one runner holds: one core and one gibibyte unless it says otherwise.
fn machine(reader: &mut Reader, table: &mut Table) -> MachineType {
    let gpu_kind = reader.text(table, "gpu_kind");
    let gpus = reader.count(table, "gpus");
    MachineType {
        name: "machine".to_owned(),
        cpu_millis: super::cores(reader, table).unwrap_or(1_000),
        memory_bytes: reader.bytes(table, "memory").unwrap_or(1 << 30),
        gpus: gpus.unwrap_or(u32::from(gpu_kind.is_some())),
        gpu_kind,
        gpu_memory_bytes: reader.bytes(table, "gpu_memory").unwrap_or(0),
    }
}

fn creep(reader: &mut Reader, mut table: Table, length: Duration) -> Option<Creep> {
    let from = reader.duration(&mut table, "from").unwrap_or(Duration::ZERO);
    let until = reader.duration(&mut table, "until").unwrap_or(length);
    let times = reader.number_needed(&mut table, "times");
    table.finish(&mut reader.problems);
    Some(Creep { from, until, times: times? })
}
