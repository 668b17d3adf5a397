//! What each rung of warmth saves: from the request to its answer, where no runner was awake.
//!
//! Each app is there once for each way of waking it, and the ways are taken in turns. A start counts only if it
//! came from the rung that it is to measure, as the node itself says, and only if its answer is the plain start's.
//! "page cache dropped" is before the request, and means the environment's files and the snapshot's alike.
//! The import part is what the node says from the program's start to the beginning of its `setup()`.

mod apps;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use self::apps::Subject;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::node::Node;
use crate::stopwatch::{self, Stopwatch};
use crate::tools;

pub(super) const NAME: &str = "warmth";
/// Of each way in a round: five rounds make ten starts.
const STARTS_PER_ROUND: usize = 2;
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Until an app stands on its rung: its zygote or snapshot is made beside its first starts.
const RUNG_TIMEOUT: Duration = Duration::from_mins(2);
const RUNG_PAUSE: Duration = Duration::from_millis(500);
const LEARN_PAUSE: Duration = Duration::from_secs(5);
const IMPORT_GOAL: f64 = 10.0;
const LONG_SETUP_GOAL: f64 = 5.0;
const TORCH_GOAL: f64 = 4.0;
const THAW_BUDGET_MILLIS: f64 = 2.0;
/// From here on a start counts as one with a long setup.
const LONG_MILLIS: f64 = 3000.0;

/// Of each subject's apps, by suffix.
const SETTINGS: [(&str, &str); 4] = [
    ("plain", "zygote = \"off\"\nsnapshot = \"off\"\nkeep_alive = 600"),
    ("zygote", "snapshot = \"off\"\nkeep_alive = 600"),
    ("snapshot", "zygote = \"off\"\nsnapshot = \"required\"\nkeep_alive = 600"),
    ("frozen", "zygote = \"off\"\nsnapshot = \"off\"\nfreeze = \"auto\"\nkeep_alive = 1"),
];

/// How an app is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    PlainDropped,
    Zygote,
    Snapshot,
    SnapshotDropped,
    Thaw,
    Warm,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::Plain,
        Self::PlainDropped,
        Self::Zygote,
        Self::Snapshot,
        Self::SnapshotDropped,
        Self::Thaw,
        Self::Warm,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain start",
            Self::PlainDropped => "plain start, page cache dropped",
            Self::Zygote => "zygote",
            Self::Snapshot => "snapshot",
            Self::SnapshotDropped => "snapshot, page cache dropped",
            Self::Thaw => "thaw",
            Self::Warm => "warm",
        }
    }

    /// The app that is woken this way, by its suffix.
    fn suffix(self) -> &'static str {
        match self {
            Self::Plain | Self::PlainDropped => "plain",
            Self::Zygote => "zygote",
            Self::Snapshot | Self::SnapshotDropped => "snapshot",
            Self::Thaw | Self::Warm => "frozen",
        }
    }

    fn rung(self) -> &'static str {
        match self {
            Self::Plain | Self::PlainDropped => "image_cached",
            Self::Zygote => "zygote",
            Self::Snapshot | Self::SnapshotDropped => "snapshot",
            Self::Thaw => "frozen",
            Self::Warm => "idle",
        }
    }

    fn needs_criu(self) -> bool {
        self.suffix() == "snapshot"
    }

    fn drops_page_cache(self) -> bool {
        matches!(self, Self::PlainDropped | Self::SnapshotDropped)
    }
}

/// What the API says of a runner, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Runner {
    id: String,
    rung: Option<String>,
    detail: Option<String>,
    ended_at_micros: Option<u64>,
    phases: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    name: String,
    start_micros: u64,
    end_micros: Option<u64>,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug)]
struct Woken {
    answer: f64,
    import: Option<f64>,
}

/// All that was measured of one app, by way.
struct Times {
    name: &'static str,
    woken: Vec<(Way, Vec<Woken>)>,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let folder = fresh_folder(NAME)?;
    let subjects = apps::subjects(&folder)?;
    let criu = tools::criu::criu();
    let node = Node::start(program, &folder, &config(&subjects, criu.as_deref())?)?;
    let ways = Way::ALL.into_iter().filter(|way| criu.is_some() || !way.needs_criu());
    let bench = Bench { node, ways: ways.collect() };
    let mut all = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        all.push(bench.of_subject(subject, rounds)?);
    }
    Ok(report(&all))
}

