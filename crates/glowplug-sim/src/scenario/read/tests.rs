use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::auto;
use glowplug_core::spec::Policy;

use super::super::rate::Rate;
use super::super::shape::Shape;
use super::super::source::Origin;
use super::super::{Scenario, ScenarioError};
use crate::model::Model;
use crate::simulation::What;

const APP: &str = "[apps.a]\n[[apps.a.traffic]]\nshape = 'poisson'\nrate = 1\n";

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse("s.toml", text, std::path::Path::new("/nowhere"))
}

#[test]
fn a_whole_scenario_is_read() {
    let scenario = parse(
        r#"
        seed = 17
        length = "1h"
        [capacity]
        cpu = 8
        memory = "64GiB"
        gpus = [{ kind = "L40", memory = "48GiB", count = 2 }, { kind = "H100", memory = "80GiB" }]
        [node]
        contention_wait_max = "10s"
        [untidiness]
        late = "5%"
        [expect]
        wait_p95 = "< 30s"
        refused = 0
        [apps.paint]
        keep_alive = "1m"
        max_concurrency = 4
        gpus = 1
        gpu_kind = "L40"
        setup = { median = "20s", sigma = 0.4 }
        pull = { values = ["10s", "12s"] }
        service = { mean = "2s" }
        slowdown = 0.5
        faults = { setup_crash = "10%" }
        [[apps.paint.traffic]]
        shape = "daily"
        rate = "30/min"
        [[apps.paint.traffic]]
        shape = "even"
        every = "10s"
        from = "10m"
        mode = "direct"
        start_within = "5s"
        service = "4s"
        [apps.small]
        copies = 3
        zipf = 1
        [apps.small.traffic]
        shape = "poisson"
        rate = 11
        [apps.small.expect]
        starts = ["> 0", "< 100"]
        [[happenings]]
        at = "40m"
        what = "deploy"
        app = "paint"
        set = { keep_alive = "5m" }
        [[happenings]]
        at = "20m"
        what = "deploy"
        app = "paint"
        [[happenings]]
        at = "30m"
        until = "50m"
        what = "faults"
        app = "small"
        faults = { error = "100%" }
        "#,
    )
    .unwrap();
    assert_eq!((scenario.seed, scenario.length), (17, Duration::from_hours(1)));
    let gpus: Vec<(u32, &str)> =
        scenario.capacity.gpus.iter().map(|gpu| (gpu.index, gpu.kind.as_str())).collect();
    assert_eq!(gpus, [(0, "L40"), (1, "L40"), (2, "H100")]);
    let names: Vec<&str> = scenario.apps.iter().map(|app| app.spec.name.as_str()).collect();
    assert_eq!(names, ["paint", "small-1", "small-2", "small-3"]);
    let paint = &scenario.apps[0];
    assert_eq!(paint.spec.scaling.max_concurrency, Some(4));
    assert_eq!(paint.setup, Model::LogNormal { median_secs: 20.0, sigma: 0.4 });
    assert_eq!(paint.service, Model::Exponential { mean_secs: 2.0 });
    // Two streams of paint, one of each of the others, whose rates are 6, 3 and 2 elevenths of 11.
    let apps: Vec<u32> = scenario.streams.iter().map(|stream| stream.app).collect();
    assert_eq!(apps, [0, 0, 1, 2, 3]);
    let rate = |nth: usize| match &scenario.streams[nth].origin {
        Origin::Shape(Shape::Random(rate)) => rate.at(0.0),
        other => panic!("{other:?}"),
    };
    assert!(
        [6.0, 3.0, 2.0].iter().zip(2..).all(|(expected, nth)| (rate(nth) - expected).abs() < 1e-9)
    );
    assert_eq!(scenario.streams[0].service, None);
    let own = scenario.streams[1].service.as_ref().unwrap();
    assert_eq!(own.model, Model::Constant(Duration::from_secs(4)));
    // The deployments in order of time, whatever their order in the file.
    let deployed: Vec<(Timestamp, u32, u64)> = scenario
        .happenings
        .iter()
        .filter_map(|happening| match &happening.what {
            What::Deploy { spec, .. } => {
                Some((happening.at, spec.revision, spec.scaling.keep_alive.as_secs()))
            }
            _ => None,
        })
        .collect();
    let at = |minutes: u64| Timestamp::from_secs(minutes * 60);
    assert_eq!(deployed, [(at(20), 2, 60), (at(40), 2, 300)]);
    let errors: Vec<f64> = scenario
        .happenings
        .iter()
        .filter_map(|happening| match &happening.what {
            What::Faults { app: 3, faults } => Some(faults.error),
            _ => None,
        })
        .collect();
    assert_eq!(errors.len(), 20);
    assert!(
        errors.is_sorted() && (errors[9] - 0.5).abs() < 1e-9 && (errors[19] - 1.0).abs() < 1e-9
    );
    // One of all, one of all, two of each of three.
    assert_eq!(scenario.expectations.len(), 8);
}

