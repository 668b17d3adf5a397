//! `[apps.NAME]` with an `image`: a server in a container.

use std::fmt;
use std::path::{Path, PathBuf};

use glowplug_image::{ParseError, Reference};
use glowplug_runner::host::runtime_names;

use super::layers::{Layers, Values};
use super::problem::suggest;

/// Settings that mean something for containers only.
const OWN_KEYS: [&str; 4] = ["port", "network", "runtime", "scratch"];
/// Enough for temporary files, and little beside what a model takes.
const SCRATCH_BYTES_DEFAULT: u64 = 1 << 30;
const ARCHIVE: &str = "archive:";

/// A container image as an app's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageProgram {
    pub image: ImageName,
    /// Instead of what the image would run. Empty: what the image says.
    pub command: Vec<String>,
    /// `None`: as the image says.
    pub port: Option<u16>,
    pub network: ContainerNetwork,
    /// `None`: the node's.
    pub runtime: Option<String>,
    /// What a runner may write in memory.
    pub scratch_bytes: u64,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    Registry(Reference),
    /// What `docker save` writes, or an OCI layout: a folder or a file.
    Archive(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// Its own loopback interface and nothing else.
    None,
    Host,
}

impl ImageName {
    /// Reads a name as the config has it; relative paths are below `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, String> {
        if let Some(file) = text.strip_prefix(ARCHIVE) {
            let file = base.join(file);
            return if file.exists() {
                Ok(Self::Archive(file))
            } else {
                Err(format!("there is no {}", file.display()))
            };
        }
        text.parse().map(Self::Registry).map_err(|error: ParseError| error.to_string())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Archive(path) => write!(f, "{ARCHIVE}{}", path.display()),
        }
    }
}

pub(super) fn read(layers: &mut Layers, path: &str, values: &Values) -> Option<ImageProgram> {
    let image = read_name(layers, path, values);
    let port = values.count("port").map(|port| (u16::try_from(port).unwrap_or(0), port));
    if let Some((0, port)) = port {
        let message = format!("`port` in [{path}] is {port}, which is no port: 1 to 65535");
        layers.problem(values.origin("port"), message, None);
    }
    check_runtime(layers, path, values);
    Some(ImageProgram {
        image: image?,
        command: values.list("command").unwrap_or_default(),
        port: port.map(|(port, _)| port),
        network: match values.text("network").as_deref() {
            Some("host") => ContainerNetwork::Host,
            _ => ContainerNetwork::None,
        },
        runtime: values.text("runtime"),
        scratch_bytes: values.bytes("scratch").unwrap_or(SCRATCH_BYTES_DEFAULT),
    })
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

/// A setting for containers in an app that is none would do nothing, which is told.
pub(super) fn refuse_without(layers: &mut Layers, path: &str, values: &Values) {
    if values.is_set("image") {
        return;
    }
    for key in OWN_KEYS.into_iter().filter(|key| values.is_set(key)) {
        let message = format!("`{key}` in [{path}] is for apps with an `image`, which this is not");
        layers.problem(values.origin(key), message, None);
    }
}

fn read_name(layers: &mut Layers, path: &str, values: &Values) -> Option<ImageName> {
    let text = values.text("image")?;
    let origin = values.origin("image");
    match ImageName::parse(&text, &layers.base(&origin)) {
        Ok(name) => Some(name),
        Err(error) => {
            let message =
                format!("`image` in [{path}] is \"{text}\", which names no image: {error}");
            let help =
                "write it as in `example.com/team/model:1`, or `archive:PATH` for one on disk";
            layers.problem(origin, message, Some(help.into()));
            None
        }
    }
}
