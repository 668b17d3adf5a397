//! `[apps.NAME]` with an `image`: a server in a container.

use std::fmt;
use std::path::{Path, PathBuf};

use glowplug_image::{ParseError, Reference};

use super::layers::{Layers, Values};

/// Settings that mean something for containers only.
const OWN_KEYS: [&str; 3] = ["port", "network", "scratch"];
const OCI_LAYOUT: &str = "oci:";
const DOCKER_ARCHIVE: &str = "docker-archive:";

/// A container image as an app's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageProgram {
    pub image: ImageName,
    /// Instead of what the image would run. Empty: what the image says.
    pub command: Vec<String>,
    /// `None`: as the image says.
    pub port: Option<u16>,
    pub network: ContainerNetwork,
    /// What a runner may write in memory.
    pub scratch_bytes: u64,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    Registry(Reference),
    /// A folder or an archive of an OCI layout.
    OciLayout(PathBuf),
    /// What `docker save` writes.
    DockerArchive(PathBuf),
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
        let file = |file: &str| {
            let file = base.join(file);
            if file.exists() { Ok(file) } else { Err(format!("there is no {}", file.display())) }
        };
        if let Some(layout) = text.strip_prefix(OCI_LAYOUT) {
            return file(layout).map(Self::OciLayout);
        }
        if let Some(archive) = text.strip_prefix(DOCKER_ARCHIVE) {
            return file(archive).map(Self::DockerArchive);
        }
        text.parse().map(Self::Registry).map_err(|error: ParseError| error.to_string())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout(path) => write!(f, "{OCI_LAYOUT}{}", path.display()),
            Self::DockerArchive(path) => write!(f, "{DOCKER_ARCHIVE}{}", path.display()),
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
    Some(ImageProgram {
        image: image?,
        command: values.list("command").unwrap_or_default(),
        port: port.map(|(port, _)| port),
        network: match values.text("network").as_deref() {
            Some("host") => ContainerNetwork::Host,
            _ => ContainerNetwork::None,
        },
        scratch_bytes: values.bytes("scratch").unwrap_or_default(),
    })
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
            let help = "write it as in `example.com/team/model:1`, or `oci:PATH` for one on disk";
            layers.problem(origin, message, Some(help.into()));
            None
        }
    }
}
