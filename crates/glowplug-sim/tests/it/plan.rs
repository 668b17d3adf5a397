//! Plans for traffic whose best settings are known without simulating it.

#![expect(clippy::unwrap_used, clippy::cast_precision_loss, reason = "helpers of tests")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;
use glowplug_core::request::{Mode, Priority};
use glowplug_core::spec::Scaling;
use glowplug_sim::model::Model;
use glowplug_sim::plan::result::{
    CostUnit, Intent, Plan, Recommendation, Run, Source, WaitMeasure,
};
use glowplug_sim::plan::setting::{Auto, Fixed, Setting};
use glowplug_sim::plan::{
    Budget, Error, Filter, Grid, Holdout, Options, Prices, Progress, Silent, Traffic, plan,
};
use glowplug_sim::trace::{App, Record, Request, Start};

const LADDER_SECS: [u64; 6] = [0, 10, 30, 60, 300, 1_800];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn app(name: &str) -> Record {
    Record::App(App { name: name.to_owned(), scaling: None, machine_type: None })
}

fn request(app: u32, at_secs: f64) -> Record {
    Record::Request(Request {
        at: Timestamp::ZERO + Duration::from_secs_f64(at_secs),
        app,
        mode: Mode::Queued,
        priority: Priority::Normal,
        start_within: None,
        service: Some(secs(1)),
        waited: None,
        attempts: 1,
        status: Some(200),
    })
}

fn read(records: Vec<Record>) -> Traffic {
    try_read(records, &Filter::default()).unwrap()
}

fn try_read(records: Vec<Record>, filter: &Filter) -> Result<Traffic, Error> {
    Traffic::read(records.into_iter().map(Ok::<_, Infallible>), filter)
}

/// One request every so often.
fn regular(apps: &[(&str, f64, u32)]) -> Traffic {
    let mut records: Vec<Record> = apps.iter().map(|(name, ..)| app(name)).collect();
    let mut requests: Vec<(f64, u32)> = Vec::new();
    for (index, (_, gap_secs, count)) in (0..).zip(apps) {
        requests.extend((0..*count).map(|nth| (f64::from(nth) * gap_secs, index)));
    }
    requests.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    records.extend(requests.into_iter().map(|(at, app)| request(app, at)));
    read(records)
}

/// Memoryless gaps.
fn poisson(gap_mean_secs: f64, count: usize) -> Traffic {
    let mut state = 42_u64;
    let mut at = 0.0;
    let mut records = vec![app("local/a")];
    for _ in 0..count {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        at -= gap_mean_secs * share.ln();
        records.push(request(0, at));
    }
    read(records)
}

fn keep_alives() -> Grid {
    let fixed = |s| Setting::Fixed(Fixed { keep_alive: secs(s), ..Fixed::default() });
    Grid::Only(LADDER_SECS.map(fixed).to_vec())
}

fn options() -> Options {
    Options {
        setup: Some(Model::Constant(secs(10))),
        grid: keep_alives(),
        holdout: Holdout::Off,
        ..Options::default()
    }
}

fn made(traffic: &Traffic, options: &Options) -> Plan {
    plan(traffic, options, &Silent).unwrap()
}

fn recommended(plan: &Plan, intent: Intent) -> &Recommendation {
    plan.recommendations.iter().find(|one| one.intent == intent).unwrap()
}

/// What an app gets for a key, in the spelling of the config; today's if it is not changed.
fn value<'a>(recommendation: &'a Recommendation, app: &str, key: &str) -> Option<&'a str> {
    let change = recommendation.settings.iter().find(|change| change.app == app)?;
    change.keys.iter().find(|change| change.key == key).map(|change| change.to.as_str())
}

