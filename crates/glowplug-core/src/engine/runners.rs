//! Runners: what backends report about them, and what time does to them.

use std::time::Duration;

use super::Engine;
use super::state::{Frozen, Runner};
use crate::action::Action;
use crate::backoff;
use crate::decision::{StartCause, StopReason, What};
use crate::event::Adopted;
use crate::ids::{AppId, RunnerId};
use crate::lifecycle::{Input, State};
use crate::request::{Mode, Refusal};
use crate::retry::Condition;
use crate::time::Timestamp;
use crate::warmth::Rung;

/// Attempts on an ended runner whose gateway has not reported for this long are given up.
const LOST_AFTER: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn setup_started(&mut self, now: Timestamp, id: RunnerId, rung: Rung) {
        let Some(before) = self.report(now, id, Input::SetupStarted) else { return };
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.setup = Some(now);
        let was_fetched = rung == Rung::ImageCached && before == State::DockerPull;
        runner.rung = Some(if was_fetched { Rung::Cold } else { rung });
        let Some(app) = self.apps.get(&runner.app) else { return };
        let overdue = now + app.spec.scaling.startup_timeout;
        self.wake_runner_at(id, overdue);
    }

    pub(super) fn ready(&mut self, now: Timestamp, id: RunnerId) {
        if self.report(now, id, Input::Ready).is_none() {
            return;
        }
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.ready = Some(now);
        let took = now - runner.pending;
        let restart_cost = now - runner.placed.unwrap_or(runner.created);
        let setup = now - runner.setup.unwrap_or(now);
        let (app_id, rung, replaces) = (runner.app, runner.rung, runner.replaces.take());
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        if runner.is_capture() {
            self.note(now, app_id, Some(id), None, What::Ready { took, setup, rung });
            return self.capture_due(now, id);
        }
        runner.batch_left = super::count(app.waiting.len());
        if let Some(rung) = rung {
            app.ladder.measured(rung, restart_cost);
        }
        app.ever_ready = true;
        app.backoff.reset();
        app.learn_restart_cost(restart_cost);
        app.learn_start(took);
        let delayed: Vec<RunnerId> = app.starting.iter().copied().collect();
        self.note(now, app_id, Some(id), None, What::Ready { took, setup, rung });
        // A success ends the wait of all others.
        for other in delayed {
            if self.runners.get(&other).is_some_and(|r| r.state == State::FailureDelay) {
                self.apply(now, other, Input::DelayOver);
            }
        }
        self.dispatch(now, app_id);
        self.rest(now, id);
        // Ready means that its turn will be over, whether it is in use already or not.
        self.placement_due |= !self.pending.is_empty();
        if let Some(old) = replaces {
            self.drain(now, old, StopReason::Replaced { by: id });
        }
        self.grow(now, app_id);
        self.shrink(now, app_id);
    }

    pub(super) fn no_room(&mut self, now: Timestamp, id: RunnerId, detail: String) {
        if self.runners.get(&id).is_some_and(|runner| runner.is_capture() && runner.setup.is_none())
        {
            return self.exited(now, id, &detail);
        }
        let is_ending_program = self
            .runners
            .get(&id)
            .is_some_and(|runner| runner.state == State::Terminating && runner.setup.is_some());
        if is_ending_program {
            return;
        }
        match self.report(now, id, Input::NoRoom) {
            None => return,
            // It was told to end before the backend had begun it.
            Some(State::Terminating) => return self.ended(now, id, State::Terminating, &detail),
            Some(_) => {}
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
        if let Some(before) = self.report(now, id, Input::Exited) {
            self.ended(now, id, before, detail);
        }
    }

    /// Settles everything about a runner that has just become TERMINATED.
    fn ended(&mut self, now: Timestamp, id: RunnerId, before: State, detail: &str) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.ended = Some(now);
        let app_id = runner.app;
        let asked_to = runner.stop.is_some();
        // One that was taken over may have been ready in an earlier life of the node: that it is gone says
        // nothing about the next start.
        let failed_start = before.is_starting()
            && before != State::Thawing
            && !matches!(runner.cause, StartCause::Adopted | StartCause::Capture);
        let is_capture = runner.is_capture();
        let idle_end = runner.in_flight.is_empty();
        self.give_back(id);
        self.untie_replacements(id);
        if !asked_to {
            if failed_start {
                self.start_failed(now, app_id, id, detail, None);
            } else {
                let what = What::Died { detail: detail.to_owned(), state: before };
                self.note(now, app_id, Some(id), None, what);
                if !is_capture && before != State::Frozen {
                    self.remember_end(app_id, false);
                }
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
        let Some(runner) = self.runners.get(&id) else { return };
        let began = runner.placed.unwrap_or(runner.created);
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        let until = app.backoff.fail(now, began);
        let (again_in, failures) = (until - now, app.backoff.failures());
        self.delay_unbegun(now, app_id, until);
        let Some(app) = self.apps.get(&app_id) else { return };
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

    /// Makes the app's runners that wait for a place wait for the backoff first: the place that the
    /// failed start gives up is not for the next one to fail on.
    fn delay_unbegun(&mut self, now: Timestamp, app: AppId, until: Timestamp) {
        let Some(app) = self.apps.get(&app) else { return };
        let unbegun: Vec<RunnerId> = app
            .starting
            .iter()
            .copied()
            .filter(|id| self.runners.get(id).is_some_and(|runner| runner.allocation.is_none()))
            .collect();
        for id in unbegun {
            if self.apply(now, id, Input::StartsDelayed).is_some()
                && let Some(runner) = self.runners.get_mut(&id)
            {
                runner.delay_until = Some(until);
                self.wake_runner_at(id, until);
            }
        }
    }

    pub(super) fn unhealthy(&mut self, now: Timestamp, id: RunnerId, detail: String) {
        let Some(runner) = self.runners.get(&id) else { return };
        let (app, state) = (runner.app, runner.state);
        if runner.is_capture() {
            return self.drain(now, id, StopReason::Unhealthy { detail });
        }
        match state {
            // Nothing of it runs that could be in ill health.
            State::Pending | State::DockerPull | State::FailureDelay => return,
            State::Setup => {
                self.drain(now, id, StopReason::Unhealthy { detail: detail.clone() });
                self.start_failed(now, app, id, &detail, None);
            }
            _ => self.drain(now, id, StopReason::Unhealthy { detail }),
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
        runner.state = match (adopted.ready, adopted.frozen) {
            (true, true) => State::Frozen,
            (true, false) => State::Idle,
            (false, _) => State::Setup,
        };
        runner.frozen = adopted.frozen.then_some(Frozen { since: now, held_bytes: 0 });
        runner.ready = adopted.ready.then_some(now);
        self.runners.insert(id, runner);
        self.index(now, id);
        let shutting_down = self.shutting_down;
        let Some(app) = self.apps.get_mut(&adopted.app).filter(|app| !app.removed) else {
            self.kill(now, id, StopReason::AppRemoved);
            return;
        };
        app.ever_ready |= adopted.ready;
        let startup_timeout = app.spec.scaling.startup_timeout;
        let revision = app.spec.revision;
        if shutting_down {
            self.drain(now, id, StopReason::ShutDown);
        } else if adopted.revision != revision {
            self.drain(now, id, StopReason::Outdated { revision });
        } else if adopted.ready && adopted.frozen {
            self.runner_due(now, id);
        } else if adopted.ready {
            self.rest(now, id);
        } else {
            self.wake_runner_at(id, now + startup_timeout);
        }
        self.review(now, adopted.app);
    }

    pub(super) fn runner_due(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        if runner.is_capture() && runner.state.is_alive() {
            self.capture_due(now, id);
        } else if matches!(runner.state, State::Frozen | State::Thawing) {
            self.frozen_due(now, id);
        } else if runner.state.is_alive() {
            self.alive_due(now, id);
        } else if runner.state == State::Terminated {
            self.ended_due(now, id);
        } else {
            self.ending_due(now, id);
        }
    }

    fn alive_due(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let Some(app) = self.apps.get(&runner.app) else { return };
        let app_id = runner.app;
        let (scaling, state) = (app.spec.scaling, runner.state);
        match state {
            State::FailureDelay => {
                // No room at the backend may have been followed by a failed start.
                let until = runner.delay_until.max(app.backoff.active(now));
                match until {
                    Some(until) if until > now => self.wake_runner_at(id, until),
                    _ => {
                        self.apply(now, id, Input::DelayOver);
                    }
                }
            }
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
                if expiry > now && app.learner.is_none() {
                    self.wake_runner_at(id, expiry);
                } else {
                    self.shrink(now, app_id);
                }
            }
            State::Running if self.end_overdue(now, id) => self.review(now, app_id),
            _ => {}
        }
    }

    /// A runner that is gone while gateways still owe a word about attempts on it.
    fn ended_due(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let (app, lost_at) = (runner.app, runner.ended.unwrap_or(now) + LOST_AFTER);
        if lost_at > now {
            self.wake_runner_at(id, lost_at);
            return;
        }
        for held in runner.in_flight.clone() {
            self.withdraw(now, id, held, Refusal::RunnerLost, Condition::ConnectionError);
        }
        self.forget(now, id);
        self.review(now, app);
    }
}
