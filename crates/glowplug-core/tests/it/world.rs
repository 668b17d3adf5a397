//! Everything around the engine, on a virtual clock: backends that pull, set up, crash and end; gateways
//! that serve and report. It performs the engine's actions with delays of its own and checks after every
//! step what must always hold, from records of its own (`facts.rs`), not from the engine's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use glowplug_core::decision::Decision;
use glowplug_core::event::{Adopted, Event, StopRequest};
use glowplug_core::ids::{AppId, CallerId, HintId, Lease, RequestId, RunnerId};
use glowplug_core::request::{Answer, Arrival, Mode, Outcome, Priority};
use glowplug_core::resources::{Allocation, Capacity};
use glowplug_core::retry::Wish;
use glowplug_core::spec::AppSpec;
use glowplug_core::{Action, Engine, Rung, Timestamp, engine};

use crate::facts::Facts;

/// Steps that one `run` may take before it is judged to be a busy loop.
const STEPS_MAX: usize = 400_000;
/// Times the engine may ask to be advanced without time passing.
const ADVANCES_MAX: usize = 4;

/// How the runners and the answers of one app behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// Time in DOCKER_PULL; `None`: the image is cached.
    pub(crate) pull: Option<Duration>,
    pub(crate) setup: Setup,
    pub(crate) service: Duration,
    pub(crate) outcome: Ending,
    /// From SIGTERM to the end; SIGKILL comes after the grace period.
    pub(crate) exit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    Takes(Duration),
    /// Exits after this long.
    Crashes(Duration),
    Hangs,
    /// The backend has no room.
    NoRoom,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answers(u16),
    Breaks,
    CannotConnect,
    /// The runner dies with the request on it.
    RunnerDies,
    /// Never.
    Hangs,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            pull: None,
            setup: Setup::Takes(Duration::from_secs(2)),
            service: Duration::from_secs(1),
            outcome: Ending::Answers(200),
            exit: Duration::from_millis(100),
        }
    }
}

fn arrival(app: AppId, mode: Mode) -> Arrival {
    Arrival {
        request: RequestId(0),
        app,
        mode,
        priority: Priority::Normal,
        start_deadline: None,
        caller: CallerId::default(),
        hint: None,
        retries: Wish::Unsaid,
        attempts: 0,
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) facts: Facts,
    pub(crate) behaviours: BTreeMap<AppId, Behaviour>,
    coming: BTreeMap<(Timestamp, u64), Event>,
    event_sequence: u64,
    request_sequence: u128,
    /// Sentences of all decisions.
    pub(crate) story: Vec<String>,
    /// Repeats some reports, and makes some late.
    pub(crate) untidy: bool,
}

impl World {
    pub(crate) fn new(capacity: Capacity, config: engine::Config) -> Self {
        Self {
            facts: Facts::new(capacity.clone(), config.clone()),
            engine: Engine::new(config, capacity),
            now: Timestamp::ZERO,
            behaviours: BTreeMap::new(),
            coming: BTreeMap::new(),
            event_sequence: 0,
            request_sequence: 0,
            story: Vec::new(),
            untidy: false,
        }
    }

    pub(crate) fn deploy(&mut self, app: AppId, spec: AppSpec, behaviour: Behaviour) {
        self.behaviours.insert(app, behaviour);
        self.handle(Event::AppChanged { app, spec });
    }

    /// One request arrives; returns its id.
    pub(crate) fn arrive(&mut self, app: AppId, mode: Mode) -> RequestId {
        self.arrive_as(app, mode, Priority::Normal, None, Wish::Unsaid)
    }

    pub(crate) fn arrive_as(
        &mut self,
        app: AppId,
        mode: Mode,
        priority: Priority,
        start_within: Option<Duration>,
        retries: Wish,
    ) -> RequestId {
        let start_deadline = start_within.map(|span| self.now + span);
        self.come(&Arrival { priority, start_deadline, retries, ..arrival(app, mode) })
    }

    pub(crate) fn arrive_wishing(
        &mut self,
        app: AppId,
        mode: Mode,
        hint: Option<HintId>,
    ) -> RequestId {
        self.come(&Arrival { hint, ..arrival(app, mode) })
    }

    pub(crate) fn arrive_from(&mut self, app: AppId, caller: CallerId) -> RequestId {
        self.come(&Arrival { caller, ..arrival(app, Mode::Queued) })
    }

