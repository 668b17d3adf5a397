//! What must hold whatever happens, from what the engine was told and has asked for, and from nothing of
//! the engine's own. Each look is at a fixed number of records.
//!
//! | rule | checked at |
//! | --- | --- |
//! | a request runs on a ready runner of its app, within `max_multiplexing`, before its deadline | `Assign` |
//! | no runner gets a request once its end was decided | `Assign` |
//! | a request is answered or refused once, and never refused while it runs | `Deliver`, `Refuse` |
//! | attempts count up by one; reports of earlier ones change nothing | `Assign`, `Deliver`, `Retry` |
//! | a runner starts once, within `max_concurrency` and what the node has; each GPU has one holder | `Start` |
//! | a runner is told to end gracefully once, and dropped after it has ended | `Stop`, `Forget` |
//! | nothing is left when all is over, but what nobody has room for | end |
//! | the engine comes to rest: bounded actions and wake-ups at any one moment, and after the last request | always |

mod holdings;

use std::time::Duration;

use glowplug_core::decision::{Decision, What};
use glowplug_core::request::Mode;
use glowplug_core::resources::{Allocation, Capacity};
use glowplug_core::retry::ATTEMPTS_MAX;
use glowplug_core::scaler::{self, Load};
use glowplug_core::spec::AppSpec;
use glowplug_core::{Lease, RequestId, RunnerId, Timestamp};

use super::requests::{Progress, Requests};
use super::roster::{End, Roster, Told, Warmth};
use holdings::Holdings;

/// What does not hold.
pub(super) type Rule = &'static str;
pub(super) type Verdict<T> = Result<T, Rule>;

/// Wake-ups in a row that the engine may ask for without time passing.
const WAKE_UPS_AT_ONCE_MAX: u32 = 4;
/// Actions that one event may cause: so many, and for each app, runner and request that exists as many more.
const ACTIONS_AT_ONCE_MAX: usize = 200;
const ACTIONS_AT_ONCE_EACH_MAX: usize = 64;

/// What is looked at for every request, close together.
#[derive(Clone, Copy, Debug)]
struct App {
    /// `max_concurrency`.
    runners_max: u32,
    /// `max_multiplexing`.
    places: u32,
    /// Runners that were started and whose end is not decided.
    alive: u32,
    /// Runners that were started and have not ended.
    present: u32,
    /// Runners that are kept without any load.
    floor: u32,
    removed: bool,
}

#[derive(Debug)]
pub(super) struct Facts {
    apps: Vec<App>,
    specs: Vec<AppSpec>,
    pub(super) requests: Requests,
    pub(super) roster: Roster,
    holdings: Holdings,
    shut_down: bool,
    /// Runners above the floors of their apps.
    above_floors: u32,
    wake_ups_at_once: u32,
}

fn ensure(holds: bool, rule: Rule) -> Verdict<()> {
    if holds { Ok(()) } else { Err(rule) }
}

impl Facts {
    pub(super) fn new(boot: u32, capacity: Capacity) -> Self {
        Self {
            apps: Vec::new(),
            specs: Vec::new(),
            requests: Requests::default(),
            roster: Roster::new(boot),
            holdings: Holdings::new(capacity),
            shut_down: false,
            above_floors: 0,
            wake_ups_at_once: 0,
        }
    }

    pub(super) fn app_changed(&mut self, app: u32, spec: AppSpec) {
        let scaling = &spec.scaling;
        let fresh = App {
            runners_max: scaling.max_concurrency.unwrap_or(u32::MAX),
            places: scaling.max_multiplexing.max(1),
            alive: 0,
            present: 0,
            floor: scaler::target(scaling, Load::default()).desired,
            removed: false,
        };
        let Some(known) = self.apps.get_mut(app as usize) else {
            self.apps.push(fresh);
            self.specs.push(spec);
            return;
        };
        *known = App { alive: known.alive, present: known.present, ..fresh };
        self.specs[app as usize] = spec;
        self.count_above_floors();
    }