#[test]
fn of_regular_gaps_only_those_just_kept_through_or_not_at_all_pay() {
    let traffic = regular(&[("local/a", 60.0, 200)]);
    let plan = made(&traffic, &options());
    let keep_alive = |at: &usize| match plan.runs[*at].setting {
        Setting::Fixed(fixed) => fixed.keep_alive.as_secs(),
        _ => panic!("the sweep has fixed settings alone"),
    };
    let frontier: Vec<u64> = plan.frontier.by_cost_and_wait.iter().map(keep_alive).collect();
    assert_eq!(frontier, [0, 60]);
    for (run, setting) in plan.runs.iter().zip(LADDER_SECS) {
        let (numbers, warm) = (&run.numbers, setting >= 60);
        assert_eq!(numbers.requests, 200);
        assert_eq!(numbers.starts.total, if warm { 1 } else { 200 }, "{}", run.setting);
        assert_eq!(numbers.cold, if warm { 1 } else { 200 });
        // 199 gaps of 60 s, then the last request; or 10 s and 1 s each, and keep_alive but after the last.
        let expected = if warm { 199 * 60 + 1 } else { 200 * (10 + 1) + 199 * setting };
        let found = numbers.runner_seconds.total;
        assert!((found - expected as f64).abs() < 1e-6, "{}: {found}, not {expected}", run.setting);
        assert!((numbers.cost - found / 3_600.0).abs() < 1e-9);
    }
    assert_eq!(plan.cost_unit, CostUnit::RunnerHours);
}

#[test]
fn a_memoryless_app_is_kept_for_ever_or_not_at_all() {
    // Keeping costs the mean gap; ending costs 10 s of setup and 10 s of waiting, which are worth 60 s of a
    // runner where cost matters and 310 s where latency does. 300 s are as good as for ever to gaps of 25 s.
    for (gap_secs, count, cost_sensitive, latency_critical) in
        [(25.0, 1_000, "300", "300"), (200.0, 300, "0", "1800"), (2_000.0, 300, "0", "0")]
    {
        let traffic = poisson(gap_secs, count);
        let found = |today_secs, intent| {
            // One runner for all, so that there is but one question.
            let default_scaling = Scaling {
                keep_alive: secs(today_secs),
                concurrency_buffer: u32::from(today_secs > 0),
                max_multiplexing: 100,
                ..Scaling::default()
            };
            let plan = made(&traffic, &Options { default_scaling, ..options() });
            value(recommended(&plan, intent), "local/a", "keep_alive").unwrap_or("0").to_owned()
        };
        // Today is dear, or slow, so that the guard against worse does not bind.
        assert_eq!(found(7_200, Intent::CostSensitive), cost_sensitive, "{gap_secs}");
        assert_eq!(found(0, Intent::LatencyCritical), latency_critical, "{gap_secs}");
    }
}

/// Twenty minutes of a request a minute: a runner that outlives them costs nothing more than one that is kept
/// for good, for what comes after them is not known.
#[test]
fn no_floor_is_recommended_because_the_trace_ends() {
    let traffic = regular(&[("local/a", 60.0, 20)]);
    let plan = made(&traffic, &Options { grid: Grid::Sensible, ..options() });
    let cost = |floor| {
        let like = |run: &&Run| match run.setting {
            Setting::Fixed(fixed) => {
                fixed == Fixed { keep_alive: secs(900), min_concurrency: floor, ..Fixed::default() }
            }
            _ => false,
        };
        plan.runs.iter().find(like).unwrap().numbers.cost
    };
    assert!((cost(0) - cost(1)).abs() < 1e-9, "{} without, {} with a floor", cost(0), cost(1));
    for recommendation in &plan.recommendations {
        let floor = value(recommendation, "local/a", "min_concurrency");
        assert_eq!(floor, None, "{:?}", recommendation.intent);
    }
}

