//! The node's numbers, in Prometheus' text format at `/metrics`.
//!
//! Labels are bounded: apps come from the config, everything else from closed sets.

mod files;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use glowplug_artifacts::files::{Error as FileError, Usage};
use glowplug_core::decision::{Decision, StartCause, What};
use glowplug_core::lifecycle::State;
use glowplug_core::request::{Mode, Outcome};
use glowplug_core::{AppId, Rung, Timestamp};
use glowplug_store::StoreError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::files::FileSeries;

/// Apps with labels of their own; further ones are counted together as `other`.
const LABELLED_APPS_MAX: usize = 2_000;
const OTHER: &str = "other";

/// Upper bounds in seconds for anything from a warm start to a long compile.
const SECONDS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    1_800.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AppLabels {
    app: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    app: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    app: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    app: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RungLabels {
    app: String,
    rung: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    app: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    app: String,
    mode: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    outcome: &'static str,
}

type SecondsFamily<L> = Family<L, Histogram, fn() -> Histogram>;

const MODES: [&str; 2] = ["direct", "queued"];
const OUTCOMES: [&str; 6] =
    ["ok", "client_error", "server_error", "connect_failed", "disconnected", "caller_gone"];

/// The series that each request of an app touches.
#[derive(Debug)]
struct AppSeries {
    name: String,
    wait: Histogram,
    /// By mode, then by outcome, as in [`MODES`] and [`OUTCOMES`].
    ended: [[Counter; OUTCOMES.len()]; MODES.len()],
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// By app id. What each request touches is looked up once, not by its labels each time.
    apps: RwLock<Vec<Option<AppSeries>>>,
    starts: Family<CauseLabels, Counter>,
    start_failures: Family<AppLabels, Counter>,
    ends: Family<ReasonLabels, Counter>,
    phases: SecondsFamily<PhaseLabels>,
    wakes: SecondsFamily<RungLabels>,
    waits: SecondsFamily<AppLabels>,
    requests: Family<OutcomeLabels, Counter>,
    retries: Counter,
    runners: Family<StateLabels, Gauge>,
    queued: Family<AppLabels, Gauge>,
    in_flight: Family<AppLabels, Gauge>,
    journal_dropped: Counter<u64, AtomicU64>,
    trace_dropped: Counter<u64, AtomicU64>,
    store_errors: Family<KindLabels, Counter>,
    webhook_calls: Family<CallLabels, Counter>,
    files: FileSeries,
}

/// The state of one app at the moment of a scrape.
#[derive(Debug)]
pub(crate) struct AppGauges {
    pub app: AppId,
    pub queued: usize,
    pub in_flight: u32,
    pub runners: HashMap<State, i64>,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("glowplug"),
            apps: RwLock::default(),
            starts: Family::default(),
            start_failures: Family::default(),
            ends: Family::default(),
            phases: Family::new_with_constructor(seconds),
            wakes: Family::new_with_constructor(seconds),
            waits: Family::new_with_constructor(seconds),
            requests: Family::default(),
            retries: Counter::default(),
            runners: Family::default(),
            queued: Family::default(),
            in_flight: Family::default(),
            journal_dropped: Counter::default(),
            trace_dropped: Counter::default(),
            store_errors: Family::default(),
            webhook_calls: Family::default(),
            files: FileSeries::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("starts", "Runners started, by cause", self.starts.clone());
        registry.register(
            "start_failures",
            "Starts that failed or timed out",
            self.start_failures.clone(),
        );
        registry.register("runner_ends", "Runners ended, by reason", self.ends.clone());
        registry.register_with_unit(
            "start_phase",
            "Length of the phases of a start that led to IDLE",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "wake",
            "Time until a runner was ready, by what it began with",
            Unit::Seconds,
            self.wakes.clone(),
        );
        registry.register_with_unit(
            "request_wait",
            "Time a request waited for its runner, warm ones included",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register("requests", "Attempts ended, by outcome", self.requests.clone());
        registry.register("request_retries", "Attempts that are tried again", self.retries.clone());
        registry.register("runners", "Runners now, by state", self.runners.clone());
        registry.register("requests_queued", "Requests waiting now", self.queued.clone());
        registry.register("requests_in_flight", "Requests on runners now", self.in_flight.clone());
        registry.register(
            "journal_dropped_records",
            "Decisions that could not be written down in time",
            self.journal_dropped.clone(),
        );
        registry.register(
            "trace_dropped_records",
            "Requests, starts and stops that could not be recorded",
            self.trace_dropped.clone(),
        );
        registry.register(
            "store_errors",
            "Writes and reads of the queue that the store refused, by kind",
            self.store_errors.clone(),
        );
        registry.register(
            "webhook_calls",
            "Calls of webhooks, by what became of the webhook",
            self.webhook_calls.clone(),
        );
        self.files.register(registry);
    }

    /// Gives an app a label of its own, and makes the series of its requests.
    pub(crate) fn name_app(&self, id: AppId, name: &str) {
        let index = id.0 as usize;
        if index >= LABELLED_APPS_MAX {
            return;
        }
        let series = self.series(name);
        let mut apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
        if apps.len() <= index {
            apps.resize_with(index + 1, || None);
        }
        apps[index] = Some(series);
    }

    fn series(&self, name: &str) -> AppSeries {
        let app = name.to_owned();
        let ended = MODES.map(|mode| {
            OUTCOMES.map(|outcome| {
                let labels = OutcomeLabels { app: app.clone(), mode, outcome };
                self.requests.get_or_create_owned(&labels)
            })
        });
        let wait = self.waits.get_or_create_owned(&AppLabels { app: app.clone() });
        AppSeries { name: app, wait, ended }
    }

    /// Looks at the series of an app; apps without their own share those of `other`.
    fn with_series<T>(&self, id: AppId, look: impl FnOnce(&AppSeries) -> T) -> T {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        match apps.get(id.0 as usize) {
            Some(Some(series)) => look(series),
            _ => look(&self.series(OTHER)),
        }
    }

    fn name(&self, id: AppId) -> String {
        self.with_series(id, |series| series.name.clone())
    }

    pub(crate) fn start(&self, app: AppId, cause: StartCause) {
        let labels = CauseLabels { app: self.name(app), cause: cause.label() };
        self.starts.get_or_create(&labels).inc();
    }

    pub(crate) fn note(&self, decision: &Decision) {
        let app = || self.name(decision.app);
        match &decision.what {
            What::StartFailed { .. } => {
                self.start_failures.get_or_create(&AppLabels { app: app() }).inc();
            }
            What::Stopping { reason, .. } => {
                let labels = ReasonLabels { app: app(), reason: reason.label() };
                self.ends.get_or_create(&labels).inc();
            }
            What::Died { .. } => {
                self.ends.get_or_create(&ReasonLabels { app: app(), reason: "died" }).inc();
            }
            What::Placed { waited, .. } => self.phase(app(), "pending", *waited),
            What::Thawed { took } => self.wake(app(), Rung::Frozen, *took),
            What::Ready { took, setup, rung } => {
                if let Some(rung) = rung {
                    self.wake(app(), *rung, *took);
                }
                self.phase(app(), "setup", *setup);
                self.phase(app(), "total", *took);
            }
            _ => {}
        }
    }

    fn wake(&self, app: String, rung: Rung, took: Duration) {
        let labels = RungLabels { app, rung: rung.as_str() };
        self.wakes.get_or_create(&labels).observe(took.as_secs_f64());
    }

    fn phase(&self, app: String, phase: &'static str, length: Duration) {
        self.phases.get_or_create(&PhaseLabels { app, phase }).observe(length.as_secs_f64());
    }

    pub(crate) fn pulled(&self, app: AppId, length: Duration) {
        self.phase(self.name(app), "docker_pull", length);
    }

    pub(crate) fn assigned(&self, app: AppId, arrived: Timestamp, now: Timestamp) {
        self.with_series(app, |series| series.wait.observe((now - arrived).as_secs_f64()));
    }

    pub(crate) fn finished(&self, app: AppId, mode: Mode, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Answered(answer) => match answer.status {
                ..400 => 0,
                400..500 => 1,
                _ => 2,
            },
            Outcome::ConnectFailed => 3,
            Outcome::Disconnected => 4,
            Outcome::CallerGone => 5,
        };
        let mode = match mode {
            Mode::Direct => 0,
            Mode::Queued => 1,
        };
        self.with_series(app, |series| series.ended[mode][outcome].inc());
    }

    pub(crate) fn attempt_over(&self, retried: bool) {
        if retried {
            self.retries.inc();
        }
    }

    pub(crate) fn journal_dropped(&self, records: u64) {
        self.journal_dropped.inc_by(records);
    }

    pub(crate) fn trace_dropped(&self, records: u64) {
        self.trace_dropped.inc_by(records);
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        let kind = match error {
            StoreError::Full { .. } => "full",
            StoreError::Corrupt { .. } | StoreError::BodyDamaged { .. } => "damaged",
            _ => "unavailable",
        };
        self.store_errors.get_or_create(&KindLabels { kind }).inc();
    }

    /// `outcome`: `delivered`, `again` (another call follows) or `failed` (none does).
    pub(crate) fn webhook_called(&self, outcome: &'static str) {
        self.webhook_calls.get_or_create(&CallLabels { outcome }).inc();
    }

    /// At the moment of a scrape.
    pub(crate) fn files_kept(&self, usage: Usage) {
        self.files.kept(usage);
    }

    /// `kept`: the bytes of the file.
    pub(crate) fn file_uploaded(&self, kept: Result<u64, &FileError>) {
        self.files.uploaded(kept);
    }

    /// The whole of `/metrics`.
    pub(crate) fn render(&self, apps: &[AppGauges]) -> String {
        self.runners.clear();
        self.queued.clear();
        self.in_flight.clear();
        for gauges in apps {
            let app = self.name(gauges.app);
            let labels = AppLabels { app: app.clone() };
            self.queued.get_or_create(&labels).inc_by(as_gauge(gauges.queued));
            self.in_flight.get_or_create(&labels).inc_by(i64::from(gauges.in_flight));
            for (state, count) in &gauges.runners {
                let labels = StateLabels { app: app.clone(), state: state.as_str() };
                self.runners.get_or_create(&labels).inc_by(*count);
            }
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics could not be written as text");
        }
        text
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
