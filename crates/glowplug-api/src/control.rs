//! `/api/v1`: what the command line, the dashboard and programs read and change.
//!
//! | route | method | body → answer |
//! | --- | --- | --- |
//! | `/api/v1/node` | GET | → [`NodeView`] |
//! | `/api/v1/apps` | GET | → `[AppView]` |
//! | `/api/v1/apps/{owner}/{app}` | GET | → [`AppView`] |
//! | `/api/v1/apps/{owner}/{app}/scaling` | PATCH | [`ScalingPatch`] → [`AppView`] |
//! | `/api/v1/apps/{owner}/{app}/queue` | GET | → [`QueueView`] |
//! | `/api/v1/apps/{owner}/{app}/queue` | DELETE | → [`FlushView`] |
//! | `/api/v1/apps/{owner}/{app}/prewarm` (`?intent=page_opened`) | POST | [`PrewarmRequest`] → [`PrewarmView`] |
//! | `/api/v1/queue` (`?app=`, `?state=`, `?limit=`) | GET | → `[QueuedView]` |
//! | `/api/v1/queue/{id}` | GET | → [`QueuedView`] |
//! | `/api/v1/queue/{id}` | DELETE | → [`CancelView`] |
//! | `/api/v1/queue/export` (`?app=`) | GET | → an exported queue |
//! | `/api/v1/queue/import` | POST | an exported queue → [`MovedView`] |
//! | `/api/v1/queue/backup` | POST | [`BackupRequest`] → [`BackupView`] |
//! | `/api/v1/runners` (`?app=`, `?ended=true`) | GET | → `[RunnerView]` |
//! | `/api/v1/runners/{id}` | GET | → [`RunnerView`] |
//! | `/api/v1/runners/{id}/stop` (`?replace=true`) | POST | → [`RunnerView`] |
//! | `/api/v1/runners/{id}/kill` | POST | → [`RunnerView`] |
//! | `/api/v1/runners/{id}/logs` (`?from=`, `?follow=true`) | GET | → lines of JSON, each a [`LogLineView`] |
//! | `/api/v1/why/{id}` | GET | → [`WhyView`] |
//! | `/api/v1/webhooks/{request_id}` | GET | → [`WebhookView`] |
//! | `/api/v1/webhooks/{request_id}/retry` | POST | → [`WebhookView`] |
//! | `/api/v1/images` | GET | → `[ImageView]` |
//! | `/api/v1/images` | POST | [`ImagePullRequest`] → lines of JSON, each an [`ImagePullEvent`] |
//! | `/api/v1/images/gc` | POST | [`ImageGcRequest`] → [`ImageGcView`] |
//! | `/api/v1/images/fsck` | POST | [`ImageFsckRequest`] → lines of JSON, each an [`ImageFsckEvent`] |
//! | `/api/v1/images/{digest}` | GET | → [`ImageDetailView`] |
//! | `/api/v1/images/{digest}` | DELETE | → nothing (204) |
//! | `/api/v1/trace` (`?since=24h`, `?app=a,b`) | GET | → a trace, as `glowplug plan` reads it |
//! | `/api/v1/trace/status` | GET | → [`TraceStatusView`] |
//! | `/api/v1/keys` | GET, POST | [`KeyRequest`] → `[KeyView]`, [`KeyCreated`] |
//! | `/api/v1/keys/{id}` | DELETE | → nothing (204) |
//!
//! Times are microseconds since the Unix epoch, lengths of time are seconds as decimal numbers. An error
//! answers with [`crate::ErrorBody`].

mod images;

use serde::{Deserialize, Serialize};

pub use images::{
    ImageDetailView, ImageFsckEvent, ImageFsckRequest, ImageFsckView, ImageGcRequest, ImageGcView,
    ImageGoneView, ImageLayerView, ImagePullEvent, ImagePullRequest, ImageShareView, ImageView,
};

/// Who says how long idle runners are kept, and how many spare ones there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The parameters, as they stand.
    #[default]
    Fixed,
    /// What was learned of the app's own traffic, within the parameters.
    Auto,
}

