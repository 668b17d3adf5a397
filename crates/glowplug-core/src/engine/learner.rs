//! Apps that are scaled by what is learned of them: what the engine tells the learner, and asks it.
//!
//! The learner ([`crate::auto`]) only advises. What the app's own parameters say bounds it: a floor and a
//! buffer are kept whatever it says, and the cap is never passed.

use std::time::Duration;

use super::Engine;
use super::state::App;
use crate::auto::{Kept, Last, Learned, Learner};
use crate::decision::{Foresight, StartCause, StopReason, What};
use crate::ids::{AppId, Lease, RunnerId};
use crate::scaler::{self, Load, Target};
use crate::spec::{Policy, Scaling};
use crate::time::Timestamp;

/// The learner that an app with this scaling has, with what `before` knows.
pub(super) fn of(scaling: &Scaling, before: Option<Box<Learner>>) -> Option<Box<Learner>> {
    match scaling.policy {
        Policy::Fixed => None,
        Policy::Auto(settings) => Some(match before {
            None => Box::new(Learner::new(&settings)),
            Some(mut learner) => {
                learner.configure(&settings);
                learner
            }
        }),
    }
}

/// The app's parameters with what the learner asks for above them at this moment.
pub(super) fn asked(learner: &Learner, scaling: &Scaling, now: Timestamp) -> Scaling {
    let spare = u32::from(learner.spare(now).is_some());
    let awake = learner.wake(now).is_some_and(|wake| wake.at <= now);
    let awake = u32::from(awake || learner.interest(now).is_some());
    Scaling {
        concurrency_buffer: scaling.concurrency_buffer.max(spare),
        min_concurrency: scaling.min_concurrency.max(awake),
        ..*scaling
    }
}

impl App {
    /// Whether the learner alone asks for a runner beside `alive` others.
    pub(super) fn is_foreseen(&self, target: Target, alive: u32) -> bool {
        let load = Load { in_flight: target.volume, waiting: 0 };
        self.learner.is_some() && alive >= scaler::target(&self.spec.scaling, load).desired
    }

    pub(super) fn foresight(&self, now: Timestamp) -> Option<Foresight> {
        let learner = self.learner.as_ref()?;
        let spare = learner.spare(now).map(|spare| Foresight::Spare(spare.why));
        let interest = || learner.interest(now).map(|sign| Foresight::Interest(sign.why));
        let wake = || learner.wake(now).map(|wake| Foresight::Wake(wake.why));
        spare.or_else(interest).or_else(wake)
    }

    /// What is to become of the highest level of the app, if it is scaled by what was learned. Since when it
    /// was not needed: `idle_since`. Levels are of demand: a runner that is there beside a buffer is asked
    /// for when demand is as many runners lower as the buffer has.
    pub(super) fn kept(&self, idle_since: Timestamp) -> Option<Kept> {
        let learner = self.learner.as_ref()?;
        let load = Load { in_flight: self.in_flight, waiting: super::count(self.waiting.len()) };
        let buffer = scaler::target(&self.spec.scaling, load).buffer;
        Some(learner.kept(self.alive().saturating_sub(buffer).max(1), idle_since))
    }

    /// A runner became ready after so long.
    pub(super) fn learn_start(&mut self, took: Duration) {
        if let Some(learner) = &mut self.learner {
            learner.started(took);
        }
    }

    /// A request got its first runner.
    pub(super) fn learn_wait(&mut self, waited: Duration) {
        if let Some(learner) = &mut self.learner {
            learner.waited(waited);
        }
    }
}