    pub(super) fn revision(&self, app: u32) -> u32 {
        self.specs[app as usize].revision
    }

    pub(super) fn app_removed(&mut self, app: u32) {
        let app = &mut self.apps[app as usize];
        (app.removed, app.floor) = (true, 0);
        self.count_above_floors();
    }

    pub(super) fn capacity_changed(&mut self, capacity: Capacity) {
        self.holdings.resize(capacity);
    }

    pub(super) fn shut_down(&mut self) {
        self.shut_down = true;
        for app in &mut self.apps {
            app.floor = 0;
        }
        self.count_above_floors();
    }

    fn count_above_floors(&mut self) {
        self.above_floors = self.apps.iter().map(|app| app.present.saturating_sub(app.floor)).sum();
    }

    pub(super) fn setup_started(&mut self, place: u32) {
        if let Some(runner) = self.roster.get_mut(place) {
            runner.told.setup_started |= runner.told.is_alive();
        }
    }

    /// Returns whether it was news.
    pub(super) fn becomes_ready(&mut self, place: u32) -> bool {
        let Some(runner) = self.roster.get_mut(place) else { return false };
        let told = &mut runner.told;
        let is_news =
            told.setup_started && told.is_alive() && !told.ready && told.warmth == Warmth::Warm;
        told.ready |= is_news;
        is_news
    }

    /// A frozen runner counts for nothing.
    pub(super) fn freeze(&mut self, id: RunnerId) -> Verdict<u32> {
        let place = self.roster.find(id).ok_or("a runner was frozen that was never started")?;
        let runner = self.roster.get_mut(place).ok_or("a runner was frozen that is gone")?;
        let told = &mut runner.told;
        let rests = told.ready && told.is_alive() && told.in_flight == 0;
        ensure(rests, "a runner was frozen that does not rest")?;
        (told.ready, told.warmth) = (false, Warmth::Frozen);
        self.apps[told.app as usize].alive -= 1;
        Ok(place)
    }

    pub(super) fn thaw(&mut self, id: RunnerId) -> Verdict<u32> {
        let place = self.roster.find(id).ok_or("a runner was thawed that was never started")?;
        let runner = self.roster.get_mut(place).ok_or("a runner was thawed that is gone")?;
        let told = &mut runner.told;
        let is_frozen = told.warmth == Warmth::Frozen && told.end == End::No;
        ensure(is_frozen || told.exited, "a runner was thawed that is not frozen")?;
        let app = &mut self.apps[told.app as usize];
        ensure(app.alive < app.runners_max, "more runners were thawed than max_concurrency")?;
        told.warmth = Warmth::Thawing;
        app.alive += u32::from(told.is_alive());
        Ok(place)
    }

    pub(super) fn thawed(&mut self, id: RunnerId) {
        let place = self.roster.find(id);
        if let Some(runner) = place.and_then(|place| self.roster.get_mut(place))
            && runner.told.warmth == Warmth::Thawing
        {
            (runner.told.warmth, runner.told.ready) = (Warmth::Warm, true);
        }
    }

    /// Returns whether it was news.
    pub(super) fn exited(&mut self, place: u32) -> bool {
        let Some(runner) = self.roster.get_mut(place) else { return false };
        let told = &mut runner.told;
        if told.exited {
            return false;
        }
        let app = &mut self.apps[told.app as usize];
        app.alive -= u32::from(told.is_alive());
        self.above_floors -= u32::from(app.present > app.floor);
        app.present -= 1;
        told.exited = true;
        self.holdings.give_back(&self.roster.cold_mut(place).allocation);
        true
    }

