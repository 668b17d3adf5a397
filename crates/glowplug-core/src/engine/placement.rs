//! Resources: who gets them.
//!
//! Pending runners are placed as soon as they fit: first those that others were ended for, then those
//! that requests wait for, then spare ones. Among these the app comes first that has waited longest since
//! it last got something, so that one with many starts does not take everything. What one that does not
//! fit needs and will get (see `contention.rs`) is kept for it; those behind it get what is left.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::state::{Runner, count};
use crate::action::Action;
use crate::decision::What;
use crate::ids::{AppId, RunnerId};
use crate::resources::{Allocation, Ledger, MachineType};
use crate::spec::AppSpec;
use crate::time::Timestamp;

/// A pending runner's place in line within its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    rank: Rank,
    since: Timestamp,
    runner: RunnerId,
}

/// A pending runner's place in line among all apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub rank: Rank,
    /// How long it waits, counted from the app's last turn: one that just got something comes after one
    /// that has waited less long but got nothing.
    pub since: Timestamp,
    pub app: AppId,
    pub runner: RunnerId,
}

/// What those further back in line may count on.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// What will be free when all that leaves has left, less what is kept for those ahead.
    pub forecast: Ledger,
    /// Of that: what will be held by runners of these apps.
    pub promised: Vec<(AppId, Allocation)>,
    /// Pending runners, by app, that wait for what is promised to them.
    pub seen_to: BTreeMap<AppId, usize>,
    /// Runners whose place somebody ahead waits for, and who that is.
    pub spoken_for: BTreeSet<RunnerId>,
    pub speakers: BTreeSet<AppId>,
}

impl Outlook {
    pub(super) fn keeps_for(&self, app: AppId) -> bool {
        self.seen_to.contains_key(&app) || self.speakers.contains(&app)
    }
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
        loop {
            if std::mem::take(&mut self.placement_due) {
                self.outlook = None;
                self.newcomers.clone_from(&self.pending);
            }
            if self.newcomers.is_empty() {
                return;
            }
            let apps = std::mem::take(&mut self.newcomers);
            self.place_in_order(now, &apps);
        }
    }

    /// Looks at the pending runners of some apps. If they are not all that there are, the others had their
    /// look before, and what was kept for them still is.
    fn place_in_order(&mut self, now: Timestamp, apps: &BTreeSet<AppId>) {
        let mut outlook = self.outlook.take();
        let next = |engine: &Self, outlook: &Option<Outlook>, app: AppId| match outlook {
            None => engine.turn(now, app, 0),
            // It has what can be had.
            Some(outlook) if outlook.speakers.contains(&app) => None,
            Some(outlook) => engine.turn(now, app, outlook.seen_to.get(&app).copied().unwrap_or(0)),
        };
        let mut line: BTreeSet<Turn> =
            apps.iter().filter_map(|app| next(self, &outlook, *app)).collect();
        while let Some(turn) = line.pop_first() {
            let Some(app) = self.apps.get(&turn.app) else { continue };
            let unkept = outlook.as_ref().map_or(&self.ledger, |outlook| &outlook.forecast);
            if let Some(allocation) = fit_any(&self.ledger, unkept, &app.spec.machine_types) {
                if let Some(outlook) = &mut outlook {
                    outlook.forecast.take(&allocation);
                }
                self.place(now, turn.runner, allocation);
            } else {
                self.note_no_room(now, turn.runner);
                let mut rest = outlook.take().unwrap_or_else(|| self.outlook_from_now());
                let comes = self.find_room(now, &turn, &mut rest);
                if comes {
                    *rest.seen_to.entry(turn.app).or_default() += 1;
                }
                outlook = Some(rest);
                if !comes {
                    // All runners of an app want the same: the others get nothing either.
                    continue;
                }
            }
            line.extend(next(self, &outlook, turn.app));
        }
        self.outlook = outlook;
    }

    /// The app's next pending runner, after some that are seen to, in its place among those of all apps.
    fn turn(&self, now: Timestamp, id: AppId, seen_to: usize) -> Option<Turn> {
        let app = self.apps.get(&id)?;
        let claim = app.pending.iter().nth(seen_to)?;
        // Room that comes is a turn, too.
        let since = if seen_to > 0 { now } else { claim.since.max(app.turn_at) };
        Some(Turn { rank: claim.rank, since, app: id, runner: claim.runner })
    }

    fn outlook_from_now(&self) -> Outlook {
        let mut forecast = self.ledger.clone();
        for id in &self.leaving {
            if let Some(allocation) = self.runners.get(id).and_then(|r| r.allocation.as_ref()) {
                forecast.give_back(allocation);
            }
        }
        Outlook { forecast, ..Outlook::default() }
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
            (runner.app, runner.revision, runner.cause, now - runner.pending);
        self.index(now, id);
        if let Some(app) = self.apps.get_mut(&app) {
            app.turn_at = now;
        }
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
