//! Images made of nothing.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use glowplug_image::Digest;
use glowplug_image::source::Compression;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a registry keeps by its digest.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Bytes,
    /// What others say its digest is.
    pub(crate) digest: Digest,
    /// What others say its size is.
    pub(crate) size: usize,
    /// Of its descriptor.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Blob {
    pub(crate) fn new(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let annotations = BTreeMap::new();
        Self { kind, digest: Digest::of(&bytes), size: bytes.len(), bytes, annotations }
    }

    /// Of the plain archive; a layer that is damaged on purpose has any.
    fn diff_id(&self) -> Digest {
        let mut plain = Vec::new();
        let read = match self.kind.rsplit('+').next() {
            Some("gzip") => {
                flate2::read::MultiGzDecoder::new(&self.bytes[..]).read_to_end(&mut plain)
            }
            Some("zstd") => zstd::Decoder::new(&self.bytes[..]).unwrap().read_to_end(&mut plain),
            _ => (&self.bytes[..]).read_to_end(&mut plain),
        };
        drop(read);
        Digest::of(&plain)
    }

    fn descriptor(&self) -> serde_json::Value {
        json!({
            "mediaType": self.kind,
            "digest": self.digest.as_str(),
            "size": self.size,
            "annotations": self.annotations,
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct TestImage {
    pub(crate) manifest: Blob,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

pub(crate) type Files<'a> = [(&'a str, &'a [u8])];

/// What [`files`](super::root::files) should find.
pub(crate) fn expected(files: &Files<'_>) -> BTreeMap<String, Vec<u8>> {
    let file = |(name, content): &(&str, &[u8])| ((*name).to_owned(), content.to_vec());
    files.iter().map(file).collect()
}

/// Bytes that no compression makes smaller, others for each seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// An archive of these files; a name that ends in a slash is a folder.
pub(crate) fn archive(files: &Files<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        let folder = name.ends_with('/');
        let kind = if folder { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if folder { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn layer(compression: Compression, files: &Files<'_>) -> Blob {
    layer_of(compression, &archive(files))
}

pub(crate) fn layer_of(compression: Compression, archive: &[u8]) -> Blob {
    match compression {
        Compression::None => Blob::new("application/vnd.oci.image.layer.v1.tar", archive.to_vec()),
        Compression::Gzip => {
            Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", gzip(archive))
        }
        Compression::Zstd => {
            let bytes = zstd::encode_all(archive, 3).unwrap();
            Blob::new("application/vnd.oci.image.layer.v1.tar+zstd", bytes)
        }
    }
}

/// Lowest layer first.
pub(crate) fn image(layers: Vec<Blob>) -> TestImage {
    let diff_ids: Vec<_> = layers.iter().map(Blob::diff_id).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/app"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = Blob::new(CONFIG, config.to_string());
    let descriptors: Vec<_> = layers.iter().map(Blob::descriptor).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": descriptors,
    });
    TestImage { manifest: Blob::new(MANIFEST, manifest.to_string()), config, layers }
}

/// One image for each architecture.
pub(crate) fn index(images: &[(&str, &TestImage)]) -> Blob {
    let entry = |(architecture, image): &(&str, &TestImage)| {
        let mut entry = image.manifest.descriptor();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let manifests: Vec<_> = images.iter().map(entry).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    Blob::new(INDEX, index.to_string())
}

/// Puts images into a real registry.
pub(crate) struct Pusher {
    client: Client,
    auth: RegistryAuth,
}

impl Pusher {
    pub(crate) fn new(auth: RegistryAuth) -> Self {
        let protocol = ClientProtocol::Http;
        Self { client: Client::new(ClientConfig { protocol, ..ClientConfig::default() }), auth }
    }

    pub(crate) async fn push(&self, name: &str, image: &TestImage) {
        let reference: Reference = name.parse().unwrap();
        self.client.auth(&reference, &self.auth, RegistryOperation::Push).await.unwrap();
        for blob in image.layers.iter().chain([&image.config]) {
            let bytes = blob.bytes.clone();
            self.client.push_blob(&reference, bytes, blob.digest.as_str()).await.unwrap();
        }
        self.push_manifest(name, &image.manifest).await;
    }

    pub(crate) async fn push_manifest(&self, name: &str, manifest: &Blob) {
        let reference: Reference = name.parse().unwrap();
        let kind = manifest.kind.parse().unwrap();
        let bytes = manifest.bytes.clone();
        self.client.push_manifest_raw(&reference, bytes, kind).await.unwrap();
    }
}
