//! fal's table of runner answers through the engine: what becomes of the runner, how many attempts there
//! are, and under which condition the others were made.

use std::time::Duration;

use glowplug_core::decision::What;
use glowplug_core::engine::Config;
use glowplug_core::event::{Event, StopRequest};
use glowplug_core::request::{Answer, Arrival, Mode, Outcome, Priority, Refusal};
use glowplug_core::retry::Condition::{ClientError, ConnectionError, ServerError, Timeout};
use glowplug_core::retry::{Budgets, Condition, Conditions, Delays, Rules, Wish};
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{Action, CallerId, Engine, Lease, RequestId, Rung, Timestamp};

use crate::fleet::{A, capacity, secs, spec};

const REQUEST: RequestId = RequestId(7);
/// No story here comes near.
const ACTIONS_MAX: usize = 2_000;

/// How every attempt ends.
#[derive(Clone, Debug)]
enum Ends {
    With(Outcome),
    /// Not within `request_timeout`.
    Overrun,
    /// Its runner crashes, and the gateway sees the connection break.
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Kept,
    Probed,
    /// Told to end, or gone.
    Stopped,
}

/// What was seen of one request.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    attempts: u32,
    retried: Option<Condition>,
    /// After the first attempt.
    runner: Runner,
}

/// A node with one app, on which every attempt of one request ends in the same way.
struct Stage {
    engine: Engine,
    now: Timestamp,
    ends: Ends,
    attempts: u32,
    retried: Vec<Condition>,
    runner: Runner,
    delivered: bool,
    ids: Vec<Lease>,
}

impl Stage {
    fn new(rules: Rules, ends: Ends) -> Self {
        let scaling = Scaling { request_timeout: secs(30), ..Scaling::default() };
        let spec = AppSpec { retry: rules, ..spec(A, scaling) };
        let mut stage = Self {
            engine: Engine::new(Config::default(), capacity(4)),
            now: Timestamp::ZERO,
            ends,
            attempts: 0,
            retried: Vec::new(),
            runner: Runner::Kept,
            delivered: false,
            ids: Vec::new(),
        };
        stage.handle(Event::AppChanged { app: A, spec });
        stage
    }

    fn arrive(&mut self, mode: Mode, retries: Wish) {
        self.handle(Event::Arrived(arrival(mode, retries)));
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(self.now, event);
        self.perform();
    }

    /// Performs what the engine wants, time included, until the request has its answer.
    fn perform(&mut self) {
        for _ in 0..ACTIONS_MAX {
            if let Some(action) = self.engine.next_action() {
                self.perform_one(action);
            } else if self.delivered || self.attempts == 0 {
                return;
            } else if let Some(at) = self.engine.next_wakeup() {
                self.now = self.now.max(at);
                self.engine.advance(self.now);
            }
        }
        panic!("it never ends: {:?}", self.ids);
    }

