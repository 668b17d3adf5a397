//! Requests: arrival, assignment, outcome, retry, refusal.

use std::time::Duration;

use super::Engine;
use super::hints::Choice;
use super::state::{InFlight, Progress, Request, Runner};
use crate::action::Action;
use crate::decision::{StopReason, What};
use crate::ids::{AppId, HintId, Lease, RequestId, RunnerId};
use crate::lifecycle::{self, Input, State, Step};
use crate::request::{Arrival, Mode, Outcome, Refusal};
use crate::retry::{self, Again, Condition, Course, RunnerFate};
use crate::time::Timestamp;

impl Engine {
    pub(super) fn arrived(&mut self, now: Timestamp, arrival: &Arrival) {
        let id = arrival.request;
        if self.requests.contains_key(&id) {
            return;
        }
        let app = self.apps.get(&arrival.app);
        let refusal = match app {
            None => Some(Refusal::AppRemoved),
            Some(app) if app.removed => Some(Refusal::AppRemoved),
            Some(_) if self.shutting_down && arrival.mode == Mode::Direct => {
                Some(Refusal::ShuttingDown)
            }
            Some(_) if arrival.start_deadline.is_some_and(|deadline| deadline <= now) => {
                Some(Refusal::StartDeadline)
            }
            Some(app) => match &app.unschedulable {
                // Runners placed before it became so still serve.
                Some(reason) if app.placed() == 0 => {
                    Some(Refusal::Unschedulable { reason: reason.clone() })
                }
                // A queued request was accepted before it came here, perhaps in an earlier life of the
                // node. Its limit is kept by who accepts it.
                _ if arrival.mode == Mode::Direct
                    && app.waiting.len() >= self.config.waiting_max =>
                {
                    Some(Refusal::QueueFull { limit: self.config.waiting_max })
                }
                _ => None,
            },
        };
        if let Some(refusal) = refusal {
            self.actions.push_back(Action::Refuse { request: id, mode: arrival.mode, refusal });
            return;
        }
        let round = app.map(|app| app.waiting.next_round(arrival.priority, arrival.caller));
        self.request_sequence += 1;
        let request = Request {
            app: arrival.app,
            mode: arrival.mode,
            priority: arrival.priority,
            caller: arrival.caller,
            round: round.unwrap_or(0),
            sequence: self.request_sequence,
            arrived: now,
            start_deadline: arrival.start_deadline,
            hint: arrival.hint,
            course: Course::new(arrival.mode, arrival.retries).after(arrival.attempts),
            attempt: arrival.attempts,
            progress: Progress::Waiting,
            wake: None,
        };
        self.requests.insert(id, request);
        if let Some(choice) = self.runner_at_once(arrival.app, arrival.hint) {
            self.assign(now, id, choice);
        } else {
            self.enqueue(id);
            self.dispatch(now, arrival.app);
            if let Some(deadline) = arrival.start_deadline
                && self.requests.get(&id).is_some_and(|r| r.progress == Progress::Waiting)
            {
                self.wake_request_at(id, deadline);
            }
        }
        if self.pending.contains(&arrival.app) {
            // Its pending runners may now ask others to give way.
            self.newcomers.insert(arrival.app);
        }
        self.grow(now, arrival.app);
        self.end_surplus(now, arrival.app);
    }

    /// A surplus that a request has used up is over: the next one begins anew.
    fn end_surplus(&mut self, now: Timestamp, id: AppId) {
        if let Some(app) = self.apps.get_mut(&id)
            && app.surplus_since.is_some()
            && app.alive() <= app.target_to_keep(now).desired
        {
            app.surplus_since = None;
        }
    }

    /// The runner for a request that has just come, if nobody waits before it.
    fn runner_at_once(&self, app: AppId, hint: Option<HintId>) -> Option<Choice> {
        let app =
            self.apps.get(&app).filter(|app| app.waiting.is_empty() && !self.shutting_down)?;
        self.choose(app, hint)
    }

    fn enqueue(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.progress = Progress::Waiting;
        let place = request.place(id);
        if let Some(app) = self.apps.get_mut(&request.app) {
            app.delayed.remove(&id);
            app.waiting.insert(request.priority, place);
        }
    }

