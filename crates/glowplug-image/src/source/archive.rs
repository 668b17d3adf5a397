//! Images in files: what `docker save` and `podman save` write, and OCI layouts, each as a folder or as a tar, which
//! may be compressed.
//!
//! A name in an archive is somebody else's: nothing outside of the archive is ever opened for it.

mod place;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::Deserialize;

use self::place::{Place, Span};
use super::manifest::{self, Manifest, Platform, PlatformEntry};
use super::{Chunks, Compression, Error, LayerDescriptor, Resolved, Source};
use crate::digest::Digest;

/// Of a manifest or a configuration.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// An index that names an index that names an image.
const INDEXES_MAX: u32 = 3;
/// Read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// One image in an archive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    name: String,
    wanted: Option<String>,
    place: Arc<Place>,
}

impl Archive {
    /// `wanted` is the image's name or tag in the archive; an archive of one image needs none. A compressed
    /// archive is inflated into a nameless file in `scratch`, of at most `bytes_max`. Blocks.
    pub fn open(
        path: &Path,
        wanted: Option<&str>,
        scratch: &Path,
        bytes_max: u64,
    ) -> Result<Self, Error> {
        let name = path.display().to_string();
        let place = Place::open(path, scratch, bytes_max).map_err(|error| Error::Unreadable {
            name: name.clone(),
            problem: error.to_string(),
        })?;
        Ok(Self { name, wanted: wanted.map(str::to_owned), place: Arc::new(place) })
    }

    fn resolve_now(&self) -> Result<Resolved, Error> {
        if self.place.has("index.json") {
            return self.resolve_layout();
        }
        if self.place.has("manifest.json") {
            return self.resolve_saved();
        }
        Err(self.unusable(
            "it has neither `index.json` nor `manifest.json`: it is no archive of images",
        ))
    }

    /// An OCI layout.
    fn resolve_layout(&self) -> Result<Resolved, Error> {
        let mut entries = self.index(&self.document("index.json")?)?;
        if let Some(wanted) = &self.wanted {
            let all = names_of(entries.iter().flat_map(|entry| &entry.names));
            entries.retain(|entry| entry.names.iter().any(|name| is_meant(name, wanted)));
            if entries.is_empty() {
                return Err(self.not_there(wanted, &all));
            }
        }
        self.is_one_image(&entries)?;
        for _ in 0..INDEXES_MAX {
            let digest = self.choose(&entries)?;
            let document = self.blob(&digest)?;
            match manifest::read(&document).map_err(|problem| self.unusable(&problem))? {
                Manifest::Index(inner) => entries = inner,
                Manifest::Image(image) => {
                    let config_json = Bytes::from(self.blob(&image.config)?);
                    let config = manifest::read_config(&config_json);
                    let config = config.map_err(|problem| self.unusable(&problem))?;
                    return Ok(Resolved { digest, config, config_json, layers: image.layers });
                }
            }
        }
        Err(self.unusable("its indexes name each other"))
    }

    fn index(&self, document: &[u8]) -> Result<Vec<PlatformEntry>, Error> {
        match manifest::read(document).map_err(|problem| self.unusable(&problem))? {
            Manifest::Index(entries) => Ok(entries),
            Manifest::Image(_) => Err(self.unusable("its `index.json` is no index")),
        }
    }

    /// Entries of one name are one image for several platforms; equal ones are names of one image.
    fn is_one_image(&self, entries: &[PlatformEntry]) -> Result<(), Error> {
        let same = |one: &PlatformEntry, other: &PlatformEntry| {
            let is_one = one.platform.is_some() && one.names == other.names;
            is_one || one.digest == other.digest
        };
        if entries.windows(2).all(|pair| same(&pair[0], &pair[1])) {
            return Ok(());
        }
        let all = names_of(entries.iter().flat_map(|entry| &entry.names));
        Err(self.unusable(&format!("it has several images: name one of {all}")))
    }

    fn choose(&self, entries: &[PlatformEntry]) -> Result<Digest, Error> {
        if let [first, ..] = entries
            && entries.iter().all(|entry| entry.platform.is_none() && entry.digest == first.digest)
        {
            return Ok(first.digest.clone());
        }
        let platform = Platform::of_this_machine();
        let chosen = manifest::choose(entries, &platform).map_err(|available| {
            Error::NoPlatform { name: self.name(), platform: platform.to_string(), available }
        })?;
        Ok(chosen.clone())
    }

