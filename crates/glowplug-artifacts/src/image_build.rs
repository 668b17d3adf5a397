//! Images built from Dockerfiles, by `buildah`, which needs no daemon.
//!
//! ```text
//! Dockerfile, context ──buildah──► builds/KEY/  an OCI layout, uncompressed: it goes to the image store of this machine
//! ```
//!
//! A build counts once its folder has its final name. The same Dockerfile with the same arguments and files is the
//! same build; what a `RUN` step fetches does not count, as everywhere. buildah's own storage, with the layers of
//! earlier builds, is `builds/storage`.
//!
//! What it does not do: keep a build after it was taken into the image store ([`ImageBuilds::discard`]).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::command::{Tool, ToolRunError};
use crate::lock;
use crate::progress::{Progress, ProgressSender, Stage};
use crate::source_tree::hash_field;
use crate::toolchain::last_lines;

/// Changes when builds of an older build of ours must not be used any more.
const FORMAT: &str = "image-build-1";
const BUILDAH: &str = "buildah";
/// Compilers run in such builds.
const BUILD_TIMEOUT: Duration = Duration::from_hours(4);
const PUSH_TIMEOUT: Duration = Duration::from_hours(1);
const KEY_HEX_DIGITS: usize = 32;
/// Files of one context, folders included.
const CONTEXT_ENTRIES_MAX: usize = 1_000_000;
const LAYOUT: &str = "layout";

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBuild {
    pub dockerfile: String,
    /// A folder. All that is in it counts.
    pub context: PathBuf,
    pub args: BTreeMap<String, String>,
}

/// A finished build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// Of everything that was built from.
    pub key: String,
    /// A folder in the OCI image layout, with one image.
    pub layout: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ImageBuildError {
    #[error(
        "building an image needs buildah, which is not installed: `apt-get install buildah`, or your system's \
         like"
    )]
    NoBuildah,
    #[error("the image cannot be built: {problem}")]
    Failed { problem: String },
    #[error("another process has been building the image {key} for more than {hours} h")]
    Locked { key: String, hours: u64 },
    #[error(transparent)]
    Tool(#[from] ToolRunError),
    #[error("{} has more than {CONTEXT_ENTRIES_MAX} files: exclude some with a .dockerignore", folder.display())]
    ContextTooLarge { folder: PathBuf },
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageBuildError {
    let path = path.to_owned();
    move |source| ImageBuildError::Io { operation, path, source }
}

/// The builds below one data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageBuilds {
    root: PathBuf,
}

impl ImageBuilds {
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("builds") }
    }

    /// Names everything that is built from.
    pub async fn key(&self, build: &ImageBuild) -> Result<String, ImageBuildError> {
        let wanted = build.clone();
        spawn_blocking(move || key(&wanted))
            .await
            .unwrap_or_else(|error| Err(io_error("read", &build.context)(io::Error::other(error))))
    }

    /// Builds unless it is built. Two who want the same, in this process or another, build it once.
    pub async fn ensure(
        &self,
        build: &ImageBuild,
        progress: &ProgressSender,
    ) -> Result<BuiltImage, ImageBuildError> {
        let key = self.key(build).await?;
        let folder = self.root.join(&key);
        let built = BuiltImage { key, layout: folder.join(LAYOUT) };
        fs::create_dir_all(&self.root).map_err(io_error("create", &self.root))?;
        let lock = self.lock(&built.key, progress).await?;
        if !built.layout.exists() {
            self.build(build, &built, &lock, progress).await?;
        }
        progress.stage(Stage::Done, "image");
        Ok(built)
    }

    /// What is in the image store needs its build no more. One that is gone already is no error.
    pub async fn discard(&self, built: &BuiltImage) -> Result<(), ImageBuildError> {
        let _lock = self.lock(&built.key, &ProgressSender::none()).await?;
        let folder = self.root.join(&built.key);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &folder)(error))
            }
            _ => Ok(()),
        }
    }

    async fn lock(&self, key: &str, progress: &ProgressSender) -> Result<File, ImageBuildError> {
        let path = self.root.join(format!("{key}.lock"));
        let on_wait = || progress.stage(Stage::Waiting, "another builder of this image");
        let acquired = lock::acquire(&path, BUILD_TIMEOUT, on_wait).await;
        let hours = BUILD_TIMEOUT.as_secs() / 3_600;
        acquired
            .map_err(io_error("lock", &path))?
            .ok_or_else(|| ImageBuildError::Locked { key: key.to_owned(), hours })
    }

    async fn build(
        &self,
        build: &ImageBuild,
        built: &BuiltImage,
        lock: &File,
        progress: &ProgressSender,
    ) -> Result<(), ImageBuildError> {
        let folder = self.root.join(&built.key);
        // A leftover of a builder that died: whoever holds the lock builds.
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(io_error("empty", &folder)(error));
        }
        fs::create_dir(&folder).map_err(io_error("create", &folder))?;
        let dockerfile = folder.join("Dockerfile");
        fs::write(&dockerfile, &build.dockerfile).map_err(io_error("write", &dockerfile))?;
        let mut tool = self
            .buildah(BUILD_TIMEOUT)
            // Steps run in a root of their own; the container that they are for has its sandbox.
            .args(["build", "--isolation", "chroot", "--layers", "--format", "oci", "--tag"])
            .arg(&built.key)
            .arg("--file")
            .arg(&dockerfile);
        for (name, value) in &build.args {
            tool = tool.arg("--build-arg").arg(format!("{name}={value}"));
        }
        progress.stage(Stage::Building, "image");
        let tool = tool.arg(&build.context).holding(share(lock, &folder)?);
        run(tool, |line| {
            if let Some((step, fraction)) = step(line) {
                let detail = step.to_owned();
                let (stage, fraction) = (Stage::Building, Some(fraction));
                progress.send(Progress { stage, detail, fraction, ..Progress::default() });
            }
        })
        .await?;
        let unfinished = folder.join("unfinished");
        let target = format!("oci:{}:latest", unfinished.display());
        // Compressing would cost more than it saves: the image is read once, on this machine.
        let tool = self.buildah(PUSH_TIMEOUT).args(["push", "--disable-compression"]);
        run(tool.args([&built.key, &target]).holding(share(lock, &folder)?), |_| {}).await?;
        fs::rename(&unfinished, &built.layout).map_err(io_error("complete", &built.layout))
    }

    fn buildah(&self, timeout: Duration) -> Tool {
        let (storage, run) = (self.root.join("storage"), self.root.join("run"));
        Tool::new(BUILDAH, timeout).arg("--root").arg(storage).arg("--runroot").arg(run)
    }
}

