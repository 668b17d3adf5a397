//! Tables of other people: CSV, counts per minute, tokens.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_sim::trace::{Format, Names, NoService, Options, Stamp, TokenTimes, Unit};

use crate::reading::{Row, read, read_with};

fn named(time: &str, app: &str, service: &str) -> Options {
    let name = |name: &str| Some(name.to_owned());
    Options {
        names: Names {
            time: name(time),
            app: name(app),
            service: name(service),
            ..Names::default()
        },
        ..Options::default()
    }
}

#[test]
fn csv_columns_are_found_by_name() {
    let check = |text: &str, options: &Options, expected: &[Row<'_>]| {
        let found = read(text, options).unwrap();
        assert_eq!(found.trace.format(), Format::Csv, "{text}");
        assert_eq!(found.rows(), expected, "{text}");
    };
    let usual = Options::default();
    let two = [("me/a", 0, Some(1_500), Some(200)), ("me/b", 1_250, Some(20), None)];
    check(
        "time,app,service_ms,status\n10,me/a,1500,200\n11.25,me/b,20,\n",
        &usual,
        &[("me/a", 10_000, Some(1_500), Some(200)), ("me/b", 11_250, Some(20), None)],
    );
    let wall = "app,timestamp,duration_ms,status\n\
                me/a,2024-11-15 16:57:50,1500,200\nme/b,2024-11-15T16:57:51.25Z,20,\n";
    check(wall, &usual, &two);
    check(&wall.replace('\n', "\r\n"), &usual, &two);
    check(&format!("\u{feff}{wall}"), &usual, &two);
    check(&wall.replace(',', ";"), &usual, &two);
    check(&wall.replace(',', "\t"), &usual, &two);
    check(wall.trim_end(), &usual, &two);
    check(
        "\"time\",\"app\"\n\"5\",\"me/a, the \"\"first\"\"\"\n",
        &usual,
        &[("me/a, the \"first\"", 5_000, None, None)],
    );
    let named = named("when", "who", "took");
    let odd = "who,when,took\nx,1731689870,1.5\nx,1731689870,2s\nx,1731689871,30ms\n";
    check(
        odd,
        &named,
        &[("x", 0, Some(1_500), None), ("x", 0, Some(2_000), None), ("x", 1_000, Some(30), None)],
    );
    let unit = Options { service_unit: Some(Unit::Micros), ..named.clone() };
    check("who,when,took\nx,1,1500\n", &unit, &[("x", 1_000, Some(1), None)]);
    let millis = Options { time_unit: Some(Unit::Millis), ..named };
    check("who,when,took\nx,1500,1\n", &millis, &[("x", 1_500, Some(1_000), None)]);
    let one = Options { one_app: Some("all".into()), ..Options::default() };
    check("time,what\n1,a\n2,b\n", &one, &[("all", 1_000, None, None), ("all", 2_000, None, None)]);
    let ends = Options { stamp: Some(Stamp::End), ..Options::default() };
    check(
        "time,app,service\n9,a,1\n9,a,0.5\n",
        &ends,
        &[("a", 8_000, Some(1_000), None), ("a", 8_500, Some(500), None)],
    );
}

#[test]
fn the_beginning_is_the_first_arrival_of_a_wall_clock() {
    let began = |text: &str| read(text, &Options::default()).unwrap().trace.header().began;
    let noon = Timestamp::from_secs(1_731_689_870);
    assert_eq!(began("time,app\n2024-11-15 16:57:50,a\n2024-11-15 17:00:00,a\n"), Some(noon));
    assert_eq!(began("time,app\n5,a\n"), None);
    assert_eq!(began("time,app\n"), None);
}

#[test]
fn rows_without_a_service_time_are_dropped_or_kept() {
    let text = "time,app,service\n1,a,\n2,a,0\n3,a,0.000\n4,a,null\n5,b,2\n";
    let dropped = read(text, &Options::default()).unwrap();
    assert_eq!(dropped.rows(), [("b", 5_000, Some(2_000), None)]);
    assert_eq!(dropped.left_out(), (4, 0));
    let keep = Options { no_service: NoService::Keep, ..Options::default() };
    let kept = read(text, &keep).unwrap();
    assert_eq!(kept.rows().len(), 5);
    assert_eq!(kept.rows()[0], ("a", 1_000, None, None));
    assert_eq!(kept.left_out(), (0, 0));
}

#[test]
fn a_window_puts_rows_in_order() {
    let text = "time,app\n5,a\n3,b\n4,c\n9,d\n";
    let window = Options { reorder: Some(Duration::from_secs(2)), ..Options::default() };
    let found = read(text, &window).unwrap();
    let order: Vec<(&str, u64)> = found.rows().iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(order, [("b", 3_000), ("c", 4_000), ("a", 5_000), ("d", 9_000)]);
}

const MINUTES: &str = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\n\
                       o,one,f1,http,2,0,3\n\
                       o,two,f2,timer,1,1,1\n\
                       o,one,f3,queue,0,0,400\n";