    /// Gives waiting requests to free places, each in its turn.
    pub(super) fn dispatch(&mut self, now: Timestamp, app_id: AppId) {
        if self.shutting_down {
            return;
        }
        while let Some(app) = self.apps.get_mut(&app_id) {
            if app.free.first_choice().is_none() {
                return;
            }
            let Some(place) = app.waiting.pop() else { return };
            let request = self.requests.get(&place.request);
            let late = request
                .and_then(|request| request.start_deadline)
                .is_some_and(|deadline| deadline <= now);
            let hint = request.and_then(|request| request.hint);
            if late {
                self.refuse(now, place.request, Refusal::StartDeadline);
            } else if let Some(choice) =
                self.apps.get(&app_id).and_then(|app| self.choose(app, hint))
            {
                self.assign(now, place.request, choice);
            }
        }
    }

    fn assign(&mut self, now: Timestamp, id: RequestId, choice: Choice) {
        let runner_id = choice.runner;
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.attempt += 1;
        let is_first = request.course.is_new();
        request.progress = Progress::InFlight { runner: runner_id };
        let (app_id, mode, attempt, arrived) =
            (request.app, request.mode, request.attempt, request.arrived);
        self.timers.disarm(super::Owner::Request(id), &mut request.wake);

        let started_for_it = self.reseat(runner_id, |runner| {
            runner.state = match lifecycle::step(runner.state, Input::Assigned) {
                Step::Move(next) => next,
                _ => unreachable!("free places belong to ready runners alone"),
            };
            runner.in_flight.push(InFlight { request: id, attempt, since: now });
            runner.served += 1;
            runner.last_used = now;
            // After the last that waited for it, it has had its turn: others may ask for its place.
            let turn_over = runner.batch_left == 1;
            runner.batch_left = runner.batch_left.saturating_sub(1);
            let started_for_it = runner.ready.is_some_and(|ready| ready >= arrived);
            (started_for_it, runner.rung, turn_over)
        });
        let Some((started_for_it, rung, turn_over)) = started_for_it else { return };
        self.placement_due |= turn_over && !self.pending.is_empty();

        let Some(app) = self.apps.get_mut(&app_id) else { return };
        app.in_flight += 1;
        if is_first {
            app.learn_wait(now - arrived);
        }
        let overdue = now + app.spec.scaling.request_timeout;
        self.wake_runner_at(runner_id, overdue);
        let lease = Lease { request: id, attempt, runner: runner_id };
        self.actions.push_back(Action::Assign { lease, mode });
        if let Some(other) = choice.instead_of {
            self.note(now, app_id, Some(runner_id), Some(id), What::Hinted { other });
        }
        if arrived < now {
            let waited = now - arrived;
            let what = What::Served { waited, started: started_for_it, rung, attempt };
            self.note(now, app_id, Some(runner_id), Some(id), what);
        }
    }

    pub(super) fn finished(&mut self, now: Timestamp, lease: Lease, mut outcome: Outcome) {
        if !self.holds(lease) {
            return;
        }
        self.learn_hints(lease.runner, &mut outcome);
        let (fate, again) = retry::judge(&outcome);
        let stop = match (fate, &outcome) {
            (RunnerFate::Stop, Outcome::Answered(answer)) => {
                Some(format!("it answered {} and is not to be trusted", answer.status))
            }
            (RunnerFate::Stop, _) => Some("it broke off an answer".to_owned()),
            _ => None,
        };
        if fate == RunnerFate::Probe {
            self.actions.push_back(Action::Probe { runner: lease.runner });
        }
        self.close_attempt(now, lease, again);
        if let Some(detail) = stop {
            self.drain(now, lease.runner, StopReason::BadAnswer { detail });
        }
        self.release_place(now, lease.runner);
    }

    /// Whether the lease is the request's current attempt.
    fn holds(&self, lease: Lease) -> bool {
        self.requests.get(&lease.request).is_some_and(|request| {
            request.attempt == lease.attempt
                && request.progress == Progress::InFlight { runner: lease.runner }
        })
    }

