//! What happened, seen from outside the engine, and what must hold whatever happens.
//!
//! Nothing here reads the engine's bookkeeping, but for the comparison at the end of a step.

use std::collections::BTreeMap;

use glowplug_core::decision::{StartCause, StopReason};
use glowplug_core::engine::{Config, RequestView};
use glowplug_core::event::{Event, StopRequest};
use glowplug_core::ids::{AppId, Lease, RequestId, RunnerId};
use glowplug_core::lifecycle::State;
use glowplug_core::request::{Arrival, Refusal};
use glowplug_core::resources::{Allocation, Capacity};
use glowplug_core::spec::AppSpec;
use glowplug_core::{Engine, Timestamp};

mod rules;

type Verdict = Result<(), String>;

#[derive(Debug)]
struct App {
    spec: AppSpec,
    removed: bool,
    failed_just_now: bool,
}

#[derive(Debug)]
struct Runner {
    app: AppId,
    cause: StartCause,
    allocation: Option<Allocation>,
    starts: u32,
    no_rooms: u32,
    setup_started: bool,
    ready: bool,
    /// Since when.
    frozen: Option<Timestamp>,
    thawing: bool,
    stopping: Option<StopReason>,
    told: bool,
    gone: bool,
    in_flight: Vec<Lease>,
    served: u64,
    was_waited_for: bool,
    idle_since: Timestamp,
    replaces: Option<RunnerId>,
}

impl Runner {
    fn is_alive(&self) -> bool {
        self.stopping.is_none() && !self.gone
    }

    fn is_capture(&self) -> bool {
        self.cause == StartCause::Capture
    }

    /// Whether it is there and counts for nothing.
    fn is_aside(&self) -> bool {
        self.is_alive() && (self.frozen.is_some() || self.is_capture())
    }

