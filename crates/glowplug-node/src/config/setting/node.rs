//! The settings of `[node]` and of the tables below it.

use super::Fallback::{Otherwise, Value};
use super::{LOG_LEVELS, Setting, setting};
use crate::config::value::Kind;

pub(super) const NODE: &[Setting] = &[
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
        "runtime",
        Kind::Text,
        Value("native"),
        "What makes the containers of apps with an `image` that do not say: `native`, which is the node \
         itself, one of `runc`, `crun` and `runsc`, or the full path of another OCI runtime.",
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
        "default_machine",
        Kind::Text,
        Value("default"),
        "The machine type of apps that name none. A `fal.App` that only inherits fal's own \
         `machine_type` counts as naming none.",
    ),
];

pub(super) const RESOURCES: &[Setting] = &[
    setting("cpu", Kind::Cores, Otherwise("all of the machine's"), "CPU cores for apps."),
    setting("memory", Kind::Bytes, Otherwise("all of the machine's"), "Memory for apps."),
    setting(
        "gpus",
        Kind::Gpus,
        Otherwise("those that the driver reports"),
        "GPUs for apps, numbered from 0 in this order. In the environment: `KIND:MEMORY:COUNT,…`.",
    ),
];

pub(super) const CONTENTION: &[Setting] = &[setting(
    "wait_max",
    Kind::Duration,
    Value("30s"),
    "When apps compete for room: how long one may wait before a busy competitor must make way for it.",
)];