    /// Ends an attempt for the request: delivered, or tried again later.
    fn close_attempt(&mut self, now: Timestamp, lease: Lease, again: Again) {
        let Some(request) = self.requests.get_mut(&lease.request) else { return };
        let app_id = request.app;
        let rules = self.apps.get(&app_id).filter(|app| !app.removed).map(|app| &app.spec.retry);
        let condition = rules.and_then(|rules| request.course.go_on(again, rules));
        if let Some(condition) = condition {
            let delay = self.config.retry_delays.after(lease.request, lease.attempt);
            self.try_again_later(now, lease, delay);
            let what = What::Retried { condition, attempt: lease.attempt, delay };
            self.note(now, app_id, Some(lease.runner), Some(lease.request), what);
        } else {
            self.requests.remove(&lease.request);
            self.actions.push_back(Action::Deliver { lease });
        }
        self.learn_service(now, app_id, lease);
        self.leave_runner(lease);
        if let Some(app) = self.apps.get_mut(&app_id) {
            app.in_flight -= 1;
        }
    }

    fn try_again_later(&mut self, now: Timestamp, lease: Lease, delay: Duration) {
        let Some(request) = self.requests.get_mut(&lease.request) else { return };
        let until = now + delay;
        request.progress = Progress::Delayed { until };
        let wake = request.start_deadline.map_or(until, |deadline| deadline.min(until));
        if let Some(app) = self.apps.get_mut(&request.app) {
            app.delayed.insert(lease.request);
        }
        self.wake_request_at(lease.request, wake);
        self.actions.push_back(Action::Retry { lease, delay });
    }

    /// Takes the attempt off its runner.
    fn leave_runner(&mut self, lease: Lease) {
        let Some(runner) = self.runners.get_mut(&lease.runner) else { return };
        let give_up = |runner: &mut Runner| {
            let held = runner.in_flight.iter().position(|held| held.request == lease.request);
            held.map(|at| runner.in_flight.remove(at));
        };
        if runner.state.is_ready() {
            self.reseat(lease.runner, give_up);
        } else {
            give_up(runner);
            // What leaves will leave sooner.
            self.placement_due |= runner.allocation.is_some() && !self.pending.is_empty();
        }
    }

    /// Lets a runner that lost a request take the next one, rest, or end.
    fn release_place(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        let (app, state, empty) = (runner.app, runner.state, runner.in_flight.is_empty());
        match state {
            State::Running if empty => {
                self.apply(now, id, Input::LastFinished);
                self.dispatch(now, app);
                self.rest(now, id);
            }
            State::Running => self.dispatch(now, app),
            State::Draining if empty => {
                self.apply(now, id, Input::LastFinished);
                self.issue_stop(now, id);
            }
            State::Terminated if empty => self.forget(now, id),
            _ => {}
        }
        // What ended was load, so a start or an idle runner may have become superfluous; what is tried
        // again, or a runner that goes, may be missed.
        self.grow(now, app);
        self.shrink(now, app);
    }

    /// Arms the expiry of a runner that has become idle.
    pub(super) fn rest(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        if runner.state != State::Idle {
            return;
        }
        let Some(app) = self.apps.get(&runner.app) else { return };
        // With a learner, `shrink` finds out which runner is the next to go, and when.
        if app.learner.is_none() {
            let expiry = now + app.time_to_live(runner.served);
            self.timers.arm(super::Owner::Runner(id), &mut runner.wake, expiry);
        }
        // An idle runner is a place that another app may need.
        self.placement_due |= !self.pending.is_empty();
    }

    pub(super) fn cancelled(&mut self, now: Timestamp, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        match request.progress {
            Progress::InFlight { runner } => {
                // However this attempt ends, nobody wants another.
                request.course.forbid();
                let lease = Lease { request: id, attempt: request.attempt, runner };
                self.actions.push_back(Action::Interrupt { lease });
            }
            Progress::Waiting | Progress::Delayed { .. } => {
                self.refuse(now, id, Refusal::Cancelled);
            }
        }
    }