#[test]
fn hours_are_weights_around_the_mean() {
    let hours = (0..24).map(|hour| if hour < 12 { "1" } else { "3" }).collect::<Vec<_>>().join(",");
    let text = format!(
        "length = '1d'\n[apps.a]\n[[apps.a.traffic]]\nshape = 'daily'\nrate = 2\nhours = [{hours}]\n"
    );
    let scenario = parse(&text).unwrap();
    let Origin::Shape(Shape::Random(Rate::Hourly(rates))) = &scenario.streams[0].origin else {
        panic!("{:?}", scenario.streams)
    };
    assert!((rates[0] - 1.0).abs() < 1e-9 && (rates[23] - 3.0).abs() < 1e-9);
}

#[test]
fn mistakes_are_told_with_their_line_and_the_nearest_right_name() {
    let check = |text: &str, expected: &str| {
        let found = parse(text).unwrap_err().to_string();
        assert_eq!(found, expected, "{text}");
    };
    check(
        "length = '1h'\n",
        "s.toml:1: the scenario has no apps\n  help: add a table such as [apps.hello]",
    );
    check(
        &format!("lenght = '1h'\n{APP}"),
        "s.toml:1: the scenario does not say its `length`\n  help: add `length = \"1h\"`\n\
         s.toml:1: unknown key `lenght`\n  help: did you mean `length`?",
    );
    for length in ["0", "'0s'", "0.0"] {
        check(
            &format!("seed = 1\nlength = {length}\n{APP}"),
            "s.toml:2: `length` is 0, so nothing could happen\n  help: write a longer one, such as \
             `length = \"1h\"`",
        );
    }
    let nines = "9".repeat(300);
    for (seed, shown) in [
        (nines.clone(), "number 1e300".to_owned()),
        ("1e300".to_owned(), "number 1e300".to_owned()),
        ("-1e300".to_owned(), "number -1e300".to_owned()),
        (format!("'{nines}'"), format!("text \"{}…\"", &nines[..60])),
        ("4294967296".to_owned(), "number 4294967296".to_owned()),
    ] {
        check(
            &format!("length = '1h'\nseed = {seed}\n{APP}"),
            &format!("s.toml:2: `seed` must be a whole number of 0 or more, not the {shown}"),
        );
    }
    let with = |line: &str| format!("length = '1h'\n[apps.a]\n{line}\n");
    check(
        &with("keep_alve = 5"),
        "s.toml:3: unknown key `keep_alve` in [apps.a]\n  help: did you mean `keep_alive`?",
    );
    check(
        &with("keep_alive = true"),
        "s.toml:3: `keep_alive` in [apps.a] must be a duration such as \"30s\" or \"5m\", not the \
         boolean true",
    );
    check(
        &with("min_concurrency = 3\nmax_concurrency = 2"),
        "s.toml:2: `min_concurrency` is 3, above `max_concurrency` (2) in [apps.a]",
    );
    check(
        &with("setup = { mean = '1s', median = '1s' }"),
        "s.toml:3: [apps.a.setup] must have one of `median`, `mean`, `values` and `file`",
    );
    check(
        &with("service = { file = 'times.txt' }"),
        "s.toml:3: cannot read /nowhere/times.txt: No such file or directory (os error 2)",
    );
    check(&with("setup = []"), "s.toml:3: [apps.a.setup] holds no time");
    check(
        &with("[[apps.a.traffic]]\nshape = 'poison'\nrate = 1"),
        "s.toml:4: `shape` in [apps.a.traffic] cannot be the text \"poison\"\n  help: did you mean \
         `poisson`?",
    );
    check(
        &with("[[apps.a.traffic]]\nshape = 'bursts'\nrate = 1\nburst = '1s'"),
        "s.toml:4: [apps.a.traffic] does not say its `quiet`\n  help: add `quiet = \"10m\"`",
    );
    check(
        &with("[[apps.a.traffic]]\nshape = 'even'\nevery = 0"),
        "s.toml:4: `every` in [apps.a.traffic] is too small",
    );
    check(
        &with("[[apps.a.traffic]]\nshape = 'poisson'\nrate = 1e7"),
        "s.toml:4: the traffic in [apps.a.traffic] is more than 1000000 requests a second",
    );
    check(
        &with("[[happenings]]\nat = '1m'\nwhat = 'remove'\napp = 'b'"),
        "s.toml:4: there is no app `b`\n  help: did you mean `a`?",
    );
    check(
        &with("[expect]\nwiat_p99 = '< 1s'\nrefused = '< 1s'\nstarts = [1, 'x']"),
        "s.toml:4: unknown key `wiat_p99` in [expect]\n  help: did you mean `wait_p99`?\n\
         s.toml:5: `refused` in [expect] must be a bound such as \"< 200\", not the text \"< 1s\"\n\
         s.toml:6: `starts` in [expect] must be a bound such as \"< 200\", not the text \"x\"",
    );
    check(
        "length = \n",
        "s.toml:1: this is not valid TOML: string values must be quoted, expected literal string",
    );
}

