//! What must hold for every action of the engine, by what is known when it is taken.

use std::cmp::Ordering;
use std::time::Duration;

use glowplug_core::decision::{Decision, StartCause, StopReason, What};
use glowplug_core::engine::{CAPTURES_MAX, PASSED_OVER_MAX};
use glowplug_core::ids::{AppId, Lease, RequestId, RunnerId};
use glowplug_core::lifecycle::State;
use glowplug_core::request::{Arrival, Mode, Refusal};
use glowplug_core::resources::{Allocation, MachineType};
use glowplug_core::retry::{ATTEMPTS_MAX, Wish};
use glowplug_core::{Action, Timestamp};

use super::{Facts, Progress, Runner, Verdict, ensure};

impl Facts {
    pub(crate) fn check_action(&mut self, now: Timestamp, action: &Action) -> Verdict {
        if now > self.this_step {
            self.begin_step(now);
        }
        match action {
            Action::Start { runner, app, allocation, .. } => {
                self.check_start(*runner, *app, allocation)
            }
            Action::Stop { runner, grace, reason } => self.check_stop(*runner, *grace, reason),
            Action::Assign { lease, mode } => self.check_assign(now, *lease, *mode),
            Action::Refuse { request, mode, refusal } => {
                self.check_refuse(now, *request, *mode, refusal)
            }
            Action::Deliver { lease } => {
                self.end_attempt(now, *lease)?;
                self.delivered += 1;
                self.requests.remove(&lease.request);
                Ok(())
            }
            Action::Retry { lease, delay } => self.check_retry(now, *lease, *delay),
            Action::Revoke { lease, .. } | Action::Interrupt { lease } => {
                ensure(self.holds(*lease), "a stale lease was revoked or interrupted")
            }
            Action::Forget { runner } => {
                let forgotten = self.runners.remove(runner);
                let runner = forgotten.ok_or("an unknown runner was forgotten")?;
                ensure(runner.in_flight.is_empty(), "a runner with requests was forgotten")?;
                ensure(runner.allocation.is_none(), "a runner with resources was forgotten")
            }
            Action::Freeze { runner } => self.check_freeze(now, *runner),
            Action::Thaw { runner } => self.check_thaw(*runner),
            Action::Probe { .. } => Ok(()),
            Action::Note(decision) => self.check_note(now, decision),
        }
    }

    fn check_start(&mut self, id: RunnerId, app: AppId, allocation: &Allocation) -> Verdict {
        ensure(!self.shut_down, "a start after shut-down")?;
        ensure(id.boot == self.config.boot, "a start with the id of another boot")?;
        let spec = &self.apps.get(&app).ok_or("a start for an unknown app")?.spec;
        let machine = spec.machine_types.iter().find(|m| m.name == allocation.machine_type);
        let machine = machine.ok_or("a start on a machine type the app does not name")?;
        self.check_fits(machine, allocation)?;
        let runner = self.runners.get_mut(&id).ok_or("a start nobody wanted")?;
        ensure(runner.is_alive(), "a runner was started after its end was decided")?;
        ensure(runner.starts == runner.no_rooms, "a runner was started twice")?;
        runner.starts += 1;
        runner.allocation = Some(allocation.clone());
        Ok(())
    }

    fn check_fits(&self, machine: &MachineType, allocation: &Allocation) -> Verdict {
        let held = || self.runners.values().filter_map(|runner| runner.allocation.as_ref());
        let millis: u128 = held().map(|held| u128::from(held.cpu_millis)).sum();
        let bytes: u128 = held().map(|held| u128::from(held.memory_bytes)).sum();
        let wants = allocation.cpu_millis;
        ensure(
            wants == 0 || millis + u128::from(wants) <= u128::from(self.capacity.cpu_millis),
            "more CPU was given out than there is",
        )?;
        let wants = allocation.memory_bytes;
        ensure(
            wants == 0 || bytes + u128::from(wants) <= u128::from(self.capacity.memory_bytes),
            "more memory was given out than there is",
        )?;
        ensure(allocation.gpus.len() == machine.gpus as usize, "a wrong number of GPUs")?;
        ensure(allocation.gpus.is_sorted_by(|a, b| a < b), "GPUs not distinct and ascending")?;
        for index in &allocation.gpus {
            ensure(held().all(|held| !held.gpus.contains(index)), "a GPU was given out twice")?;
            let gpu = self.capacity.gpus.iter().find(|gpu| gpu.index == *index);
            let gpu = gpu.ok_or("a GPU that does not exist was given out")?;
            ensure(
                gpu.memory_bytes >= machine.gpu_memory_bytes
                    && machine.gpu_kind.as_ref().is_none_or(|kind| *kind == gpu.kind),
                "a GPU of the wrong kind was given out",
            )?;
        }
        Ok(())
    }

