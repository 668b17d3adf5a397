//! The simulations of a plan. Many run at once; none knows of the others.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{Timestamp, engine};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::numbers::{self, Cell, Limits, Priced};
use super::options::{Options, Progress};
use super::result::{ModelRow, Numbers, Sample};
use super::setting::Setting;
use super::traffic::{Course, TracedApp, Traffic};
use super::{Error, phases};
use crate::model::{AppModel, Faults, Model};
use crate::outcome::{Outcome, Parts};
use crate::simulation::{Failure, World};
use crate::traffic::Arrival;

/// Requests between two reports of progress, and two looks at whether to go on.
const REPORT_EVERY: u64 = 4_096;
/// Moments of a timeline.
const MOMENTS_MAX: usize = 400;

/// The apps, as they are simulated at every setting.
pub(super) struct Stage<'a> {
    options: &'a Options,
    progress: &'a dyn Progress,
    /// With today's settings.
    models: Vec<AppModel>,
    pub(super) apps: Vec<Priced>,
    pub(super) rows: Vec<ModelRow>,
    limits: Limits,
}

/// One simulation to be done: everything an app is, but for the settings.
pub(super) struct Job<'a> {
    pub(super) course: Course<'a>,
    /// Where the parts of the traffic meet that cells are of.
    pub(super) edges: Vec<Timestamp>,
    pub(super) setting: Setting,
    /// By app; `None`: as the setting says.
    pub(super) scalings: Option<Vec<Scaling>>,
    pub(super) detail: Detail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Numbers over all apps, and cells.
    Sweep,
    /// Numbers by app and the course of runner states too.
    Full,
}

#[derive(Clone, Debug)]
pub(super) struct Simulated {
    pub(super) numbers: Numbers,
    /// By part, then by app: of the warm-up too.
    pub(super) parts: Vec<Vec<Cell>>,
    pub(super) timeline: Vec<Sample>,
    /// Share of requests that waited longer than the goal.
    pub(super) over_goal_share: f64,
}

/// The traffic's iterator was told to stop.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub(super) struct Cancelled;