    fn is_idle(&self) -> bool {
        self.is_alive() && !self.is_aside() && self.ready && self.in_flight.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Delayed { until: Timestamp },
    InFlight(Lease),
}

#[derive(Debug)]
struct Request {
    arrival: Arrival,
    progress: Progress,
    attempts: u32,
    cancelled: bool,
}

#[derive(Debug)]
pub(crate) struct Facts {
    config: Config,
    capacity: Capacity,
    apps: BTreeMap<AppId, App>,
    runners: BTreeMap<RunnerId, Runner>,
    requests: BTreeMap<RequestId, Request>,
    /// Arrived, and not judged by the engine yet.
    arriving: Option<Arrival>,
    replacing: Option<RunnerId>,
    shut_down: bool,
    last_step: Timestamp,
    this_step: Timestamp,
    pub(crate) delivered: u64,
    pub(crate) refused: BTreeMap<RequestId, Refusal>,
    pub(crate) evictions: u64,
    pub(crate) evicted_unwanted: u64,
    pub(crate) served: u64,
    /// When each request was given to its first runner.
    pub(crate) first_assigned: BTreeMap<RequestId, Timestamp>,
    pub(crate) assigned_to: Vec<(RequestId, RunnerId)>,
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn ensure(holds: bool, what: &str) -> Verdict {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

impl Facts {
    pub(crate) fn new(capacity: Capacity, config: Config) -> Self {
        Self {
            config,
            capacity,
            apps: BTreeMap::new(),
            runners: BTreeMap::new(),
            requests: BTreeMap::new(),
            arriving: None,
            replacing: None,
            shut_down: false,
            last_step: Timestamp::ZERO,
            this_step: Timestamp::ZERO,
            delivered: 0,
            refused: BTreeMap::new(),
            evictions: 0,
            evicted_unwanted: 0,
            served: 0,
            first_assigned: BTreeMap::new(),
            assigned_to: Vec::new(),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.runners.len() + self.requests.len()
    }

    pub(crate) fn app_count(&self) -> usize {
        self.apps.len()
    }

    pub(crate) fn app_of(&self, runner: RunnerId) -> Option<AppId> {
        self.runners.get(&runner).map(|runner| runner.app)
    }

    pub(crate) fn revision(&self, app: AppId) -> u32 {
        self.apps.get(&app).map_or(0, |app| app.spec.revision)
    }

    pub(crate) fn runner_ids(&self) -> Vec<RunnerId> {
        self.runners.keys().copied().collect()
    }

    pub(crate) fn open_requests(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.runners.values().flat_map(|runner| runner.in_flight.iter().copied()).collect()
    }

    pub(crate) fn leases_on(&self, runner: RunnerId) -> Vec<Lease> {
        self.runners.get(&runner).map(|runner| runner.in_flight.clone()).unwrap_or_default()
    }

    /// What the world does to the engine, before the engine knows.
    pub(crate) fn before(&mut self, now: Timestamp, event: &Event) {
        self.begin_step(now);
        match event {
            Event::AppChanged { app, spec } => {
                let app_facts = App { spec: spec.clone(), removed: false, failed_just_now: false };
                self.apps.insert(*app, app_facts);
            }
            Event::AppRemoved { app } => {
                if let Some(app) = self.apps.get_mut(app) {
                    app.removed = true;
                }
            }
            Event::CapacityChanged { capacity } => self.capacity = capacity.clone(),
            Event::Arrived(arrival) => {
                if !self.requests.contains_key(&arrival.request) {
                    self.arriving = Some(arrival.clone());
                    let request = Request {
                        arrival: arrival.clone(),
                        progress: Progress::Waiting,
                        attempts: 0,
                        cancelled: false,
                    };
                    self.requests.insert(arrival.request, request);
                }
            }
            Event::Cancelled { request } => {
                if let Some(request) = self.requests.get_mut(request) {
                    request.cancelled = true;
                }
            }
            Event::Adopted(adopted) => {
                let fresh = Runner {
                    setup_started: true,
                    ready: adopted.ready,
                    frozen: (adopted.ready && adopted.frozen).then_some(now),
                    allocation: Some(adopted.allocation.clone()),
                    starts: 1,
                    ..Runner::new(adopted.app, StartCause::Adopted, now)
                };
                self.runners.entry(adopted.runner).or_insert(fresh);
            }
            Event::SetupStarted { runner, .. } => {
                if let Some(runner) = self.runners.get_mut(runner) {
                    runner.setup_started |= runner.allocation.is_some() && runner.is_alive();
                }
            }
            Event::Ready { runner } => self.becomes_ready(now, *runner),
            Event::Thawed { runner } => self.is_thawed(now, *runner),
            Event::NoRoom { runner, .. } => {
                if let Some(runner) = self.runners.get_mut(runner)
                    && !runner.setup_started
                    && runner.allocation.take().is_some()
                {
                    runner.no_rooms += 1;
                    runner.gone |= runner.stopping.is_some();
                }
            }
            Event::Exited { runner, .. } => {
                if let Some(runner) = self.runners.get_mut(runner)
                    && runner.allocation.take().is_some()
                {
                    runner.gone = true;
                }
            }
            Event::StopRequested { runner, how: StopRequest::ReplaceFirst } => {
                self.replacing = Some(*runner);
            }
            Event::ShutDown => self.shut_down = true,
            Event::PullStarted { .. }
            | Event::Frozen { .. }
            | Event::FreezeFailed { .. }
            | Event::CaptureRequested { .. }
            | Event::CaptureForgone { .. }
            | Event::Unhealthy { .. }
            | Event::Finished { .. }
            | Event::StopRequested { .. }
            | Event::WarmRequested { .. }
            | Event::Interest { .. } => {}
        }
    }

    fn begin_step(&mut self, now: Timestamp) {
        if now > self.this_step {
            self.last_step = self.this_step;
            self.this_step = now;
        }
        self.arriving = None;
        self.replacing = None;
        for app in self.apps.values_mut() {
            app.failed_just_now = false;
        }
    }

    fn becomes_ready(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        if !runner.setup_started || !runner.is_alive() || runner.ready || runner.thawing {
            return;
        }
        let waiting = self.waiting(runner.app, self.last_step);
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.ready = true;
            runner.was_waited_for = waiting > 0;
            runner.idle_since = now;
        }
    }

    fn is_thawed(&mut self, now: Timestamp, id: RunnerId) {
        let Some(runner) = self.runners.get(&id) else { return };
        if !runner.thawing || !runner.is_alive() {
            return;
        }
        let waiting = self.waiting(runner.app, self.last_step);
        if let Some(runner) = self.runners.get_mut(&id) {
            (runner.ready, runner.thawing) = (true, false);
            runner.was_waited_for = waiting > 0;
            runner.idle_since = now;
        }
    }

    /// Requests that wait, those included whose delay was over at `due`.
    fn waiting(&self, app: AppId, due: Timestamp) -> u32 {
        let waits = |request: &&Request| {
            let waits = match request.progress {
                Progress::Waiting => true,
                Progress::Delayed { until } => until <= due,
                Progress::InFlight(_) => false,
            };
            request.arrival.app == app && waits
        };
        count(self.requests.values().filter(waits).count())
    }

    fn in_flight(&self, app: AppId) -> u32 {
        let runs =
            |r: &&Request| r.arrival.app == app && matches!(r.progress, Progress::InFlight(_));
        count(self.requests.values().filter(runs).count())
    }

    /// Those that count.
    fn alive(&self, app: AppId) -> impl Iterator<Item = (&RunnerId, &Runner)> {
        let counts =
            move |runner: &Runner| runner.app == app && runner.is_alive() && !runner.is_aside();
        self.runners.iter().filter(move |(_, runner)| counts(runner))
    }

    /// The formula of the scaling parameters, written once more.
    fn desired(&self, app: AppId, volume: u64) -> u64 {
        let scaling = &self.apps[&app].spec.scaling;
        let places = u64::from(scaling.max_multiplexing.max(1));
        let demand = volume.div_ceil(places);
        let percent = (u64::from(scaling.concurrency_buffer_perc) * volume).div_ceil(100 * places);
        let wanted = demand + percent.max(u64::from(scaling.concurrency_buffer));
        let wanted = wanted.max(u64::from(scaling.min_concurrency));
        wanted.min(scaling.max_concurrency.map_or(u64::MAX, u64::from))
    }

    /// Compares the engine's answers for people with the facts.
    pub(crate) fn check_state(&self, engine: &Engine) -> Verdict {
        let (mut millis, mut bytes, mut count) = (0u128, 0u128, 0);
        for view in engine.runners() {
            count += 1;
            let runner = self.runners.get(&view.id).ok_or("a runner nobody wanted")?;
            ensure(view.in_flight == runner.in_flight.len(), "requests on a runner differ")?;
            ensure(view.allocation == runner.allocation.as_ref(), "held resources differ")?;
            let (is_there, is_frozen) =
                (runner.is_alive(), runner.is_alive() && runner.frozen.is_some());
            ensure(view.state.is_alive() == (is_there && !is_frozen), "alive or not differs")?;
            ensure((view.state == State::Frozen) == is_frozen, "frozen or not differs")?;
            ensure(!view.state.is_ready() || runner.ready, "ready too early")?;
            let is_idle = view.state == State::Idle && !runner.is_capture();
            ensure(is_idle == runner.is_idle(), "idle or not differs")?;
            if let Some(held) = &runner.allocation {
                millis += u128::from(held.cpu_millis);
                bytes += u128::from(held.memory_bytes);
            }
        }
        ensure(count == self.runners.len(), "a runner was lost")?;
        let free = (
            u128::from(self.capacity.cpu_millis).saturating_sub(millis),
            u128::from(self.capacity.memory_bytes).saturating_sub(bytes),
        );
        let told = engine.ledger().free();
        ensure((u128::from(told.0), u128::from(told.1)) == free, "the ledger is wrong")?;
        for (id, request) in &self.requests {
            let view = engine.request(*id).ok_or_else(|| format!("{id:?} was lost"))?;
            let same = match (&request.progress, view) {
                (Progress::InFlight(lease), RequestView::InFlight { runner, attempt }) => {
                    lease.runner == runner && lease.attempt == attempt
                }
                (Progress::Waiting | Progress::Delayed { .. }, RequestView::Waiting { .. }) => true,
                _ => false,
            };
            ensure(same, "a request is not where it should be")?;
        }
        Ok(())
    }
}

impl Runner {
    fn new(app: AppId, cause: StartCause, now: Timestamp) -> Self {
        Self {
            app,
            cause,
            allocation: None,
            starts: 0,
            no_rooms: 0,
            setup_started: false,
            ready: false,
            frozen: None,
            thawing: false,
            stopping: None,
            told: false,
            gone: false,
            in_flight: Vec::new(),
            served: 0,
            was_waited_for: false,
            idle_since: now,
            replaces: None,
        }
    }
}
