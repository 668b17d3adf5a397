//! The loop: takes what comes next, lets the engine handle it, and has its actions performed.
//!
//! Of the same moment, wake-ups come first, then what was under way, then arrivals: a place that becomes free
//! the moment a request comes is free for it, and a runner that expires that moment is gone.
//!
//! | file | holds |
//! | --- | --- |
//! | `backend.rs` | starts and ends runners |
//! | `service.rs` | lets runners work on requests |
//! | `reports.rs` | brings what happened to the engine, tidily or not |
//! | `script.rs` | what happens beside the traffic |

mod backend;
mod reports;
mod script;
mod service;

use glowplug_core::event::Event;
use glowplug_core::request::Mode;
use glowplug_core::retry::Wish;
use glowplug_core::{Action, AppId, CallerId, Engine, RequestId, Timestamp, request};

use super::agenda::{Agenda, Entry, Kind};
use super::checkers::{Facts, Verdict};
use super::digest::Digest;
use super::{Failure, OVERTIME_MAX, REQUESTS_OPEN_MAX, RUNNERS_MAX, STUCK_EVENTS_MAX, World};
use crate::model::{AppModel, Faults, Purpose, Sampler, Stream, micros, mix};
use crate::outcome::{End, Outcome, Scope, Tally};
use crate::traffic::Arrival;

/// Wake-ups and events after everything has ended, until the engine is judged never to come to rest.
const QUIET_EVENTS_MAX: u64 = 1_000_000;

/// An app with its random numbers.
#[derive(Debug)]
struct App {
    service: Sampler,
    faults: Faults,
    slowdown: f64,
    arrivals: u64,
    request_luck: u64,
    /// Apart, since it is needed seldom.
    starts: Box<Starts>,
}

/// What an app's starts draw from.
#[derive(Debug)]
struct Starts {
    pull: Option<Sampler>,
    /// When what its starts need is on the disk.
    pulled_at: Option<Timestamp>,
    setup: Sampler,
    exit: Sampler,
    count: u64,
    luck: u64,
}

impl App {
    fn new(model: &AppModel, seed: u64, nth: u32) -> Self {
        let sampler = |model, purpose| Sampler::new(model, seed, purpose, nth);
        let starts = Starts {
            pull: model.pull.as_ref().map(|pull| sampler(pull, Purpose::Pull)),
            pulled_at: None,
            setup: sampler(&model.setup, Purpose::Setup),
            exit: sampler(&model.exit, Purpose::Exit),
            count: 0,
            luck: Stream::new(seed, Purpose::StartFaults, nth).bits(),
        };
        Self {
            service: sampler(&model.service, Purpose::Service),
            faults: model.faults,
            slowdown: model.slowdown,
            arrivals: 0,
            request_luck: Stream::new(seed, Purpose::RequestFaults, nth).bits(),
            starts: Box::new(starts),
        }
    }
}

/// One simulation under way. `W` is shown every action before it is performed.
pub(super) struct Driver<'w, T, W> {
    world: &'w World,
    watch: W,
    traffic: T,
    coming: Option<Arrival>,
    /// Requests that have come.
    number: u64,
    last_arrival: Timestamp,
    engine: Engine,
    now: Timestamp,
    agenda: Agenda,
    facts: Facts,
    apps: Vec<App>,
    tally: Tally,
    digest: Digest,
    events: u64,
    /// Happenings that are still to come.
    happenings_left: usize,
    /// Reports that are held up, by their index in the agenda.
    held_up: Vec<Option<reports::Report>>,
    held_up_free: Vec<u32>,
    untidiness: Stream,
    last_answer: Timestamp,
    /// The event by which the last request came, was answered or refused.
    last_headway: u64,
    quiet_events: u64,
    sharing_generation: u32,
    /// Anything but [`End::AllOver`]: the end came before all was over.
    end: End,
    /// What was being done, for the words of a failure.
    doing: Option<Action>,
}

/// Whether a simulation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    GoesOn,
    Over,
}

