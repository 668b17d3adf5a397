//! The images of this node's apps: found, pulled, mounted.
//!
//! Which image a name means is asked when the app is deployed, and what it means then is what its runners
//! get: a tag that moves is taken up at the next start of the node. Where the registry cannot be asked, the
//! image that the name meant last is taken, if it is still here.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use glowplug_api::control::{ImageFsckView, ImageGcRequest, ImageGcView};
use glowplug_artifacts::{ImageBuild, ImageBuilds, ProgressSender as BuildProgress};
use glowplug_core::{RunnerId, Timestamp};
use glowplug_image::config::ImageConfig;
use glowplug_image::lazy::FillerCommand;
use glowplug_image::pull::{self, Options, ProgressSender, Puller};
use glowplug_image::source::archive::Archive;
use glowplug_image::source::credentials::Lookup;
use glowplug_image::source::registry::{Options as RegistryOptions, Registry};
use glowplug_image::source::{self, Resolved, Source};
use glowplug_image::store::{self, Checked, Image, Mounted};
use glowplug_image::touched::Touched;
use glowplug_image::{Digest, Reference, Store};
use tokio::sync::{Notify, OnceCell};

use crate::apps::{App, Status};
use crate::config::{ImageName, ImagesConfig};
use crate::image_views;
use crate::late::LateStarts;
use crate::runner_task::chain;
use crate::shared::Shared;
use crate::touched::Recordings;

/// What a compressed archive of an image may inflate to.
const ARCHIVE_BYTES_MAX: u64 = 512 << 30;
/// Between two looks whether all apps are prepared, before which nobody knows what they want.
const PREPARED_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks whether images take more than their budget, where nothing is pulled: runners end, and leave
/// images that may go.
const COLLECT_INTERVAL: Duration = Duration::from_mins(10);

pub(crate) struct Images {
    folder: PathBuf,
    /// Opened by the first who needs it: a node without images has no store of them.
    puller: OnceCell<Puller>,
    builds: ImageBuilds,
    pulls: Options,
    registries: RegistryOptions,
    /// By this process: nobody else could bring them again.
    built: Mutex<HashSet<Digest>>,
    /// What they may take of the disk. `None`: all of it.
    budget_bytes: Option<u64>,
    pulled: Notify,
    pub(crate) recordings: Recordings,
    pub(crate) late: LateStarts,
}

/// An image as it was when its app was deployed.
#[derive(Clone)]
pub(crate) struct Found {
    name: String,
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfig,
    /// `None`: its registry could not be asked and it is what the name meant before, or it was built here.
    origin: Option<Origin>,
}

/// Where an image is, if it need not be made.
enum Place {
    Registry(Reference),
    Archive(PathBuf),
}

#[derive(Clone)]
struct Origin {
    source: Arc<dyn Source>,
    resolved: Resolved,
}

/// Why it is not known what an image is made of.
#[derive(Debug)]
pub(crate) struct NotFound {
    pub(crate) reason: String,
    /// Asked again, its registry may know.
    pub(crate) is_temporary: bool,
}

