//! The settings of `[machine_types.NAME]` and `[apps.NAME]`.

use glowplug_core::spec::PolicyName;

use super::Fallback::{Otherwise, Value};
use super::warmth::{FREEZE, FROZEN_FOR, SNAPSHOT, ZYGOTE, ZYGOTE_COMMAND};
use super::{Setting, setting};
use crate::config::value::Kind;

pub(super) const MACHINE_TYPE: &[Setting] = &[
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

pub(super) const APP: &[Setting] = &[
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
        "A container image that holds an HTTP server: a name such as `example.com/team/model:1`, or \
         `archive:PATH` for one on disk (`docker save`, an OCI layout), or `build:PATH` for a folder with a \
         Dockerfile, or a Dockerfile, to build it from with buildah. `command` replaces what it would run.",
    ),
    setting(
        "port",
        Kind::Count,
        Otherwise("the lowest port that the image exposes, else 8080"),
        "The port on which the server in the image listens. It has the port as `PORT`, too.",
    ),
    setting(
        "network",
        Kind::Choice(&["none", "host"]),
        Otherwise("`none`"),
        "What a container sees of the network: nothing but its own requests, or all that the host sees. \
         With `host` a free port is chosen, which the server has to take from `PORT`.",
    ),
    setting(
        "runtime",
        Kind::Text,
        Otherwise("`runtime` of [node]"),
        "What makes its containers: `native`, which is the node itself, one of `runc`, `crun` and `runsc`, or \
         the full path of another OCI runtime.",
    ),
    setting(
        "scratch",
        Kind::Bytes,
        Otherwise("1 GiB"),
        "What a container may write beside its mounts, in memory: it is gone with the runner.",
    ),
    setting(
        "data",
        Kind::Place,
        Otherwise("false"),
        "What an app with an `image` has at `/data`, to read and to write, beyond the life of its runners: a \
         directory, or `true` for `data/OWNER` in the node's data directory, which all apps of the owner share. \
         The caches of common tools are put there (`HF_HOME`, `TORCH_HOME`, `TRITON_CACHE_DIR`, \
         `XDG_CACHE_HOME`) unless the image or `env` says otherwise.",
    ),
    setting(
        "mounts",
        Kind::Names,
        Otherwise("none"),
        "Files and directories of the host in a container: `SOURCE:TARGET`, and `:ro` behind it if they are \
         only read.",
    ),
    setting(
        "secrets",
        Kind::Texts,
        Otherwise("none"),
        "Variables whose values are not written here: `env:NAME` takes one from the node's environment, \
         `file:PATH` from a file. Read at each start; never on the disk or in a log.",
    ),
    setting(
        "secret_files",
        Kind::Text,
        Otherwise("secrets are variables"),
        "The directory of a container in which each of its `secrets` is a file that only its user can read, \
         such as `/run/secrets`; they are no variables then.",
    ),
    setting(
        "lazy",
        Kind::Choice(&["auto", "off"]),
        Otherwise("`auto`"),
        "Whether a runner may start before its image is here. With `auto` it does where the image's layers have \
         tables of contents (zstd:chunked, eStargz) and its starts touch a small part of it.",
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
        "request_start_timeout",
        Kind::Duration,
        Otherwise("requests wait as long as it takes"),
        "How long a request may wait for its runner, where its caller does not say. 0: as long as it takes, \
         whatever the class says.",
    ),
    setting(
        "retry_config",
        Kind::Retries,
        Otherwise("up to 10 attempts whatever the condition"),
        "Additional attempts of queued requests by condition: `timeout`, `client_error`, `server_error`, \
         `connection_error`. A condition that is not named keeps its default. There are never more than 10 attempts in all.",
    ),
    setting(
        "skip_retry_conditions",
        Kind::Conditions,
        Otherwise("none"),
        "Conditions under which queued requests are not tried again.",
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
    ZYGOTE,
    ZYGOTE_COMMAND,
    SNAPSHOT,
    FREEZE,
    FROZEN_FOR,
];
