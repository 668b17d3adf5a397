//! `/api/v1/images`

use serde::{Deserialize, Serialize};

/// An image that is on the node's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageView {
    /// Of its manifest for the node's platform.
    pub digest: String,
    /// What it was pulled as.
    #[serde(default)]
    pub names: Vec<String>,
    /// Apps whose runners get it.
    pub apps: Vec<String>,
    pub layers: usize,
    /// Of the layers as they were downloaded.
    pub compressed_bytes: u64,
    /// Of its files.
    pub bytes: u64,
    /// When a runner was last started of it, or it was pulled. `None`: not known.
    #[serde(default)]
    pub last_used_micros: Option<u64>,
}

/// All there is to know of an image that is on the node's disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageDetailView {
    #[serde(flatten)]
    pub image: ImageView,
    /// Of its layers, contents and file tree on the disk.
    pub disk_bytes: u64,
    /// Of these, what no other image needs: what would go with it.
    pub own_bytes: u64,
    /// A runner uses it.
    pub in_use: bool,
    /// `config` of the image's configuration, as far as a runner needs it.
    pub config: serde_json::Value,
    /// Lowest first.
    pub layer_list: Vec<ImageLayerView>,
    /// The other images that have something of it, those with most first.
    pub shared: Vec<ImageShareView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayerView {
    pub digest: String,
    /// As it was downloaded; `None` for images from before this was noted.
    pub compressed_bytes: Option<u64>,
    /// Of its files.
    pub bytes: u64,
    pub files: usize,
    /// Other images that have this very layer.
    pub other_images: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShareView {
    pub digest: String,
    pub names: Vec<String>,
    /// On the disk, once for both.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageGcRequest {
    /// Images that nothing wants go, the least used first, until all that is left takes at most this. `None`:
    /// the `budget` of the node's config, and without one no image goes.
    pub keep_bytes: Option<u64>,
    /// Nothing is removed.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageGcView {
    pub dry_run: bool,
    pub images: Vec<ImageGoneView>,
    pub layers: usize,
    /// Large files, each of which was kept once.
    pub contents: usize,
    pub bytes: u64,
    /// What the rest takes.
    pub left_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageGoneView {
    pub digest: String,
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageFsckRequest {
    /// What is damaged is removed, so that the next pull brings it again.
    pub repair: bool,
}

/// How far a check is. One event has findings or an error: with it the check has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFsckEvent {
    pub bytes: u64,
    pub total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<ImageFsckView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is damaged, or misses something that it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFsckView {
    pub images: Vec<String>,
    pub layers: Vec<String>,
    /// Large files, by the BLAKE3 hash that they should have.
    pub contents: Vec<String>,
    /// Damaged images that stay because runners use them.
    pub in_use: Vec<String>,
    pub repaired: bool,
    pub bytes_read: u64,
}

impl ImageFsckView {
    pub fn is_clean(&self) -> bool {
        self.images.is_empty() && self.layers.is_empty() && self.contents.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePullRequest {
    /// As in the config's `image`.
    pub image: String,
}

/// How far a pull is. One event has an image or an error: with it the pull has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagePullEvent {
    /// Of the layers as they come, those that were here among them.
    pub bytes: u64,
    /// 0: not known yet.
    pub total_bytes: u64,
    pub layers: usize,
    pub total_layers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
