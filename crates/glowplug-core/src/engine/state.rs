//! The records the engine owns: apps, runners, requests.

use std::collections::BTreeSet;
use std::time::Duration;

use super::free::{Free, Seat};
use super::learner;
use super::placement::Claim;
use super::waiting::{Place, Waiting};
use crate::auto::Learner;
use crate::backoff::Backoff;
use crate::decision::{StartCause, StopReason};
use crate::ids::{AppId, CallerId, HintId, RequestId, RunnerId};
use crate::lifecycle::State;
use crate::request::{Hints, Mode, Priority};
use crate::resources::Allocation;
use crate::retry::Course;
use crate::scaler::{self, Load, Target};
use crate::spec::AppSpec;
use crate::time::Timestamp;
use crate::warmth::{Ladder, Rung};

/// Fields lie in this order: what every request reads comes first, so that it takes few lines of cache.
#[derive(Debug)]
#[repr(C)]
pub(super) struct App {
    /// Requests on runners, over all runners, ended ones included until their gateway has reported.
    pub in_flight: u32,
    /// Ready or starting runners that end as soon as their replacement is ready.
    pub to_be_replaced: u32,
    /// Starting runners without resources: in PENDING or FAILURE_DELAY.
    pub unplaced: u32,
    /// Gone as soon as its last runner is.
    pub removed: bool,
    pub ever_ready: bool,
    /// Whether the last warm runner went by expiry.
    pub last_expired: bool,
    /// Ready runners with a free place, idle ones among them.
    pub free: Free,
    pub waiting: Waiting,
    pub starting: BTreeSet<RunnerId>,
    /// Frozen runners and captures: they are there, and count for nothing.
    pub aside: BTreeSet<RunnerId>,
    pub ready: BTreeSet<RunnerId>,
    /// Since when runners that are still starting are not needed.
    pub surplus_since: Option<Timestamp>,
    /// Why no machine type of it can ever fit, if so.
    pub unschedulable: Option<String>,
    /// Of apps that are scaled by what is learned of them.
    pub learner: Option<Box<Learner>>,
    pub spec: AppSpec,
    pub wake: Option<Timestamp>,
    /// Draining, terminating, or ended with reports outstanding.
    pub ending: BTreeSet<RunnerId>,
    /// Requests between two attempts.
    pub delayed: BTreeSet<RequestId>,
    /// Starting runners in PENDING, in the order in which they get resources.
    pub pending: BTreeSet<Claim>,
    /// When it last got resources for a runner, or gave some away: its place in line among apps.
    pub turn_at: Timestamp,
    pub backoff: Backoff,
    /// Smoothed time from PENDING to IDLE: what losing a runner costs.
    pub restart_cost: Option<Duration>,
    /// Smoothed time that an attempt keeps its place.
    pub service: Option<Duration>,
    /// How long its wake-ups took.
    pub ladder: Ladder,
    /// One of its runners could not be frozen: until when none is.
    pub cannot_freeze_until: Option<Timestamp>,
}

/// A restart is assumed to take this long until one was measured.
const RESTART_COST_UNKNOWN: Duration = Duration::from_secs(1);