#[test]
fn what_an_app_aims_for_is_read_as_in_a_config() {
    let aims = |keys: &str| {
        let app = APP.replace("[apps.a]\n", &format!("[apps.a]\n{keys}\n"));
        let text = format!("length = '1h'\n{app}");
        match parse(&text).map(|scenario| scenario.apps[0].spec.scaling.policy) {
            Ok(Policy::Fixed) => "fixed".to_owned(),
            Ok(Policy::Auto(aims)) => {
                let budget = aims.budget.map(|budget| (budget.wait.as_secs_f64(), budget.share));
                format!("{} {budget:?} {}", aims.wait_price, aims.keep_max.as_secs())
            }
            Err(error) => error.to_string(),
        }
    };
    let balanced = auto::Settings::BALANCED;
    for (keys, expected) in [
        ("policy = 'fixed'", "fixed".to_owned()),
        ("policy = 'auto'", format!("{balanced} None 14400")),
        (
            "policy = 'auto'\nwait_budget = '2s'\nwait_price = 7",
            "7 Some((2.0, 0.05)) 14400".to_owned(),
        ),
        (
            "policy = 'auto'\nwait_budget = '2s'\nwait_budget_percent = 1\nkeep_alive = '5m'",
            format!("{balanced} Some((2.0, 0.01)) 300"),
        ),
        (
            "wait_budget = '2s'",
            "s.toml:2: `wait_budget` is for apps with `policy = \"auto\"`; add that, or leave this out in \
             [apps.a]"
                .to_owned(),
        ),
        (
            "policy = 'auto'\nwait_price = 'high'",
            "s.toml:4: `wait_price` in [apps.a] must be a number of 0 or more, or one of \"cost-sensitive\", \
             \"balanced\", \"latency-critical\", not the text \"high\""
                .to_owned(),
        ),
    ] {
        assert_eq!(aims(keys), expected, "{keys}");
    }
}

#[test]
fn what_a_scenario_comes_to_in_all_is_limited() {
    for (apps, expected) in [
        (
            "[apps.a]\ncopies = 100000\nmin_concurrency = 10000",
            "s.toml:2: [apps.a] brings the scenario to 1000000000 runners that are there without traffic, \
             more than 100000\n  help: lower `min_concurrency`, `concurrency_buffer` or `copies`",
        ),
        (
            "[apps.a]\nmin_concurrency = 10000\n[apps.b]\ncopies = 9001\nconcurrency_buffer = 10",
            "s.toml:4: [apps.b] brings the scenario to 100010 runners that are there without traffic, more \
             than 100000\n  help: lower `min_concurrency`, `concurrency_buffer` or `copies`",
        ),
        (
            "[apps.a]\n[apps.b]\ncopies = 100000\n[[happenings]]\nat = 1\nwhat = 'remove'\napp = 'b'",
            "s.toml:3: [apps.b] brings the scenario to 100001 apps, more than 100000\n  help: lower `copies`",
        ),
        (
            "[apps.a]\ncopies = 70000\ntraffic = [{shape = 'even', every = 1}, {shape = 'even', \
             every = 2}, {shape = 'even', every = 3}]",
            "s.toml:2: [apps.a] brings the scenario to 210000 streams of traffic, more than 200000\n  \
             help: lower `copies`, or write fewer tables `traffic`",
        ),
        (
            "[apps.a]\ncopies = 20000\n[[happenings]]\nat = 1\nuntil = 9\nwhat = 'faults'\napp = 'a'",
            "s.toml:5: [happenings] brings the scenario to 400000 happenings, more than 200000\n  help: \
             write fewer of them, or lower `copies`",
        ),
        (
            "[apps.a]\ncopies = 100000\nexpect = {starts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}",
            "s.toml:2: [apps.a] brings the scenario to 1100000 expectations, more than 1000000\n  help: \
             write fewer of them, or lower `copies`",
        ),
    ] {
        let found = parse(&format!("length = '1h'\n{apps}\n")).unwrap_err().to_string();
        assert_eq!(found, expected, "{apps}");
    }
    let apps =
        "[apps.a]\nmin_concurrency = 10000\n[apps.b]\ncopies = 9000\nconcurrency_buffer = 10";
    let scenario = parse(&format!("length = '1h'\n{apps}\n")).unwrap();
    assert_eq!(scenario.apps.len(), 9_001, "as much as there may be");
}
