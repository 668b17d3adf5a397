//! Policies set against each other on traffic whose numbers are known by hand.

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_sim::judge::{self, Error, Kind, Metrics, Question, SLO, Setup, Verdict};
use glowplug_sim::model::Model;
use glowplug_sim::plan::{Filter, Traffic};
use glowplug_sim::trace::{App, Record, Request};

/// So many requests of 1 s for each app, each so many seconds after the one before.
fn regular(apps: &[(&str, u64, u64)]) -> Traffic {
    let mut records: Vec<Record> =
        apps.iter().map(|(name, ..)| Record::App(App::named(*name))).collect();
    let mut requests: Vec<(u64, u32)> = Vec::new();
    for (index, (_, gap, count)) in (0..).zip(apps) {
        requests.extend((0..*count).map(|nth| (nth * gap, index)));
    }
    requests.sort_unstable();
    records.extend(requests.into_iter().map(|(at, app)| {
        Record::Request(Request::new(Timestamp::from_secs(at), app, Some(Duration::from_secs(1))))
    }));
    Traffic::read(records.into_iter().map(Ok::<_, Infallible>), &Filter::default()).unwrap()
}

fn question(traffic: Traffic) -> Question {
    Question {
        traffics: vec![traffic],
        policies: judge::usual(),
        setup: Setup::PerStart(Model::Constant(Duration::from_secs(10))),
        service: Model::Constant(Duration::from_secs(1)),
        max_multiplexing: 1,
        warm_up: Duration::ZERO,
        slo: SLO,
        seed: 1,
        resamples: 50,
    }
}

fn judged(question: &Question) -> Verdict {
    judge::run(question, &|_| {}).unwrap()
}

fn metrics<'a>(verdict: &'a Verdict, policy: &str) -> &'a Metrics {
    &verdict.rows.iter().find(|row| row.policy == policy).unwrap().metrics
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
}

#[test]
fn each_policy_has_the_numbers_it_must_have() {
    let verdict = judged(&question(regular(&[("local/a", 100, 50)])));
    assert_eq!((verdict.requests, verdict.apps), (50, 1));
    let short = metrics(&verdict, "keep_alive 60 s");
    // Each request starts a runner, which sets up for 10 s, works for 1 s and is kept for 60 s. Of the last
    // one nothing is counted but that it was cold.
    near(short.wait_mean_secs, 10.0);
    near(short.overhead, 70.0);
    near(short.app_cold_p75, 1.0);
    near(short.over_slo_percent.unwrap(), 100.0);
    let long = metrics(&verdict, "keep_alive 120 s");
    near(long.starts, 1.0);
    near(long.wait_mean_secs, 10.0 / 50.0);
    let in_time = metrics(&verdict, "clairvoyant, just in time");
    // To start anew is cheaper than to keep for 99 s.
    near(in_time.wait_mean_secs, 0.0);
    near(in_time.overhead, 500.0 / 49.0);
    near(metrics(&verdict, "clairvoyant, gaps up to 60 s").cold_percent, 100.0);
    near(metrics(&verdict, "KPA, stable 60 s, 70 %, grace 30 s").busy_secs, 49.0);
    let kpa = verdict.rows.iter().filter(|row| row.kind == Kind::Kpa).count();
    assert_eq!(kpa, 12);
}

#[test]
fn what_was_before_is_a_warm_up() {
    let warm_up = Duration::from_secs(2_450);
    let verdict = judged(&Question { warm_up, ..question(regular(&[("local/a", 100, 50)])) });
    assert_eq!(verdict.requests, 25);
    let long = metrics(&verdict, "keep_alive 120 s");
    near(long.starts, 0.0);
    near(long.wait_mean_secs, 0.0);
    // The second half of a gap, and 24 whole ones.
    near(long.idle_secs, 50.0 + 24.0 * 99.0);
    // The last request's work, and the keep_alive: after the end, and counted apart.
    near(long.after_secs.unwrap(), 121.0);
}

#[test]
fn the_same_question_has_the_same_answer() {
    let traffic = regular(&[("local/a", 100, 50), ("local/b", 37, 90), ("local/c", 900, 6)]);
    let setup = Setup::PerApp(Model::LogNormal { median_secs: 8.0, sigma: 0.5 });
    let asked = Question {
        traffics: vec![traffic.clone(), traffic],
        setup,
        ..question(regular(&[("local/x", 1, 1)]))
    };
    let answer = || serde_json::to_string(&judged(&asked)).unwrap();
    assert_eq!(answer(), answer());
}

#[test]
fn questions_without_an_answer_are_told() {
    let traffic = || regular(&[("local/a", 100, 50)]);
    let fails = |question: &Question| judge::run(question, &|_| {}).unwrap_err();
    let nothing = Question { traffics: Vec::new(), ..question(traffic()) };
    assert!(matches!(fails(&nothing), Error::NoTraffic));
    let others = regular(&[("local/a", 100, 50), ("local/b", 100, 50)]);
    let mixed = Question { traffics: vec![traffic(), others], ..question(traffic()) };
    assert!(matches!(fails(&mixed), Error::OtherApps { first: 1, other: 2 }));
    let late = Question { warm_up: Duration::from_hours(24), ..question(traffic()) };
    assert!(matches!(fails(&late), Error::NothingCounts(_)));
}
