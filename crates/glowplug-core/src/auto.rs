//! `policy = "auto"`: learns from an app's own traffic how long each idle runner is kept, when a spare one
//! pays, and when to start one before its request.
//!
//! ```text
//! worth of an avoided start = mean start × (1 + wait price) × rarity            (worth.rs)
//! runner at level n is kept while  its rate of return × worth > 1               (levels.rs, memory.rs)
//!                  the app's last: for half of the worth (without rarity) at least
//!                  every one: for twice the worth at most
//! a spare while the app wakes up:  chance that it helps × worth + what the first of two starts saves
//!                                  > chance that it is in vain × its cost       (wakes.rs)
//! a start before an expected use:  the app's uses are periodic                  (period.rs)
//!                                  or somebody is about to use it               (interest.rs)
//! ```
//!
//! To keep a runner for a moment costs that moment; to have kept it when it is asked for saves a start. So
//! it is kept while the rate at which it is asked for, times what a start is worth, exceeds what a second
//! costs: one. The estimate of that rate only falls while nothing comes, so the first moment at which it no
//! longer pays is the last at which it did, and a lifetime can be told when a runner becomes idle. That
//! requests go to the runner used last makes every level a question of its own (Lu and Chen, 2012, for the
//! ski-rental form of it).
//!
//! The last runner of an app gets a floor: of an app that is seldom used too little is known to tell its
//! users' pauses from their leaving, and half the break-even time then costs little and spares them a
//! second cold start.
//!
//! When an app wakes up, the next request of the one who woke it meets a runner that is still starting, or
//! then busy with what came first. A spare runner started at once is there for it. Where starts take now
//! two seconds and now forty, the first request gains as well: it takes whichever is ready first. The spare
//! is wanted until what was started for the first request is free again.
//!
//! Everything is a function of the calls made, costs a bounded amount of work per call, and needs about 400
//! bytes for an app that never has more than two runners, 1.6 KB for one with thousands. The explicit
//! parameters of an app bound all of this, and the engine applies them. Not done here: choosing among
//! machines, or anything across apps.

mod interest;
mod learned;
mod levels;
mod memory;
mod period;
mod wakes;
mod why;
mod worth;

use std::time::Duration;

use interest::{Interests, Stakes};
use levels::Levels;
use memory::Memory;
use period::Period;
use wakes::{Wakes, Window};
use worth::Worth;

pub use interest::{Interest, InterestWhy, Last};
pub use learned::Learned;
pub use period::Wake;
pub use why::{Kept, KeptBound, KeptWhy, SpareWhy, WakeWhy};

use crate::time::Timestamp;

/// Share of the plain worth of an avoided start for which an app's last runner is kept at least, as idle
/// time.
const FLOOR_OF_WORTH: f64 = 0.5;

/// A rise of demand by more runners than this counts as one by this many, so that the work of a call is
/// bounded.
const RISES_AT_ONCE_MAX: u32 = 16;

/// Times the worth of an avoided start for which any runner is kept at most. Memory of a busy hour fades
/// slowly, and an hour that was busy may be the last one: whatever is remembered, idling in vain then never
/// costs more than this many starts (the ski-rental bound of Lu and Chen, with 2 in place of 1, which
/// costs nothing measurable where users do come back).
const LONGEST_OF_WORTH: f64 = 2.0;

/// Lifetimes are multiples of this, so that the last digit of a logarithm never decides.
const GRID: Duration = Duration::from_millis(100);
const GRID_SECS: f64 = 0.1;

/// What to aim for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What one second of a request's wait is worth, in seconds of a runner. With a budget, where to begin.
    pub wait_price: f64,
    /// Steers the price.
    pub budget: Option<Budget>,
    /// No idle runner is kept longer.
    pub keep_max: Duration,
}

/// A stated limit on waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    pub wait: Duration,
    /// Of the requests, that may wait longer: 0.05 for five in a hundred.
    pub share: f64,
}

