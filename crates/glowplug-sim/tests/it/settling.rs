//! No flapping and no runaway: whatever the settings, runners are started only up to what the formula allows,
//! and the number of them comes to rest when the load does.

use std::collections::VecDeque;
use std::time::Duration;

use glowplug_core::decision::StopReason;
use glowplug_core::spec::Scaling;
use glowplug_core::{Action, RunnerId, Timestamp};
use glowplug_sim::model::{AppModel, Model};
use glowplug_sim::scenario::{Rate, Shape, Stream, Traffic};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::worlds::{app, world};

const LENGTH: Duration = Duration::from_mins(10);

/// Starts and ends of runners, and requests that are over, in their order.
#[derive(Debug, Default)]
struct Course {
    steps: Vec<(Timestamp, Step)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Start(RunnerId),
    Stop(RunnerId),
    Over,
}

fn course(app: &AppModel, shape: &Shape) -> (Course, Vec<Timestamp>) {
    let stream = Stream::new(0, shape.clone(), LENGTH);
    let arrivals: Vec<Timestamp> =
        Traffic::new([stream.clone()], 9).map(|arrival| arrival.unwrap().at).collect();
    let mut course = Course::default();
    let watch = |now: Timestamp, _: u64, action: &Action| {
        let step = match action {
            Action::Start { runner, .. } => Step::Start(*runner),
            Action::Stop { runner, reason, .. } => {
                assert_ne!(*reason, StopReason::Stuck);
                Step::Stop(*runner)
            }
            Action::Deliver { .. } | Action::Refuse { .. } => Step::Over,
            _ => return,
        };
        course.steps.push((now, step));
    };
    world(vec![app.clone()]).run_watched(Traffic::new([stream], 9), watch).unwrap();
    (course, arrivals)
}

/// What the guide says about the number of runners, for so many open requests.
fn formula(scaling: &Scaling, open: u32) -> u32 {
    let demand = open.div_ceil(scaling.max_multiplexing);
    let share = f64::from(scaling.concurrency_buffer_perc) / 100.0;
    let perc = (share * f64::from(open) / f64::from(scaling.max_multiplexing)).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundreds")]
    let buffer = scaling.concurrency_buffer.max(perc as u32);
    scaling.min_concurrency.max(demand + buffer).min(scaling.max_concurrency.unwrap_or(u32::MAX))
}

/// Goes through a course as somebody who knows the formula and nothing of the engine.
fn check_starts(scaling: &Scaling, course: &Course, arrivals: &[Timestamp]) {
    let mut coming = arrivals.iter().peekable();
    let (mut open, mut alive, mut starts) = (0_u32, 0_u32, 0_u32);
    // Every start is owed to a rise of the formula: those of the floor, and those that requests bring.
    let mut owed = formula(scaling, 0);
    let mut recent: VecDeque<Timestamp> = VecDeque::new();
    for &(now, step) in &course.steps {
        while coming.next_if(|at| **at <= now).is_some() {
            owed += formula(scaling, open + 1) - formula(scaling, open);
            open += 1;
        }
        match step {
            Step::Over => open -= 1,
            Step::Stop(_) => alive -= 1,
            Step::Start(runner) => {
                (alive, starts) = (alive + 1, starts + 1);
                let allowed = formula(scaling, open);
                assert!(alive <= allowed, "{runner} is number {alive} of {allowed} at {now:?}");
                assert!(starts <= owed, "{runner} is start {starts} of {owed} at {now:?}");
                check_recent(scaling, &mut recent, now, allowed);
            }
        }
    }
    assert_eq!(open, 0, "requests are left");
    assert_eq!(alive, formula(scaling, 0), "runners are left, or missing");
}

/// Without floor and buffer nothing ends before its time, so all that was started within the shortest life
/// of a runner is alive and counts against the same number. (Where a buffer keeps a runner beyond its time,
/// a start under way ends in its place as soon as one of both is too many.)
fn check_recent(scaling: &Scaling, recent: &mut VecDeque<Timestamp>, now: Timestamp, allowed: u32) {
    if formula(scaling, 0) > 0 || scaling.concurrency_buffer_perc > 0 {
        return;
    }
    let shortest_life =
        scaling.unused_runner_timeout.unwrap_or(scaling.keep_alive).min(scaling.keep_alive);
    recent.push_back(now);
    while recent.front().is_some_and(|at| *at + shortest_life < now) {
        recent.pop_front();
    }
    let found = recent.len();
    let most = if shortest_life.is_zero() { usize::MAX } else { allowed as usize };
    assert!(found <= most, "{found} starts within {shortest_life:?} before {now:?}, not {most}");
}

/// Everything has settled once what was under way with the last request is ready and has been idle.
fn check_rest(scaling: &Scaling, setup: Duration, course: &Course) {
    let last = |wanted: fn(&Step) -> bool| {
        course.steps.iter().rev().find(|(_, step)| wanted(step)).map(|(at, _)| *at)
    };
    let (over, stop) =
        (last(|step| *step == Step::Over), last(|step| matches!(step, Step::Stop(_))));
    if let (Some(over), Some(stop)) = (over, stop) {
        let longest_life = scaling.unused_runner_timeout.max(Some(scaling.keep_alive));
        let rest = over + setup + longest_life.unwrap_or_default();
        assert!(stop <= rest, "the last runner is told to end at {stop:?}, after {rest:?}");
    }
}