impl Engine {
    /// An attempt has kept its runner until now.
    pub(super) fn learn_service(&mut self, now: Timestamp, id: AppId, lease: Lease) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let runner = self.runners.get(&lease.runner);
        let held = runner
            .and_then(|runner| runner.in_flight.iter().find(|held| held.request == lease.request));
        if let Some(held) = held {
            let took = now - held.since;
            app.learn_service(took);
            if let Some(learner) = &mut app.learner {
                learner.served(took);
            }
        }
    }

    /// Tells the learner of an app what demand is now, and wakes up when its advice will change by itself.
    pub(super) fn learn_demand(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let ready = super::count(app.ready.len());
        let places = app.spec.scaling.max_multiplexing.max(1);
        let demand = app.in_flight.saturating_add(super::count(app.waiting.len())).div_ceil(places);
        let Some(learner) = &mut app.learner else { return };
        learner.demand(now, demand, ready);
        let spare = learner.spare(now).map(|spare| spare.until);
        let wake = learner.wake(now).map(|wake| if wake.at > now { wake.at } else { wake.until });
        let interest = learner.interest(now).map(|interest| interest.until);
        for at in [spare, wake, interest].into_iter().flatten() {
            self.wake_app_at(id, at);
        }
    }

    /// The next runner of a learned app that is not worth keeping. Arms the app's wake-up if one will be
    /// later. A runner that still starts stands for the highest level, since it was asked for last.
    pub(super) fn unlikely_victim(
        &mut self,
        now: Timestamp,
        id: AppId,
        start: Option<RunnerId>,
    ) -> Option<(RunnerId, StopReason)> {
        let app = self.apps.get_mut(&id)?;
        let surplus_since = *app.surplus_since.get_or_insert(now);
        let (runner, since) = match (start, app.free.idle().next()) {
            (Some(start), _) => (start, surplus_since),
            (None, Some(seat)) => (seat.runner, seat.last_used),
            (None, None) => return None,
        };
        let kept = app.kept(since)?;
        let until = kept.until.max(since + self.own_time(runner));
        if until > now {
            self.wake_app_at(id, until);
            return None;
        }
        let reason = match start {
            Some(_) => StopReason::Surplus,
            None => StopReason::Unlikely { idle: now - since, why: kept.why },
        };
        Some((runner, reason))
    }

    /// For how long a runner is kept that was not started for demand, and that nobody has used yet: the
    /// learner knows nothing of why it is there.
    pub(super) fn own_time(&self, id: RunnerId) -> Duration {
        let Some(runner) = self.runners.get(&id) else { return Duration::ZERO };
        let asked_for = matches!(
            runner.cause,
            StartCause::Manual | StartCause::Adopted | StartCause::Replacement
        );
        let keep_alive = self.apps.get(&runner.app).map(|app| app.spec.scaling.keep_alive);
        // One that was thawed may have served before.
        let is_unused = runner.ready == Some(runner.last_used) || runner.served == 0;
        keep_alive.filter(|_| asked_for && is_unused).unwrap_or_default()
    }

    /// Somebody is about to use an app.
    pub(super) fn interest(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get_mut(&id).filter(|app| app.may_start()) else { return };
        let alive = app.alive();
        let used_last = app.free.first_choice().and_then(|id| self.runners.get(&id));
        let Some(learner) = app.learner.as_mut().filter(|_| !self.shutting_down) else { return };
        let last = match used_last {
            Some(runner) => Last::Idle { since: runner.last_used },
            None if alive > 0 => Last::Starting,
            None => Last::None,
        };
        learner.sign(now, last);
        self.review(now, id);
    }

    /// Gives an app what was learned of it before, in another life of the node. It counts from when the app
    /// is next declared to be scaled so.
    pub fn teach(&mut self, id: AppId, learner: Learner) {
        self.taught.insert(id, Box::new(learner));
    }

    pub(super) fn taken_lesson(&mut self, id: AppId, scaling: &Scaling) -> Option<Box<Learner>> {
        match scaling.policy {
            Policy::Fixed => None,
            Policy::Auto(_) => self.taught.remove(&id),
        }
    }

    /// What is known of an app that is scaled by what is learned of it, and what would be done now.
    pub fn learned(&self, id: AppId, now: Timestamp) -> Option<Learned> {
        let app = self.apps.get(&id)?;
        Some(app.learner.as_ref()?.learned(now, app.alive()))
    }

    /// Says why a runner is wanted that nothing but the learner asks for.
    pub(super) fn note_foresight(&mut self, now: Timestamp, id: AppId, runner: RunnerId) {
        if let Some(foresight) = self.apps.get(&id).and_then(|app| app.foresight(now)) {
            self.note(now, id, Some(runner), None, What::Foreseen(foresight));
        }
    }
}
