//! The one owner of all scheduling state.
//!
//! `handle` takes what happened, `next_action` gives what to do, `next_wakeup` says when to call `advance`
//! although nothing happened. The engine never fails, blocks, or asks anybody: a report that cannot be true
//! is noted and not acted on.
//!
//! | file | holds |
//! | --- | --- |
//! | `state.rs`, `table.rs` | the records, and how they are found |
//! | `indexes.rs` | what keeps every index in step with the runners' states |
//! | `waiting.rs`, `ordered.rs` | who waits for an app, in which order |
//! | `free.rs`, `timers.rs` | the free places of an app, wake-ups |
//! | `requests.rs` | arrival, assignment, outcome, retry |
//! | `hints.rs` | which free runner a request gets |
//! | `runners.rs` | what backends report, and what time does to runners |
//! | `stopping.rs` | ending runners, replacing them |
//! | `scaling.rs` | growing and shrinking an app |
//! | `frozen.rs` | runners that are kept without a processor |
//! | `captures.rs` | runners of which snapshots are taken |
//! | `learner.rs` | apps that are scaled by what is learned of them |
//! | `placement.rs` | who gets resources |
//! | `contention.rs` | who gives way when they do not suffice |
//! | `eta.rs` | when a waiting request is expected to be answered |
//! | `view.rs` | read-only answers for people |

mod captures;
mod contention;
mod eta;
mod free;
mod frozen;
mod hints;
mod indexes;
mod learner;
mod ordered;
mod placement;
mod requests;
mod runners;
mod scaling;
mod state;
mod stopping;
mod table;
mod timers;
mod view;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use captures::CAPTURES_MAX;
pub use eta::{Basis, Eta};
pub use frozen::FROZEN_MAX;
pub use view::{AppView, RequestView, RunnerView};
pub use waiting::PASSED_OVER_MAX;

use crate::action::Action;
use crate::auto::Learner;
use crate::decision::{Decision, StopReason, What};
use crate::event::Event;
use crate::ids::{AppId, RequestId, RunnerId};
use crate::lifecycle::Input;
use crate::request::{Mode, Refusal};
use crate::resources::{Capacity, Ledger};
use crate::retry::Delays;
use crate::spec::AppSpec;
use crate::time::Timestamp;
use state::{App, Request, Runner, count};
use table::Table;
use timers::{Owner, Timers};

#[derive(Clone, Debug)]
pub struct Config {
    /// Which start of the node this is; makes runner ids unique over restarts.
    pub boot: u32,
    /// Requests that may wait for one app when a direct one comes.
    pub waiting_max: usize,
    /// How long an app with waiting requests may be kept out by others that are in use.
    pub contention_wait_max: Duration,
    /// Between the attempts of one request.
    pub retry_delays: Delays,
    /// What frozen runners may hold of the memory, all together. Zero: none is frozen.
    pub frozen_memory_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            boot: 1,
            waiting_max: 100_000,
            contention_wait_max: Duration::from_secs(30),
            retry_delays: Delays::default(),
            frozen_memory_max: 4 << 30,
        }
    }
}

#[derive(Debug)]
pub struct Engine {
    config: Config,
    apps: Table<AppId, App>,
    runners: Table<RunnerId, Runner>,
    requests: Table<RequestId, Request>,
    ledger: Ledger,
    /// Apps with runners in PENDING that have no resources.
    pending: BTreeSet<AppId>,
    /// Runners that hold resources and will give them back.
    leaving: BTreeSet<RunnerId>,
    /// Frozen runners and captures of all apps.
    aside: BTreeSet<RunnerId>,
    /// Apps of which a capture is to be started when there is room.
    captures_wished: BTreeSet<AppId>,
    /// Idle runners of all apps, in an order of no meaning; each knows its own place here.
    idle: Vec<RunnerId>,
    /// Something changed that may let any pending runner be placed.
    placement_due: bool,
    /// Apps whose pending runners alone are to be looked at.
    newcomers: BTreeSet<AppId>,
    /// What the last look at all pending runners left; `None`: nothing had to be kept.
    outlook: Option<placement::Outlook>,
    timers: Timers,
    actions: VecDeque<Action>,
    /// For apps that are yet to be scaled by what was learned of them.
    taught: BTreeMap<AppId, Box<Learner>>,
    runner_sequence: u32,
    request_sequence: u64,
    shutting_down: bool,
}

