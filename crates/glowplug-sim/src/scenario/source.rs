//! Made-up traffic: streams of requests, merged in order of time. Nothing of it is held but the next request
//! of each stream.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::request::{Mode, Priority};

use super::replay::{Replay, Replaying};
use super::shape::{Arriving, Shape};
use crate::model::{Model, Purpose, Sampler, mix, seconds};
use crate::trace;
use crate::traffic::Arrival;

/// Why traffic ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    #[error(
        "a stream has more than {limit} requests that are still to come: make its batches, sessions or \
         outage smaller"
    )]
    TooManyPending { limit: usize },
    #[error("cannot replay the trace {file}")]
    Trace {
        file: PathBuf,
        #[source]
        source: trace::Error,
    },
    #[error("the trace {file} knows no app `{app}`")]
    NoSuchApp { file: PathBuf, app: String },
}

/// Requests of one kind for one app.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Index of the app among those simulated.
    pub app: u32,
    pub origin: Origin,
    /// Since the beginning. A trace begins then.
    pub from: Duration,
    /// Nothing comes at this moment or after it.
    pub until: Duration,
    /// This and what follows is of made-up requests; recorded ones bring their own.
    pub mode: Mode,
    pub priority: Priority,
    pub start_within: Option<Duration>,
    /// How long a runner works on each. `None`: what the app's model says.
    pub service: Option<Service>,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    Shape(Shape),
    Replay(Replay),
}

/// How long requests take, if that may change over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub model: Model,
    pub creep: Option<Creep>,
}

/// Something that gets slower little by little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Creep {
    /// Not slower before this moment.
    pub from: Duration,
    /// As slow as it gets from this moment on; in between it gets there in even steps.
    pub until: Duration,
    pub times: f64,
}

impl Stream {
    /// Queued requests without a deadline, over the first `length`.
    pub fn new(app: u32, shape: Shape, length: Duration) -> Self {
        Self {
            app,
            origin: Origin::Shape(shape),
            from: Duration::ZERO,
            until: length,
            mode: Mode::Queued,
            priority: Priority::Normal,
            start_within: None,
            service: None,
        }
    }
}

impl Creep {
    /// How many times slower things are at a moment.
    pub fn at(&self, now: Timestamp) -> f64 {
        let (begin, end) = (self.from.as_secs_f64(), self.until.as_secs_f64());
        let since = now.since(Timestamp::ZERO).as_secs_f64() - begin;
        let share = if end > begin { (since / (end - begin)).clamp(0.0, 1.0) } else { 1.0 };
        if since < 0.0 { 1.0 } else { 1.0 + (self.times - 1.0) * share }
    }
}

/// The requests of several streams, in order of time; of those at the same moment, in order of streams.
#[derive(Debug)]
pub struct Traffic {
    streams: Vec<Running>,
    /// The next request of each stream that has one.
    ahead: Vec<Option<Arrival>>,
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// What stopped a stream.
    failed: Option<TrafficError>,
}

impl Traffic {
    pub fn new(streams: impl IntoIterator<Item = Stream>, seed: u64) -> Self {
        let mut traffic =
            Self { streams: Vec::new(), ahead: Vec::new(), next: BinaryHeap::new(), failed: None };
        for (nth, stream) in (0_u64..).zip(streams) {
            match Running::new(stream, mix(seed ^ mix(nth))) {
                Ok(running) => {
                    traffic.streams.push(running);
                    traffic.ahead.push(None);
                    traffic.look_ahead(traffic.streams.len() - 1);
                }
                Err(error) => traffic.failed = Some(error),
            }
        }
        traffic
    }

    fn look_ahead(&mut self, nth: usize) {
        match self.streams[nth].next() {
            Some(Ok(arrival)) => {
                self.next.push(Reverse((arrival.at, nth)));
                self.ahead[nth] = Some(arrival);
            }
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }
}

impl Iterator for Traffic {
    type Item = Result<Arrival, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.next.clear();
            return Some(Err(error));
        }
        let Reverse((_, nth)) = self.next.pop()?;
        let arrival = self.ahead[nth].take();
        self.look_ahead(nth);
        arrival.map(Ok)
    }
}

/// Requests being made up.
#[derive(Debug)]
struct Made {
    stream: Stream,
    moments: Arriving,
    service: Option<Sampler>,
}

/// A stream under way.
#[derive(Debug)]
enum Running {
    Made(Box<Made>),
    Replayed(Box<Replaying>),
}