impl<'a> Stage<'a> {
    pub(super) fn new(
        traffic: &Traffic,
        options: &'a Options,
        progress: &'a dyn Progress,
        goal: Option<Duration>,
    ) -> Result<Self, Error> {
        let traced = traffic.apps();
        let setups = phases::setup(traced, options.setup.as_ref())?;
        let services = phases::service(traced, options.service.as_ref())?;
        let requests = traffic.requests_by_app();
        let (mut models, mut apps, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (at, app) in traced.iter().enumerate() {
            let machine = machine(app, options)?;
            let scaling = today(app, options)?;
            let ((setup, setup_source), (service, service_source)) = (&setups[at], &services[at]);
            apps.push(Priced {
                name: app.name.clone(),
                per_hour: options.prices.of(&machine.name)?,
            });
            rows.push(ModelRow {
                app: app.name.clone(),
                requests: requests[at],
                machine_type: machine.name.clone(),
                setup: *setup_source,
                setup_median_secs: setup.quantile(0.5).as_secs_f64(),
                service: *service_source,
            });
            models.push(AppModel {
                spec: AppSpec {
                    name: app.name.clone(),
                    revision: 1,
                    scaling,
                    machine_types: vec![machine],
                    retry: Rules::default(),
                },
                pull: phases::pull(app),
                setup: setup.clone(),
                service: service.clone(),
                exit: Model::Constant(Duration::ZERO),
                slowdown: options.slowdown,
                faults: Faults::default(),
            });
        }
        let limits = Limits { wait_budget: options.wait_budget, goal };
        Ok(Self { options, progress, models, apps, rows, limits })
    }

    pub(super) fn models(&self) -> &[AppModel] {
        &self.models
    }

    pub(super) fn seed(&self) -> u64 {
        self.options.seed
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn setups_vary(&self) -> bool {
        !self.models.iter().all(|app| matches!(app.setup, Model::Constant(_)))
    }

    pub(super) fn announce(&self, jobs: &[Job<'_>]) {
        let requests = jobs.iter().map(|job| job.course.traffic.requests()).sum();
        self.progress.planned(jobs.len(), requests);
    }

    /// As it is set now.
    pub(super) fn today(&self, app: usize) -> Scaling {
        self.models[app].spec.scaling
    }

    /// In the order of the jobs, whichever ends first.
    pub(super) fn run_all(&self, jobs: &[Job<'_>]) -> Result<Vec<Simulated>, Error> {
        let threads = self.options.threads.unwrap_or(0);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Threads(Box::new(error)))?;
        // Collected as results first: which of several errors is told must not depend on the threads.
        let results: Vec<Result<Simulated, Error>> =
            pool.install(|| jobs.par_iter().map(|job| self.run(job)).collect());
        results.into_iter().collect()
    }

    fn run(&self, job: &Job<'_>) -> Result<Simulated, Error> {
        let full = job.detail == Detail::Full;
        let outcome = self.simulate(job, if full { MOMENTS_MAX } else { 0 })?;
        self.progress.simulated(&job.setting);
        let span = job.course.span();
        let mut totals = numbers::totals(&outcome, &self.apps, &self.limits, span);
        if full {
            totals.apps = numbers::by_app(&outcome, &self.apps, &self.limits);
        }
        Ok(Simulated {
            numbers: totals,
            parts: numbers::cells(&outcome, &self.apps),
            timeline: numbers::timeline(&outcome.timeline),
            over_goal_share: self
                .limits
                .goal
                .map_or(0.0, |goal| outcome.total.waits.share_over(goal)),
        })
    }

    fn simulate(&self, job: &Job<'_>, moments_max: usize) -> Result<Outcome, Error> {
        let mut apps = self.models.clone();
        for (at, app) in apps.iter_mut().enumerate() {
            app.spec.scaling = match &job.scalings {
                Some(scalings) => scalings[at],
                None => job.setting.apply(app.spec.scaling),
            };
        }
        let world = World {
            seed: self.options.seed,
            engine: engine::Config::default(),
            capacity: self.options.capacity.clone().unwrap_or_else(unbounded),
            apps,
            until_answered: true,
            count_from: job.course.count_from,
            parts: Some(Parts { edges: job.edges.clone(), limits: self.limits.of_cells() }),
            moments_max,
            ..World::default()
        };
        world.run(self.watched(job.course.traffic)).map_err(|failure| match failure {
            Failure::Traffic(Cancelled) => Error::Cancelled,
            other => failed(&job.setting, other),
        })
    }

    /// The arrivals, with a look now and then at whether they are still wanted.
    pub(super) fn watched<'b>(
        &'b self,
        traffic: &'b Traffic,
    ) -> impl Iterator<Item = Result<Arrival, Cancelled>> + 'b {
        let mut unreported = 0;
        let mut left = traffic.requests();
        traffic.arrivals().map(move |arrival| {
            unreported += 1;
            left -= 1;
            if unreported == REPORT_EVERY || left == 0 {
                self.progress.requests(unreported);
                unreported = 0;
                if self.progress.cancelled() {
                    return Err(Cancelled);
                }
            }
            Ok(arrival)
        })
    }
}

pub(super) fn failed(setting: &Setting, failure: impl StdError + Send + Sync + 'static) -> Error {
    Error::Simulation { setting: setting.to_string(), source: Box::new(failure) }
}

/// More than any runners hold.
pub(crate) fn unbounded() -> Capacity {
    Capacity { cpu_millis: u64::MAX, memory_bytes: u64::MAX, gpus: Vec::new() }
}

/// Without a capacity nothing is short, and a name for the price is all that is needed.
fn machine(app: &TracedApp, options: &Options) -> Result<MachineType, Error> {
    let configured = of_app(&options.configured_machines, &app.name);
    let name = configured.or(app.machine_type.as_ref()).unwrap_or(&options.default_machine);
    match (&options.capacity, options.machines.get(name)) {
        (None, _) => Ok(MachineType { name: name.clone(), ..MachineType::default() }),
        (Some(_), Some(machine)) => Ok(machine.clone()),
        (Some(_), None) => Err(Error::NoMachine { app: app.name.clone(), machine: name.clone() }),
    }
}

/// What the config says of an app. A trace from elsewhere may leave out the owner.
fn of_app<'a, T>(configured: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    configured.get(name).or_else(|| configured.get(&format!("local/{name}")))
}

fn today(app: &TracedApp, options: &Options) -> Result<Scaling, Error> {
    let configured = of_app(&options.configured, &app.name).copied();
    let scaling = configured.or(app.scaling).unwrap_or(options.default_scaling);
    match scaling.validate() {
        Ok(()) => Ok(scaling),
        Err(problem) => Err(Error::Scaling { app: app.name.clone(), problem }),
    }
}
