//! The engine against exact results of queueing theory. What cannot be exact lies within three standard errors,
//! and these are measured over independent replications, or follow from theory.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::spec::Scaling;
use glowplug_sim::model::{AppModel, Model};
use glowplug_sim::outcome::{Measures, Outcome};
use glowplug_sim::scenario::{Rate, Shape, Stream, Traffic, TrafficError};
use glowplug_sim::simulation::World;
use glowplug_sim::traffic::Arrival;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::worlds::{app, secs, world};

const REPLICATIONS: u32 = 20;
/// Enough for a wait that is over in the very moment in which it begins, and for no other.
const NO_WAIT: Duration = Duration::from_micros(1);
const STANDARD_ERRORS: f64 = 3.0;

/// Exponential service of mean 1, and no setup at all.
fn server(scaling: Scaling) -> AppModel {
    AppModel {
        setup: Model::Constant(Duration::ZERO),
        service: Model::Exponential { mean_secs: 1.0 },
        ..app(scaling)
    }
}

/// So many servers, always.
fn servers(count: u32) -> World {
    let scaling =
        Scaling { min_concurrency: count, max_concurrency: Some(count), ..Scaling::default() };
    world(vec![server(scaling)])
}

fn poisson(app: u32, rate: f64, length_secs: f64) -> Stream {
    Stream::new(app, Shape::Random(Rate::Constant(rate)), secs(length_secs))
}

/// Mean and its standard error.
#[expect(clippy::cast_precision_loss, reason = "some dozens")]
fn estimate(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

/// `slack`: what rounding may add.
fn check(what: &str, values: &[f64], exact: f64, slack: f64) {
    let (mean, error) = estimate(values);
    assert!(
        (mean - exact).abs() <= STANDARD_ERRORS * error + slack,
        "{what}: {mean} is not {exact}, with a standard error of {error}"
    );
}

/// How many are there in the long run, if `n` are there with a probability in proportion to `weight(n)`:
/// a simulation that begins with as many is in balance from its beginning.
fn drawn(random: &mut Xoshiro256PlusPlus, weights: &[f64]) -> usize {
    let mut left = random.random::<f64>() * weights.iter().sum::<f64>();
    for (number, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return number;
        }
    }
    weights.len() - 1
}

/// Weights of 0, 1, 2, … requests with so many servers and so much load, in proportion to the truth.
fn balance(servers: u32, load: f64, most: u32) -> Vec<f64> {
    let mut weights = vec![1.0];
    for number in 1..=most {
        let busy = f64::from(number.min(servers));
        weights.push(weights[weights.len() - 1] * load / busy);
    }
    weights
}

/// Runs after which several requests are there from the beginning.
fn replications(
    world: &World,
    rate: f64,
    length_secs: f64,
    weights: &[f64],
    start_within: Option<Duration>,
) -> Vec<(usize, Outcome)> {
    let run = |nth: u64| {
        let seed = 1_000 * u64::from(world.apps[0].spec.scaling.min_concurrency) + nth;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let there = drawn(&mut random, weights);
        let stream = Stream { start_within, ..poisson(0, rate, length_secs) };
        let first = Arrival { start_within, ..Arrival::new(Timestamp::ZERO, 0, None) };
        let traffic = std::iter::repeat_n(first, there)
            .map(Ok::<_, TrafficError>)
            .chain(Traffic::new([stream], seed));
        (there, World { seed, ..world.clone() }.run(traffic).unwrap())
    };
    (0..u64::from(REPLICATIONS)).map(run).collect()
}

#[test]
fn waiting_is_as_erlang_c_says() {
    // Servers, rate, P(wait), mean wait, and its quantiles of 50, 90, 95 and 99 %.
    for (servers, rate, waits, mean, quantiles) in [
        (1, 0.5, 0.500_000, 1.000_000, [0.0, 3.2189, 4.6052, 7.8240]),
        (2, 1.6, 0.711_111, 1.777_778, [0.8806, 4.9041, 6.6370, 10.6606]),
        (4, 3.2, 0.596_432, 0.745_541, [0.2204, 2.2322, 3.0987, 5.1105]),
        (5, 4.0, 0.554_113, 0.554_113, [0.1028, 1.7122, 2.4053, 4.0148]),
        (10, 8.0, 0.409_180, 0.204_590, [0.0, 0.7045, 1.0511, 1.8558]),
        (10, 9.0, 0.668_732, 0.668_732, [0.2908, 1.9002, 2.5934, 4.2028]),
        (20, 16.0, 0.256_078, 0.064_019, [0.0, 0.2351, 0.4084, 0.8107]),
        (20, 18.0, 0.550_769, 0.275_385, [0.0484, 0.8531, 1.1996, 2.0044]),
        (50, 45.0, 0.363_864, 0.072_773, [0.0, 0.2583, 0.3970, 0.7188]),
        (100, 90.0, 0.216_940, 0.021_694, [0.0, 0.0774, 0.1468, 0.3077]),
    ] {
        erlang_c(servers, rate, waits, mean, quantiles);
    }
}

