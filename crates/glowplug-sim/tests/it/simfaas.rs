//! The engine against the figures of SimFaaS 0.2.2, a simulator of serverless platforms that is validated
//! against AWS Lambda.
//!
//! There, a request takes the idle instance that was *created* last, or creates one, and if there may be
//! none it is rejected; a cold start is a longer first service. Here, a request takes the idle runner that
//! was *used* last, setup is a phase of its own, and requests may wait. So:
//!
//! - setup takes no time, and requests that find no idle runner are longer: which ones these are is known
//!   from a model of the same rules that shares nothing with the engine and agrees with it exactly;
//! - a request may wait for one microsecond: who must wait for a place is refused.
//!
//! What is left is which idle runner is taken. The model does both, so the difference is measured.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::spec::Scaling;
use glowplug_sim::model::{AppModel, Model};
use glowplug_sim::outcome::Measures;
use glowplug_sim::scenario::{Rate, Shape, Stream, Traffic, TrafficError};
use glowplug_sim::simulation::World;
use glowplug_sim::traffic::Arrival;
use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use super::worlds::{app, secs, world};

const NO_WAIT: Duration = Duration::from_micros(1);
const SEEDS: [u64; 3] = [0, 1, 2];

/// A published mean over three seeds, and the standard deviation over them.
type Published = Option<(f64, f64)>;

struct Row {
    id: &'static str,
    rate: f64,
    warm_secs: f64,
    cold_secs: f64,
    keep_alive_secs: f64,
    length_secs: f64,
    most: u32,
    cold: Published,
    rejected: Published,
    running: Published,
    idle: Published,
}

const fn row(
    id: &'static str,
    [rate, warm_secs, cold_secs, keep_alive_secs, length_secs]: [f64; 5],
    most: u32,
) -> Row {
    Row {
        id,
        rate,
        warm_secs,
        cold_secs,
        keep_alive_secs,
        length_secs,
        most,
        cold: None,
        rejected: None,
        running: None,
        idle: None,
    }
}

const ROWS: [Row; 9] = [
    Row {
        cold: Some((0.001_387, 3.4e-5)),
        running: Some((1.7876, 0.0085)),
        idle: Some((5.8883, 0.063)),
        ..row("A", [0.9, 1.991, 2.244, 600.0, 1e5], 1_000)
    },
    Row { rejected: Some((0.198_107, 0.0020)), ..row("B", [4.0, 1.0, 1.0, 600.0, 2e4], 5) },
    Row { rejected: Some((0.065_134, 0.0029)), ..row("C", [16.0, 1.0, 1.0, 600.0, 5e3], 20) },
    Row { cold: Some((0.138_219, 0.0019)), ..row("D", [1.0 / 300.0, 1.0, 1.0, 600.0, 2e6], 1_000) },
    Row { cold: Some((0.365_303, 0.0033)), ..row("E", [1.0 / 600.0, 1.0, 1.0, 600.0, 4e6], 1_000) },
    Row { cold: Some((0.017_757, 0.0009)), ..row("F", [10.0, 1.0, 1.0, 10.0, 5e3], 1_000) },
    Row { cold: Some((0.002_908, 0.0001)), ..row("G", [10.0, 1.0, 1.0, 60.0, 5e3], 1_000) },
    Row { cold: Some((0.012_996, 0.0015)), ..row("H", [1.0, 1.0, 10.0, 60.0, 2e4], 1_000) },
    Row { cold: Some((0.003_141, 0.0001)), ..row("I", [100.0, 1.0, 1.0, 60.0, 500.0], 1_000) },
];

/// Which idle runner is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    CreatedLast,
    UsedLast,
}

/// What happened: counts, and runner-seconds within the length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Found {
    requests: f64,
    cold: f64,
    rejected: f64,
    busy_secs: f64,
    idle_secs: f64,
}

/// A runner of the model, in microseconds. Busy until `free`, then idle until `free + keep_alive`.
struct Instance {
    free: u64,
}

/// All in microseconds, so that nothing is rounded differently from the engine.
struct Pool {
    /// In order of creation.
    instances: Vec<Instance>,
    rule: Rule,
    keep_alive: u64,
    most: u32,
    end: u64,
    found: Found,
}

