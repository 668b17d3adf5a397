//! Whole images from a registry on loopback, pulled and unpacked, beside the programs that do the same, with
//! and without a network link of 1 Gbit/s and 20 ms between.
//!
//! Each round pulls into empty stores, one program after the other. Ours is a node that was just started with
//! an empty data directory, asked over its API: from the request until the image could be mounted. The peers
//! are done when their command ends. The last rows are of what people wait for: the first answer of an image
//! of which a start needs a part, ours from the start of `glowplug run`, theirs from the start of the pull. In
//! them ours is the image as `glowplug image convert` writes it, and theirs the same files with gzip.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::contained::{remove_folder, remove_groups};
use super::engines::{self, Engine, or_skipped};
use super::first_answer;
use super::images::{self, Image, Registry};
use super::link::Link;
use super::peer::Peer;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::node::Node;
use crate::stopwatch::Stopwatch;

pub(super) const NAME: &str = "pull";
/// How many times faster than podman a whole pull is to be, and a lazy start's first answer than that of all.
const GOAL_PULL: f64 = 3.0;
const GOAL_ANSWER: f64 = 5.0;
/// Files of the images: these become 600 MB with gzip. A quick bench makes do with a fifth.
const UNPACKED_BYTES: u64 = 1_600_000_000;
const UNPACKED_BYTES_QUICK: u64 = 320_000_000;
const LAZY_UNPACKED_BYTES: u64 = 1_000_000_000;
const LAYERS: usize = 6;
/// The lazy rows are of large images, so a quick bench does them once.
const LAZY_ROUNDS_QUICK: usize = 1;

/// What is pulled, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    case: &'static str,
    what: What,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    OneLayer,
    SeveralLayers,
    FirstAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Loopback,
    Link,
}

const ROWS: [Row; 6] = [
    Row { case: "one layer", what: What::OneLayer, way: Way::Loopback },
    Row { case: "six layers", what: What::SeveralLayers, way: Way::Loopback },
    Row { case: "one layer, 1 Gbit/s and 20 ms", what: What::OneLayer, way: Way::Link },
    Row { case: "six layers, 1 Gbit/s and 20 ms", what: What::SeveralLayers, way: Way::Link },
    Row {
        case: "first answer of 1 GB, ours converted, theirs gzip",
        what: What::FirstAnswer,
        way: Way::Loopback,
    },
    Row {
        case: "first answer of 1 GB, ours converted, theirs gzip, 1 Gbit/s and 20 ms",
        what: What::FirstAnswer,
        way: Way::Link,
    },
];

/// Seconds of each round, by who pulled; ours first.
type Times = Vec<(String, Vec<f64>)>;

struct Scene<'a> {
    glowplug: &'a Path,
    folder: &'a Path,
    engines: Vec<Box<dyn Engine>>,
    umoci: Option<Umoci<'a>>,
    registry: Registry,
    link: Link,
}

/// skopeo and umoci, one after the other.
struct Umoci<'a> {
    folder: &'a Path,
    policy: &'a Path,
    copier: Peer,
    unpacker: Peer,
}

pub(super) fn measure(
    program: &Path,
    rounds: usize,
    quick: bool,
    only: Option<&str>,
) -> Result<Measured> {
    let rows: Vec<Row> =
        ROWS.into_iter().filter(|row| only.is_none_or(|word| row.case.contains(word))).collect();
    if rows.is_empty() {
        bail!("no row has `{}` in its name", only.unwrap_or_default());
    }
    let seen = Link::measure()?;
    eprintln!(
        "the link has a round trip of {:.1} ms and {:.0} Mbit/s",
        seen.round_trip_millis, seen.megabits_per_second
    );
    let folder = fresh_folder(NAME)?;
    let measured = in_folder(program, &folder, &rows, (rounds, quick));
    let removed = remove_folder(&folder);
    remove_groups();
    // What went wrong first is what is to be told.
    let mut measured = measured?;
    removed?;
    let link = [
        ("round trip of the link ms", seen.round_trip_millis),
        ("rate of the link Mbit/s", seen.megabits_per_second),
    ];
    measured.rounds.extend(link.map(|(what, value)| (what.to_owned(), vec![value])));
    Ok(measured)
}

