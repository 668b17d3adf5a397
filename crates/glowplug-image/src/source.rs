//! Where images come from: registries and archives.

pub mod archive;
pub mod credentials;
mod manifest;
pub mod registry;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::Digest;

/// An image in one place.
pub trait Source: Send + Sync + 'static {
    /// For people: what is pulled, and from where.
    fn name(&self) -> String;

    /// Finds out what the image for this machine's platform is made of.
    fn resolve(&self) -> BoxFuture<'_, Result<Resolved, Error>>;

    /// The layer's bytes from `from` on, as they are stored: nothing is verified yet.
    fn layer<'a>(
        &'a self,
        layer: &'a LayerDescriptor,
        from: u64,
    ) -> BoxFuture<'a, Result<Chunks, Error>>;

    /// A part of the layer's bytes, as they are stored: nothing is verified yet. It is not longer than was asked
    /// for; a connection that breaks may make it shorter.
    fn range<'a>(
        &'a self,
        layer: &'a LayerDescriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Chunks, Error>>;

    /// `None`: no other process can have it.
    fn recipe(&self) -> Option<Recipe> {
        None
    }
}

/// How another process comes to the same source. Holds credentials: it is handed over, never written down.
#[derive(Clone, Serialize, Deserialize)]
pub struct Recipe {
    reference: String,
    credentials: credentials::Credentials,
    options: registry::Options,
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipe").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Recipe {
    pub fn open(self) -> Result<Arc<dyn Source>, Error> {
        let reference = self.reference.parse().map_err(|error: oci_client::ParseError| {
            Error::Unreadable { name: self.reference.clone(), problem: error.to_string() }
        })?;
        Ok(Arc::new(registry::Registry::new(reference, self.credentials, &self.options)?))
    }
}

pub type Chunks = BoxStream<'static, Result<Bytes, Error>>;

/// Ends a stream after so many bytes.
fn cut(chunks: Chunks, bytes: u64) -> Chunks {
    let cut = async |(mut chunks, left): (Chunks, u64)| {
        // What comes behind is not waited for.
        if left == 0 {
            return None;
        }
        let chunk = chunks.next().await?.map(|mut chunk| {
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            chunk
        });
        let left = left - chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Some((chunk, (chunks, left)))
    };
    futures::stream::unfold((chunks, bytes), cut).boxed()
}

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest for this platform.
    pub digest: Digest,
    pub config: ImageConfig,
    /// The whole configuration, as its builder wrote it.
    pub config_json: Bytes,
    /// Lowest first.
    pub layers: Vec<LayerDescriptor>,
}

impl Resolved {
    /// The steps of the build that made the layers, lowest first; of another length than the layers where the builder
    /// did not keep count.
    pub fn steps(&self) -> Vec<String> {
        manifest::steps(&self.config_json)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDescriptor {
    pub digest: Digest,
    /// As it is stored.
    pub bytes: u64,
    pub compression: Compression,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{name} does not exist, or may not be seen without signing in: check its spelling, or store credentials with `docker login {registry}`"
    )]
    NotFound { name: String, registry: String },
    #[error(
        "{registry} refuses access to {name}: store credentials for it with `docker login {registry}`"
    )]
    Refused { name: String, registry: String },
    #[error("{name} has no image for {platform}; it has {available}")]
    NoPlatform { name: String, platform: String, available: String },
    #[error("the manifest of {name} cannot be used: {problem}")]
    Manifest { name: String, problem: String },
    #[error("the credentials in {file} cannot be used: {problem}")]
    Credentials { file: String, problem: String },
    /// Worth another try.
    #[error("{name} cannot be reached: {problem}")]
    Unreachable { name: String, problem: String },
    #[error("{name} cannot be read: {problem}")]
    Unreadable { name: String, problem: String },
}

impl Error {
    /// Whether the same request may succeed a moment later.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
