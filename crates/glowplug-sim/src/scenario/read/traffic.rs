//! Streams of requests, as a scenario says them.

use std::path::Path;
use std::time::Duration;

use glowplug_core::request::{Mode, Priority};

use super::super::document::{Raw, Table};
use super::super::rate::{DAY_SECS, Rate};
use super::super::replay::Replay;
use super::super::shape::Shape;
use super::super::source::{Creep, Origin, Service, Stream};
use super::super::value::{self, Reader};
use super::model;
use crate::model::Model;

/// Requests, bursts or sessions a second: time is counted in microseconds.
const RATE_MAX: f64 = 1e6;

const SHAPES: [&str; 9] =
    ["poisson", "even", "bursts", "daily", "crowd", "batches", "sessions", "outage", "trace"];

/// What an app says about all its streams.
pub(super) struct OfApp<'a> {
    pub(super) service: &'a Model,
    pub(super) creep: Option<Creep>,
    pub(super) length: Duration,
    pub(super) dir: &'a Path,
}

/// Reads one table of traffic. The app's index is entered later.
pub(super) fn read(reader: &mut Reader, mut table: Table, of_app: &OfApp<'_>) -> Option<Stream> {
    let before = reader.problems.len();
    let table_ = &mut table;
    let (from, until) = (reader.duration(table_, "from"), reader.duration(table_, "until"));
    let mode = reader.choice(table_, "mode", &["queued", "direct"]);
    let priority = reader.choice(table_, "priority", &["normal", "low"]);
    let start_within = reader.duration(table_, "start_within");
    let own_service = model::read(reader, table_, "service", of_app.dir);
    let Some(origin) = origin(reader, table_, of_app) else {
        // Without its shape nobody can say which keys it may have.
        return None;
    };
    if let Origin::Shape(shape) = &origin {
        check_numbers(reader, &table, shape);
    }
    table.finish(&mut reader.problems);
    let service = (own_service.is_some() || of_app.creep.is_some()).then(|| Service {
        model: own_service.unwrap_or_else(|| of_app.service.clone()),
        creep: of_app.creep,
    });
    (reader.problems.len() == before).then(|| Stream {
        app: 0,
        origin,
        from: from.unwrap_or(Duration::ZERO),
        until: until.unwrap_or(of_app.length).min(of_app.length),
        mode: if mode == Some(1) { Mode::Direct } else { Mode::Queued },
        priority: if priority == Some(1) { Priority::Low } else { Priority::Normal },
        start_within,
        service,
    })
}

fn origin(reader: &mut Reader, table: &mut Table, of_app: &OfApp<'_>) -> Option<Origin> {
    let before = reader.problems.len();
    let Some(nth) = reader.choice(table, "shape", &SHAPES) else {
        if reader.problems.len() == before {
            let message = format!("[{}] does not say its `shape`", table.path);
            reader.problem(table.line, message, Some(format!("there are: {}", SHAPES.join(", "))));
        }
        return None;
    };
    Some(Origin::Shape(match SHAPES[nth] {
        "trace" => {
            let before = reader.problems.len();
            let file = reader.text(table, "file");
            let file = reader.need(table, "file", "\"traffic.gptrace\"", file, before)?;
            let app = reader.text(table, "app");
            return Some(Origin::Replay(Replay { file: of_app.dir.join(file), app }));
        }
        "poisson" => Shape::Random(Rate::Constant(reader.rate_needed(table, "rate")?)),
        "even" => Shape::Even { every: reader.duration_needed(table, "every")? },
        "bursts" => bursts(reader, table)?,
        "daily" => Shape::Random(daily(reader, table)?),
        "crowd" => Shape::Random(crowd(reader, table)?),
        "batches" => Shape::Batches {
            rate: 1.0 / reader.duration_needed(table, "every")?.as_secs_f64(),
            size: reader.count_needed(table, "size")?,
            spread: reader.duration(table, "spread").unwrap_or(Duration::ZERO),
        },
        "sessions" => Shape::Sessions {
            rate: reader.rate_needed(table, "rate")?,
            requests: reader.number_needed(table, "requests")?,
            think: reader.duration_needed(table, "think")?,
        },
        _ => Shape::Herd {
            rate: reader.rate_needed(table, "rate")?,
            at: reader.duration(table, "at").unwrap_or(of_app.length / 2),
            outage: reader.duration_needed(table, "outage")?,
            retries: reader.number(table, "retries").unwrap_or(0.0),
            spread: reader.duration(table, "spread").unwrap_or(Duration::from_secs(1)),
        },
    }))
}

