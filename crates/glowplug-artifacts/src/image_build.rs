//! Images built from Dockerfiles, by `buildah`, which needs no daemon.
//!
//! ```text
//! Dockerfile, context ──buildah──► builds/KEY/  an OCI layout, uncompressed: it goes to the image store of this machine
//! ```
//!
//! The same Dockerfile with the same arguments and files is the same build; what a `RUN` step fetches does not count,
//! as everywhere. There is one build at a time ([`Turn`]): they share buildah's storage, `builds/storage`, with the
//! layers of earlier builds.
//!
//! buildah runs in mounts and processes of its own, so that one that is killed leaves neither. Steps see the host's
//! network and run as root: a Dockerfile is trusted as a program of the host's root is.
//!
//! **Limits.** [`BUILD_TIMEOUT`]; layers of earlier builds go when they take more than [`STORAGE_BYTES_MAX`].
//!
//! What it does not do: keep what was built after it was taken into the image store.

use std::collections::{BTreeMap, BTreeSet};
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
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
const LAYOUT: &str = "layout";
/// Of layers of earlier builds; beyond it they go, and the next build of each Dockerfile begins anew.
const STORAGE_BYTES_MAX: u64 = 32 << 30;
/// Compilers and package managers need none of these, and a way out of the step's root does.
const RIGHTS_WITHHELD: [&str; 3] = ["CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_KILL"];

/// What is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBuild {
    pub dockerfile: String,
    /// A folder. All that is in it counts.
    pub context: PathBuf,
    pub args: BTreeMap<String, String>,
}

/// Held by the one who builds now, here or in another process.
#[derive(Debug)]
pub struct Turn {
    lock: File,
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
    #[error("another process has been building images for more than {hours} h")]
    Locked { hours: u64 },
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

    /// Waits until nobody else builds.
    pub async fn turn(&self, progress: &ProgressSender) -> Result<Turn, ImageBuildError> {
        fs::create_dir_all(&self.root).map_err(io_error("create", &self.root))?;
        let path = self.root.join("lock");
        let on_wait = || progress.stage(Stage::Waiting, "another build of an image");
        let acquired = lock::acquire(&path, BUILD_TIMEOUT, on_wait).await;
        let hours = BUILD_TIMEOUT.as_secs() / 3_600;
        let lock = acquired.map_err(io_error("lock", &path))?;
        lock.map(|lock| Turn { lock }).ok_or(ImageBuildError::Locked { hours })
    }

    /// Builds an image, with this key as its name. A folder in the OCI image layout, which the caller removes with
    /// [`discard`](Self::discard) before its turn is over.
    pub async fn build(
        &self,
        turn: &Turn,
        key: &str,
        build: &ImageBuild,
        progress: &ProgressSender,
    ) -> Result<PathBuf, ImageBuildError> {
        // A leftover of a builder that died.
        self.discard(turn).await?;
        let folder = self.unfinished();
        fs::create_dir(&folder).map_err(io_error("create", &folder))?;
        self.make_room(turn).await?;
        let dockerfile = folder.join("Dockerfile");
        fs::write(&dockerfile, &build.dockerfile).map_err(io_error("write", &dockerfile))?;
        let mut tool = self.buildah(turn, BUILD_TIMEOUT)?;
        tool = tool.args(["build", "--isolation", "chroot", "--layers", "--format", "oci"]);
        tool = tool.args(RIGHTS_WITHHELD.iter().flat_map(|right| ["--cap-drop", right]));
        tool = tool.args(["--tag", key, "--file"]).arg(&dockerfile);
        // Others may read what a program was started with, but not its environment.
        for (name, value) in &build.args {
            tool = tool.args(["--build-arg", name]).env(name, value);
        }
        progress.stage(Stage::Building, "image");
        run(tool.arg(&build.context), |line| {
            if let Some((step, fraction)) = step(line) {
                let detail = step.to_owned();
                let (stage, fraction) = (Stage::Building, Some(fraction));
                progress.send(Progress { stage, detail, fraction, ..Progress::default() });
            }
        })
        .await?;
        let layout = folder.join(LAYOUT);
        let target = format!("oci:{}:latest", layout.display());
        // Compressing would cost more than it saves: the image is read once, on this machine.
        let tool = self.buildah(turn, PUSH_TIMEOUT)?.args(["push", "--disable-compression"]);
        run(tool.args([key, &target]), |_| {}).await?;
        progress.stage(Stage::Done, "image");
        Ok(layout)
    }