/// A quantile is right if as many wait longer as should. So every request counts, and the mean over
/// replications is no worse than the requests themselves, which that of quantiles would be.
fn erlang_c(count: u32, rate: f64, exact_waits: f64, exact_mean: f64, quantiles: [f64; 4]) {
    /// In times after which a queue has forgotten how it was.
    const LENGTH: f64 = 50.0;
    /// Of a wait, in the histogram over all apps.
    const RESOLUTION: f64 = 0.002;
    let load = rate / f64::from(count);
    let memory_secs = 1.0 / (f64::from(count) * (1.0 - load.sqrt()).powi(2));
    let weights = balance(count, rate, count + 400);
    let outcomes = replications(&servers(count), rate, LENGTH * memory_secs, &weights, None);
    let each = |measure: &dyn Fn(&Measures) -> f64| -> Vec<f64> {
        outcomes.iter().map(|(_, outcome)| measure(&outcome.total)).collect()
    };
    let what = |what: &str| format!("{what} of {count} servers at {rate} a second");
    let micro = 1e-6;
    let shares = each(&|measures| measures.waits.share_over(Duration::ZERO));
    check(&what("share that waits"), &shares, exact_waits, micro);
    let means = each(&|measures| measures.waits.mean().as_secs_f64());
    check(&what("mean wait"), &means, exact_mean, micro);
    let excess = f64::from(count) - rate;
    for (quantile, beyond) in quantiles.into_iter().zip([0.5, 0.1, 0.05, 0.01]) {
        if quantile == 0.0 {
            assert!(exact_waits <= beyond, "the table is wrong");
            continue;
        }
        let over = each(&|measures| measures.waits.share_over(secs(quantile)));
        // The exact share falls exponentially; the table's four digits and the histogram's are rounded.
        let slack = beyond * excess * (quantile * RESOLUTION + 5e-5);
        check(&what(&format!("share that waits over {quantile} s")), &over, beyond, slack);
    }
}

#[test]
fn refusals_are_as_erlang_b_says() {
    const LENGTH_REQUESTS: f64 = 4_000.0;
    for (count, load, exact) in [
        (5, 4.0, 0.199_067),
        (10, 8.0, 0.121_661),
        (20, 16.0, 0.064_411),
        (50, 45.0, 0.054_104),
        (100, 90.0, 0.026_957),
    ] {
        let weights = balance(count, load, count);
        let length_secs = LENGTH_REQUESTS / load;
        let outcomes = replications(&servers(count), load, length_secs, &weights, Some(NO_WAIT));
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let shares: Vec<f64> = outcomes
            .iter()
            .map(|(there, outcome)| {
                let came = outcome.total.requests - *there as u64;
                outcome.total.refused as f64 / came as f64
            })
            .collect();
        // A server may become free in the microsecond that a request waits.
        check(&format!("loss of {count} servers"), &shares, exact, f64::from(count) * 1e-6);
    }
}

