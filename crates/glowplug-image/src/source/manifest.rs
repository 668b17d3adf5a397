//! Reads the manifests of both families, OCI's and Docker's, into one form.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{Compression, LayerDescriptor};
use crate::config::ImageConfig;
use crate::digest::Digest;

/// Layers of one image; docker's own limit is 127.
const LAYERS_MAX: usize = 512;
/// Marks what is not an image for a platform but a statement about one.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Under which archives keep an image's name.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// A manifest of either kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Manifest {
    Image(ImageManifest),
    /// One image for each platform.
    Index(Vec<PlatformEntry>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageManifest {
    pub(super) config: Digest,
    pub(super) config_bytes: u64,
    pub(super) layers: Vec<LayerDescriptor>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlatformEntry {
    pub(super) digest: Digest,
    pub(super) platform: Option<Platform>,
    /// What an archive calls it.
    pub(super) names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// What this machine runs, in the words of image builders.
    pub(super) fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Variants are compatible for our purposes: arm64 has one in practice, and amd64's have fallbacks first.
    fn runs(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }
}

/// The image for the platform, or what there is instead.
pub(super) fn choose<'a>(
    entries: &'a [PlatformEntry],
    wanted: &Platform,
) -> Result<&'a Digest, String> {
    let fits = |entry: &&PlatformEntry| entry.platform.as_ref().is_some_and(|has| wanted.runs(has));
    if let Some(entry) = entries.iter().find(fits) {
        return Ok(&entry.digest);
    }
    // An index of one image needs no platform.
    if let [PlatformEntry { digest, platform: None, .. }] = entries {
        return Ok(digest);
    }
    let available = entries.iter().filter_map(|entry| entry.platform.as_ref());
    Err(available.map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// The form that is common to all kinds; which fields there are says which kind it is.
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
    manifests: Option<Vec<WireDescriptor>>,
}

#[derive(Deserialize)]
struct WireDescriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Manifest, String> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if wire.schema_version != 2 {
        return Err(format!("its schema version is {}, only 2 is supported", wire.schema_version));
    }
    if let Some(manifests) = wire.manifests {
        return Ok(Manifest::Index(index(manifests)));
    }
    let (Some(config), Some(layers)) = (wire.config, wire.layers) else {
        return Err("it names neither layers nor other manifests".to_owned());
    };
    if layers.len() > LAYERS_MAX {
        return Err(format!("it has {} layers, at most {LAYERS_MAX} are allowed", layers.len()));
    }
    let layers = layers.into_iter().map(layer).collect::<Result<_, _>>()?;
    Ok(Manifest::Image(ImageManifest { config: config.digest, config_bytes: config.size, layers }))
}

fn index(manifests: Vec<WireDescriptor>) -> Vec<PlatformEntry> {
    let is_image = |entry: &WireDescriptor| {
        !entry.annotations.as_ref().is_some_and(|notes| notes.contains_key(ATTESTATION))
    };
    let entry = |entry: WireDescriptor| {
        let notes = entry.annotations.unwrap_or_default();
        let names = NAMES.iter().filter_map(|name| notes.get(*name).cloned()).collect();
        PlatformEntry { digest: entry.digest, platform: entry.platform, names }
    };
    manifests.into_iter().filter(is_image).map(entry).collect()
}

fn layer(wire: WireDescriptor) -> Result<LayerDescriptor, String> {
    let media_type = wire.media_type.as_str();
    let compression = match media_type.rsplit(['.', '+']).next().unwrap_or_default() {
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        "tar" => Compression::None,
        _ => return Err(format!("its layer {} is of the kind `{media_type}`", wire.digest)),
    };
    Ok(LayerDescriptor {
        digest: wire.digest,
        bytes: wire.size,
        compression,
        annotations: wire.annotations.unwrap_or_default(),
    })
}

/// Some writers say `null` where others leave a list out.
pub(super) fn null_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The part of an image's configuration that is about running it.
pub(super) fn read_config(bytes: &[u8]) -> Result<ImageConfig, String> {
    #[derive(Deserialize)]
    struct WireConfig {
        #[serde(default)]
        config: Option<ImageConfig>,
    }
    let wire: WireConfig = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(wire.config.unwrap_or_default())
}

/// What made each layer, as the configuration tells it.
pub(super) fn steps(config: &[u8]) -> Vec<String> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Step {
        created_by: String,
        empty_layer: bool,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct WireHistory {
        history: Vec<Step>,
    }
    let wire: WireHistory = serde_json::from_slice(config).unwrap_or_default();
    wire.history.into_iter().filter(|step| !step.empty_layer).map(|step| step.created_by).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::of_hash([byte; 32])
    }

    fn descriptor(media_type: &str, byte: u8, more: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":7{more}}}"#, digest(byte))
    }

    #[test]
    fn layers_of_both_families_are_known() {
        let cases = [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Compression::Gzip),
            ("application/vnd.docker.image.rootfs.diff.tar", Compression::None),
        ];
        for (media_type, compression) in cases {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                descriptor("x", 1, ""),
                descriptor(media_type, 2, r#","annotations":{"a":"b"}"#)
            );
            let Ok(Manifest::Image(image)) = read(text.as_bytes()) else { panic!("{media_type}") };
            assert_eq!((image.config, image.layers.len()), (digest(1), 1));
            let layer = &image.layers[0];
            assert_eq!((layer.compression, layer.bytes), (compression, 7), "{media_type}");
            assert_eq!(layer.annotations["a"], "b");
        }
    }

    #[test]
    fn the_image_for_this_platform_is_chosen() {
        let platform = |arch: &str| {
            format!(r#","platform":{{"os":"linux","architecture":"{arch}","variant":"v8"}}"#)
        };
        let attestation = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            descriptor("m", 3, attestation),
            descriptor("m", 1, &platform("arm64")),
            descriptor("m", 2, &platform("amd64"))
        );
        let Ok(Manifest::Index(entries)) = read(text.as_bytes()) else { panic!() };
        assert_eq!(entries.len(), 2);
        let wanted = |architecture: &str| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        };
        assert_eq!(choose(&entries, &wanted("amd64")), Ok(&digest(2)));
        assert_eq!(choose(&entries, &wanted("arm64")), Ok(&digest(1)));
        let available = choose(&entries, &wanted("riscv64")).unwrap_err();
        assert_eq!(available, "linux/arm64/v8, linux/amd64/v8");
        let only = [PlatformEntry { digest: digest(9), platform: None, names: vec![] }];
        assert_eq!(choose(&only, &wanted("riscv64")), Ok(&digest(9)));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let helm = descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip!", 2, "");
        let helm = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{helm}]}}"#,
            descriptor("x", 1, "")
        );
        let cases = [
            ("", "EOF"),
            (r#"{"schemaVersion":1}"#, "schema version is 1"),
            (r#"{"schemaVersion":2}"#, "neither layers nor other manifests"),
            (helm.as_str(), "is of the kind"),
        ];
        for (text, expected) in cases {
            let problem = read(text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_configuration_may_say_nothing() {
        assert_eq!(read_config(b"{}").unwrap(), ImageConfig::default());
        let config = read_config(br#"{"config":{"Cmd":["a"]},"rootfs":{}}"#).unwrap();
        assert_eq!(config.cmd, ["a"]);
    }
}