    /// What `docker save` wrote before it wrote layouts as well, and what Podman writes by default.
    fn resolve_saved(&self) -> Result<Resolved, Error> {
        let saved: Vec<Saved> =
            serde_json::from_slice(&self.document("manifest.json")?).map_err(|error| {
                self.unusable(&format!("its `manifest.json` is malformed: {error}"))
            })?;
        let image = self.choose_saved(saved)?;
        let config_json = Bytes::from(self.document(&image.config)?);
        let diff_ids: RootFiles = serde_json::from_slice(&config_json)
            .map_err(|error| self.unusable(&format!("`{}` is malformed: {error}", image.config)))?;
        let diff_ids = diff_ids.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(self.unusable("its configuration has other layers than its manifest"));
        }
        let layers = image.layers.iter().zip(diff_ids);
        let layers = layers.map(|(path, diff_id)| self.saved_layer(path, diff_id));
        let layers = layers.collect::<Result<_, _>>()?;
        // There is no manifest with a digest; Docker calls this the image's id.
        let digest = Digest::of(&config_json);
        let config =
            manifest::read_config(&config_json).map_err(|problem| self.unusable(&problem))?;
        Ok(Resolved { digest, config, config_json, layers })
    }

    fn choose_saved(&self, mut saved: Vec<Saved>) -> Result<Saved, Error> {
        let names = |saved: &[Saved]| names_of(saved.iter().flat_map(|image| &image.names));
        let all = names(&saved);
        if let Some(wanted) = &self.wanted {
            saved.retain(|image| image.names.iter().any(|name| is_meant(name, wanted)));
        }
        match (saved.len(), &self.wanted) {
            (1, _) => Ok(saved.remove(0)),
            (0, Some(wanted)) => Err(self.not_there(wanted, &all)),
            _ => Err(self.unusable(&format!("it has several images: name one of {all}"))),
        }
    }

    fn saved_layer(&self, path: &str, diff_id: Digest) -> Result<LayerDescriptor, Error> {
        let span = self.span(path)?;
        let unreadable = |error: std::io::Error| self.unreadable(path, &error);
        let compression = span.compression().map_err(unreadable)?;
        // The configuration knows the digest of the plain archive only.
        let digest = match compression {
            Compression::None => diff_id,
            Compression::Gzip | Compression::Zstd => span.digest().map_err(unreadable)?,
        };
        let annotations = [(PATH.to_owned(), path.to_owned())].into();
        Ok(LayerDescriptor { digest, bytes: span.bytes, compression, annotations })
    }

    fn layer_span(&self, layer: &LayerDescriptor) -> Result<Span, Error> {
        match layer.annotations.get(PATH).filter(|_| !self.place.has("index.json")) {
            Some(path) => self.span(path),
            None => self.span(&blob_path(&layer.digest)),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let blob = self.document(&blob_path(digest))?;
        if Digest::of(&blob) != *digest {
            return Err(self.unusable(&format!("{digest} is not what its digest says")));
        }
        Ok(blob)
    }

    fn document(&self, path: &str) -> Result<Vec<u8>, Error> {
        let span = self.span(path)?;
        if span.bytes > DOCUMENT_BYTES_MAX {
            let problem = format!("`{path}` is longer than {DOCUMENT_BYTES_MAX} bytes");
            return Err(self.unusable(&problem));
        }
        let bytes = usize::try_from(span.bytes).expect("it is below the limit of documents");
        span.read(0, bytes).map_err(|error| self.unreadable(path, &error))
    }

    fn span(&self, path: &str) -> Result<Span, Error> {
        self.place.span(path).map_err(|error| self.unreadable(path, &error))
    }

    fn unusable(&self, problem: &str) -> Error {
        Error::Manifest { name: self.name(), problem: problem.to_owned() }
    }

    fn unreadable(&self, path: &str, error: &std::io::Error) -> Error {
        Error::Unreadable { name: self.name(), problem: format!("`{path}`: {error}") }
    }

    fn not_there(&self, wanted: &str, all: &str) -> Error {
        self.unusable(&format!("it has no image `{wanted}`; it has {all}"))
    }
}

/// Under which a layer's path is kept that has no place of its own by its digest.
const PATH: &str = "glowplug.path";

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default, deserialize_with = "manifest::null_is_none")]
    names: Vec<String>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct RootFiles {
    rootfs: DiffIds,
}

#[derive(Deserialize)]
struct DiffIds {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Names are tags, or names with tags, or those in full.
fn is_meant(name: &str, wanted: &str) -> bool {
    let full = |name: &str| name.parse::<crate::Reference>().ok().map(|name| name.whole());
    name == wanted || full(name).is_some_and(|name| full(wanted) == Some(name))
}

fn names_of<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none with a name".to_owned() } else { names.join(", ") }
}

impl Source for Archive {
    fn name(&self) -> String {
        self.wanted
            .as_ref()
            .map_or_else(|| self.name.clone(), |wanted| format!("{wanted} in {}", self.name))
    }

    fn resolve(&self) -> BoxFuture<'_, Result<Resolved, Error>> {
        let archive = self.clone();
        Box::pin(blocking(move || archive.resolve_now()))
    }

    fn layer<'a>(
        &'a self,
        layer: &'a LayerDescriptor,
        from: u64,
    ) -> BoxFuture<'a, Result<Chunks, Error>> {
        let (archive, layer) = (self.clone(), layer.clone());
        let name = self.name();
        Box::pin(async move {
            let span = blocking(move || archive.layer_span(&layer)).await?;
            let chunks = futures::stream::try_unfold((span, from), move |(span, from)| {
                let name = name.clone();
                blocking(move || {
                    let chunk = span
                        .read(from, CHUNK_BYTES)
                        .map_err(|error| Error::Unreadable { name, problem: error.to_string() })?;
                    let next = from + chunk.len() as u64;
                    Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), (span, next))))
                })
            });
            Ok(chunks.boxed())
        })
    }

    fn range<'a>(
        &'a self,
        layer: &'a LayerDescriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Chunks, Error>> {
        Box::pin(async move {
            let bytes = range.end.saturating_sub(range.start);
            Ok(super::cut(self.layer(layer, range.start).await?, bytes))
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.expect("reading does not panic")
}
