//! Runners that are kept without a processor instead of being ended.
//!
//! ```text
//! IDLE ──nothing asks for it──► frozen ──wanted──► thawing ──reported──► IDLE
//!                                 └── `frozen_for` over, too much memory, room is needed ──► ended
//! ```
//!
//! A frozen runner keeps its place, so that thawing it cannot fail for want of room, but counts for nothing:
//! not against floor, cap or demand, and it is the first to go when anybody needs the room. Never one with
//! GPUs: their memory stays taken, and their programs do not bear it.

use std::time::Duration;

use super::Engine;
use super::state::Frozen;
use crate::action::Action;
use crate::decision::{StartCause, StopReason, What};
use crate::ids::{AppId, RunnerId};
use crate::lifecycle::{Input, State};
use crate::time::Timestamp;
use crate::warmth::Rung;

/// A runner that is not back by then is given up: thawing takes milliseconds.
const THAW_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure.
const CANNOT_FREEZE: Duration = Duration::from_mins(10);
/// Frozen runners of all apps, whatever memory they hold.
pub const FROZEN_MAX: usize = 1_024;

impl Engine {
    /// Takes a runner out of service that nothing asks for: frozen if that may be, else ended.
    pub(super) fn retire(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        if self.may_freeze(now, id) {
            self.freeze(now, id, reason);
        } else {
            self.drain(now, id, reason);
        }
    }

    fn may_freeze(&self, now: Timestamp, id: RunnerId) -> bool {
        let Some(runner) = self.runners.get(&id) else { return false };
        let Some(app) = self.apps.get(&runner.app) else { return false };
        let has_gpus = runner.allocation.as_ref().is_none_or(|held| !held.gpus.is_empty());
        runner.state == State::Idle
            && !runner.is_capture()
            && runner.replaced_by.is_none()
            && runner.revision == app.spec.revision
            && app.spec.scaling.frozen_for.is_some()
            && app.cannot_freeze_until.is_none_or(|until| until <= now)
            && !app.removed
            && !has_gpus
            && !self.shutting_down
            && self.config.frozen_memory_max > 0
            && self.frozen().count() < FROZEN_MAX
    }

    fn freeze(&mut self, now: Timestamp, id: RunnerId, reason: StopReason) {
        if self.apply(now, id, Input::Freeze).is_none() {
            return;
        }
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.frozen = Some(Frozen { since: now, held_bytes: 0 });
        let app = runner.app;
        self.remember_end(app, reason.is_expiry());
        self.note(now, app, Some(id), None, What::Freezing { reason });
        self.actions.push_back(Action::Freeze { runner: id });
        self.runner_due(now, id);
    }

    /// Frozen runners of all apps.
    fn frozen(&self) -> impl Iterator<Item = (RunnerId, &Frozen)> {
        self.aside.iter().filter_map(|id| {
            let runner = self.runners.get(id)?;
            Some((*id, runner.frozen.as_ref().filter(|_| runner.state == State::Frozen)?))
        })
    }

    /// Thaws a runner of the app instead of starting one: the one that was frozen last.
    pub(super) fn thaw_one(
        &mut self,
        now: Timestamp,
        app_id: AppId,
        cause: StartCause,
    ) -> Option<RunnerId> {
        let app = self.apps.get(&app_id)?;
        let since = |id: &RunnerId| {
            let runner = self.runners.get(id).filter(|runner| runner.state == State::Frozen)?;
            Some((runner.frozen.as_ref()?.since, *id))
        };
        let (since, id) = app.aside.iter().filter_map(since).max()?;
        self.apply(now, id, Input::Thaw)?;
        let runner = self.runners.get_mut(&id)?;
        runner.cause = cause;
        runner.thaw_asked = Some(now);
        self.note(now, app_id, Some(id), None, What::Thawing { cause, frozen: now - since });
        self.actions.push_back(Action::Thaw { runner: id });
        self.wake_runner_at(id, now + THAW_TIMEOUT);
        Some(id)
    }

    /// It has its processor back.
    pub(super) fn thawed(&mut self, now: Timestamp, id: RunnerId) {
        if self.report(now, id, Input::Thawed).is_none() {
            return;
        }
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let took = now - runner.thaw_asked.take().unwrap_or(now);
        runner.frozen = None;
        runner.ready = Some(now);
        runner.rung = Some(Rung::Frozen);
        let app_id = runner.app;
        let Some(app) = self.apps.get_mut(&app_id) else { return };
        runner.batch_left = super::count(app.waiting.len());
        app.ladder.measured(Rung::Frozen, took);
        self.note(now, app_id, Some(id), None, What::Thawed { took });
        self.dispatch(now, app_id);
        self.rest(now, id);
        self.placement_due |= !self.pending.is_empty();
        self.grow(now, app_id);
        self.shrink(now, app_id);
    }

    /// It holds so much without its processor.
    pub(super) fn freeze_reported(&mut self, now: Timestamp, id: RunnerId, held_bytes: u64) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        if let Some(frozen) = &mut runner.frozen {
            frozen.held_bytes = held_bytes;
        }
        self.trim_frozen(now);
    }

    /// Ends frozen runners until the others hold no more than they may, used longest ago first.
    fn trim_frozen(&mut self, now: Timestamp) {
        let max_bytes = self.config.frozen_memory_max;
        loop {
            let bytes = self.frozen().map(|(_, frozen)| u128::from(frozen.held_bytes)).sum();
            if u128::from(max_bytes) >= bytes {
                return;
            }
            let oldest = self.frozen().map(|(id, frozen)| (frozen.since, id)).min();
            let Some((_, victim)) = oldest else { return };
            let held_bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.drain(now, victim, StopReason::FrozenMemory { held_bytes, max_bytes });
        }
    }

    /// A host that could not freeze one runner of an app is not asked again for a while, or until the app changes.
    pub(super) fn freeze_failed(&mut self, now: Timestamp, id: RunnerId, detail: String) {
        let Some(runner) = self.runners.get(&id) else { return };
        let (app_id, is_frozen) = (runner.app, runner.state == State::Frozen);
        if let Some(app) = self.apps.get_mut(&app_id) {
            app.cannot_freeze_until = Some(now + CANNOT_FREEZE);
        }
        if is_frozen {
            self.drain(now, id, StopReason::CannotFreeze { detail });
        }
    }

    /// What time and changed settings do to a runner that is frozen or thaws.
    pub(super) fn frozen_due(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        if runner.state == State::Thawing {
            let overdue = runner.thaw_asked.unwrap_or(now) + THAW_TIMEOUT;
            if overdue > now {
                return self.wake_runner_at(id, overdue);
            }
            let detail = format!("it was not thawed within {} s", THAW_TIMEOUT.as_secs());
            let app = runner.app;
            self.kill(now, id, StopReason::Unhealthy { detail });
            return self.review(now, app);
        }
        match self.thaw_expiry(id) {
            Some(expiry) if expiry > now => self.wake_runner_at(id, expiry),
            _ => {
                let since = runner.frozen.as_ref().map_or(now, |frozen| frozen.since);
                self.drain(now, id, StopReason::FrozenFor { frozen: now - since });
            }
        }
    }

    /// Until when a frozen runner is kept. `None`: its app wants none any more.
    pub(super) fn thaw_expiry(&self, id: RunnerId) -> Option<Timestamp> {
        let runner = self.runners.get(&id)?;
        let kept_for = self.apps.get(&runner.app)?.spec.scaling.frozen_for?;
        Some(runner.frozen.as_ref()?.since + kept_for)
    }
}
