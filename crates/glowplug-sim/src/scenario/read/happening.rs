//! `[[happenings]]` of a scenario.

use std::collections::BTreeMap;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::resources::Capacity;
use glowplug_core::spec::AppSpec;

use super::super::document::{Table, suggest};
use super::super::size::Part;
use super::super::value::Reader;
use super::{app, model};
use crate::model::{AppModel, Faults};
use crate::simulation::{Happening, What};

const KINDS: [&str; 7] = ["deploy", "remove", "resize", "faults", "kill", "warm", "shut_down"];
/// Steps in which something that gets worse little by little does so.
const CREEP_STEPS: u32 = 20;

/// What happenings say about apps.
pub(super) struct Apps<'a> {
    /// Indices of the apps that a name of the file stands for.
    pub(super) by_name: &'a BTreeMap<String, Vec<u32>>,
    pub(super) models: &'a [AppModel],
    pub(super) capacity: &'a Capacity,
}

/// Reads all of them, in order of time.
pub(super) fn read(reader: &mut Reader, tables: Vec<Table>, apps: &Apps<'_>) -> Vec<Happening> {
    let mut dated: Vec<(Duration, Table)> = Vec::new();
    for mut table in tables {
        if let Some(at) = reader.duration_needed(&mut table, "at") {
            dated.push((at, table));
        }
    }
    // In order of time, since each deployment builds on the one before.
    dated.sort_by_key(|(at, _)| *at);
    let mut specs: Vec<AppSpec> = apps.models.iter().map(|model| model.spec.clone()).collect();
    let mut happenings = Vec::new();
    for (at, table) in dated {
        happenings.extend(one(reader, at, table, apps, &mut specs));
    }
    happenings.sort_by_key(|happening| happening.at);
    happenings
}

fn one(
    reader: &mut Reader,
    at: Duration,
    mut table: Table,
    apps: &Apps<'_>,
    specs: &mut [AppSpec],
) -> Vec<Happening> {
    let before = reader.problems.len();
    let now = |what| Happening { at: Timestamp::ZERO + at, what };
    let Some(kind) = reader.choice(&mut table, "what", &KINDS) else {
        if reader.problems.len() == before {
            let message = format!("[{}] does not say `what` happens", table.path);
            reader.problem(table.line, message, Some(format!("there are: {}", KINDS.join(", "))));
        }
        return Vec::new();
    };
    let mut happenings = Vec::new();
    match KINDS[kind] {
        "shut_down" => happenings.push(now(What::ShutDown)),
        "resize" => {
            let capacity = super::capacity(reader, &mut table, apps.capacity);
            happenings.push(now(What::Resize { capacity }));
        }
        "faults" => happenings.extend(faults(reader, at, &mut table, apps)),
        "deploy" => {
            let named = named(reader, &mut table, apps, 1);
            let settings = reader.table(&mut table, "set");
            for app in named {
                let Some(spec) = specs.get_mut(app as usize) else { continue };
                match &settings {
                    // Each problem with it is told once for each app that the name stands for.
                    Some(settings) => {
                        let mut settings = settings.clone();
                        spec.scaling = app::scaling(reader, &mut settings, spec.scaling);
                        settings.finish(&mut reader.problems);
                    }
                    None => spec.revision += 1,
                }
                happenings.push(now(What::Deploy { app, spec: spec.clone() }));
            }
        }
        kind => {
            let runners = match kind {
                "remove" => Some(0),
                _ => reader.count_needed(&mut table, "runners"),
            };
            for app in named(reader, &mut table, apps, 1) {
                let Some(runners) = runners else { break };
                happenings.push(now(match kind {
                    "remove" => What::Remove { app },
                    "kill" => What::Kill { app, runners },
                    _ => What::Warm { app, runners },
                }));
            }
        }
    }
    table.finish(&mut reader.problems);
    happenings
}

/// The apps that `app = "…"` means. `steps`: how often something is to happen to each.
fn named(reader: &mut Reader, table: &mut Table, apps: &Apps<'_>, steps: u32) -> Vec<u32> {
    let before = reader.problems.len();
    let name = reader.text(table, "app");
    let Some(name) = reader.need(table, "app", "\"name\"", name, before) else { return Vec::new() };
    if let Some(indices) = apps.by_name.get(&name) {
        let count = indices.len() as u64 * u64::from(steps);
        let fits = reader.fits(Part::Happenings, count, table.line, &table.path);
        return if fits { indices.clone() } else { Vec::new() };
    }
    let names: Vec<&str> = apps.by_name.keys().map(String::as_str).collect();
    let message = format!("there is no app `{name}`");
    reader.problem(table.line, message, Some(suggest(&name, &names)));
    Vec::new()
}

/// From `at` on, or little by little up to `until`.
fn faults(reader: &mut Reader, at: Duration, table: &mut Table, apps: &Apps<'_>) -> Vec<Happening> {
    let until = reader.duration(table, "until");
    let steps = if until.is_some() { CREEP_STEPS } else { 1 };
    let named = named(reader, table, apps, steps);
    let faults = reader.table(table, "faults").map(|table| model::faults(reader, table));
    let faults = faults.unwrap_or_default();
    let span = until.unwrap_or(at).saturating_sub(at);
    let mut happenings = Vec::new();
    for step in 1..=steps {
        let share = f64::from(step) / f64::from(steps);
        let at = Timestamp::ZERO + at + span.mul_f64(share);
        for app in &named {
            let before = apps.models.get(*app as usize).map(|model| model.faults);
            let faults = between(before.unwrap_or_default(), faults, share);
            happenings.push(Happening { at, what: What::Faults { app: *app, faults } });
        }
    }
    happenings
}

fn between(from: Faults, to: Faults, share: f64) -> Faults {
    let mix = |from: f64, to: f64| from + (to - from) * share;
    Faults {
        setup_crash: mix(from.setup_crash, to.setup_crash),
        setup_hang: mix(from.setup_hang, to.setup_hang),
        crash: mix(from.crash, to.crash),
        error: mix(from.error, to.error),
    }
}
