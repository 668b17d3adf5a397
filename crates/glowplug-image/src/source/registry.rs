//! Images in a registry, over the OCI distribution protocol.
//!
//! Plain HTTP is spoken to this machine only, unless the registry is named as insecure.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use super::manifest::{self, ImageManifest, Manifest, Platform};
use super::{Chunks, Error, LayerDescriptor, Recipe, Resolved, Source};
use crate::digest::Digest;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a manifest or a configuration; registries allow 4 MiB.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;
const MANIFEST_KINDS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Registries, as `host` or `host:port`, that are spoken to without TLS although they are not on this machine.
    pub insecure: Vec<String>,
    /// Without a single byte, until a connection counts as broken.
    pub read_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { insecure: Vec::new(), read_timeout: Duration::from_secs(30) }
    }
}

/// One image in a registry.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    recipe: Recipe,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("reference", &self.reference).finish_non_exhaustive()
    }
}

/// What speaks to a registry: in the clear to this machine only, or where it is allowed.
pub(crate) fn client(
    reference: &Reference,
    credentials: Credentials,
    options: &Options,
) -> Result<(Client, RegistryAuth), Error> {
    let host = reference.resolve_registry().to_owned();
    let is_plain = is_this_machine(&host) || options.insecure.contains(&host);
    let protocol = if is_plain { ClientProtocol::Http } else { ClientProtocol::Https };
    let config = ClientConfig {
        protocol,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(options.read_timeout),
        user_agent: concat!("glowplug/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    let name = reference.to_string();
    let client = Client::try_from(config)
        .map_err(|error| Error::Unreadable { name, problem: error.to_string() })?;
    let auth = match credentials {
        Credentials::Anonymous => RegistryAuth::Anonymous,
        Credentials::Basic { user, password } => RegistryAuth::Basic(user, password),
        Credentials::Token(token) => RegistryAuth::Bearer(token),
    };
    Ok((client, auth))
}

impl Registry {
    pub fn new(
        reference: Reference,
        credentials: Credentials,
        options: &Options,
    ) -> Result<Self, Error> {
        let recipe = Recipe {
            reference: reference.whole(),
            credentials: credentials.clone(),
            options: options.clone(),
        };
        let (client, auth) = client(&reference, credentials, options)?;
        Ok(Self { client, reference, auth, recipe })
    }

    async fn resolve_now(&self) -> Result<Resolved, Error> {
        let (manifest, digest) = self.manifest(&self.reference).await?;
        let (image, digest) = match manifest {
            Manifest::Image(image) => (image, digest),
            Manifest::Index(entries) => self.image_of(&entries).await?,
        };
        let config_json =
            bytes::Bytes::from(self.document(&image.config, image.config_bytes).await?);
        let config =
            manifest::read_config(&config_json).map_err(|problem| self.bad_manifest(problem))?;
        Ok(Resolved { digest, config, config_json, layers: image.layers })
    }

    async fn image_of(
        &self,
        entries: &[manifest::PlatformEntry],
    ) -> Result<(ImageManifest, Digest), Error> {
        let platform = Platform::of_this_machine();
        let chosen = manifest::choose(entries, &platform).map_err(|available| {
            Error::NoPlatform { name: self.name(), platform: platform.to_string(), available }
        })?;
        let reference = self.reference.clone_with_digest(chosen.to_string());
        match self.manifest(&reference).await? {
            (Manifest::Image(image), digest) => Ok((image, digest)),
            (Manifest::Index(_), _) => {
                Err(self.bad_manifest("an index names another index as its image".to_owned()))
            }
        }
    }

    /// The client compares the bytes with the digest, if the reference has one.
    async fn manifest(&self, reference: &Reference) -> Result<(Manifest, Digest), Error> {
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &MANIFEST_KINDS).await;
        let (bytes, digest) = pulled.map_err(|error| self.explain(&error))?;
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(self.bad_manifest(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let manifest = manifest::read(&bytes).map_err(|problem| self.bad_manifest(problem))?;
        let digest = digest
            .parse()
            .map_err(|error: crate::digest::InvalidDigest| self.bad_manifest(error.to_string()))?;
        Ok((manifest, digest))
    }

    /// A small blob, whole and verified.
    async fn document(&self, digest: &Digest, bytes: u64) -> Result<Vec<u8>, Error> {
        let too_long =
            || self.bad_manifest(format!("{digest} is longer than {DOCUMENT_BYTES_MAX} bytes"));
        if bytes > DOCUMENT_BYTES_MAX as u64 {
            return Err(too_long());
        }
        let mut chunks = self.blob(digest, bytes, 0..bytes).await?;
        let mut document = Vec::new();
        while let Some(chunk) = chunks.try_next().await? {
            document.extend(chunk);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err(too_long());
            }
        }
        if Digest::of(&document) != *digest {
            return Err(self.bad_manifest(format!("{digest} is not what its digest says")));
        }
        Ok(document)
    }

    /// Of a blob of so many bytes. More may come than was wanted.
    async fn blob(&self, digest: &Digest, bytes: u64, range: Range<u64>) -> Result<Chunks, Error> {
        let from = range.start;
        // To the end nothing is said of it: what comes beyond the end is somebody's fault, and to be found.
        let wanted = (range.end < bytes).then(|| range.end.saturating_sub(from));
        if wanted == Some(0) {
            return Ok(futures::stream::empty().boxed());
        }

        let descriptor = OciDescriptor {
            digest: digest.to_string(),
            size: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        self.client.store_auth_if_needed(self.reference.resolve_registry(), &self.auth).await;
        let pulled =
            self.client.pull_blob_stream_partial(&self.reference, &descriptor, from, wanted);
        let stream = match pulled.await.map_err(|error| self.explain(&error))? {
            BlobResponse::Partial(stream) => stream.stream,
            BlobResponse::Full(stream) if from == 0 => stream.stream,
            // A registry without ranges: what is known already is read again, and dropped.
            BlobResponse::Full(stream) => skip(stream.stream, from),
        };
        // The client compares whole answers with their digest. So does whoever reads this, who can tell a wrong
        // digest from a broken connection.
        let stream = stream.take_while(|chunk| std::future::ready(!is_of_wrong_digest(chunk)));
        let name = Arc::new(self.name());
        let unreachable = move |error: std::io::Error| Error::Unreachable {
            name: name.to_string(),
            problem: chain(&error),
        };
        Ok(stream.map_err(unreachable).boxed())
    }

    fn bad_manifest(&self, problem: String) -> Error {
        Error::Manifest { name: self.name(), problem }
    }

    fn explain(&self, error: &OciDistributionError) -> Error {
        let (name, registry) = (self.name(), self.reference.registry().to_owned());
        let problem = chain(error);
        match error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::ServerError { code: 401 | 403, .. } => {
                Error::Refused { name, registry }
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let code = |code: &OciErrorCode| match code {
                    OciErrorCode::Denied | OciErrorCode::Unauthorized => {
                        Some(Error::Refused { name: name.clone(), registry: registry.clone() })
                    }
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::BlobUnknown => {
                        Some(Error::NotFound { name: name.clone(), registry: registry.clone() })
                    }
                    _ => None,
                };
                let known = envelope.errors.iter().find_map(|error| code(&error.code));
                known.unwrap_or(Error::Unreadable { name, problem })
            }
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => {
                Error::NotFound { name, registry }
            }
            OciDistributionError::ServerError { code: 429 | 500.., .. }
            | OciDistributionError::RequestError(_)
            | OciDistributionError::IoError(_) => Error::Unreachable { name, problem },
            _ => Error::Unreadable { name, problem },
        }
    }
}

impl Source for Registry {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn resolve(&self) -> BoxFuture<'_, Result<Resolved, Error>> {
        Box::pin(self.resolve_now())
    }

    fn layer<'a>(
        &'a self,
        layer: &'a LayerDescriptor,
        from: u64,
    ) -> BoxFuture<'a, Result<Chunks, Error>> {
        Box::pin(self.blob(&layer.digest, layer.bytes, from..layer.bytes))
    }

    fn range<'a>(
        &'a self,
        layer: &'a LayerDescriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Chunks, Error>> {
        let bytes = range.end.saturating_sub(range.start);
        Box::pin(async move {
            let chunks = self.blob(&layer.digest, layer.bytes, range).await?;
            // Of a layer's end as well: who asks for a part keeps it in memory.
            Ok(super::cut(chunks, bytes))
        })
    }

    fn recipe(&self) -> Option<Recipe> {
        Some(self.recipe.clone())
    }
}

