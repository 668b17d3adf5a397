//! `POST …/prewarm`: somebody knows that requests will come.

use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_api::control::{PrewarmRequest, PrewarmView};
use glowplug_core::lifecycle::State;
use glowplug_core::spec::limits::RUNNERS_MAX;
use glowplug_core::{AppId, Event};

use super::Failure;
use crate::apps::{App, Status};
use crate::shared::Shared;

/// Of a reason.
const REASON_BYTES_MAX: usize = 200;

/// Starts what is missing to as many warm runners.
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
    tracing::info!(
        app = app.name(),
        runners = wanted.runners,
        reason = wanted.reason.as_deref(),
        "warm runners are asked for"
    );
    let before = counts(shared, app.id);
    shared.desk.report(Event::WarmRequested { app: app.id, runners: wanted.runners });
    let (ready, starting) = counts(shared, app.id);
    let started = (ready + starting).saturating_sub(before.0 + before.1);
    Ok(PrewarmView { app: app.name().to_owned(), ready, starting, started })
}

fn check(wanted: &PrewarmRequest) -> Result<(), Failure> {
    let refuse = |detail: String| Err(Failure::new(ErrorType::BadRequest, detail));
    if !(1..=RUNNERS_MAX).contains(&wanted.runners) {
        return refuse(format!("`runners` is {}; it must be 1 to {RUNNERS_MAX}", wanted.runners));
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
