//! Writes decisions into the store, in batches, off everybody's way.

use std::sync::Arc;

use glowplug_core::Rung;
use glowplug_core::decision::{Decision, What};
use glowplug_store::{JournalRecord, Store};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Decisions on their way to the store. Beyond it they are dropped and counted: the journal informs, and
/// must never slow what it is about.
pub(crate) const WAITING_MAX: usize = 8_192;
/// Decisions written in one transaction.
const BATCH_MAX: usize = 512;

/// Runs until every sender is gone, then writes what is left.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    mut decisions: mpsc::Receiver<Decision>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while decisions.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let count = batch.len() as u64;
        let records = batch.drain(..).map(|decision| record(&decision)).collect();
        if let Err(error) = store.append_journal(records).await {
            metrics.journal_dropped(count);
            tracing::warn!("decisions could not be written down: {error}");
        }
    }
}

fn record(decision: &Decision) -> JournalRecord {
    let mut subjects = vec![format!("app:{}", decision.name)];
    subjects.extend(decision.runner.map(|runner| format!("runner:{runner}")));
    subjects.extend(decision.request.map(|request| format!("request:{request}")));
    JournalRecord {
        at: decision.at,
        subjects,
        sentence: decision.to_string(),
        json: data(decision).to_string(),
    }
}

/// A decision for programs: what it is, and its inputs.
pub(crate) fn data(decision: &Decision) -> Value {
    let mut data = what(&decision.what);
    data["app"] = decision.name.clone().into();
    if let Some(runner) = decision.runner {
        data["runner"] = runner.to_string().into();
    }
    if let Some(request) = decision.request {
        data["request"] = request.to_string().into();
    }
    data
}

fn what(what: &What) -> Value {
    match what {
        What::Wanted { cause, target, alive } => json!({
            "decision": "wanted", "cause": cause.label(), "volume": target.volume,
            "demand": target.demand, "buffer": target.buffer, "desired": target.desired,
            "bound": format!("{:?}", target.bound).to_lowercase(), "alive": alive,
        }),
        What::Foreseen(foresight) => json!({
            "decision": "foreseen", "detail": foresight.to_string(),
        }),
        What::Placed { machine_type, gpus, waited } => json!({
            "decision": "placed", "machine_type": machine_type, "gpus": gpus,
            "waited_seconds": waited.as_secs_f64(),
        }),
        What::NoRoom { shortages } => json!({
            "decision": "no_room",
            "shortages": shortages.iter().map(|(machine, shortage)| {
                json!({"machine_type": machine, "shortage": shortage.to_string()})
            }).collect::<Vec<_>>(),
        }),
        What::BackendFull { detail, again_in } => json!({
            "decision": "backend_full", "detail": detail, "again_in_seconds": again_in.as_secs_f64(),
        }),
        What::Delayed { failures, wait } => json!({
            "decision": "delayed", "failures": failures, "wait_seconds": wait.as_secs_f64(),
        }),
        What::Ready { took, setup, rung } => json!({
            "decision": "ready", "took_seconds": took.as_secs_f64(),
            "setup_seconds": setup.as_secs_f64(), "rung": rung.map(Rung::as_str),
        }),
        What::Freezing { reason } => json!({
            "decision": "freezing", "reason": reason.label(), "detail": reason.to_string(),
        }),
        What::Thawing { cause, frozen } => json!({
            "decision": "thawing", "cause": cause.label(), "frozen_seconds": frozen.as_secs_f64(),
        }),
        What::Thawed { took } => json!({
            "decision": "thawed", "took_seconds": took.as_secs_f64(),
            "rung": Rung::Frozen.as_str(),
        }),
        What::StartFailed { detail, failures, again_in } => json!({
            "decision": "start_failed", "detail": detail, "failures": failures,
            "again_in_seconds": again_in.as_secs_f64(),
        }),
        What::Stopping { reason, state } => json!({
            "decision": "stopping", "reason": reason.label(), "detail": reason.to_string(),
            "state": state.as_str(),
        }),
        What::Died { detail, state } => json!({
            "decision": "died", "detail": detail, "state": state.as_str(),
        }),
        What::Ended { lived, served } => json!({
            "decision": "ended", "lived_seconds": lived.as_secs_f64(), "served": served,
        }),
        What::SwappedOut { by, waited } => json!({
            "decision": "swapped_out", "by": by, "waited_seconds": waited.as_secs_f64(),
        }),
        What::Served { waited, started, rung, attempt } => json!({
            "decision": "served", "waited_seconds": waited.as_secs_f64(), "started": started,
            "rung": rung.map(Rung::as_str), "attempt": attempt,
        }),
        What::Hinted { other } => json!({ "decision": "hinted", "other": other.to_string() }),
        What::Refused { refusal, waited } => json!({
            "decision": "refused", "detail": refusal.to_string(),
            "waited_seconds": waited.as_secs_f64(),
        }),
        What::Retried { condition, attempt, delay } => json!({
            "decision": "retried", "condition": condition.to_string(), "attempt": attempt,
            "delay_seconds": delay.as_secs_f64(),
        }),
        What::Denied { state, input, why } => json!({
            "decision": "denied", "state": state.as_str(), "input": format!("{input:?}"), "why": why,
        }),
    }
}