    fn check_freeze(&mut self, now: Timestamp, id: RunnerId) -> Verdict {
        let runner = self.runners.get_mut(&id).ok_or("an unknown runner was frozen")?;
        ensure(runner.is_idle(), "a runner that is not idle was frozen")?;
        let gpus = runner.allocation.as_ref().map_or(0, |held| held.gpus.len());
        ensure(gpus == 0, "a runner with GPUs was frozen")?;
        ensure(self.apps[&runner.app].spec.scaling.frozen_for.is_some(), "frozen unasked")?;
        ensure(!self.shut_down, "a runner was frozen after shut-down")?;
        runner.frozen = Some(now);
        Ok(())
    }

    fn check_thaw(&mut self, id: RunnerId) -> Verdict {
        let runner = self.runners.get(&id).ok_or("an unknown runner was thawed")?;
        ensure(runner.is_aside() && runner.frozen.is_some(), "what is not frozen was thawed")?;
        self.check_cap(runner.app)?;
        if let Some(runner) = self.runners.get_mut(&id) {
            (runner.frozen, runner.ready, runner.thawing) = (None, false, true);
        }
        Ok(())
    }

    fn check_cap(&self, app: AppId) -> Verdict {
        let cap =
            self.apps[&app].spec.scaling.max_concurrency.map_or(usize::MAX, |cap| cap as usize);
        let replacements = self
            .alive(app)
            .filter_map(|(_, runner)| runner.replaces)
            .filter(|old| self.runners.get(old).is_some_and(Runner::is_alive))
            .count();
        ensure(self.alive(app).count() - replacements < cap, "more runners than max_concurrency")
    }

    fn check_stop(
        &mut self,
        id: RunnerId,
        grace: Option<Duration>,
        reason: &StopReason,
    ) -> Verdict {
        let runner = self.runners.get_mut(&id).ok_or("an unknown runner was stopped")?;
        ensure(runner.allocation.is_some(), "a runner was stopped that was never started")?;
        ensure(runner.stopping.is_some(), "a stop without a decision")?;
        ensure(!runner.told || grace.is_none(), "a runner was told twice to end gracefully")?;
        runner.told = true;
        let must_be_unused = matches!(
            reason,
            StopReason::KeepAlive { .. }
                | StopReason::Unused { .. }
                | StopReason::Unlikely { .. }
                | StopReason::Surplus
                | StopReason::OverCap { .. }
                | StopReason::Evicted { .. }
                | StopReason::Outdated { .. }
        );
        ensure(!must_be_unused || runner.in_flight.is_empty(), "a runner in use was ended")
    }

