//! Which zygotes there are, what they are for, and which goes when the memory is short. Does nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use glowplug_core::{AppId, Rung, RunnerId, Timestamp};

use super::wish::Wish;

/// An app whose zygote had to go for want of memory gets none for this long: making one costs a start's work.
/// So does one whose zygotes are of no use; each time that they are again, twice as long, up to the other.
const PAUSE: Duration = Duration::from_mins(10);
const PAUSE_MAX: Duration = Duration::from_hours(24);
/// One miss may be bad luck. An app whose starts miss their zygote this often in a row gets none for a while.
const MISSES_MAX: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    zygotes: BTreeMap<RunnerId, Zygote>,
    /// Runners of which a zygote is to be made once they are ready.
    wishes: HashMap<RunnerId, Wish>,
    /// Runners that were asked of a zygote, and are not known to have started otherwise.
    users: HashMap<RunnerId, RunnerId>,
    refusals: HashMap<AppId, Refusal>,
    /// What went wrong with an app's zygotes since one of their runners last became ready.
    troubles: HashMap<AppId, Trouble>,
    /// The node ends: no more are made.
    is_closed: bool,
}

/// Of the zygotes for one key.
#[derive(Debug, Default)]
struct Trouble {
    key: String,
    /// In a row: starts that were not forked, and zygotes that have died.
    misses: u32,
    /// Pauses that this has led to.
    pauses: u32,
}

#[derive(Debug)]
struct Zygote {
    app: AppId,
    key: String,
    stage: Stage,
    last_used: Timestamp,
    memory_bytes: u64,
    starts: u64,
    /// A runner that it has forked has become ready.
    is_proven: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Making,
    Ready {
        socket: PathBuf,
    },
    /// It forks no more, and ends when its last runner has ended.
    Retiring,
}

/// Why an app has none.
#[derive(Debug)]
struct Refusal {
    key: String,
    reason: String,
    until: Option<Timestamp>,
}

/// How a runner starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Fork {
        zygote: RunnerId,
        socket: PathBuf,
    },
    /// Plainly, and it is seen what it imports.
    Learn,
    Plainly,
}

impl Shelf {
    /// How the runner starts, and which zygotes of its app are of no use any more.
    pub(super) fn choose(
        &mut self,
        runner: RunnerId,
        wish: Wish,
        now: Timestamp,
    ) -> (Choice, Vec<RunnerId>) {
        let outdated = self.of_app(wish.app).filter(|(_, zygote)| zygote.key != wish.key);
        let outdated: Vec<RunnerId> = outdated.map(|(id, _)| id).collect();
        let current = self.zygotes.iter_mut().find(|(_, zygote)| {
            zygote.app == wish.app && zygote.key == wish.key && zygote.stage != Stage::Retiring
        });
        if let Some((id, zygote)) = current {
            let Stage::Ready { socket } = &zygote.stage else {
                return (Choice::Plainly, outdated);
            };
            zygote.last_used = now;
            zygote.starts += 1;
            self.users.insert(runner, *id);
            return (Choice::Fork { zygote: *id, socket: socket.clone() }, outdated);
        }
        if self.refuses(wish.app, &wish.key, now) {
            return (Choice::Plainly, outdated);
        }
        self.wishes.insert(runner, wish);
        (Choice::Learn, outdated)
    }

    fn refuses(&self, app: AppId, key: &str, now: Timestamp) -> bool {
        self.refusals.get(&app).is_some_and(|refusal| {
            refusal.key == key && refusal.until.is_none_or(|until| now < until)
        })
    }

    /// A runner has become ready. If its start was to be learned from: the wish, unless there is a zygote already.
    pub(super) fn take_wish(&mut self, runner: RunnerId) -> Option<Wish> {
        let of_runner = self.users.get(&runner);
        if let Some(zygote) = of_runner.and_then(|id| self.zygotes.get_mut(id)) {
            zygote.is_proven = true;
            self.troubles.remove(&zygote.app);
        }
        let wish = self.wishes.remove(&runner)?;
        let is_there = self.of_app(wish.app).any(|(_, zygote)| zygote.key == wish.key);
        (!is_there).then_some(wish)
    }

