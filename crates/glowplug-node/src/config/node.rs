//! `[node]` and the tables below it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::database_url::DatabaseUrl;
use super::document::Entry;
use super::images::ImagesConfig;
use super::layers::{Layers, Values, table};
use super::machine::MachineTypeConfig;
use super::network::Network;
use super::problem::Origin;
use super::setting::Section;
use super::unit::{write_bytes, write_duration};
use super::value::GpuGroup;
use super::warmth::{self, WarmthConfig};

#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    pub listen: SocketAddr,
    /// Absolute. Need not exist yet.
    pub data_dir: PathBuf,
    /// `None`: apps run as the node's own user.
    pub user: Option<String>,
    /// What makes containers where their app does not say.
    pub runtime: String,
    /// Serve everyone beyond loopback even when no key exists.
    pub open: bool,
    /// Origins of web pages that may use `/proxy`; `*` stands for all.
    pub proxy_origins: Vec<String>,
    /// One of `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    pub log_format: LogFormat,
    pub adopt_timeout: Duration,
    pub shutdown_timeout: Duration,
    /// Exists among the machine types.
    pub default_machine: String,
    pub resources: ResourcesConfig,
    pub contention: ContentionConfig,
    pub recorder: RecorderConfig,
    pub limits: LimitsConfig,
    pub queue: QueueConfig,
    pub store: StoreConfig,
    pub webhooks: WebhooksConfig,
    pub files: FilesConfig,
    pub images: ImagesConfig,
    pub realtime: RealtimeConfig,
    pub warmth: WarmthConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What apps may use; `None`: what the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcesConfig {
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub gpus: Option<Vec<GpuGroup>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentionConfig {
    pub wait_max: Duration,
}

/// What is kept of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    pub enabled: bool,
    pub bytes_max: u64,
    /// Of one file before it is compressed.
    pub segment_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    pub waiting_max: u32,
    pub run_body_bytes_max: u64,
    pub queue_body_bytes_max: u64,
    pub response_bytes_max: u64,
    pub header_bytes_max: u64,
    pub connections_max: u32,
    pub runner_log_bytes_max: u64,
    pub runner_processes_max: u32,
    pub runner_open_files_max: Option<u32>,
}

/// What is kept of queued requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Of a complete request, from its end.
    pub retention: Duration,
    pub retention_requests_max: u32,
    pub retention_bytes_max: u64,
    /// Larger payloads and answers lie in files.
    pub inline_bytes_max: u64,
    /// With less room than this on the disk no request is accepted.
    pub disk_reserve_bytes: u64,
    /// The longest wait before a second attempt; doubles with each further one.
    pub retry_delay: Duration,
    pub retry_delay_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// `None`: an SQLite database in the data directory.
    pub postgres: Option<DatabaseUrl>,
    pub schema: String,
    /// How long a node that is not heard of is still taken for alive.
    pub lease: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Private and loopback addresses that may be called.
    pub allow: Vec<Network>,
    pub first_timeout: Duration,
    /// Of every call but the first.
    pub timeout: Duration,
    pub calls_max: u32,
    /// Authorities to trust beside the system's. Absolute.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// Of one file.
    pub bytes_max: u64,
    /// Of all files together.
    pub total_bytes_max: u64,
    /// Of the files of one key together.
    pub key_bytes_max: Option<u64>,
    pub key_files_max: Option<u32>,
    pub retention: Duration,
    /// Over http or https, without a slash at its end. `None`: as each uploader named the node.
    pub public_url: Option<String>,
}

/// Limits of websockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealtimeConfig {
    pub sockets_max: u32,
    pub sockets_per_caller_max: u32,
    pub message_bytes_max: u64,
    pub idle_timeout: Duration,
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
}

/// A call of a webhook must end well before it may be given to another node.
const WEBHOOK_TIMEOUT_MAX: Duration = Duration::from_mins(4);
/// A shorter lease is lost to a short pause of the machine, a longer one delays the work of a dead node.
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_hours(1);
/// PostgreSQL cuts longer names off.
const SCHEMA_BYTES_MAX: usize = 63;

