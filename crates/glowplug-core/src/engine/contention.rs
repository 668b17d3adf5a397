//! Who gives way when resources do not suffice. Only for runners that requests wait for:
//!
//! 0. Captures and frozen runners end, of any app, also for runners that nobody waits for yet: captures first,
//!    then what was used longest ago.
//! 1. IDLE runners of other apps that nothing asks for end, cheapest to lose first: the time a restart
//!    takes weighed against how long nothing came for it.
//! 2. If these do not suffice and the request's runner has waited `contention_wait_max`, runners in use of
//!    other apps get no new requests and end after their last one, longest ready first. A runner is spared
//!    until it has served what waited for it when it became ready, or for `contention_wait_max` at most.
//! 3. Until enough of them have had their turn, their places and what is free of what the waiting runner
//!    needs are kept for it, so that others further back cannot take it piecemeal for ever.
//!
//! A runner in use is never interrupted, and a floor (`min_concurrency`, `concurrency_buffer`) is never
//! broken. What was freed for one runner goes to no other.
//!
//! So the first runner of an app that would fit beside the floors of all others waits at most
//! `contention_wait_max`, then for the slowest of the others: its start, `contention_wait_max`, its
//! requests in flight, its end. Each app that has waited longer has one such turn before it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::placement::{Outlook, Rank, Turn, fit_any};
use super::state::{App, Runner};
use crate::decision::{StopReason, What};
use crate::ids::{AppId, RunnerId};
use crate::resources::{Allocation, Ledger, MachineType};
use crate::time::Timestamp;

/// What may be taken from other apps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// What counts for nothing.
    Aside,
    /// Idle runners that nothing asks for.
    Unneeded,
    /// Also runners in use that have had their turn, down to the floors.
    HadTheirTurn,
    /// All above the floors: what will have had its turn some day.
    SomeDay,
}

impl Reach {
    /// How many placed runners the app keeps.
    fn keep(self, now: Timestamp, app: &App) -> u32 {
        match self {
            Self::Aside | Self::Unneeded => app.target_to_keep(now).desired,
            Self::HadTheirTurn | Self::SomeDay => app.floor(),
        }
    }
}

impl Engine {
    /// Sees to it that room comes for a pending runner and takes it off the outlook. Returns whether it
    /// is on its way; if not, at most what is free now is kept.
    pub(super) fn find_room(&mut self, now: Timestamp, turn: &Turn, outlook: &mut Outlook) -> bool {
        let Some(app) = self.apps.get(&turn.app) else { return false };
        let is_spare = turn.rank == Rank::Spare || app.waiting.is_empty();
        if is_spare && self.aside.is_empty() {
            return false;
        }
        let machine_types = app.spec.machine_types.clone();
        if is_spare {
            // It keeps no room from those that are waited for.
            if fit_any(&outlook.forecast, &outlook.forecast, &machine_types).is_some() {
                return false;
            }
        } else if outlook.reserve(turn.app, &machine_types) {
            return true;
        }
        if let Some(victims) = self.pick(now, turn.app, outlook, &machine_types, Reach::Aside) {
            return self.make_room(now, turn, outlook, &machine_types, victims);
        }
        if is_spare {
            return false;
        }
        let starves_at = turn.since + self.config.contention_wait_max;
        let mut victims = self.pick(now, turn.app, outlook, &machine_types, Reach::Unneeded);
        if victims.is_none() {
            if starves_at > now {
                self.wake_app_at(turn.app, starves_at);
                return false;
            }
            victims = self.pick(now, turn.app, outlook, &machine_types, Reach::HadTheirTurn);
        }
        let Some(victims) = victims else {
            self.speak_for(now, turn.app, outlook, &machine_types);
            return false;
        };
        self.make_room(now, turn, outlook, &machine_types, victims)
    }

    fn make_room(
        &mut self,
        now: Timestamp,
        turn: &Turn,
        outlook: &mut Outlook,
        machine_types: &[MachineType],
        victims: Vec<RunnerId>,
    ) -> bool {
        for victim in victims {
            if let Some(allocation) = self.runners.get(&victim).and_then(|r| r.allocation.as_ref())
            {
                outlook.forecast.give_back(allocation);
            }
            self.give_way(now, victim, turn);
        }
        self.move_up(now, turn.runner, |runner| runner.room_made = true);
        outlook.reserve(turn.app, machine_types)
    }

    /// If room will come when others have had their turn: keeps their places from those further back,
    /// and what is free of it too.
    fn speak_for(
        &mut self,
        now: Timestamp,
        for_app: AppId,
        outlook: &mut Outlook,
        machine_types: &[MachineType],
    ) {
        let reach = Reach::SomeDay;
        let candidates = self.candidates(now, for_app, outlook, reach);
        let mut some_day = outlook.forecast.clone();
        for allocation in self.promised_above_floors(for_app, outlook) {
            some_day.give_back(allocation);
        }
        let comes = machine_types.iter().find_map(|machine| {
            let victims = match some_day.fit(machine) {
                Ok(_) => Vec::new(),
                Err(_) => self.pick_for(now, &some_day, machine, &candidates, reach)?,
            };
            Some((machine, victims))
        });
        let Some((machine, victims)) = comes else { return };
        let part = outlook.forecast.part(machine);
        outlook.forecast.take(&part);
        let next_turn_over = victims
            .iter()
            .filter_map(|id| self.runners.get(id)?.ready)
            .map(|ready| ready + self.config.contention_wait_max)
            .filter(|over| *over > now)
            .min();
        if let Some(at) = next_turn_over {
            self.wake_app_at(for_app, at);
        }
        outlook.spoken_for.extend(victims);
        outlook.speakers.insert(for_app);
    }

