//! The engine's and the records' state in the words of the API.

use std::collections::BTreeMap;

use std::time::Duration;

use glowplug_api::control::{
    AppView, GpuView, NodeView, PhaseView, PullView, QueueView, RungView, RunnerView,
};
use glowplug_core::decision::StartCause;
use glowplug_core::lifecycle::State as RunnerState;
use glowplug_core::warmth::Measured;
use glowplug_core::{Rung, RunnerId, Timestamp};
use glowplug_image::pull::Progress;

use crate::apps::{App, Status};
use crate::desk::State;
use crate::records::RunnerRecord;
use crate::settings;
use crate::shared::Shared;

/// Of a runner that is there for a snapshot alone.
const CAPTURE: &str = "capture";

pub(crate) fn runner(state: &State, now: Timestamp, id: RunnerId) -> Option<RunnerView> {
    let record = state.records.runner(id);
    let live = state.engine.runner(id);
    let mut view = match (record, &live) {
        (Some(record), _) => from_record(now, id, record),
        (None, Some(live)) => {
            let mut view = empty(id, live.created);
            view.cause = live.cause.to_string();
            live.cause.label().clone_into(&mut view.cause_label);
            view
        }
        (None, None) => return None,
    };
    if let Some(live) = live {
        if view.app.is_empty()
            && let Some(app) = state.engine.app(live.app, live.created)
        {
            view.app.clone_from(&app.spec.name);
        }
        live.state.as_str().clone_into(&mut view.state);
        let is_capture = live.cause == StartCause::Capture;
        let detail = is_capture.then_some(CAPTURE).or(live.state.detail());
        view.detail = detail.map(str::to_owned);
        view.held_bytes = live.held_bytes;
        view.revision = live.revision;
        view.in_flight = u32::try_from(live.in_flight).unwrap_or(u32::MAX);
        view.served = live.served;
        view.expires_at_micros = live.expires.map(Timestamp::as_micros);
        view.end_reason = live.stop.map(ToString::to_string).or(view.end_reason);
    }
    Some(view)
}

/// Runners by id: those that live, and with `ended` those that are remembered.
pub(crate) fn runners(
    state: &State,
    now: Timestamp,
    app: Option<&str>,
    ended: bool,
) -> Vec<RunnerView> {
    let mut ids: Vec<RunnerId> = state.engine.runners().map(|runner| runner.id).collect();
    if ended {
        ids.extend(state.records.runners().map(|(id, _)| *id));
        ids.sort_unstable();
        ids.dedup();
    }
    ids.into_iter()
        .filter_map(|id| runner(state, now, id))
        .filter(|view| app.is_none_or(|app| view.app == app))
        .collect()
}

fn empty(id: RunnerId, created: Timestamp) -> RunnerView {
    RunnerView {
        id: id.to_string(),
        app: String::new(),
        revision: 0,
        state: RunnerState::Terminated.as_str().to_owned(),
        detail: None,
        rung: None,
        held_bytes: None,
        cause: String::new(),
        cause_label: String::new(),
        in_flight: 0,
        served: 0,
        machine_type: None,
        gpus: Vec::new(),
        created_at_micros: created.as_micros(),
        ready_at_micros: None,
        ended_at_micros: None,
        end_reason: None,
        expires_at_micros: None,
        phases: Vec::new(),
        pull: None,
    }
}

fn from_record(now: Timestamp, id: RunnerId, record: &RunnerRecord) -> RunnerView {
    RunnerView {
        app: record.app.clone(),
        revision: record.revision,
        cause: record.cause.to_string(),
        cause_label: record.cause.label().to_owned(),
        served: record.served,
        rung: record.rung.map(|rung| rung.as_str().to_owned()),
        machine_type: record.machine_type.clone(),
        gpus: record.gpus.clone(),
        ready_at_micros: record.ready.map(Timestamp::as_micros),
        ended_at_micros: record.ended.map(Timestamp::as_micros),
        end_reason: record.end_reason.clone(),
        phases: phases(record),
        pull: record_pull(now, record),
        ..empty(id, record.created)
    }
}

fn record_pull(now: Timestamp, record: &RunnerRecord) -> Option<PullView> {
    let (progress, began) = (*record.pull.as_ref()?.borrow(), record.pull_started?);
    Some(pull(progress, record.setup.or(record.ended).unwrap_or(now) - began))
}

/// A pull that has taken so long.
pub(crate) fn pull(progress: Progress, took: Duration) -> PullView {
    let received = progress.bytes.saturating_sub(progress.known_bytes);
    let rate = u128::from(received) * 1_000_000 / took.as_micros().max(1);
    PullView {
        bytes: progress.bytes,
        total_bytes: progress.total_bytes,
        known_bytes: progress.known_bytes,
        layers: progress.layers,
        total_layers: progress.total_layers,
        bytes_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
    }
}