fn share(lock: &File, folder: &Path) -> Result<File, ImageBuildError> {
    lock.try_clone().map_err(io_error("share the lock of", folder))
}

async fn run(tool: Tool, on_line: impl FnMut(&str)) -> Result<(), ImageBuildError> {
    match tool.run_watched(on_line).await {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(ImageBuildError::Failed { problem: last_lines(&done.stderr) }),
        Err(ToolRunError::Spawn { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(ImageBuildError::NoBuildah)
        }
        Err(error) => Err(error.into()),
    }
}

/// `STEP 3/6: RUN make` as the step and how much is behind it.
#[expect(clippy::cast_precision_loss, reason = "for a bar on a screen")]
fn step(line: &str) -> Option<(&str, f32)> {
    let (count, step) = line.strip_prefix("STEP ")?.split_once(": ")?;
    let (at, of) = count.split_once('/')?;
    let (at, of): (u32, u32) = (at.parse().ok()?, of.parse().ok()?);
    (at > 0 && at <= of).then(|| (step, (at - 1) as f32 / of as f32))
}

/// A hash of everything that is built from.
fn key(build: &ImageBuild) -> Result<String, ImageBuildError> {
    let mut hasher = blake3::Hasher::new();
    hash_field(&mut hasher, FORMAT.as_bytes());
    hash_field(&mut hasher, build.dockerfile.as_bytes());
    for (name, value) in &build.args {
        hash_field(&mut hasher, name.as_bytes());
        hash_field(&mut hasher, value.as_bytes());
    }
    let mut paths = Vec::new();
    collect(&build.context, &build.context, &mut paths)?;
    paths.sort();
    for path in paths {
        let whole = build.context.join(&path);
        let failed = || io_error("read", &whole);
        hash_field(&mut hasher, path.as_os_str().as_encoded_bytes());
        let found = fs::symlink_metadata(&whole).map_err(failed())?;
        hash_field(&mut hasher, &found.mode().to_le_bytes());
        if found.is_symlink() {
            let target = fs::read_link(&whole).map_err(failed())?;
            hash_field(&mut hasher, target.as_os_str().as_encoded_bytes());
        } else if found.is_file() {
            let mut content = blake3::Hasher::new();
            let file = File::open(&whole).map_err(failed())?;
            content.update_reader(file).map_err(failed())?;
            hash_field(&mut hasher, content.finalize().as_bytes());
        }
    }
    Ok(hasher.finalize().to_hex()[..KEY_HEX_DIGITS].to_owned())
}

/// Everything below `folder`, relative to `root`.
fn collect(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), ImageBuildError> {
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let path = entry.map_err(io_error("read", folder))?.path();
        if found.len() == CONTEXT_ENTRIES_MAX {
            return Err(ImageBuildError::ContextTooLarge { folder: root.to_owned() });
        }
        found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
        if path.is_dir() && !path.is_symlink() {
            collect(root, &path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(context: &Path) -> ImageBuild {
        let args = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        ImageBuild { dockerfile: "FROM scratch".into(), context: context.to_owned(), args }
    }

    #[test]
    fn a_build_is_known_by_all_that_it_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a"), "one").unwrap();
        let first = key(&build(folder.path())).unwrap();
        assert_eq!(key(&build(folder.path())).unwrap(), first);
        let other = ImageBuild { dockerfile: "FROM a".into(), ..build(folder.path()) };
        assert_ne!(key(&other).unwrap(), first);
        let other = ImageBuild { args: BTreeMap::new(), ..build(folder.path()) };
        assert_ne!(key(&other).unwrap(), first);
        fs::write(folder.path().join("sub/a"), "two").unwrap();
        let second = key(&build(folder.path())).unwrap();
        assert_ne!(second, first);
        std::os::unix::fs::symlink("a", folder.path().join("sub/b")).unwrap();
        assert_ne!(key(&build(folder.path())).unwrap(), second);
    }

    #[test]
    fn steps_tell_how_far_a_build_is() {
        assert_eq!(step("STEP 1/4: FROM scratch"), Some(("FROM scratch", 0.0)));
        assert_eq!(step("STEP 3/4: RUN make -j 2: x"), Some(("RUN make -j 2: x", 0.5)));
        for other in ["STEP", "STEP 0/4: a", "STEP 5/4: a", "COMMIT x", "STEP x/y: a"] {
            assert_eq!(step(other), None, "{other}");
        }
    }
}