    /// Of what is promised to others ahead: what will have to be given away again.
    fn promised_above_floors<'a>(
        &self,
        for_app: AppId,
        outlook: &'a Outlook,
    ) -> Vec<&'a Allocation> {
        let mut held = BTreeMap::<AppId, u32>::new();
        let above_floor = |(id, _): &&(AppId, Allocation)| {
            let Some(app) = self.apps.get(id).filter(|_| *id != for_app) else { return false };
            let held = held.entry(*id).or_insert_with(|| app.placed());
            *held += 1;
            *held > app.floor()
        };
        outlook.promised.iter().filter(above_floor).map(|(_, allocation)| allocation).collect()
    }

    fn give_way(&mut self, now: Timestamp, victim: RunnerId, turn: &Turn) {
        let by = self.apps.get(&turn.app).map(|app| app.spec.name.clone()).unwrap_or_default();
        let Some(runner) = self.runners.get(&victim) else { return };
        let (app, in_use) = (runner.app, !runner.in_flight.is_empty());
        if runner.is_capture() {
            // Whatever is at work on it, a snapshot can be taken another time.
            self.kill(now, victim, StopReason::Evicted { by });
        } else if in_use {
            let what = What::SwappedOut { by: by.clone(), waited: now - turn.since };
            self.note(now, app, Some(victim), None, what);
            self.drain_softly(now, victim, StopReason::Evicted { by });
            if let Some(app) = self.apps.get_mut(&app) {
                app.turn_at = now;
            }
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
        outlook: &Outlook,
        machine_types: &[MachineType],
        reach: Reach,
    ) -> Option<Vec<RunnerId>> {
        let candidates = self.candidates(now, for_app, outlook, reach);
        machine_types
            .iter()
            .find_map(|machine| self.pick_for(now, &outlook.forecast, machine, &candidates, reach))
    }

    /// Runners of other apps within reach: idle ones first, cheapest to lose first; then those in use,
    /// longest ready first; then those that start.
    fn candidates(
        &self,
        now: Timestamp,
        for_app: AppId,
        outlook: &Outlook,
        reach: Reach,
    ) -> Vec<RunnerId> {
        let runners: Box<dyn Iterator<Item = (RunnerId, &Runner)>> = match reach {
            Reach::Aside => Box::new(std::iter::empty()),
            Reach::Unneeded => {
                Box::new(self.idle.iter().filter_map(|id| Some((*id, self.runners.get(id)?))))
            }
            Reach::HadTheirTurn | Reach::SomeDay => Box::new(self.runners.iter()),
        };
        let aside = self.aside.iter().filter_map(|id| Some((*id, self.runners.get(id)?)));
        let cost_aside = |(id, runner): (RunnerId, &Runner)| {
            let used = u128::from(runner.last_used.as_micros());
            (u8::from(!runner.is_capture()), used, id)
        };
        let aside = aside.filter(|(id, _)| !outlook.spoken_for.contains(id));
        let mut candidates: Vec<(u8, u128, RunnerId)> = aside.map(cost_aside).collect();
        let others = runners.filter(|(_, runner)| runner.app != for_app && !runner.is_aside());
        for (id, runner) in others {
            let Some(app) = self.apps.get(&runner.app) else { continue };
            if !outlook.spoken_for.contains(&id)
                && app.placed() > reach.keep(now, app)
                && let Some((kind, cost)) = self.cost(now, app, runner, reach)
            {
                candidates.push((kind, cost, id));
            }
        }
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, id)| id).collect()
    }

    /// What it costs to take this runner; `None`: it is out of reach.
    fn cost(&self, now: Timestamp, app: &App, runner: &Runner, reach: Reach) -> Option<(u8, u128)> {
        let placed_and_stays = runner.state.is_alive() && runner.allocation.is_some();
        let is_ready = placed_and_stays && runner.state.is_ready();
        match runner.ready.filter(|_| is_ready) {
            Some(_) if runner.in_flight.is_empty() => {
                Some((2, loss(app.restart_cost(), now - runner.last_used)))
            }
            Some(ready) => {
                let turn_over = ready + self.config.contention_wait_max <= now;
                let had_its_turn = runner.batch_left == 0 || turn_over;
                (had_its_turn || reach == Reach::SomeDay)
                    .then_some((3, u128::from(ready.as_micros())))
            }
            None => (placed_and_stays && reach == Reach::SomeDay).then_some((4, 0)),
        }
    }

    /// The fewest of the candidates, taken from the front, whose going makes room for the machine type.
    /// `None`: all of them together do not.
    fn pick_for(
        &self,
        now: Timestamp,
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
            if !runner.is_aside() {
                let left = spare
                    .entry(runner.app)
                    .or_insert_with(|| app.placed().saturating_sub(reach.keep(now, app)));
                if *left == 0 {
                    continue;
                }
                *left -= 1;
            }
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

impl Outlook {
    /// Keeps room for one runner, if there will be.
    fn reserve(&mut self, app: AppId, machine_types: &[MachineType]) -> bool {
        let Some(coming) = fit_any(&self.forecast, &self.forecast, machine_types) else {
            return false;
        };
        self.forecast.take(&coming);
        self.promised.push((app, coming));
        true
    }
}

/// What losing a runner costs: its restart time, discounted by how long nothing came for it.
fn loss(restart: Duration, idle: Duration) -> u128 {
    restart.as_micros().saturating_mul(1_000_000) / (idle.as_micros() + 1_000)
}
