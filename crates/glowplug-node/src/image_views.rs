//! What is said about images: by the node, and by commands that look into a store themselves because no node runs.

use std::collections::{BTreeMap, HashSet};

use glowplug_api::control::{
    ImageDetailView, ImageFsckView, ImageGcRequest, ImageGcView, ImageGoneView, ImageLayerView,
    ImageShareView, ImageView,
};
use glowplug_core::Timestamp;
use glowplug_image::store::{Checked, Image, Repair, Result};
use glowplug_image::{Digest, Store};

/// The names of all images.
#[derive(Debug)]
pub struct Names(BTreeMap<Digest, Vec<String>>);

impl Names {
    pub fn of(store: &Store) -> Self {
        let mut names: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (name, named) in store.names() {
            names.entry(named.digest).or_default().push(name);
        }
        Self(names)
    }

    fn get(&self, digest: &Digest) -> Vec<String> {
        self.0.get(digest).cloned().unwrap_or_default()
    }
}

pub fn image(store: &Store, names: &Names, image: &Image, apps: Vec<String>) -> ImageView {
    ImageView {
        digest: image.digest.to_string(),
        names: names.get(&image.digest),
        apps,
        layers: image.layers.len(),
        compressed_bytes: image.compressed_bytes,
        bytes: image.bytes,
        last_used_micros: store.last_use(&image.digest).map(Timestamp::as_micros),
    }
}

/// Blocks as long as it takes to read the index of every layer.
pub fn detail(store: &Store, found: &Image, apps: Vec<String>) -> Result<ImageDetailView> {
    let names = Names::of(store);
    let usage = store.usage(&found.digest)?;
    let layer = |layer: glowplug_image::store::LayerUsage| ImageLayerView {
        digest: layer.digest.to_string(),
        compressed_bytes: layer.compressed_bytes,
        bytes: layer.bytes,
        files: layer.files,
        other_images: layer.other_images,
    };
    let share = |shared: glowplug_image::store::SharedWith| ImageShareView {
        names: names.get(&shared.image),
        digest: shared.image.to_string(),
        bytes: shared.bytes,
    };
    Ok(ImageDetailView {
        image: image(store, &names, found, apps),
        disk_bytes: usage.disk_bytes,
        own_bytes: usage.own_bytes,
        in_use: usage.is_used,
        config: serde_json::to_value(&found.config).unwrap_or_default(),
        layer_list: usage.layers.into_iter().map(layer).collect(),
        shared: usage.shared.into_iter().map(share).collect(),
    })
}

/// Images that are `wanted` stay, and those that a runner uses. Without a budget all images do, and only what no
/// image needs goes.
pub fn collect(
    store: &Store,
    request: ImageGcRequest,
    budget_bytes: Option<u64>,
    wanted: impl IntoIterator<Item = Digest>,
) -> Result<ImageGcView> {
    let names = Names::of(store);
    let wanted: HashSet<Digest> = wanted.into_iter().collect();
    let keep_bytes = request.keep_bytes.or(budget_bytes).unwrap_or(u64::MAX);
    let collected = if request.dry_run {
        store.would_collect(keep_bytes, &wanted)?
    } else {
        store.collect(keep_bytes, &wanted)?
    };
    let gone =
        |digest: &Digest| ImageGoneView { digest: digest.to_string(), names: names.get(digest) };
    let still = if request.dry_run { collected.bytes } else { 0 };
    Ok(ImageGcView {
        dry_run: request.dry_run,
        images: collected.images.iter().map(gone).collect(),
        layers: collected.layers,
        contents: collected.contents,
        bytes: collected.bytes,
        left_bytes: store.bytes()?.saturating_sub(still),
    })
}

/// As slow as the disk; `tell` hears how far it is.
pub fn check(store: &Store, repair: bool, tell: &mut dyn FnMut(Checked)) -> Result<ImageFsckView> {
    let mut bytes_read = 0;
    let how = if repair { Repair::Yes } else { Repair::No };
    let findings = store.check_and_tell(how, &mut |checked| {
        bytes_read = checked.bytes;
        tell(checked);
    })?;
    let texts = |digests: &std::collections::BTreeSet<Digest>| -> Vec<String> {
        digests.iter().map(ToString::to_string).collect()
    };
    Ok(ImageFsckView {
        images: texts(&findings.images),
        layers: texts(&findings.layers),
        contents: findings.contents.iter().map(ToString::to_string).collect(),
        in_use: texts(&findings.in_use),
        repaired: repair && findings.in_use.is_empty(),
        bytes_read,
    })
}