    /// Tells a request that does not run that it never will.
    pub(super) fn refuse(&mut self, now: Timestamp, id: RequestId, refusal: Refusal) {
        let Some(mut request) = self.requests.remove(&id) else { return };
        self.timers.disarm(super::Owner::Request(id), &mut request.wake);
        if let Some(app) = self.apps.get_mut(&request.app) {
            app.waiting.remove(request.priority, &request.place(id));
            app.delayed.remove(&id);
        }
        let what = What::Refused { refusal: refusal.clone(), waited: now - request.arrived };
        self.note(now, request.app, None, Some(id), what);
        self.actions.push_back(Action::Refuse { request: id, mode: request.mode, refusal });
        self.shrink(now, request.app);
    }

    /// Ends the waiting for an app that can run nowhere here and has no runner left.
    pub(super) fn give_up_unschedulable(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get(&id) else { return };
        let Some(reason) = app.unschedulable.clone() else { return };
        self.cancel_unplaced(now, id);
        if self.apps.get(&id).is_some_and(|app| app.placed() == 0) {
            self.refuse_waiting(now, id, None, &Refusal::Unschedulable { reason });
        }
    }

    /// Refuses everything that waits for an app, or what waits in one mode.
    pub(super) fn refuse_waiting(
        &mut self,
        now: Timestamp,
        app: AppId,
        mode: Option<Mode>,
        refusal: &Refusal,
    ) {
        let Some(app) = self.apps.get(&app) else { return };
        let ids: Vec<RequestId> = app
            .waiting
            .requests()
            .chain(app.delayed.iter().copied())
            .filter(|id| {
                mode.is_none() || self.requests.get(id).map(|request| request.mode) == mode
            })
            .collect();
        for id in ids {
            self.refuse(now, id, refusal.clone());
        }
    }

    pub(super) fn request_due(&mut self, now: Timestamp, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        let (app, deadline) = (request.app, request.start_deadline);
        if matches!(request.progress, Progress::InFlight { .. }) {
            return;
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.refuse(now, id, Refusal::StartDeadline);
            return;
        }
        match request.progress {
            Progress::Delayed { until } if until > now => self.wake_request_at(id, until),
            Progress::Delayed { .. } => {
                self.enqueue(id);
                self.review(now, app);
            }
            _ => {}
        }
        let runs = self
            .requests
            .get(&id)
            .is_none_or(|request| matches!(request.progress, Progress::InFlight { .. }));
        if let Some(deadline) = deadline.filter(|_| !runs) {
            self.wake_request_at(id, deadline);
        }
    }

    /// Ends attempts that overran `request_timeout`. Returns whether there were any; if not, when the
    /// next may be.
    pub(super) fn end_overdue(&mut self, now: Timestamp, id: RunnerId) -> bool {
        let Some(runner) = self.runners.get(&id) else { return false };
        let Some(app) = self.apps.get(&runner.app) else { return false };
        let limit = app.spec.scaling.request_timeout;
        let (overdue, rest): (Vec<InFlight>, Vec<InFlight>) =
            runner.in_flight.iter().partition(|held| held.since + limit <= now);
        if let Some(next) = rest.iter().map(|held| held.since + limit).min() {
            self.wake_runner_at(id, next);
        }
        let seconds = limit.as_secs();
        for held in &overdue {
            let refusal = Refusal::RequestTimeout { seconds };
            self.withdraw(now, id, *held, refusal, Condition::Timeout);
        }
        if let Some(first) = overdue.first() {
            let reason = StopReason::RequestTimeout { request: first.request, seconds };
            self.kill(now, id, reason);
        }
        !overdue.is_empty()
    }

    /// Takes an attempt away from its gateway.
    pub(super) fn withdraw(
        &mut self,
        now: Timestamp,
        runner: RunnerId,
        held: InFlight,
        refusal: Refusal,
        condition: Condition,
    ) {
        let lease = Lease { request: held.request, attempt: held.attempt, runner };
        if self.holds(lease) {
            self.actions.push_back(Action::Revoke { lease, refusal });
            self.close_attempt(now, lease, Again::On(condition));
        }
    }
}
