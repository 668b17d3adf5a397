//! Lets every policy have its go.

use std::error::Error as StdError;
use std::time::Duration;

use glowplug_core::resources::MachineType;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{Timestamp, engine};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::metrics::{AppSums, Metrics, Row, count};
use super::policy::{Kind, Policy};
use super::{Verdict, compare};
use crate::baseline::clairvoyant::{self, Point};
use crate::baseline::kpa::Kpa;
use crate::model::{AppModel, Faults, Model};
use crate::outcome::{Outcome, Parts};
use crate::plan::{Traffic, unbounded};
use crate::simulation::{Failure, World};
use crate::traffic::Arrival;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The same apps in each: traffics that differ by a seed alone, or one.
    pub traffics: Vec<Traffic>,
    pub policies: Vec<Policy>,
    /// From being placed to being ready.
    pub setup: Model,
    /// Of requests that do not bring their own.
    pub service: Model,
    pub max_multiplexing: u32,
    /// What comes before happens, and is not counted.
    pub warm_up: Duration,
    pub slo: Duration,
    /// Of the first traffic; each further one has the next.
    pub seed: u64,
    /// Samples of apps behind each interval.
    pub resamples: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no traffic to judge by: give at least one")]
    NoTraffic,
    #[error("nothing comes after the warm-up of {0:?}; make it shorter")]
    NothingCounts(Duration),
    #[error("the traffics are not of the same apps: {first} of one, {other} of another")]
    OtherApps { first: usize, other: usize },
    #[error("the simulation of `{policy}` failed")]
    Simulation { policy: String, source: Box<dyn StdError + Send + Sync> },
}

/// Traffic in memory does not end early.
#[derive(Debug, thiserror::Error)]
#[error("the traffic ended early")]
struct Never;

type Run = (Metrics, Vec<AppSums>);
type Failed = Failure<Never>;

fn arrivals(traffic: &Traffic) -> impl Iterator<Item = Result<Arrival, Never>> {
    traffic.arrivals().map(Ok)
}

/// Just after the last request has come: nothing is counted from there on.
fn end_of(traffic: &Traffic) -> Timestamp {
    Timestamp::ZERO + traffic.span() + Duration::from_micros(1)
}

/// `done` hears of every policy that has been through, from several threads at once.
pub fn run(question: &Question, done: &(dyn Fn(&Policy) + Sync)) -> Result<Verdict, Error> {
    let Some(first) = question.traffics.first() else { return Err(Error::NoTraffic) };
    let apps = first.apps().len();
    if let Some(other) = question.traffics.iter().find(|one| one.apps().len() != apps) {
        return Err(Error::OtherApps { first: apps, other: other.apps().len() });
    }
    let counted = first.arrivals().filter(|arrival| arrival.at >= question.count_from()).count();
    if counted == 0 {
        return Err(Error::NothingCounts(question.warm_up));
    }
    let rows: Vec<Result<Row, Error>> = question
        .policies
        .par_iter()
        .map(|policy| {
            let row = question.row(policy);
            done(policy);
            row
        })
        .collect();
    let rows: Vec<Row> = rows.into_iter().collect::<Result<_, _>>()?;
    Ok(Verdict {
        requests: counted as u64,
        apps,
        span_secs: first.span().saturating_sub(question.warm_up).as_secs_f64(),
        contests: compare::contests(&rows),
        pairs: compare::pairs(&rows, question.resamples, question.seed),
        rows,
    })
}

impl Question {
    fn count_from(&self) -> Timestamp {
        Timestamp::ZERO + self.warm_up
    }

    fn row(&self, policy: &Policy) -> Result<Row, Error> {
        let runs: Result<Vec<Run>, Error> = (self.seed..)
            .zip(&self.traffics)
            .map(|(seed, one)| self.one(policy, one, seed))
            .collect();
        Ok(Row::mean(policy, runs?))
    }

    fn one(&self, policy: &Policy, traffic: &Traffic, seed: u64) -> Result<Run, Error> {
        let ran = match policy {
            Policy::Fixed { .. } | Policy::Auto(_) => self.engine(policy, traffic, seed),
            Policy::Kpa { .. } => self.kpa(policy, traffic, seed),
            Policy::Clairvoyant { keep_gaps_within } => {
                self.bound(policy, *keep_gaps_within, traffic, seed)
            }
            Policy::InTime => self.bound(policy, self.setup.mean(), traffic, seed),
        };
        ran.map_err(|failure| Error::Simulation {
            policy: policy.to_string(),
            source: Box::new(failure),
        })
    }

    fn engine(&self, policy: &Policy, traffic: &Traffic, seed: u64) -> Result<Run, Failed> {
        let until = end_of(traffic);
        let whole = World {
            seed,
            engine: engine::Config::default(),
            capacity: unbounded(),
            apps: self.apps(policy, traffic),
            parts: Some(Parts { edges: vec![until], ..Parts::default() }),
            ..World::default()
        };
        let counted = World {
            count_from: self.count_from(),
            until: Some(until),
            parts: None,
            ..whole.clone()
        };
        let after = whole.run(arrivals(traffic))?.parts;
        let (mut metrics, apps) = self.measured(&counted.run(arrivals(traffic))?);
        let micros: u64 = after[1].iter().map(|sums| sums.runner_micros).sum();
        metrics.after_secs = Some(count(micros) / 1e6);
        Ok((metrics, apps))
    }

    fn kpa(&self, policy: &Policy, traffic: &Traffic, seed: u64) -> Result<Run, Failed> {
        let mut kpa = Kpa::default();
        if let Policy::Kpa { stable, utilization_percent, grace } = policy {
            (kpa.stable, kpa.grace) = (*stable, *grace);
            kpa.target_utilization = f64::from(*utilization_percent) / 100.0;
        }
        let counted = self.count_from()..end_of(traffic);
        let apps = self.apps(policy, traffic);
        Ok(self.measured(&kpa.run_between(counted, &apps, seed, arrivals(traffic))?))
    }

    fn bound(
        &self,
        policy: &Policy,
        within: Duration,
        traffic: &Traffic,
        seed: u64,
    ) -> Result<Run, Failed> {
        let (from, apps) = (self.count_from(), self.apps(policy, traffic));
        let bound = clairvoyant::bound_from(from, &apps, seed, arrivals(traffic), &[within])?;
        let points: Vec<Point> = bound.apps.into_iter().map(|points| points[0]).collect();
        let waits = *policy != Policy::InTime;
        let sums = points.iter().map(|point| AppSums::of_bound(point, waits)).collect();
        Ok((Metrics::of_bound(&points, waits), sums))
    }

    fn measured(&self, outcome: &Outcome) -> Run {
        (Metrics::of(outcome, self.slo), outcome.apps.iter().map(AppSums::of).collect())
    }

    fn apps(&self, policy: &Policy, traffic: &Traffic) -> Vec<AppModel> {
        let base = Scaling { max_multiplexing: self.max_multiplexing, ..Scaling::default() };
        let scaling = match policy.kind() {
            Kind::Fixed | Kind::Auto => policy.scaling(base).unwrap_or(base),
            Kind::Kpa | Kind::Bound => base,
        };
        let app = |name: &str| AppModel {
            spec: AppSpec {
                name: name.to_owned(),
                revision: 1,
                scaling,
                machine_types: vec![MachineType::default()],
            },
            pull: None,
            setup: self.setup.clone(),
            service: self.service.clone(),
            exit: Model::Constant(Duration::ZERO),
            slowdown: 0.0,
            faults: Faults::default(),
        };
        traffic.apps().iter().map(|traced| app(&traced.name)).collect()
    }
}