impl Settings {
    /// Runner-seconds for a second of waiting, for the three usual intents.
    pub const COST_SENSITIVE: f64 = 5.0;
    pub const BALANCED: f64 = 13.0;
    pub const LATENCY_CRITICAL: f64 = 30.0;
}

impl Default for Settings {
    fn default() -> Self {
        Self { wait_price: Self::BALANCED, budget: None, keep_max: Duration::from_hours(4) }
    }
}

/// One runner above demand that is wanted while an app wakes up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spare {
    pub until: Timestamp,
    pub why: SpareWhy,
}

/// A spare, and the demand it is to serve.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    runners: u32,
    spare: Spare,
}

/// What is known of one app.
#[derive(Clone, Debug)]
pub struct Learner {
    keep_max: Duration,
    levels: Levels,
    /// Rises of demand, whatever the level, on the clock of the wall.
    rises: Memory,
    risen: Timestamp,
    worth: Worth,
    period: Period,
    wakes: Wakes,
    wanted: Option<Wanted>,
    /// Of apps that somebody announced a use of.
    interests: Option<Box<Interests>>,
}

impl Learner {
    pub fn new(settings: &Settings) -> Self {
        Self {
            keep_max: settings.keep_max,
            levels: Levels::default(),
            rises: Memory::default(),
            risen: Timestamp::ZERO,
            worth: Worth::new(settings),
            period: Period::default(),
            wakes: Wakes::default(),
            wanted: None,
            interests: None,
        }
    }

    /// Aims for something else from now on, with what is known.
    pub fn configure(&mut self, settings: &Settings) {
        self.keep_max = settings.keep_max;
        self.worth.configure(settings);
    }

    /// Demand, in runners, is `demand` from now on: requests in flight and waiting, over the multiplexing.
    /// `ready`: runners that could take requests at this moment or are serving.
    pub fn demand(&mut self, now: Timestamp, demand: u32, ready: u32) {
        let before = self.levels.demand();
        if demand == before {
            return;
        }
        self.levels.set(now, demand);
        if demand < before {
            return;
        }
        for _ in before..demand.min(before + RISES_AT_ONCE_MAX) {
            self.rises.note((now - self.risen).as_secs_f64());
            self.risen = now;
            self.worth.used(now);
        }
        self.wakes.rose(now);
        if before == 0 {
            if let Some(interests) = &mut self.interests {
                interests.requested(now);
            }
            self.period.woke(now);
            self.wanted = if ready == 0 { self.spare_on_waking(now, demand) } else { None };
        }
    }

    /// Somebody is about to use the app, as far as signs tell. While it is used they tell nothing.
    pub fn sign(&mut self, now: Timestamp, last: Last) {
        if self.levels.demand() > 0 {
            return;
        }
        let stakes = Stakes {
            start_secs: self.worth.start_secs(),
            worth_secs: self.worth.secs(),
            lifetime: self.kept(1, now).why.lifetime,
            keep_max: self.keep_max,
        };
        self.interests.get_or_insert_default().sign(now, last, &stakes);
    }

    /// A start of the app took this long, from being wanted to being ready.
    pub fn started(&mut self, took: Duration) {
        self.worth.started(took);
    }

    /// A request kept its runner for this long.
    pub fn served(&mut self, took: Duration) {
        self.worth.served(took);
    }

    /// A request waited this long for its runner; zero if it did not.
    pub fn waited(&mut self, wait: Duration) {
        self.worth.waited(wait);
    }

    /// Until when the runner that has been idle longest is kept, if nothing comes. `level`: runners alive,
    /// it among them.
    pub fn kept(&self, level: u32, idle_since: Timestamp) -> Kept {
        let worth = self.worth.secs();
        let idle = self.levels.idle(level, idle_since);
        let (left, returns) =
            idle.map_or((idle_since, Memory::default()), |idle| (idle.left, idle.returns));
        let pays = self.pays_for(&returns, worth);
        let most = span(worth * LONGEST_OF_WORTH);
        let floor = if level == 1 {
            span(self.worth.plain_secs() * FLOOR_OF_WORTH)
        } else {
            Duration::ZERO
        };
        let (lifetime, bound) = if pays.min(most).max(floor) >= self.keep_max {
            (self.keep_max, KeptBound::Longest)
        } else if pays > most {
            (most, KeptBound::BreakEven)
        } else if pays < floor {
            (floor, KeptBound::Floor)
        } else if idle.is_none() {
            (Duration::ZERO, KeptBound::NeverUsed)
        } else {
            (pays, KeptBound::Returns)
        };
        let why = KeptWhy {
            level,
            returns: returns.count(),
            lifetime,
            start: span(self.worth.start_secs()),
            worth: span(worth),
            bound,
        };
        Kept { until: left + lifetime, why }
    }

