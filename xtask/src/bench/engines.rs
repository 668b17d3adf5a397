//! The container engines that benches measure beside us, each with stores, sockets and daemons of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::contained::{GROUP, IN_MEMORY, remove_folder};
use super::images;
use super::peer::Peer;
use crate::command::{Program, Running, on_path};
use crate::stopwatch;

const DAEMON_TIMEOUT: Duration = Duration::from_mins(1);
const DAEMON_PAUSE: Duration = Duration::from_millis(100);

/// Pulls images and runs containers. What it leaves is gone with [`Engine::empty`] and its own end.
pub(super) trait Engine {
    fn name(&self) -> &'static str;

    fn pull(&self, image: &str) -> Result<()>;

    /// What runs a container on the host's network until [`Engine::end`], with the variable `PORT`.
    fn run(&self, image: &str, container: &str, port: u16, command: &[String]) -> Program;

    /// Ends a container, whatever it is doing, and removes it.
    fn end(&self, container: &str);

    /// Forgets every image.
    fn empty(&self) -> Result<()>;

    fn version(&self) -> (String, String);
}

/// Those that are here or can be fetched; why the others are not is told.
pub(super) fn found(home: &Path, policy: &Path) -> Vec<Box<dyn Engine>> {
    let podman = Podman::find(home, policy);
    let podman = or_skipped("podman", podman).map(|engine| Box::new(engine) as Box<dyn Engine>);
    let docker = Docker::start(home);
    let docker = or_skipped("docker", docker).map(|engine| Box::new(engine) as Box<dyn Engine>);
    podman.into_iter().chain(docker).collect()
}

/// A peer that is missing costs the others nothing.
pub(super) fn or_skipped<T>(name: &str, found: Result<T>) -> Option<T> {
    found.inspect_err(|error| eprintln!("{name} is skipped: {error:#}")).ok()
}

#[derive(Debug)]
struct Podman {
    peer: Peer,
    runc: Peer,
    home: PathBuf,
    policy: PathBuf,
}

impl Podman {
    fn find(home: &Path, policy: &Path) -> Result<Self> {
        let found = Self {
            peer: Peer::find("podman", "podman", "usr/bin/podman")?,
            runc: Peer::find("runc", "runc", "usr/sbin/runc")?,
            home: home.join("podman"),
            policy: policy.to_owned(),
        };
        // Programs that were unpacked rather than installed may lack what they are told of in `/etc`.
        found.program().args(["info", "--format", "{{.Store.GraphDriverName}}"]).capture()?;
        Ok(found)
    }

    fn runs() -> PathBuf {
        Path::new(IN_MEMORY).join("podman")
    }

    fn program(&self) -> Program {
        let program = self.peer.program().arg("--root").arg(self.home.join("root"));
        let program = program.arg("--runroot").arg(Self::runs());
        let program = program.args(["--cgroup-manager=cgroupfs", "--events-backend=file"]);
        program.arg("--runtime").arg(&self.runc.path)
    }
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn pull(&self, image: &str) -> Result<()> {
        let pull = self.program().args(["pull", "--quiet", "--tls-verify=false"]);
        let pull = pull.arg("--signature-policy").arg(&self.policy).arg(image);
        pull.capture().map(drop)
    }

    fn run(&self, image: &str, container: &str, port: u16, command: &[String]) -> Program {
        let run = self.program().args(["run", "--rm", "--pull=never", "--network=host"]);
        // Its defaults are above what this user may raise limits to on some machines.
        let run = run.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        let run = run.arg(format!("--cgroup-parent=/{GROUP}")).args(["--name", container]);
        run.arg("--env").arg(format!("PORT={port}")).arg(image).args(command)
    }

    fn end(&self, container: &str) {
        self.program().args(["rm", "--force", "--time", "0", container]).succeeds();
    }

    fn empty(&self) -> Result<()> {
        remove_folder(&Self::runs())?;
        remove_folder(&self.home)
    }

    fn version(&self) -> (String, String) {
        images::version("podman", self.peer.program())
    }
}

/// A daemon of the bench's own, with the containerd that it starts.
#[derive(Debug)]
struct Docker {
    daemon: Running,
    client: Peer,
    socket: PathBuf,
}

impl Docker {
    fn start(home: &Path) -> Result<Self> {
        let server = Peer::find("dockerd", "docker.io", "usr/sbin/dockerd")?;
        // A client beside the server is of its version; any other one is as good as none.
        let beside = server.path.parent().and_then(Path::parent).map(|usr| usr.join("bin/docker"));
        let client = match beside.filter(|path| path.is_file()).or_else(|| on_path("docker")) {
            Some(path) => Peer { path, libraries: server.libraries.clone() },
            None => Peer::find("docker", "docker-cli", "usr/bin/docker")?,
        };
        let home = home.join("docker");
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let (log, socket) = (home.join("dockerd.log"), home.join("docker.sock"));
        let program = server.program().env("PATH", path_with_neighbours(&server.path)?);
        let daemon = program
            .arg("--data-root")
            .arg(home.join("data"))
            .arg("--exec-root")
            .arg(home.join("exec"))
            .arg("--pidfile")
            .arg(home.join("dockerd.pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .args(["--iptables=false", "--bridge=none", "--log-level=warn"])
            .spawn(&log)?;
        let docker = Self { daemon, client, socket };
        let up = stopwatch::wait_for(DAEMON_TIMEOUT, DAEMON_PAUSE, || {
            docker.daemon.check()?;
            Ok(docker.program().arg("version").succeeds().then_some(()))
        })?;
        up.with_context(|| format!("dockerd does not serve; see {}", log.display()))?;
        Ok(docker)
    }

    fn program(&self) -> Program {
        self.client.program().arg("--host").arg(format!("unix://{}", self.socket.display()))
    }
}

/// The daemon finds containerd, runc and its shim on PATH.
fn path_with_neighbours(server: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usr = server.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    let own = ["bin", "sbin"].map(|folder| usr.join(folder));
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))
        .context("cannot put dockerd's folder on PATH")
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn pull(&self, image: &str) -> Result<()> {
        self.program().args(["pull", "--quiet", image]).capture().map(drop)
    }

    fn run(&self, image: &str, container: &str, port: u16, command: &[String]) -> Program {
        let run = self.program().args(["run", "--rm", "--network=host", "--name", container]);
        let run = run.arg(format!("--cgroup-parent=/{GROUP}"));
        run.arg("--env").arg(format!("PORT={port}")).arg(image).args(command)
    }

    fn end(&self, container: &str) {
        self.program().args(["rm", "--force", container]).succeeds();
    }

    fn empty(&self) -> Result<()> {
        let listed = self.program().args(["images", "--quiet", "--no-trunc"]).capture()?;
        let mut images: Vec<&str> = listed.lines().collect();
        images.sort_unstable();
        images.dedup();
        if images.is_empty() {
            return Ok(());
        }
        self.program().args(["rmi", "--force"]).args(images).capture().map(drop)
    }

    fn version(&self) -> (String, String) {
        let said = self.program().args(["version", "--format", "{{.Server.Version}}"]).capture();
        ("dockerd".to_owned(), said.unwrap_or_default().trim().to_owned())
    }
}