fn config(subjects: &[Subject], criu: Option<&Path>) -> Result<String> {
    let apps = subjects.iter().map(|subject| {
        let file = subject.file.to_str().context("a path is no UTF-8")?;
        let app = toml_string(&format!("{file}::{}", subject.class))?;
        let one = |(suffix, settings): (&str, &str)| {
            format!("[apps.{}-{suffix}]\napp = {app}\n{settings}\n\n", subject.name)
        };
        Ok(SETTINGS.into_iter().map(one).collect::<String>())
    });
    let apps = apps.collect::<Result<String>>()?;
    let criu = match criu.map(|criu| criu.to_str().context("a path is no UTF-8")).transpose()? {
        Some(criu) => format!("[node.warmth]\ncriu = {}\n\n", toml_string(criu)?),
        None => String::new(),
    };
    Ok(format!("[node]\nlog_level = \"warn\"\n\n{criu}{apps}"))
}

/// JSON's strings are TOML's.
fn toml_string(text: &str) -> Result<String> {
    serde_json::to_string(text).context("cannot write a text")
}

struct Bench {
    node: Node,
    /// Those that this machine can measure.
    ways: Vec<Way>,
}

impl Bench {
    fn of_subject(&self, subject: &Subject, rounds: usize) -> Result<Times> {
        let (expected, ways) = self.settle(subject)?;
        let mut woken: Vec<(Way, Vec<Woken>)> =
            ways.into_iter().map(|way| (way, Vec::new())).collect();
        for number in 1..=rounds {
            for _ in 0..STARTS_PER_ROUND {
                for (way, times) in &mut woken {
                    let (time, answer) = self.wake(subject, *way)?;
                    ensure!(
                        answer == expected,
                        "{}, {}: the answer is {answer}, not {expected}",
                        subject.name,
                        way.name()
                    );
                    times.push(time);
                }
            }
            for (way, times) in &woken {
                let (name, way) = (subject.name, way.name());
                let median = median(&answers(times));
                eprintln!("round {number} of {rounds}: {name}, {way} {median:.1} ms");
            }
        }
        Ok(Times { name: subject.name, woken })
    }

    /// Starts each app until it stands on its rung. Gives the answer of the plain start, and the ways that the app
    /// can be woken in: what one cannot have is told and left out.
    fn settle(&self, subject: &Subject) -> Result<(String, Vec<Way>)> {
        let node = &self.node;
        let (mut expected, mut ways) = (None, self.ways.clone());
        for way in [Way::Plain, Way::Zygote, Way::Snapshot, Way::Warm] {
            if !self.ways.contains(&way) {
                continue;
            }
            let app = app(subject, way);
            let stands = stopwatch::wait_for(RUNG_TIMEOUT, RUNG_PAUSE, || {
                let answer = node.post(&format!("/run/{app}/"), &subject.request)?;
                expected.get_or_insert(answer);
                let runner = awake(node, &app)?;
                let stands = way == Way::Warm || runner.rung.as_deref() == Some(way.rung());
                if !stands {
                    // What it has learned is used while it lives.
                    std::thread::sleep(LEARN_PAUSE);
                }
                if way != Way::Warm {
                    end(node, &app, &runner)?;
                }
                Ok(stands.then_some(()))
            })?;
            if stands.is_none() {
                eprintln!(
                    "{app} does not come from `{}`, and is left out: see the log",
                    way.rung()
                );
                ways.retain(|other| other.suffix() != way.suffix());
            }
        }
        Ok((expected.context("there is no answer to compare with")?, ways))
    }

    fn wake(&self, subject: &Subject, way: Way) -> Result<(Woken, String)> {
        let (node, app) = (&self.node, app(subject, way));
        if way == Way::Thaw {
            let frozen = stopwatch::wait_for(END_TIMEOUT, RUNG_PAUSE, || {
                Ok((awake(node, &app)?.detail.as_deref() == Some("frozen")).then_some(()))
            })?;
            frozen.with_context(|| format!("{app} does not freeze; see `glowplug why {app}`"))?;
        }
        if way.drops_page_cache() {
            rustix::fs::sync();
            let dropped = fs::write("/proc/sys/vm/drop_caches", "1");
            dropped.context("only root can drop the page cache")?;
        }
        let watch = Stopwatch::start();
        let answer = node.post(&format!("/run/{app}/"), &subject.request)?;
        let took = watch.elapsed().as_secs_f64() * 1e3;
        let runner = awake(node, &app)?;
        if matches!(way, Way::Thaw | Way::Warm) {
            return Ok((Woken { answer: took, import: None }, answer));
        }
        let rung = runner.rung.as_deref().unwrap_or("nothing");
        ensure!(rung == way.rung(), "{app} came from `{rung}`; see `glowplug why {app}`");
        let import = import_millis(&runner);
        end(node, &app, &runner)?;
        Ok((Woken { answer: took, import }, answer))
    }
}