type RawChunks = futures::stream::BoxStream<'static, std::io::Result<bytes::Bytes>>;

fn is_of_wrong_digest(chunk: &std::io::Result<bytes::Bytes>) -> bool {
    let error = chunk.as_ref().err().and_then(std::io::Error::get_ref);
    error.is_some_and(<dyn std::error::Error + Send + Sync>::is::<DigestError>)
}

fn skip(stream: RawChunks, mut bytes: u64) -> RawChunks {
    let rest = move |mut chunk: bytes::Bytes| {
        let dropped = bytes.min(chunk.len() as u64);
        bytes -= dropped;
        // Never more than the chunk's own length.
        let _ = chunk.split_to(usize::try_from(dropped).unwrap_or(chunk.len()));
        chunk
    };
    stream.map_ok(rest).boxed()
}

/// `host` or `host:port` of this machine.
fn is_this_machine(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some errors repeat their source.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["docker.io", "localhost.example.com", "10.0.0.1:5000", "127.0.0.1.example"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_stream_goes_on_where_it_broke_off() {
        let chunks = ["abc", "de", "fgh"].map(|chunk| Ok(bytes::Bytes::from(chunk)));
        let rest: Vec<_> =
            skip(futures::stream::iter(chunks).boxed(), 4).try_collect().await.unwrap();
        assert_eq!(rest.concat(), b"efgh");
    }
}
