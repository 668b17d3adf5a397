//! `[node.images]`: where images come from, and what they may take.

use glowplug_image::layer::unpack;
use glowplug_image::pull::Options as PullOptions;

use super::layers::{Layers, Values};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesConfig {
    /// What they may take of the disk. `None`: no image goes by itself.
    pub budget_bytes: Option<u64>,
    /// On the disk of the images.
    pub disk_reserve_bytes: u64,
    /// Of all pulls together. `None`: as fast as they come.
    pub bytes_per_second_max: Option<u64>,
    /// Of one layer, unpacked.
    pub layer_bytes_max: u64,
    /// As `host` or `host:port`.
    pub insecure_registries: Vec<String>,
}

impl ImagesConfig {
    /// `None` if a value that has a default could not be read, which was told already.
    pub(super) fn read(images: &Values) -> Option<Self> {
        Some(Self {
            budget_bytes: images.bytes("budget"),
            disk_reserve_bytes: images.bytes("disk_reserve")?,
            bytes_per_second_max: images.bytes("bytes_per_second_max"),
            layer_bytes_max: images.bytes("layer_bytes_max")?,
            insecure_registries: images.list("insecure_registries").unwrap_or_default(),
        })
    }

    /// What a pull is held to.
    pub fn pull_options(&self) -> PullOptions {
        PullOptions {
            bytes_per_second_max: self.bytes_per_second_max,
            free_bytes_min: self.disk_reserve_bytes,
            limits: unpack::Limits { bytes_max: self.layer_bytes_max, ..unpack::Limits::default() },
            ..PullOptions::default()
        }
    }
}

pub(super) fn check(layers: &mut Layers, images: &Values) {
    for key in ["bytes_per_second_max", "layer_bytes_max"] {
        if images.bytes(key) == Some(0) {
            let message = format!("`{key}` in [node.images] is 0; no image would ever be pulled");
            layers.problem(images.origin(key), message, None);
        }
    }
}
