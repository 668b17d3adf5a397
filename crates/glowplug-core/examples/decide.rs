//! How long the engine takes to decide: from the arrival of a request to the `Start` it causes with
//! 10,000 apps registered; the same on a node that is full, where every arrival must wait; and requests
//! through a warm runner per second. Prints one JSON line.

use std::time::Instant;

use glowplug_core::engine::Config;
use glowplug_core::event::Event;
use glowplug_core::request::{Answer, Arrival, Mode, Outcome, Priority};
use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::retry::{Rules, Wish};
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{Action, AppId, CallerId, Engine, Lease, RequestId, Rung, Timestamp};

const APPS: u32 = 10_000;
/// Cold arrivals that are timed: each to another app.
const STARTS: u32 = 10_000;
/// What fits on the node that is full.
const FULL_NODE_RUNNERS: u64 = 100;
const WARM_REQUESTS: u32 = 1_000_000;

fn main() {
    let starts = cold_arrivals(u64::from(APPS));
    let waits = cold_arrivals(FULL_NODE_RUNNERS);
    let warm_per_s = warm_requests_per_second();
    report(&format!(
        "{{\"p50_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.1},\"n\":{},\"full_p99_us\":{:.1},\"warm_per_s\":{warm_per_s:.0}}}",
        percentile(&starts, 50),
        percentile(&starts, 99),
        percentile(&starts, 100),
        starts.len(),
        percentile(&waits, 99),
    ));
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[expect(clippy::print_stdout, reason = "the result is this program's output")]
fn report(line: &str) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "this measures the engine, from outside")]
fn clock() -> Instant {
    Instant::now()
}

fn engine_with(apps: u32, runners: u64) -> Engine {
    let capacity = Capacity {
        cpu_millis: runners * 1_000,
        memory_bytes: runners << 30,
        ..Capacity::default()
    };
    let mut engine = Engine::new(Config::default(), capacity);
    for app in 0..apps {
        let machine = MachineType {
            name: "S".into(),
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
            ..MachineType::default()
        };
        let spec = AppSpec {
            name: format!("local/app-{app}"),
            revision: 1,
            scaling: Scaling::default(),
            machine_types: vec![machine],
            retry: Rules::default(),
        };
        engine.handle(Timestamp::ZERO, Event::AppChanged { app: AppId(app), spec });
    }
    while engine.next_action().is_some() {}
    engine
}

fn arrival(request: u128, app: u32) -> Event {
    Event::Arrived(Arrival {
        request: RequestId(request),
        app: AppId(app),
        mode: Mode::Direct,
        priority: Priority::Normal,
        start_deadline: None,
        caller: CallerId::default(),
        hint: None,
        retries: Wish::Unsaid,
        attempts: 0,
    })
}

/// Arrival → all that it causes (with room: the `Start`), in microseconds each, sorted. Runners of earlier
/// arrivals stay.
fn cold_arrivals(room_for: u64) -> Vec<f64> {
    let mut engine = engine_with(APPS, room_for);
    let mut starts = 0;
    let mut took = Vec::with_capacity(STARTS as usize);
    for nth in 0..STARTS {
        // Far apart in the order of ids.
        let app = nth * 7_919 % APPS;
        let now = Timestamp::from_micros(u64::from(nth) * 10);
        let event = arrival(u128::from(nth), app);
        let began = clock();
        engine.handle(now, event);
        while let Some(action) = engine.next_action() {
            starts += u64::from(matches!(action, Action::Start { .. }));
        }
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    assert_eq!(starts, room_for.min(u64::from(STARTS)), "not every arrival that fits was started");
    took.sort_by(f64::total_cmp);
    took
}

/// Arrived → `Assign` → Finished → `Deliver`, over and over.
fn warm_requests_per_second() -> f64 {
    let mut engine = engine_with(APPS, 1);
    let app = APPS / 2;
    engine.handle(Timestamp::ZERO, arrival(u128::MAX, app));
    let mut runner = None;
    while let Some(action) = engine.next_action() {
        if let Action::Start { runner: started, .. } = action {
            runner = Some(started);
        }
    }
    let Some(runner) = runner else { return 0.0 };
    engine.handle(Timestamp::ZERO, Event::SetupStarted { runner, rung: Rung::ImageCached });
    engine.handle(Timestamp::ZERO, Event::Ready { runner });
    let began = clock();
    let mut delivered = 0;
    let mut lease: Option<Lease> = next_lease(&mut engine, &mut delivered);
    for nth in 0..WARM_REQUESTS {
        let now = Timestamp::from_micros(u64::from(nth) * 5);
        if let Some(lease) = lease.take() {
            let outcome = Outcome::Answered(Answer { status: 200, ..Answer::default() });
            engine.handle(now, Event::Finished { lease, outcome });
        }
        engine.handle(now, arrival(u128::from(nth), app));
        lease = next_lease(&mut engine, &mut delivered);
    }
    assert_eq!(delivered, WARM_REQUESTS, "every request but the last is answered");
    f64::from(WARM_REQUESTS) / began.elapsed().as_secs_f64()
}

fn next_lease(engine: &mut Engine, delivered: &mut u32) -> Option<Lease> {
    let mut assigned = None;
    while let Some(action) = engine.next_action() {
        match action {
            Action::Assign { lease, .. } => assigned = Some(lease),
            Action::Deliver { .. } => *delivered += 1,
            _ => {}
        }
    }
    assigned
}