/// Of one file of the recorder.
const RECORDER_SEGMENT_BYTES_MIN: u64 = 64 << 10;
const RECORDER_SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Files of the recorder that must fit into what it may keep: the one that is written, its sorted form
/// while that is made, and some to read.
const RECORDER_SEGMENTS_MIN: u64 = 4;

/// Reads the tables. Also returns the values as they were read, for `config show`. There is no config
/// exactly when something was found wrong.
pub(super) fn read(
    layers: &mut Layers,
    entries: &[Entry],
    machines: &BTreeMap<String, MachineTypeConfig>,
) -> (Option<NodeConfig>, Vec<(String, Values)>) {
    let node = layers.section(Section::Node, Section::Node.path(), entries);
    let mut subsection = |name: &str, section: Section| {
        let entry = entries.iter().find(|entry| entry.key == name);
        let path = section.path();
        let entries = entry.and_then(|entry| table(layers, entry, path)).unwrap_or_default();
        layers.section(section, path, entries)
    };
    let resources = subsection("resources", Section::Resources);
    let contention = subsection("contention", Section::Contention);
    let recorder = subsection("recorder", Section::Recorder);
    let limits = subsection("limits", Section::Limits);
    let queue = subsection("queue", Section::Queue);
    let store = subsection("store", Section::Store);
    let webhooks = subsection("webhooks", Section::Webhooks);
    let files = subsection("files", Section::Files);
    let images = subsection("images", Section::Images);
    let realtime = subsection("realtime", Section::Realtime);
    let warmth = subsection("warmth", Section::Warmth);
    if let Some(machine) = node.text("default_machine") {
        let origin = node.origin("default_machine");
        super::app::check_machine(layers, &origin, "node", &machine, machines);
    }
    super::container::check_runtime(layers, "node", &node);
    refuse_zeros(layers, Section::Limits, &limits);
    refuse_zeros(layers, Section::Realtime, &realtime);
    super::images::check(layers, &images);
    check_recorder(layers, &recorder);
    check_schema(layers, &store);
    check_lease(layers, &store);
    check_webhooks(layers, &webhooks);
    check_public_url(layers, &files);
    let criu = warmth::criu(layers, &warmth);
    let ca_file = webhooks.text("ca_file");
    let ca_file = ca_file.map(|file| layers.base(&webhooks.origin("ca_file")).join(file));
    let data_dir = match node.text("data_dir") {
        Some(dir) => Some(layers.base(&node.origin("data_dir")).join(dir)),
        None => layers.default_data_dir(),
    };
    if data_dir.is_none() {
        layers.problem(
            Origin::Default,
            "there is no place for data: neither HOME nor XDG_DATA_HOME is set",
            Some(
                "name a directory with --data-dir, GLOWPLUG_DATA_DIR or `data_dir` in [node]"
                    .into(),
            ),
        );
    }
    let tables = Tables {
        node,
        resources,
        contention,
        recorder,
        limits,
        queue,
        store,
        webhooks,
        files,
        images,
        realtime,
        warmth,
    };
    let config = data_dir.and_then(|data_dir| tables.combine(data_dir, ca_file, criu));
    (config, tables.into_read())
}

/// `[node]` and the tables below it, as they were read.
struct Tables {
    node: Values,
    resources: Values,
    contention: Values,
    recorder: Values,
    limits: Values,
    queue: Values,
    store: Values,
    webhooks: Values,
    files: Values,
    images: Values,
    realtime: Values,
    warmth: Values,
}

impl Tables {
    fn into_read(self) -> Vec<(String, Values)> {
        let read = [
            (Section::Node, self.node),
            (Section::Resources, self.resources),
            (Section::Contention, self.contention),
            (Section::Recorder, self.recorder),
            (Section::Limits, self.limits),
            (Section::Queue, self.queue),
            (Section::Store, self.store),
            (Section::Webhooks, self.webhooks),
            (Section::Files, self.files),
            (Section::Images, self.images),
            (Section::Realtime, self.realtime),
            (Section::Warmth, self.warmth),
        ];
        read.map(|(section, values)| (section.path().to_owned(), values)).into()
    }

