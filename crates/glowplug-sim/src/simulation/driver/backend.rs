//! Runners: pull, setup, readiness, end.

use std::time::Duration;

use glowplug_core::decision::StopReason;
use glowplug_core::event::Event;
use glowplug_core::{Action, Rung, RunnerId, Timestamp};

use super::super::agenda::Kind;
use super::super::body::{Body, Plan, SetupEnd, Stage};
use super::super::checkers::Verdict;
use super::{Driver, Starts};
use crate::model::{Faults, mix, share_of};
use crate::traffic::Arrival;

/// From when a frozen runner is wanted until it serves.
const THAW_TIME: Duration = Duration::from_millis(1);

impl<E, T, W> Driver<'_, T, W>
where
    E: std::error::Error + 'static,
    T: Iterator<Item = Result<Arrival, E>>,
    W: FnMut(Timestamp, u64, &Action),
{
    /// Draws what the start will take, and lets it begin.
    pub(super) fn begin(&mut self, place: u32, app: u32) {
        let faults = self.apps[app as usize].faults;
        let app = &mut self.apps[app as usize].starts;
        app.count += 1;
        let (setup_end, share) = app.draw_setup_end(faults);
        let setup_micros = app.setup.draw();
        let plan = &mut self.facts.roster.cold_mut(place).plan;
        plan.exit_micros = app.exit.draw();
        plan.setup_end = setup_end;
        plan.setup_micros = match setup_end {
            SetupEnd::Crash => part(setup_micros, share),
            SetupEnd::Ready | SetupEnd::Never => setup_micros,
        };
        self.next_stage_at(place, self.now);
    }

    fn next_stage_at(&mut self, place: u32, at: Timestamp) {
        let generation = self.facts.roster.new_generation(place);
        self.agenda.enter(at, Kind::StageEnds, place, generation);
    }

    pub(super) fn stage_ends(&mut self, place: u32, generation: u32) -> Verdict<()> {
        if !self.facts.roster.is_current(place, generation) {
            return Ok(());
        }
        let Some(runner) = self.facts.roster.get(place) else { return Ok(()) };
        match runner.body.stage {
            Stage::Placed => self.pull_or_set_up(place),
            Stage::Pulling => self.set_up(place),
            Stage::SettingUp => self.setup_ends(place),
            Stage::Ending => self.die(place, "ended"),
            Stage::Serving | Stage::Gone => Ok(()),
        }
    }

    fn pull_or_set_up(&mut self, place: u32) -> Verdict<()> {
        let Some(runner) = self.facts.roster.get_mut(place) else { return Ok(()) };
        let app = &mut self.apps[runner.told.app as usize].starts;
        let pulled_at = match (app.pulled_at, &mut app.pull) {
            (Some(at), _) => at,
            (None, Some(pull)) => self.now + Duration::from_micros(pull.draw()),
            (None, None) => self.now,
        };
        app.pulled_at = Some(pulled_at);
        if pulled_at <= self.now {
            return self.set_up(place);
        }
        runner.body.stage = Stage::Pulling;
        let id = runner.told.id;
        self.next_stage_at(place, pulled_at);
        self.report(place, Event::PullStarted { runner: id })
    }

    fn set_up(&mut self, place: u32) -> Verdict<()> {
        let Some((runner, cold)) = self.facts.roster.both_mut(place) else { return Ok(()) };
        runner.body.stage = Stage::SettingUp;
        let (id, setup) = (runner.told.id, Duration::from_micros(cold.plan.setup_micros));
        if cold.plan.setup_end != SetupEnd::Never {
            self.next_stage_at(place, self.now + setup);
        }
        self.report(place, Event::SetupStarted { runner: id, rung: Rung::ImageCached })
    }

    fn setup_ends(&mut self, place: u32) -> Verdict<()> {
        let Some((runner, cold)) = self.facts.roster.both_mut(place) else { return Ok(()) };
        if cold.plan.setup_end == SetupEnd::Crash {
            return self.die(place, "crashed in setup");
        }
        runner.body.stage = Stage::Serving;
        let id = runner.told.id;
        self.report(place, Event::Ready { runner: id })
    }

    /// The engine takes the runner's processor away.
    pub(super) fn freeze(&mut self, id: RunnerId) -> Verdict<()> {
        let place = self.facts.freeze(id)?;
        if let Some(runner) = self.facts.roster.get_mut(place) {
            runner.account.freeze(self.now);
        }
        let held_bytes = self.facts.roster.cold_mut(place).allocation.memory_bytes;
        self.report(place, Event::Frozen { runner: id, held_bytes })
    }

    /// The engine gives it back.
    pub(super) fn thaw(&mut self, id: RunnerId) -> Verdict<()> {
        let place = self.facts.thaw(id)?;
        let Some(runner) = self.facts.roster.get_mut(place) else { return Ok(()) };
        runner.account.thaw(self.now);
        let back_at = self.now + THAW_TIME;
        runner.body.reported_until = runner.body.reported_until.max(Some(back_at));
        self.hold_up(back_at, Event::Thawed { runner: id });
        Ok(())
    }

    /// The engine wants the runner to end.
    pub(super) fn end(&mut self, place: u32, grace: Option<Duration>, reason: &StopReason) {
        let Some((runner, cold)) = self.facts.roster.both_mut(place) else { return };
        let in_use = runner.told.in_flight > 0;
        self.tally.told_to_end(self.now, &mut runner.account, in_use);
        if matches!(reason, StopReason::StartupTimeout { .. }) {
            self.tally.start_failed(runner.told.app);
        }
        let (body, plan) = (&mut runner.body, &mut cold.plan);
        let has_program = matches!(body.stage, Stage::SettingUp | Stage::Serving | Stage::Ending);
        match body.stage {
            Stage::Gone => return,
            Stage::Ending => {
                plan.killed_at = plan.killed_at.min(self.now + grace.unwrap_or_default());
            }
            _ => plan.killed_at = self.now + grace.filter(|_| has_program).unwrap_or_default(),
        }
        body.stage = Stage::Ending;
        let at = ends_at(self.now, body, plan);
        self.next_stage_at(place, at);
    }

    /// The last request has left a runner that is to end.
    pub(super) fn ending_without_work(&mut self, place: u32) {
        let Some((runner, cold)) = self.facts.roster.both_mut(place) else { return };
        let at = ends_at(self.now, &runner.body, &cold.plan);
        self.next_stage_at(place, at);
    }

    /// Nothing is left of the runner: what is on it breaks.
    pub(super) fn die(&mut self, place: u32, detail: &str) -> Verdict<()> {
        self.facts.roster.new_generation(place);
        let Some(runner) = self.facts.roster.get_mut(place) else { return Ok(()) };
        runner.body.stage = Stage::Gone;
        let id = runner.told.id;
        self.break_all_on(place)?;
        self.report(place, Event::Exited { runner: id, detail: detail.to_owned() })
    }

    /// Looks whether a runner still accepts connections.
    pub(super) fn probe(&mut self, id: RunnerId) {
        let Some(place) = self.facts.roster.find(id) else { return };
        let Some(runner) = self.facts.roster.get(place) else { return };
        if runner.body.stage == Stage::Gone && !runner.told.exited {
            let detail = "it accepts no connections".to_owned();
            self.hold_up(self.now, Event::Unhealthy { runner: id, detail });
        }
    }
}

/// When a runner that is to end has ended, if nothing more happens.
fn ends_at(now: Timestamp, body: &Body, plan: &Plan) -> Timestamp {
    if body.on.is_empty() {
        plan.killed_at.min(now + Duration::from_micros(plan.exit_micros))
    } else {
        plan.killed_at
    }
}

impl Starts {
    /// How the start's setup ends, and the share of it after which a crash comes.
    fn draw_setup_end(&self, faults: Faults) -> (SetupEnd, f64) {
        let bits = mix(self.luck ^ self.count);
        let (fate, share) = (share_of(bits), share_of(mix(bits)));
        let Faults { setup_crash, setup_hang, .. } = faults;
        let end = if fate < setup_crash {
            SetupEnd::Crash
        } else if fate < setup_crash + setup_hang {
            SetupEnd::Never
        } else {
            SetupEnd::Ready
        };
        (end, share)
    }
}

/// A share of a time.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not more than the time itself"
)]
pub(super) fn part(micros: u64, share: f64) -> u64 {
    (micros as f64 * share) as u64
}
