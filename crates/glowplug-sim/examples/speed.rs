//! How many of the engine's events a simulation gets through per second. Prints one JSON line per case.
//!
//! ```text
//! speed                                       the usual cases
//! speed APPS RUNNERS REQUESTS [MULTIPLEXING]  one of that size
//! speed write REQUESTS FILE                   makes a trace of as many
//! speed stream REQUESTS FILE                  simulates it while it is read
//! ```

#![expect(clippy::print_stdout, reason = "the result is this program's output")]

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use glowplug_core::Timestamp;
use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::outcome::Outcome;
use glowplug_sim::simulation::World;
use glowplug_sim::trace::{self, App, Header, LEVEL_DEFAULT, Record, Request, Writer};
use glowplug_sim::traffic::Arrival;

/// Apps, runners in use on average over all of them, requests.
const CASES: &[(u32, u32, u64)] = &[
    (1, 1, 3_000_000),
    (1, 10, 3_000_000),
    (1, 100, 3_000_000),
    (1, 1_000, 3_000_000),
    (10, 100, 3_000_000),
    (100, 100, 3_000_000),
    (100, 1_000, 3_000_000),
    (1_000, 1_000, 3_000_000),
    (10_000, 1_000, 3_000_000),
];

const SERVICE: Duration = Duration::from_secs(1);
/// Of a streamed trace.
const STREAM_APPS: u32 = 100;
const STREAM_RUNNERS: u32 = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [what, requests, file] = args.as_slice()
        && let (Ok(requests), file) = (requests.parse(), Path::new(file))
    {
        match what.as_str() {
            "write" => return write(requests, file).expect("the trace can be written"),
            "stream" => return stream(requests, file),
            _ => {}
        }
    }
    let numbers: Vec<u64> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    match numbers.as_slice() {
        [apps, runners, requests] => measure(narrow(*apps), narrow(*runners), *requests, 1),
        [apps, runners, requests, multiplexing] => {
            measure(narrow(*apps), narrow(*runners), *requests, narrow(*multiplexing));
        }
        _ => CASES
            .iter()
            .for_each(|(apps, runners, requests)| measure(*apps, *runners, *requests, 1)),
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn world(apps: u32, max_multiplexing: u32) -> World {
    let machine = MachineType { name: "S".into(), cpu_millis: 1, ..MachineType::default() };
    let keep_alive = Duration::from_mins(1);
    let app = |nth| AppModel {
        spec: AppSpec {
            name: format!("local/app-{nth}"),
            revision: 1,
            scaling: Scaling { keep_alive, max_multiplexing, ..Scaling::default() },
            machine_types: vec![machine.clone()],
            retry: Rules::default(),
        },
        pull: None,
        setup: Model::Constant(Duration::from_millis(500)),
        service: Model::Exponential { mean_secs: SERVICE.as_secs_f64() },
        exit: Model::Constant(Duration::ZERO),
        slowdown: 0.0,
        faults: Faults::default(),
    };
    World {
        seed: 1,
        capacity: Capacity { cpu_millis: 1_000_000, ..Capacity::default() },
        apps: (0..apps).map(app).collect(),
        ..World::default()
    }
}

/// So many requests at once, on average: evenly spaced in time, each to any app.
fn traffic(apps: u32, at_once: u32, requests: u64) -> impl Iterator<Item = Arrival> {
    let gap_nanos = u64::try_from(SERVICE.as_nanos()).unwrap_or(u64::MAX) / u64::from(at_once);
    (0..requests).map(move |nth| {
        // Scrambled, so that no app has a rhythm of its own.
        let scrambled = (nth ^ (nth >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let app = narrow((scrambled * u64::from(apps)) >> 32);
        Arrival::new(Timestamp::from_micros(nth * gap_nanos / 1_000), app, None)
    })
}

#[expect(clippy::disallowed_methods, reason = "this measures the simulator, from outside")]
fn clock() -> Instant {
    Instant::now()
}

fn measure(apps: u32, runners: u32, requests: u64, multiplexing: u32) {
    let world = world(apps, multiplexing);
    let at_once = runners * multiplexing;
    let began = clock();
    let arrivals = traffic(apps, at_once, requests).map(Ok::<_, Infallible>);
    let outcome = world.run(arrivals).expect("no rule is broken");
    let secs = began.elapsed().as_secs_f64();
    let case = format!("\"apps\":{apps},\"runners\":{runners},\"multiplexing\":{multiplexing}");
    say(&case, requests, &outcome, secs);
}

#[expect(clippy::cast_precision_loss, reason = "shown without digits")]
fn say(case: &str, requests: u64, outcome: &Outcome, secs: f64) {
    assert_eq!(outcome.total.answered, requests, "every request is answered");
    println!(
        "{{{case},\"requests\":{requests},\"starts\":{},\"events\":{},\"secs\":{secs:.3},\
         \"events_per_s\":{:.0},\"requests_per_s\":{:.0},\"peak_rss_kib\":{},\"digest\":\"{:016x}\"}}",
        outcome.total.starts_total(),
        outcome.events,
        outcome.events as f64 / secs,
        requests as f64 / secs,
        peak_rss_kib(),
        outcome.digest,
    );
}

/// The most memory this process ever had; 0 where the system does not tell.
fn peak_rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Reads the requests from a file while it simulates them.
fn stream(requests: u64, file: &Path) {
    let bytes = fs::metadata(file).map_or(0, |file| file.len());
    let world = world(STREAM_APPS, 1);
    let began = clock();
    let records = trace::open(file, &trace::Options::default()).expect("it was just written");
    let outcome = world.run(trace::arrivals(records)).expect("no rule is broken");
    let secs = began.elapsed().as_secs_f64();
    say(&format!("\"stream\":true,\"file_bytes\":{bytes}"), requests, &outcome, secs);
}

fn write(requests: u64, file: &Path) -> Result<(), trace::Error> {
    let out = File::create(file).expect("the file can be made");
    let header = Header { began: None, made_by: "speed".into() };
    let mut writer = Writer::new(out, &header, LEVEL_DEFAULT)?;
    for app in 0..STREAM_APPS {
        writer.write(&Record::App(App::named(format!("local/app-{app}"))))?;
    }
    for (nth, arrival) in (1_u64..).zip(traffic(STREAM_APPS, STREAM_RUNNERS, requests)) {
        let millis = 1 + nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 2_000;
        let service = Some(Duration::from_millis(millis));
        writer.write(&Record::Request(Request::new(arrival.at, arrival.app, service)))?;
    }
    writer.finish().map(drop)
}