fn in_folder(
    program: &Path,
    folder: &Path,
    rows: &[Row],
    (rounds, quick): (usize, bool),
) -> Result<Measured> {
    let registry = Registry::start(folder)?;
    let policy = registry.policy.clone();
    let scene = Scene {
        glowplug: program,
        folder,
        engines: engines::found(folder, &policy),
        umoci: or_skipped("skopeo and umoci", Umoci::find(folder, &policy)),
        link: Link::to(registry.port)?,
        registry,
    };
    let mut measured = Measured { cases: Vec::new(), rounds: Vec::new(), versions: Vec::new() };
    let mut made: Vec<(What, Image)> = Vec::new();
    for row in rows {
        if !made.iter().any(|(what, _)| *what == row.what) {
            let image = scene.push(row.what, quick)?;
            #[expect(clippy::cast_precision_loss, reason = "sizes for people")]
            let megabytes = [image.sizes.stored, image.sizes.unpacked, image.sizes.touched]
                .map(|bytes| bytes as f64 / 1e6);
            eprintln!(
                "{}: {:.0} MB as it is stored, {:.0} MB unpacked, of which a start reads {:.0} MB",
                image.name, megabytes[0], megabytes[1], megabytes[2]
            );
            let what = format!("{}: MB stored, unpacked, read by a start", image.name);
            measured.rounds.push((what, megabytes.to_vec()));
            made.push((row.what, image));
        }
        let Some((_, image)) = made.iter().find(|(what, _)| *what == row.what) else { continue };
        let lazy = row.what == What::FirstAnswer;
        // The peers have no use for a converted image, so they get it as it is commonly stored.
        let converted = lazy.then(|| scene.convert(image)).transpose()?;
        let images = (converted.as_ref().unwrap_or(image), image);
        let rounds = if lazy && quick { LAZY_ROUNDS_QUICK } else { rounds };
        let times = scene.row(row, images, rounds)?;
        measured.cases.extend(cases(row, &times));
        let named = times.into_iter().map(|(who, all)| (format!("{}: {who} s", row.case), all));
        measured.rounds.extend(named);
    }
    measured.versions = scene.engines.iter().map(|engine| engine.version()).collect();
    measured.versions.extend(scene.umoci.iter().flat_map(Umoci::versions));
    Ok(measured)
}

/// Ours beside each of the others.
fn cases(row: &Row, times: &Times) -> Vec<Case> {
    let Some(((_, ours), peers)) = times.split_first() else { return Vec::new() };
    let case = |(name, seconds): &(String, Vec<f64>)| {
        let goal = match row.what {
            What::FirstAnswer => Some(GOAL_ANSWER),
            _ => name.starts_with("podman").then_some(GOAL_PULL),
        };
        let peer = (&**name, median(seconds));
        Case::new((NAME, row.case), median(ours), peer, "s", Better::Lower, goal)
    };
    peers.iter().filter(|(_, seconds)| !seconds.is_empty()).map(case).collect()
}

impl Scene<'_> {
    fn push(&self, what: What, quick: bool) -> Result<Image> {
        let bytes = if quick { UNPACKED_BYTES_QUICK } else { UNPACKED_BYTES };
        let image = match what {
            What::OneLayer => Image::made("one-layer", bytes, 1)?,
            What::SeveralLayers => Image::made("six-layers", bytes, LAYERS)?,
            What::FirstAnswer => Image::made("large", LAZY_UNPACKED_BYTES, 1)?,
        };
        self.registry.push(&image)?;
        Ok(image)
    }

    /// What is worth having first is known from a start that pulled all of it.
    fn convert(&self, image: &Image) -> Result<Image> {
        let home = self.folder.join("pull");
        first_answer::record(self.glowplug, &home, &image.at(self.registry.port))?;
        let converted = self.registry.push_converted(image, (self.glowplug, &home.join("data")));
        let removed = remove_folder(&home);
        let converted = converted?;
        removed.map(|()| converted)
    }

    /// Of the two images we pull the first one, and the others the second.
    fn row(&self, row: &Row, (ours, theirs): (&Image, &Image), rounds: usize) -> Result<Times> {
        let port = match row.way {
            Way::Loopback => self.registry.port,
            Way::Link => self.link.port,
        };
        let (ours, theirs) = (ours.at(port), theirs.at(port));
        let answer = row.what == What::FirstAnswer;
        let engines = self.engines.iter().map(|engine| {
            format!("{} pull{}", engine.name(), if answer { " and run" } else { "" })
        });
        let umoci = self.umoci.iter().filter(|_| !answer);
        let names = ["glowplug".to_owned()].into_iter().chain(engines);
        let names = names.chain(umoci.map(|_| "skopeo and umoci".to_owned()));
        let mut times: Times = names.map(|name| (name, Vec::new())).collect();
        for number in 0..rounds {
            // Who is first changes, so that none always finds the quieter disk.
            for turn in 0..times.len() {
                let who = (turn + number) % times.len();
                let image = if who == 0 { &ours } else { &theirs };
                let took = self.pull(who, image, answer).with_context(|| times[who].0.clone())?;
                eprintln!(
                    "round {} of {rounds}: {}: {} {took:.2} s",
                    number + 1,
                    row.case,
                    times[who].0
                );
                times[who].1.push(took);
            }
        }
        Ok(times)
    }

    /// Seconds of a pull, or until the first answer, in a store that is empty before and after.
    fn pull(&self, who: usize, image: &str, answer: bool) -> Result<f64> {
        let home = self.folder.join("pull");
        let took = match who.checked_sub(1) {
            None if answer => first_answer::ours(self.glowplug, &home, image),
            None => ours(self.glowplug, &home, image),
            Some(place) => match (self.engines.get(place), &self.umoci) {
                (Some(engine), _) if answer => first_answer::of(&**engine, self.folder, image),
                (Some(engine), _) => timed(|| engine.pull(image)),
                (None, Some(umoci)) => timed(|| umoci.pull(image)),
                (None, None) => bail!("there is nobody left to pull"),
            },
        }?;
        match who.checked_sub(1).and_then(|place| self.engines.get(place)) {
            Some(engine) => engine.empty()?,
            None => remove_folder(&home)?,
        }
        rustix::fs::sync();
        Ok(took)
    }
}

