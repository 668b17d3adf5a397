//! Brings an image into the store.
//!
//! ```text
//! source ──chunks──► hashed ──► inflated ──► unpacked ──► layer     each in its own place: the network never waits
//!            ▲ again from the byte where it broke off                for the inflating, nor that for the disk
//! ```
//!
//! Layers come in parallel. Who wants an image or a layer that is on its way waits for it instead of pulling it
//! a second time, and when nobody waits any more the pull ends; layers that were complete stay.
//!
//! A layer counts once its whole compressed stream had the digest of the manifest. What was unpacked before that
//! has no name an image could use.
//!
//! **Limits.** `Options`: layers at once, bytes per second, what a layer may inflate to, free space.

pub(crate) mod flow;
mod layer;
pub(crate) mod pace;
mod progress;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures::stream::{self, StreamExt, TryStreamExt};

use self::pace::Pace;
pub use self::progress::{Progress, ProgressSender};
use crate::digest::Digest;
use crate::layer::unpack;
use crate::source::{self, LayerDescriptor, Resolved, Source};
use crate::store::{self, Image, Store};

/// Downloaded at once over all images; further layers wait.
const LAYERS_AT_ONCE: usize = 4;
/// Tries without anything new before the pull fails.
const TRIES_MAX: u32 = 6;

#[derive(Clone, Debug)]
pub struct Options {
    /// Over all pulls together. `None`: as fast as it comes.
    pub bytes_per_second_max: Option<u64>,
    /// On the disk of the store, left free in any case.
    pub free_bytes_min: u64,
    pub limits: unpack::Limits,
    /// Before the second try of something that failed for the moment; doubled for each further one.
    pub retry_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bytes_per_second_max: None,
            free_bytes_min: 1 << 30,
            limits: unpack::Limits::default(),
            retry_pause: Duration::from_millis(200),
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Puller {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

struct Inner {
    store: Store,
    options: Options,
    pace: Arc<Pace>,
    places: Arc<tokio::sync::Semaphore>,
    /// What is on its way. An entry whose pull has ended, or was given up, is replaced by the next one.
    layers: Mutex<HashMap<Digest, WeakShared<Running>>>,
}

type Running = BoxFuture<'static, Result<(), Error>>;

/// Cheap to clone: everybody who waited for the same thing gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Store(#[from] Arc<store::Error>),
    #[error("layer {layer} of {image} cannot be unpacked")]
    Unpack {
        image: String,
        layer: Digest,
        #[source]
        source: Arc<unpack::Error>,
    },
    #[error(
        "layer {layer} of {image} is not what its digest says: it came as {found}, so nothing of it is used"
    )]
    WrongDigest { image: String, layer: Digest, found: Digest },
    #[error("layer {layer} of {image} has {found} bytes or more, its manifest says {bytes}")]
    WrongSize { image: String, layer: Digest, bytes: u64, found: u64 },
    #[error(
        "{image} needs about {needed} bytes, and the disk of the store has {free} to give: free some space, or lower `disk_reserve` in [node.images]"
    )]
    NoRoom { image: String, needed: u64, free: u64 },
    #[error("the work on layer {layer} ended without a word")]
    Lost { layer: Digest },
}