pub(super) const RECORDER: &[Setting] = &[
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

pub(super) const QUEUE: &[Setting] = &[
    setting(
        "retention",
        Kind::Duration,
        Value("1h"),
        "How long the answer to a queued request can be fetched after it is complete.",
    ),
    setting(
        "retention_requests_max",
        Kind::Count,
        Value("1000000"),
        "Complete requests that are kept; beyond it the first that ended go first.",
    ),
    setting(
        "retention_bytes_max",
        Kind::Bytes,
        Value("10GiB"),
        "What payloads and answers of complete requests may take; beyond it the first that ended go first.",
    ),
    setting(
        "inline_bytes_max",
        Kind::Bytes,
        Value("64KiB"),
        "Payloads and answers above this lie in files beside the database, below `glowplug.db.bodies`. Not \
         with PostgreSQL.",
    ),
    setting(
        "disk_reserve",
        Kind::Bytes,
        Value("256MiB"),
        "New requests are refused with 507 while the data directory's disk has less room than this, so that \
         those that were accepted can still be completed.",
    ),
    setting(
        "retry_delay",
        Kind::Duration,
        Value("250ms"),
        "How long a request that is tried again waits before its second attempt, at most: half of it always, \
         and a part of the other half that differs from request to request. Doubles with each attempt.",
    ),
    setting(
        "retry_delay_max",
        Kind::Duration,
        Value("30s"),
        "What the wait between two attempts of a request does not grow beyond.",
    ),
];

pub(super) const STORE: &[Setting] = &[
    setting(
        "postgres",
        Kind::DatabaseUrl,
        Otherwise("an SQLite database in the data directory"),
        "A PostgreSQL database that keeps the queue, the settings and the keys, for several nodes that share \
         them.",
    ),
    setting(
        "schema",
        Kind::Text,
        Value("glowplug"),
        "The PostgreSQL schema that holds the tables; it is made if it is missing. Nodes that name the same \
         one share it.",
    ),
    setting(
        "lease",
        Kind::Duration,
        Value("15s"),
        "How long a node that PostgreSQL no longer hears of is taken for alive. After it the other nodes \
         take its requests over.",
    ),
];

pub(super) const WEBHOOKS: &[Setting] = &[
    setting(
        "allow",
        Kind::Networks,
        Otherwise("none"),
        "Private and loopback addresses that webhooks may go to all the same: addresses, or networks such as \
         `10.0.0.0/8`.",
    ),
    setting(
        "first_timeout",
        Kind::Duration,
        Value("15s"),
        "How long the first call of a webhook may take.",
    ),
    setting(
        "timeout",
        Kind::Duration,
        Value("2m"),
        "How long each further call of a webhook may take.",
    ),
    setting(
        "calls_max",
        Kind::Count,
        Value("31"),
        "Calls of one webhook in all. None is made after the answer has gone from the queue.",
    ),
    setting(
        "ca_file",
        Kind::Path,
        Otherwise("none"),
        "Certificates, in PEM, of authorities that receivers over https may show beside those that the system \
         trusts.",
    ),
];

pub(super) const FILES: &[Setting] = &[
    setting(
        "bytes_max",
        Kind::Bytes,
        Value("64GiB"),
        "The largest file that may be uploaded; more is refused with 413.",
    ),
    setting(
        "total_bytes_max",
        Kind::Bytes,
        Value("256GiB"),
        "What all uploaded files may take together; more is refused with 507.",
    ),
    setting(
        "key_bytes_max",
        Kind::Bytes,
        Otherwise("no limit beside that of all"),
        "What the files of one key may take, parts of unfinished uploads included; more is refused with 507.",
    ),
    setting(
        "key_files_max",
        Kind::Count,
        Otherwise("no limit beside that of all, 1000000"),
        "Files of one key; more are refused with 507.",
    ),
    setting(
        "retention",
        Kind::Duration,
        Value("7d"),
        "How long an uploaded file is kept, unless its upload says otherwise.",
    ),
    setting(
        "public_url",
        Kind::Text,
        Otherwise("as each uploader named the node"),
        "What addresses of files begin with, such as `https://files.example.org`, where a proxy or another name \
         stands before the node.",
    ),
];

pub(super) const IMAGES: &[Setting] = &[
    setting(
        "budget",
        Kind::Bytes,
        Otherwise("no image is removed by itself"),
        "What images may take of the disk. Beyond it those that no app wants and no runner uses go, the least \
         used first.",
    ),
    setting(
        "disk_reserve",
        Kind::Bytes,
        Value("1GiB"),
        "Left free on the disk of the images: a pull that would need it is refused, and the start that wanted \
         the image fails.",
    ),
    setting(
        "bytes_per_second_max",
        Kind::Bytes,
        Otherwise("as fast as they come"),
        "What all pulls together may take of the network, on average.",
    ),
    setting(
        "layer_bytes_max",
        Kind::Bytes,
        Value("256GiB"),
        "What one layer may unpack to; a larger one is refused when it gets there.",
    ),
    setting(
        "insecure_registries",
        Kind::Names,
        Otherwise("none"),
        "Registries, as `host` or `host:port`, that are spoken to without TLS. Those on this machine always are.",
    ),
];

pub(super) const REALTIME: &[Setting] = &[
    setting(
        "sockets_max",
        Kind::Count,
        Value("4096"),
        "Websockets open at once; more are refused with 429.",
    ),
    setting(
        "sockets_per_caller_max",
        Kind::Count,
        Value("1024"),
        "Of these, those of one key, or of one address where no key is sent; more are refused with 429.",
    ),
    setting(
        "message_bytes_max",
        Kind::Bytes,
        Value("16MiB"),
        "The largest message, either way; a socket with a larger one closes with 1009.",
    ),
    setting(
        "idle_timeout",
        Kind::Duration,
        Value("5m"),
        "How long a socket stays open without a message either way. Pings are none.",
    ),
    setting(
        "ping_interval",
        Kind::Duration,
        Value("20s"),
        "How long nothing may come from a caller before it gets a ping.",
    ),
    setting(
        "pong_timeout",
        Kind::Duration,
        Value("20s"),
        "How long nothing may come from a caller after a ping; then it is taken to be gone.",
    ),
];

pub(super) const LIMITS: &[Setting] = &[
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
