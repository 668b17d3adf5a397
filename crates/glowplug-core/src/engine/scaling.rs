//! Growing and shrinking an app to what the formula asks for.

use super::Engine;
use super::state::{Runner, count};
use crate::decision::{StartCause, StopReason, What};
use crate::ids::{AppId, RunnerId};
use crate::lifecycle::State;
use crate::scaler::Target;
use crate::time::Timestamp;

/// Runners of one app that may wait in PENDING without resources. More would only wait behind them; each
/// one that is placed makes room for the next.
pub(super) const UNPLACED_MAX: u32 = 64;

/// Why an app has too many runners.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Surplus,
    OverCap,
}

impl Engine {
    /// Starts what is missing.
    pub(super) fn grow(&mut self, now: Timestamp, id: AppId) {
        if self.shutting_down {
            return;
        }
        self.learn_demand(now, id);
        let Some(app) = self.apps.get(&id).filter(|app| app.may_start()) else { return };
        let (target, next_ripe) = app.target_to_start(now);
        let alive = app.alive();
        let missing =
            target.desired.saturating_sub(alive).min(UNPLACED_MAX.saturating_sub(app.unplaced));
        let nothing_to_do = missing == 0 && app.unplaced == 0;
        if let Some(at) = next_ripe {
            self.wake_app_at(id, at);
        }
        if nothing_to_do {
            return;
        }
        self.promote(now, id, target.demand);
        for nth in 0..missing {
            let cause = self.start_cause(id, target, alive + nth);
            if self.thaw_one(now, id, cause).is_some() {
                continue;
            }
            if let Some(runner) = self.start_runner(now, id, cause) {
                let what = What::Wanted { cause, target, alive: alive + nth };
                self.note(now, id, Some(runner), None, what);
                if cause == StartCause::Foreseen {
                    self.note_foresight(now, id, runner);
                }
                self.note_delay(now, id, runner);
            }
        }
    }

    fn start_cause(&self, id: AppId, target: Target, alive: u32) -> StartCause {
        let Some(app) = self.apps.get(&id) else { return StartCause::Manual };
        if alive < target.demand {
            return if !app.ever_ready {
                StartCause::FirstDeployment
            } else if alive > 0 {
                StartCause::Spike
            } else if app.last_expired {
                StartCause::Expired
            } else {
                StartCause::NoWarmRunner
            };
        }
        if app.is_foreseen(target, alive) {
            StartCause::Foreseen
        } else if alive < app.spec.scaling.min_concurrency {
            StartCause::Floor
        } else {
            StartCause::Buffer
        }
    }

    /// Creates a runner: in PENDING, or in FAILURE_DELAY while the app's last start failed.
    pub(super) fn start_runner(
        &mut self,
        now: Timestamp,
        app_id: AppId,
        cause: StartCause,
    ) -> Option<RunnerId> {
        let app = self.apps.get(&app_id)?;
        let mut runner = Runner::new(app_id, app.spec.revision, cause, now);
        let delay = app.backoff.active(now);
        if let Some(until) = delay {
            runner.state = State::FailureDelay;
            runner.delay_until = Some(until);
        }
        let id = self.next_runner_id();
        self.runners.insert(id, runner);
        self.index(now, id);
        if let Some(until) = delay {
            self.wake_runner_at(id, until);
        }
        Some(id)
    }

    fn note_delay(&mut self, now: Timestamp, app_id: AppId, id: RunnerId) {
        let Some(app) = self.apps.get(&app_id) else { return };
        if let Some(until) = app.backoff.active(now) {
            let what = What::Delayed { failures: app.backoff.failures(), wait: until - now };
            self.note(now, app_id, Some(id), None, what);
        }
    }

    pub(super) fn warm_requested(&mut self, now: Timestamp, id: AppId, runners: u32) {
        let Some(app) = self.apps.get(&id).filter(|app| app.may_start()) else { return };
        if self.shutting_down {
            return;
        }
        let cap = app.spec.scaling.max_concurrency.unwrap_or(u32::MAX);
        let missing = runners.min(cap).saturating_sub(app.alive());
        let missing = missing.min(UNPLACED_MAX.saturating_sub(app.unplaced));
        let (target, _) = app.target_to_start(now);
        let alive = app.alive();
        for nth in 0..missing {
            if self.thaw_one(now, id, StartCause::Manual).is_some() {
                continue;
            }
            if let Some(runner) = self.start_runner(now, id, StartCause::Manual) {
                let what = What::Wanted { cause: StartCause::Manual, target, alive: alive + nth };
                self.note(now, id, Some(runner), None, what);
                self.note_delay(now, id, runner);
            }
        }
    }

    /// Ends what is superfluous: first what only waits for its start, then (after `keep_alive`) what is
    /// starting, then what has been idle for `keep_alive`, longest first. Never a runner in use. With a
    /// learner, its lifetime for the app's highest level stands for `keep_alive`.
    pub(super) fn shrink(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let keep = app.target_to_keep(now).desired;
        let mut surplus = app.alive().saturating_sub(keep);
        if surplus == 0 {
            app.surplus_since = None;
            return;
        }
        if app.unplaced > 0 {
            surplus = self.cancel_waiting_starts(now, id, surplus);
        }
        surplus = self.cut_to_cap(now, id, surplus);
        while surplus > 0 {
            let Some((victim, reason)) = self.expired_victim(now, id) else { break };
            self.retire(now, victim, reason);
            surplus -= 1;
        }
    }