    fn check_assign(&mut self, now: Timestamp, lease: Lease, mode: Mode) -> Verdict {
        let request = self.requests.get(&lease.request).ok_or("an unknown request was assigned")?;
        let (app, arrival) = (request.arrival.app, request.arrival.clone());
        match request.progress {
            Progress::Waiting => {}
            Progress::Delayed { until } => {
                ensure(until <= now, "a request was tried again before its delay was over")?;
            }
            Progress::InFlight(_) => return Err("a request was assigned twice".into()),
        }
        ensure(!request.cancelled, "a cancelled request was assigned")?;
        ensure(mode == arrival.mode, "a request changed its mode")?;
        ensure(arrival.start_deadline.is_none_or(|at| at > now), "a request was started too late")?;
        ensure(lease.attempt == request.attempts + 1, "attempts are not counted one by one")?;
        ensure(lease.attempt <= ATTEMPTS_MAX, "too many attempts")?;
        self.check_order(&arrival)?;
        let places = self.apps[&app].spec.scaling.max_multiplexing.max(1) as usize;
        let runner = self.runners.get_mut(&lease.runner).ok_or("assigned to no runner")?;
        ensure(runner.app == app, "assigned to another app's runner")?;
        ensure(runner.ready, "assigned before it was ready")?;
        ensure(!runner.is_aside(), "assigned to a frozen runner, or to a capture")?;
        ensure(runner.is_alive(), "assigned after its end was decided")?;
        ensure(runner.in_flight.len() < places, "assigned above max_multiplexing")?;
        runner.in_flight.push(lease);
        runner.served += 1;
        self.served += 1;
        self.first_assigned.entry(lease.request).or_insert(now);
        self.assigned_to.push((lease.request, lease.runner));
        let request = self.requests.get_mut(&lease.request).ok_or("gone")?;
        request.progress = Progress::InFlight(lease);
        request.attempts += 1;
        Ok(())
    }

    /// Of one caller first come, first served; low after normal until it was passed over too often; a
    /// retried request is back in its old place. The order between callers has tests of its own.
    fn check_order(&self, assigned: &Arrival) -> Verdict {
        let comes_before = |other: &Arrival| match other.priority.cmp(&assigned.priority) {
            Ordering::Less => self.served < PASSED_OVER_MAX as u64,
            Ordering::Equal => other.caller == assigned.caller && other.request < assigned.request,
            Ordering::Greater => false,
        };
        let passed_over = self.requests.values().find(|other| {
            let waits = match other.progress {
                Progress::Waiting => true,
                Progress::Delayed { until } => until <= self.last_step,
                Progress::InFlight(_) => false,
            };
            let is_late = other.arrival.start_deadline.is_some_and(|at| at <= self.this_step);
            waits && !is_late && other.arrival.app == assigned.app && comes_before(&other.arrival)
        });
        match passed_over {
            Some(other) => Err(format!("{:?} was served before {other:?}", assigned.request)),
            None => Ok(()),
        }
    }

    fn check_refuse(
        &mut self,
        now: Timestamp,
        id: RequestId,
        mode: Mode,
        refusal: &Refusal,
    ) -> Verdict {
        let request = self.requests.remove(&id).ok_or("an unknown request was refused")?;
        ensure(
            !matches!(request.progress, Progress::InFlight(_)),
            "a request in flight was refused",
        )?;
        ensure(mode == request.arrival.mode, "a request changed its mode")?;
        let app_id = request.arrival.app;
        let app = self.apps.get(&app_id);
        let is_arriving = self.arriving.as_ref().is_some_and(|arriving| arriving.request == id);
        let allowed = match refusal {
            Refusal::StartDeadline => request.arrival.start_deadline.is_some_and(|at| at <= now),
            Refusal::Cancelled => request.cancelled,
            Refusal::AppRemoved => app.is_none_or(|app| app.removed),
            Refusal::Unschedulable { .. } => {
                app.is_some_and(|app| {
                    app.spec.machine_types.iter().all(|machine| !self.could_fit(machine))
                }) && self.alive(app_id).all(|(_, runner)| runner.allocation.is_none())
            }
            Refusal::StartFailed { .. } | Refusal::StartupTimeout { .. } => {
                let nothing_comes = self
                    .alive(app_id)
                    .all(|(_, runner)| !runner.ready && runner.allocation.is_none());
                mode == Mode::Direct && nothing_comes && app.is_some_and(|app| app.failed_just_now)
            }
            Refusal::QueueFull { limit } => {
                let others = self.waiting(app_id, now) as usize;
                is_arriving
                    && mode == Mode::Direct
                    && *limit == self.config.waiting_max
                    && others >= *limit
            }
            Refusal::ShuttingDown => mode == Mode::Direct && self.shut_down,
            Refusal::RequestTimeout { .. } | Refusal::RunnerLost => false,
        };
        self.refused.insert(id, refusal.clone());
        ensure(allowed, "a request was refused without need")
    }