/// The phases of a start in order; below `setup` what the program itself told.
fn phases(record: &RunnerRecord) -> Vec<PhaseView> {
    let phase = |name: &str, start: Timestamp, end: Option<Timestamp>| PhaseView {
        name: name.to_owned(),
        start_micros: start.as_micros(),
        end_micros: end.map(Timestamp::as_micros),
    };
    let end = record.ready.or(record.ended);
    let pending_end = record.pull_started.or(record.setup).or(record.ended);
    let mut phases = vec![phase("pending", record.created, pending_end)];
    if let Some(start) = record.pull_started {
        phases.push(phase("docker_pull", start, record.setup.or(record.ended)));
    }
    let Some(setup) = record.setup else { return phases };
    phases.push(phase("setup", setup, end));
    // A mark says that something is done: each is the end of what came before it.
    let mut since = setup;
    for (name, at) in &record.marks {
        let at = (*at).max(since);
        phases.push(phase(&format!("setup/{name}"), since, Some(at)));
        since = at;
    }
    phases
}

fn rung((rung, measured): (Rung, Measured)) -> RungView {
    RungView {
        rung: rung.as_str().to_owned(),
        wakes: measured.wakes,
        typical_seconds: measured.typical.as_secs_f64(),
        last_seconds: measured.last.as_secs_f64(),
    }
}

pub(crate) fn app(shared: &Shared, app: &App) -> AppView {
    let (status, detail, deployed) = match app.status() {
        Status::Preparing { doing } => ("preparing", Some(doing), None),
        Status::Ready(deployed) => ("ready", None, Some(deployed)),
        Status::Broken { reason } => ("broken", Some(reason), None),
    };
    let mut view = AppView {
        name: app.name().to_owned(),
        status: status.to_owned(),
        detail,
        revision: 0,
        program: app.config.program.to_string(),
        machine_types: Vec::new(),
        scaling: deployed.as_ref().map(|deployed| settings::view(&deployed.spec.scaling)),
        runners: BTreeMap::new(),
        queued: 0,
        in_flight: 0,
        backoff_until_micros: None,
        ladder: Vec::new(),
    };
    shared.desk.read(|state, now| {
        let Some(live) = state.engine.app(app.id, now) else { return };
        view.revision = live.spec.revision;
        view.machine_types = live.spec.machine_types.iter().map(|m| m.name.clone()).collect();
        view.queued = live.waiting;
        view.in_flight = live.in_flight as usize;
        view.ladder = live.ladder.rungs().map(rung).collect();
        view.backoff_until_micros = live.backoff_until.map(Timestamp::as_micros);
        if let Some(reason) = live.unschedulable {
            view.detail = Some(format!("it cannot run on this node: {reason}"));
        }
        for runner in state.engine.runners().filter(|runner| runner.app == app.id) {
            *view.runners.entry(runner.state.as_str().to_owned()).or_default() += 1;
        }
    });
    view
}

pub(crate) fn queue(shared: &Shared, app: &App) -> QueueView {
    let (size, in_progress) = shared.desk.read(|state, now| {
        state.engine.app(app.id, now).map_or((0, 0), |live| (live.waiting, live.in_flight))
    });
    let size = size + shared.queue.held_back_count(app.name());
    QueueView { app: app.name().to_owned(), size, in_progress: in_progress as usize }
}

pub(crate) fn node(shared: &Shared) -> NodeView {
    let mut view = shared.desk.read(|state, _| {
        let ledger = state.engine.ledger();
        let total = ledger.total();
        let (cpu_millis_free, memory_bytes_free) = ledger.free();
        let holder = |index| {
            state
                .engine
                .runners()
                .find(|runner| {
                    runner.allocation.is_some_and(|allocation| allocation.gpus.contains(&index))
                })
                .map(|runner| runner.id.to_string())
        };
        NodeView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: shared.boot,
            started_at_micros: shared.started_at.as_micros(),
            data_dir: String::new(),
            cpu_millis: total.cpu_millis,
            cpu_millis_free,
            memory_bytes: total.memory_bytes,
            memory_bytes_free,
            gpus: total
                .gpus
                .iter()
                .map(|gpu| GpuView {
                    index: gpu.index,
                    kind: gpu.kind.clone(),
                    memory_bytes: gpu.memory_bytes,
                    runner: holder(gpu.index),
                })
                .collect(),
            apps: 0,
            runners: state.engine.runner_count() as usize,
            open: false,
        }
    });
    view.data_dir = shared.config.node.data_dir.display().to_string();
    view.apps = shared.apps.all().count();
    view.open = shared.is_open();
    view
}
