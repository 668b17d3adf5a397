//! A converted image to a registry. What the registry has is not sent again, and the manifest goes last.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use oci_client::errors::OciDistributionError;
use oci_client::{Client, Reference, RegistryOperation};

use super::{Converted, Error, MANIFEST_KIND};
use crate::digest::Digest;
use crate::source::credentials::Credentials;
use crate::source::registry;

/// Sent at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Of layers and configuration.
    pub sent_bytes: u64,
    /// Of these, what the registry had.
    pub known_bytes: u64,
}

/// `tell` hears of bytes as they go, those that need not among them.
pub async fn push(
    converted: Converted,
    to: &Reference,
    credentials: Credentials,
    options: &registry::Options,
    tell: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<Pushed, Error> {
    let name = to.to_string();
    let failed = |problem: String| Error::Push { name: name.clone(), problem };
    let (client, auth) =
        registry::client(to, credentials, options).map_err(|error| failed(error.to_string()))?;
    let refused = |error: OciDistributionError| failed(registry::chain(&error));
    client.auth(to, &auth, RegistryOperation::Push).await.map_err(refused)?;
    let mut pushed = Pushed::default();
    let mut sent = std::collections::BTreeSet::new();
    for layer in converted.layers {
        if !sent.insert(layer.digest.clone()) {
            continue;
        }
        let content = Content::File(Arc::new(layer.file));
        let blob = Blob { content, digest: layer.digest, bytes: layer.bytes };
        blob.push(&client, to, &tell, &mut pushed).await.map_err(refused)?;
    }
    let digest = Digest::of(&converted.config);
    let bytes = converted.config.len() as u64;
    let blob = Blob { content: Content::Memory(converted.config.into()), digest, bytes };
    blob.push(&client, to, &tell, &mut pushed).await.map_err(refused)?;
    let kind = HeaderValue::from_static(MANIFEST_KIND);
    client.push_manifest_raw(to, converted.manifest, kind).await.map_err(refused)?;
    Ok(pushed)
}

enum Content {
    File(Arc<File>),
    Memory(Bytes),
}

struct Blob {
    content: Content,
    digest: Digest,
    bytes: u64,
}

impl Blob {
    async fn push(
        self,
        client: &Client,
        to: &Reference,
        tell: &Arc<dyn Fn(u64) + Send + Sync>,
        pushed: &mut Pushed,
    ) -> Result<(), OciDistributionError> {
        if client.blob_exists(to, self.digest.as_str()).await? {
            tell(self.bytes);
            pushed.known_bytes += self.bytes;
            return Ok(());
        }
        let digest = self.digest.to_string();
        match self.content {
            Content::Memory(bytes) => drop(client.push_blob(to, bytes, &digest).await?),
            Content::File(file) => {
                let tell = Arc::clone(tell);
                let chunks = stream::try_unfold((file, 0), move |(file, from)| {
                    let tell = Arc::clone(&tell);
                    async move {
                        let (file, chunk) = read(file, from).await?;
                        tell(chunk.len() as u64);
                        let next = from + chunk.len() as u64;
                        Ok((!chunk.is_empty()).then_some((chunk, (file, next))))
                    }
                });
                client.push_blob_stream(to, chunks, &digest, Some(self.bytes)).await?;
            }
        }
        pushed.sent_bytes += self.bytes;
        Ok(())
    }
}

async fn read(file: Arc<File>, from: u64) -> Result<(Arc<File>, Bytes), OciDistributionError> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = file.read_at(&mut chunk, from)?;
        chunk.truncate(read);
        Ok::<_, io::Error>((file, Bytes::from(chunk)))
    });
    let read = reading.await.expect("reading does not panic");
    read.map_err(OciDistributionError::IoError)
}