    fn could_fit(&self, machine: &MachineType) -> bool {
        let gpus = self.capacity.gpus.iter().filter(|gpu| {
            gpu.memory_bytes >= machine.gpu_memory_bytes
                && machine.gpu_kind.as_ref().is_none_or(|kind| *kind == gpu.kind)
        });
        machine.cpu_millis <= self.capacity.cpu_millis
            && machine.memory_bytes <= self.capacity.memory_bytes
            && machine.gpus as usize <= gpus.count()
    }

    fn holds(&self, lease: Lease) -> bool {
        self.requests.get(&lease.request).is_some_and(|r| r.progress == Progress::InFlight(lease))
    }

    fn end_attempt(&mut self, now: Timestamp, lease: Lease) -> Verdict {
        ensure(self.holds(lease), "a stale attempt was taken for an answer")?;
        if let Some(runner) = self.runners.get_mut(&lease.runner) {
            runner.in_flight.retain(|held| *held != lease);
            runner.idle_since = now;
        }
        Ok(())
    }

    fn check_retry(&mut self, now: Timestamp, lease: Lease, delay: Duration) -> Verdict {
        self.end_attempt(now, lease)?;
        let request = self.requests.get_mut(&lease.request).ok_or("gone")?;
        ensure(request.arrival.mode == Mode::Queued, "a direct request was tried again")?;
        ensure(
            request.arrival.retries != Wish::Never,
            "a request was tried again against its caller's will",
        )?;
        ensure(!request.cancelled, "a cancelled request was tried again")?;
        ensure(request.attempts < ATTEMPTS_MAX, "too many attempts")?;
        request.progress = Progress::Delayed { until: now + delay };
        Ok(())
    }

