//! Containers by bare runtimes: a folder with a root and a description of what to run in it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::contained::{GROUP, without_hybrid_groups};
use super::images;
use super::peer::Peer;
use crate::command::Program;
use crate::stopwatch::{self, Stopwatch};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks: short beside what is measured.
const PAUSE: Duration = Duration::from_micros(50);

/// Where a container's program listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Host,
    Own,
}

/// A bare runtime: crun or runc.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) name: &'static str,
    peer: Peer,
    /// Where it keeps what runs.
    state: PathBuf,
}

impl Runtime {
    pub(super) fn find(name: &'static str, inside: &str, home: &Path) -> Result<Self> {
        let peer = Peer::find(name, name, inside)?;
        Ok(Self { name, peer, state: home.join(name) })
    }

    fn program(&self) -> Program {
        self.peer.program().arg("--root").arg(&self.state)
    }

    pub(super) fn version(&self) -> (String, String) {
        images::version(self.name, self.peer.program())
    }

    /// Milliseconds until the program in the folder `root` takes connections. Nothing of it is left then.
    pub(super) fn start(
        &self,
        (bundle, root): (&Path, &Path),
        network: Network,
        server: &[String],
        port: u16,
    ) -> Result<f64> {
        fs::create_dir_all(bundle)
            .with_context(|| format!("cannot create {}", bundle.display()))?;
        let name = format!("bench-{port}");
        let config = description(root, network, server, &name).to_string();
        fs::write(bundle.join("config.json"), config).context("cannot write config.json")?;
        let pid_file = bundle.join("pid");
        let _ = fs::remove_file(&pid_file);
        let run = self.program().args(["run", "--bundle"]).arg(bundle);
        let run = run.arg("--pid-file").arg(&pid_file).arg(&name);
        without_hybrid_groups(|| {
            let log = bundle.join("start.log");
            let watch = Stopwatch::start();
            let running = run.spawn(&log)?;
            let accepted = match network {
                Network::Host => until_it_accepts(port, &|| running.check()),
                Network::Own => within(&pid_file, port, &|| running.check()),
            };
            let took = watch.elapsed();
            // As pid 1 the program hears no signal but this one.
            self.program().args(["delete", "--force"]).arg(&name).succeeds();
            drop(running);
            accepted.with_context(|| format!("{} started no server", self.name))?;
            Ok(took.as_secs_f64() * 1e3)
        })
    }
}

/// Waits until a port of loopback takes connections, for as long as `check` finds nothing wrong.
pub(super) fn until_it_accepts(port: u16, check: &dyn Fn() -> Result<()>) -> Result<()> {
    let accepted = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
        check()?;
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
    })?;
    accepted.context("nothing listens")
}

/// The same inside the network of the container whose first process the file names.
fn within(pid_file: &Path, port: u16, check: &dyn Fn() -> Result<()>) -> Result<()> {
    let network = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
        check()?;
        let pid = fs::read_to_string(pid_file).ok().filter(|pid| !pid.is_empty());
        Ok(pid.and_then(|pid| File::open(format!("/proc/{}/ns/net", pid.trim())).ok()))
    })?;
    let network = network.context("no container was made")?;
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("inside".into()).spawn_scoped(scope, || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), kind)
                .context("cannot enter the container's network")?;
            until_it_accepts(port, &|| Ok(()))
        });
        let inside = inside.context("cannot start a thread")?;
        inside.join().map_err(|_| anyhow!("looking into a container has panicked"))?
    })
}

/// As engines write it, less what a start does not need.
fn description(root: &Path, network: Network, server: &[String], name: &str) -> serde_json::Value {
    let mount =
        |target: &str, kind: &str| json!({"destination": target, "type": kind, "source": kind});
    let own: &[&str] = if network == Network::Own { &["network"] } else { &[] };
    let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount"]
        .iter()
        .chain(own)
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": server,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true
        },
        "root": {"path": root, "readonly": true},
        "hostname": "bench",
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/tmp", "tmpfs")],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{GROUP}/{name}")}
    })
}
