//! An image that a command reads itself: brought into the store if it is not there, or into a store of the command's
//! own where it comes from an archive.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glowplug_api::control::{ImagePullEvent, ImagePullRequest};
use glowplug_image::pull::{ProgressSender, Puller};
use glowplug_image::source::archive::Archive;
use glowplug_image::source::credentials::Lookup;
use glowplug_image::source::registry::{Options as RegistryOptions, Registry};
use glowplug_image::source::{Resolved, Source};
use glowplug_image::store::{Image, Reader};
use glowplug_image::{Reference, Store};
use glowplug_node::config::{Config, ImageName, ImagesConfig};
use indicatif::ProgressBar;

use super::holder::unusable;
use super::progress_bar;
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::now_micros;

/// What a compressed archive of an image may inflate to.
const ARCHIVE_BYTES_MAX: u64 = 512 << 30;
/// In the data directory: what commands unpack that the node has no use for. Emptied by the next one.
const SCRATCH_DIR: &str = "image-scratch";

/// An image that is in a store.
pub(super) struct Origin {
    pub(super) name: String,
    pub(super) reader: Reader,
    pub(super) image: Image,
    pub(super) resolved: Resolved,
    /// Held while the image is used, where it is not the node's.
    _scratch: Option<Scratch>,
}

/// A store that is emptied when it is dropped, or opened again.
struct Scratch(Store);

impl Scratch {
    fn open(config: &Config) -> Result<Self, Failure> {
        let scratch = Self(Store::open(&config.node.data_dir.join(SCRATCH_DIR)).map_err(unusable)?);
        scratch.empty();
        Ok(scratch)
    }

    /// What cannot be removed now is removed by the next command.
    fn empty(&self) {
        let _ = self.0.collect(0, &HashSet::new());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.empty();
    }
}

/// The path of an archive or a layout, if `text` means one.
pub(super) fn archive(text: &str) -> Option<PathBuf> {
    if let Some(path) = text.strip_prefix("archive:") {
        return Some(PathBuf::from(path));
    }
    let path = Path::new(text);
    let is_layout = path.join("index.json").is_file() || path.join("manifest.json").is_file();
    (path.is_file() || is_layout).then(|| path.to_owned())
}

impl Origin {
    pub(super) async fn find(text: &str, context: &Context) -> Result<Self, Failure> {
        let config = context.config(Vec::new())?.config;
        let bar = progress_bar(text);
        let found = match archive(text) {
            Some(path) => Self::of_archive(&path, &config, &bar).await,
            None => Self::of_registry(text, &config, context, &bar).await,
        };
        bar.finish_and_clear();
        found
    }

    async fn of_archive(path: &Path, config: &Config, bar: &ProgressBar) -> Result<Self, Failure> {
        let scratch = Scratch::open(config)?;
        let archive = Archive::open(path, None, &scratch.0.scratch(), ARCHIVE_BYTES_MAX);
        let source: Arc<dyn Source> = Arc::new(archive.map_err(Failure::user)?);
        let (image, resolved) = pull(&scratch.0, &source, &config.node.images, bar).await?;
        let reader = scratch.0.reader();
        let name = path.display().to_string();
        Ok(Self { name, reader, image, resolved, _scratch: Some(scratch) })
    }

    async fn of_registry(
        text: &str,
        config: &Config,
        context: &Context,
        bar: &ProgressBar,
    ) -> Result<Self, Failure> {
        let reference: Reference = text.parse().map_err(|error| {
            Failure::user(format!("`{text}` is neither a path nor the name of an image: {error}"))
        })?;
        let name = ImageName::Registry(reference.clone()).to_string();
        let source = registry(reference, config)?;
        let folder = config.node.data_dir.join(glowplug_node::IMAGES_DIR);
        if !glowplug_node::is_running(&config.node.data_dir) {
            let store = Store::open(&folder).map_err(unusable)?;
            let (image, resolved) = pull(&store, &source, &config.node.images, bar).await?;
            let now = glowplug_core::Timestamp::from_micros(now_micros());
            store.set_name(&name, &image.digest, now).map_err(unusable)?;
            store.note_use(&image.digest, now).map_err(unusable)?;
            let reader = store.reader();
            return Ok(Self { name, reader, image, resolved, _scratch: None });
        }
        let resolved = source.resolve().await.map_err(Failure::environment)?;
        let here = |reader: &Reader| reader.image(&resolved.digest).map_err(unusable);
        let known = Reader::open(&folder).ok().map(|reader| here(&reader)).transpose()?.flatten();
        if known.is_none() {
            pull_by_node(text, context, bar).await?;
        }
        let reader = Reader::open(&folder).map_err(unusable)?;
        let image = here(&reader)?.ok_or_else(|| unusable(Reader::missing(&resolved.digest)))?;
        Ok(Self { name, reader, image, resolved, _scratch: None })
    }
}

pub(super) fn registry(reference: Reference, config: &Config) -> Result<Arc<dyn Source>, Failure> {
    let credentials = Lookup::of_environment().find(reference.registry());
    let options = RegistryOptions {
        insecure: config.node.images.insecure_registries.clone(),
        ..RegistryOptions::default()
    };
    let registry = Registry::new(reference, credentials.map_err(Failure::user)?, &options);
    Ok(Arc::new(registry.map_err(Failure::environment)?))
}

async fn pull(
    store: &Store,
    source: &Arc<dyn Source>,
    limits: &ImagesConfig,
    bar: &ProgressBar,
) -> Result<(Image, Resolved), Failure> {
    let failed = |error: glowplug_image::pull::Error| Failure::User(error.into());
    let puller = Puller::new(store.clone(), limits.pull_options());
    let resolved = puller.resolve(&**source).await.map_err(failed)?;
    let (progress, mut seen) = ProgressSender::channel();
    let mut pulling = Box::pin(puller.pull_resolved(source, &resolved, &progress));
    let image = loop {
        tokio::select! {
            pulled = &mut pulling => break pulled.map_err(failed)?,
            Ok(()) = seen.changed() => {
                let progress = *seen.borrow_and_update();
                bar.set_length(progress.total_bytes);
                bar.set_position(progress.bytes);
            }
        }
    };
    drop(pulling);
    Ok((image, resolved))
}

async fn pull_by_node(image: &str, context: &Context, bar: &ProgressBar) -> Result<(), Failure> {
    let request = ImagePullRequest { image: image.to_owned() };
    let each = |event: ImagePullEvent| {
        if let Some(problem) = event.error {
            return Err(Failure::user(problem));
        }
        bar.set_length(event.total_bytes.max(bar.length().unwrap_or_default()));
        bar.set_position(event.bytes.max(bar.position()));
        Ok(())
    };
    context.client()?.post_lines(&["images"], &request, each).await
}
