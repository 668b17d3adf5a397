//! A whole image from a registry on loopback, pulled and unpacked, beside the programs that do the same.
//!
//! Each round pulls into empty stores, one program after the other. Ours is a node that was just started with
//! an empty data directory, asked over its API: from the request until the image could be mounted. The peers
//! are done when their command ends.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::images::{self, Registry};
use super::peer::Peer;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::Program;
use crate::node::Node;
use crate::stopwatch::Stopwatch;

pub(super) const NAME: &str = "pull";
/// How many times faster than the peer a whole pull is to be.
const GOAL: f64 = 3.0;

/// Seconds of one round.
#[derive(Debug)]
struct Round {
    ours: f64,
    podman: f64,
    umoci: f64,
}

struct Scene<'a> {
    glowplug: &'a Path,
    folder: &'a Path,
    registry: Registry,
    podman: Peer,
    umoci: Peer,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    images::must_be_root()?;
    let folder = fresh_folder(NAME)?;
    let scene = Scene {
        glowplug: program,
        folder: &folder,
        registry: Registry::start(&folder)?,
        podman: Peer::find("podman", "podman", "usr/bin/podman")?,
        umoci: Peer::find("umoci", "umoci", "usr/bin/umoci")?,
    };
    scene.registry.push()?;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let megabytes = images::stored_bytes()? as f64 / 1e6;
    eprintln!("the image has {megabytes:.0} MB as it is stored");
    let mut done = Vec::with_capacity(rounds);
    for number in 1..=rounds {
        let round = scene.round()?;
        eprintln!(
            "round {number}: glowplug {:.2} s, podman {:.2} s, skopeo and umoci {:.2} s",
            round.ours, round.podman, round.umoci
        );
        done.push(round);
    }
    let column = |of: fn(&Round) -> f64| done.iter().map(of).collect::<Vec<f64>>();
    let (ours, podman, umoci) =
        (column(|round| round.ours), column(|round| round.podman), column(|round| round.umoci));
    let case = |case, peer: &str, seconds: &[f64]| {
        Case::new((NAME, case), median(&ours), (peer, median(seconds)), "s", Better::Lower, GOAL)
    };
    let cases = vec![
        case("whole pull beside podman", "podman pull", &podman),
        case("whole pull beside umoci", "skopeo copy and umoci unpack", &umoci),
    ];
    let versions = vec![
        images::version("podman", scene.podman.program()),
        images::version("umoci", scene.umoci.program()),
        images::version("skopeo", scene.registry.skopeo().program()),
    ];
    let rounds = vec![
        ("image MB".to_owned(), vec![megabytes]),
        ("glowplug s".to_owned(), ours),
        ("podman s".to_owned(), podman),
        ("skopeo and umoci s".to_owned(), umoci),
    ];
    Ok(Measured { cases, rounds, versions })
}

impl Scene<'_> {
    fn round(&self) -> Result<Round> {
        Ok(Round { ours: self.ours()?, podman: self.podman()?, umoci: self.umoci()? })
    }

    fn ours(&self) -> Result<f64> {
        self.in_empty("glowplug", |folder| {
            let node = Node::start(self.glowplug, folder, "")?;
            let watch = Stopwatch::start();
            let answer =
                node.post("/api/v1/images", &json!({"image": self.registry.image()}).to_string())?;
            let took = watch.elapsed().as_secs_f64();
            let events = answer.lines().map(serde_json::from_str::<Value>);
            let events = events
                .collect::<Result<Vec<_>, _>>()
                .context("cannot read the answer to a pull")?;
            if !events.iter().any(|event| event["image"].is_object()) {
                bail!("the node did not pull: {}", events.last().unwrap_or(&Value::Null));
            }
            Ok(took)
        })
    }

    fn podman(&self) -> Result<f64> {
        self.in_empty("podman", |folder| {
            let program = self.podman.program();
            let program = program.arg("--root").arg(folder.join("root"));
            let program = program.arg("--runroot").arg(folder.join("run"));
            let program =
                program.args(["--cgroup-manager=cgroupfs", "--events-backend=file", "pull"]);
            let program = program.args(["--quiet", "--tls-verify=false", "--signature-policy"]);
            timed(program.arg(&self.registry.policy).arg(self.registry.image()))
        })
    }

    fn umoci(&self) -> Result<f64> {
        self.in_empty("umoci", |folder| {
            let layout = folder.join("layout");
            let copy = self.registry.skopeo().program().arg("--policy").arg(&self.registry.policy);
            let copy = copy.args(["copy", "--quiet", "--src-tls-verify=false"]);
            let copy = copy.arg(format!("docker://{}", self.registry.image()));
            let copied = timed(copy.arg(format!("oci:{}:1", layout.display())))?;
            let unpack = self.umoci.program().args(["unpack", "--image"]);
            let unpack = unpack.arg(format!("{}:1", layout.display())).arg(folder.join("bundle"));
            Ok(copied + timed(unpack)?)
        })
    }

    /// In a folder that is empty at first and gone afterwards, so that nobody's writes wait for another's.
    fn in_empty(&self, name: &str, work: impl FnOnce(&Path) -> Result<f64>) -> Result<f64> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let took = work(&folder)?;
        unmount_below(&folder)?;
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        rustix::fs::sync();
        Ok(took)
    }
}

fn timed(program: Program) -> Result<f64> {
    let watch = Stopwatch::start();
    program.capture()?;
    Ok(watch.elapsed().as_secs_f64())
}

/// Some programs leave a mount behind.
fn unmount_below(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let below: Vec<&Path> = places.filter(|place| place.starts_with(folder)).collect();
    for place in below.into_iter().rev() {
        Program::new("umount").arg(place).run()?;
    }
    Ok(())
}