impl From<String> for NotFound {
    fn from(reason: String) -> Self {
        Self { reason, is_temporary: false }
    }
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
        f.debug_struct("Found").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Found {
    #[cfg(test)]
    pub(crate) fn sample(name: &str, config: ImageConfig) -> Self {
        Self { name: name.to_owned(), digest: Digest::of(b""), config, origin: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `None`: nobody can be asked for it.
    pub(crate) fn origin(&self) -> Option<(&Arc<dyn Source>, &Resolved)> {
        self.origin.as_ref().map(|origin| (&origin.source, &origin.resolved))
    }
}

impl Images {
    /// `data_dir` is where images are built.
    pub(crate) fn new(
        folder: PathBuf,
        data_dir: &Path,
        config: &ImagesConfig,
        filler: FillerCommand,
    ) -> Self {
        let registries = RegistryOptions {
            insecure: config.insecure_registries.clone(),
            ..RegistryOptions::default()
        };
        Self {
            folder,
            puller: OnceCell::new(),
            builds: ImageBuilds::new(data_dir),
            built: Mutex::default(),
            pulls: config.pull_options(),
            registries,
            budget_bytes: config.budget_bytes,
            pulled: Notify::new(),
            recordings: Recordings::default(),
            late: LateStarts::new(filler),
        }
    }

    /// Asks what the image is made of. One that is built here is built.
    pub(crate) async fn find(
        &self,
        name: &ImageName,
        progress: &BuildProgress,
        now: Timestamp,
    ) -> Result<Found, NotFound> {
        let place = match name {
            ImageName::Registry(reference) => Place::Registry(reference.clone()),
            ImageName::Archive(path) => Place::Archive(path.clone()),
            ImageName::Build { dockerfile } => {
                let build = in_its_folder(dockerfile)?;
                return Ok(self.build(&build, progress, now).await?);
            }
        };
        let puller = self.puller().await?;
        let source = self.source(place, puller.store()).await?;
        let name = name.to_string();
        match puller.resolve(&*source).await {
            Ok(resolved) => Ok(Found {
                name,
                digest: resolved.digest.clone(),
                config: resolved.config.clone(),
                origin: Some(Origin { source, resolved }),
            }),
            Err(pull::Error::Source(error)) if error.is_temporary() => {
                let reason = chain(&error);
                let Some(image) = named(puller.store(), &name).await? else {
                    return Err(NotFound { reason, is_temporary: true });
                };
                tracing::warn!(image = name, digest = %image.digest, "{reason}: what is here is taken");
                Ok(Found { name, digest: image.digest, config: image.config, origin: None })
            }
            Err(error) => Err(chain(&error).into()),
        }
    }

    /// Builds an image, unless it was built before and is still here, and takes it into the store.
    pub(crate) async fn build(
        &self,
        build: &ImageBuild,
        progress: &BuildProgress,
        now: Timestamp,
    ) -> Result<Found, String> {
        let puller = self.puller().await?;
        let key = self.builds.key(build).await.map_err(|error| chain(&error))?;
        let name = format!("built:{key}");
        if let Some(image) = named(puller.store(), &name).await? {
            return Ok(self.as_built(name, image));
        }
        let turn = self.builds.turn(progress).await.map_err(|error| chain(&error))?;
        // Whoever had the turn before may have built it.
        if let Some(image) = named(puller.store(), &name).await? {
            return Ok(self.as_built(name, image));
        }
        let layout = self.builds.build(&turn, &key, build, progress).await;
        let layout = layout.map_err(|error| chain(&error))?;
        let source = self.source(Place::Archive(layout), puller.store()).await?;
        let image = puller.pull(&source, &ProgressSender::none()).await;
        let image = image.map_err(|error| chain(&error))?;
        let (store, noted, digest) = (puller.store().clone(), name.clone(), image.digest.clone());
        blocking(move || store.set_name(&noted, &digest, now)).await?;
        // It takes as much room as the image, and is made anew when it is missed.
        if let Err(error) = self.builds.discard(&turn).await {
            tracing::warn!("what was left of a build is not removed: {}", chain(&error));
        }
        Ok(self.as_built(name, image))
    }

    fn as_built(&self, name: String, image: Image) -> Found {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.insert(image.digest.clone());
        Found { name, digest: image.digest, config: image.config, origin: None }
    }

    /// The images that this process has built.
    fn built(&self) -> HashSet<Digest> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lower layers of a root, if the image need not be pulled.
    pub(crate) async fn mount(
        &self,
        found: &Found,
        now: Timestamp,
    ) -> Result<Option<Mounted>, String> {
        let (store, digest) = (self.puller().await?.store().clone(), found.digest.clone());
        blocking(move || match store.mount(&digest) {
            Err(store::Error::ImageMissing { .. }) => Ok(None),
            mounted => {
                let mounted = mounted?;
                // It only orders what is collected: a start does not fail for it.
                if let Err(error) = store.note_use(&digest, now) {
                    tracing::warn!("the use of an image is not noted: {}", chain(&error));
                }
                Ok(Some(mounted))
            }
        })
        .await
    }

    /// The lower layers of a root of an image that is not here, if that is possible, and sooner than a pull.
    pub(crate) async fn start_late(
        &self,
        found: &Found,
        app: &str,
        runner: RunnerId,
    ) -> Option<Mounted> {
        let puller = self.puller().await.ok()?;
        let (store, image, of) = (puller.store().clone(), found.digest.clone(), app.to_owned());
        let touched = blocking(move || match store.touched_by(&image, &of)? {
            Some(touched) => Ok(touched),
            None => store.touched(&image),
        });
        let touched = touched.await.unwrap_or_else(|problem| {
            tracing::warn!(app, "what its starts touched is not known: {problem}");
            Touched::default()
        });
        self.late.start(puller, found, &touched, runner).await
    }

    pub(crate) async fn pull(
        &self,
        found: &Found,
        progress: &ProgressSender,
        now: Timestamp,
    ) -> Result<Image, String> {
        let Some(Origin { source, resolved }) = &found.origin else {
            let name = &found.name;
            return Err(format!(
                "{name} is gone from the disk, and there was nobody to ask for it: start the node again"
            ));
        };
        let puller = self.puller().await?;
        let pulled = puller.pull_resolved(source, resolved, progress).await;
        let pulled = pulled.map_err(|error| chain(&error))?;
        let (store, name) = (puller.store().clone(), found.name.clone());
        let digest = pulled.digest.clone();
        // Needed only where the registry cannot be asked at a later start of the node.
        let noted = move || {
            store.set_name(&name, &digest, now)?;
            // What was just pulled is not what was used longest ago.
            store.note_use(&digest, now)
        };
        if let Err(problem) = blocking(noted).await {
            tracing::warn!("the name of an image is not noted: {problem}");
        }
        self.pulled.notify_one();
        Ok(pulled)
    }

    /// What the last recorded start of an app touched.
    pub(crate) async fn touched_by(
        &self,
        image: &Digest,
        app: &str,
    ) -> Result<Option<Touched>, String> {
        let (store, image, app) =
            (self.puller().await?.store().clone(), image.clone(), app.to_owned());
        blocking(move || store.touched_by(&image, &app)).await
    }

    pub(crate) async fn note_touched(
        &self,
        image: &Digest,
        app: &str,
        touched: Touched,
    ) -> Result<(), String> {
        let (store, image, app) =
            (self.puller().await?.store().clone(), image.clone(), app.to_owned());
        blocking(move || store.note_touched(&image, &app, touched)).await
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

    /// The store, if there is one.
    pub(crate) async fn store(&self) -> Result<Option<Store>, String> {
        if !self.folder.exists() {
            return Ok(None);
        }
        Ok(Some(self.puller().await?.store().clone()))
    }

    /// Removes what nothing wants, as far as it takes; `None`: there is no store.
    pub(crate) async fn collect(
        &self,
        request: ImageGcRequest,
        wanted: HashSet<Digest>,
    ) -> Result<Option<ImageGcView>, String> {
        let Some(store) = self.store().await? else { return Ok(None) };
        let budget_bytes = self.budget_bytes;
        let collect = move || image_views::collect(&store, request, budget_bytes, wanted);
        blocking(collect).await.map(Some)
    }

    /// Reads everything and compares it with its checksums; `None`: there is no store.
    pub(crate) async fn check(
        &self,
        repair: bool,
        mut tell: impl FnMut(Checked) + Send + 'static,
    ) -> Result<Option<ImageFsckView>, String> {
        let Some(store) = self.store().await? else { return Ok(None) };
        blocking(move || image_views::check(&store, repair, &mut tell)).await.map(Some)
    }

    /// Leaves no mount behind but those that runners use.
    pub(crate) async fn close(&self) {
        self.late.close();
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
            .get_or_try_init(async || Ok(Puller::new(open().await?, self.pulls.clone())))
            .await
    }

    async fn source(&self, place: Place, store: &Store) -> Result<Arc<dyn Source>, String> {
        let registries = self.registries.clone();
        let scratch = store.scratch();
        // A helper that keeps credentials may take its time, as may inflating an archive.
        let open = move || -> Result<Arc<dyn Source>, source::Error> {
            match place {
                Place::Registry(reference) => {
                    let credentials = Lookup::of_environment().find(reference.registry())?;
                    Ok(Arc::new(Registry::new(reference, credentials, &registries)?))
                }
                Place::Archive(path) => {
                    let archive = Archive::open(&path, None, &scratch, ARCHIVE_BYTES_MAX)?;
                    Ok(Arc::new(archive))
                }
            }
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(|error| error.to_string())?;
        opened.map_err(|error| error.to_string())
    }
}

/// The images that runners of apps will want. `None`: some app is still being prepared, and may want any.
pub(crate) fn wanted(shared: &Shared) -> Option<HashSet<Digest>> {
    let is_preparing = |app: &Arc<App>| matches!(app.status(), Status::Preparing { .. });
    if shared.apps.all().any(is_preparing) {
        return None;
    }
    let deployed = shared.apps.all().filter_map(|app| app.deployed());
    let digests = deployed.filter_map(|deployed| deployed.launch.image().cloned());
    Some(digests.chain(shared.images.built()).collect())
}

/// Keeps the images within their budget: after each pull, and now and then.
pub(crate) async fn keep_budget(shared: Arc<Shared>) {
    let images = &shared.images;
    let Some(budget_bytes) = images.budget_bytes else { return };
    loop {
        let Some(wanted) = wanted(&shared) else {
            tokio::time::sleep(PREPARED_INTERVAL).await;
            continue;
        };
        match images.collect(ImageGcRequest::default(), wanted).await {
            Ok(Some(gone)) => tell(&gone, budget_bytes),
            Ok(None) => {}
            Err(problem) => tracing::warn!("images over their budget cannot be removed: {problem}"),
        }
        // Whichever comes first; both mean the same.
        let _ = tokio::time::timeout(COLLECT_INTERVAL, images.pulled.notified()).await;
    }
}

fn tell(gone: &ImageGcView, budget_bytes: u64) {
    for image in &gone.images {
        let names = image.names.join(", ");
        tracing::info!(
            image = image.digest,
            names,
            "an image went, since all take more than `budget` in [node.images]"
        );
    }
    let (bytes, left_bytes) = (gone.bytes, gone.left_bytes);
    if bytes > 0 {
        tracing::info!(bytes, left_bytes, budget_bytes, "images made room");
    }
    if left_bytes > budget_bytes {
        tracing::warn!(
            left_bytes,
            budget_bytes,
            "images take more than `budget` in [node.images], and all of them are wanted by apps or in use"
        );
    }
}

/// The image that a name meant last, if it is here.
async fn named(store: &Store, name: &str) -> Result<Option<Image>, String> {
    let (store, name) = (store.clone(), name.to_owned());
    blocking(move || match store.named(&name) {
        Some(named) => store.image(&named.digest),
        None => Ok(None),
    })
    .await
}

/// A Dockerfile, with the folder that it is in as its context.
fn in_its_folder(dockerfile: &Path) -> Result<ImageBuild, String> {
    let text = std::fs::read_to_string(dockerfile)
        .map_err(|error| format!("cannot read {}: {error}", dockerfile.display()))?;
    let context = dockerfile.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(ImageBuild { dockerfile: text, context, args: BTreeMap::new() })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> glowplug_image::store::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error| chain(&error))
}