#[test]
fn each_app_gets_what_suits_it() {
    let traffic = regular(&[("local/often", 20.0, 600), ("local/rare", 1_200.0, 60)]);
    let plan = made(
        &traffic,
        &Options {
            default_scaling: Scaling { keep_alive: secs(60), ..Scaling::default() },
            ..options()
        },
    );
    let cost = recommended(&plan, Intent::CostSensitive);
    // The gaps of one are shorter than a start is worth, those of the other far longer.
    assert_eq!(value(cost, "local/often", "keep_alive"), Some("30"));
    assert_eq!(value(cost, "local/rare", "keep_alive"), Some("0"));
    assert!(cost.change.cost_percent.unwrap() < -5.0);
    assert!(cost.change.sentence.starts_with("saves "), "{}", cost.change.sentence);
    let table: toml::Table = cost.config.parse().unwrap();
    assert_eq!(table["apps"]["local/rare"]["keep_alive"].as_integer(), Some(0));
    assert!(cost.diff.contains("-keep_alive = 60\n+keep_alive = 0\n"), "{}", cost.diff);
}

#[test]
fn budgets_are_kept_and_looser_ones_never_cost_more() {
    let traffic = poisson(40.0, 300);
    let stated = |wait: Option<(WaitMeasure, Duration)>, cost_per_day| {
        let options = Options { budget: Budget { wait, cost_per_day }, ..options() };
        let plan = made(&traffic, &options);
        recommended(&plan, Intent::Budget).clone()
    };
    for measure in [WaitMeasure::Mean, WaitMeasure::P95] {
        let mut last_cost = f64::INFINITY;
        for limit_millis in [100, 500, 1_000, 3_000, 9_000, 20_000] {
            let limit = Duration::from_millis(limit_millis);
            let found = stated(Some((measure, limit)), None);
            assert_eq!(found.met, Some(true), "{measure:?} {limit_millis}: {}", found.because);
            assert!(found.numbers.wait.by(measure) <= limit.as_secs_f64() * 1.001);
            assert!(found.numbers.cost <= last_cost, "{measure:?} {limit_millis}");
            last_cost = found.numbers.cost;
        }
    }
    let mut last_wait = f64::INFINITY;
    for cost_per_day in [8.0, 12.0, 16.0, 24.0] {
        let found = stated(None, Some(cost_per_day));
        assert_eq!(found.met, Some(true), "{cost_per_day}: {}", found.because);
        assert!(found.numbers.cost_per_day.unwrap() <= cost_per_day * 1.000_001);
        assert!(found.numbers.wait.mean_secs <= last_wait);
        last_wait = found.numbers.wait.mean_secs;
    }
    let impossible = stated(Some((WaitMeasure::P95, Duration::from_millis(1))), Some(1.0));
    assert_eq!(impossible.met, Some(false));
    assert!(impossible.because.starts_with("nothing that was tried"), "{}", impossible.because);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let traffic = regular(&[("local/a", 20.0, 150), ("local/b", 45.5, 60), ("local/c", 700.0, 5)]);
    let json = |threads| {
        let options = Options {
            setup: Some(Model::LogNormal { median_secs: 8.0, sigma: 0.4 }),
            threads: Some(threads),
            grid: Grid::Sensible,
            ..options()
        };
        serde_json::to_string(&made(&traffic, &options)).unwrap()
    };
    let one = json(1);
    assert!(one == json(4), "four threads say something else than one");
    assert!(one == json(1), "the same twice is not the same");
}

#[test]
fn what_is_held_out_judges() {
    let traffic = regular(&[("local/a", 600.0, 600)]);
    let auto = made(&traffic, &Options { holdout: Holdout::Auto, ..options() });
    assert_eq!((auto.chosen_on.requests, auto.reported_on.requests), (450, 150));
    let found = recommended(&auto, Intent::LatencyCritical);
    assert_eq!(found.numbers.requests, 150);
    assert_eq!(found.chosen_numbers.as_ref().map(|numbers| numbers.requests), Some(450));
    // A quarter of a shorter traffic is less than a day.
    let short = regular(&[("local/a", 600.0, 500)]);
    let auto = made(&short, &Options { holdout: Holdout::Auto, ..options() });
    assert_eq!(auto.reported_on.requests, 500);
    assert!(recommended(&auto, Intent::LatencyCritical).chosen_numbers.is_none());
}

