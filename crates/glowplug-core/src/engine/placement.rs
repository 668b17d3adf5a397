//! Resources: who gets them, and who gives way.
//!
//! Pending runners are placed as soon as they fit, those that requests wait for first, oldest first. When
//! one that requests wait for does not fit, room is made:
//!
//! 1. IDLE runners of other apps above their floor end, cheapest to lose first: the time a restart takes
//!    weighed against how long nothing came for it.
//! 2. If nothing idle suffices and the requests have waited `contention_wait_max`, runners in use of other
//!    apps get no new requests and end after their last one. A runner that was just swapped in is spared
//!    until it has served what waited for it, or for `contention_wait_max` at most.
//!
//! A runner in use is never interrupted, and a floor (`min_concurrency`, `concurrency_buffer`) is never
//! broken, for either.

use std::time::Duration;

use super::Engine;
use super::state::{Runner, count};
use crate::action::Action;
use crate::backoff;
use crate::decision::{StopReason, What};
use crate::ids::{AppId, RunnerId};
use crate::resources::{Allocation, Ledger, MachineType, Shortage};
use crate::spec::AppSpec;
use crate::time::Timestamp;

/// Pending runners looked at in one pass when nothing fits them.
const MISSES_MAX: usize = 128;

/// A pending runner's place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// Nothing waits for it: it comes after all that something waits for.
    spare: bool,
    since: Timestamp,
    runner: RunnerId,
}

impl Claim {
    pub(super) fn of(id: RunnerId, runner: &Runner) -> Self {
        Self { spare: !runner.demanded, since: runner.created, runner: id }
    }
}

type Misfit = Vec<(String, Shortage)>;

impl Engine {
    /// Why none of the app's machine types could ever be placed here.
    pub(super) fn unschedulable(&self, spec: &AppSpec) -> Option<String> {
        let mut reasons = Vec::new();
        for machine in &spec.machine_types {
            match self.ledger.could_ever_fit(machine) {
                Ok(()) => return None,
                Err(shortage) => reasons.push(format!("{} {shortage}", machine.name)),
            }
        }
        Some(match reasons.as_slice() {
            [] => "it names no machine type".to_owned(),
            some => format!("even with nothing else running, {}", some.join("; ")),
        })
    }

    /// Places what fits and makes room for what does not.
    pub(super) fn place_pending(&mut self, now: Timestamp) {
        while std::mem::take(&mut self.placement_due) && !self.pending.is_empty() {
            let mut misfits: Vec<Claim> = Vec::new();
            let claims: Vec<Claim> = self.pending.iter().copied().collect();
            for claim in claims {
                if !self.pending.contains(&claim) {
                    continue;
                }
                let Some(machine_types) = self.machine_types_of(claim.runner) else { continue };
                match fit_any(&self.ledger, &machine_types) {
                    Ok(allocation) => self.place(now, claim.runner, allocation),
                    Err(shortages) => {
                        self.note_no_room(now, claim.runner, shortages);
                        misfits.push(claim);
                        // One that has starved keeps what becomes free from being taken piecemeal.
                        if misfits.len() >= MISSES_MAX || self.starves(now, &claim) {
                            break;
                        }
                    }
                }
            }
            self.make_room(now, &misfits);
        }
    }

    fn machine_types_of(&self, id: RunnerId) -> Option<Vec<MachineType>> {
        let app = self.runners.get(&id)?.app;
        Some(self.apps.get(&app)?.spec.machine_types.clone())
    }

    fn is_waited_for(&self, claim: &Claim) -> bool {
        self.runners
            .get(&claim.runner)
            .and_then(|runner| self.apps.get(&runner.app))
            .is_some_and(|app| !app.waiting.is_empty())
    }

    /// Moves runners that were wanted for floor or buffer to the front once requests wait for them.
    pub(super) fn promote(&mut self, now: Timestamp, id: AppId, demand: u32) {
        let Some(app) = self.apps.get(&id) else { return };
        if app.unplaced == 0 || app.waiting.is_empty() {
            return;
        }
        let counted = |id: &&RunnerId| {
            self.runners.get(id).is_some_and(|r| r.allocation.is_some() || r.demanded)
        };
        let served_for = count(app.ready.len() + app.starting.iter().filter(counted).count());
        let spare: Vec<RunnerId> = app
            .starting
            .iter()
            .filter(|id| !counted(id))
            .take(demand.saturating_sub(served_for) as usize)
            .copied()
            .collect();
        for id in spare {
            self.unindex(id);
            if let Some(runner) = self.runners.get_mut(&id) {
                runner.demanded = true;
            }
            self.index(now, id);
        }
    }