fn bursts(reader: &mut Reader, table: &mut Table) -> Option<Shape> {
    let quiet_rate = reader.rate(table, "quiet_rate").unwrap_or(0.0);
    let rate = reader.rate_needed(table, "rate");
    let burst = reader.duration_needed(table, "burst");
    let quiet = reader.duration_needed(table, "quiet");
    Some(Shape::Bursts { rate: rate?, quiet_rate, burst: burst?, quiet: quiet? })
}

/// `rate` is the mean over a day, whether the hours are said one by one or follow a wave.
fn daily(reader: &mut Reader, table: &mut Table) -> Option<Rate> {
    let swing = reader.share(table, "swing").unwrap_or(0.8);
    let peak = reader.duration(table, "peak").unwrap_or(Duration::from_hours(14));
    let hours = reader.list(table, "hours");
    let mean = reader.rate_needed(table, "rate")?;
    let Some(hours) = hours else {
        return Some(Rate::Daily { mean, swing, peak_secs: peak.as_secs_f64() % DAY_SECS });
    };
    let weights: Option<Vec<f64>> = hours.iter().map(value::number).collect();
    let weights: Option<[f64; 24]> = weights.and_then(|weights| weights.try_into().ok());
    let sum = weights.map_or(0.0, |weights| weights.iter().sum());
    if sum > 0.0 {
        return weights.map(|weights| Rate::Hourly(weights.map(|one| one * 24.0 * mean / sum)));
    }
    let found = Raw::List(hours).describe();
    let message =
        format!("`hours`{} must be 24 numbers that are not all 0, not {found}", table.place());
    reader.problem(table.line, message, None);
    None
}

fn crowd(reader: &mut Reader, table: &mut Table) -> Option<Rate> {
    let rise = reader.duration(table, "rise").unwrap_or(Duration::from_secs(10));
    let fall = reader.duration(table, "fall").unwrap_or(Duration::from_mins(5));
    let base = reader.rate_needed(table, "rate");
    let at = reader.duration_needed(table, "at");
    let times = reader.number_needed(table, "times");
    Some(Rate::Crowd {
        base: base?,
        at_secs: at?.as_secs_f64(),
        times: times?,
        rise_secs: rise.as_secs_f64(),
        fall_secs: fall.as_secs_f64(),
    })
}

/// Refuses numbers with which time would stand still.
fn check_numbers(reader: &mut Reader, table: &Table, shape: &Shape) {
    let highest = |rate: &Rate| match rate {
        Rate::Constant(rate) => *rate,
        Rate::Daily { mean, swing, .. } => mean * (1.0 + swing),
        Rate::Hourly(rates) => rates.iter().copied().fold(0.0, f64::max),
        Rate::Crowd { base, times, .. } => base * times.max(1.0),
    };
    let none = |time: &Duration| time.is_zero();
    let (rate, zero) = match shape {
        Shape::Random(rate) => {
            let falls = !matches!(rate, Rate::Crowd { fall_secs, .. } if *fall_secs <= 0.0);
            (highest(rate), (!falls).then_some("fall"))
        }
        Shape::Even { every } => (0.0, none(every).then_some("every")),
        Shape::Bursts { rate, quiet_rate, burst, .. } => {
            (rate.max(*quiet_rate), none(burst).then_some("burst"))
        }
        Shape::Batches { rate, size, .. } => (rate * f64::from(*size), None),
        Shape::Sessions { rate, requests, .. } => {
            (rate * requests, (*requests < 1.0).then_some("requests"))
        }
        Shape::Herd { rate, retries, .. } => (rate * (1.0 + retries), None),
    };
    if let Some(key) = zero {
        reader.problem(table.line, format!("`{key}`{} is too small", table.place()), None);
    }
    // Not a number, or one beyond all limits, is no rate either.
    if !(0.0..=RATE_MAX).contains(&rate) {
        let message =
            format!("the traffic{} is more than {RATE_MAX:.0} requests a second", table.place());
        reader.problem(table.line, message, None);
    }
}