#[test]
fn apps_with_few_requests_share_a_setting() {
    let traffic = regular(&[("local/a", 20.0, 300), ("local/b", 100.0, 9), ("local/c", 25.0, 8)]);
    let today = Scaling { keep_alive: secs(7), ..Scaling::default() };
    let plan = made(&traffic, &Options { default_scaling: today, ..options() });
    let found = recommended(&plan, Intent::LatencyCritical);
    let pooled: Vec<(&str, bool)> =
        found.settings.iter().map(|change| (change.app.as_str(), change.pooled)).collect();
    assert_eq!(pooled, [("local/a", false), ("local/b", true), ("local/c", true)]);
    assert_eq!(
        value(found, "local/b", "keep_alive"),
        value(found, "local/c", "keep_alive"),
        "they are pooled"
    );
}

#[test]
fn phases_are_learnt_from_starts() {
    let mut records = vec![app("local/own"), app("local/few"), app("local/none")];
    let start = |app, setup_secs| {
        Record::Start(Start {
            at: Timestamp::ZERO,
            app,
            cause: StartCause::Spike,
            pending: Duration::ZERO,
            pull: None,
            setup: secs(setup_secs),
            ready: true,
        })
    };
    records.extend((0..20).map(|_| start(0, 4)));
    records.extend((0..5).map(|_| start(1, 9)));
    records.extend((0..3).map(|app| request(app, f64::from(app))));
    let traffic = read(records);
    let plan = made(&traffic, &Options { setup: None, ..options() });
    let sources: Vec<Source> = plan.traffic.models.iter().map(|row| row.setup).collect();
    assert_eq!(sources, [Source::Own, Source::OwnFitted, Source::Pooled]);
    let medians: Vec<f64> = plan.traffic.models.iter().map(|row| row.setup_median_secs).collect();
    assert!((medians[0] - 4.0).abs() < 1e-6 && (medians[1] - 9.0).abs() < 1e-6, "{medians:?}");
    assert!(medians[2] > 4.0 && medians[2] < 9.0, "{medians:?}");
}

#[test]
fn the_bound_is_below_everything_that_does_not_wait() {
    let plan = made(&regular(&[("local/a", 60.0, 200)]), &options());
    let bound = &plan.beside[0];
    assert_eq!(bound.name, "clairvoyant, just in time");
    // A start of 10 s for every request is cheaper than a gap of 59 s.
    assert!((bound.cost * 3_600.0 - 200.0 * 11.0).abs() < 1e-6, "{}", bound.cost);
    let knative: Vec<&str> =
        plan.beside.iter().filter(|one| one.wait.is_some()).map(|one| one.name.as_str()).collect();
    assert_eq!(knative.len(), 3, "{knative:?}");
}

