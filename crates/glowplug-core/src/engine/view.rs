//! Read-only answers for people and for the node's API. Nothing here decides.

use super::Engine;
use super::state::{App, Progress, Runner};
use crate::auto::KeptWhy;
use crate::decision::{StartCause, StopReason};
use crate::ids::{AppId, RequestId, RunnerId};
use crate::lifecycle::State;
use crate::resources::{Allocation, Ledger};
use crate::spec::AppSpec;
use crate::time::Timestamp;
use crate::warmth::{Ladder, Rung};

#[derive(Clone, Debug)]
pub struct AppView<'a> {
    pub spec: &'a AppSpec,
    /// How long its wake-ups took.
    pub ladder: Ladder,
    pub waiting: usize,
    pub in_flight: u32,
    pub backoff_until: Option<Timestamp>,
    pub unschedulable: Option<&'a str>,
}

#[derive(Clone, Debug)]
pub struct RunnerView<'a> {
    pub id: RunnerId,
    pub app: AppId,
    pub revision: u32,
    pub state: State,
    pub cause: StartCause,
    pub in_flight: usize,
    pub served: u64,
    pub allocation: Option<&'a Allocation>,
    pub created: Timestamp,
    pub placed: Option<Timestamp>,
    pub setup: Option<Timestamp>,
    pub ready: Option<Timestamp>,
    /// What its last wake-up began with, if that is known.
    pub rung: Option<Rung>,
    /// Of memory, as it was told; of a frozen one.
    pub held_bytes: Option<u64>,
    /// When it expires, if it is idle or frozen and nothing asks for it any more. Of apps that are scaled by what is
    /// learned, only the runner that goes first has one.
    pub expires: Option<Timestamp>,
    /// Why then, if that was learned.
    pub kept: Option<KeptWhy>,
    pub stop: Option<&'a StopReason>,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestView {
    /// `position`: how many are served before it.
    Waiting {
        position: usize,
    },
    InFlight {
        runner: RunnerId,
        attempt: u32,
    },
}

impl Engine {
    pub fn app(&self, id: AppId, now: Timestamp) -> Option<AppView<'_>> {
        self.apps.get(&id).map(|app| app_view(app, now))
    }

    pub fn runner(&self, id: RunnerId) -> Option<RunnerView<'_>> {
        self.runners.get(&id).map(|runner| self.runner_view(id, runner))
    }

    /// All runners, in the order of their ids.
    pub fn runners(&self) -> impl Iterator<Item = RunnerView<'_>> {
        self.runners.sorted_keys().into_iter().filter_map(|id| self.runner(id))
    }

    pub fn request(&self, id: RequestId) -> Option<RequestView> {
        let request = self.requests.get(&id)?;
        Some(match request.progress {
            Progress::InFlight { runner } => {
                RequestView::InFlight { runner, attempt: request.attempt }
            }
            Progress::Waiting | Progress::Delayed { .. } => RequestView::Waiting {
                position: self
                    .apps
                    .get(&request.app)
                    .map_or(0, |app| app.waiting.position(request.priority, &request.place(id))),
            },
        })
    }

    /// How many requests of an app wait.
    pub fn waiting_count(&self, app: AppId) -> usize {
        self.apps.get(&app).map_or(0, |app| app.waiting.len())
    }

    /// Requests of an app that wait, in the order in which they will be served.
    pub fn waiting(&self, app: AppId) -> Vec<RequestId> {
        self.apps.get(&app).map(|app| app.waiting.requests().collect()).unwrap_or_default()
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn runner_view<'a>(&'a self, id: RunnerId, runner: &'a Runner) -> RunnerView<'a> {
        let is_idle = runner.state == State::Idle && !runner.is_capture();
        let idle_of = self.apps.get(&runner.app).filter(|_| is_idle);
        // The others' turn comes when the first is gone.
        let goes_next = |app: &&App| app.free.idle().next().is_some_and(|seat| seat.runner == id);
        let kept = idle_of.filter(goes_next).and_then(|app| app.kept(runner.last_used));
        let expires = match idle_of {
            Some(app) if app.learner.is_none() => {
                Some(runner.last_used + app.time_to_live(runner.served))
            }
            None if runner.state == State::Frozen => self.thaw_expiry(id),
            _ => kept.map(|kept| kept.until.max(runner.last_used + self.own_time(id))),
        };
        RunnerView {
            id,
            app: runner.app,
            revision: runner.revision,
            state: runner.state,
            cause: runner.cause,
            in_flight: runner.in_flight.len(),
            served: runner.served,
            allocation: runner.allocation.as_ref(),
            created: runner.created,
            placed: runner.placed,
            setup: runner.setup,
            ready: runner.ready,
            rung: runner.rung,
            held_bytes: runner.frozen.as_ref().map(|frozen| frozen.held_bytes),
            expires,
            kept: kept.map(|kept| kept.why),
            stop: runner.stop.as_ref().map(|stop| &stop.reason),
        }
    }
}

fn app_view(app: &App, now: Timestamp) -> AppView<'_> {
    AppView {
        spec: &app.spec,
        ladder: app.ladder,
        waiting: app.waiting.len(),
        in_flight: app.in_flight,
        backoff_until: app.backoff.active(now),
        unschedulable: app.unschedulable.as_deref(),
    }
}
