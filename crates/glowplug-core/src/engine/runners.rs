//! Runners: what backends report about them, and how they are ended.

use std::time::Duration;

use super::Engine;
use super::state::{Runner, Stop};
use crate::action::Action;
use crate::backoff;
use crate::decision::{StartCause, StopReason, What};
use crate::event::{Adopted, StopRequest};
use crate::ids::{AppId, RunnerId};
use crate::lifecycle::{Input, State};
use crate::request::{Mode, Refusal};
use crate::retry::Condition;
use crate::time::Timestamp;

/// A runner that was told to end and did not, this long after its grace, is told again and killed.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Attempts on an ended runner whose gateway has not reported for this long are given up.
const LOST_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn setup_started(&mut self, now: Timestamp, id: RunnerId) {
        if self.apply(now, id, Input::SetupStarted).is_none() {
            return;
        }
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.setup = Some(now);
        let Some(app) = self.apps.get(&runner.app) else { return };
        let overdue = now + app.spec.scaling.startup_timeout;
        self.wake_runner_at(id, overdue);
    }

    pub(super) fn ready(&mut self, now: Timestamp, id: RunnerId) {
        if self.apply(now, id, Input::Ready).is_none() {
            return;
        }
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.ready = Some(now);
        let took = now - runner.created;
        let restart_cost = now - runner.placed.unwrap_or(runner.created);
        let setup = now - runner.setup.unwrap_or(now);
        let (app_id, replaces) = (runner.app, runner.replaces.take());
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        runner.batch_left = super::count(app.waiting.len());
        app.ever_ready = true;
        app.backoff.reset();
        app.learn_restart_cost(restart_cost);
        let delayed: Vec<RunnerId> = app.starting.iter().copied().collect();
        self.note(now, app_id, Some(id), None, What::Ready { took, setup });
        // A success ends the wait of all others.
        for other in delayed {
            if self.runners.get(&other).is_some_and(|r| r.state == State::FailureDelay) {
                self.apply(now, other, Input::DelayOver);
            }
        }
        self.dispatch(now, app_id);
        self.rest(now, id);
        if let Some(old) = replaces {
            self.drain(now, old, StopReason::Replaced { by: id });
        }
        self.grow(now, app_id);
        self.shrink(now, app_id);
    }

    pub(super) fn no_room(&mut self, now: Timestamp, id: RunnerId, detail: String) {
        if self.apply(now, id, Input::NoRoom).is_none() {
            return;
        }
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let app = runner.app;
        runner.delay_until = Some(now + backoff::NO_ROOM);
        runner.placed = None;
        self.give_back(id);
        self.wake_runner_at(id, now + backoff::NO_ROOM);
        let what = What::BackendFull { detail, again_in: backoff::NO_ROOM };
        self.note(now, app, Some(id), None, what);
    }

    pub(super) fn exited(&mut self, now: Timestamp, id: RunnerId, detail: &str) {
        let Some(before) = self.apply(now, id, Input::Exited) else { return };
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.ended = Some(now);
        let app_id = runner.app;
        let asked_to = runner.stop.is_some();
        let idle_end = runner.in_flight.is_empty();
        self.give_back(id);
        self.fix_replacements(id);
        if !asked_to {
            if before.is_starting() {
                self.start_failed(now, app_id, id, detail, None);
            } else {
                let what = What::Died { detail: detail.to_owned(), state: before };
                self.note(now, app_id, Some(id), None, what);
                self.remember_end(app_id, false);
            }
        }
        if idle_end {
            self.forget(now, id);
        } else {
            // The gateways see the broken connections and report; this is for the case that they do not.
            self.wake_runner_at(id, now + LOST_AFTER);
        }
        self.review(now, app_id);
    }

    /// Frees what the runner held.
    fn give_back(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let last_used = runner.last_used;
        self.unindex(id);
        if let Some(allocation) =
            self.runners.get_mut(&id).and_then(|runner| runner.allocation.take())
        {
            self.ledger.give_back(&allocation);
            self.placement_due = true;
        }
        self.index(last_used, id);
    }

    /// Drops the record of a runner of which nothing is left.
    pub(super) fn forget(&mut self, now: Timestamp, id: RunnerId) {
        self.unindex(id);
        let Some(mut runner) = self.runners.remove(&id) else { return };
        self.timers.disarm(super::Owner::Runner(id), &mut runner.wake);
        let lived = runner.ended.unwrap_or(now) - runner.created;
        let what = What::Ended { lived, served: runner.served };
        self.note(now, runner.app, Some(id), None, what);
        self.actions.push_back(Action::Forget { runner: id });
        self.drop_if_removed(runner.app);
    }

    /// Counts a failed start. `timeout_seconds`: it failed by taking too long.
    fn start_failed(
        &mut self,
        now: Timestamp,
        app_id: AppId,
        id: RunnerId,
        detail: &str,
        timeout_seconds: Option<u64>,
    ) {
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let again_in = app.backoff.fail(now) - now;
        let failures = app.backoff.failures();
        let nothing_comes = app.ready.is_empty()
            && !app.starting.iter().any(|other| {
                *other != id
                    && self.runners.get(other).is_some_and(|r| r.state != State::FailureDelay)
            });
        let what = What::StartFailed { detail: detail.to_owned(), failures, again_in };
        self.note(now, app_id, Some(id), None, what);
        // Queued requests wait for the next try. A direct caller is told: it would wait in the dark.
        if nothing_comes {
            let refusal = match timeout_seconds {
                Some(seconds) => Refusal::StartupTimeout { seconds },
                None => Refusal::StartFailed { reason: detail.to_owned() },
            };
            self.refuse_waiting(now, app_id, Some(Mode::Direct), &refusal);
        }
    }

    pub(super) fn unhealthy(&mut self, now: Timestamp, id: RunnerId, detail: String) {
        self.drain(now, id, StopReason::Unhealthy { detail });
        self.review_runner(now, id);
    }

    pub(super) fn stop_requested(&mut self, now: Timestamp, id: RunnerId, how: StopRequest) {
        let Some(runner) = self.runners.get(&id) else { return };
        let (app, state) = (runner.app, runner.state);
        match how {
            StopRequest::Graceful => self.drain(now, id, StopReason::Requested),
            StopRequest::Kill => self.kill(now, id, StopReason::Killed),
            StopRequest::ReplaceFirst if state.is_alive() && runner.replaced_by.is_none() => {
                self.unindex(id);
                let by = self.start_runner(now, app, StartCause::Replacement);
                if let Some(runner) = self.runners.get_mut(&id) {
                    runner.replaced_by = by;
                }
                if let Some(replacement) = by.and_then(|by| self.runners.get_mut(&by)) {
                    replacement.replaces = Some(id);
                }
                let last_used = self.runners.get(&id).map_or(now, |runner| runner.last_used);
                self.index(last_used, id);
            }
            StopRequest::ReplaceFirst => {}
        }
        self.review(now, app);
    }

    pub(super) fn adopted(&mut self, now: Timestamp, adopted: Adopted) {
        if self.runners.contains_key(&adopted.runner) {
            return;
        }
        let id = adopted.runner;
        let mut runner =
            Runner::new(adopted.app, adopted.revision, StartCause::Adopted, adopted.started_at);
        self.ledger.take(&adopted.allocation);
        runner.allocation = Some(adopted.allocation);
        runner.placed = Some(adopted.started_at);
        runner.setup = Some(adopted.started_at);
        runner.last_used = now;
        runner.state = if adopted.ready { State::Idle } else { State::Setup };
        runner.ready = adopted.ready.then_some(now);
        self.runners.insert(id, runner);
        self.index(now, id);
        let Some(app) = self.apps.get_mut(&adopted.app) else {
            self.kill(now, id, StopReason::AppRemoved);
            return;
        };
        app.ever_ready |= adopted.ready;
        let startup_timeout = app.spec.scaling.startup_timeout;
        let revision = app.spec.revision;
        if adopted.revision != revision {
            self.drain(now, id, StopReason::Outdated { revision });
        } else if adopted.ready {
            self.rest(now, id);
        } else {
            self.wake_runner_at(id, now + startup_timeout);
        }
        self.review(now, adopted.app);
    }

    /// Ends a runner gracefully: SIGTERM now, SIGKILL after the grace period.
    pub(super) fn drain(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        if self.begin_stop(now, id, Input::Drain, reason) {
            self.issue_stop(now, id);
        }
    }

    /// Takes a runner in use out of service; it is told to end when its last request has finished.
    pub(super) fn drain_softly(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        self.begin_stop(now, id, Input::Drain, reason);
    }

    /// Ends a runner at once.
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
        runner.stop = Some(Stop { reason: reason.clone(), at: now, issued: false });
        let app = runner.app;
        let begun = runner.allocation.is_some();
        let expired = matches!(reason, StopReason::KeepAlive { .. } | StopReason::Unused { .. });
        if before.is_ready() {
            self.remember_end(app, expired);
        }
        self.fix_replacements(id);
        self.note(now, app, Some(id), None, What::Stopping { reason, state: before });
        if !begun {
            // Nothing was started yet, so nothing will report an end.
            self.apply(now, id, Input::Exited);
            self.forget(now, id);
        }
        begun
    }

    pub(super) fn issue_stop(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let Some(stop) = &runner.stop else { return };
        if stop.issued {
            return;
        }
        let reason = stop.reason.clone();
        let grace = self
            .apps
            .get(&runner.app)
            .map_or(Duration::ZERO, |app| app.spec.scaling.termination_grace_period);
        self.issue(now, id, Some(grace), reason);
    }

    fn issue(&mut self, now: Timestamp, id: RunnerId, grace: Option<Duration>, reason: StopReason) {
        if let Some(stop) = self.runners.get_mut(&id).and_then(|runner| runner.stop.as_mut()) {
            stop.issued = true;
            stop.at = now;
        }
        self.actions.push_back(Action::Stop { runner: id, grace, reason });
        self.wake_runner_at(id, now + grace.unwrap_or_default() + STUCK_AFTER);
    }

    /// Remembers, when the last warm runner goes, how it went: the next start's cause.
    fn remember_end(&mut self, app: AppId, expired: bool) {
        if let Some(app) = self.apps.get_mut(&app)
            && app.ready.is_empty()
        {
            app.last_expired = expired;
        }
    }

    /// Unties a runner that ends from the one it replaces or is replaced by.
    fn fix_replacements(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let (replaces, replaced_by) = (runner.replaces.take(), runner.replaced_by);
        if let Some(by) = replaced_by.and_then(|by| self.runners.get_mut(&by)) {
            by.replaces = None;
        }
        let Some(old) = replaces else { return };
        let Some(last_used) = self.runners.get(&old).map(|old| old.last_used) else { return };
        self.unindex(old);
        if let Some(runner) = self.runners.get_mut(&old) {
            runner.replaced_by = None;
        }
        self.index(last_used, old);
    }

    pub(super) fn stop_all_of(&mut self, now: Timestamp, app: AppId, reason: &StopReason) {
        let Some(app) = self.apps.get(&app) else { return };
        let ids: Vec<RunnerId> = app.starting.iter().chain(&app.ready).copied().collect();
        for id in ids {
            self.drain(now, id, reason.clone());
        }
    }

    /// Ends runners of older code: idle and starting ones now, the others after what they are at.
    pub(super) fn retire_outdated(&mut self, now: Timestamp, app: AppId, revision: u32) {
        let Some(app) = self.apps.get(&app) else { return };
        let ids: Vec<RunnerId> = app.starting.iter().chain(&app.ready).copied().collect();
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

    fn review_runner(&mut self, now: Timestamp, id: RunnerId) {
        if let Some(app) = self.runners.get(&id).map(|runner| runner.app) {
            self.review(now, app);
        }
    }

    pub(super) fn runner_due(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let Some(app) = self.apps.get(&runner.app) else { return };
        let app_id = runner.app;
        let scaling = app.spec.scaling;
        match runner.state {
            State::FailureDelay => match runner.delay_until {
                Some(until) if until > now => self.wake_runner_at(id, until),
                _ => {
                    self.apply(now, id, Input::DelayOver);
                }
            },
            State::Setup => {
                let overdue = runner.setup.unwrap_or(now) + scaling.startup_timeout;
                if overdue > now {
                    self.wake_runner_at(id, overdue);
                } else {
                    let seconds = scaling.startup_timeout.as_secs();
                    self.drain(now, id, StopReason::StartupTimeout { seconds });
                    let detail = format!("not ready within its startup_timeout of {seconds} s");
                    self.start_failed(now, app_id, id, &detail, Some(seconds));
                    self.review(now, app_id);
                }
            }
            State::Idle => {
                let expiry = runner.last_used + app.time_to_live(runner.served);
                if expiry > now {
                    self.wake_runner_at(id, expiry);
                } else {
                    self.shrink(now, app_id);
                }
            }
            State::Running => {
                if self.end_overdue(now, id) {
                    self.review(now, app_id);
                }
            }
            State::Draining | State::Terminating => self.ending_due(now, id),
            State::Terminated => {
                for held in runner.in_flight.clone() {
                    self.withdraw(now, id, held, Refusal::RunnerLost, Condition::ConnectionError);
                }
                self.forget(now, id);
                self.review(now, app_id);
            }
            State::Pending | State::DockerPull => {}
        }
    }

    /// A runner that was told to end and is still there.
    fn ending_due(&mut self, now: Timestamp, id: RunnerId) {
        self.end_overdue(now, id);
        let Some(runner) = self.runners.get(&id) else { return };
        let Some(stop) = runner.stop.as_ref().filter(|stop| stop.issued) else { return };
        let grace = self
            .apps
            .get(&runner.app)
            .map_or(Duration::ZERO, |app| app.spec.scaling.termination_grace_period);
        let stuck = stop.at + grace + STUCK_AFTER;
        if stuck > now {
            self.wake_runner_at(id, stuck);
            return;
        }
        self.issue(now, id, None, StopReason::Stuck);
    }
}
