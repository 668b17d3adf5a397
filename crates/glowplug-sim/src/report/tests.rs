use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::plan::result::*;
use crate::plan::setting::{Fixed, Setting};

fn numbers(cost: f64, wait: f64) -> Numbers {
    let wait = Wait { mean_secs: wait, p95_secs: wait * 3.0, ..Wait::default() };
    let app = AppNumbers {
        app: "local/<b>bold</b>".to_owned(),
        requests: 1_234,
        cold: 12,
        cold_percent: 1.0,
        starts: 12,
        wait,
        runner_seconds: Seconds::default(),
        cost,
    };
    Numbers {
        requests: 1_234,
        answered: 1_234,
        refused: 0,
        cold: 12,
        cold_percent: 1.0,
        starts: Starts {
            total: 12,
            failed: 0,
            by_cause: BTreeMap::from([("spike", 12)]),
            per_minute_peak: 2,
        },
        app_cold_rate: AppColdRate::default(),
        wait,
        runner_seconds: Seconds::default(),
        overhead: Some(1.5),
        cost,
        cost_per_day: Some(cost),
        apps: vec![app],
    }
}

fn plan() -> Plan {
    let part = Part { from_secs: 0.0, until_secs: 200_000.0, requests: 1_234 };
    let run = |secs, cost, wait| Run {
        setting: Setting::Fixed(Fixed {
            keep_alive: Duration::from_secs(secs),
            ..Fixed::default()
        }),
        numbers: numbers(cost, wait),
        timeline: Vec::new(),
    };
    let timeline = vec![
        Sample { at_secs: 0.0, starting: 2, idle: 0, busy: 0, waiting: 2 },
        Sample { at_secs: 60.0, starting: 0, idle: 1, busy: 1, waiting: 0 },
    ];
    Plan {
        format: FORMAT,
        traffic: Summary {
            requests: 1_234,
            apps: 1,
            span_secs: 200_000.0,
            profile: Profile { bucket_secs: 3_600.0, requests: (0..56).collect() },
            models: Vec::new(),
        },
        chosen_on: part,
        reported_on: part,
        cost_unit: CostUnit::RunnerHours,
        wait_budget_secs: 2.0,
        today: Run {
            setting: Setting::Today,
            numbers: numbers(9.0, 4.0),
            timeline: timeline.clone(),
        },
        runs: vec![run(10, 3.0, 8.0), run(600, 30.0, 1.0), run(700, 31.0, 1.5)],
        frontier: Frontier { by_cost_and_wait: vec![0, 1], ..Frontier::default() },
        beside: vec![Beside {
            name: "Knative".to_owned(),
            about: "its defaults".to_owned(),
            kind: BesideKind::Policy,
            starts: 40,
            cold_percent: 4.0,
            app_cold_rate: None,
            wait: None,
            wait_mean_secs: 3.0,
            cost: 12.0,
            cost_per_day: Some(6.0),
        }],
        recommendations: vec![Recommendation {
            intent: Intent::Budget,
            because: "the cheapest of what keeps waits <= 2 s".to_owned(),
            met: Some(false),
            settings: Vec::new(),
            numbers: numbers(8.0, 2.0),
            chosen_numbers: None,
            change: Change {
                cost_percent: Some(-11.0),
                wait_mean_from_secs: 4.0,
                wait_mean_to_secs: 2.0,
                wait_p95_from_secs: 12.0,
                wait_p95_to_secs: 6.0,
                sentence: "saves 11 % of cost".to_owned(),
            },
            timeline,
            config: "[apps.\"local/x\"]\nkeep_alive = \"1m\"\n".to_owned(),
            diff: String::new(),
        }],
        notes: vec!["names are <escaped>".to_owned()],
    }
}

#[test]
fn the_page_needs_nothing_else() {
    let page = html(&plan());
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
}

#[test]
fn names_from_a_trace_are_text() {
    let page = html(&plan());
    assert!(!page.contains("<b>bold"), "a name became markup");
    assert!(page.contains("local/&lt;b&gt;bold&lt;/b&gt;"));
    assert!(page.contains("names are &lt;escaped&gt;"));
    assert!(page.contains("keep_alive = &quot;1m&quot;"));
}

#[test]
fn every_part_is_there() {
    let page = html(&plan());
    for part in [
        "Recommended",
        "Cost against waiting",
        "Traffic",
        "Runners over time",
        "Apps",
        "Config to apply",
        "No setting that was tried keeps this budget",
        "Knative",
        "spike: 12",
    ] {
        assert!(page.contains(part), "`{part}` is missing");
    }
    // Cost and waiting, requests over time and over the day, states today and recommended.
    assert_eq!(page.matches("<svg").count(), 5);
    assert_eq!(page.matches("class='point frontier'").count(), 2);
}

#[test]
fn no_number_is_drawn_outside_or_as_nonsense() {
    let mut plan = plan();
    plan.runs[0].numbers.cost = f64::NAN;
    plan.runs[1].numbers.cost = f64::INFINITY;
    plan.traffic.profile.requests.clear();
    let page = html(&plan);
    assert!(!page.contains("NaN") && !page.contains("='inf"), "a coordinate is not a number");
}

#[test]
fn long_lists_of_apps_are_cut_and_said_to_be() {
    let mut plan = plan();
    let app = plan.today.numbers.apps[0].clone();
    plan.today.numbers.apps = vec![app; APP_ROWS_MAX + 7];
    assert!(html(&plan).contains("7 apps with fewer requests are not listed"));
}