    /// `None` if a value that has a default could not be read, which was told already.
    fn combine(
        &self,
        data_dir: PathBuf,
        ca_file: Option<PathBuf>,
        criu: Option<PathBuf>,
    ) -> Option<NodeConfig> {
        let node = &self.node;
        Some(NodeConfig {
            listen: node.address("listen")?,
            data_dir,
            user: node.text("user"),
            runtime: node.text("runtime")?,
            open: node.boolean("open")?,
            proxy_origins: node.list("proxy_origins").unwrap_or_default(),
            log_level: node.text("log_level")?,
            log_format: match node.text("log_format")?.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            adopt_timeout: node.duration("adopt_timeout")?,
            shutdown_timeout: node.duration("shutdown_timeout")?,
            default_machine: node.text("default_machine")?,
            resources: ResourcesConfig {
                cpu_millis: self.resources.cpu_millis("cpu"),
                memory_bytes: self.resources.bytes("memory"),
                gpus: self.resources.gpus("gpus"),
            },
            contention: ContentionConfig { wait_max: self.contention.duration("wait_max")? },
            recorder: RecorderConfig {
                enabled: self.recorder.boolean("enabled")?,
                bytes_max: self.recorder.bytes("max_bytes")?,
                segment_bytes: self.recorder.bytes("segment_bytes")?,
            },
            limits: self.limits()?,
            queue: self.queue()?,
            store: StoreConfig {
                postgres: self.store.database_url("postgres"),
                schema: self.store.text("schema")?,
                lease: self.store.duration("lease")?,
            },
            webhooks: self.webhooks(ca_file)?,
            files: self.files()?,
            images: ImagesConfig::read(&self.images)?,
            realtime: self.realtime()?,
            warmth: WarmthConfig::read(&self.warmth, criu)?,
        })
    }

    fn queue(&self) -> Option<QueueConfig> {
        let queue = &self.queue;
        Some(QueueConfig {
            retention: queue.duration("retention")?,
            retention_requests_max: queue.count("retention_requests_max")?,
            retention_bytes_max: queue.bytes("retention_bytes_max")?,
            inline_bytes_max: queue.bytes("inline_bytes_max")?,
            disk_reserve_bytes: queue.bytes("disk_reserve")?,
            retry_delay: queue.duration("retry_delay")?,
            retry_delay_max: queue.duration("retry_delay_max")?,
        })
    }

    fn files(&self) -> Option<FilesConfig> {
        let files = &self.files;
        let public_url = files.text("public_url");
        Some(FilesConfig {
            bytes_max: files.bytes("bytes_max")?,
            total_bytes_max: files.bytes("total_bytes_max")?,
            key_bytes_max: files.bytes("key_bytes_max"),
            key_files_max: files.count("key_files_max"),
            retention: files.duration("retention")?,
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
        })
    }

    fn webhooks(&self, ca_file: Option<PathBuf>) -> Option<WebhooksConfig> {
        let webhooks = &self.webhooks;
        Some(WebhooksConfig {
            allow: webhooks.networks("allow").unwrap_or_default(),
            first_timeout: webhooks.duration("first_timeout")?,
            timeout: webhooks.duration("timeout")?,
            calls_max: webhooks.count("calls_max")?,
            ca_file,
        })
    }

    fn realtime(&self) -> Option<RealtimeConfig> {
        let realtime = &self.realtime;
        Some(RealtimeConfig {
            sockets_max: realtime.count("sockets_max")?,
            sockets_per_caller_max: realtime.count("sockets_per_caller_max")?,
            message_bytes_max: realtime.bytes("message_bytes_max")?,
            idle_timeout: realtime.duration("idle_timeout")?,
            ping_interval: realtime.duration("ping_interval")?,
            pong_timeout: realtime.duration("pong_timeout")?,
        })
    }

    fn limits(&self) -> Option<LimitsConfig> {
        let limits = &self.limits;
        Some(LimitsConfig {
            waiting_max: limits.count("waiting_max")?,
            run_body_bytes_max: limits.bytes("run_body_bytes_max")?,
            queue_body_bytes_max: limits.bytes("queue_body_bytes_max")?,
            response_bytes_max: limits.bytes("response_bytes_max")?,
            header_bytes_max: limits.bytes("header_bytes_max")?,
            connections_max: limits.count("connections_max")?,
            runner_log_bytes_max: limits.bytes("runner_log_bytes_max")?,
            runner_processes_max: limits.count("runner_processes_max")?,
            runner_open_files_max: limits.count("runner_open_files_max"),
        })
    }
}