    fn check_note(&mut self, now: Timestamp, decision: &Decision) -> Verdict {
        let app = decision.app;
        match (&decision.what, decision.runner) {
            (What::Wanted { cause, .. }, Some(id)) => self.check_wanted(now, app, id, *cause),
            (What::Stopping { reason, state }, Some(id)) => {
                let verdict = self.check_stopping(now, id, reason, *state);
                if let Some(runner) = self.runners.get_mut(&id) {
                    runner.stopping = Some(reason.clone());
                    runner.gone |= runner.allocation.is_none();
                }
                verdict
            }
            (What::Freezing { reason }, Some(id)) => {
                self.check_stopping(now, id, reason, State::Idle)
            }
            (What::StartFailed { .. }, _) => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.failed_just_now = true;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_wanted(
        &mut self,
        now: Timestamp,
        app_id: AppId,
        id: RunnerId,
        cause: StartCause,
    ) -> Verdict {
        ensure(!self.shut_down, "a runner was wanted after shut-down")?;
        let app = self.apps.get(&app_id).ok_or("a runner was wanted for an unknown app")?;
        ensure(!app.removed, "a runner was wanted for a removed app")?;
        let replaces = if cause == StartCause::Replacement { self.replacing } else { None };
        if !matches!(cause, StartCause::Replacement | StartCause::Capture) {
            self.check_cap(app_id)?;
            let is_frozen = |runner: &&Runner| {
                runner.app == app_id && runner.is_alive() && runner.frozen.is_some()
            };
            let frozen = self.runners.values().find(is_frozen);
            ensure(frozen.is_none(), "a runner was wanted beside a frozen one")?;
        }
        if cause == StartCause::Capture {
            let captures =
                self.runners.values().filter(|runner| runner.is_capture() && runner.is_alive());
            ensure(captures.count() < CAPTURES_MAX, "too many captures")?;
        }
        let runner = Runner { replaces, ..Runner::new(app_id, cause, now) };
        let twin = self.runners.insert(id, runner);
        ensure(twin.is_none(), "an id was given out twice")
    }

    fn check_stopping(
        &mut self,
        now: Timestamp,
        id: RunnerId,
        reason: &StopReason,
        state: State,
    ) -> Verdict {
        let runner = self.runners.get(&id).ok_or("an unknown runner is being stopped")?;
        let app_id = runner.app;
        let (idle, in_use) = (runner.is_idle(), !runner.in_flight.is_empty());
        ensure(
            runner.stopping.is_none() || state == State::Draining,
            "a runner is being stopped twice",
        )?;
        let others = || self.alive(app_id).filter(|(other, _)| **other != id);
        match reason {
            StopReason::KeepAlive { .. } | StopReason::Unused { .. } => {
                let scaling = &self.apps[&app_id].spec.scaling;
                ensure(idle, "a runner that is not idle expired")?;
                let span = match scaling.unused_runner_timeout {
                    Some(span) if runner.served == 0 => span.min(scaling.keep_alive),
                    _ => scaling.keep_alive,
                };
                ensure(now - runner.idle_since >= span, "a runner expired too early")?;
                let starts = others().any(|(_, other)| {
                    !other.ready
                        && other.replaces.is_none()
                        && !(matches!(other.cause, StartCause::Manual | StartCause::Adopted)
                            && other.allocation.is_some())
                });
                ensure(!starts, "an idle runner was ended before a start was cancelled")?;
                if matches!(reason, StopReason::KeepAlive { .. }) && runner.served > 0 {
                    let longer = others().any(|(_, other)| {
                        other.is_idle() && other.served > 0 && other.idle_since < runner.idle_since
                    });
                    ensure(!longer, "not the longest idle expired")?;
                }
                self.check_kept(app_id, others().count())
            }
            StopReason::Unlikely { .. } => {
                ensure(idle, "a runner that is not idle was not worth keeping")?;
                let longer = others()
                    .any(|(_, other)| other.is_idle() && other.idle_since < runner.idle_since);
                ensure(!longer, "not the longest idle went")?;
                self.check_kept(app_id, others().count())
            }
            StopReason::Surplus => {
                ensure(!runner.ready, "a ready runner was cancelled as a start")?;
                let placed = runner.allocation.is_some();
                let cheaper = others().any(|(_, other)| {
                    other.allocation.is_none()
                        && other.replaces.is_none()
                        && other.cause != StartCause::Manual
                });
                ensure(!(placed && cheaper), "a placed start was cancelled before an unplaced")?;
                if self.apps[&app_id].spec.machine_types.iter().any(|m| self.could_fit(m)) {
                    self.check_kept(app_id, others().count())?;
                }
                Ok(())
            }
            StopReason::OverCap { cap } => {
                ensure(!in_use, "a runner in use was ended for the cap")?;
                ensure(others().count() >= *cap as usize, "more ended than the cap asks for")
            }
            StopReason::Evicted { .. } if runner.is_aside() => {
                ensure(!in_use, "what counts for nothing has requests")
            }
            StopReason::FrozenFor { .. } => {
                let kept_for = self.apps[&app_id].spec.scaling.frozen_for.unwrap_or_default();
                let since = runner.frozen.ok_or("a runner that was not frozen was too long so")?;
                ensure(now - since >= kept_for, "a frozen runner was ended too early")
            }
            StopReason::FrozenMemory { .. } => {
                let since = runner.frozen.ok_or("a runner that was not frozen held too much")?;
                let older = self.runners.values().any(|other| {
                    other.is_aside() && other.frozen.is_some_and(|frozen| frozen < since)
                });
                ensure(!older, "not the longest frozen was ended")
            }
            StopReason::Evicted { .. } => {
                let placed = others().filter(|(_, other)| other.allocation.is_some()).count();
                let floor = self.desired(app_id, 0);
                ensure(placed as u64 >= floor, "a floor was broken for another app")?;
                ensure(runner.ready, "a start was ended for another app")?;
                ensure(
                    runner.served > 0 || !runner.was_waited_for,
                    "a runner was evicted before it served anything",
                )?;
                self.evicted_unwanted += u64::from(runner.served == 0);
                self.evictions += 1;
                Ok(())
            }
            StopReason::Outdated { .. } => ensure(
                !in_use || state == State::Running,
                "a runner in use was ended for newer code",
            ),
            _ => Ok(()),
        }
    }

    fn check_kept(&self, app: AppId, left: usize) -> Verdict {
        let volume = u64::from(self.waiting(app, self.last_step)) + u64::from(self.in_flight(app));
        let desired = self.desired(app, volume);
        if left as u64 >= desired {
            return Ok(());
        }
        Err(format!("{left} runners are left where {desired} are to be kept"))
    }
}
