//! `[apps.NAME]` with an `image`: a server in a container.

use std::fmt;
use std::path::{Path, PathBuf};

use glowplug_image::{ParseError, Reference};

use super::layers::{Layers, Values};

const ARCHIVE: &str = "archive:";
const BUILD: &str = "build:";
/// The names of Dockerfiles in a folder, the first that is there.
const DOCKERFILES: [&str; 2] = ["Dockerfile", "Containerfile"];

/// A container image as an app's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageProgram {
    pub image: ImageName,
    /// Instead of what the image would run. Empty: what the image says.
    pub command: Vec<String>,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    Registry(Reference),
    /// What `docker save` writes, or an OCI layout: a folder or a file.
    Archive(PathBuf),
    /// Built here from a Dockerfile, with the folder that it is in as its context.
    Build {
        dockerfile: PathBuf,
    },
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
        if let Some(place) = text.strip_prefix(BUILD) {
            let place = base.join(place);
            let mut candidates = DOCKERFILES.iter().map(|name| place.join(name));
            let found = if place.is_dir() {
                candidates.find(|file| file.is_file())
            } else {
                place.is_file().then(|| place.clone())
            };
            let missing = || format!("there is no Dockerfile at {}", place.display());
            return found.map(|dockerfile| Self::Build { dockerfile }).ok_or_else(missing);
        }
        text.parse().map(Self::Registry).map_err(|error: ParseError| error.to_string())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Archive(path) => write!(f, "{ARCHIVE}{}", path.display()),
            Self::Build { dockerfile } => write!(f, "{BUILD}{}", dockerfile.display()),
        }
    }
}

pub(super) fn read(layers: &mut Layers, path: &str, values: &Values) -> Option<ImageProgram> {
    let image = read_name(layers, path, values)?;
    Some(ImageProgram { image, command: values.list("command").unwrap_or_default() })
}

fn read_name(layers: &mut Layers, path: &str, values: &Values) -> Option<ImageName> {
    let text = values.text("image")?;
    let origin = values.origin("image");
    match ImageName::parse(&text, &layers.base(&origin)) {
        Ok(name) => Some(name),
        Err(error) => {
            let message =
                format!("`image` in [{path}] is \"{text}\", which names no image: {error}");
            let help = "write it as in `example.com/team/model:1`, `archive:PATH` for one on disk, or `build:FOLDER` for one \
                 to build";
            layers.problem(origin, message, Some(help.into()));
            None
        }
    }
}
