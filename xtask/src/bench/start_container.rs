//! What a container's start costs beyond its program's own time, the image being there, beside container
//! runtimes and engines.
//!
//! The program is a static web server. Its own time is from its bare start until its port accepts. Bare
//! runtimes start it from the same files in a folder, with a network of its own and with the host's; podman
//! and docker from an image, with the host's network, which is the cheaper one. Through a node it is what the
//! node says from PENDING to IDLE, with both networks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::bundle::{Network, Runtime, until_it_accepts};
use super::contained;
use super::engines::{self, Engine, or_skipped};
use super::images::Registry;
use super::start_overhead::free_port;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::Program;
use crate::node::Node;
use crate::stopwatch::Stopwatch;
use crate::tools;

pub(super) const NAME: &str = "start-container";
/// Starts in each round: of what takes milliseconds, and of engines.
const STARTS_PER_ROUND: usize = 10;
const ENGINE_STARTS_PER_ROUND: usize = 4;
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Our overhead may be 1.3 times crun's, and a quarter of podman's.
const GOAL_CRUN: f64 = 1.0 / 1.3;
const GOAL_PODMAN: f64 = 4.0;
/// Apps of the node: with a network of their own, and with the host's.
const APPS: [&str; 2] = ["own", "host"];
const CASES: [&str; 2] = ["overhead, network of its own", "overhead, host's network"];

/// Who starts the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starter {
    Bare,
    /// By its place in the scene's list.
    Runtime(usize, Network),
    Engine(usize),
    Ours(Network),
}

struct Scene {
    folder: PathBuf,
    root: PathBuf,
    image: String,
    runtimes: Vec<Runtime>,
    engines: Vec<Box<dyn Engine>>,
    /// Ends before the registry that it has pulled from.
    node: Node,
    _registry: Registry,
}

/// Medians of each round, by who started.
type Rounds = Vec<(Starter, Vec<f64>)>;

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let folder = fresh_folder(NAME)?;
    let scene = Scene::set(program, &folder)?;
    let measured = scene.measure(rounds);
    drop(scene);
    contained::remove_folder(&folder)?;
    contained::remove_groups();
    measured
}

