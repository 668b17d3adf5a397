//! Answers `glowplug why`: one sentence from what is known, and the decisions behind it.

use std::time::Duration;

use glowplug_api::control::{AppView, DecisionView, WhyView};
use glowplug_core::time::Pretty;
use glowplug_core::{RequestId, Rung, RunnerId, Timestamp};
use glowplug_store::JournalRecord;

use crate::apps::App;
use crate::desk::State;
use crate::records::RequestRecord;
use crate::shared::Shared;

/// Decisions read for one answer.
pub(crate) const RECORDS_MAX: usize = 200;

pub(crate) fn decisions(records: Vec<JournalRecord>) -> Vec<DecisionView> {
    records
        .into_iter()
        .map(|record| DecisionView {
            at_micros: record.at.as_micros(),
            sentence: record.sentence,
            data: serde_json::from_str(&record.json).unwrap_or_default(),
        })
        .collect()
}

/// `None`: nothing is known of the runner.
pub(crate) fn runner(
    shared: &Shared,
    id: RunnerId,
    decisions: Vec<DecisionView>,
) -> Option<WhyView> {
    let Some(view) = shared.runner_view(id) else {
        let summary = decisions.last()?.sentence.clone();
        return Some(WhyView {
            kind: "runner".into(),
            id: id.to_string(),
            summary,
            learned: Vec::new(),
            decisions,
        });
    };
    let ready = view.ready_at_micros.map_or_else(String::new, |ready| {
        let took = Duration::from_micros(ready.saturating_sub(view.created_at_micros));
        let rung = view.rung.as_deref().and_then(Rung::parse).filter(|rung| *rung != Rung::Frozen);
        let rung = rung.map_or_else(String::new, |rung| format!(", {rung}"));
        format!("; it was ready after {}{rung}", Pretty(took))
    });
    let end = match &view.end_reason {
        Some(reason) => format!("; it ended because {reason}"),
        None => format!(
            "; it is {}{} now{}",
            view.state,
            view.detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail})")),
            shared.desk.read(|state, now| kept(state, now, id))
        ),
    };
    let summary = format!("{id} of {} was started because {}{ready}{end}", view.app, view.cause);
    Some(WhyView {
        kind: "runner".into(),
        id: id.to_string(),
        summary,
        learned: Vec::new(),
        decisions,
    })
}

/// Until when an idle runner is kept and why, if that was learned and it goes next.
fn kept(state: &State, now: Timestamp, id: RunnerId) -> String {
    let runner = state.engine.runner(id);
    let told = runner.and_then(|runner| Some((runner.expires?, runner.kept?)));
    told.map_or_else(String::new, |(expires, why)| {
        format!(" and is kept for another {} if nothing comes: {why}", Pretty(expires - now))
    })
}

/// `None`: nothing is known of the request.
pub(crate) fn request(
    shared: &Shared,
    id: RequestId,
    decisions: Vec<DecisionView>,
) -> Option<WhyView> {
    let told = shared.desk.read(|state, now| {
        let record = state.records.request(id)?;
        let app = state.engine.app(record.app, now)?.spec.name.clone();
        Some(format!("request {id} to {app} {}", course(state, now, record)))
    });
    let summary = told.or_else(|| Some(decisions.last()?.sentence.clone()))?;
    Some(WhyView {
        kind: "request".into(),
        id: id.to_string(),
        summary,
        learned: Vec::new(),
        decisions,
    })
}

/// How it went with a request, from arrival to answer.
fn course(state: &State, now: Timestamp, record: &RequestRecord) -> String {
    let way = match (record.assigned, record.waited()) {
        (Some((runner, _)), Some(Duration::ZERO)) => {
            format!("went to the warm runner {runner} at once")
        }
        (Some((runner, _)), Some(waited)) => {
            let start = start_of(state, runner, record.arrived).unwrap_or_default();
            format!("waited {} for {runner}{start}", Pretty(waited))
        }
        _ => format!("has waited {} so far", Pretty(now - record.arrived)),
    };
    let attempt = match record.attempts {
        0 | 1 => String::new(),
        attempts => format!(" (attempt {attempts})"),
    };
    let end = record.finished.as_ref().map_or_else(String::new, |(at, end)| {
        format!(", and {end} {} after it came", Pretty(*at - record.arrived))
    });
    format!("{way}{attempt}{end}")
}

/// What a request that came at `arrived` waited for, if its runner was not there yet.
fn start_of(state: &State, runner: RunnerId, arrived: Timestamp) -> Option<String> {
    let record = state.records.runner(runner)?;
    if let Some((_, took)) = record.thawed.filter(|(at, _)| *at >= arrived) {
        return Some(format!(", which was frozen and took {} to be ready", Pretty(took)));
    }
    let ready = record.ready.filter(|ready| *ready > arrived)?;
    let took = Pretty(ready - record.created);
    let rung = record.rung.map_or_else(String::new, |rung| format!(", {rung}"));
    Some(format!(", which was started because {} and took {took} to be ready{rung}", record.cause))
}

/// What wake-ups took, by what they began with.
fn ladder(view: &AppView) -> String {
    let rungs = view.ladder.iter().filter_map(|measured| {
        let (rung, wakes) = (Rung::parse(&measured.rung)?, measured.wakes);
        let typical = Duration::try_from_secs_f64(measured.typical_seconds).ok()?;
        Some(format!("{} {rung} ({wakes})", Pretty(typical)))
    });
    let rungs: Vec<String> = rungs.collect();
    if rungs.is_empty() { String::new() } else { format!("; ready in {}", rungs.join(", ")) }
}

pub(crate) fn app(
    shared: &Shared,
    app: &App,
    view: &AppView,
    decisions: Vec<DecisionView>,
) -> WhyView {
    let learned = shared.desk.read(|state, now| state.engine.learned(app.id, now));
    let learned = learned.map(|learned| learned.sentences()).unwrap_or_default();
    let runners: Vec<String> =
        view.runners.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let runners = if runners.is_empty() { "no runner".to_owned() } else { runners.join(", ") };
    let detail = view.detail.as_ref().map_or_else(String::new, |detail| format!("; {detail}"));
    let zygote = shared.zygotes.describe(app.id);
    let zygote = zygote.map_or_else(String::new, |zygote| format!("; {zygote}"));
    let summary = format!(
        "{} is {}: {runners}, {} request(s) waiting, {} in flight{detail}{zygote}{}",
        app.name(),
        view.status,
        view.queued,
        view.in_flight,
        ladder(view)
    );
    WhyView { kind: "app".into(), id: app.name().to_owned(), summary, learned, decisions }
}
