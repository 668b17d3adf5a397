//! What a container's start costs beyond its program's own time, the image being there, beside container
//! runtimes.
//!
//! The program is a static web server. Its own time is from its bare start until its port accepts. Each
//! runtime starts it from the same files, with the host's network; podman and ours make a root over the image
//! as well, which the bare runtimes are given. Through a node it is what the node says from PENDING to IDLE,
//! once with a network of the container's own, as by default, and once with the host's.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::images::{self, Registry};
use super::peer::Peer;
use super::start_overhead::free_port;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::Program;
use crate::node::Node;
use crate::stopwatch::{self, Stopwatch};

pub(super) const NAME: &str = "start-container";
const STARTS_PER_ROUND: usize = 10;
const START_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(20);
const PORT_PAUSE: Duration = Duration::from_micros(50);
/// Our overhead may be 1.3 times crun's, and a quarter of podman's.
const GOAL_CRUN: f64 = 1.0 / 1.3;
const GOAL_PODMAN: f64 = 4.0;
/// Apps of the node: with a network of their own, and with the host's.
const APPS: [&str; 2] = ["own", "host"];

/// Who starts the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starter {
    Bare,
    Crun,
    Runc,
    Podman,
    OwnNetwork,
    HostNetwork,
}

const STARTERS: [Starter; 6] = [
    Starter::Bare,
    Starter::Crun,
    Starter::Runc,
    Starter::Podman,
    Starter::OwnNetwork,
    Starter::HostNetwork,
];

struct Scene {
    folder: PathBuf,
    root: PathBuf,
    node: Node,
    registry: Registry,
    image: String,
    crun: Peer,
    runc: Peer,
    podman: Peer,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    images::must_be_root()?;
    leave_hybrid_cgroups()?;
    let scene = Scene::set(program)?;
    // The first start of each kind pulls, and reads programs from the disk.
    for starter in STARTERS {
        scene.start(starter)?;
    }
    let mut seconds = vec![Vec::new(); STARTERS.len()];
    for number in 1..=rounds {
        let mut of_round = vec![Vec::new(); STARTERS.len()];
        for _ in 0..STARTS_PER_ROUND {
            for (starter, times) in STARTERS.into_iter().zip(&mut of_round) {
                times.push(scene.start(starter)?);
            }
        }
        for ((starter, times), all) in STARTERS.iter().zip(of_round).zip(&mut seconds) {
            eprintln!("round {number}: {starter:?} {:.2} ms", median(&times));
            all.push(median(&times));
        }
    }
    let millis = |starter| {
        let place = STARTERS.iter().position(|other| *other == starter).unwrap_or_default();
        seconds[place].clone()
    };
    let overhead = |starter| median(&millis(starter)) - median(&millis(Starter::Bare));
    let case = |case, ours, (name, peer), goal| {
        let peer = (name, overhead(peer));
        Case::new((NAME, case), overhead(ours), peer, "ms", Better::Lower, goal)
    };
    let (crun, runc, podman) =
        (("crun run", Starter::Crun), ("runc run", Starter::Runc), ("podman run", Starter::Podman));
    let cases = vec![
        case("overhead, network of its own", Starter::OwnNetwork, crun, Some(GOAL_CRUN)),
        case("overhead, network of its own", Starter::OwnNetwork, runc, None),
        case("overhead, network of its own", Starter::OwnNetwork, podman, Some(GOAL_PODMAN)),
        case("overhead, host's network", Starter::HostNetwork, crun, Some(GOAL_CRUN)),
    ];
    let rounds =
        STARTERS.iter().map(|starter| (format!("{starter:?} ms"), millis(*starter))).collect();
    let versions = vec![
        images::version("crun", scene.crun.program()),
        images::version("runc", scene.runc.program()),
        images::version("podman", scene.podman.program()),
    ];
    Ok(Measured { cases, rounds, versions })
}