    fn perform_one(&mut self, action: Action) {
        match action {
            Action::Start { runner, .. } => {
                self.engine
                    .handle(self.now, Event::SetupStarted { runner, rung: Rung::ImageCached });
                self.engine.handle(self.now, Event::Ready { runner });
            }
            Action::Assign { lease, .. } => {
                self.attempts += 1;
                self.ids.push(lease);
                assert_eq!(lease.attempt, self.attempts);
                self.end(lease);
            }
            Action::Probe { .. } if self.attempts == 1 => self.runner = Runner::Probed,
            Action::Stop { runner, .. } => {
                if self.attempts == 1 {
                    self.runner = Runner::Stopped;
                }
                let detail = "ended".to_owned();
                self.engine.handle(self.now, Event::Exited { runner, detail });
            }
            Action::Revoke { refusal, .. } => {
                assert_eq!(refusal, Refusal::RequestTimeout { seconds: 30 });
            }
            Action::Retry { lease, delay } => {
                assert!(delay > Duration::ZERO && delay <= Delays::default().max, "{delay:?}");
                assert_eq!(lease.attempt, self.attempts);
            }
            Action::Deliver { .. } => self.delivered = true,
            Action::Note(decision) => {
                if let What::Retried { condition, .. } = decision.what {
                    self.retried.push(condition);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, lease: Lease) {
        match self.ends.clone() {
            Ends::With(outcome) => {
                self.engine.handle(self.now, Event::Finished { lease, outcome });
            }
            Ends::Overrun => {}
            Ends::Crash => {
                if self.attempts == 1 {
                    self.runner = Runner::Stopped;
                }
                let (runner, detail) = (lease.runner, "signal 11".to_owned());
                self.engine.handle(self.now, Event::Exited { runner, detail });
                let outcome = Outcome::Disconnected;
                self.engine.handle(self.now, Event::Finished { lease, outcome });
            }
        }
    }
}

fn story(mode: Mode, retries: Wish, rules: Rules, ends: Ends) -> Story {
    let mut stage = Stage::new(rules, ends);
    stage.arrive(mode, retries);
    assert!(stage.delivered, "it has no answer");
    let retried = stage.retried.first().copied();
    assert_eq!(stage.retried.len(), stage.attempts as usize - 1);
    Story { attempts: stage.attempts, retried, runner: stage.runner }
}

fn arrival(mode: Mode, retries: Wish) -> Arrival {
    Arrival {
        request: REQUEST,
        app: A,
        mode,
        priority: Priority::Normal,
        start_deadline: None,
        caller: CallerId::default(),
        hint: None,
        retries,
        attempts: 0,
    }
}

fn says(status: u16) -> Ends {
    Ends::With(Outcome::Answered(Answer { status, ..Answer::default() }))
}

fn asks(status: u16, needs_retry: bool) -> Ends {
    let answer = Answer { status, needs_retry: Some(needs_retry), ..Answer::default() };
    Ends::With(Outcome::Answered(answer))
}

#[test]
fn what_each_outcome_does_to_runner_and_request() {
    use Runner::{Kept, Probed, Stopped};
    for (ends, runner, retried) in [
        (says(200), Kept, None),
        (says(204), Kept, None),
        (says(302), Kept, None),
        (says(400), Kept, None),
        (says(404), Kept, None),
        (says(422), Kept, None),
        (says(429), Kept, None),
        (says(500), Probed, None),
        (says(502), Probed, None),
        (says(503), Stopped, Some(ServerError)),
        (says(504), Probed, Some(ServerError)),
        (Ends::With(Outcome::Disconnected), Stopped, Some(ConnectionError)),
        (Ends::Crash, Stopped, Some(ConnectionError)),
        (Ends::With(Outcome::ConnectFailed), Probed, Some(ConnectionError)),
        (Ends::Overrun, Stopped, Some(Timeout)),
        (Ends::With(Outcome::CallerGone), Kept, None),
        // What the app asks for.
        (asks(500, true), Probed, Some(ServerError)),
        (asks(502, true), Probed, Some(ServerError)),
        (asks(429, true), Kept, Some(ClientError)),
        (asks(503, false), Stopped, None),
        (asks(504, false), Probed, None),
        (asks(404, true), Kept, None),
        (asks(200, true), Kept, None),
    ] {
        let attempts = if retried.is_some() { 10 } else { 1 };
        let expected = Story { attempts, retried, runner };
        let found = story(Mode::Queued, Wish::Unsaid, Rules::default(), ends.clone());
        assert_eq!(found, expected, "{ends:?}");
        // A direct call does the same to the runner, and is tried once.
        let found = story(Mode::Direct, Wish::Unsaid, Rules::default(), ends.clone());
        assert_eq!(found, Story { attempts: 1, retried: None, runner }, "direct: {ends:?}");
        // A caller that forbids retries has its way.
        let found = story(Mode::Queued, Wish::Never, Rules::default(), ends.clone());
        assert_eq!(found, Story { attempts: 1, retried: None, runner }, "forbidden: {ends:?}");
    }
}

#[test]
fn budgets_and_skip_lists_in_their_order() {
    let crash = || Ends::Crash;
    let of = |condition, retries| {
        let mut budgets = Budgets::default();
        *match condition {
            Timeout => &mut budgets.timeout,
            ClientError => &mut budgets.client_error,
            ServerError => &mut budgets.server_error,
            ConnectionError => &mut budgets.connection_error,
        } = Some(retries);
        budgets
    };
    let app = |condition, retries| Rules { budgets: of(condition, retries), ..Rules::default() };
    let skip = |conditions: &[Condition]| Rules {
        skip: conditions.iter().copied().collect::<Conditions>(),
        ..Rules::default()
    };
    let caller = |condition, retries| Wish::Budgets(of(condition, retries));
    let skips_all = skip(&[Timeout, ServerError, ConnectionError]);
    for (wish, rules, ends, attempts) in [
        // Each condition has its own budget.
        (Wish::Unsaid, app(Timeout, 2), Ends::Overrun, 3),
        (Wish::Unsaid, app(Timeout, 2), crash(), 10),
        (Wish::Unsaid, app(ConnectionError, 1), crash(), 2),
        (Wish::Unsaid, app(ServerError, 0), says(503), 1),
        (Wish::Unsaid, app(ClientError, 3), says(422), 4),
        (Wish::Unsaid, app(ServerError, 3), says(500), 1),
        (Wish::Unsaid, app(ServerError, 1_000), says(503), 10),
        // The skip list.
        (Wish::Unsaid, skips_all, Ends::Overrun, 1),
        (Wish::Unsaid, skips_all, says(503), 1),
        (Wish::Unsaid, skips_all, crash(), 1),
        (Wish::Unsaid, skips_all, asks(503, true), 10),
        (Wish::Unsaid, skips_all, asks(429, true), 10),
        (Wish::Unsaid, skip(&[Timeout]), says(503), 10),
        // The caller before the app.
        (caller(ServerError, 4), skips_all, says(504), 5),
        (caller(ServerError, 1), app(ServerError, 5), says(503), 2),
        (caller(Timeout, 1), app(ServerError, 5), says(503), 6),
        (Wish::Never, app(ServerError, 5), asks(503, true), 1),
    ] {
        let found = story(Mode::Queued, wish, rules, ends.clone()).attempts;
        assert_eq!(found, attempts, "{wish:?} {rules:?} {ends:?}");
    }
}

#[test]
fn the_app_may_say_what_becomes_of_its_runner() {
    for (status, stop_runner, runner) in [
        (503, Some(false), Runner::Kept),
        (200, Some(true), Runner::Stopped),
        (500, Some(false), Runner::Kept),
        (404, Some(true), Runner::Stopped),
    ] {
        let answer = Answer { status, stop_runner, ..Answer::default() };
        let ends = Ends::With(Outcome::Answered(answer));
        let found = story(Mode::Queued, Wish::Never, Rules::default(), ends).runner;
        assert_eq!(found, runner, "{status} {stop_runner:?}");
    }
}

#[test]
fn failed_starts_use_up_no_attempts() {
    let mut engine = Engine::new(Config::default(), capacity(1));
    let spec = spec(A, Scaling::default());
    engine.handle(Timestamp::ZERO, Event::AppChanged { app: A, spec });
    let arrival = arrival(Mode::Queued, Wish::Unsaid);
    engine.handle(Timestamp::ZERO, Event::Arrived(arrival));
    let (mut now, mut failed) = (Timestamp::ZERO, 0);
    for _ in 0..ACTIONS_MAX {
        match engine.next_action() {
            Some(Action::Start { runner, .. }) if failed < 30 => {
                failed += 1;
                engine.handle(now, Event::SetupStarted { runner, rung: Rung::ImageCached });
                engine.handle(now, Event::Exited { runner, detail: "exit code 1".into() });
            }
            Some(Action::Start { runner, .. }) => {
                engine.handle(now, Event::SetupStarted { runner, rung: Rung::ImageCached });
                engine.handle(now, Event::Ready { runner });
            }
            Some(Action::Assign { lease, .. }) => {
                assert_eq!((lease.attempt, failed), (1, 30));
                return;
            }
            Some(_) => {}
            None => {
                now = engine.next_wakeup().expect("the start is tried again").max(now);
                engine.advance(now);
            }
        }
    }
    panic!("it never got a runner");
}

#[test]
fn a_runner_that_somebody_kills_costs_its_request_one_attempt() {
    let mut stage = Stage::new(Rules::default(), Ends::Overrun);
    stage.attempts = 0;
    stage.engine.handle(stage.now, Event::WarmRequested { app: A, runners: 1 });
    stage.perform();
    let runner = stage.engine.runners().next().map(|view| view.id).unwrap();
    let arrival = arrival(Mode::Queued, Wish::Unsaid);
    stage.engine.handle(stage.now, Event::Arrived(arrival));
    stage.engine.handle(stage.now, Event::StopRequested { runner, how: StopRequest::Kill });
    let lease = Lease { request: REQUEST, attempt: 1, runner };
    stage.engine.handle(stage.now, Event::Exited { runner, detail: "signal 9".into() });
    let outcome = Outcome::Disconnected;
    stage.engine.handle(stage.now, Event::Finished { lease, outcome });
    let mut retries = 0;
    while let Some(action) = stage.engine.next_action() {
        retries += usize::from(matches!(action, Action::Retry { .. }));
    }
    assert_eq!(retries, 1);
}
