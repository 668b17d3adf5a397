//! Runners that are started for a snapshot to be taken of them.
//!
//! ```text
//! wished ──room that nobody else waits for──► started ──► ready ──whoever asked ends it──► gone
//! ```
//!
//! A capture has an app's code and a place like any runner, but it serves no requests, counts neither against
//! floor, cap nor demand, and teaches nothing about starts: when it fails, the app's starts go on. It is the
//! first to go when anybody needs the room.

use std::time::Duration;

use super::Engine;
use super::placement::fit_any;
use super::state::Runner;
use crate::action::Action;
use crate::decision::{StartCause, StopReason, What};
use crate::ids::{AppId, RunnerId};
use crate::lifecycle::State;
use crate::time::Timestamp;

/// Captures of all apps at once: each takes a processor for as long as a start does.
pub const CAPTURES_MAX: usize = 1;
/// From ready to gone: warm-up, dump and all.
const CAPTURE_TIMEOUT: Duration = Duration::from_mins(10);

impl Engine {
    pub(super) fn capture_requested(&mut self, app: AppId) {
        if self.apps.contains_key(&app) {
            self.captures_wished.insert(app);
        }
    }

    pub(super) fn capture_forgone(&mut self, app: AppId) {
        self.captures_wished.remove(&app);
    }

    /// Starts a capture if one is wished, nobody waits for room, and there is some.
    pub(super) fn start_captures(&mut self, now: Timestamp) {
        while !self.captures_wished.is_empty() && self.may_capture() {
            let fits = |id: &AppId| {
                let app = self.apps.get(id)?;
                let machine_types = &app.spec.machine_types;
                let is_quiet = app.may_start() && app.backoff.active(now).is_none();
                let fit = is_quiet.then(|| fit_any(&self.ledger, &self.ledger, machine_types));
                Some((*id, fit.flatten()?))
            };
            let Some((app_id, allocation)) = self.captures_wished.iter().find_map(fits) else {
                return;
            };
            self.captures_wished.remove(&app_id);
            self.start_capture(now, app_id, allocation);
        }
    }

    fn may_capture(&self) -> bool {
        let capturing = self.aside.iter().filter_map(|id| self.runners.get(id));
        !self.shutting_down
            && self.pending.is_empty()
            && capturing.filter(|runner| runner.is_capture()).count() < CAPTURES_MAX
    }

    fn start_capture(
        &mut self,
        now: Timestamp,
        app_id: AppId,
        allocation: crate::resources::Allocation,
    ) {
        let Some(app) = self.apps.get(&app_id) else { return };
        let ((target, _), alive) = (app.target_to_start(now), app.alive());
        let (cause, revision) = (StartCause::Capture, app.spec.revision);
        let id = self.next_runner_id();
        let mut runner = Runner::new(app_id, revision, cause, now);
        self.ledger.take(&allocation);
        // Nobody waits, so nothing was kept in it.
        self.outlook = None;
        runner.allocation = Some(allocation.clone());
        runner.placed = Some(now);
        self.runners.insert(id, runner);
        self.index(now, id);
        self.note(now, app_id, Some(id), None, What::Wanted { cause, target, alive });
        let (machine_type, gpus) = (allocation.machine_type.clone(), allocation.gpus.clone());
        self.actions.push_back(Action::Start {
            runner: id,
            app: app_id,
            revision,
            allocation,
            cause,
        });
        let what = What::Placed { machine_type, gpus, waited: Duration::ZERO };
        self.note(now, app_id, Some(id), None, what);
    }

    /// What time does to a capture. From when it is ready it has so long for its snapshot.
    pub(super) fn capture_due(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let Some(app) = self.apps.get(&runner.app) else { return };
        let (since, span) = match (runner.state, runner.setup, runner.ready) {
            (State::Setup, Some(setup), _) => (setup, app.spec.scaling.startup_timeout),
            (State::Idle, _, Some(ready)) => (ready, CAPTURE_TIMEOUT),
            _ => return,
        };
        if since + span > now {
            self.wake_runner_at(id, since + span);
        } else {
            self.kill(now, id, StopReason::CaptureOverdue { seconds: span.as_secs() });
        }
    }
}
