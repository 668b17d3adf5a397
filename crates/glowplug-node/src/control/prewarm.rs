//! `POST …/prewarm`: somebody knows that requests will come.

use std::collections::HashMap;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_api::control::{PAGE_OPENED, PrewarmRequest, PrewarmView};
use glowplug_core::lifecycle::State;
use glowplug_core::spec::limits::RUNNERS_MAX;
use glowplug_core::{AppId, Event};
use http::Request;
use hyper::body::Incoming;

use super::Failure;
use crate::apps::{App, Status};
use crate::config::Access;
use crate::interest;
use crate::shared::Shared;

/// In the query of a call that says no more than that somebody is about to use the app.
const INTENT: &str = "intent";
/// Of a reason.
const REASON_BYTES_MAX: usize = 200;

/// Whether a call to a prewarm route says in its query that it wants no runner of its own.
pub(super) fn announces(request: &Request<Incoming>, segments: &[&str]) -> bool {
    let query = super::query(request.uri().query().unwrap_or_default());
    matches!(segments, ["apps", _, _, "prewarm"]) && query.contains_key(INTENT)
}

/// Whether the app of a route may be used by everyone.
pub(super) fn is_for_all(shared: &Shared, segments: &[&str]) -> bool {
    let ["apps", owner, name, ..] = segments else { return false };
    let app = shared.apps.by_name(&format!("{owner}/{name}"));
    app.is_some_and(|app| app.config.access == Access::Public)
}

/// Takes over what a call says in its query, for pages that can send no body.
pub(super) fn read_intent(
    query: &HashMap<String, String>,
    wanted: &mut PrewarmRequest,
) -> Result<(), Failure> {
    let Some(intent) = query.get(INTENT) else { return Ok(()) };
    let refuse = |detail: String| Err(Failure::new(ErrorType::BadRequest, detail));
    if intent != PAGE_OPENED {
        return refuse(format!("`{INTENT}` is `{intent}`; the one there is, is `{PAGE_OPENED}`"));
    }
    if wanted.runners.is_some() {
        return refuse(format!("`{INTENT}` asks for no `runners`; leave out one of them"));
    }
    wanted.reason = Some(PAGE_OPENED.to_owned());
    Ok(())
}

/// Starts what is missing to as many warm runners, or reports that somebody is about to use the app.
pub(super) fn prewarm(
    shared: &Arc<Shared>,
    app: &App,
    wanted: &PrewarmRequest,
) -> Result<PrewarmView, Failure> {
    check(wanted)?;
    match app.status() {
        Status::Ready(_) => {}
        Status::Preparing { doing } => {
            let detail = format!("{} is still being prepared ({doing}); try again", app.name());
            return Err(Failure::new(ErrorType::Conflict, detail));
        }
        Status::Broken { reason } => return Err(Failure::new(ErrorType::AppBroken, reason)),
    }
    let before = counts(shared, app.id);
    match (wanted.runners, wanted.reason.as_deref()) {
        (None, Some(PAGE_OPENED)) => interest::shown(shared, app),
        (runners, reason) => {
            let runners = runners.unwrap_or(1);
            tracing::info!(app = app.name(), runners, reason, "warm runners are asked for");
            shared.desk.report(Event::WarmRequested { app: app.id, runners });
        }
    }
    let (ready, starting) = counts(shared, app.id);
    let started = (ready + starting).saturating_sub(before.0 + before.1);
    Ok(PrewarmView { app: app.name().to_owned(), ready, starting, started })
}

fn check(wanted: &PrewarmRequest) -> Result<(), Failure> {
    let refuse = |detail: String| Err(Failure::new(ErrorType::BadRequest, detail));
    if let Some(runners) = wanted.runners.filter(|runners| !(1..=RUNNERS_MAX).contains(runners)) {
        return refuse(format!("`runners` is {runners}; it must be 1 to {RUNNERS_MAX}"));
    }
    match &wanted.reason {
        Some(reason) if reason.len() > REASON_BYTES_MAX => {
            refuse(format!("`reason` is longer than {REASON_BYTES_MAX} bytes"))
        }
        _ => Ok(()),
    }
}

/// Ready and starting runners.
fn counts(shared: &Shared, app: AppId) -> (u32, u32) {
    shared.desk.read(|state, _| {
        let mut counts = (0, 0);
        for runner in state.engine.runners().filter(|runner| runner.app == app) {
            match runner.state {
                State::Idle | State::Running => counts.0 += 1,
                state if state.is_starting() => counts.1 += 1,
                _ => {}
            }
        }
        counts
    })
}
