//! `[node]` and the tables below it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::Entry;
use super::layers::{Layers, Values, table};
use super::machine::MachineTypeConfig;
use super::problem::Origin;
use super::setting::Section;
use super::unit::write_bytes;
use super::value::GpuGroup;

#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    pub listen: SocketAddr,
    /// Absolute. Need not exist yet.
    pub data_dir: PathBuf,
    /// `None`: apps run as the node's own user.
    pub user: Option<String>,
    /// Serve everyone beyond loopback even when no key exists.
    pub open: bool,
    /// Origins of web pages that may use `/proxy`; `*` stands for all.
    pub proxy_origins: Vec<String>,
    /// One of `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    pub log_format: LogFormat,
    pub adopt_timeout: Duration,
    pub shutdown_timeout: Duration,
    pub answer_retention: Duration,
    /// Exists among the machine types.
    pub default_machine: String,
    pub resources: ResourcesConfig,
    pub contention: ContentionConfig,
    pub recorder: RecorderConfig,
    pub limits: LimitsConfig,
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
    if let Some(machine) = node.text("default_machine") {
        let origin = node.origin("default_machine");
        super::app::check_machine(layers, &origin, "node", &machine, machines);
    }
    refuse_zeros(layers, &limits);
    check_recorder(layers, &recorder);
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
    let tables = Tables { node, resources, contention, recorder, limits };
    let config = data_dir.and_then(|data_dir| tables.combine(data_dir));
    let Tables { node, resources, contention, recorder, limits } = tables;
    let read = [
        (Section::Node, node),
        (Section::Resources, resources),
        (Section::Contention, contention),
        (Section::Recorder, recorder),
        (Section::Limits, limits),
    ];
    (config, read.map(|(section, values)| (section.path().to_owned(), values)).into())
}

/// `[node]` and the tables below it, as they were read.
struct Tables {
    node: Values,
    resources: Values,
    contention: Values,
    recorder: Values,
    limits: Values,
}

impl Tables {
    /// `None` if a value that has a default could not be read, which was told already.
    fn combine(&self, data_dir: PathBuf) -> Option<NodeConfig> {
        let node = &self.node;
        Some(NodeConfig {
            listen: node.address("listen")?,
            data_dir,
            user: node.text("user"),
            open: node.boolean("open")?,
            proxy_origins: node.list("proxy_origins").unwrap_or_default(),
            log_level: node.text("log_level")?,
            log_format: match node.text("log_format")?.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            adopt_timeout: node.duration("adopt_timeout")?,
            shutdown_timeout: node.duration("shutdown_timeout")?,
            answer_retention: node.duration("answer_retention")?,
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

/// A limit of 0 would refuse everything, which nobody means.
fn refuse_zeros(layers: &mut Layers, limits: &Values) {
    for setting in Section::Limits.settings() {
        let zero = limits.count(setting.key) == Some(0) || limits.bytes(setting.key) == Some(0);
        if zero {
            let message =
                format!("`{}` in [node.limits] is 0; nothing would get through", setting.key);
            layers.problem(limits.origin(setting.key), message, None);
        }
    }
}