fn scalings() -> impl Strategy<Value = Scaling> {
    let times = (0_u64..90, 0_u64..5, proptest::option::of(0_u64..30));
    let spare = prop_oneof![Just((0, 0, 0)), (0_u32..5, 0_u32..4, 0_u32..200)];
    let counts = (spare, proptest::option::of(5_u32..30), 1_u32..5);
    (times, counts).prop_map(|((keep_alive, delay, unused), (spare, max, places))| {
        let (min, buffer, perc) = spare;
        Scaling {
            keep_alive: Duration::from_secs(keep_alive),
            scaling_delay: Duration::from_secs(delay),
            unused_runner_timeout: unused.map(Duration::from_secs),
            min_concurrency: min,
            max_concurrency: max,
            concurrency_buffer: buffer,
            concurrency_buffer_perc: perc,
            max_multiplexing: places,
            ..Scaling::default()
        }
    })
}

fn shapes() -> impl Strategy<Value = Shape> {
    let secs = Duration::from_secs;
    prop_oneof![
        (0.05..3.0).prop_map(|rate| Shape::Random(Rate::Constant(rate))),
        (100_u64..20_000).prop_map(|every| Shape::Even { every: Duration::from_millis(every) }),
        (1.0..15.0, 2_u64..20, 20_u64..120).prop_map(move |(rate, burst, quiet)| Shape::Bursts {
            rate,
            quiet_rate: 0.02,
            burst: secs(burst),
            quiet: secs(quiet),
        }),
        (0.005..0.05, 1_u32..60, 0_u64..10).prop_map(move |(rate, size, spread)| Shape::Batches {
            rate,
            size,
            spread: secs(spread),
        }),
        (2.0..40.0).prop_map(|times| Shape::Random(Rate::Crowd {
            base: 0.3,
            at_secs: 200.0,
            times,
            rise_secs: 5.0,
            fall_secs: 40.0,
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(17), ..ProptestConfig::default() })]

    #[test]
    fn starts_are_bounded_and_runners_come_to_rest(
        scaling in scalings(),
        shape in shapes(),
        setup_millis in 0_u64..30_000,
        service_millis in 50_u64..5_000,
    ) {
        let setup = Duration::from_millis(setup_millis);
        let app = AppModel {
            setup: Model::Constant(setup),
            service: Model::Exponential { mean_secs: Duration::from_millis(service_millis).as_secs_f64() },
            ..app(scaling)
        };
        let (course, arrivals) = course(&app, &shape);
        check_starts(&scaling, &course, &arrivals);
        check_rest(&scaling, setup, &course);
    }
}

#[test]
fn constant_load_settles_within_one_keep_alive() {
    let secs = Duration::from_secs;
    let base = Scaling { keep_alive: secs(60), ..Scaling::default() };
    for (scaling, every_millis, service_millis) in [
        (base, 250, 1_000),
        (base, 400, 1_000),
        (base, 1_000, 999),
        (Scaling { max_multiplexing: 4, ..base }, 100, 1_500),
        (Scaling { concurrency_buffer: 3, ..base }, 250, 1_000),
        (Scaling { concurrency_buffer: 3, ..base }, 250, 900),
        (Scaling { concurrency_buffer_perc: 50, ..base }, 250, 2_100),
        (Scaling { min_concurrency: 9, ..base }, 250, 1_000),
        (Scaling { max_concurrency: Some(5), ..base }, 250, 1_000),
        (Scaling { scaling_delay: secs(2), ..base }, 250, 1_000),
        (Scaling { keep_alive: secs(10), ..base }, 7_000, 1_000),
    ] {
        let (setup, service) = (secs(5), Duration::from_millis(service_millis));
        let app = AppModel {
            setup: Model::Constant(setup),
            service: Model::Constant(service),
            ..app(scaling)
        };
        let shape = Shape::Even { every: Duration::from_millis(every_millis) };
        let (course, _) = course(&app, &shape);
        // The load is what it will be once the queue of the first setup is worked off, by as many runners
        // as were started for it, or by as many as there may be.
        let begun = Timestamp::ZERO + setup * 2 + scaling.scaling_delay + service;
        let queue_worked_off = match scaling.max_concurrency {
            // 4 come each second and 5 can be served: what came in 5 s takes 20 s more.
            Some(_) => begun + secs(20),
            None => begun,
        };
        let settled = queue_worked_off + scaling.keep_alive;
        let end = Timestamp::ZERO + LENGTH;
        let restless: Vec<_> = course
            .steps
            .iter()
            .filter(|(at, step)| *at > settled && *at < end && *step != Step::Over)
            .collect();
        assert!(restless.is_empty(), "{scaling:?}, every {every_millis} ms: {restless:?}");
    }
}