#[test]
fn bad_input_is_told() {
    let some = || vec![app("local/a"), request(0, 1.0)];
    let reads = |records, filter: Filter| match try_read(records, &filter) {
        Ok(traffic) => plan(&traffic, &Options { setup: None, ..options() }, &Silent)
            .map(drop)
            .unwrap_err()
            .to_string(),
        Err(error) => error.to_string(),
    };
    let all = Filter::default;
    for (records, filter, expected) in [
        (vec![app("local/a")], all(), "no request is in the trace"),
        (vec![request(0, 1.0)], all(), "the trace names app 0 before it declares it"),
        (
            vec![app("local/a"), request(0, 2.0), request(0, 1.0)],
            all(),
            "request 2 of the trace comes before the one before it",
        ),
        (
            some(),
            Filter { apps: vec!["b".to_owned()], ..all() },
            "no app of the trace is called `b`",
        ),
        (some(), Filter { sample: Some(0.0), ..all() }, "`--sample` is not a share"),
        (
            some(),
            Filter { from: Some(secs(2)), until: Some(secs(2)), ..all() },
            "`--from` is not before `--until`",
        ),
        (some(), all(), "the trace records no start that became ready"),
    ] {
        let found = reads(records, filter);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn prices_are_for_every_machine_or_for_none() {
    let traffic = regular(&[("local/a", 60.0, 200)]);
    let priced = |machine: &str, price: f64| {
        let mut prices = Prices { currency: "EUR".to_owned(), ..Prices::default() };
        prices.per_hour.insert(machine.to_owned(), price);
        plan(&traffic, &Options { prices, ..options() }, &Silent)
    };
    let (free, paid) = (made(&traffic, &options()), priced("default", 2.5).unwrap());
    assert_eq!(paid.cost_unit, CostUnit::Money("EUR".to_owned()));
    assert!((paid.today.numbers.cost - 2.5 * free.today.numbers.cost).abs() < 1e-9);
    assert!(matches!(priced("GPU-H100", 2.5), Err(Error::NoPrice { .. })));
    assert!(matches!(priced("default", f64::NAN), Err(Error::Price { .. })));
}

#[test]
fn a_plan_can_be_cancelled() {
    struct AfterThree(AtomicUsize);
    impl Progress for AfterThree {
        fn simulated(&self, _setting: &Setting) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed) >= 3
        }
    }
    let traffic = regular(&[("local/a", 60.0, 200)]);
    let found = plan(&traffic, &options(), &AfterThree(AtomicUsize::new(0)));
    assert!(matches!(found, Err(Error::Cancelled)), "{found:?}");
}

#[test]
fn a_filter_narrows() {
    let records = || {
        let mut records = vec![app("local/a"), app("local/b")];
        records.extend((0..100).map(|nth| request(nth % 2, f64::from(nth))));
        records
    };
    let count = |filter: Filter| try_read(records(), &filter).unwrap().requests();
    assert_eq!(count(Filter::default()), 100);
    assert_eq!(count(Filter { apps: vec!["b".to_owned()], ..Filter::default() }), 50);
    let window = Filter { from: Some(secs(10)), until: Some(secs(20)), ..Filter::default() };
    assert_eq!(count(window.clone()), 10);
    let first = try_read(records(), &window).unwrap().arrivals().next().unwrap();
    assert_eq!(first.at, Timestamp::ZERO);
}

#[test]
fn the_automatic_policy_is_one_of_the_settings() {
    let grid = Grid::Only(
        [5.0, 30.0].map(|wait_price| Setting::Auto(Auto { wait_price, budget: None })).into(),
    );
    let traffic = regular(&[("local/a", 60.0, 3_000)]);
    let holdout = Holdout::Share(0.5);
    let plan = made(&traffic, &Options { grid, holdout, ..options() });
    let found = recommended(&plan, Intent::LatencyCritical);
    let table: toml::Table = found.config.parse().unwrap();
    let set = |key: &str| table["apps"]["local/a"].get(key).map(ToString::to_string);
    assert_eq!(set("policy").as_deref(), Some("\"auto\""));
    assert_eq!(set("wait_price").as_deref(), Some("5"), "both do the same, and this is the first");
    // It has learnt that it pays from what was before, so no request waits in the half that counts.
    assert_eq!(found.numbers.requests, 1_500);
    assert_eq!(found.numbers.cold, 0, "{}", found.because);
    assert!(found.chosen_numbers.as_ref().unwrap().cold > 0);
}

#[test]
fn little_traffic_is_said_to_say_little() {
    for (gap_secs, count, little) in
        [(1.0, 8, true), (10.0, 60, true), (600.0, 8, true), (100.0, 60, false)]
    {
        let plan = made(&regular(&[("a", gap_secs, count)]), &options());
        let said = plan.notes.iter().any(|note| note.contains("say little"));
        assert_eq!(said, little, "{count} requests, one each {gap_secs} s");
    }
}