fn app(subject: &Subject, way: Way) -> String {
    format!("local/{}-{}", subject.name, way.suffix())
}

fn awake(node: &Node, app: &str) -> Result<Runner> {
    let runners: Vec<Runner> = node.get(&format!("/api/v1/runners?app={app}"))?;
    let mut runners = runners.into_iter().filter(|runner| runner.ended_at_micros.is_none());
    runners.next().with_context(|| format!("{app} was answered by no runner"))
}

fn end(node: &Node, app: &str, runner: &Runner) -> Result<()> {
    node.kill(&runner.id)?;
    node.wait_until_cold(app, END_TIMEOUT)
}

/// From the program's start to the beginning of its `setup()`.
#[expect(clippy::cast_precision_loss, reason = "some seconds in microseconds")]
fn import_millis(runner: &Runner) -> Option<f64> {
    let of = |name: &str| runner.phases.iter().find(|phase| phase.name == name);
    let (began, ended) = (of("setup")?.start_micros, of("setup/setup_started")?.end_micros?);
    Some(ended.saturating_sub(began) as f64 / 1e3)
}

fn answers(woken: &[Woken]) -> Vec<f64> {
    woken.iter().map(|woken| woken.answer).collect()
}

fn imports(woken: &[Woken]) -> Vec<f64> {
    woken.iter().filter_map(|woken| woken.import).collect()
}

fn report(all: &[Times]) -> Measured {
    let (mut cases, mut rounds) = (Vec::new(), Vec::new());
    for times in all {
        cases.extend(cases_of(times));
        for (way, woken) in &times.woken {
            rounds.push((format!("{}: {} ms", times.name, way.name()), answers(woken)));
            if !imports(woken).is_empty() {
                let what = format!("{}: import part of {} ms", times.name, way.name());
                rounds.push((what, imports(woken)));
            }
        }
    }
    Measured { cases, rounds, versions: Vec::new() }
}

fn cases_of(times: &Times) -> Vec<Case> {
    let of = |way: Way| {
        let woken = times.woken.iter().find(|(other, _)| *other == way);
        woken.map(|(_, woken)| woken.as_slice()).unwrap_or_default()
    };
    let answer = |way| median(&answers(of(way)));
    let plain = answer(Way::Plain);
    let case = |what: &str, ours, peer, goal: Option<f64>| {
        Case::new((NAME, &format!("{}: {what}", times.name)), ours, peer, "ms", Better::Lower, goal)
    };
    let import = |way| median(&imports(of(way)));
    let plain_import = ("plain start", import(Way::Plain));
    let mut cases = Vec::new();
    if !of(Way::Zygote).is_empty() {
        let import = import(Way::Zygote);
        cases.push(case("import part with a zygote", import, plain_import, Some(IMPORT_GOAL)));
        cases.push(case("first answer, zygote", answer(Way::Zygote), ("plain start", plain), None));
    }
    cases.extend([
        case("first answer, thaw", answer(Way::Thaw), ("plain start", plain), None),
        case(
            "thaw beyond a warm request",
            answer(Way::Thaw) - answer(Way::Warm),
            ("budget of 2 ms", THAW_BUDGET_MILLIS),
            Some(1.0),
        ),
    ]);
    if !of(Way::Snapshot).is_empty() {
        let goal = match times.name {
            "torch" => Some(TORCH_GOAL),
            _ => (plain >= LONG_MILLIS).then_some(LONG_SETUP_GOAL),
        };
        let snapshot = answer(Way::Snapshot);
        cases.push(case("first answer, snapshot", snapshot, ("plain start", plain), goal));
        let peer = ("plain start, page cache dropped", answer(Way::PlainDropped));
        let what = "first answer, snapshot, page cache dropped";
        cases.push(case(what, answer(Way::SnapshotDropped), peer, None));
    }
    cases
}
