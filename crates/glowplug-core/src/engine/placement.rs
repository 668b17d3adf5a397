//! Resources: who gets them.
//!
//! Pending runners are placed as soon as they fit: first those that others were ended for, then those
//! that requests wait for, then spare ones, each oldest first. What one that does not fit needs and will
//! get (see `contention.rs`) is kept for it; those behind it get what is left.

use std::collections::BTreeSet;

use super::Engine;
use super::state::{Runner, count};
use crate::action::Action;
use crate::backoff;
use crate::decision::What;
use crate::ids::{AppId, RunnerId};
use crate::resources::{Allocation, Ledger, MachineType};
use crate::spec::AppSpec;
use crate::time::Timestamp;

/// A pending runner's place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub rank: Rank,
    pub since: Timestamp,
    pub runner: RunnerId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Others were ended for it.
    RoomMade,
    /// A request waits for it.
    Demanded,
    /// Only a floor, a buffer or a person asked for it.
    Spare,
}

impl Claim {
    pub(super) fn of(id: RunnerId, runner: &Runner) -> Self {
        let rank = match (runner.room_made, runner.demanded) {
            (true, _) => Rank::RoomMade,
            (false, true) => Rank::Demanded,
            (false, false) => Rank::Spare,
        };
        Self { rank, since: runner.created, runner: id }
    }
}

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
            self.place_in_order(now);
        }
    }

    fn place_in_order(&mut self, now: Timestamp) {
        // What will be free when all that leaves has left, less what is kept for those ahead.
        let mut forecast: Option<Ledger> = None;
        // All runners of an app want the same: if one can get nothing, neither can the others.
        let mut hopeless: BTreeSet<AppId> = BTreeSet::new();
        let claims: Vec<Claim> = self.pending.iter().copied().collect();
        for claim in claims {
            if !self.pending.contains(&claim) {
                continue;
            }
            let Some(app_id) = self.runners.get(&claim.runner).map(|runner| runner.app) else {
                continue;
            };
            let Some(app) = self.apps.get(&app_id).filter(|_| !hopeless.contains(&app_id)) else {
                continue;
            };
            let unkept = forecast.as_ref().unwrap_or(&self.ledger);
            if let Some(allocation) = fit_any(&self.ledger, unkept, &app.spec.machine_types) {
                if let Some(forecast) = &mut forecast {
                    forecast.take(&allocation);
                }
                self.place(now, claim.runner, allocation);
                continue;
            }
            self.note_no_room(now, claim.runner);
            let mut left = forecast.take().unwrap_or_else(|| self.forecast());
            if !self.find_room(now, &claim, &mut left) {
                hopeless.insert(app_id);
            }
            forecast = Some(left);
        }
    }

    /// What will be free when all that is leaving has left.
    fn forecast(&self) -> Ledger {
        let mut forecast = self.ledger.clone();
        for id in &self.leaving {
            if let Some(allocation) = self.runners.get(id).and_then(|r| r.allocation.as_ref()) {
                forecast.give_back(allocation);
            }
        }
        forecast
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
            self.move_up(now, id, |runner| runner.demanded = true);
        }
    }

    /// Changes what a pending runner's place in line depends on.
    pub(super) fn move_up(&mut self, now: Timestamp, id: RunnerId, change: impl Fn(&mut Runner)) {
        self.unindex(id);
        if let Some(runner) = self.runners.get_mut(&id) {
            change(runner);
        }
        self.index(now, id);
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

    fn note_no_room(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        let app_id = runner.app;
        if !std::mem::replace(&mut runner.told_no_room, true)
            && let Some(app) = self.apps.get(&app_id)
        {
            let shortages = app
                .spec
                .machine_types
                .iter()
                .filter_map(|machine| Some((machine.name.clone(), self.ledger.fit(machine).err()?)))
                .collect();
            self.note(now, app_id, Some(id), None, What::NoRoom { shortages });
        }
        self.wake_app_at(app_id, now + backoff::NO_ROOM);
    }
}

/// The first machine type that fits into what is free in both ledgers.
pub(super) fn fit_any(
    ledger: &Ledger,
    other: &Ledger,
    machine_types: &[MachineType],
) -> Option<Allocation> {
    machine_types.iter().find_map(|machine| ledger.fit_in_both(other, machine).ok())
}