/// fal's scaling parameters as JSON. In a [`ScalingPatch`] an absent field is left unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingPatch {
    /// `fixed` also drops what was set of the three that follow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<Policy>,
    /// 0 takes the budget away.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wait_budget: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wait_budget_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wait_price: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keep_alive: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_concurrency: Option<u32>,
    /// 0 takes the cap away.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub concurrency_buffer: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub concurrency_buffer_perc: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scaling_delay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_multiplexing: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub startup_timeout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_timeout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unused_runner_timeout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub termination_grace_period_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingView {
    #[serde(default)]
    pub policy: Policy,
    /// With the policy `auto`: no more than `wait_budget_percent` of the requests are to wait longer.
    #[serde(default)]
    pub wait_budget: Option<f64>,
    #[serde(default)]
    pub wait_budget_percent: Option<f64>,
    /// With the policy `auto`: what a second of waiting is worth, in seconds of a runner.
    #[serde(default)]
    pub wait_price: Option<f64>,
    /// With the policy `auto`: the longest that an idle runner is kept.
    pub keep_alive: f64,
    pub min_concurrency: u32,
    pub max_concurrency: Option<u32>,
    pub concurrency_buffer: u32,
    pub concurrency_buffer_perc: u32,
    pub scaling_delay: f64,
    pub max_multiplexing: u32,
    pub startup_timeout: f64,
    pub request_timeout: f64,
    pub unused_runner_timeout: Option<f64>,
    pub termination_grace_period_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppView {
    /// `owner/app[--env]`.
    pub name: String,
    /// `ready`, `preparing` or `broken`.
    pub status: String,
    /// Why it is broken, or what is being prepared.
    pub detail: Option<String>,
    pub revision: u32,
    /// What runs, as in the config: `app.py::Hello`, or the command.
    pub program: String,
    pub machine_types: Vec<String>,
    pub scaling: Option<ScalingView>,
    /// Runners by state (`IDLE`, `RUNNING`, …), states without any left out.
    pub runners: std::collections::BTreeMap<String, u32>,
    pub queued: usize,
    pub in_flight: usize,
    /// When the next start may be tried after failed ones.
    pub backoff_until_micros: Option<u64>,
    /// How long its wake-ups took since the node started, warmest rung first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<RungView>,
}

/// Wake-ups of an app from one rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungView {
    /// `frozen`, `zygote`, `snapshot`, `image_cached` or `cold`.
    pub rung: String,
    pub wakes: u64,
    /// From having a place to being ready; new ones weigh a quarter.
    pub typical_seconds: f64,
    pub last_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerView {
    pub id: String,
    pub app: String,
    pub revision: u32,
    /// `PENDING`, `DOCKER_PULL`, `SETUP`, `FAILURE_DELAY`, `IDLE`, `RUNNING`, `DRAINING`,
    /// `TERMINATING`, `TERMINATED`.
    pub state: String,
    /// What the state does not say: an IDLE runner may be `frozen` or `thawing`, and any one a `capture`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What its last wake-up began with: `frozen`, `zygote`, `snapshot`, `image_cached`, `cold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
    /// Of memory, while it is frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_bytes: Option<u64>,
    /// Why it was started, in words, and as a label.
    pub cause: String,
    pub cause_label: String,
    pub in_flight: u32,
    pub served: u64,
    pub machine_type: Option<String>,
    pub gpus: Vec<u32>,
    pub created_at_micros: u64,
    pub ready_at_micros: Option<u64>,
    pub ended_at_micros: Option<u64>,
    /// Why it ended or is ending.
    pub end_reason: Option<String>,
    /// When its keep_alive is over, while it is idle.
    pub expires_at_micros: Option<u64>,
    /// The phases of its start so far, in order.
    pub phases: Vec<PhaseView>,
    /// How far the pull of its image is, or what it took; absent where nothing was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullView>,
}