impl Running {
    fn new(stream: Stream, seed: u64) -> Result<Self, TrafficError> {
        let shape = match &stream.origin {
            Origin::Replay(replay) => {
                let replaying = Replaying::open(replay, stream.app, stream.from, stream.until)?;
                return Ok(Self::Replayed(Box::new(replaying)));
            }
            Origin::Shape(shape) => shape,
        };
        let moments = shape.moments(stream.from, stream.until, seed);
        let service = stream
            .service
            .as_ref()
            .map(|service| Sampler::new(&service.model, seed, Purpose::Service, stream.app));
        Ok(Self::Made(Box::new(Made { stream, moments, service })))
    }

    fn next(&mut self) -> Option<Result<Arrival, TrafficError>> {
        match self {
            Self::Replayed(replaying) => replaying.next(),
            Self::Made(made) => made.next(),
        }
    }
}

impl Made {
    fn next(&mut self) -> Option<Result<Arrival, TrafficError>> {
        let Self { stream, moments, service } = self;
        let at = match moments.next()? {
            Ok(at) => at,
            Err(error) => return Some(Err(error)),
        };
        let service = service.as_mut().map(|service| {
            let creep = stream.service.as_ref().and_then(|service| service.creep);
            let alone = Duration::from_micros(service.draw());
            creep.map_or(alone, |creep| seconds(alone.as_secs_f64() * creep.at(at)))
        });
        Some(Ok(Arrival {
            at,
            app: stream.app,
            service,
            mode: stream.mode,
            priority: stream.priority,
            start_within: stream.start_within,
        }))
    }
}