    /// Gives the request its number.
    fn come(&mut self, arrival: &Arrival) -> RequestId {
        self.request_sequence += 1;
        let request = RequestId(self.request_sequence);
        self.handle(Event::Arrived(Arrival { request, ..arrival.clone() }));
        request
    }

    pub(crate) fn stop(&mut self, runner: RunnerId, how: StopRequest) {
        self.handle(Event::StopRequested { runner, how });
    }

    pub(crate) fn adopt(
        &mut self,
        runner: RunnerId,
        app: AppId,
        allocation: Allocation,
        ready: bool,
        frozen: bool,
    ) {
        let started_at = self.now;
        let revision = self.facts.revision(app);
        self.handle(Event::Adopted(Adopted {
            runner,
            app,
            revision,
            allocation,
            started_at,
            ready,
            frozen,
        }));
    }

    /// The facts first, then the engine, then what it wants done.
    pub(crate) fn handle(&mut self, event: Event) {
        self.facts.before(self.now, &event);
        self.engine.handle(self.now, event);
        self.perform();
    }

    /// Lets a span of time pass, punctually.
    pub(crate) fn run(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    pub(crate) fn run_until(&mut self, until: Timestamp) {
        for _ in 0..STEPS_MAX {
            let event = self.coming.keys().next().map(|(at, _)| *at);
            let next = [event, self.engine.next_wakeup()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= until) else {
                self.now = self.now.max(until);
                return;
            };
            self.now = self.now.max(at);
            self.step();
        }
        panic!("busy loop\n{}", self.last_words());
    }

    /// Runs until nothing is to come: no event, no wake-up.
    pub(crate) fn run_out(&mut self) {
        self.run_until(Timestamp::from_micros(u64::MAX / 2));
        assert_eq!(self.engine.next_wakeup(), None, "{}", self.last_words());
    }

    /// Lets time pass without anybody looking, as on a suspended machine.
    pub(crate) fn oversleep(&mut self, span: Duration) {
        self.now = self.now + span;
        self.step();
    }

    fn step(&mut self) {
        self.engine.advance(self.now);
        self.perform();
        while let Some(entry) = self.coming.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let event = entry.remove();
            self.handle(event);
        }
    }

    fn perform(&mut self) {
        let mut actions = 0;
        loop {
            while let Some(action) = self.engine.next_action() {
                actions += 1;
                self.perform_one(action);
            }
            if self.engine.next_wakeup().is_none_or(|at| at > self.now) {
                break;
            }
            let mut advances = 0;
            while self.engine.next_wakeup().is_some_and(|at| at <= self.now) {
                assert!(advances < ADVANCES_MAX, "busy at {:?}\n{}", self.now, self.last_words());
                advances += 1;
                self.engine.advance(self.now);
            }
        }
        let limit = 200 + 64 * (self.facts.app_count() + self.facts.size());
        assert!(actions <= limit, "{actions} actions at once\n{}", self.last_words());
        self.check();
    }

    fn perform_one(&mut self, action: Action) {
        if let Err(violation) = self.facts.check_action(self.now, &action) {
            panic!("{violation}\nat {:?} {action:?}\n{}", self.now, self.last_words());
        }
        match action {
            Action::Start { runner, app, .. } => self.begin(runner, app),
            Action::Stop { runner, grace, .. } => self.end(runner, grace),
            Action::Assign { lease, .. } => self.serve(lease),
            Action::Note(decision) => self.tell(&decision),
            Action::Freeze { runner } => self.freeze(runner),
            Action::Thaw { runner } => {
                self.later(Duration::from_millis(2), Event::Thawed { runner });
            }
            Action::Probe { .. }
            | Action::Forget { .. }
            | Action::Refuse { .. }
            | Action::Deliver { .. }
            | Action::Retry { .. }
            | Action::Revoke { .. }
            | Action::Interrupt { .. } => {}
        }
    }

    fn begin(&mut self, runner: RunnerId, app: AppId) {
        let behaviour = self.behaviours.get(&app).copied().unwrap_or_default();
        if behaviour.setup == Setup::NoRoom {
            self.later(Duration::ZERO, Event::NoRoom { runner, detail: "full".into() });
            return;
        }
        let mut after = Duration::ZERO;
        if let Some(pull) = behaviour.pull {
            self.later(after, Event::PullStarted { runner });
            after += pull;
        }
        self.later(after, Event::SetupStarted { runner, rung: Rung::ImageCached });
        match behaviour.setup {
            Setup::Takes(setup) => self.later(after + setup, Event::Ready { runner }),
            Setup::Crashes(setup) => {
                let detail = "exit code 1".into();
                self.later(after + setup, Event::Exited { runner, detail });
            }
            Setup::Hangs | Setup::NoRoom => {}
        }
    }