impl App {
    pub(super) fn new(spec: AppSpec) -> Self {
        Self {
            learner: None,
            spec,
            waiting: Waiting::default(),
            delayed: BTreeSet::new(),
            in_flight: 0,
            starting: BTreeSet::new(),
            aside: BTreeSet::new(),
            ready: BTreeSet::new(),
            ending: BTreeSet::new(),
            free: Free::default(),
            to_be_replaced: 0,
            unplaced: 0,
            pending: BTreeSet::new(),
            turn_at: Timestamp::ZERO,
            backoff: Backoff::default(),
            ever_ready: false,
            last_expired: false,
            restart_cost: None,
            service: None,
            ladder: Ladder::default(),
            cannot_freeze_until: None,
            surplus_since: None,
            unschedulable: None,
            removed: false,
            wake: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starting.is_empty()
            && self.ready.is_empty()
            && self.ending.is_empty()
            && self.aside.is_empty()
            && self.waiting.is_empty()
            && self.delayed.is_empty()
    }

    /// Runners that count against floor, cap and demand.
    pub(super) fn alive(&self) -> u32 {
        count(self.starting.len() + self.ready.len()).saturating_sub(self.to_be_replaced)
    }

    /// Runners that have their resources. What only waits for a place keeps no floor.
    pub(super) fn placed(&self) -> u32 {
        count(self.starting.len() + self.ready.len()).saturating_sub(self.unplaced)
    }

    /// Whether new runners of it make sense at all.
    pub(super) fn may_start(&self) -> bool {
        !self.removed && self.unschedulable.is_none()
    }

    /// Requests that one runner takes at once.
    pub(super) fn places_per_runner(&self) -> usize {
        self.spec.scaling.max_multiplexing.max(1) as usize
    }

    /// The formula over what waits long enough to cause a start.
    pub(super) fn target_to_start(&self, now: Timestamp) -> (Target, Option<Timestamp>) {
        let (ripe, next) = self.waiting.ripe(now, self.spec.scaling.scaling_delay);
        (self.target(now, count(ripe)), next)
    }

    /// The formula over everything that waits: what must be kept.
    pub(super) fn target_to_keep(&self, now: Timestamp) -> Target {
        self.target(now, count(self.waiting.len()))
    }

    /// What is kept without any load: floor and fixed buffer.
    pub(super) fn floor(&self) -> u32 {
        scaler::target(&self.spec.scaling, Load::default()).desired
    }

    fn target(&self, now: Timestamp, waiting: u32) -> Target {
        let load = Load { in_flight: self.in_flight, waiting };
        match &self.learner {
            None => scaler::target(&self.spec.scaling, load),
            Some(learner) => {
                scaler::target(&learner::asked(learner, &self.spec.scaling, now), load)
            }
        }
    }

    /// How long an idle runner is kept.
    pub(super) fn time_to_live(&self, served: u64) -> Duration {
        let scaling = &self.spec.scaling;
        let nothing_asks_for_it = scaling.min_concurrency == 0
            && scaling.concurrency_buffer == 0
            && scaling.concurrency_buffer_perc == 0;
        match scaling.unused_runner_timeout {
            Some(unused) if served == 0 && nothing_asks_for_it => unused,
            _ => scaling.keep_alive,
        }
    }

    pub(super) fn restart_cost(&self) -> Duration {
        self.restart_cost.unwrap_or(RESTART_COST_UNKNOWN)
    }

    /// Takes a measured start into the estimate: new ones weigh a quarter.
    pub(super) fn learn_restart_cost(&mut self, took: Duration) {
        self.restart_cost = Some(match self.restart_cost {
            Some(known) => (known * 3 + took) / 4,
            None => took,
        });
    }
}

/// Fields lie in this order: what every request reads comes first, so that it takes few lines of cache.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Runner {
    pub app: AppId,
    pub state: State,
    /// Whether it is among the free of its app.
    pub seated: bool,
    pub in_flight: Vec<InFlight>,
    pub served: u64,
    /// When it last became idle or was given a request.
    pub last_used: Timestamp,
    /// Its place among the idle runners of all apps, while it is one.
    pub idle_at: usize,
    pub wake: Option<Timestamp>,
    pub ready: Option<Timestamp>,
    /// Requests that waited when it became ready and that it has not yet worked off.
    pub batch_left: u32,
    pub revision: u32,
    pub cause: StartCause,
    pub told_no_room: bool,
    /// A request waits for it: it is placed before those that only floor or buffer ask for.
    pub demanded: bool,
    /// Others were ended to make room for it: the room is not for anybody else.
    pub room_made: bool,
    pub created: Timestamp,
    /// When it entered PENDING; later than `created` if it had to wait after a failed start first.
    pub pending: Timestamp,
    /// Set when it was placed; `Start` was issued then.
    pub allocation: Option<Allocation>,
    pub placed: Option<Timestamp>,
    pub setup: Option<Timestamp>,
    /// What its last wake-up began with. `None`: nothing was told yet, or it lived on from before.
    pub rung: Option<Rung>,
    /// While it is frozen, or thaws.
    pub frozen: Option<Frozen>,
    pub thaw_asked: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub delay_until: Option<Timestamp>,
    pub stop: Option<Stop>,
    pub replaces: Option<RunnerId>,
    pub replaced_by: Option<RunnerId>,
    /// What it said last that it is good for. `None`: nothing, or its app has no hints.
    pub hints: Option<Hints>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Frozen {
    pub since: Timestamp,
    /// Of memory. Zero until it was reported.
    pub held_bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Stop {
    pub reason: StopReason,
    /// When it should long have ended. `None`: `Action::Stop` was not issued yet, since a soft drain
    /// waits for the last request first.
    pub stuck_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub request: RequestId,
    pub attempt: u32,
    pub since: Timestamp,
}

impl Runner {
    pub(super) fn new(app: AppId, revision: u32, cause: StartCause, now: Timestamp) -> Self {
        Self {
            app,
            revision,
            state: State::Pending,
            cause,
            created: now,
            pending: now,
            allocation: None,
            placed: None,
            setup: None,
            rung: None,
            frozen: None,
            thaw_asked: None,
            ready: None,
            ended: None,
            in_flight: Vec::new(),
            served: 0,
            last_used: now,
            seated: false,
            idle_at: 0,
            batch_left: 0,
            delay_until: None,
            stop: None,
            replaces: None,
            replaced_by: None,
            told_no_room: false,
            demanded: cause.is_demand(),
            room_made: false,
            hints: None,
            wake: None,
        }
    }

    /// Whether it is there for a snapshot alone.
    pub(super) fn is_capture(&self) -> bool {
        self.cause == StartCause::Capture
    }

    /// Whether it is there and counts for nothing.
    pub(super) fn is_aside(&self) -> bool {
        let is_held_capture = self.is_capture() && self.state.is_alive();
        is_held_capture || self.state == State::Frozen
    }

    /// Its seat among the runners of its app with a free place, should it have one.
    pub(super) fn seat(&self, id: RunnerId) -> Seat {
        Seat { in_flight: count(self.in_flight.len()), last_used: self.last_used, runner: id }
    }

    /// Takes a place among the idle runners of all apps.
    pub(super) fn enter_idle(&mut self, id: RunnerId, idle: &mut Vec<RunnerId>) {
        self.idle_at = idle.len();
        idle.push(id);
    }

    /// Whether it takes another request. One that has just lost its last is not asked before it is settled
    /// whether it rests or ends.
    pub(super) fn has_free_place(&self, places: usize) -> bool {
        if self.is_capture() {
            return false;
        }
        match self.state {
            State::Idle => true,
            State::Running => !self.in_flight.is_empty() && self.in_flight.len() < places,
            _ => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Request {
    pub app: AppId,
    pub mode: Mode,
    pub priority: Priority,
    pub caller: CallerId,
    /// With `sequence` its place in line, whether it waits or not: what is tried again returns to it.
    pub round: u64,
    pub sequence: u64,
    pub arrived: Timestamp,
    pub start_deadline: Option<Timestamp>,
    pub hint: Option<HintId>,
    pub course: Course,
    /// Attempts begun.
    pub attempt: u32,
    pub progress: Progress,
    pub wake: Option<Timestamp>,
}

impl Request {
    pub(super) fn place(&self, id: RequestId) -> Place {
        Place {
            round: self.round,
            sequence: self.sequence,
            caller: self.caller,
            arrived: self.arrived,
            request: id,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// Between two attempts.
    Delayed {
        until: Timestamp,
    },
    InFlight {
        runner: RunnerId,
    },
}

/// A length as the engine counts: no list of ours comes near the limit.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