impl Scene {
    fn set(program: &Path, folder: &Path) -> Result<Self> {
        let root = folder.join("root");
        for name in ["bin", "tmp", "proc", "dev", "sys"] {
            let path = root.join(name);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        fs::copy(tools::busybox()?, root.join("bin/busybox")).context("cannot copy busybox")?;
        let registry = Registry::start(folder)?;
        let image = registry.push_folder(folder, &root, "small:1")?;
        let runtimes = [("crun", "usr/bin/crun"), ("runc", "usr/sbin/runc")];
        let runtimes = runtimes
            .into_iter()
            .filter_map(|(name, inside)| or_skipped(name, Runtime::find(name, inside, folder)))
            .collect();
        let engines = engines::found(folder, &registry.policy);
        let node = Node::start(program, folder, &config(&image)?)?;
        let folder = folder.to_owned();
        Ok(Self { folder, root, image, runtimes, engines, node, _registry: registry })
    }

    fn measure(&self, rounds: usize) -> Result<Measured> {
        let starters = self.starters()?;
        let mut done: Rounds = starters.into_iter().map(|who| (who, Vec::new())).collect();
        for number in 1..=rounds {
            let mut of_round = vec![Vec::new(); done.len()];
            for start in 0..STARTS_PER_ROUND {
                // Who is first changes, so that none always comes after the same one's clearing up.
                for turn in 0..done.len() {
                    let who = (turn + start) % done.len();
                    let starter = done[who].0;
                    let slow = matches!(starter, Starter::Engine(_));
                    if !slow || start < ENGINE_STARTS_PER_ROUND {
                        of_round[who].push(self.start(starter)?);
                    }
                }
            }
            for ((starter, all), times) in done.iter_mut().zip(of_round) {
                let millis = median(&times);
                eprintln!("round {number} of {rounds}: {} {millis:.2} ms", self.name(*starter));
                all.push(millis);
            }
        }
        let versions = self.runtimes.iter().map(Runtime::version);
        let versions = versions.chain(self.engines.iter().map(|engine| engine.version()));
        Ok(Measured {
            cases: self.cases(&done),
            versions: versions.collect(),
            rounds: done
                .into_iter()
                .map(|(starter, times)| (format!("{} ms", self.name(starter)), times))
                .collect(),
        })
    }

    /// Those that can. The first start of each pulls, and reads programs from the disk; ours must succeed.
    fn starters(&self) -> Result<Vec<Starter>> {
        let networks = [Network::Own, Network::Host];
        let runtimes = (0..self.runtimes.len())
            .flat_map(|place| networks.map(|network| Starter::Runtime(place, network)));
        let mut all = vec![Starter::Bare];
        all.extend(networks.map(Starter::Ours));
        for starter in all.clone() {
            self.start(starter).with_context(|| self.name(starter))?;
        }
        let engines = (0..self.engines.len()).map(Starter::Engine);
        for starter in runtimes.chain(engines) {
            if let Starter::Engine(place) = starter {
                let engine = &self.engines[place];
                if or_skipped(engine.name(), engine.pull(&self.image)).is_none() {
                    continue;
                }
            }
            if or_skipped(&self.name(starter), self.start(starter)).is_some() {
                all.push(starter);
            }
        }
        Ok(all)
    }

    fn name(&self, starter: Starter) -> String {
        let network = |network| match network {
            Network::Own => "with a network of its own",
            Network::Host => "with the host's network",
        };
        match starter {
            Starter::Bare => "bare".to_owned(),
            Starter::Runtime(place, kind) => {
                format!("{} run, {}", self.runtimes[place].name, network(kind))
            }
            Starter::Engine(place) => format!("{} run", self.engines[place].name()),
            Starter::Ours(kind) => format!("glowplug, {}", network(kind)),
        }
    }

    fn cases(&self, done: &Rounds) -> Vec<Case> {
        let millis = |who| done.iter().find(|(starter, _)| *starter == who).map(|(_, all)| all);
        let overhead = |who| Some(median(millis(who)?) - median(millis(Starter::Bare)?));
        let mut cases = Vec::new();
        for (name, network) in CASES.into_iter().zip([Network::Own, Network::Host]) {
            let Some(ours) = overhead(Starter::Ours(network)) else { continue };
            for (peer, _) in done {
                let goal = match *peer {
                    Starter::Runtime(place, kind) if kind == network => {
                        (self.runtimes[place].name == "crun").then_some(GOAL_CRUN)
                    }
                    Starter::Engine(place) => {
                        (self.engines[place].name() == "podman").then_some(GOAL_PODMAN)
                    }
                    _ => continue,
                };
                if let Some(theirs) = overhead(*peer) {
                    let peer = (&*self.name(*peer), theirs);
                    cases.push(Case::new((NAME, name), ours, peer, "ms", Better::Lower, goal));
                }
            }
        }
        cases
    }

    /// Milliseconds until the program takes connections. Afterwards nothing of it is left.
    fn start(&self, starter: Starter) -> Result<f64> {
        let port = free_port()?;
        let server = server(&port.to_string());
        match starter {
            Starter::Bare => {
                let program = Program::new(self.root.join("bin/busybox")).args(&server[1..]);
                self.until_it_accepts(program, port, || {})
            }
            Starter::Runtime(place, network) => {
                let bundle = self.folder.join("bundle");
                self.runtimes[place].start((&bundle, &self.root), network, &server, port)
            }
            Starter::Engine(place) => {
                let (engine, container) = (&self.engines[place], format!("bench-{port}"));
                let program = engine.run(&self.image, &container, port, &server);
                self.until_it_accepts(program, port, || engine.end(&container))
            }
            Starter::Ours(Network::Own) => self.through_node(APPS[0]),
            Starter::Ours(Network::Host) => self.through_node(APPS[1]),
        }
    }

    /// Starts the program, and ends it once its port accepts, after `end`.
    fn until_it_accepts(&self, program: Program, port: u16, end: impl FnOnce()) -> Result<f64> {
        let log = self.folder.join("start.log");
        let watch = Stopwatch::start();
        let running = program.spawn(&log)?;
        let accepted = until_it_accepts(port, &|| running.check());
        let took = watch.elapsed();
        end();
        drop(running);
        accepted.with_context(|| format!("see {}", log.display()))?;
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
        let network = if name == APPS[1] { "network = \"host\"\n" } else { "" };
        format!(
            "[apps.{name}]\nimage = \"{image}\"\ncommand = {command}\n{network}keep_alive = 600\n"
        )
    };
    let apps: Vec<String> = APPS.iter().map(|name| app(name)).collect();
    Ok(format!("[node]\nlog_level = \"warn\"\n\n{}", apps.join("\n")))
}