    /// Whether one is to be made now: others may have been made since it was wished for.
    pub(super) fn making(&mut self, id: RunnerId, app: AppId, key: &str, now: Timestamp) -> bool {
        let is_there = self.of_app(app).any(|(_, zygote)| zygote.key == key);
        if self.is_closed || is_there || self.refuses(app, key, now) {
            return false;
        }
        self.refusals.remove(&app);
        self.put(id, app, key, Stage::Making, now);
        true
    }

    /// No more are made. Returns those that there are.
    pub(super) fn close(&mut self) -> Vec<RunnerId> {
        self.is_closed = true;
        for zygote in self.zygotes.values_mut() {
            zygote.stage = Stage::Retiring;
        }
        self.ids()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn put(
        &mut self,
        id: RunnerId,
        app: AppId,
        key: &str,
        stage: Stage,
        now: Timestamp,
    ) {
        let key = key.to_owned();
        let zygote = Zygote {
            app,
            key,
            stage,
            last_used: now,
            memory_bytes: 0,
            starts: 0,
            is_proven: false,
        };
        self.zygotes.insert(id, zygote);
    }

    /// Tells which app it is for. `None`: it is not wanted any more.
    pub(super) fn ready(
        &mut self,
        id: RunnerId,
        socket: PathBuf,
        memory_bytes: u64,
    ) -> Option<AppId> {
        let zygote = self.zygotes.get_mut(&id).filter(|found| found.stage != Stage::Retiring)?;
        zygote.stage = Stage::Ready { socket };
        zygote.memory_bytes = memory_bytes;
        Some(zygote.app)
    }

    /// The one to retire so that the rest take no more than this together, if they take more.
    pub(super) fn over_budget(&mut self, memory_max: u64, now: Timestamp) -> Option<RunnerId> {
        let ready = |zygote: &&Zygote| matches!(zygote.stage, Stage::Ready { .. });
        let taken: u64 = self.zygotes.values().filter(ready).map(|z| z.memory_bytes).sum();
        if taken <= memory_max {
            return None;
        }
        let oldest = self.zygotes.iter().filter(|(_, zygote)| ready(zygote));
        let (id, zygote) = oldest.min_by_key(|(id, zygote)| (zygote.last_used, **id))?;
        let id = *id;
        let (key, app) = (zygote.key.clone(), zygote.app);
        let reason = format!(
            "it had to go since zygotes take no more than {} MiB (`zygote_memory_max`)",
            memory_max >> 20
        );
        let until = Some(now + PAUSE);
        self.refusals.insert(app, Refusal { key, reason, until });
        Some(id)
    }

    pub(super) fn uses(&mut self, runner: RunnerId, zygote: RunnerId) {
        self.users.insert(runner, zygote);
    }

    /// A runner has begun. The zygote that was to start it and did not.
    pub(super) fn spawned(
        &mut self,
        runner: RunnerId,
        rung: Rung,
        now: Timestamp,
    ) -> Option<RunnerId> {
        if rung == Rung::Zygote {
            return None;
        }
        let id = self.users.remove(&runner)?;
        let zygote = self.zygotes.get(&id)?;
        // Of a burst of starts, the first has said it.
        if zygote.stage != Stage::Retiring {
            let (app, key) = (zygote.app, zygote.key.clone());
            self.miss(app, key, "it did not fork when it was asked to", now);
        }
        Some(id)
    }

    /// A runner has ended by itself before it was ready. The zygote that is to retire for it: no runner of an
    /// app that cannot live as a fork would ever become ready.
    pub(super) fn runner_failed(&mut self, runner: RunnerId, now: Timestamp) -> Option<RunnerId> {
        const REASON: &str = "a runner that was forked from it did not become ready";
        let id = *self.users.get(&runner)?;
        let zygote = self.zygotes.get(&id).filter(|zygote| zygote.stage != Stage::Retiring)?;
        let (app, key) = (zygote.app, zygote.key.clone());
        if !zygote.is_proven {
            self.pause(app, key, REASON.to_owned(), now);
            return Some(id);
        }
        self.miss(app, key, REASON, now).then_some(id)
    }

    /// Returns whether there were too many.
    fn miss(&mut self, app: AppId, key: String, reason: &str, now: Timestamp) -> bool {
        let trouble = self.trouble(app, &key);
        trouble.misses += 1;
        if trouble.misses < MISSES_MAX {
            return false;
        }
        trouble.misses = 0;
        self.pause(app, key, reason.to_owned(), now);
        true
    }

    fn pause(&mut self, app: AppId, key: String, reason: String, now: Timestamp) {
        let trouble = self.trouble(app, &key);
        let pause = PAUSE.saturating_mul(1_u32.checked_shl(trouble.pauses).unwrap_or(u32::MAX));
        trouble.pauses += 1;
        let until = Some(now + pause.min(PAUSE_MAX));
        self.refusals.insert(app, Refusal { key, reason, until });
    }

    fn trouble(&mut self, app: AppId, key: &str) -> &mut Trouble {
        let trouble = self.troubles.entry(app).or_default();
        if trouble.key != key {
            *trouble = Trouble { key: key.to_owned(), ..Trouble::default() };
        }
        trouble
    }

    /// A runner has ended. The retiring zygote that has lost its last one.
    pub(super) fn runner_ended(&mut self, runner: RunnerId) -> Option<RunnerId> {
        self.wishes.remove(&runner);
        let id = self.users.remove(&runner)?;
        let retires = self.zygotes.get(&id).is_some_and(|found| found.stage == Stage::Retiring);
        (retires && !self.is_used(id)).then_some(id)
    }

    /// Returns the socket that it listens on, if it does and is not retiring already.
    pub(super) fn retire(&mut self, id: RunnerId) -> Option<PathBuf> {
        let zygote = self.zygotes.get_mut(&id)?;
        match std::mem::replace(&mut zygote.stage, Stage::Retiring) {
            Stage::Ready { socket } => Some(socket),
            Stage::Making | Stage::Retiring => None,
        }
    }

    pub(super) fn is_used(&self, id: RunnerId) -> bool {
        self.users.values().any(|used| *used == id)
    }

    /// It has ended. If that was before it could be used, its app gets no other for a while; if it had found
    /// (`is_unfit`) that it cannot be forked, none at all.
    pub(super) fn ended(
        &mut self,
        id: RunnerId,
        reason: String,
        is_unfit: bool,
        now: Timestamp,
    ) -> Option<(AppId, Stage)> {
        let Zygote { app, key, stage, .. } = self.zygotes.remove(&id)?;
        match stage {
            Stage::Making if is_unfit => {
                self.refusals.insert(app, Refusal { key, reason, until: None });
            }
            Stage::Making => self.pause(app, key, reason, now),
            Stage::Ready { .. } => {
                self.miss(app, key, "its zygotes ended by themselves", now);
            }
            Stage::Retiring => {}
        }
        Some((app, stage))
    }

    pub(super) fn is_making(&self, id: RunnerId) -> bool {
        self.zygotes.get(&id).is_some_and(|zygote| zygote.stage == Stage::Making)
    }

    pub(super) fn has_all(&self, ids: &[RunnerId]) -> bool {
        ids.iter().all(|id| self.zygotes.contains_key(id))
    }

    pub(super) fn ids(&self) -> Vec<RunnerId> {
        self.zygotes.keys().copied().collect()
    }

    /// For people.
    pub(super) fn describe(&self, app: AppId) -> Option<String> {
        let current = self.of_app(app).last();
        if let Some((_, zygote)) = current {
            return Some(match &zygote.stage {
                Stage::Making => "its zygote is being made".to_owned(),
                Stage::Ready { .. } => format!(
                    "its starts are forked from a zygote ({} MiB, {} so far)",
                    zygote.memory_bytes >> 20,
                    zygote.starts
                ),
                Stage::Retiring => "its zygote retires".to_owned(),
            });
        }
        let refusal = self.refusals.get(&app)?;
        Some(format!("its starts are not forked from a zygote: {}", refusal.reason))
    }

    fn of_app(&self, app: AppId) -> impl Iterator<Item = (RunnerId, &Zygote)> {
        let of_app = move |zygote: &Zygote| zygote.app == app && zygote.stage != Stage::Retiring;
        self.zygotes.iter().filter(move |(_, zygote)| of_app(zygote)).map(|(id, z)| (*id, z))
    }
}

#[cfg(test)]
mod tests;
