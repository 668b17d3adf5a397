//! What `[apps.NAME]` says about the container that an app runs in.

use std::path::PathBuf;

use glowplug_runner::host::runtime_names;

use super::layers::{Layers, Values};
use super::mounts::{self, Data, Mount};
use super::problem::suggest;

/// Settings that mean something for containers only.
const OWN_KEYS: [&str; 8] =
    ["port", "network", "runtime", "scratch", "lazy", "data", "mounts", "secret_files"];
/// Enough for temporary files, and little beside what a model takes.
const SCRATCH_BYTES_DEFAULT: u64 = 1 << 30;

/// `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Else as the image says.
    pub port: Option<u16>,
    pub network: Option<ContainerNetwork>,
    /// Else the node's.
    pub runtime: Option<String>,
    scratch_bytes: Option<u64>,
    pub data: Data,
    pub mounts: Vec<Mount>,
    /// Where secrets are files instead of variables.
    pub secret_files: Option<PathBuf>,
    lazy: Option<LazyStart>,
}

/// Whether a runner may start before its image is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LazyStart {
    /// Where the image's layers say what is in them, and that is sooner.
    #[default]
    Auto,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// Its own loopback interface and nothing else.
    None,
    Host,
}

impl ContainerConfig {
    /// What a runner may write in memory.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes.unwrap_or(SCRATCH_BYTES_DEFAULT)
    }

    pub fn lazy(&self) -> LazyStart {
        self.lazy.unwrap_or_default()
    }

    /// Whether nothing is said at all.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }
}

pub(super) fn read(layers: &mut Layers, path: &str, values: &Values) -> ContainerConfig {
    let port = values.count("port").map(|port| (u16::try_from(port).unwrap_or(0), port));
    if let Some((0, port)) = port {
        let message = format!("`port` in [{path}] is {port}, which is no port: 1 to 65535");
        layers.problem(values.origin("port"), message, None);
    }
    check_runtime(layers, path, values);
    ContainerConfig {
        port: port.map(|(port, _)| port),
        network: values.is_set("network").then(|| match values.text("network").as_deref() {
            Some("host") => ContainerNetwork::Host,
            _ => ContainerNetwork::None,
        }),
        runtime: values.is_set("runtime").then(|| values.text("runtime")).flatten(),
        scratch_bytes: values.is_set("scratch").then(|| values.bytes("scratch")).flatten(),
        data: mounts::data(layers, path, values),
        mounts: mounts::mounts(layers, path, values),
        secret_files: mounts::secret_files(layers, path, values),
        lazy: values.is_set("lazy").then(|| match values.text("lazy").as_deref() {
            Some("off") => LazyStart::Off,
            _ => LazyStart::Auto,
        }),
    }
}

/// That it is there is a matter of the start: a config may be checked on another machine.
pub(super) fn check_runtime(layers: &mut Layers, path: &str, values: &Values) {
    let Some(runtime) = values.text("runtime") else { return };
    if runtime.starts_with('/') || runtime_names().any(|name| name == runtime) {
        return;
    }
    let known: Vec<&str> = runtime_names().collect();
    let help = suggest(&runtime, &known, "give the full path of a program, or one of");
    let message = format!("`runtime` in [{path}] is \"{runtime}\"");
    layers.problem(values.origin("runtime"), message, Some(help));
}

/// A setting for containers in an app that can be none would do nothing, which is told. Whether a class wants a
/// container only its source says.
pub(super) fn refuse_for_commands(layers: &mut Layers, path: &str, values: &Values) {
    if values.is_set("image") || values.is_set("app") {
        return;
    }
    for key in OWN_KEYS.into_iter().filter(|key| values.is_set(key)) {
        let message = format!("`{key}` in [{path}] is for apps with an `image`, which this is not");
        layers.problem(values.origin(key), message, None);
    }
}
