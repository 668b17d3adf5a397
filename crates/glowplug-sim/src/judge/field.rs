//! Lets every policy have its go.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::time::Duration;

use glowplug_core::resources::MachineType;
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{Timestamp, engine};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::metrics::{AppSums, Metrics, Row, count};
use super::policy::{Kind, Policy};
use super::{Verdict, compare};
use crate::baseline::clairvoyant::{self, Point};
use crate::baseline::kpa::Kpa;
use crate::model::{self, AppModel, Faults, Model};
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
    pub setup: Setup,
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

/// From being placed to being ready.
#[derive(Clone, Debug, PartialEq)]
pub enum Setup {
    /// Every start draws its own. Whoever starts two runners then has the luckier draw of both, which on
    /// real machines holds only as far as starts of one moment are slow for reasons of their own.
    PerStart(Model),
    /// Every app draws once, and all its starts take as long.
    PerApp(Model),
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

type Run = (Metrics, Vec<AppSums>);
type Failed = Failure<Infallible>;

fn arrivals(traffic: &Traffic) -> impl Iterator<Item = Result<Arrival, Infallible>> {
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
    let needed = question.needed()?;
    let rows: Vec<Result<Row, Error>> = question
        .policies
        .par_iter()
        .map(|policy| {
            let row = question.row(policy, &needed);
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

    /// Runner-seconds that nobody could do without, by traffic, then by app.
    fn needed(&self) -> Result<Vec<Vec<f64>>, Error> {
        let row = |(seed, one): (u64, &Traffic)| {
            let (_, apps) = self.one(&Policy::InTime, one, &[], seed)?;
            Ok(apps.iter().map(|app| app.needed_secs).collect())
        };
        (self.seed..).zip(&self.traffics).map(row).collect()
    }

    fn row(&self, policy: &Policy, needed: &[Vec<f64>]) -> Result<Row, Error> {
        let runs = (self.seed..).zip(self.traffics.iter().zip(needed));
        let runs: Result<Vec<Run>, Error> =
            runs.map(|(seed, (one, needed))| self.one(policy, one, needed, seed)).collect();
        Ok(Row::mean(policy, runs?))
    }

    fn one(
        &self,
        policy: &Policy,
        traffic: &Traffic,
        needed: &[f64],
        seed: u64,
    ) -> Result<Run, Error> {
        let ran = match policy {
            Policy::Fixed { .. } | Policy::Auto(_) => self.engine(policy, traffic, needed, seed),
            Policy::Kpa { .. } => self.kpa(policy, traffic, needed, seed),
            Policy::Clairvoyant { keep_gaps_within } => {
                self.bound(policy, Some(*keep_gaps_within), traffic, seed)
            }
            Policy::InTime => self.bound(policy, None, traffic, seed),
        };
        ran.map_err(|failure| Error::Simulation {
            policy: policy.to_string(),
            source: Box::new(failure),
        })
    }

    fn engine(
        &self,
        policy: &Policy,
        traffic: &Traffic,
        needed: &[f64],
        seed: u64,
    ) -> Result<Run, Failed> {
        let until = end_of(traffic);
        let whole = World {
            seed,
            engine: engine::Config::default(),
            capacity: unbounded(),
            apps: self.apps(policy, traffic, seed),
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
        let (mut metrics, apps) = self.measured(&counted.run(arrivals(traffic))?, needed);
        let micros: u64 = after[1].iter().map(|sums| sums.runner_micros).sum();
        metrics.after_secs = Some(count(micros) / 1e6);
        Ok((metrics, apps))
    }

    fn kpa(
        &self,
        policy: &Policy,
        traffic: &Traffic,
        needed: &[f64],
        seed: u64,
    ) -> Result<Run, Failed> {
        let mut kpa = Kpa::default();
        if let Policy::Kpa { stable, utilization_percent, grace } = policy {
            (kpa.stable, kpa.grace) = (*stable, *grace);
            kpa.target_utilization = f64::from(*utilization_percent) / 100.0;
        }
        let counted = self.count_from()..end_of(traffic);
        let apps = self.apps(policy, traffic, seed);
        Ok(self.measured(&kpa.run_between(counted, &apps, seed, arrivals(traffic))?, needed))
    }

    /// `within`: gaps that are kept through; `None`: those shorter than the app's start.
    fn bound(
        &self,
        policy: &Policy,
        within: Option<Duration>,
        traffic: &Traffic,
        seed: u64,
    ) -> Result<Run, Failed> {
        let (from, apps) = (self.count_from(), self.apps(policy, traffic, seed));
        // What is worked off after the end counts for nobody.
        let end = end_of(traffic);
        let cut_off = arrivals(traffic).map(|arrival| {
            let Ok(arrival) = arrival;
            let service = arrival.service.map(|service| service.min(end - arrival.at));
            Ok::<_, Infallible>(Arrival { service, ..arrival })
        });
        let own = |app: &AppModel| within.unwrap_or_else(|| app.setup.mean());
        let mut limits: Vec<Duration> = apps.iter().map(own).collect();
        limits.sort_unstable();
        limits.dedup();
        let bound = clairvoyant::bound_from(from, &apps, seed, cut_off, &limits)?;
        let point = |(points, app): (&Vec<Point>, &AppModel)| {
            points[limits.binary_search(&own(app)).expect("each app's limit is among them")]
        };
        let points: Vec<Point> = bound.apps.iter().zip(&apps).map(point).collect();
        let waits = *policy != Policy::InTime;
        let sums: Vec<AppSums> =
            points.iter().map(|point| AppSums::of_bound(point, waits)).collect();
        Ok((Metrics::of_bound(&points, &sums), sums))
    }

    fn measured(&self, outcome: &Outcome, needed: &[f64]) -> Run {
        let apps = outcome.apps.iter().zip(needed);
        let sums: Vec<AppSums> = apps.map(|(app, needed)| AppSums::of(app, *needed)).collect();
        (Metrics::of(outcome, &sums, self.slo), sums)
    }

    fn apps(&self, policy: &Policy, traffic: &Traffic, seed: u64) -> Vec<AppModel> {
        let base = Scaling { max_multiplexing: self.max_multiplexing, ..Scaling::default() };
        let scaling = match policy.kind() {
            Kind::Fixed | Kind::Auto => policy.scaling(base).unwrap_or(base),
            Kind::Kpa | Kind::Bound => base,
        };
        let app = |(nth, name): (u64, &str)| AppModel {
            spec: AppSpec {
                name: name.to_owned(),
                revision: 1,
                scaling,
                machine_types: vec![MachineType::default()],
                retry: Rules::default(),
            },
            pull: None,
            setup: self.setup.of(seed, nth),
            service: self.service.clone(),
            exit: Model::Constant(Duration::ZERO),
            slowdown: 0.0,
            faults: Faults::default(),
        };
        (0..).zip(traffic.apps()).map(|(nth, traced)| app((nth, &traced.name))).collect()
    }
}

impl Setup {
    /// Of one app: the same for every policy.
    fn of(&self, seed: u64, app: u64) -> Model {
        match self {
            Self::PerStart(model) => model.clone(),
            Self::PerApp(model) => {
                Model::Constant(model.quantile(model::share_of(model::mix(seed ^ (app << 32)))))
            }
        }
    }
}