#[test]
fn counts_become_requests_in_their_minutes() {
    for text in [MINUTES.to_owned(), MINUTES.replace(",1,2,3\n", ",minute_1,minute_2,minute_3\n")] {
        let found = read(&text, &Options::default()).unwrap();
        assert_eq!(found.trace.format(), Format::AzureMinutes);
        assert_eq!(found.names, ["one", "two"]);
        let count = |app: u32, minute: u64| {
            let inside = |at: u64| at / 60_000_000 == minute;
            let wanted = found.requests.iter();
            wanted.filter(|one| one.app == app && inside(one.at.as_micros())).count()
        };
        let counts = [0, 1, 2].map(|minute| (count(0, minute), count(1, minute)));
        assert_eq!(counts, [(2, 1), (0, 1), (403, 1)]);
        assert!(found.requests.is_sorted_by_key(|request| request.at));
        assert!(found.requests.iter().all(|request| request.service.is_none()));
        // Uniform over the minute: the mean of 403 is within 4 standard errors of its middle.
        let last: Vec<u64> = found.requests.iter().map(|one| one.at.as_micros()).collect();
        let last: Vec<u64> = last.into_iter().filter(|at| *at >= 120_000_000).collect();
        let mean = last.iter().sum::<u64>() / last.len() as u64;
        assert!(mean.abs_diff(150_000_000) < 3_500_000, "{mean}");
    }
}

#[test]
fn a_seed_decides_what_counts_leave_open() {
    let with = |seed| read(MINUTES, &Options { seed, ..Options::default() }).unwrap().requests;
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn functions_take_as_long_as_their_durations_say() {
    let durations = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,\
        percentile_Average_0,percentile_Average_1,percentile_Average_25,percentile_Average_50,\
        percentile_Average_75,percentile_Average_99,percentile_Average_100\n\
        o,two,f2,40,9,40,40,40,40,40,40,40,40,40\n\
        o,one,f3,150,9,100,900,100,100,100,100,200,400,800\n\
        o,one,unknown,1,1,1,1,1,1,1,1,1,1,1\n";
    let found = read_with(MINUTES, Some(durations), &Options::default()).unwrap();
    let of = |app: u32| {
        let requests = found.requests.iter().filter(move |request| request.app == app);
        requests.filter_map(|request| request.service).collect::<Vec<_>>()
    };
    assert_eq!(of(1), [Duration::from_millis(40); 3]);
    // The five of the function without durations have none.
    let mut long = of(0);
    assert_eq!(long.len(), 400);
    long.sort();
    let near = |share: usize, low: u64, high: u64| {
        let found = long[share * 4];
        let range = Duration::from_millis(low)..=Duration::from_millis(high);
        assert!(range.contains(&found), "{share} %: {found:?}");
    };
    near(0, 100, 100);
    // Within 4 standard errors of the share, among 400.
    near(40, 100, 100);
    near(75, 155, 260);
    near(97, 340, 500);
    assert!(long[399] > Duration::from_millis(400) && long[399] < Duration::from_millis(800));

    let average = "HashFunction,Average\nf3,70\nf2,0\n";
    let found = read_with(MINUTES, Some(average), &Options::default()).unwrap();
    let mut all: Vec<Duration> = found.requests.iter().filter_map(|one| one.service).collect();
    all.sort();
    all.dedup();
    assert_eq!(all, [Duration::from_micros(500), Duration::from_millis(70)]);
}

#[test]
fn tokens_become_time() {
    let tokens =
        TokenTimes { prefill: Duration::from_millis(1), decode: Duration::from_millis(10) };
    let options = Options { tokens, ..Options::default() };
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                 2023-11-16 18:17:03.9799600,100,10\n2023-11-16 18:17:04.0319600,7,0\n";
    let found = read(azure, &options).unwrap();
    assert_eq!(found.trace.format(), Format::AzureLlm);
    assert_eq!(found.rows(), [("trace/llm", 0, Some(200), None), ("trace/llm", 52, Some(7), None)]);
    assert_eq!(found.trace.header().began, Some(Timestamp::from_micros(1_700_158_623_979_960)));

    let mooncake = "{\"timestamp\": 0, \"input_length\": 100, \"output_length\": 10, \
                    \"hash_ids\": [1, 2]}\n\
                    {\"timestamp\": 27482, \"input_length\": 7, \"output_length\": 1, \
                    \"hash_ids\": []}\n";
    let named = Options { one_app: Some("me/chat".into()), ..options };
    let found = read(mooncake, &named).unwrap();
    assert_eq!(found.trace.format(), Format::Mooncake);
    assert_eq!(
        found.rows(),
        [("me/chat", 0, Some(200), None), ("me/chat", 27_482, Some(17), None)]
    );
    assert_eq!(found.trace.header().began, None);
}

#[test]
fn files_may_be_packed_with_zstd() {
    let text = "time,app\n1,a\n2,b\n";
    let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a.csv", text.as_bytes()), ("a.csv.zst", &packed)] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let trace = glowplug_sim::trace::open(&path, &Options::default()).unwrap();
        assert_eq!(trace.map(Result::unwrap).count(), 4, "{name}");
    }
}
