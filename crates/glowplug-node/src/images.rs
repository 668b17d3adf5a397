//! The images of this node's apps: found, pulled, mounted.
//!
//! Which image a name means is asked when the app is deployed, and what it means then is what its runners
//! get: a tag that moves is taken up at the next start of the node. Where the registry cannot be asked, the
//! image that the name meant last is taken, if it is still here.

use std::path::PathBuf;
use std::sync::Arc;

use glowplug_image::pull::{Options, ProgressSender, Puller};
use glowplug_image::source::registry::{Options as RegistryOptions, Registry};
use glowplug_image::source::{Resolved, Source, credentials};
use glowplug_image::store::{self, Image, Mounted};
use glowplug_image::{Digest, Reference, Store};
use tokio::sync::OnceCell;

use crate::config::ImageName;
use crate::runner_task::chain;

pub(crate) struct Images {
    folder: PathBuf,
    /// Opened by the first who needs it: a node without images has no store of them.
    puller: OnceCell<Puller>,
    registries: RegistryOptions,
}

/// An image as it was when its app was deployed.
pub(crate) struct Found {
    pub(crate) resolved: Resolved,
    source: Arc<dyn Source>,
}

/// Why an image is still there.
#[derive(Debug)]
pub(crate) enum RemoveError {
    Missing,
    InUse,
    Failed(String),
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("resolved", &self.resolved).finish_non_exhaustive()
    }
}

impl Images {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, puller: OnceCell::new(), registries: RegistryOptions::default() }
    }

    /// Asks what the image is made of.
    pub(crate) async fn find(&self, name: &ImageName) -> Result<Found, String> {
        let source = self.source(name)?;
        let resolved = self.puller().await?.resolve(&*source).await;
        let resolved = resolved.map_err(|error| chain(&error))?;
        Ok(Found { resolved, source })
    }

    /// The lower layers of a root, if the image need not be pulled.
    pub(crate) async fn mount(&self, found: &Found) -> Result<Option<Mounted>, String> {
        let (store, digest) = (self.puller().await?.store().clone(), found.resolved.digest.clone());
        blocking(move || match store.mount(&digest) {
            Err(store::Error::ImageMissing { .. }) => Ok(None),
            mounted => mounted.map(Some),
        })
        .await
    }

    pub(crate) async fn pull(
        &self,
        found: &Found,
        progress: &ProgressSender,
    ) -> Result<Image, String> {
        let puller = self.puller().await?;
        let pulled = puller.pull_resolved(&found.source, &found.resolved, progress).await;
        pulled.map_err(|error| chain(&error))
    }

    /// Every image that is here.
    pub(crate) async fn list(&self) -> Result<Vec<Image>, String> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let store = self.puller().await?.store().clone();
        blocking(move || store.images()).await
    }

    /// Takes an image away, unless a runner uses it.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<(), RemoveError> {
        let store = self.puller().await.map_err(RemoveError::Failed)?.store().clone();
        let digest = digest.clone();
        let removed = tokio::task::spawn_blocking(move || store.remove_image(&digest)).await;
        let removed = removed.map_err(|error| RemoveError::Failed(error.to_string()))?;
        removed.map_err(|error| match error {
            store::Error::ImageMissing { .. } => RemoveError::Missing,
            store::Error::InUse { .. } => RemoveError::InUse,
            other => RemoveError::Failed(chain(&other)),
        })
    }

    /// Leaves no mount behind but those that runners use.
    pub(crate) async fn close(&self) {
        let Some(puller) = self.puller.get() else { return };
        let store = puller.store().clone();
        if let Err(problem) = blocking(move || store.unmount_unused()).await {
            tracing::warn!("an image stays mounted: {problem}");
        }
    }

    async fn puller(&self) -> Result<&Puller, String> {
        let folder = self.folder.clone();
        let open = || blocking(move || Store::open(&folder));
        self.puller
            .get_or_try_init(async || Ok(Puller::new(open().await?, Options::default())))
            .await
    }

    fn source(&self, name: &ImageName) -> Result<Arc<dyn Source>, String> {
        match name {
            ImageName::Registry(reference) => self.registry(reference),
            ImageName::OciLayout(_) | ImageName::DockerArchive(_) => Err("archives".into()),
        }
    }

    fn registry(&self, reference: &Reference) -> Result<Arc<dyn Source>, String> {
        let credentials = credentials::find(&credentials::files(), reference.registry());
        let credentials = credentials.map_err(|error| error.to_string())?;
        let registry = Registry::new(reference.clone(), credentials, &self.registries);
        Ok(Arc::new(registry.map_err(|error| error.to_string())?))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> glowplug_image::store::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| chain(&error))
}