    fn freeze(&mut self, runner: RunnerId) {
        let can = self.behaviour_of(runner).setup != Setup::Hangs;
        let event = if can {
            Event::Frozen { runner, held_bytes: 1 }
        } else {
            Event::FreezeFailed { runner, detail: "no control groups".into() }
        };
        self.later(Duration::from_millis(1), event);
    }

    fn end(&mut self, runner: RunnerId, grace: Option<Duration>) {
        let behaviour = self.behaviour_of(runner);
        let after = grace.map_or(Duration::ZERO, |grace| behaviour.exit.min(grace));
        self.exits(runner, after, "ended");
    }

    /// The runner's program ends, and what is in flight on it breaks.
    pub(crate) fn exits(&mut self, runner: RunnerId, after: Duration, detail: &str) {
        self.later(after, Event::Exited { runner, detail: detail.into() });
        for lease in self.facts.leases_on(runner) {
            self.later(after, Event::Finished { lease, outcome: Outcome::Disconnected });
        }
    }

    fn serve(&mut self, lease: Lease) {
        let behaviour = self.behaviour_of(lease.runner);
        let outcome = match behaviour.outcome {
            Ending::Answers(status) => Outcome::Answered(Answer { status, ..Answer::default() }),
            Ending::Breaks => Outcome::Disconnected,
            Ending::CannotConnect => Outcome::ConnectFailed,
            Ending::RunnerDies => {
                let runner = lease.runner;
                self.later(behaviour.service, Event::Exited { runner, detail: "killed".into() });
                Outcome::Disconnected
            }
            Ending::Hangs => return,
        };
        self.later(behaviour.service, Event::Finished { lease, outcome });
    }

    fn behaviour_of(&self, runner: RunnerId) -> Behaviour {
        let app = self.facts.app_of(runner);
        app.and_then(|app| self.behaviours.get(&app)).copied().unwrap_or_default()
    }

    pub(crate) fn later(&mut self, after: Duration, event: Event) {
        self.event_sequence += 1;
        if self.untidy && self.event_sequence.is_multiple_of(5) {
            // Once more, and out of order.
            let again = after + Duration::from_millis(self.event_sequence % 7 * 400);
            self.coming.insert((self.now + again, self.event_sequence), event.clone());
            self.event_sequence += 1;
        }
        self.coming.insert((self.now + after, self.event_sequence), event);
    }

    fn check(&self) {
        if let Err(violation) = self.facts.check_state(&self.engine) {
            panic!("{violation}\nat {:?}\n{}", self.now, self.last_words());
        }
    }

    fn tell(&mut self, decision: &Decision) {
        let mut sentence = decision.to_string();
        while let Some(at) = sentence.find("00000000-0000-") {
            let uuid = at..at + 36;
            let number = u128::from_str_radix(&sentence[uuid.clone()].replace('-', ""), 16);
            sentence.replace_range(uuid, &format!("q{}", number.unwrap_or_default()));
        }
        let secs = Duration::from_micros(decision.at.as_micros()).as_secs_f64();
        self.story.push(format!("{secs:7.2} {sentence}"));
    }

    /// What was decided so far; forgets it.
    pub(crate) fn story(&mut self) -> String {
        let mut text = String::new();
        for line in self.story.drain(..) {
            let _ = writeln!(text, "{}", line.trim_start());
        }
        text
    }

    fn last_words(&self) -> String {
        self.story[self.story.len().saturating_sub(40)..].join("\n")
    }

    /// Runners that are alive, in the order in which they were wanted.
    pub(crate) fn alive(&self, app: AppId) -> Vec<RunnerId> {
        self.engine
            .runners()
            .filter(|view| view.app == app && view.state.is_alive())
            .map(|view| view.id)
            .collect()
    }

    /// `RUNNING 2`: states of an app's runners with their requests in flight.
    pub(crate) fn states(&self, app: AppId) -> String {
        let states: Vec<String> = self
            .engine
            .runners()
            .filter(|view| view.app == app)
            .map(|view| match view.in_flight {
                0 => view.state.to_string(),
                some => format!("{} {some}", view.state),
            })
            .collect();
        states.join(", ")
    }
}