    pub(super) fn start(
        &mut self,
        now: Timestamp,
        id: RunnerId,
        app: u32,
        allocation: &Allocation,
    ) -> Verdict<u32> {
        ensure(!self.shut_down, "a runner was started after shut-down")?;
        let facts = self.apps.get_mut(app as usize).ok_or("a runner was started for no app")?;
        ensure(!facts.removed, "a runner was started for a removed app")?;
        ensure(facts.alive < facts.runners_max, "more runners were started than max_concurrency")?;
        self.holdings.take(&self.specs[app as usize].machine_types, allocation)?;
        facts.alive += 1;
        facts.present += 1;
        self.above_floors += u32::from(facts.present > facts.floor);
        let told = Told::new(id, app);
        let place = self.roster.enter(told, now).ok_or("a runner was started twice")?;
        self.roster.cold_mut(place).allocation = allocation.clone();
        Ok(place)
    }

    /// The engine says that a runner gets no new requests, perhaps before it tells the runner to end.
    pub(super) fn noted(&mut self, decision: &Decision) {
        if let (What::Stopping { .. }, Some(id)) = (&decision.what, decision.runner) {
            self.set_end(id, End::Decided);
        }
    }

    fn set_end(&mut self, id: RunnerId, end: End) -> Option<u32> {
        let place = self.roster.find(id)?;
        let told = &mut self.roster.get_mut(place)?.told;
        self.apps[told.app as usize].alive -= u32::from(told.is_alive());
        if told.end == End::No || end != End::Decided {
            told.end = end;
        }
        Some(place)
    }

    pub(super) fn stop(&mut self, id: RunnerId, grace: Option<Duration>) -> Verdict<u32> {
        let place = self.roster.find(id).ok_or("a runner was stopped that was never started")?;
        let end = self.roster.get(place).map_or(End::No, |runner| runner.told.end);
        let told_before = matches!(end, End::Told | End::ToldAtOnce);
        ensure(grace.is_none() || !told_before, "a runner was told twice to end gracefully")?;
        let end = if grace.is_some() { End::Told } else { End::ToldAtOnce };
        self.set_end(id, end).ok_or("a runner was stopped that is gone")
    }

    /// Returns the request and the place of the runner.
    pub(super) fn assign(
        &mut self,
        now: Timestamp,
        lease: Lease,
        mode: Mode,
    ) -> Verdict<(u32, u32)> {
        let handle = self.requests.find(lease.request).ok_or("an unknown request was assigned")?;
        let place = self.roster.find(lease.runner).ok_or("assigned to an unknown runner")?;
        let request = self.requests.get_mut(handle);
        let runner = self.roster.get_mut(place).ok_or("assigned to an unknown runner")?;
        let told = &mut runner.told;
        match request.progress {
            Progress::Waiting => {}
            Progress::Delayed { until } => {
                ensure(until <= now, "tried again before its delay was over")?;
            }
            Progress::InFlight { .. } => return Err("a request was assigned twice"),
        }
        ensure(mode == request.mode, "a request changed its mode")?;
        ensure(now < request.start_deadline, "a request was started after its deadline")?;
        ensure(lease.attempt == request.attempts + 1, "attempts are not counted one by one")?;
        ensure(lease.attempt <= ATTEMPTS_MAX, "a request got too many attempts")?;
        ensure(told.app == request.app, "assigned to a runner of another app")?;
        ensure(told.ready, "assigned to a runner that is not ready")?;
        ensure(told.is_alive(), "assigned to a runner that is to end")?;
        let places = self.apps[told.app as usize].places;
        ensure(told.in_flight < places, "assigned above max_multiplexing")?;
        told.in_flight += 1;
        request.attempts += 1;
        request.progress = Progress::InFlight { runner: place };
        Ok((handle, place))
    }

    fn end_attempt(&mut self, lease: Lease) -> Verdict<(u32, u32)> {
        let place = self.roster.find(lease.runner).ok_or("an answer from an unknown runner")?;
        let handle = self
            .requests
            .find_leased(lease, place)
            .ok_or("a stale attempt was taken for an answer")?;
        if let Some(runner) = self.roster.get_mut(place) {
            runner.told.in_flight -= 1;
        }
        Ok((handle, place))
    }

    /// Returns the request, which is then to leave, and the place of the runner.
    pub(super) fn deliver(&mut self, lease: Lease) -> Verdict<(u32, u32)> {
        self.end_attempt(lease)
    }

