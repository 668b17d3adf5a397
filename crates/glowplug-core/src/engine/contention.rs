//! Who gives way when resources do not suffice. Only for runners that requests wait for:
//!
//! 1. IDLE runners of other apps that nothing asks for end, cheapest to lose first: the time a restart
//!    takes weighed against how long nothing came for it.
//! 2. If these do not suffice and the request's runner has waited `contention_wait_max`, runners in use of
//!    other apps get no new requests and end after their last one, longest ready first. A runner is spared
//!    until it has served what waited for it when it became ready, or for `contention_wait_max` at most.
//! 3. Until enough of them have had their turn, what is free of what the waiting runner needs is kept for
//!    it, so that others cannot take it piecemeal for ever.
//!
//! A runner in use is never interrupted, and a floor (`min_concurrency`, `concurrency_buffer`) is never
//! broken. What was freed for one runner goes to no other.
//!
//! So a runner that could be placed if the other apps had only their floors waits at most
//! `contention_wait_max`, then for the slowest of the others: its start, `contention_wait_max`, its
//! requests in flight, its end. If others have waited longer, it waits for their turns first.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::placement::{Claim, Rank, fit_any};
use super::state::{App, Runner};
use crate::decision::{StopReason, What};
use crate::ids::{AppId, RunnerId};
use crate::resources::{Ledger, MachineType};
use crate::time::Timestamp;

/// What may be taken from other apps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Idle runners that nothing asks for.
    Unneeded,
    /// Also runners in use that have had their turn, down to the floors.
    HadTheirTurn,
    /// All above the floors: what will have had its turn some day.
    SomeDay,
}

impl Reach {
    /// How many placed runners the app keeps.
    fn keep(self, app: &App) -> u32 {
        match self {
            Self::Unneeded => app.target_to_keep().desired,
            Self::HadTheirTurn | Self::SomeDay => app.floor(),
        }
    }
}

impl Engine {
    /// Sees to it that room comes for a pending runner and takes it off the forecast. Returns whether any
    /// will come.
    pub(super) fn find_room(
        &mut self,
        now: Timestamp,
        claim: &Claim,
        forecast: &mut Ledger,
    ) -> bool {
        let Some(app_id) = self.runners.get(&claim.runner).map(|runner| runner.app) else {
            return false;
        };
        let Some(app) = self.apps.get(&app_id) else { return false };
        if claim.rank == Rank::Spare || app.waiting.is_empty() {
            return false;
        }
        let machine_types = app.spec.machine_types.clone();
        if let Some(coming) = fit_any(forecast, forecast, &machine_types) {
            forecast.take(&coming);
            return true;
        }
        let starves_at = claim.since + self.config.contention_wait_max;
        let mut victims = self.pick(now, app_id, forecast, &machine_types, Reach::Unneeded);
        if victims.is_none() {
            if starves_at > now {
                self.wake_app_at(app_id, starves_at);
                return false;
            }
            victims = self.pick(now, app_id, forecast, &machine_types, Reach::HadTheirTurn);
        }
        let Some(victims) = victims else {
            return self.keep_what_is_free(now, app_id, forecast, &machine_types);
        };
        for victim in victims {
            self.give_way(now, victim, app_id, claim, forecast);
        }
        if let Some(coming) = fit_any(forecast, forecast, &machine_types) {
            forecast.take(&coming);
        }
        self.move_up(now, claim.runner, |runner| runner.room_made = true);
        true
    }

    /// Keeps what is free of a machine type that will fit when all others have had their turn.
    fn keep_what_is_free(
        &mut self,
        now: Timestamp,
        for_app: AppId,
        forecast: &mut Ledger,
        machine_types: &[MachineType],
    ) -> bool {
        let candidates = self.candidates(now, for_app, Reach::SomeDay);
        let comes = machine_types.iter().find(|machine| {
            self.pick_for(forecast, machine, &candidates, Reach::SomeDay).is_some()
        });
        let Some(machine) = comes else { return false };
        let part = forecast.part(machine);
        forecast.take(&part);
        // The next one whose turn will be over.
        let turn = self.config.contention_wait_max;
        let next = candidates
            .iter()
            .filter_map(|id| self.runners.get(id)?.ready)
            .map(|ready| ready + turn)
            .filter(|over| *over > now)
            .min();
        if let Some(at) = next {
            self.wake_app_at(for_app, at);
        }
        true
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

    /// The fewest runners of other apps whose going makes room for one of the machine types.
    fn pick(
        &self,
        now: Timestamp,
        for_app: AppId,
        forecast: &Ledger,
        machine_types: &[MachineType],
        reach: Reach,
    ) -> Option<Vec<RunnerId>> {
        let candidates = self.candidates(now, for_app, reach);
        machine_types
            .iter()
            .find_map(|machine| self.pick_for(forecast, machine, &candidates, reach))
    }

    /// Runners of other apps within reach: idle ones first, cheapest to lose first; then those in use,
    /// longest ready first; then those that start.
    fn candidates(&self, now: Timestamp, for_app: AppId, reach: Reach) -> Vec<RunnerId> {
        let ids: Box<dyn Iterator<Item = &RunnerId>> = match reach {
            Reach::Unneeded => Box::new(self.idle.iter()),
            Reach::HadTheirTurn | Reach::SomeDay => Box::new(self.runners.keys()),
        };
        let mut candidates: Vec<(u8, u128, RunnerId)> = Vec::new();
        for id in ids {
            let Some(runner) = self.runners.get(id).filter(|runner| runner.app != for_app) else {
                continue;
            };
            let Some(app) = self.apps.get(&runner.app) else { continue };
            if app.placed() > reach.keep(app)
                && let Some((kind, cost)) = self.cost(now, app, runner, reach)
            {
                candidates.push((kind, cost, *id));
            }
        }
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, id)| id).collect()
    }

    /// What it costs to take this runner; `None`: it is out of reach.
    fn cost(&self, now: Timestamp, app: &App, runner: &Runner, reach: Reach) -> Option<(u8, u128)> {
        let placed_and_stays = runner.state.is_alive() && runner.allocation.is_some();
        match runner.ready.filter(|_| placed_and_stays) {
            Some(_) if runner.in_flight.is_empty() => {
                Some((0, loss(app.restart_cost(), now - runner.last_used)))
            }
            Some(ready) => {
                let turn_over = ready + self.config.contention_wait_max <= now;
                let had_its_turn = runner.batch_left == 0 || turn_over;
                (had_its_turn || reach == Reach::SomeDay)
                    .then_some((1, u128::from(ready.as_micros())))
            }
            None => (placed_and_stays && reach == Reach::SomeDay).then_some((2, 0)),
        }
    }

    /// The fewest of the candidates, taken from the front, whose going makes room for the machine type.
    /// `None`: all of them together do not.
    fn pick_for(
        &self,
        forecast: &Ledger,
        machine: &MachineType,
        candidates: &[RunnerId],
        reach: Reach,
    ) -> Option<Vec<RunnerId>> {
        let mut ledger = forecast.clone();
        let mut victims: Vec<RunnerId> = Vec::new();
        let mut spare = BTreeMap::<AppId, u32>::new();
        for id in candidates {
            let runner = self.runners.get(id)?;
            let app = self.apps.get(&runner.app)?;
            let left = spare
                .entry(runner.app)
                .or_insert_with(|| app.placed().saturating_sub(reach.keep(app)));
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