    /// Whether one runner above demand is wanted at this moment, until when, and why.
    pub fn spare(&self, now: Timestamp) -> Option<Spare> {
        let Wanted { runners, spare } = self.wanted?;
        let demand = self.levels.demand();
        (now < spare.until && demand > 0 && demand < runners).then_some(spare)
    }

    /// When to start a runner before its request, if that can be foretold.
    pub fn wake(&self, now: Timestamp) -> Option<Wake> {
        self.period.wake(now, self.worth.start_secs(), self.worth.secs())
    }

    /// Whether one runner is wanted at this moment, since somebody is about to use the app.
    pub fn interest(&self, now: Timestamp) -> Option<Interest> {
        self.interests.as_ref()?.wanted(now)
    }

    pub fn budget(&self) -> Option<Budget> {
        self.worth.budget()
    }

    /// Runner-seconds that a second of waiting is worth at this moment: steered, if there is a budget.
    pub fn wait_price(&self) -> f64 {
        self.worth.wait_price()
    }

    /// The longest time, on the grid, for which the rate of return pays: at most `keep_max`.
    fn pays_for(&self, returns: &Memory, worth: f64) -> Duration {
        let pays = |steps: u32| returns.rate(f64::from(steps) * GRID_SECS) * worth > 1.0;
        let most = u32::try_from(self.keep_max.as_millis() / GRID.as_millis()).unwrap_or(u32::MAX);
        if !pays(0) {
            return Duration::ZERO;
        }
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = high - (high - low) / 2;
            if pays(middle) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        GRID.saturating_mul(low)
    }

    /// Whether one runner more than demand should start, now that the app wakes up with none ready.
    ///
    /// What starts now for the first request is free again after `busy`: its start, then its service. A
    /// request that comes `x` later saves up to `min(x, service)` before the start is over and `min(start,
    /// busy - x)` after it. Both grow from nothing and shrink to nothing, so that counting only what comes
    /// from half a start after now to half a start before the end, at the full saving, gives the same sum.
    /// If nobody comes, the spare has cost `busy`.
    fn spare_on_waking(&mut self, now: Timestamp, demand: u32) -> Option<Wanted> {
        let (start, worth) = (self.worth.start_secs(), self.worth.secs());
        let busy = start + self.worth.service_secs() / f64::from(demand);
        let (from, to) = (start / 2.0, (busy - start / 2.0).max(start / 2.0));
        self.wakes
            .woke(now, Window { helped_from: span(from), helped_to: span(to), end: span(busy) });
        let expected = |from, to| self.rises.expected(0.0, from, to);
        let chance = self.wakes.chance_helped(1.0 - (-expected(from, to)).exp());
        let alone = self.wakes.chance_alone((-expected(0.0, busy)).exp());
        let why = SpareWhy {
            chance,
            sooner: span(self.worth.sooner_secs()),
            busy: span(busy),
            start: span(start),
            worth: span(worth),
        };
        let spare = Spare { until: now + span(busy), why };
        let gain = chance * worth + self.worth.sooner_worth_secs();
        (gain > alone * busy).then_some(Wanted { runners: demand.saturating_add(1), spare })
    }
}

/// Rounded up to the grid; what is no time at all is none.
fn span(secs: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded, and not below zero"
    )]
    let steps = (secs / GRID_SECS).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
    GRID.saturating_mul(steps)
}

#[cfg(test)]
mod tests;