fn micros(secs: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(secs).as_micros()).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_secs(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl Pool {
    fn new(row: &Row, rule: Rule) -> Self {
        Self {
            instances: Vec::new(),
            rule,
            keep_alive: micros(row.keep_alive_secs),
            most: row.most,
            end: micros(row.length_secs),
            found: Found::default(),
        }
    }

    /// The idle time of an instance that was free from `free` on, up to `until`.
    fn rest(&mut self, free: u64, until: u64) {
        self.found.idle_secs += as_secs(until.min(self.end).saturating_sub(free));
    }

    /// Takes a request; returns how long it is worked on, of what it would take warm and cold.
    fn take(&mut self, now: u64, warm: u64, cold: u64) -> Option<u64> {
        self.found.requests += 1.0;
        let keep_alive = self.keep_alive;
        let expired = |instance: &Instance| instance.free + keep_alive <= now;
        let gone: Vec<u64> =
            self.instances.iter().filter(|one| expired(one)).map(|one| one.free).collect();
        self.instances.retain(|one| !expired(one));
        for free in gone {
            self.rest(free, free + keep_alive);
        }
        let idle = self.instances.iter().enumerate().filter(|(_, one)| one.free <= now);
        let taken = match self.rule {
            Rule::CreatedLast => idle.map(|(nth, _)| nth).next_back(),
            Rule::UsedLast => idle.max_by_key(|(_, one)| one.free).map(|(nth, _)| nth),
        };
        let takes = match taken {
            Some(nth) => {
                self.rest(self.instances[nth].free, now);
                self.instances[nth].free = now + warm;
                warm
            }
            None if self.instances.len() >= self.most as usize => {
                self.found.rejected += 1.0;
                return None;
            }
            None => {
                self.found.cold += 1.0;
                self.instances.push(Instance { free: now + cold });
                cold
            }
        };
        self.found.busy_secs += as_secs((now + takes).min(self.end) - now);
        Some(takes)
    }

    fn finish(mut self) -> Found {
        for Instance { free } in std::mem::take(&mut self.instances) {
            self.rest(free, free + self.keep_alive);
        }
        self.found
    }
}

/// Requests with what they take warm and cold.
fn requests(row: &Row, seed: u64) -> Vec<(u64, u64, u64)> {
    let shape = Shape::Random(Rate::Constant(row.rate));
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |mean: f64| {
        let one: f64 = Exp1.sample(&mut random);
        micros(one * mean)
    };
    Traffic::new([Stream::new(0, shape, secs(row.length_secs))], seed)
        .map(|arrival| arrival.unwrap().at.as_micros())
        .map(|at| (at, draw(row.warm_secs), draw(row.cold_secs)))
        .collect()
}

/// What the model finds by a rule, and the traffic in which requests take as long as they did in it.
fn modelled(row: &Row, rule: Rule, requests: &[(u64, u64, u64)]) -> (Found, Vec<Arrival>) {
    let mut pool = Pool::new(row, rule);
    let traffic = requests
        .iter()
        .map(|&(at, warm, cold)| {
            let takes = pool.take(at, warm, cold).unwrap_or_default();
            Arrival {
                start_within: Some(NO_WAIT),
                ..Arrival::new(Timestamp::from_micros(at), 0, Some(Duration::from_micros(takes)))
            }
        })
        .collect();
    (pool.finish(), traffic)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn simulated(row: &Row, traffic: Vec<Arrival>) -> Found {
    let scaling = Scaling {
        keep_alive: secs(row.keep_alive_secs),
        max_concurrency: Some(row.most),
        ..Scaling::default()
    };
    let app = AppModel { setup: Model::Constant(Duration::ZERO), ..app(scaling) };
    let until = Some(Timestamp::ZERO + secs(row.length_secs));
    let world = World { until, ..world(vec![app]) };
    let outcome = world.run(traffic.into_iter().map(Ok::<_, TrafficError>)).unwrap();
    let Measures { requests, refused, runner_seconds, .. } = outcome.total;
    assert_eq!(outcome.total.waits.quantile(1.0), Duration::ZERO, "nobody waits");
    Found {
        requests: requests as f64,
        cold: outcome.total.starts_total() as f64,
        rejected: refused as f64,
        busy_secs: runner_seconds.busy,
        idle_secs: runner_seconds.idle,
    }
}

/// Within three standard deviations of what was published.
fn check(what: &str, row: &Row, found: &[f64], published: Published) {
    let Some((mean, deviation)) = published else { return };
    #[expect(clippy::cast_precision_loss, reason = "three")]
    let found = found.iter().sum::<f64>() / found.len() as f64;
    assert!(
        (found - mean).abs() <= 3.0 * deviation,
        "{what} of row {}: {found} is not {mean} ± 3 × {deviation}",
        row.id
    );
}

fn check_all(what: &str, row: &Row, found: &[Found]) {
    let each = |measure: fn(&Found, &Row) -> f64| -> Vec<f64> {
        found.iter().map(|found| measure(found, row)).collect()
    };
    // Cold among the requests that were served.
    let cold = each(|found, _| found.cold / (found.requests - found.rejected));
    check(&format!("{what}: share cold"), row, &cold, row.cold);
    let rejected = each(|found, _| found.rejected / found.requests);
    check(&format!("{what}: share rejected"), row, &rejected, row.rejected);
    let running = each(|found, row| found.busy_secs / row.length_secs);
    check(&format!("{what}: running"), row, &running, row.running);
    let idle = each(|found, row| found.idle_secs / row.length_secs);
    check(&format!("{what}: idle"), row, &idle, row.idle);
}

fn check_row(id: &str) {
    let row = ROWS.iter().find(|row| row.id == id).unwrap();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for seed in SEEDS {
        let requests = requests(row, seed);
        theirs.push(modelled(row, Rule::CreatedLast, &requests).0);
        let (expected, traffic) = modelled(row, Rule::UsedLast, &requests);
        let found = simulated(row, traffic);
        let same = |found: f64, expected: f64| (found - expected).abs() <= 1e-9 * expected;
        assert_eq!(
            (found.requests, found.cold, found.rejected),
            (expected.requests, expected.cold, expected.rejected),
            "row {id}, seed {seed}"
        );
        assert!(same(found.busy_secs, expected.busy_secs), "{found:?} is not {expected:?}");
        assert!(same(found.idle_secs, expected.idle_secs), "{found:?} is not {expected:?}");
        ours.push(found);
    }
    check_all("the model by their rule", row, &theirs);
    check_all("the engine", row, &ours);
}

macro_rules! rows {
    ($($function:ident $id:literal)*) => {
        $(#[test]
        fn $function() {
            check_row($id);
        })*
    };
}

rows! {
    row_a_default "A"
    row_b_loss_of_5 "B"
    row_c_loss_of_20 "C"
    row_d_rare "D"
    row_e_rarer "E"
    row_f_short_keep_alive "F"
    row_g_long_keep_alive "G"
    row_h_slow_when_cold "H"
    row_i_many "I"
}