impl Puller {
    pub fn new(store: Store, options: Options) -> Self {
        let inner = Inner {
            store,
            pace: Arc::new(Pace::new(options.bytes_per_second_max)),
            options,
            places: Arc::new(tokio::sync::Semaphore::new(LAYERS_AT_ONCE)),
            layers: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// That of all downloads of this puller.
    pub(crate) fn pace(&self) -> &Arc<Pace> {
        &self.inner.pace
    }

    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Makes sure that the image is in the store. Dropping the future gives the pull up, unless others wait
    /// for the same layers.
    pub async fn pull(
        &self,
        source: &Arc<dyn Source>,
        progress: &ProgressSender,
    ) -> Result<Image, Error> {
        let resolved = self.resolve(&**source).await?;
        self.pull_resolved(source, &resolved, progress).await
    }

    /// As [`pull`](Self::pull), for an image of which it is known what it is made of.
    pub async fn pull_resolved(
        &self,
        source: &Arc<dyn Source>,
        resolved: &Resolved,
        progress: &ProgressSender,
    ) -> Result<Image, Error> {
        if let Some(image) = self.known(&resolved.digest).await? {
            progress.done();
            return Ok(image);
        }
        progress.begin(&resolved.layers);
        // Held until the image is complete.
        let digests = resolved.layers.iter().map(|layer| &layer.digest);
        let _pins = self.inner.store.pin_layers(digests);
        self.check_room(&source.name(), resolved)?;
        let layers = resolved.layers.iter();
        let each: Vec<BoxFuture<'_, _>> =
            layers.map(|layer| self.layer(source, layer, progress).boxed()).collect();
        stream::iter(each).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
        let image = Image {
            digest: resolved.digest.clone(),
            config: resolved.config.clone(),
            layers: resolved.layers.iter().map(|layer| layer.digest.clone()).collect(),
            compressed_bytes: resolved.layers.iter().map(|layer| layer.bytes).sum(),
            layer_bytes: resolved.layers.iter().map(|layer| layer.bytes).collect(),
            bytes: 0,
        };
        let image = self.publish(image).await?;
        progress.done();
        Ok(image)
    }

    /// Finds out what an image is made of, as often as it takes to reach the source.
    pub async fn resolve(&self, source: &dyn Source) -> Result<Resolved, Error> {
        let mut tries = 1;
        loop {
            match source.resolve().await {
                Err(error) if error.is_temporary() && tries < TRIES_MAX => {
                    self.inner.pause(tries).await;
                    tries += 1;
                }
                resolved => return Ok(resolved?),
            }
        }
    }

    async fn known(&self, digest: &Digest) -> Result<Option<Image>, Error> {
        let (store, digest) = (self.inner.store.clone(), digest.clone());
        blocking(move || store.image(&digest)).await
    }

    async fn publish(&self, image: Image) -> Result<Image, Error> {
        let store = self.inner.store.clone();
        let published = blocking(move || store.publish(image)).await?;
        let store = self.inner.store.clone();
        // Nobody waits for the disk: until it is done, the store knows that it is not.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.sync() {
                tracing::warn!(%error, "the images cannot be synced");
            }
        });
        Ok(published)
    }

    /// One layer, pulled by whoever comes first.
    pub(crate) async fn layer(
        &self,
        source: &Arc<dyn Source>,
        layer: &LayerDescriptor,
        progress: &ProgressSender,
    ) -> Result<(), Error> {
        if self.inner.store.has_layer(&layer.digest) {
            progress.layer_is_known(layer);
            return Ok(());
        }
        self.running(source, layer, progress).await?;
        progress.layer_is_done();
        Ok(())
    }

    fn running(
        &self,
        source: &Arc<dyn Source>,
        layer: &LayerDescriptor,
        progress: &ProgressSender,
    ) -> Shared<Running> {
        let mut layers = self.inner.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers
            .retain(|_, running| running.upgrade().is_some_and(|running| running.peek().is_none()));
        if let Some(running) = layers.get(&layer.digest).and_then(WeakShared::upgrade) {
            return running;
        }
        let work = layer::pull(
            Arc::clone(&self.inner),
            Arc::clone(source),
            layer.clone(),
            progress.clone(),
        );
        let running: Shared<Running> = work.boxed().shared();
        if let Some(weak) = running.downgrade() {
            layers.insert(layer.digest.clone(), weak);
        }
        running
    }

    /// A first look: layers inflate to about three times their size, and those that are here cost nothing.
    fn check_room(&self, image: &str, resolved: &Resolved) -> Result<(), Error> {
        const INFLATES_TO: u64 = 3;
        let missing =
            resolved.layers.iter().filter(|layer| !self.inner.store.has_layer(&layer.digest));
        let bytes: u64 = missing.map(|layer| layer.bytes).sum();
        let needed = bytes.saturating_mul(INFLATES_TO);
        let free = self.free_bytes()?;
        if needed > free {
            return Err(Error::NoRoom { image: image.to_owned(), needed, free });
        }
        Ok(())
    }

    /// What the disk of the store has to give beyond the reserve.
    pub(crate) fn free_bytes(&self) -> Result<u64, Error> {
        let free = self.inner.store.free_bytes().map_err(Arc::new)?;
        Ok(free.saturating_sub(self.inner.options.free_bytes_min))
    }
}

impl Inner {
    /// Between one try and the next.
    async fn pause(&self, tries: u32) {
        tokio::time::sleep(self.options.retry_pause * 2_u32.pow(tries - 1)).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> store::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await.expect("the store does not panic");
    done.map_err(|error| Error::Store(Arc::new(error)))
}