#[test]
fn runners_in_use_are_as_many_as_work_comes_in() {
    const RATE: f64 = 5.0;
    const LENGTH_SECS: f64 = 8_000.0;
    let sigma: f64 = 1.0;
    let mean_secs: f64 = 2.0;
    let median_secs = mean_secs * (-sigma * sigma / 2.0).exp();
    for (service, mean_square) in [
        (Model::Constant(secs(mean_secs)), mean_secs.powi(2)),
        (Model::Exponential { mean_secs }, 2.0 * mean_secs.powi(2)),
        (Model::LogNormal { median_secs, sigma }, mean_secs.powi(2) * (sigma * sigma).exp()),
    ] {
        let busy = |keep_alive: f64| {
            let scaling = Scaling { keep_alive: secs(keep_alive), ..Scaling::default() };
            let app = AppModel { service: service.clone(), ..server(scaling) };
            let until = Some(Timestamp::ZERO + secs(LENGTH_SECS));
            let world = World { until, ..world(vec![app]) };
            let outcome = world.run(Traffic::new([poisson(0, RATE, LENGTH_SECS)], 3)).unwrap();
            outcome.total.runner_seconds.busy
        };
        let kept = busy(60.0);
        // Nobody is there at the beginning, which half of a second moment of work is missing from.
        let exact = RATE * mean_secs - RATE * mean_square / 2.0 / LENGTH_SECS;
        let error = (RATE * mean_square / LENGTH_SECS).sqrt();
        let found = kept / LENGTH_SECS;
        assert!(
            (found - exact).abs() <= STANDARD_ERRORS * error,
            "{service:?}: {found} is not {exact}, with a standard error of {error}"
        );
        // Where starts cost nothing, what is kept between requests changes nothing for them.
        assert!((busy(0.0) - kept).abs() < 1e-6, "{service:?}");
    }
}

#[test]
fn a_rare_request_is_cold_as_often_as_its_gap_is_long() {
    const APPS: u32 = 150;
    const REQUESTS: f64 = 150.0;
    for (gap, keep_alive, setup, service) in [
        (300.0, 600.0, 0.0, 1.0),
        (600.0, 600.0, 20.0, 5.0),
        (60.0, 60.0, 30.0, 10.0),
        (10.0, 20.0, 3.0, 4.0),
    ] {
        let scaling = Scaling {
            keep_alive: secs(keep_alive),
            max_concurrency: Some(1),
            ..Scaling::default()
        };
        let app = AppModel {
            setup: Model::Constant(secs(setup)),
            service: Model::Constant(secs(service)),
            ..app(scaling)
        };
        let world = world(vec![app; APPS as usize]);
        let streams = (0..APPS).map(|app| poisson(app, 1.0 / gap, REQUESTS * gap));
        let outcome = world.run(Traffic::new(streams, 5)).unwrap();
        // Each time the runner has nothing to do, the next request comes too late with this probability,
        // whatever was before. Between two such times as many requests are served as one that waits
        // for a setup, or does not, has others come meanwhile.
        let expires = (-keep_alive / gap).exp();
        let exact = expires * (1.0 - service / gap) / (1.0 + expires * setup / gap);
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let counts: Vec<(f64, f64)> = outcome
            .apps
            .iter()
            .map(|app| (app.starts_total() as f64, app.requests as f64))
            .collect();
        // The first request of all is cold for certain.
        let certain = 1.0 - expires;
        let requests: f64 = counts.iter().map(|(_, requests)| requests).sum();
        let starts: f64 = counts.iter().map(|(starts, _)| starts - certain).sum();
        let squares: f64 = counts
            .iter()
            .map(|(starts, requests)| (starts - certain - exact * requests).powi(2))
            .sum();
        let (found, error) = (starts / requests, squares.sqrt() / requests);
        assert!(
            (found - exact).abs() <= STANDARD_ERRORS * error,
            "gaps of {gap} s: {found} is not {exact}, with a standard error of {error}"
        );
    }
}

#[test]
fn even_gaps_are_cold_exactly_when_they_are_too_long() {
    const REQUESTS: u32 = 100;
    let (gap, setup, service) = (100.0, 20.0, 5.0);
    let micro = 1e-6;
    for (keep_alive, starts) in [
        (0.0, REQUESTS),
        (gap - setup - service, REQUESTS),
        // Long enough after a cold request, which ends later, and not after the warm one that follows.
        (gap - setup - service + micro, REQUESTS / 2),
        (gap - service, REQUESTS / 2),
        (gap - service + micro, 1),
        (gap, 1),
    ] {
        let scaling = Scaling { keep_alive: secs(keep_alive), ..Scaling::default() };
        let app = AppModel {
            setup: Model::Constant(secs(setup)),
            service: Model::Constant(secs(service)),
            ..app(scaling)
        };
        let length = secs(gap * f64::from(REQUESTS));
        let stream = Stream::new(0, Shape::Even { every: secs(gap) }, length);
        let outcome = world(vec![app]).run(Traffic::new([stream], 0)).unwrap();
        let found = (outcome.total.requests, outcome.total.starts_total(), outcome.total.cold);
        let expected = (u64::from(REQUESTS), u64::from(starts), u64::from(starts));
        assert_eq!(found, expected, "keep_alive of {keep_alive} s");
    }
}