    /// Removes what was built. That it is gone already is no error.
    pub async fn discard(&self, _turn: &Turn) -> Result<(), ImageBuildError> {
        let folder = self.unfinished();
        let gone = folder.clone();
        match spawn_blocking(move || fs::remove_dir_all(&gone)).await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what killed builds left in buildah's storage, and all of it when it is too large.
    async fn make_room(&self, turn: &Turn) -> Result<(), ImageBuildError> {
        let storage = self.storage();
        if !storage.exists() {
            return Ok(());
        }
        let tool = self.buildah(turn, PUSH_TIMEOUT)?.args(["rm", "--all"]);
        run(tool, |_| {}).await?;
        let taken = spawn_blocking(move || bytes_below(&storage)).await.unwrap_or(0);
        if taken > STORAGE_BYTES_MAX {
            tracing::info!(bytes = taken, "layers of earlier builds are removed");
            let tool = self.buildah(turn, PUSH_TIMEOUT)?.args(["rmi", "--all", "--force"]);
            run(tool, |_| {}).await?;
        }
        Ok(())
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// In mounts and processes of its own, which end with it, however that happens.
    fn buildah(&self, turn: &Turn, timeout: Duration) -> Result<Tool, ImageBuildError> {
        if !is_on_path(BUILDAH) {
            return Err(ImageBuildError::NoBuildah);
        }
        let tool = Tool::new("unshare", timeout)
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--", BUILDAH])
            .arg("--root")
            .arg(self.storage())
            .arg("--runroot")
            .arg(self.root.join("run"));
        Ok(tool.holding(share(&turn.lock, &self.root)?))
    }
}

fn share(lock: &File, folder: &Path) -> Result<File, ImageBuildError> {
    lock.try_clone().map_err(io_error("share the lock of", folder))
}

async fn run(tool: Tool, on_line: impl FnMut(&str)) -> Result<(), ImageBuildError> {
    match tool.run_watched(on_line).await {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(ImageBuildError::Failed { problem: last_lines(&done.stderr) }),
        Err(error) => Err(error.into()),
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What the files below a folder take on the disk. Files that cannot be looked at count as nothing.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.map(bytes).sum()
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
    let ignored = ignored(&build.context);
    collect(&build.context, &build.context, &ignored, &mut paths)?;
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

/// What the context's own list excludes from it, as far as it names files and folders plainly: a list with patterns
/// or exceptions may mean more, so that more counts than is built from, and never less.
fn ignored(context: &Path) -> BTreeSet<PathBuf> {
    let list = fs::read_to_string(context.join(".dockerignore")).unwrap_or_default();
    let lines = || list.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines().any(|line| line.starts_with('!')) {
        return BTreeSet::new();
    }
    let plain =
        lines().filter(|line| !line.starts_with('#') && !line.contains(['*', '?', '[', '\\']));
    let paths = plain.map(|line| PathBuf::from(line.trim_matches('/')));
    // The list is read by buildah.
    paths.filter(|path| path != Path::new(".dockerignore")).collect()
}

/// Everything below `folder`, relative to `root`.
fn collect(
    root: &Path,
    folder: &Path,
    ignored: &BTreeSet<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> Result<(), ImageBuildError> {
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let path = entry.map_err(io_error("read", folder))?.path();
        if found.len() == CONTEXT_ENTRIES_MAX {
            return Err(ImageBuildError::ContextTooLarge { folder: root.to_owned() });
        }
        let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
        if ignored.contains(&relative) {
            continue;
        }
        found.push(relative);
        if path.is_dir() && !path.is_symlink() {
            collect(root, &path, ignored, found)?;
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
    fn what_is_plainly_excluded_makes_no_other_build() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".dockerignore", "# notes\n/.git\nnode_modules/\nlogs/*.txt\n");
        let first = key(&build(folder.path())).unwrap();
        write(".git/index", "one");
        write("node_modules/a/b", "one");
        assert_eq!(key(&build(folder.path())).unwrap(), first);
        write("src/.git", "not at the root");
        let second = key(&build(folder.path())).unwrap();
        assert_ne!(second, first);
        write("logs/a.txt", "a pattern");
        assert_ne!(key(&build(folder.path())).unwrap(), second);
        let before = key(&build(folder.path())).unwrap();
        write(".dockerignore", ".git\n!.git/index\n");
        write(".git/index", "two");
        let after = key(&build(folder.path())).unwrap();
        write(".git/index", "three");
        assert_ne!(key(&build(folder.path())).unwrap(), after);
        assert_ne!(after, before);
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