    pub(super) fn retry(
        &mut self,
        now: Timestamp,
        lease: Lease,
        delay: Duration,
    ) -> Verdict<(u32, u32)> {
        let (handle, place) = self.end_attempt(lease)?;
        let request = self.requests.get_mut(handle);
        ensure(request.mode == Mode::Queued, "a direct request was tried again")?;
        ensure(request.attempts < ATTEMPTS_MAX, "a request got too many attempts")?;
        request.progress = Progress::Delayed { until: now + delay };
        Ok((handle, place))
    }

    pub(super) fn revoke(&mut self, lease: Lease) -> Verdict<u32> {
        let place = self.roster.find(lease.runner).ok_or("an attempt was revoked on no runner")?;
        self.requests.find_leased(lease, place).ok_or("an attempt was revoked that is over")
    }

    /// Returns the request, which is then to leave.
    pub(super) fn refuse(&mut self, id: RequestId, mode: Mode) -> Verdict<u32> {
        let handle = self.requests.find(id).ok_or("an unknown request was refused")?;
        let request = self.requests.get(handle);
        ensure(mode == request.mode, "a request changed its mode")?;
        let in_flight = matches!(request.progress, Progress::InFlight { .. });
        ensure(!in_flight, "a request in flight was refused")?;
        Ok(handle)
    }

    /// Runners that were never started have no record here.
    pub(super) fn forget(&mut self, id: RunnerId) -> Verdict<()> {
        let Some(place) = self.roster.find(id) else { return Ok(()) };
        if let Some(runner) = self.roster.get(place) {
            ensure(runner.told.exited, "a runner was dropped that still lives")?;
            ensure(runner.told.in_flight == 0, "a runner was dropped with requests")?;
        }
        self.roster.leave(place);
        Ok(())
    }

    /// Another event comes, or time passes.
    pub(super) fn goes_on(&mut self) {
        self.wake_ups_at_once = 0;
    }

    pub(super) fn woken(&mut self) -> Verdict<()> {
        self.wake_ups_at_once += 1;
        let calm = self.wake_ups_at_once <= WAKE_UPS_AT_ONCE_MAX;
        ensure(calm, "the engine wants to be woken again and again at the same moment")
    }

    pub(super) fn acted(&self, actions: usize) -> Verdict<()> {
        if actions <= ACTIONS_AT_ONCE_MAX {
            return Ok(());
        }
        let records = self.apps.len() + self.roster.len() + self.requests.open();
        let calm = actions <= ACTIONS_AT_ONCE_MAX + ACTIONS_AT_ONCE_EACH_MAX * records;
        ensure(calm, "one event caused too many actions")
    }

    /// No request is open, and only what floors keep lives.
    pub(super) fn only_floors_live(&self) -> bool {
        self.requests.open() == 0 && self.above_floors == 0
    }

    /// Some runners stay without any load.
    pub(super) fn keeps_floors(&self) -> bool {
        self.apps.iter().any(|app| app.floor > 0)
    }

    /// Nothing is to come any more, or only what floors keep: nothing else may be left. `records`: what the
    /// engine still knows of runners.
    pub(super) fn check_rest(&self, records: u32) -> Verdict<()> {
        ensure(self.above_floors == 0, "runners are left that nothing will end")?;
        let all_done = self.requests.open() == 0 && !self.keeps_floors();
        ensure(!all_done || records == 0, "the engine remembers runners that are gone")?;
        for request in self.requests.all() {
            let app = &self.apps[request.app as usize];
            let running = matches!(request.progress, Progress::InFlight { .. });
            ensure(!running, "a request is left in flight")?;
            let kept_in_queue = self.shut_down && request.mode == Mode::Queued;
            let wanted = &self.specs[request.app as usize].machine_types;
            let no_room = app.present == 0 && !self.holdings.have_room(wanted);
            ensure(kept_in_queue || no_room, "a request is left waiting")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
