//! Writes an image anew so that it starts sooner: *zstd:chunked*, what starts touch first.
//!
//! ```text
//! store ──order──► entries ──cut──► pieces ──compress, side by side──► frames ──► layer, table, footer
//!                                                        layers, config, manifest ──► registry, archive
//! ```
//!
//! A layer stays a plain zstd layer for everybody who does not know better: an archive, in frames that each can be
//! inflated alone, and in frames to skip the table that says which file is where.
//! Source: containers/storage, `pkg/chunked`.
//!
//! The same image, list and level give the same bytes: nothing depends on clocks or threads.
//!
//! **Crashes.** Layers are files without a name until the whole image is complete. A registry gets its manifest
//! last, an archive its name, so half an image is never seen under a name.
//!
//! **Limits.** [`CHUNK_BYTES`] of a file in one frame, [`BATCH_BYTES`] compressed at once.

mod archive;
mod header;
mod layer;
pub mod layout;
mod order;
pub mod push;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::store::{self, Image, Reader};
use crate::toc::FIRST_USE_BYTES;

/// Of a file in one frame; a longer one can be read in parts.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Of plain bytes, compressed side by side and held in memory.
const BATCH_BYTES: u64 = 64 << 20;
pub const LEVEL_DEFAULT: i32 = 6;

pub const MANIFEST_KIND: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_KIND: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_KIND: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("layer {layer} cannot be written: {source}")]
    Layer {
        layer: Digest,
        #[source]
        source: io::Error,
    },
    #[error("the image's configuration cannot be used: {problem}")]
    Config { problem: String },
    #[error("cannot write {path}: {source}")]
    Archive {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} does not take the image: {problem}")]
    Push { name: String, problem: String },
}

/// What the registry or archive gets besides its name.
#[derive(Debug)]
pub struct Converted {
    /// Lowest first.
    pub layers: Vec<Blob>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    /// Of the manifest.
    pub digest: Digest,
}

/// A layer that is written.
#[derive(Debug)]
pub struct Blob {
    /// Without a name.
    pub file: File,
    pub digest: Digest,
    pub bytes: u64,
    /// Of the plain archive.
    pub diff_id: Digest,
    pub annotations: BTreeMap<String, String>,
    /// So many of its first bytes hold what starts touch.
    pub first_use_bytes: Option<u64>,
}

/// Converts an image that is in the store. `config_json` is its whole configuration; unfinished files are in `scratch`,
/// without names. `tell` hears how many plain bytes were compressed. Blocks, and uses all cores.
pub fn convert(
    reader: &Reader,
    image: &Image,
    config_json: &[u8],
    level: i32,
    scratch: &Path,
    tell: &mut dyn FnMut(u64),
) -> Result<Converted, Error> {
    let touched = reader.touched(&image.digest)?;
    let mut layers = Vec::new();
    for digest in &image.layers {
        let layer = reader.layer(digest)?;
        // Whatever is written gets a digest that fits, so damage would never be seen again.
        reader.check_pack(digest, &layer)?;
        let failed = |source| {
            if store::is_damage(&source) {
                return store::Error::LayerDamaged { layer: digest.clone() }.into();
            }
            Error::Layer { layer: digest.clone(), source }
        };
        let writing = layer::Writing { reader, layer: &layer, touched: &touched, level };
        layers.push(writing.write(scratch, tell).map_err(failed)?);
    }
    let config = config(config_json, &layers)?;
    let manifest = manifest(&config, &layers);
    let digest = Digest::of(&manifest);
    Ok(Converted { layers, config, manifest, digest })
}

/// The configuration with the new layers in place of the old.
fn config(config: &[u8], layers: &[Blob]) -> Result<Vec<u8>, Error> {
    let problem = |problem: String| Error::Config { problem };
    let mut config: Map<String, Value> =
        serde_json::from_slice(config).map_err(|error| problem(error.to_string()))?;
    let ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": ids}));
    serde_json::to_vec(&config).map_err(|error| problem(error.to_string()))
}

fn manifest(config: &[u8], layers: &[Blob]) -> Vec<u8> {
    let layer = |layer: &Blob| {
        json!({
            "mediaType": LAYER_KIND,
            "digest": layer.digest.as_str(),
            "size": layer.bytes,
            "annotations": layer.annotations,
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_KIND,
        "config": {
            "mediaType": CONFIG_KIND,
            "digest": Digest::of(config).as_str(),
            "size": config.len(),
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&manifest).expect("plain data has a form")
}
