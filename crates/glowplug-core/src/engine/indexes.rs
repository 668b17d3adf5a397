//! Indexes: what keeps them in step with the runners' states.

use super::Engine;
use super::placement::Claim;
use super::state::Runner;
use crate::decision::What;
use crate::ids::RunnerId;
use crate::lifecycle::{self, Input, State, Step};
use crate::time::Timestamp;

impl Engine {
    /// Puts an input through the lifecycle table and keeps every index in step. The only place that
    /// changes a runner's state. Returns the state it left if it moved.
    pub(super) fn apply(&mut self, now: Timestamp, id: RunnerId, input: Input) -> Option<State> {
        let runner = self.runners.get_mut(&id)?;
        let before = runner.state;
        match lifecycle::step(before, input) {
            Step::Move(after) if before.is_ready() && after.is_ready() => {
                self.reseat(id, |runner| {
                    runner.state = after;
                    runner.last_used = now;
                });
                Some(before)
            }
            Step::Move(after) => {
                self.unindex(id);
                if let Some(runner) = self.runners.get_mut(&id) {
                    runner.state = after;
                    if after == State::Pending {
                        runner.pending = now;
                    }
                }
                self.index(now, id);
                Some(before)
            }
            Step::Ignore(_) => None,
            Step::Deny(why) => {
                let app = runner.app;
                self.note(now, app, Some(id), None, What::Denied { state: before, input, why });
                None
            }
        }
    }

    /// As `apply`, for what a backend says. It can know nothing of a runner that it was not told to
    /// start, or that it has no room for.
    pub(super) fn report(&mut self, now: Timestamp, id: RunnerId, input: Input) -> Option<State> {
        let runner = self.runners.get(&id)?;
        if runner.state.is_starting() && runner.allocation.is_none() {
            let (app, state) = (runner.app, runner.state);
            let what = What::Denied { state, input, why: "its start was not asked for" };
            self.note(now, app, Some(id), None, what);
            return None;
        }
        self.apply(now, id, input)
    }

    /// Changes what a ready runner is at, and its place among the free and the idle with it. It stays ready.
    pub(super) fn reseat<T>(
        &mut self,
        id: RunnerId,
        change: impl FnOnce(&mut Runner) -> T,
    ) -> Option<T> {
        let runner = self.runners.get_mut(&id)?;
        let app = self.apps.get_mut(&runner.app)?;
        let (from, was_seated, was_idle) =
            (runner.seat(id), runner.seated, runner.state == State::Idle);
        let changed = change(runner);
        runner.seated = runner.has_free_place(app.places_per_runner());
        match (was_seated, runner.seated) {
            (true, true) => app.free.shift(from, runner.seat(id)),
            (true, false) => app.free.remove(from),
            (false, true) => app.free.insert(runner.seat(id)),
            (false, false) => {}
        }
        match (was_idle, runner.state == State::Idle) {
            (true, false) => {
                let at = runner.idle_at;
                self.leave_idle(at);
            }
            (false, true) => runner.enter_idle(id, &mut self.idle),
            _ => {}
        }
        Some(changed)
    }

    /// Takes a place from the idle runners of all apps and gives it to the last of them.
    fn leave_idle(&mut self, at: usize) {
        self.idle.swap_remove(at);
        let moved = self.idle.get(at).and_then(|moved| self.runners.get_mut(moved));
        if let Some(moved) = moved {
            moved.idle_at = at;
        }
    }

    /// Takes a runner out of all indexes, as its state now says.
    pub(super) fn unindex(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let Some(app) = self.apps.get_mut(&runner.app) else { return };
        app.starting.remove(&id);
        app.ready.remove(&id);
        app.ending.remove(&id);
        if app.aside.remove(&id) {
            self.aside.remove(&id);
            return;
        }
        if std::mem::take(&mut runner.seated) {
            app.free.remove(runner.seat(id));
        }
        if runner.state.is_starting() && runner.allocation.is_none() {
            app.unplaced -= 1;
            if app.pending.remove(&Claim::of(id, runner)) {
                if app.pending.is_empty() {
                    self.pending.remove(&runner.app);
                }
                // What was kept for it is free for others.
                self.placement_due |=
                    self.outlook.as_ref().is_some_and(|outlook| outlook.keeps_for(runner.app));
            }
        }
        if runner.state.is_alive() && runner.replaced_by.is_some() {
            app.to_be_replaced -= 1;
        }
        self.leaving.remove(&id);
        if runner.state == State::Idle {
            let at = runner.idle_at;
            self.leave_idle(at);
        }
    }

    /// Enters a runner into all indexes, as its state now says.
    pub(super) fn index(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let Some(app) = self.apps.get_mut(&runner.app) else { return };
        if runner.is_aside() {
            runner.last_used = now;
            app.aside.insert(id);
            self.aside.insert(id);
            // It may have what others wait for.
            self.placement_due |= !self.pending.is_empty();
            return;
        }
        match runner.state {
            State::Pending
            | State::DockerPull
            | State::Setup
            | State::FailureDelay
            | State::Thawing => {
                app.starting.insert(id);
                if runner.allocation.is_none() {
                    app.unplaced += 1;
                    if runner.state == State::Pending {
                        app.pending.insert(Claim::of(id, runner));
                        self.pending.insert(runner.app);
                        self.newcomers.insert(runner.app);
                    }
                }
            }
            State::Frozen => {}
            State::Idle | State::Running => {
                app.ready.insert(id);
                runner.last_used = now;
                runner.seated = runner.has_free_place(app.places_per_runner());
                if runner.seated {
                    app.free.insert(runner.seat(id));
                }
            }
            State::Draining | State::Terminating | State::Terminated => {
                app.ending.insert(id);
                if runner.allocation.is_some() {
                    self.leaving.insert(id);
                    self.placement_due |= !self.pending.is_empty();
                }
            }
        }
        if runner.state.is_alive() && runner.replaced_by.is_some() {
            app.to_be_replaced += 1;
        }
        if runner.state == State::Idle {
            runner.enter_idle(id, &mut self.idle);
        }
    }
}