/// Weights of `count` apps of which the `n`th is `n^-exponent` as popular as the first. They sum to 1.
pub fn zipf(count: u32, exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=count).map(|rank| f64::from(rank).powf(-exponent)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is the same, or exact, is so to the last bit")]
mod tests {
    use super::super::rate::Rate;
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn of(shape: &Shape) -> Vec<f64> {
        let moments = shape.moments(Duration::ZERO, HOUR, 11);
        moments.map(|at| at.unwrap().since(Timestamp::ZERO).as_secs_f64()).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn count(moments: &[f64], from: f64, to: f64) -> f64 {
        moments.iter().filter(|at| (from..to).contains(*at)).count() as f64
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn all_shapes_are_in_order_and_end_in_time() {
        for shape in [
            Shape::Random(Rate::Constant(2.0)),
            Shape::Even { every: secs(7) },
            Shape::Bursts { rate: 20.0, quiet_rate: 0.1, burst: secs(5), quiet: secs(60) },
            Shape::Batches { rate: 0.05, size: 30, spread: secs(90) },
            Shape::Sessions { rate: 0.2, requests: 6.0, think: secs(20) },
            Shape::Herd {
                rate: 1.0,
                at: secs(600),
                outage: secs(300),
                retries: 1.5,
                spread: secs(9),
            },
        ] {
            let moments = of(&shape);
            assert!(moments.len() > 100, "{shape:?}");
            assert!(moments.is_sorted(), "{shape:?}");
            assert!(moments.iter().all(|at| (0.0..3_600.0).contains(at)), "{shape:?}");
            assert_eq!(moments, of(&shape), "not the same for the same seed");
        }
    }

    #[test]
    fn even_ones_are_exact() {
        let moments = Shape::Even { every: secs(25) }.moments(secs(10), secs(85), 0);
        let moments: Vec<Duration> = moments.map(|at| at.unwrap() - Timestamp::ZERO).collect();
        assert_eq!(moments, [10, 35, 60].map(secs));
    }

    #[test]
    fn bursts_come_and_go() {
        let shape = Shape::Bursts { rate: 50.0, quiet_rate: 0.0, burst: secs(10), quiet: secs(90) };
        let moments = of(&shape);
        // As many cycles as fit, each with as long a burst; both lengths spread as memoryless things do.
        let cycles = 3_600.0 / 100.0;
        let expected = cycles * 10.0 * 50.0;
        let error = expected * (2.0_f64 / cycles).sqrt();
        let found = count(&moments, 0.0, 3_600.0);
        assert!((found - expected).abs() < 3.0 * error, "{found} is not {expected}");
        let gaps = moments.windows(2).filter(|two| two[1] - two[0] > 5.0).count();
        assert!((20..=50).contains(&gaps), "{gaps} quiet times");
    }

    #[test]
    fn batches_come_whole() {
        let moments = of(&Shape::Batches { rate: 0.02, size: 40, spread: Duration::ZERO });
        assert!(moments.len() > 40 && moments.len().is_multiple_of(40), "{}", moments.len());
        assert!(moments.chunks(40).all(|batch| batch[0] == batch[39]));
    }

    #[test]
    fn sessions_send_as_much_as_they_should() {
        let shape = Shape::Sessions { rate: 1.0, requests: 5.0, think: secs(10) };
        let found = count(&of(&shape), 600.0, 3_600.0);
        // Each session adds its whole number at once, so the variance per session is E[n²] = 2·25 − 5.
        let error = (3_000.0_f64 * 45.0).sqrt();
        assert!((found - 15_000.0).abs() < 3.0 * error, "{found}");
    }

    #[test]
    fn a_herd_is_held_back_and_then_comes_more_than_once() {
        let shape = Shape::Herd {
            rate: 4.0,
            at: secs(600),
            outage: secs(600),
            retries: 1.0,
            spread: secs(5),
        };
        let moments = of(&shape);
        assert_eq!(count(&moments, 600.0, 1_200.0), 0.0);
        let found = count(&moments, 1_200.0, 1_205.0);
        // 2,400 held back, twice each on average (variance of a geometric number: 2), and the usual 20.
        let error = (2_400.0_f64 * (4.0 + 2.0)).sqrt();
        assert!((found - 4_820.0).abs() < 3.0 * error, "{found}");
    }

    #[test]
    fn what_is_too_much_to_hold_is_an_error() {
        let rest = Shape::Herd {
            rate: 1_000.0,
            at: Duration::ZERO,
            outage: secs(3_000),
            retries: 0.0,
            spread: secs(1),
        };
        let stream = Stream::new(0, rest, HOUR);
        let ended = Traffic::new([stream], 1).last();
        assert!(matches!(ended, Some(Err(TrafficError::TooManyPending { .. }))), "{ended:?}");
    }

    #[test]
    fn streams_are_merged_and_keep_their_own_luck() {
        let stream = |app| Stream::new(app, Shape::Random(Rate::Constant(0.5)), HOUR);
        let all: Vec<Arrival> =
            Traffic::new([stream(0), stream(1), stream(2)], 5).collect::<Result<_, _>>().unwrap();
        assert!(all.is_sorted_by_key(|arrival| arrival.at));
        let of = |app: u32| all.iter().filter(move |arrival| arrival.app == app);
        assert!((0..3).all(|app| of(app).count() > 1_600));
        // One more app changes nothing about the others.
        let two: Vec<Arrival> =
            Traffic::new([stream(0), stream(1)], 5).collect::<Result<_, _>>().unwrap();
        assert_eq!(two, all.iter().filter(|arrival| arrival.app < 2).copied().collect::<Vec<_>>());
    }

    #[test]
    fn what_creeps_gets_slower_in_even_steps() {
        let creep = Creep { from: secs(100), until: secs(200), times: 11.0 };
        let at = |at: u64| creep.at(Timestamp::from_secs(at));
        assert_eq!([at(0), at(100), at(150), at(200), at(900)], [1.0, 1.0, 6.0, 11.0, 11.0]);
        let sudden = Creep { from: secs(100), until: secs(100), times: 3.0 };
        assert_eq!(sudden.at(Timestamp::from_secs(99)), 1.0);
        assert_eq!(sudden.at(Timestamp::from_secs(100)), 3.0);
        let model = Model::Constant(secs(2));
        let stream = Stream {
            service: Some(Service { model, creep: Some(creep) }),
            ..Stream::new(0, Shape::Even { every: secs(150) }, secs(301))
        };
        let services: Vec<Duration> =
            Traffic::new([stream], 0).map(|arrival| arrival.unwrap().service.unwrap()).collect();
        assert_eq!(services, [2, 12, 22].map(secs));
    }

    #[test]
    fn what_is_longer_than_any_time_is_the_longest() {
        let year = secs(365 * 86_400);
        let creep = Creep { from: Duration::ZERO, until: Duration::ZERO, times: 1e12 };
        let service = Service { model: Model::Constant(10 * year), creep: Some(creep) };
        for share in [1.0, 1e-300, 0.0] {
            let shape = Shape::Even { every: secs(60) }.scaled(share);
            let stream =
                Stream { service: Some(service.clone()), ..Stream::new(0, shape, secs(60)) };
            let services: Vec<Option<Duration>> =
                Traffic::new([stream], 0).map(|arrival| arrival.unwrap().service).collect();
            assert_eq!(services, [Some(Duration::MAX)], "of a share of {share}");
        }
    }

    #[test]
    fn zipf_weights_fall_as_they_should() {
        let weights = zipf(3, 1.0);
        let expected = [6.0 / 11.0, 3.0 / 11.0, 2.0 / 11.0];
        assert!(
            weights.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12)
        );
    }
}
