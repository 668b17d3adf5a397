//! How many events the engine handles per second under loads of different shapes. Prints one JSON line per
//! load: the median of several runs, with the fastest. An event is one `handle` or `advance`.
//!
//! Name loads as arguments to run only these.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use glowplug_core::engine::Config;
use glowplug_core::event::Event;
use glowplug_core::request::{Answer, Arrival, Mode, Outcome, Priority};
use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::retry::{Rules, Wish};
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{Action, AppId, CallerId, Engine, Lease, RequestId, Rung, RunnerId, Timestamp};

const RUNS: usize = 7;

/// A closed loop: so many requests are under way at every moment, and each that ends is followed by the
/// next one.
struct Load {
    name: &'static str,
    apps: u32,
    /// In flight or waiting, over all apps.
    under_way: u32,
    requests: u32,
    scaling: Scaling,
    /// Time between two requests.
    step: Duration,
    end: Order,
}

#[derive(Clone, Copy)]
enum Order {
    FirstIn,
    AnyOrder,
}

fn loads() -> Vec<Load> {
    let warm = Scaling { keep_alive: Duration::from_hours(24), ..Scaling::default() };
    let step = Duration::from_micros(5);
    let base = |name, apps, under_way| Load {
        name,
        apps,
        under_way,
        requests: 500_000,
        scaling: warm,
        step,
        end: Order::FirstIn,
    };
    vec![
        base("one_app", 1, 1),
        base("apps_10000", 10_000, 1),
        base("apps_10000_busy", 10_000, 5_000),
        Load { end: Order::AnyOrder, ..base("runners_1000", 1, 1_000) },
        Load {
            scaling: Scaling { max_multiplexing: 100, ..warm },
            end: Order::AnyOrder,
            ..base("multiplexing_100", 1, 450)
        },
        Load {
            scaling: Scaling { max_multiplexing: 100, ..warm },
            end: Order::AnyOrder,
            ..base("multiplexing_100_wide", 1, 50_000)
        },
        Load {
            scaling: Scaling { max_concurrency: Some(100), ..warm },
            end: Order::AnyOrder,
            ..base("queueing", 1, 1_000)
        },
        Load {
            scaling: Scaling { keep_alive: Duration::from_millis(1), ..Scaling::default() },
            step: Duration::from_micros(100),
            requests: 100_000,
            ..base("cold", 1_000, 50)
        },
    ]
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for load in loads() {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == load.name) {
            continue;
        }
        let mut per_s: Vec<f64> = (0..RUNS).map(|_| Driver::new(&load).run()).collect();
        per_s.sort_by(f64::total_cmp);
        report(&format!(
            "{{\"load\":\"{}\",\"events_per_s\":{:.0},\"best\":{:.0}}}",
            load.name,
            per_s[RUNS / 2],
            per_s[RUNS - 1]
        ));
    }
}

#[expect(clippy::print_stdout, reason = "the result is this program's output")]
fn report(line: &str) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "this measures the engine, from outside")]
fn clock() -> Instant {
    Instant::now()
}

struct Driver<'a> {
    load: &'a Load,
    engine: Engine,
    now: Timestamp,
    assigned: VecDeque<Lease>,
    coming: Vec<Event>,
    events: u64,
    arrived: u32,
    random: u64,
}

impl<'a> Driver<'a> {
    fn new(load: &'a Load) -> Self {
        let room = 100_000;
        let capacity =
            Capacity { cpu_millis: room, memory_bytes: room << 30, ..Capacity::default() };
        let mut driver = Self {
            load,
            engine: Engine::new(Config::default(), capacity),
            now: Timestamp::ZERO,
            assigned: VecDeque::new(),
            coming: Vec::new(),
            events: 0,
            arrived: 0,
            random: 0x9e37_79b9,
        };
        for app in 0..load.apps {
            let machine = MachineType { name: "S".into(), cpu_millis: 1, ..MachineType::default() };
            let spec = AppSpec {
                name: format!("local/app-{app}"),
                revision: 1,
                scaling: load.scaling,
                machine_types: vec![machine],
                retry: Rules::default(),
            };
            driver.handle(Event::AppChanged { app: AppId(app), spec });
        }
        driver
    }

    /// Brings the load up to its height and every app to its runners, then measures.
    fn run(mut self) -> f64 {
        for _ in 0..self.load.under_way {
            self.arrive();
        }
        for _ in 0..4 * self.load.apps.max(self.load.under_way) {
            self.turn();
        }
        let (events, began) = (self.events, clock());
        for _ in 0..self.load.requests {
            self.turn();
        }
        let took = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below what a float counts exactly")]
        let count = (self.events - events) as f64;
        count / took
    }

    fn turn(&mut self) {
        self.now = self.now + self.load.step;
        if self.engine.next_wakeup().is_some_and(|at| at <= self.now) {
            self.engine.advance(self.now);
            self.events += 1;
            self.drain();
        }
        let next = match self.load.end {
            Order::FirstIn => self.assigned.pop_front(),
            Order::AnyOrder if self.assigned.is_empty() => None,
            Order::AnyOrder => {
                let at = self.any(self.assigned.len());
                self.assigned.swap_remove_back(at)
            }
        };
        if let Some(lease) = next {
            let outcome = Outcome::Answered(Answer { status: 200, ..Answer::default() });
            self.handle(Event::Finished { lease, outcome });
            self.arrive();
        }
    }

    fn any(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap_or(0)
    }

    fn arrive(&mut self) {
        let nth = self.arrived;
        self.arrived += 1;
        self.handle(Event::Arrived(Arrival {
            request: RequestId(u128::from(nth)),
            // Far apart in the order of ids.
            app: AppId(nth % self.load.apps * 7_919 % self.load.apps),
            mode: Mode::Queued,
            priority: Priority::Normal,
            start_deadline: None,
            caller: CallerId::default(),
            hint: None,
            retries: Wish::Unsaid,
            attempts: 0,
        }));
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(self.now, event);
        self.events += 1;
        self.drain();
    }

    /// Performs what the engine wants: starts and ends take no time.
    fn drain(&mut self) {
        loop {
            while let Some(action) = self.engine.next_action() {
                match action {
                    Action::Assign { lease, .. } => self.assigned.push_back(lease),
                    Action::Start { runner, .. } => self.start(runner),
                    Action::Stop { runner, .. } => {
                        self.coming.push(Event::Exited { runner, detail: String::new() });
                    }
                    _ => {}
                }
            }
            let Some(event) = self.coming.pop() else { return };
            self.engine.handle(self.now, event);
            self.events += 1;
        }
    }

    fn start(&mut self, runner: RunnerId) {
        self.coming.push(Event::Ready { runner });
        self.coming.push(Event::SetupStarted { runner, rung: Rung::ImageCached });
    }
}
