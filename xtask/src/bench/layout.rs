//! Container images of a bench's own making, as OCI layouts: made by tar and gzip, so that every engine gets
//! what is in registries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::Program;

/// An image with the tag `1` that grows by layers.
#[derive(Debug)]
pub(super) struct Layout {
    place: PathBuf,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Of the archive as it is stored.
    digest: String,
    bytes: u64,
    /// Of the archive before it was compressed.
    unpacked: String,
}

impl Layout {
    pub(super) fn create(place: &Path) -> Result<Self> {
        let blobs = place.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
        Ok(Self { place: place.to_owned(), layers: Vec::new() })
    }

    /// Adds a layer with what the arguments make tar pack.
    pub(super) fn add_layer(&mut self, contents: impl FnOnce(Program) -> Program) -> Result<()> {
        let (plain, packed) = (self.place.join("layer"), self.place.join("layer.gz"));
        let tar = Program::new("tar").args(["--create", "--format=posix", "--numeric-owner"]);
        let tar = tar.args(["--pax-option=delete=atime,delete=ctime", "--file"]).arg(&plain);
        contents(tar).stdout_to_stderr().capture().context("cannot pack a layer")?;
        let unpacked = sha256(&plain)?;
        Program::new("gzip").args(["-6", "--no-name"]).arg(&plain).run()?;
        let digest = sha256(&packed)?;
        let bytes = self.keep(&packed, &digest)?;
        self.layers.push(Layer { digest, bytes, unpacked });
        Ok(())
    }

    /// Writes what says that this is an image that runs `command`. The sum of the layers as they are stored.
    pub(super) fn finish(self, command: &[&str]) -> Result<u64> {
        let unpacked: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", layer.unpacked)).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = self.blob(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": unpacked},
        }))?;
        let descriptor = |kind: &str, digest: &str, bytes: u64| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{digest}"),
                "size": bytes,
            })
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| descriptor("layer.v1.tar+gzip", &layer.digest, layer.bytes))
            .collect();
        let manifest = self.blob(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config.0, config.1),
            "layers": layers,
        }))?;
        let mut described = descriptor("manifest.v1+json", &manifest.0, manifest.1);
        described["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        self.write("index.json", &json!({"schemaVersion": 2, "manifests": [described]}))?;
        self.write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        Ok(self.layers.iter().map(|layer| layer.bytes).sum())
    }

    /// The digest and size of a blob with this text.
    fn blob(&self, content: &Value) -> Result<(String, u64)> {
        self.write("blob", content)?;
        let path = self.place.join("blob");
        let digest = sha256(&path)?;
        let bytes = self.keep(&path, &digest)?;
        Ok((digest, bytes))
    }

    fn write(&self, name: &str, content: &Value) -> Result<()> {
        let path = self.place.join(name);
        fs::write(&path, content.to_string())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn keep(&self, path: &Path, digest: &str) -> Result<u64> {
        let kept = self.place.join("blobs/sha256").join(digest);
        fs::rename(path, &kept).with_context(|| format!("cannot create {}", kept.display()))?;
        let found = fs::metadata(&kept);
        Ok(found.with_context(|| format!("cannot look at {}", kept.display()))?.len())
    }
}

pub(super) fn sha256(path: &Path) -> Result<String> {
    let said = Program::new("sha256sum").arg(path).capture()?;
    said.split(' ').next().map(str::to_owned).context("sha256sum says nothing")
}
