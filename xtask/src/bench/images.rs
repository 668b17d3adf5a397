//! A registry of a bench's own with an image made of this machine's files, and the programs that pull from it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::peer::Peer;
use crate::command::{Program, Running};
use crate::repository;
use crate::stopwatch;

/// What the image holds: about as much as an image with a machine-learning library.
const FILES: &str = "/usr/lib";
pub(super) const IMAGE: &str = "bench:1";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
/// Pulls take any image: the peers' own rule where none is configured is to take none.
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// A registry on loopback that ends with this value.
#[derive(Debug)]
pub(super) struct Registry {
    running: Running,
    port: u16,
    /// A file with [`POLICY`].
    pub(super) policy: PathBuf,
    skopeo: Peer,
}

impl Registry {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let registry = Peer::find("docker-registry", "docker-registry", "usr/bin/docker-registry")?;
        let skopeo = Peer::find("skopeo", "skopeo", "usr/bin/skopeo")?;
        let port = free_port()?;
        let (config, policy) = (folder.join("registry.yml"), folder.join("policy.json"));
        let data = folder.join("registry");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        fs::write(&policy, POLICY).with_context(|| format!("cannot write {}", policy.display()))?;
        let log = folder.join("registry.log");
        let running = registry.program().arg("serve").arg(&config).spawn(&log)?;
        let up = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
            running.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.with_context(|| format!("the registry does not serve; see {}", log.display()))?;
        Ok(Self { running, port, policy, skopeo })
    }

    /// The image as its registry names it.
    pub(super) fn image(&self) -> String {
        format!("127.0.0.1:{}/{IMAGE}", self.port)
    }

    /// Puts the image there. Making it takes a minute, so it is kept between runs.
    pub(super) fn push(&self) -> Result<()> {
        self.copy(&image()?, &self.image())
    }

    /// Puts an image of the folder `root` there, and gives its name. `scratch` is for what is made on the way.
    pub(super) fn push_folder(&self, scratch: &Path, root: &Path, name: &str) -> Result<String> {
        let layout = scratch.join("layout");
        layout_of(&layout, root, "/")?;
        let pushed = format!("127.0.0.1:{}/{name}", self.port);
        self.copy(&layout, &pushed)?;
        Ok(pushed)
    }

    fn copy(&self, layout: &Path, to: &str) -> Result<()> {
        self.running.check()?;
        let program = self.skopeo.program().arg("--policy").arg(&self.policy);
        let program = program.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        let program = program.arg(format!("oci:{}:1", layout.display()));
        program.arg(format!("docker://{to}")).stdout_to_stderr().run()
    }

    pub(super) fn skopeo(&self) -> &Peer {
        &self.skopeo
    }
}

/// An OCI layout with one image of one layer, compressed with gzip as images in registries are.
fn image() -> Result<PathBuf> {
    let place = repository::target().join("bench-image");
    let (layout, done) = (place.join("layout"), place.join("complete"));
    if done.is_file() {
        return Ok(layout);
    }
    eprintln!("making an image of {FILES}: about a minute, once");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    layout_of(&layout, Path::new(FILES), FILES)?;
    fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    Ok(layout)
}

/// An OCI layout of one image, tagged `1`, that has the files of `from` at `to`.
fn layout_of(layout: &Path, from: &Path, to: &str) -> Result<()> {
    let umoci = Peer::find("umoci", "umoci", "usr/bin/umoci")?;
    let tagged = format!("{}:1", layout.display());
    umoci.program().args(["init", "--layout"]).arg(layout).capture()?;
    umoci.program().args(["new", "--image"]).arg(&tagged).capture()?;
    umoci.program().args(["insert", "--image"]).arg(&tagged).arg(from).arg(to).capture()?;
    Ok(())
}

/// The bytes of the image's layers as they are stored.
pub(super) fn stored_bytes() -> Result<u64> {
    let blobs = image()?.join("blobs/sha256");
    let listed =
        fs::read_dir(&blobs).with_context(|| format!("cannot list {}", blobs.display()))?;
    let sizes = listed.map(|blob| Ok(blob?.metadata()?.len()));
    let sizes: std::io::Result<Vec<u64>> = sizes.collect();
    let sizes = sizes.with_context(|| format!("cannot look into {}", blobs.display()))?;
    Ok(sizes.into_iter().sum())
}

fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

/// Containers and images need root on every machine that has no user namespaces set up for them.
pub(super) fn must_be_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("this bench mounts file systems: run it as root");
    }
    Ok(())
}

/// Gives this process mounts of its own: what it changes of them nobody else sees.
pub(super) fn leave_mount_namespace() -> Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::UnshareFlags;
    #[expect(unsafe_code, reason = "leaving a namespace has no safe interface")]
    // SAFETY: only the table of mounts is left behind, no table of descriptors.
    let left = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
    left.context("cannot leave the machine's mounts")?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).context("cannot make mounts private")
}

/// A version as the program itself tells it.
pub(super) fn version(name: &str, program: Program) -> (String, String) {
    let said = program.arg("--version").capture().unwrap_or_default();
    (name.to_owned(), said.lines().next().unwrap_or("unknown").to_owned())
}
