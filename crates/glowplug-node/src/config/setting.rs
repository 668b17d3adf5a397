//! Every setting there is, in one table: its key, kind, default and meaning.
//!
//! Reading the config, `glowplug config show` and the reference page all follow this table, so a setting
//! that is not in it does not exist.

use glowplug_core::spec::PolicyName;

use super::value::Kind;

/// A table of the config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Node,
    Resources,
    Contention,
    Recorder,
    Limits,
    MachineType,
    App,
}

impl Section {
    pub(super) const ALL: [Self; 7] = [
        Self::Node,
        Self::Resources,
        Self::Contention,
        Self::Recorder,
        Self::Limits,
        Self::MachineType,
        Self::App,
    ];

    /// Its dotted path; `NAME` stands for a name of the user's.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Resources => "node.resources",
            Self::Contention => "node.contention",
            Self::Recorder => "node.recorder",
            Self::Limits => "node.limits",
            Self::MachineType => "machine_types.NAME",
            Self::App => "apps.NAME",
        }
    }

    pub(super) fn settings(self) -> &'static [Setting] {
        match self {
            Self::Node => NODE,
            Self::Resources => RESOURCES,
            Self::Contention => CONTENTION,
            Self::Recorder => RECORDER,
            Self::Limits => LIMITS,
            Self::MachineType => MACHINE_TYPE,
            Self::App => APP,
        }
    }

    /// Tables that may stand in this one.
    pub(super) fn subsections(self) -> &'static [(&'static str, Self)] {
        match self {
            Self::Node => &[
                ("resources", Self::Resources),
                ("contention", Self::Contention),
                ("recorder", Self::Recorder),
                ("limits", Self::Limits),
            ],
            _ => &[],
        }
    }

    pub(super) fn doc(self) -> &'static str {
        match self {
            Self::Node => "The node itself.",
            Self::Resources => "What apps may use of this machine.",
            Self::Contention => "What happens when more apps are wanted than fit.",
            Self::Recorder => {
                "What the node writes down of its traffic, for `glowplug trace` and `glowplug plan`: when \
                 requests came, how long they waited and were worked on, how starts went. Nothing of what \
                 requests hold or who sent them."
            }
            Self::Limits => "Bounds that keep one caller or one app from taking the node down.",
            Self::MachineType => {
                "A named bundle of resources for one runner. A name that is built in keeps its \
                 built-in amounts where this table says nothing."
            }
            Self::App => {
                "One app. NAME is `app` or `owner/app`, the owner being `local` if it is left out, \
                 and may end in `--ENVIRONMENT`; quote names with a slash. Exactly one of `app` and \
                 `command` says what runs."
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    /// Used when nothing else is set; written as in the environment.
    Value(&'static str),
    /// No fixed value: what happens instead.
    Otherwise(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) fallback: Fallback,
    /// A short environment variable beside the long one that each setting of the node has.
    pub(super) short_env: Option<&'static str>,
    pub(super) doc: &'static str,
}

const fn setting(key: &'static str, kind: Kind, fallback: Fallback, doc: &'static str) -> Setting {
    Setting { key, kind, fallback, short_env: None, doc }
}

impl Setting {
    const fn short_env(mut self, name: &'static str) -> Self {
        self.short_env = Some(name);
        self
    }
}

use Fallback::{Otherwise, Value};

pub(super) const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

const NODE: &[Setting] = &[
    setting(
        "listen",
        Kind::Address,
        Value("127.0.0.1:8642"),
        "Where the node takes requests. Beyond loopback it needs a key, or `open`.",
    )
    .short_env("GLOWPLUG_LISTEN"),
    setting(
        "data_dir",
        Kind::Path,
        Otherwise(
            "`glowplug-data` beside the config file; without a file `glowplug` in the user's data directory",
        ),
        "Where the queue, logs, caches and keys are kept.",
    )
    .short_env("GLOWPLUG_DATA_DIR"),
    setting(
        "user",
        Kind::Text,
        Otherwise("apps run as the user who started the node"),
        "The unprivileged user, by name or number, that apps run as. Needs a node started by root.",
    ),
    setting(
        "open",
        Kind::Bool,
        Value("false"),
        "Serve everyone beyond loopback even when no key exists. Without it such a node refuses to start.",
    ),
    setting(
        "proxy_origins",
        Kind::Names,
        Otherwise("none"),
        "Web pages, by origin such as `http://localhost:3000`, whose scripts may use `/proxy`; `*` for all.",
    ),
    setting(
        "log_level",
        Kind::Choice(LOG_LEVELS),
        Value("info"),
        "The least important messages the node still logs.",
    ),
    setting(
        "log_format",
        Kind::Choice(&["text", "json"]),
        Value("text"),
        "How the node writes its log: for people, or one JSON object a line.",
    ),
    setting(
        "adopt_timeout",
        Kind::Duration,
        Value("60s"),
        "How long runners live on without a node. One that comes back within it takes them over as they are.",
    ),
    setting(
        "shutdown_timeout",
        Kind::Duration,
        Value("30s"),
        "How long a node that was told to stop lets requests finish before it stops their runners.",
    ),
    setting(
        "answer_retention",
        Kind::Duration,
        Value("24h"),
        "How long the answer to a queued request can be fetched after it is complete.",
    ),
    setting(
        "default_machine",
        Kind::Text,
        Value("default"),
        "The machine type of apps that name none. A `fal.App` that only inherits fal's own \
         `machine_type` counts as naming none.",
    ),
];

const RESOURCES: &[Setting] = &[
    setting("cpu", Kind::Cores, Otherwise("all of the machine's"), "CPU cores for apps."),
    setting("memory", Kind::Bytes, Otherwise("all of the machine's"), "Memory for apps."),
    setting(
        "gpus",
        Kind::Gpus,
        Otherwise("those that the driver reports"),
        "GPUs for apps, numbered from 0 in this order. In the environment: `KIND:MEMORY:COUNT,…`.",
    ),
];

const CONTENTION: &[Setting] = &[setting(
    "wait_max",
    Kind::Duration,
    Value("30s"),
    "When apps compete for room: how long one may wait before a busy competitor must make way for it.",
)];

const RECORDER: &[Setting] = &[
    setting(
        "enabled",
        Kind::Bool,
        Value("true"),
        "Record the traffic below `trace` in the data directory.",
    ),
    setting(
        "max_bytes",
        Kind::Bytes,
        Value("256MiB"),
        "What recordings may take of the disk. The oldest go when more is recorded.",
    ),
    setting(
        "segment_bytes",
        Kind::Bytes,
        Value("8MiB"),
        "How much is recorded into one file before it is sorted and compressed. Recordings go by whole files; \
         at least four of this size must fit into `max_bytes`.",
    ),
];

const LIMITS: &[Setting] = &[
    setting(
        "waiting_max",
        Kind::Count,
        Value("100000"),
        "Requests that may wait on this node at once; more are refused with 429.",
    ),
    setting(
        "run_body_bytes_max",
        Kind::Bytes,
        Value("16GiB"),
        "The largest body of a direct request, which is streamed; more is refused with 413.",
    ),
    setting(
        "queue_body_bytes_max",
        Kind::Bytes,
        Value("64MiB"),
        "The largest body of a queued request, which is kept; more is refused with 413.",
    ),
    setting(
        "response_bytes_max",
        Kind::Bytes,
        Value("64MiB"),
        "The largest answer kept for a queued request.",
    ),
    setting(
        "header_bytes_max",
        Kind::Bytes,
        Value("64KiB"),
        "All headers of one request together; more is refused with 431.",
    ),
    setting(
        "connections_max",
        Kind::Count,
        Value("16384"),
        "Connections open at once; further ones wait to be accepted.",
    ),
    setting(
        "runner_log_bytes_max",
        Kind::Bytes,
        Value("16MiB"),
        "What is kept of one runner's log; the oldest lines go first.",
    ),
    setting(
        "runner_processes_max",
        Kind::Count,
        Value("4096"),
        "Processes and threads of one runner, where the host has cgroups to hold it to them.",
    ),
    setting(
        "runner_open_files_max",
        Kind::Count,
        Otherwise("as many as the node itself"),
        "Open files of one process of a runner. Can only be lower than the node's own limit.",
    ),
];

const MACHINE_TYPE: &[Setting] = &[
    setting(
        "cpu",
        Kind::Cores,
        Otherwise("the built-in amount, else 0"),
        "CPU cores of one runner.",
    ),
    setting(
        "memory",
        Kind::Bytes,
        Otherwise("the built-in amount, else 0"),
        "Memory of one runner.",
    ),
    setting(
        "gpus",
        Kind::Count,
        Otherwise("the built-in number, else 0"),
        "GPUs of one runner; each is its own.",
    ),
    setting(
        "gpu_kind",
        Kind::Text,
        Otherwise("any model"),
        "The GPUs' model, as `[node.resources]` or the driver calls it, for example `H100`.",
    ),
    setting(
        "gpu_memory",
        Kind::Bytes,
        Otherwise("any amount"),
        "The least memory each of the GPUs must have.",
    ),
    setting(
        "price_per_hour",
        Kind::Number,
        Otherwise("runners cost nothing"),
        "What an hour of such a runner costs you, in your currency. Used to price idle, start and busy time.",
    ),
    setting(
        "enforce",
        Kind::Bool,
        Otherwise("true, but for the built-in `default`"),
        "Hold runners to `cpu` and `memory` where the host can; otherwise the amounts are only set aside.",
    ),
];

const APP: &[Setting] = &[
    setting(
        "app",
        Kind::Text,
        Otherwise("`command` says what runs"),
        "A Python app: `file.py::Class`, or `file.py` if it holds one class only. Relative to the config file.",
    ),
    setting(
        "command",
        Kind::Argv,
        Otherwise("`app` says what runs"),
        "An HTTP server. `$PORT` in an argument becomes the port to listen on, which the environment has as \
         `PORT` too.",
    ),
    setting(
        "image",
        Kind::Text,
        Otherwise("`app` or `command` says what runs"),
        "A container image. Not supported by this version: refused with an explanation.",
    ),
    setting(
        "cwd",
        Kind::Path,
        Otherwise("the config file's directory"),
        "The directory the app runs in.",
    ),
    setting("env", Kind::Texts, Otherwise("empty"), "Environment variables for the app."),
    setting(
        "health_path",
        Kind::Text,
        Otherwise("ready as soon as the socket accepts"),
        "A path that must answer 2xx before a runner counts as ready.",
    ),
    setting(
        "listen",
        Kind::Choice(&["port", "unix"]),
        Otherwise("`port` for commands, a unix socket for Python apps"),
        "Where the app takes requests: a loopback port (`PORT`) or a unix socket (`GLOWPLUG_SOCKET`).",
    ),
    setting(
        "user",
        Kind::Text,
        Otherwise("`user` of [node]"),
        "The unprivileged user that this app runs as.",
    ),
    setting(
        "access",
        Kind::Choice(&["private", "public"]),
        Value("private"),
        "Who may call it: holders of a key of this node, or everyone.",
    ),
    setting(
        "machine_type",
        Kind::Names,
        Otherwise("the class's own, else `default_machine` of [node]"),
        "The machine type of its runners, or several of which the first that fits is taken.",
    ),
    setting(
        "policy",
        Kind::Choice(PolicyName::NAMES),
        Value("fixed"),
        "Who says how long idle runners are kept and when spare ones start: the parameters below as they \
         stand, or `auto`, which learns it from the app's own traffic and keeps within them.",
    ),
    setting(
        "wait_budget",
        Kind::Duration,
        Otherwise("none: `wait_price` alone counts"),
        "With `policy = \"auto\"`: how long a request may wait for its runner. What waiting is worth is then \
         steered until few enough wait longer. 0: no budget.",
    ),
    setting(
        "wait_budget_percent",
        Kind::Number,
        Otherwise("5, if there is a `wait_budget`"),
        "How many of a hundred requests may wait longer than `wait_budget`.",
    ),
    setting(
        "wait_price",
        Kind::WaitPrice,
        Otherwise("\"balanced\""),
        "With `policy = \"auto\"`: what a second of a request's waiting is worth, in seconds of a runner. With \
         a `wait_budget`, where to begin.",
    ),
    setting(
        "keep_alive",
        Kind::Duration,
        Value("10s"),
        "How long a runner is kept after its last request. With `policy = \"auto\"`, if it is set here: the \
         longest that an idle runner is kept, else 4 hours.",
    ),
    setting("min_concurrency", Kind::Count, Value("0"), "Runners that always live."),
    setting(
        "max_concurrency",
        Kind::Count,
        Otherwise("as many as fit"),
        "Runners that may live at once. 0: no cap, whatever the class says.",
    ),
    setting("concurrency_buffer", Kind::Count, Value("0"), "Spare runners kept above demand."),
    setting(
        "concurrency_buffer_perc",
        Kind::Count,
        Value("0"),
        "Spare runners in percent of the requests at hand. The larger of the two buffers counts.",
    ),
    setting(
        "scaling_delay",
        Kind::Duration,
        Value("0s"),
        "How long a request must have waited before it may cause a start.",
    ),
    setting(
        "max_multiplexing",
        Kind::Count,
        Value("1"),
        "Requests that one runner serves at once.",
    ),
    setting(
        "startup_timeout",
        Kind::Duration,
        Value("10m"),
        "How long `setup()` may take until the socket accepts.",
    ),
    setting(
        "request_timeout",
        Kind::Duration,
        Value("1h"),
        "How long one attempt of a request may take. Its runner is stopped when it takes longer.",
    ),
    setting(
        "unused_runner_timeout",
        Kind::Duration,
        Otherwise("`keep_alive`"),
        "How long a runner is kept that never got a request.",
    ),
    setting(
        "termination_grace_period_seconds",
        Kind::Duration,
        Value("5s"),
        "From SIGTERM to SIGKILL: for requests still at work and `teardown()` together.",
    ),
];