impl<'w, E, T, W> Driver<'w, T, W>
where
    E: std::error::Error + 'static,
    T: Iterator<Item = Result<Arrival, E>>,
    W: FnMut(Timestamp, u64, &Action),
{
    pub(super) fn new(world: &'w World, traffic: T, watch: W) -> Result<Self, Failure<E>> {
        let apps = (0..).zip(&world.apps);
        let mut driver = Self {
            world,
            watch,
            traffic,
            coming: None,
            number: 0,
            last_arrival: Timestamp::ZERO,
            engine: Engine::new(world.engine.clone(), world.capacity.clone()),
            now: Timestamp::ZERO,
            agenda: Agenda::default(),
            facts: Facts::new(world.engine.boot, world.capacity.clone()),
            apps: apps.map(|(nth, model)| App::new(model, world.seed, nth)).collect(),
            tally: Tally::new(&Scope {
                apps: world.apps.len(),
                moments_max: world.moments_max,
                count_from: world.count_from,
                parts: world.parts.as_ref(),
            }),
            digest: Digest::default(),
            events: 0,
            happenings_left: world.happenings.len(),
            held_up: Vec::new(),
            held_up_free: Vec::new(),
            untidiness: Stream::new(world.seed, Purpose::Untidiness, 0),
            last_answer: Timestamp::ZERO,
            last_headway: 0,
            quiet_events: 0,
            sharing_generation: 0,
            end: End::AllOver,
            doing: None,
        };
        driver.enter_happenings();
        driver.pull_arrival()?;
        driver.deploy_all()?;
        Ok(driver)
    }

    fn deploy_all(&mut self) -> Result<(), Failure<E>> {
        for (app, model) in (0..).zip(&self.world.apps) {
            self.facts.app_changed(app, model.spec.clone());
            let event = Event::AppChanged { app: AppId(app), spec: model.spec.clone() };
            self.deliver(event).map_err(|rule| self.broken(rule))?;
            self.check_size()?;
        }
        Ok(())
    }

    /// Takes the next arrival out of the traffic, so that it is known when it comes.
    fn pull_arrival(&mut self) -> Result<(), Failure<E>> {
        let before = self.last_arrival;
        self.coming = self.traffic.next().transpose().map_err(Failure::Traffic)?;
        let Some(arrival) = &self.coming else { return Ok(()) };
        self.number += 1;
        let (number, at, app) = (self.number, arrival.at, arrival.app);
        if at < before {
            return Err(Failure::Unordered { number, at, before });
        }
        if app as usize >= self.apps.len() {
            return Err(Failure::UnknownApp { number, app, apps: self.apps.len() });
        }
        self.last_arrival = at;
        Ok(())
    }

    /// Events so far, and the fingerprint of what they led to.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.events, self.digest.value())
    }

    /// Lets the next thing happen.
    pub(super) fn step(&mut self) -> Result<Course, Failure<E>> {
        let arrival = self.coming.as_ref().map_or(Timestamp::MAX, |arrival| arrival.at);
        let entry = self.agenda.next_at().unwrap_or(Timestamp::MAX);
        let wake_up = self.engine.next_wakeup().unwrap_or(Timestamp::MAX);
        let event = arrival.min(entry);
        let next = event.min(wake_up).max(self.now);
        if self.is_over(next) {
            return Ok(Course::Over);
        }
        if next > self.now {
            self.cut(next);
            self.tally.time_passes(next);
            self.now = next;
            self.facts.goes_on();
        }
        if wake_up < event || wake_up < next {
            self.wake_up().map_err(|rule| self.broken(rule))?;
        } else if entry <= arrival {
            let Some(entry) = self.agenda.pop() else { return Ok(Course::Over) };
            self.happen(entry).map_err(|rule| self.broken(rule))?;
        } else if let Some(arrival) = self.coming.take() {
            self.arrive(&arrival).map_err(|rule| self.broken(rule))?;
            self.pull_arrival()?;
        }
        self.check_size()?;
        Ok(Course::GoesOn)
    }

    /// Ends a world that outgrows the memory it may take.
    fn check_size(&self) -> Result<(), Failure<E>> {
        let (open, runners, at) = (self.facts.requests.open(), self.facts.roster.len(), self.now);
        if open > REQUESTS_OPEN_MAX {
            return Err(Failure::TooManyOpen { count: open, at });
        }
        if runners > RUNNERS_MAX {
            return Err(Failure::TooManyRunners { count: runners, at });
        }
        Ok(())
    }

    /// Closes the books on what was before the moments that divide the measures, up to `next`.
    fn cut(&mut self, next: Timestamp) {
        while self.tally.next_cut() <= next {
            for place in self.facts.roster.by_age() {
                let Some(runner) = self.facts.roster.get_mut(place) else { continue };
                if !runner.told.exited {
                    self.tally.cut(runner.told.app, &mut runner.account);
                }
            }
            self.tally.pass_cut();
        }
    }

    fn is_over(&mut self, next: Timestamp) -> bool {
        if next == Timestamp::MAX {
            return true;
        }
        if let Some(until) = self.world.until {
            self.end = if next >= until { End::Until } else { End::AllOver };
            return self.end == End::Until;
        }
        if self.coming.is_some() || self.happenings_left > 0 {
            return false;
        }
        if self.world.until_answered && self.facts.requests.open() == 0 {
            self.end = End::Answered;
            return true;
        }
        if self.facts.only_floors_live() {
            self.quiet_events += 1;
            return self.facts.keeps_floors();
        }
        if next > self.last_arrival + OVERTIME_MAX {
            self.end = End::Overtime;
        } else if self.facts.requests.open() > 0
            && self.events - self.last_headway > STUCK_EVENTS_MAX
        {
            self.end = End::Stuck;
        }
        self.end != End::AllOver
    }

    fn wake_up(&mut self) -> Verdict<()> {
        self.events += 1;
        self.facts.woken()?;
        if self.quiet_events > QUIET_EVENTS_MAX {
            return Err("the engine never comes to rest");
        }
        self.engine.advance(self.now);
        self.perform_all()
    }

    fn happen(&mut self, entry: Entry) -> Verdict<()> {
        match entry.kind {
            Kind::AttemptEnds => self.attempt_ends(entry.index, entry.generation),
            Kind::ConnectFails => self.connect_fails(entry.index, entry.generation),
            Kind::StageEnds => self.stage_ends(entry.index, entry.generation),
            Kind::SharedWorkEnds => self.shared_work_ends(entry.index, entry.generation),
            Kind::ReportComes => self.report_comes(entry.index),
            Kind::Happens => self.happening(entry.index),
        }
    }

    fn arrive(&mut self, arrival: &Arrival) -> Verdict<()> {
        let app = &mut self.apps[arrival.app as usize];
        let work = arrival.service.map_or_else(|| app.service.draw(), micros);
        app.arrivals += 1;
        let luck = mix(app.request_luck ^ app.arrivals);
        let handle = self.facts.requests.enter(arrival.app, arrival.mode, self.now);
        let request = self.facts.requests.get_mut(handle);
        (request.work, request.luck) = (work, luck);
        let start_deadline = arrival.start_within.map(|span| self.now + span);
        request.start_deadline = start_deadline.unwrap_or(Timestamp::MAX);
        let id = request.id();
        self.last_headway = self.events;
        self.tally.arrived(self.now, arrival.app, work);
        if arrival.mode == Mode::Queued && self.queue_is_full(arrival.app) {
            return self.refuse(id, arrival.mode);
        }
        self.deliver(Event::Arrived(request::Arrival {
            request: id,
            app: AppId(arrival.app),
            mode: arrival.mode,
            priority: arrival.priority,
            start_deadline,
            caller: CallerId::default(),
            hint: None,
            retries: Wish::Unsaid,
            attempts: 0,
        }))
    }

    /// The engine takes every queued request it is told of, since it was accepted before. This is where a
    /// node would not accept it.
    fn queue_is_full(&self, app: u32) -> bool {
        self.engine.waiting_count(AppId(app)) >= self.world.engine.waiting_max
    }

    /// Gives the engine an event and performs what follows from it.
    fn deliver(&mut self, event: Event) -> Verdict<()> {
        self.events += 1;
        self.facts.goes_on();
        self.engine.handle(self.now, event);
        self.perform_all()
    }

    fn perform_all(&mut self) -> Verdict<()> {
        let mut actions = 0;
        while let Some(action) = self.engine.next_action() {
            actions += 1;
            (self.watch)(self.now, self.events, &action);
            self.digest.take(self.now, &action);
            if let Err(rule) = self.perform(&action) {
                self.doing = Some(action);
                return Err(rule);
            }
        }
        self.facts.acted(actions)
    }

    fn perform(&mut self, action: &Action) -> Verdict<()> {
        match action {
            Action::Assign { lease, mode } => self.serve(*lease, *mode)?,
            Action::Deliver { lease } => {
                let (handle, place) = self.facts.deliver(*lease)?;
                self.release(place);
                let request = self.facts.requests.get(handle);
                self.tally.answered(request.app, request.arrived, request.failed);
                self.leave(handle);
            }
            Action::Retry { lease, delay } => {
                let (handle, place) = self.facts.retry(self.now, *lease, *delay)?;
                self.release(place);
                self.tally.retried(self.facts.requests.get(handle).app);
            }
            Action::Revoke { lease, .. } => {
                let handle = self.facts.revoke(*lease)?;
                self.take_away(handle);
                self.facts.requests.get_mut(handle).failed = true;
            }
            Action::Refuse { request, mode, .. } => self.refuse(*request, *mode)?,
            Action::Start { runner, app, allocation, cause, .. } => {
                let place = self.facts.start(self.now, *runner, app.0, allocation)?;
                self.tally.started(self.now, app.0, *cause);
                self.begin(place, app.0);
            }
            Action::Stop { runner, grace, reason } => {
                let place = self.facts.stop(*runner, *grace)?;
                self.end(place, *grace, reason);
            }
            Action::Freeze { runner } => self.freeze(*runner)?,
            Action::Thaw { runner } => self.thaw(*runner)?,
            Action::Probe { runner } => self.probe(*runner),
            Action::Forget { runner } => self.facts.forget(*runner)?,
            Action::Note(decision) => self.facts.noted(decision),
            Action::Interrupt { .. } => {}
        }
        Ok(())
    }

    fn refuse(&mut self, id: RequestId, mode: Mode) -> Verdict<()> {
        let handle = self.facts.refuse(id, mode)?;
        let request = self.facts.requests.get(handle);
        self.tally.refused(request.app, request.arrived, request.attempts == 0);
        self.leave(handle);
        Ok(())
    }

    /// A request is over.
    fn leave(&mut self, handle: u32) {
        self.facts.requests.leave(handle);
        (self.last_answer, self.last_headway) = (self.now, self.events);
    }

    fn broken(&self, rule: &'static str) -> Failure<E> {
        Failure::Broken {
            rule,
            at: self.now,
            event: self.events,
            action: self.doing.as_ref().map_or("no action".into(), ToString::to_string),
            replay: self.replay(),
        }
    }

    pub(super) fn replay(&self) -> String {
        format!("--seed {} --event {}", self.world.seed, self.events)
    }

    /// Closes the books.
    pub(super) fn finish(mut self) -> Result<Outcome, Failure<E>> {
        if self.end == End::AllOver {
            let records = self.engine.runner_count();
            self.facts.check_rest(records).map_err(|rule| self.broken(rule))?;
        }
        let end = match self.world.until {
            Some(until) => until,
            None if matches!(self.end, End::AllOver | End::Answered) => self.last_answer,
            None => self.now,
        };
        self.cut(end);
        for request in self.facts.requests.all() {
            self.tally.left(request.app, request.arrived, request.attempts == 0);
        }
        for place in self.facts.roster.by_age() {
            if let Some(runner) = self.facts.roster.get(place).filter(|runner| !runner.told.exited)
            {
                let (mut account, in_use) = (runner.account, runner.told.in_flight > 0);
                self.tally.ended(end, runner.told.app, &mut account, in_use);
            }
        }
        let why = self.end;
        let outcome = self.tally.into_outcome(end, self.events, self.digest.value());
        Ok(Outcome { end: why, ..outcome })
    }
}
