//! Ending runners: who is told when, and what ties a runner to its replacement.
//!
//! | way | new requests | in flight | told |
//! | --- | --- | --- | --- |
//! | `drain` | none | may finish within the grace period | now |
//! | `drain_softly` | none | may finish | after the last one |
//! | `kill` | none | lost | now, without grace |

use std::time::Duration;

use super::Engine;
use super::state::Stop;
use crate::action::Action;
use crate::decision::{StartCause, StopReason, What};
use crate::event::StopRequest;
use crate::ids::{AppId, RunnerId};
use crate::lifecycle::{Input, State};
use crate::time::Timestamp;

/// A runner that was told to end and did not, this long after its grace, is told again and killed.
const STUCK_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn stop_requested(&mut self, now: Timestamp, id: RunnerId, how: StopRequest) {
        let Some(runner) = self.runners.get(&id) else { return };
        let app = runner.app;
        match how {
            StopRequest::Graceful => self.drain(now, id, StopReason::Requested),
            StopRequest::Kill => self.kill(now, id, StopReason::Killed),
            StopRequest::ReplaceFirst => self.replace(now, id),
        }
        self.review(now, app);
    }

    /// Starts a runner that takes this one's place when it is ready. Until then this one serves on; if
    /// the start fails, it stays.
    fn replace(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let app_id = runner.app;
        if runner.is_aside() {
            return self.drain(now, id, StopReason::Requested);
        }
        if self.shutting_down || !runner.state.is_alive() || runner.replaced_by.is_some() {
            return;
        }
        let Some(app) = self.apps.get(&app_id).filter(|app| app.may_start()) else { return };
        if runner.allocation.is_none() {
            // Nothing of it exists that could serve until then; if it is needed, another is started.
            self.drain(now, id, StopReason::Requested);
            return;
        }
        let ((target, _), alive) = (app.target_to_start(now), app.alive());
        let cause = StartCause::Replacement;
        let Some(by) = self.start_runner(now, app_id, cause) else { return };
        self.note(now, app_id, Some(by), None, What::Wanted { cause, target, alive });
        self.tie_replacement(id, Some(by));
        if let Some(replacement) = self.runners.get_mut(&by) {
            replacement.replaces = Some(id);
        }
    }

    fn tie_replacement(&mut self, id: RunnerId, by: Option<RunnerId>) {
        let Some(last_used) = self.runners.get(&id).map(|runner| runner.last_used) else { return };
        self.unindex(id);
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.replaced_by = by;
        }
        self.index(last_used, id);
    }

    /// Unties a runner that ends from the one it replaces or is replaced by.
    pub(super) fn untie_replacements(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let (replaces, replaced_by) = (runner.replaces.take(), runner.replaced_by);
        if let Some(by) = replaced_by.and_then(|by| self.runners.get_mut(&by)) {
            by.replaces = None;
        }
        if let Some(old) = replaces {
            self.tie_replacement(old, None);
        }
    }

    pub(super) fn drain(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        match &mut runner.stop {
            // Its last request was waited for without limit; now there is a reason not to.
            Some(stop) if runner.state == State::Draining && stop.stuck_at.is_none() => {
                stop.reason = reason.clone();
                let (app, state) = (runner.app, runner.state);
                self.note(now, app, Some(id), None, What::Stopping { reason, state });
                self.issue_stop(now, id);
            }
            _ => {
                if self.begin_stop(now, id, Input::Drain, reason) {
                    self.issue_stop(now, id);
                }
            }
        }
    }

    pub(super) fn drain_softly(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        self.begin_stop(now, id, Input::Drain, reason);
    }

    pub(super) fn kill(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        let is_ending = self
            .runners
            .get(&id)
            .is_some_and(|runner| runner.stop.is_some() && runner.state != State::Terminated);
        if is_ending {
            self.apply(now, id, Input::Kill);
            self.issue(now, id, None, reason);
        } else if self.begin_stop(now, id, Input::Kill, reason.clone()) {
            self.issue(now, id, None, reason);
        }
    }

    /// Moves a runner towards its end. Returns whether its program has to be told.
    fn begin_stop(
        &mut self,
        now: Timestamp,
        id: RunnerId,
        input: Input,
        reason: StopReason,
    ) -> bool {
        let Some(before) = self.apply(now, id, input) else { return false };
        let Some(runner) = self.runners.get_mut(&id) else { return false };
        runner.stop = Some(Stop { reason: reason.clone(), stuck_at: None });
        let app = runner.app;
        let begun = runner.allocation.is_some();
        let expired = reason.is_expiry();
        if before.is_ready() && !runner.is_capture() {
            self.remember_end(app, expired);
        }
        self.untie_replacements(id);
        self.note(now, app, Some(id), None, What::Stopping { reason, state: before });
        if !begun {
            // Nothing was started yet, so nothing will report an end.
            self.apply(now, id, Input::Exited);
            self.forget(now, id);
        }
        begun
    }

    /// Tells a runner to end within its grace period, unless it was told.
    pub(super) fn issue_stop(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let Some(stop) = runner.stop.as_ref().filter(|stop| stop.stuck_at.is_none()) else {
            return;
        };
        let reason = stop.reason.clone();
        let grace = self
            .apps
            .get(&runner.app)
            .map_or(Duration::ZERO, |app| app.spec.scaling.termination_grace_period);
        self.issue(now, id, Some(grace), reason);
    }

    fn issue(&mut self, now: Timestamp, id: RunnerId, grace: Option<Duration>, reason: StopReason) {
        let stuck_at = now + grace.unwrap_or_default() + STUCK_AFTER;
        if let Some(stop) = self.runners.get_mut(&id).and_then(|runner| runner.stop.as_mut()) {
            stop.stuck_at = Some(stuck_at);
        }
        self.actions.push_back(Action::Stop { runner: id, grace, reason });
        self.wake_runner_at(id, stuck_at);
    }

    /// A runner that takes no new requests: ends overdue attempts, and kills it if it was told to end
    /// and is still there.
    pub(super) fn ending_due(&mut self, now: Timestamp, id: RunnerId) {
        self.end_overdue(now, id);
        let Some(runner) = self.runners.get(&id) else { return };
        match runner.stop.as_ref().and_then(|stop| stop.stuck_at) {
            Some(stuck_at) if stuck_at > now => self.wake_runner_at(id, stuck_at),
            Some(_) => self.kill(now, id, StopReason::Stuck),
            None => {}
        }
    }

    /// Remembers, when the last warm runner goes, how it went: the next start's cause.
    pub(super) fn remember_end(&mut self, app: AppId, expired: bool) {
        if let Some(app) = self.apps.get_mut(&app)
            && app.ready.is_empty()
        {
            app.last_expired = expired;
        }
    }

    pub(super) fn stop_all_of(&mut self, now: Timestamp, app: AppId, reason: &StopReason) {
        let Some(app) = self.apps.get(&app) else { return };
        let ids: Vec<RunnerId> = app
            .aside
            .iter()
            .chain(&app.starting)
            .chain(&app.ready)
            .chain(&app.ending)
            .copied()
            .collect();
        for id in ids {
            self.drain(now, id, reason.clone());
        }
    }

    /// Ends runners of other code: idle and starting ones now, the others after what they are at.
    pub(super) fn retire_outdated(&mut self, now: Timestamp, app: AppId, revision: u32) {
        let Some(app) = self.apps.get(&app) else { return };
        let ids: Vec<RunnerId> =
            app.aside.iter().chain(&app.starting).chain(&app.ready).copied().collect();
        for id in ids {
            let Some(runner) = self.runners.get(&id) else { continue };
            if runner.revision == revision {
                continue;
            }
            let reason = StopReason::Outdated { revision };
            if runner.state == State::Running {
                self.drain_softly(now, id, reason);
            } else {
                self.drain(now, id, reason);
            }
        }
    }
}