impl Engine {
    pub fn new(config: Config, capacity: Capacity) -> Self {
        Self {
            config,
            apps: Table::new(),
            runners: Table::new(),
            requests: Table::new(),
            ledger: Ledger::new(capacity),
            pending: BTreeSet::new(),
            leaving: BTreeSet::new(),
            aside: BTreeSet::new(),
            captures_wished: BTreeSet::new(),
            idle: Vec::new(),
            placement_due: false,
            newcomers: BTreeSet::new(),
            outlook: None,
            timers: Timers::default(),
            actions: VecDeque::new(),
            taught: BTreeMap::new(),
            runner_sequence: 0,
            request_sequence: 0,
            shutting_down: false,
        }
    }

    /// Takes one event in. Total: never fails, never blocks.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.wake_due(now);
        match event {
            Event::AppChanged { app, spec } => self.app_changed(now, app, spec),
            Event::AppRemoved { app } => self.app_removed(now, app),
            Event::CapacityChanged { capacity } => self.capacity_changed(now, capacity),
            Event::Arrived(arrival) => self.arrived(now, &arrival),
            Event::Cancelled { request } => self.cancelled(now, request),
            Event::Finished { lease, outcome } => self.finished(now, lease, outcome),
            Event::PullStarted { runner } => {
                self.report(now, runner, Input::PullStarted);
            }
            Event::SetupStarted { runner, rung } => self.setup_started(now, runner, rung),
            Event::Ready { runner } => self.ready(now, runner),
            Event::NoRoom { runner, detail } => self.no_room(now, runner, detail),
            Event::Exited { runner, detail } => self.exited(now, runner, &detail),
            Event::Adopted(adopted) => self.adopted(now, adopted),
            Event::Unhealthy { runner, detail } => self.unhealthy(now, runner, detail),
            Event::Frozen { runner, held_bytes } => self.freeze_reported(now, runner, held_bytes),
            Event::Thawed { runner } => self.thawed(now, runner),
            Event::FreezeFailed { runner, detail } => self.freeze_failed(now, runner, detail),
            Event::CaptureRequested { app } => self.capture_requested(app),
            Event::CaptureForgone { app } => self.capture_forgone(app),
            Event::StopRequested { runner, how } => self.stop_requested(now, runner, how),
            Event::WarmRequested { app, runners } => self.warm_requested(now, app, runners),
            Event::Interest { app } => self.interest(now, app),
            Event::ShutDown => self.shut_down(now),
        }
        self.place_pending(now);
        self.start_captures(now);
    }

    /// Does what has become due by time alone. To be called at [`Engine::next_wakeup`].
    pub fn advance(&mut self, now: Timestamp) {
        self.wake_due(now);
        self.place_pending(now);
        self.start_captures(now);
    }

    /// When something becomes due without an event. May be early, never late.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// The next thing to do, in order. Drained by the driver after each call.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn wake_due(&mut self, now: Timestamp) {
        while let Some(owner) = self.timers.pop_due(now) {
            match owner {
                Owner::Runner(id) => {
                    if let Some(runner) = self.runners.get_mut(&id) {
                        runner.wake = None;
                        self.runner_due(now, id);
                    }
                }
                Owner::App(id) => {
                    if let Some(app) = self.apps.get_mut(&id) {
                        app.wake = None;
                        self.placement_due |=
                            self.outlook.as_ref().is_some_and(|outlook| outlook.keeps_for(id));
                        self.newcomers.insert(id);
                        self.review(now, id);
                    }
                }
                Owner::Request(id) => {
                    if let Some(request) = self.requests.get_mut(&id) {
                        request.wake = None;
                        self.request_due(now, id);
                    }
                }
            }
        }
    }

    fn wake_runner_at(&mut self, id: RunnerId, at: Timestamp) {
        if let Some(runner) = self.runners.get_mut(&id) {
            self.timers.arm(Owner::Runner(id), &mut runner.wake, at);
        }
    }

    fn wake_app_at(&mut self, id: AppId, at: Timestamp) {
        if let Some(app) = self.apps.get_mut(&id) {
            self.timers.arm(Owner::App(id), &mut app.wake, at);
        }
    }

    fn wake_request_at(&mut self, id: RequestId, at: Timestamp) {
        if let Some(request) = self.requests.get_mut(&id) {
            self.timers.arm(Owner::Request(id), &mut request.wake, at);
        }
    }

    fn note(
        &mut self,
        at: Timestamp,
        app: AppId,
        runner: Option<RunnerId>,
        request: Option<RequestId>,
        what: What,
    ) {
        let name = self.apps.get(&app).map(|app| app.spec.name.clone()).unwrap_or_default();
        self.actions.push_back(Action::Note(Decision { at, app, name, runner, request, what }));
    }

    fn app_changed(&mut self, now: Timestamp, id: AppId, spec: AppSpec) {
        let unschedulable = self.unschedulable(&spec);
        let revision = spec.revision;
        let taught = self.taken_lesson(id, &spec.scaling);
        if let Some(app) = self.apps.get_mut(&id) {
            if app.spec.revision != revision {
                // What failed was other code.
                app.backoff.reset();
            }
            app.learner = learner::of(&spec.scaling, taught.or(app.learner.take()));
            let floor = app.floor();
            app.spec = spec;
            app.cannot_freeze_until = None;
            if app.floor() < floor {
                // Whoever lowers it wants that now, and not once it has been too much for `keep_alive`.
                app.surplus_since = Some(Timestamp::ZERO);
            }
            app.unschedulable = unschedulable;
            app.removed = false;
            self.retire_outdated(now, id, revision);
            self.apply_settings_to_runners(now, id);
        } else {
            let learner = learner::of(&spec.scaling, taught);
            let app = App { unschedulable, learner, ..App::new(spec) };
            self.apps.insert(id, app);
        }
        self.placement_due = true;
        self.review(now, id);
    }

    /// Lets changed settings act on the runners there are: places by `max_multiplexing`, and every limit
    /// in time, which may now end earlier than was armed.
    fn apply_settings_to_runners(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get(&id) else { return };
        let ids: Vec<RunnerId> =
            app.starting.iter().chain(&app.ready).chain(&app.ending).copied().collect();
        let aside: Vec<RunnerId> = app.aside.iter().copied().collect();
        for id in aside {
            self.runner_due(now, id);
        }
        for id in ids {
            self.reseat(id, |_| {});
            self.runner_due(now, id);
        }
    }

    fn app_removed(&mut self, now: Timestamp, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        app.removed = true;
        self.captures_wished.remove(&id);
        self.refuse_waiting(now, id, None, &Refusal::AppRemoved);
        self.stop_all_of(now, id, &StopReason::AppRemoved);
        self.drop_if_removed(id);
    }

    /// Drops the record of a removed app with its last runner.
    fn drop_if_removed(&mut self, id: AppId) {
        let gone = self.apps.get(&id).is_some_and(|app| app.removed && app.is_empty());
        if gone && let Some(mut app) = self.apps.remove(&id) {
            self.timers.disarm(Owner::App(id), &mut app.wake);
        }
    }

    fn capacity_changed(&mut self, now: Timestamp, capacity: Capacity) {
        let mut ledger = Ledger::new(capacity);
        for (_, runner) in self.runners.iter() {
            if let Some(allocation) = &runner.allocation {
                ledger.take(allocation);
            }
        }
        self.ledger = ledger;
        for id in self.apps.sorted_keys() {
            let Some(app) = self.apps.get(&id) else { continue };
            let unschedulable = self.unschedulable(&app.spec);
            if let Some(app) = self.apps.get_mut(&id) {
                app.unschedulable = unschedulable;
            }
            self.review(now, id);
        }
        self.placement_due = true;
    }

    fn shut_down(&mut self, now: Timestamp) {
        self.shutting_down = true;
        for id in self.apps.sorted_keys() {
            self.refuse_waiting(now, id, Some(Mode::Direct), &Refusal::ShuttingDown);
            self.stop_all_of(now, id, &StopReason::ShutDown);
        }
    }

    /// Everything an app may need after something changed about it.
    fn review(&mut self, now: Timestamp, app: AppId) {
        self.dispatch(now, app);
        self.give_up_unschedulable(now, app);
        self.grow(now, app);
        self.shrink(now, app);
    }

    fn next_runner_id(&mut self) -> RunnerId {
        loop {
            self.runner_sequence = self.runner_sequence.wrapping_add(1);
            let id = RunnerId { boot: self.config.boot, sequence: self.runner_sequence };
            // Taken only if a driver reused a boot number, or after four thousand million starts.
            if !self.runners.contains_key(&id) {
                return id;
            }
        }
    }

    /// Runners that exist, of all apps, ended ones with outstanding reports included.
    pub fn runner_count(&self) -> u32 {
        count(self.runners.len())
    }
}