    /// Cancels starts that cost nothing yet, newest first.
    fn cancel_waiting_starts(&mut self, now: Timestamp, id: AppId, mut surplus: u32) -> u32 {
        let Some(app) = self.apps.get(&id) else { return 0 };
        let waiting: Vec<RunnerId> = app
            .starting
            .iter()
            .rev()
            .copied()
            .filter(|id| {
                self.runners.get(id).is_some_and(|runner| {
                    runner.allocation.is_none()
                        && runner.replaces.is_none()
                        && runner.cause != StartCause::Manual
                })
            })
            .collect();
        for id in waiting {
            if surplus == 0 {
                break;
            }
            self.drain(now, id, StopReason::Surplus);
            surplus -= 1;
        }
        surplus
    }

    /// Ends idle and starting runners above a lowered `max_concurrency` without waiting for keep_alive.
    fn cut_to_cap(&mut self, now: Timestamp, id: AppId, mut surplus: u32) -> u32 {
        let Some(app) = self.apps.get(&id) else { return 0 };
        let Some(cap) = app.spec.scaling.max_concurrency else { return surplus };
        let mut above = app.alive().saturating_sub(cap);
        while above > 0 && surplus > 0 {
            let Some(victim) =
                self.newest_start(id, Cut::OverCap).or_else(|| self.longest_idle(id))
            else {
                break;
            };
            self.drain(now, victim, StopReason::OverCap { cap });
            above -= 1;
            surplus -= 1;
        }
        surplus
    }

    /// A runner whose time is over, and why. Arms the app's wake-up if one will be later.
    fn expired_victim(&mut self, now: Timestamp, id: AppId) -> Option<(RunnerId, StopReason)> {
        let start = self.newest_start(id, Cut::Surplus);
        let app = self.apps.get_mut(&id)?;
        if app.learner.is_some() {
            return self.unlikely_victim(now, id, start);
        }
        let keep_alive = app.spec.scaling.keep_alive;
        let since = *app.surplus_since.get_or_insert(now);
        // The longest idle expires first, unless those that never served have less time.
        let unused_life = app.time_to_live(0);
        let looked_at = if unused_life < keep_alive { usize::MAX } else { 1 };
        let shortest_life = unused_life.min(keep_alive);
        let long_idle = app.free.idle().take_while(|seat| now - seat.last_used >= shortest_life);
        let idle = long_idle.take(looked_at).find_map(|seat| {
            let served = self.runners.get(&seat.runner)?.served;
            let idle = now - seat.last_used;
            (app.time_to_live(served) <= idle).then_some((seat.runner, served, idle))
        });
        // What a floor or a buffer asked for may have been idle for long without being too much. Its time
        // counts from when it is: else each request that ends would end a runner that the next one starts.
        let life = idle.map_or(keep_alive, |(_, served, _)| app.time_to_live(served));
        if (start.is_some() || idle.is_some()) && now < since + life {
            self.wake_app_at(id, since + life);
            return None;
        }
        match (start, idle) {
            (Some(start), _) => Some((start, StopReason::Surplus)),
            (None, Some((runner, 0, idle))) => Some((runner, StopReason::Unused { idle })),
            (None, Some((runner, _, idle))) => Some((runner, StopReason::KeepAlive { idle })),
            (None, None) => None,
        }
    }

    /// Cancels every start that has no resources.
    pub(super) fn cancel_unplaced(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get(&id).filter(|app| app.unplaced > 0) else { return };
        let unplaced: Vec<RunnerId> = app
            .starting
            .iter()
            .copied()
            .filter(|id| self.runners.get(id).is_some_and(|runner| runner.allocation.is_none()))
            .collect();
        for id in unplaced {
            self.drain(now, id, StopReason::Surplus);
        }
    }

    /// The start that loses least: what waits before DOCKER_PULL before SETUP, newest first. Among
    /// surplus, a start that has begun because somebody asked for it (or before the node's restart) is not
    /// counted: it would never end if its setup takes longer than `keep_alive`.
    fn newest_start(&self, id: AppId, why: Cut) -> Option<RunnerId> {
        let app = self.apps.get(&id)?;
        let mut starts: Vec<(u32, RunnerId)> =
            Vec::with_capacity(count(app.starting.len()) as usize);
        for id in &app.starting {
            let Some(runner) = self.runners.get(id) else { continue };
            let asked_for = matches!(runner.cause, StartCause::Manual | StartCause::Adopted)
                && runner.allocation.is_some();
            if runner.replaces.is_some() || (asked_for && why == Cut::Surplus) {
                continue;
            }
            let rank = match runner.state {
                State::FailureDelay => 3,
                State::Pending => 2,
                State::DockerPull => 1,
                _ => 0,
            };
            starts.push((rank, *id));
        }
        starts.into_iter().max().map(|(_, id)| id)
    }

    fn longest_idle(&self, id: AppId) -> Option<RunnerId> {
        self.apps.get(&id)?.free.idle().next().map(|seat| seat.runner)
    }
}