    fn starves(&self, now: Timestamp, claim: &Claim) -> bool {
        !claim.spare && claim.since + self.config.contention_wait_max <= now
    }

    fn place(&mut self, now: Timestamp, id: RunnerId, allocation: Allocation) {
        self.unindex(id);
        let Some(runner) = self.runners.get_mut(&id) else { return };
        self.ledger.take(&allocation);
        runner.allocation = Some(allocation.clone());
        runner.placed = Some(now);
        let (app, revision, cause, waited) =
            (runner.app, runner.revision, runner.cause, now - runner.created);
        self.index(now, id);
        let what = What::Placed {
            machine_type: allocation.machine_type.clone(),
            gpus: allocation.gpus.clone(),
            waited,
        };
        self.actions.push_back(Action::Start { runner: id, app, revision, allocation, cause });
        self.note(now, app, Some(id), None, what);
        // Its place in the line of unplaced runners is free for the next one that is missing.
        self.grow(now, app);
    }

    fn note_no_room(&mut self, now: Timestamp, id: RunnerId, shortages: Misfit) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let app = runner.app;
        if !std::mem::replace(&mut runner.told_no_room, true) {
            self.note(now, app, Some(id), None, What::NoRoom { shortages });
        }
        self.wake_app_at(app, now + backoff::NO_ROOM);
    }

    fn make_room(&mut self, now: Timestamp, misfits: &[Claim]) {
        let demanded: Vec<&Claim> =
            misfits.iter().filter(|claim| !claim.spare && self.is_waited_for(claim)).collect();
        if demanded.is_empty() {
            return;
        }
        // What will be free when all that is leaving has left.
        let mut forecast = self.ledger.clone();
        for id in &self.leaving {
            if let Some(allocation) = self.runners.get(id).and_then(|r| r.allocation.as_ref()) {
                forecast.give_back(allocation);
            }
        }
        for claim in demanded {
            let Some(machine_types) = self.machine_types_of(claim.runner) else { continue };
            let Some(app) = self.runners.get(&claim.runner).map(|runner| runner.app) else {
                continue;
            };
            if let Ok(coming) = fit_any(&forecast, &machine_types) {
                forecast.take(&coming);
                continue;
            }
            let starves = self.starves(now, claim);
            let victims = match self.pick(&forecast, &machine_types, self.idle_candidates(now, app))
            {
                Some(victims) => victims,
                None if starves => {
                    let mut candidates = self.idle_candidates(now, app);
                    candidates.extend(self.busy_candidates(now, app));
                    self.pick(&forecast, &machine_types, candidates).unwrap_or_default()
                }
                None => {
                    self.wake_app_at(app, claim.since + self.config.contention_wait_max);
                    continue;
                }
            };
            for victim in victims {
                self.give_way(now, victim, app, claim, &mut forecast);
            }
            if let Ok(coming) = fit_any(&forecast, &machine_types) {
                forecast.take(&coming);
            }
        }
    }

    fn give_way(
        &mut self,
        now: Timestamp,
        victim: RunnerId,
        for_app: AppId,
        claim: &Claim,
        forecast: &mut Ledger,
    ) {
        let by = self.apps.get(&for_app).map(|app| app.spec.name.clone()).unwrap_or_default();
        let Some(runner) = self.runners.get(&victim) else { return };
        if let Some(allocation) = &runner.allocation {
            forecast.give_back(allocation);
        }
        let (app, in_use) = (runner.app, !runner.in_flight.is_empty());
        if in_use {
            let what = What::SwappedOut { by: by.clone(), waited: now - claim.since };
            self.note(now, app, Some(victim), None, what);
            self.drain_softly(now, victim, StopReason::Evicted { by });
        } else {
            self.drain(now, victim, StopReason::Evicted { by });
        }
        // The app that lost a runner may want one again, in its turn.
        self.grow(now, app);
    }

    /// Idle runners of other apps above their floor, cheapest to lose first.
    fn idle_candidates(&self, now: Timestamp, for_app: AppId) -> Vec<RunnerId> {
        let mut candidates: Vec<(u128, RunnerId)> = self
            .idle
            .iter()
            .filter_map(|id| {
                let runner = self.runners.get(id)?;
                let app = self.apps.get(&runner.app)?;
                let above_floor = app.alive() > app.target_to_keep().desired;
                (runner.app != for_app && above_floor)
                    .then(|| (loss(app.restart_cost(), now - runner.last_used), *id))
            })
            .collect();
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, id)| id).collect()
    }

    /// Runners in use of other apps that have had their turn, longest served first.
    fn busy_candidates(&self, now: Timestamp, for_app: AppId) -> Vec<RunnerId> {
        let mut candidates: Vec<(Timestamp, RunnerId)> = Vec::new();
        for (app_id, app) in &self.apps {
            if *app_id == for_app || app.alive() <= app.floor() {
                continue;
            }
            for id in &app.ready {
                let Some(runner) = self.runners.get(id) else { continue };
                let Some(ready) = runner.ready.filter(|_| !runner.in_flight.is_empty()) else {
                    continue;
                };
                let had_its_turn =
                    runner.batch_left == 0 || ready + self.config.contention_wait_max <= now;
                if had_its_turn {
                    candidates.push((ready, *id));
                }
            }
        }
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, id)| id).collect()
    }

    /// The fewest of the candidates, taken from the front, whose going makes room for one of the machine
    /// types. `None`: all of them together do not.
    fn pick(
        &self,
        forecast: &Ledger,
        machine_types: &[MachineType],
        candidates: Vec<RunnerId>,
    ) -> Option<Vec<RunnerId>> {
        machine_types.iter().find_map(|machine| self.pick_for(forecast, machine, &candidates))
    }

    fn pick_for(
        &self,
        forecast: &Ledger,
        machine: &MachineType,
        candidates: &[RunnerId],
    ) -> Option<Vec<RunnerId>> {
        let mut ledger = forecast.clone();
        let mut victims: Vec<RunnerId> = Vec::new();
        let mut spare = std::collections::BTreeMap::<AppId, u32>::new();
        for id in candidates {
            let runner = self.runners.get(id)?;
            let app = self.apps.get(&runner.app)?;
            let left = spare.entry(runner.app).or_insert_with(|| {
                let keep = if runner.in_flight.is_empty() {
                    app.target_to_keep().desired
                } else {
                    app.floor()
                };
                app.alive().saturating_sub(keep)
            });
            if *left == 0 {
                continue;
            }
            *left -= 1;
            if let Some(allocation) = &runner.allocation {
                ledger.give_back(allocation);
            }
            victims.push(*id);
            if ledger.fit(machine).is_ok() {
                return Some(self.spare_needless(ledger, machine, victims));
            }
        }
        None
    }

    /// Lets go of victims that turn out not to be needed, dearest first.
    fn spare_needless(
        &self,
        mut ledger: Ledger,
        machine: &MachineType,
        mut victims: Vec<RunnerId>,
    ) -> Vec<RunnerId> {
        for at in (0..victims.len()).rev() {
            let Some(allocation) =
                self.runners.get(&victims[at]).and_then(|runner| runner.allocation.clone())
            else {
                continue;
            };
            ledger.take(&allocation);
            if ledger.fit(machine).is_ok() {
                victims.remove(at);
            } else {
                ledger.give_back(&allocation);
            }
        }
        victims
    }
}

/// What losing a runner costs: its restart time, discounted by how long nothing came for it.
fn loss(restart: Duration, idle: Duration) -> u128 {
    restart.as_micros().saturating_mul(1_000_000) / (idle.as_micros() + 1_000)
}

/// The first machine type that fits, or what each of them lacks.
fn fit_any(ledger: &Ledger, machine_types: &[MachineType]) -> Result<Allocation, Misfit> {
    let mut shortages = Vec::new();
    for machine in machine_types {
        match ledger.fit(machine) {
            Ok(allocation) => return Ok(allocation),
            Err(shortage) => shortages.push((machine.name.clone(), shortage)),
        }
    }
    Err(shortages)
}