/// A file that is too small holds nothing, one that is too large needs its size in memory when it is
/// sorted, and what is kept must be more than the files being written.
fn check_recorder(layers: &mut Layers, recorder: &Values) {
    let (Some(all), Some(segment)) = (recorder.bytes("max_bytes"), recorder.bytes("segment_bytes"))
    else {
        return;
    };
    let (least, most) = (RECORDER_SEGMENT_BYTES_MIN, RECORDER_SEGMENT_BYTES_MAX);
    if !(least..=most).contains(&segment) {
        let range = format!("{} to {}", write_bytes(least), write_bytes(most));
        let message = format!("`segment_bytes` in [node.recorder] is not within {range}");
        layers.problem(recorder.origin("segment_bytes"), message, None);
    } else if all < segment.saturating_mul(RECORDER_SEGMENTS_MIN) {
        let message = format!(
            "`max_bytes` in [node.recorder] is less than {RECORDER_SEGMENTS_MIN} times \
             `segment_bytes`"
        );
        let help = "raise it, lower `segment_bytes`, or set `enabled = false`".to_owned();
        layers.problem(recorder.origin("max_bytes"), message, Some(help));
    }
}

/// Names that need no quotes, so that they can be typed into `psql` as they are.
fn check_schema(layers: &mut Layers, store: &Values) {
    let Some(schema) = store.text("schema") else { return };
    let bare = schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && schema.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !bare || schema.len() > SCHEMA_BYTES_MAX {
        let message = format!("`schema` in [node.store] is {schema:?}");
        let help =
            format!("use lower-case letters, digits and `_`, at most {SCHEMA_BYTES_MAX} of them");
        layers.problem(store.origin("schema"), message, Some(help));
    }
}

fn check_lease(layers: &mut Layers, store: &Values) {
    let Some(lease) = store.duration("lease") else { return };
    if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
        let range = format!("{} to {}", write_duration(LEASE_MIN), write_duration(LEASE_MAX));
        let message = format!("`lease` in [node.store] is not within {range}");
        layers.problem(store.origin("lease"), message, None);
    }
}

fn check_webhooks(layers: &mut Layers, webhooks: &Values) {
    for key in ["first_timeout", "timeout"] {
        let Some(timeout) = webhooks.duration(key) else { continue };
        if timeout.is_zero() || timeout > WEBHOOK_TIMEOUT_MAX {
            let most = write_duration(WEBHOOK_TIMEOUT_MAX);
            let message = format!("`{key}` in [node.webhooks] is not above 0 s and at most {most}");
            layers.problem(webhooks.origin(key), message, None);
        }
    }
}

/// Addresses are made by adding to it, so that it ends with a host or a path.
fn check_public_url(layers: &mut Layers, files: &Values) {
    let Some(url) = files.text("public_url") else { return };
    let parsed = url.parse::<http::Uri>().ok();
    let usable = parsed.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.authority().is_some_and(|named| !named.as_str().contains('@'))
            && url.query().is_none()
    });
    if !usable {
        let message = format!("`public_url` in [node.files] is {url:?}");
        let help = "write it as \"https://files.example.org\"".to_owned();
        layers.problem(files.origin("public_url"), message, Some(help));
    }
}

/// A limit of 0 would refuse everything, which nobody means.
fn refuse_zeros(layers: &mut Layers, section: Section, limits: &Values) {
    for setting in section.settings() {
        let zero = limits.count(setting.key) == Some(0)
            || limits.bytes(setting.key) == Some(0)
            || limits.duration(setting.key) == Some(Duration::ZERO);
        if zero {
            let (key, path) = (setting.key, section.path());
            let message = format!("`{key}` in [{path}] is 0; nothing would get through");
            layers.problem(limits.origin(key), message, None);
        }
    }
}