impl Scene {
    fn set(program: &Path) -> Result<Self> {
        let folder = fresh_folder(NAME)?;
        let busybox = Peer::find("busybox", "busybox-static", "bin/busybox")?;
        let root = folder.join("root");
        for name in ["bin", "tmp", "proc", "dev", "sys"] {
            let path = root.join(name);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        fs::copy(&busybox.path, root.join("bin/busybox")).context("cannot copy busybox")?;
        let registry = Registry::start(&folder)?;
        let image = registry.push_folder(&folder, &root, "small:1")?;
        let node = Node::start(program, &folder, &config(&image)?)?;
        let crun = Peer::find("crun", "crun", "usr/bin/crun")?;
        let runc = Peer::find("runc", "runc", "usr/sbin/runc")?;
        let podman = Peer::find("podman", "podman", "usr/bin/podman")?;
        Ok(Self { folder, root, node, registry, image, crun, runc, podman })
    }

    /// Milliseconds until the program takes connections. Afterwards nothing of it is left.
    fn start(&self, starter: Starter) -> Result<f64> {
        let port = free_port()?;
        let server = server(&port.to_string());
        match starter {
            Starter::Bare => {
                let program = Program::new(self.root.join("bin/busybox")).args(&server[1..]);
                self.until_it_accepts(program, port)
            }
            Starter::Crun => {
                let root = self.folder.join("crun");
                self.in_bundle(|| self.crun.program().arg("--root").arg(&root), &server, port)
            }
            Starter::Runc => {
                let root = self.folder.join("runc");
                self.in_bundle(|| self.runc.program().arg("--root").arg(&root), &server, port)
            }
            Starter::Podman => self.with_podman(&server, port),
            Starter::OwnNetwork => self.through_node(APPS[0]),
            Starter::HostNetwork => self.through_node(APPS[1]),
        }
    }

    fn in_bundle(
        &self,
        runtime: impl Fn() -> Program,
        server: &[String],
        port: u16,
    ) -> Result<f64> {
        let bundle = self.folder.join("bundle");
        fs::create_dir_all(&bundle)
            .with_context(|| format!("cannot create {}", bundle.display()))?;
        let config = bundle_config(&self.root, server).to_string();
        fs::write(bundle.join("config.json"), config).context("cannot write config.json")?;
        let name = format!("bench-{port}");
        let run = runtime().args(["run", "--bundle"]).arg(&bundle).arg(&name);
        let took = self.until_it_accepts(run, port);
        // A container outlives the command that runs it.
        runtime().args(["delete", "--force"]).arg(&name).succeeds();
        took
    }

    fn with_podman(&self, server: &[String], port: u16) -> Result<f64> {
        let podman = || {
            let program = self.podman.program().arg("--root").arg(self.folder.join("podman"));
            let program = program.arg("--runroot").arg(self.folder.join("podman-run"));
            program
                .args(["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime"])
                .arg(&self.runc.path)
        };
        if !podman().args(["image", "exists"]).arg(&self.image).succeeds() {
            let pull =
                podman().args(["pull", "--quiet", "--tls-verify=false", "--signature-policy"]);
            pull.arg(&self.registry.policy).arg(&self.image).capture()?;
        }
        let name = format!("bench-{port}");
        let run = podman().args(["run", "--rm", "--network=host", "--name", &name]);
        // Its defaults are above what this user may raise limits to on some machines.
        let run = run.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        let took = self.until_it_accepts(run.arg(&self.image).args(server), port);
        podman().args(["rm", "--force", "--time", "0", &name]).succeeds();
        took
    }

    /// Starts the program, and ends it once its port accepts.
    fn until_it_accepts(&self, program: Program, port: u16) -> Result<f64> {
        let log = self.folder.join("start.log");
        let watch = Stopwatch::start();
        let running = program.spawn(&log)?;
        let accepted = stopwatch::wait_for(START_TIMEOUT, PORT_PAUSE, || {
            running.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
        })?;
        let took = watch.elapsed();
        drop(running);
        accepted.with_context(|| format!("nothing listens; see {}", log.display()))?;
        Ok(took.as_secs_f64() * 1e3)
    }

    #[expect(clippy::cast_precision_loss, reason = "some microseconds")]
    fn through_node(&self, app: &str) -> Result<f64> {
        let app = format!("local/{app}");
        // What the server answers does not matter, only that it does.
        let _ = self.node.post(&format!("/run/{app}/"), "{}");
        let mut runners = self.node.runners(&app)?.into_iter();
        let runner = runners.find(|runner| runner.ended_at_micros.is_none());
        let runner = runner.context("the app was answered by no runner")?;
        let ready = runner.ready_at_micros.context("the runner was never ready")?;
        self.node.kill(&runner.id)?;
        self.node.wait_until_cold(&app, END_TIMEOUT)?;
        Ok(ready.saturating_sub(runner.created_at_micros) as f64 / 1e3)
    }
}

/// The web server's program and arguments, in the image.
fn server(port: &str) -> Vec<String> {
    ["/bin/busybox", "httpd", "-f", "-p", port, "-h", "/tmp"].map(str::to_owned).to_vec()
}

fn config(image: &str) -> Result<String> {
    let command = serde_json::to_string(&server("$PORT")).context("cannot write a command")?;
    let app = |name: &str| {
        format!(
            "[apps.{name}]\nimage = \"{image}\"\ncommand = {command}\nnetwork = \"{name}\"\nkeep_alive = 600\n"
        )
    };
    let apps: Vec<String> = APPS.iter().map(|name| app(name)).collect();
    Ok(format!(
        "[node]\nlog_level = \"warn\"\n\n{}",
        apps.join("\n").replace("network = \"own\"\n", "")
    ))
}

/// As engines write it, less what a start does not need: no limits, the host's network.
fn bundle_config(root: &Path, server: &[String]) -> serde_json::Value {
    let mount =
        |target: &str, kind: &str| json!({"destination": target, "type": kind, "source": kind});
    let namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
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
        "linux": {"namespaces": namespaces}
    })
}

/// crun refuses to work where both versions of control groups are mounted. This process and all that it
/// starts do without the second one then.
fn leave_hybrid_cgroups() -> Result<()> {
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(UNIFIED)) {
        return Ok(());
    }
    images::leave_mount_namespace()?;
    Program::new("umount").arg(UNIFIED).run()
}