/// A pull of an image, from its registry to this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullView {
    /// Of the layers as the registry has them; what was here before counts as well.
    pub bytes: u64,
    /// 0 while it is not known.
    pub total_bytes: u64,
    /// Of `bytes`, what was here before.
    pub known_bytes: u64,
    pub layers: usize,
    pub total_layers: usize,
    /// What came over the network, over the whole time of the pull so far.
    pub bytes_per_second: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseView {
    /// `pending`, `docker_pull`, `setup`, and below `setup` what the program itself marked (`imported`, …).
    pub name: String,
    pub start_micros: u64,
    /// Absent while the phase lasts.
    pub end_micros: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLineView {
    pub number: u64,
    pub at_micros: u64,
    /// `stdout`, `stderr` or `supervisor`.
    pub stream: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueView {
    pub app: String,
    /// Waiting, not yet given to a runner.
    pub size: usize,
    pub in_progress: usize,
}

/// The webhook of a request and the newest calls of it, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookView {
    pub request_id: String,
    pub url: String,
    /// `due`, `delivered` or `failed`.
    pub state: String,
    /// When it is called next; while it is being called, when it is called again if the node dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_call_at_micros: Option<u64>,
    pub calls: Vec<WebhookCallView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookCallView {
    pub at_micros: u64,
    pub seconds: f64,
    /// What the receiver answered, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the call did not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One queued request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueuedView {
    pub id: String,
    pub app: String,
    /// `IN_QUEUE`, `IN_PROGRESS` or `COMPLETED`.
    pub state: String,
    /// How many are served before it, while it waits.
    pub position: Option<usize>,
    /// `None` in lists of what is not complete.
    pub submitted_at_micros: Option<u64>,
    pub completed_at_micros: Option<u64>,
    /// Of the answer.
    pub status: Option<u16>,
    pub error: Option<String>,
    pub attempts: Option<u32>,
    /// Which start of which node owns it, where the store was asked.
    pub owner: Option<u32>,
    pub webhook: Option<String>,
    /// `due`, `delivered` or `failed`, from the end of the request on.
    pub webhook_state: Option<String>,
    pub logs: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelView {
    pub id: String,
    /// `removed`, `requested` or `completed before`.
    pub outcome: String,
}

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MovedView {
    pub requests: u64,
    /// There already, and left as they were.
    pub known: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// A new file, on the node's machine; absolute.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupView {
    pub path: String,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlushView {
    pub app: String,
    pub removed: usize,
}

/// The reason, and the intent, of a prewarm that says no more than that somebody is about to use an app: a
/// page was opened. It asks for no runner. An app that is scaled by what is learned of it weighs whether to
/// start one; others do nothing.
pub const PAGE_OPENED: &str = "page_opened";

/// That traffic is to be expected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrewarmRequest {
    /// So many are to be warm; what is missing is started. Absent: 1, unless the reason is [`PAGE_OPENED`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runners: Option<u32>,
    /// For the node's log, or [`PAGE_OPENED`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// Runners of the app now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrewarmView {
    pub app: String,
    /// Idle or in use.
    pub ready: u32,
    /// On their way, those that wait for a place or for the end of a failure's delay among them.
    pub starting: u32,
    /// Of these, begun by this request.
    pub started: u32,
}

/// What the node has recorded of its traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceStatusView {
    pub enabled: bool,
    pub segments: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// Requests, starts and stops.
    pub records: u64,
    /// What could not be recorded since the node started.
    pub dropped: u64,
    pub first_micros: Option<u64>,
    pub last_micros: Option<u64>,
}

/// Header of an exported trace: how many bytes it will have at most, for progress bars. Not exact.
pub const TRACE_BYTES_EXPECTED: &str = "x-glowplug-bytes-expected";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub version: String,
    pub boot: u32,
    pub started_at_micros: u64,
    pub data_dir: String,
    pub cpu_millis: u64,
    pub cpu_millis_free: u64,
    pub memory_bytes: u64,
    pub memory_bytes_free: u64,
    pub gpus: Vec<GpuView>,
    pub apps: usize,
    pub runners: usize,
    /// No key is configured: every caller on loopback is served.
    pub open: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    pub index: u32,
    pub kind: String,
    pub memory_bytes: u64,
    /// The runner that holds it.
    pub runner: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// `request`, `runner` or `app`.
    pub kind: String,
    pub id: String,
    /// One sentence that answers.
    pub summary: String,
    /// Of an app that is scaled by what is learned of it: what is known, and what would be done now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<String>,
    /// What was decided, oldest first.
    pub decisions: Vec<DecisionView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    pub at_micros: u64,
    pub sentence: String,
    /// The decision with its inputs.
    pub data: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    #[serde(default)]
    pub alias: String,
    /// `API` (call apps) or `ADMIN` (also change things).
    #[serde(default = "KeyRequest::default_scope")]
    pub scope: String,
}

impl KeyRequest {
    fn default_scope() -> String {
        "API".into()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyCreated {
    pub id: String,
    /// Shown this once; only its hash is kept.
    pub secret: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyView {
    pub id: String,
    pub alias: String,
    pub scope: String,
    pub created_at_micros: u64,
}