fn ours(program: &Path, home: &Path, image: &str) -> Result<f64> {
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    let node = Node::start(program, home, "[node]\nlog_level = \"warn\"\n")?;
    let mut answer = String::new();
    let took = timed(|| {
        answer = node.post("/api/v1/images", &json!({"image": image}).to_string())?;
        Ok(())
    })?;
    let events: Result<Vec<Value>, _> = answer.lines().map(serde_json::from_str).collect();
    let events = events.context("cannot read the answer to a pull")?;
    if !events.iter().any(|event| event["image"].is_object()) {
        bail!("the node did not pull: {}", events.last().unwrap_or(&Value::Null));
    }
    Ok(took)
}

impl<'a> Umoci<'a> {
    fn find(folder: &'a Path, policy: &'a Path) -> Result<Self> {
        let copier = Peer::find("skopeo", "skopeo", "usr/bin/skopeo")?;
        let unpacker = Peer::find("umoci", "umoci", "usr/bin/umoci")?;
        Ok(Self { folder, policy, copier, unpacker })
    }

    fn pull(&self, image: &str) -> Result<()> {
        let home = self.folder.join("pull");
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let tagged = format!("{}:1", home.join("layout").display());
        let copy = self.copier.program().arg("--policy").arg(self.policy);
        let copy = copy.args(["copy", "--quiet", "--src-tls-verify=false"]);
        let copy = copy.arg(format!("docker://{image}")).arg(format!("oci:{tagged}"));
        copy.capture()?;
        let unpack = self.unpacker.program().args(["unpack", "--image"]).arg(tagged);
        unpack.arg(home.join("bundle")).capture().map(drop)
    }

    fn versions(&self) -> [(String, String); 2] {
        let version = |name, peer: &Peer| images::version(name, peer.program());
        [version("skopeo", &self.copier), version("umoci", &self.unpacker)]
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let watch = Stopwatch::start();
    work()?;
    Ok(watch.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_beside_all_that_have_pulled() {
        let times = |peers: &[(&str, f64)]| -> Times {
            let all = [("glowplug", 2.0)].into_iter().chain(peers.iter().copied());
            all.map(|(name, seconds)| (name.to_owned(), vec![seconds])).collect()
        };
        let check = |row: usize, peers: &[(&str, f64)], expected: &[(f64, Option<bool>)]| {
            let cases = cases(&ROWS[row], &times(peers));
            let seen: Vec<_> = cases.iter().map(|case| (case.ratio, case.met)).collect();
            assert_eq!(seen, expected);
        };
        check(0, &[], &[]);
        check(0, &[("podman pull", 8.0), ("docker pull", 4.0)], &[(4.0, Some(true)), (2.0, None)]);
        check(
            4,
            &[("podman pull and run", 8.0), ("docker pull and run", 12.0)],
            &[(4.0, Some(false)), (6.0, Some(true))],
        );
    }
}
