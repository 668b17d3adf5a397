//! Our own format: what goes in comes out, and what is cut or wrong has a line number.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::auto;
use glowplug_core::decision::StartCause;
use glowplug_core::request::{Mode, Priority};
use glowplug_core::spec::{Policy, Scaling};
use glowplug_sim::trace::limits::NAME_BYTES_MAX;
use glowplug_sim::trace::{
    App, Error, Header, LEVEL_DEFAULT, Reader, Record, Request, Start, Stop, Writer,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const TINY: &str = r#"{"glowplug_trace":1,"minor":1,"began_micros":1700000000000000,"made_by":"a test"}
a {"name":"me/ocr","machine_type":"GPU","scaling":{"keep_alive_micros":60000000,"max_multiplexing":4}}
r 0 0 q 2300000 120000 1 200
s 0 0 first_deployment 0 - 1200000 1
a {"name":"me/echo"}
r 1500000 1 d
r 1500000 0 ql - - 3 - 30000000
e 65000000 0 keep_alive 65000000 2
"#;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn tiny() -> Vec<Record> {
    let scaling =
        Scaling { keep_alive: Duration::from_mins(1), max_multiplexing: 4, ..Scaling::default() };
    let ocr =
        App { name: "me/ocr".into(), scaling: Some(scaling), machine_type: Some("GPU".into()) };
    vec![
        Record::App(ocr),
        Record::Request(Request {
            waited: Some(Duration::from_millis(120)),
            status: Some(200),
            ..Request::new(at(0), 0, Some(Duration::from_millis(2_300)))
        }),
        Record::Start(Start {
            at: at(0),
            app: 0,
            cause: StartCause::FirstDeployment,
            pending: Duration::ZERO,
            pull: None,
            setup: Duration::from_millis(1_200),
            ready: true,
        }),
        Record::App(App::named("me/echo")),
        Record::Request(Request { mode: Mode::Direct, ..Request::new(at(1_500_000), 1, None) }),
        Record::Request(Request {
            priority: Priority::Low,
            attempts: 3,
            start_within: Some(Duration::from_secs(30)),
            ..Request::new(at(1_500_000), 0, None)
        }),
        Record::Stop(Stop {
            at: at(65_000_000),
            app: 0,
            reason: "keep_alive".into(),
            lived: Duration::from_secs(65),
            served: 2,
        }),
    ]
}

fn header() -> Header {
    Header { began: Some(at(1_700_000_000_000_000)), made_by: "a test".into() }
}

fn write(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header(), LEVEL_DEFAULT).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, Error> {
    Reader::new(bytes)?.collect()
}

fn says(bytes: &[u8], expected: &str) {
    assert_eq!(read(bytes).unwrap_err().to_string(), expected);
}

#[test]
fn plain_text_is_read() {
    assert_eq!(read(TINY.as_bytes()).unwrap(), tiny());
    assert_eq!(*Reader::new(TINY.as_bytes()).unwrap().header(), header());
}

#[test]
fn what_is_written_is_compressed_text() {
    let text = String::from_utf8(zstd::decode_all(write(&tiny()).as_slice()).unwrap()).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    assert_eq!(header, TINY.lines().next().unwrap());
    // An app's scaling is written out whole, so that later defaults do not change what it says.
    let expected: Vec<&str> = TINY.lines().skip(2).collect();
    assert_eq!(rest.lines().skip(1).collect::<Vec<_>>(), expected);
    assert!(rest.contains(r#""termination_grace_period_micros":5000000"#), "{rest}");
    assert_eq!(read(&write(&tiny())).unwrap(), tiny());
}

#[test]
fn a_cut_trace_says_after_which_line() {
    let bytes = write(&tiny());
    for length in 1..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        let told = matches!(
            error,
            Error::Cut { line } | Error::Line { line, .. } if line <= 9
        );
        assert!(told, "cut at {length}: {error}");
    }
    assert!(matches!(read(&[]), Err(Error::Empty)));
    let text = TINY.trim_end();
    says(
        text.as_bytes(),
        "the trace ends in the middle, after line 7: copy or export it again, \
         or go on with the lines before",
    );
}

#[test]
fn what_was_flushed_is_read_though_the_rest_is_lost() {
    let mut writer = Writer::new(Vec::new(), &header(), LEVEL_DEFAULT).unwrap();
    writer.write(&Record::App(App::named("a"))).unwrap();
    writer.write(&Record::Request(Request::new(at(1), 0, None))).unwrap();
    writer.flush().unwrap();
    let kept = writer.get_ref().clone();
    let mut reader = Reader::new(kept.as_slice()).unwrap();
    assert_eq!(reader.by_ref().filter_map(Result::ok).count(), 2);
    let mut reader = Reader::new(kept.as_slice()).unwrap();
    assert!(matches!(reader.by_ref().last(), Some(Err(Error::Cut { line: 3 }))));
    assert!(reader.next().is_none());
}

#[test]
fn flipped_bits_never_change_what_is_read() {
    let bytes = write(&tiny());
    let (mut found, mut harmless) = (0, 0);
    for position in 4..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[position] ^= 1 << bit;
            // Some bits have no meaning for the content: how much memory to set aside, for one.
            match read(&bad) {
                Ok(records) => {
                    assert_eq!(records, tiny(), "bit {bit} of byte {position}");
                    harmless += 1;
                }
                Err(_) => found += 1,
            }
        }
    }
    assert!(found > 50 * harmless, "{found} found, {harmless} harmless");
}

#[test]
fn frames_and_parts_are_joined() {
    let mut bytes = write(&tiny());
    let later = Header { began: Some(at(1_700_000_100_000_000)), made_by: "a test".into() };
    let mut second = Writer::new(Vec::new(), &later, 19).unwrap();
    let other = App { scaling: None, ..App::named("me/other") };
    for record in [
        Record::App(App::named("me/echo")),
        Record::App(other.clone()),
        Record::Request(Request::new(at(7), 0, None)),
        Record::Request(Request::new(at(7), 1, None)),
    ] {
        second.write(&record).unwrap();
    }
    bytes.extend(second.finish().unwrap());
    let mut expected = tiny();
    expected.push(Record::App(other));
    expected.push(Record::Request(Request::new(at(100_000_007), 1, None)));
    expected.push(Record::Request(Request::new(at(100_000_007), 2, None)));
    assert_eq!(read(&bytes).unwrap(), expected);
}

#[test]
fn mistakes_are_named_with_their_line() {
    let check = |lines: &[&str], expected: &str| {
        let mut text = "{\"glowplug_trace\":1}\na {\"name\":\"me/app\"}\n".to_owned();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        says(text.as_bytes(), expected);
    };
    check(
        &["r 5 0 q", "r 4 0 q"],
        "line 4: the request at 0.000004s comes after one at \
         0.000005s: the requests must be in order of time",
    );
    check(&["r 5 1 q"], "line 3: app 1 is not declared: 1 are, counted from 0");
    check(&["a {\"name\":\"me/app\"}"], "line 3: the app `me/app` is declared twice");
    check(&["a {\"name\":\"\"}"], "line 3: the app cannot be read: `name` is empty");
    check(
        &["a {\"name\":\"b\",\"scaling\":{\"max_multiplexing\":0}}"],
        "line 3: the app cannot be \
         read: `max_multiplexing` is 0; a runner must serve at least 1 request",
    );
    check(&["r -5 0 q"], "line 3: the field `at` is `-5`, which is no whole number in range");
    check(&["r 1 0"], "line 3: the field `mode` is missing");
    check(&["r 1 0 x"], "line 3: the field `mode` is `x`, and must be `q`, `d`, `ql` or `dl`");
    check(
        &["r 1 0 q 5x"],
        "line 3: the field `service` is `5x`, which is no whole number in range",
    );
    check(
        &["r 1 0 q - - 1 70000"],
        "line 3: the field `status` is `70000`, which is no whole \
         number in range",
    );
    check(&["r 1 0 q - - 1 - - 9"], "line 3: there is more behind the last field");
    check(
        &["r 99999999999999999999 0 q"],
        "line 3: the field `at` is `99999999999999999999`, which \
         is no whole number in range",
    );
    check(&["r 9999999999999999 0 q"], "line 3: at of 2777777 h 46 min is more than 876000 h");
    check(&["s 1 0 boredom 0 - 0 1"], "line 3: `boredom` is no cause of a start");
    check(
        &["e 1 0 Keep 0 1"],
        "line 3: the field `reason` is `Keep`, and must be of a-z, 0-9 \
         and _",
    );
    check(&["x 1"], "line 3: no record begins with `x`: the records are `a`, `r`, `s` and `e`");
    check(&[""], "line 3: no record begins with ` `: the records are `a`, `r`, `s` and `e`");
    check(
        &["{\"glowplug_trace\":1}"],
        "line 3: a second part begins here and cannot be joined to \
         the first: both headers must have `began_micros`, and not an earlier one",
    );
}

#[test]
fn other_files_and_versions_are_refused() {
    says(
        b"a,b\n1,2\n",
        "line 1: this is not a trace: it has no header such as \
         {\"glowplug_trace\":1}",
    );
    says(
        b"{\"glowplug_trace\":2,\"new\":[]}\n",
        "line 1: the trace has version 2 and this program \
         reads up to 1: update it",
    );
    says(
        b"\xff\xfe\x00garbage",
        "line 1: this is not a trace: it has no header such as \
         {\"glowplug_trace\":1}",
    );
    let long = vec![b'x'; 3_000_000];
    says(&long, "line 1: it is longer than 1048576 bytes");
}

#[test]
fn additions_of_newer_programs_are_passed_over() {
    let lines =
        "a {\"name\":\"b\",\"new\":1}\nq 1 new\ns 0 0 new_cause 0 - 0 1\nr 1 0 q 5 - 1 - - new\n";
    let newer = format!("{{\"glowplug_trace\":1,\"minor\":7,\"new\":2}}\n{lines}");
    let expected = [
        Record::App(App::named("b")),
        Record::Request(Request::new(at(1), 0, Some(Duration::from_micros(5)))),
    ];
    assert_eq!(read(newer.as_bytes()).unwrap(), expected);
    let same = format!("{{\"glowplug_trace\":1}}\n{lines}");
    says(
        same.as_bytes(),
        "line 3: no record begins with `q`: the records are `a`, `r`, `s` and \
         `e`",
    );
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = Writer::new(Vec::new(), &header(), LEVEL_DEFAULT).unwrap();
    let good = [Record::App(App::named("b")), Record::Request(Request::new(at(9), 0, None))];
    for record in &good {
        writer.write(record).unwrap();
    }
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for bad in [
        Record::Request(Request::new(at(8), 0, None)),
        Record::Request(Request::new(at(9), 1, None)),
        Record::Request(Request::new(at(9), 0, Some(Duration::MAX))),
        Record::App(App::named("b")),
        Record::App(App::named(long)),
    ] {
        let error = writer.write(&bad).unwrap_err();
        assert!(matches!(error, Error::Line { line: 4, .. }), "{error}");
    }
    assert_eq!(read(&writer.finish().unwrap()).unwrap(), good);
}

/// What a record says, but for its place in the trace.
#[derive(Clone, Debug)]
enum Seed {
    App(App),
    Request { later: u64, app: usize, like: Request },
    Start { later: u64, app: usize, like: Start },
    Stop { later: u64, app: usize, like: Stop },
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(0), 0..5_000_u64, 0..4_000_000_000_u64].prop_map(Duration::from_micros)
}

fn policy() -> impl Strategy<Value = Policy> {
    // JSON keeps no more digits than people write.
    let thousandths = |number: u32| f64::from(number) / 1_000.0;
    let budget = option::of((span(), 1..1_000_u32));
    option::of((0..1_000_000_u32, budget, span())).prop_map(move |aims| match aims {
        None => Policy::Fixed,
        Some((price, budget, keep_max)) => {
            let budget =
                budget.map(|(wait, share)| auto::Budget { wait, share: thousandths(share) });
            Policy::Auto(auto::Settings { wait_price: thousandths(price), budget, keep_max })
        }
    })
}

fn scaling() -> impl Strategy<Value = Scaling> {
    let spans = (span(), span(), option::of(span()), option::of(span()));
    (policy(), spans, 0..5_u32, option::of(5..9_u32), 1..9_u32).prop_map(
        |(policy, (keep_alive, scaling_delay, unused, frozen_for), floor, cap, multiplexing)| {
            Scaling {
                policy,
                keep_alive,
                scaling_delay,
                min_concurrency: floor,
                max_concurrency: cap,
                max_multiplexing: multiplexing,
                unused_runner_timeout: unused,
                frozen_for,
                ..Scaling::default()
            }
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let known = (option::of(span()), option::of(span()), option::of(span()));
    (known, any::<(bool, bool)>(), 0..4_u32, option::of(100..600_u16)).prop_map(
        |((service, waited, start_within), (direct, low), attempts, status)| Request {
            mode: if direct { Mode::Direct } else { Mode::Queued },
            priority: if low { Priority::Low } else { Priority::Normal },
            waited,
            attempts,
            status,
            start_within,
            ..Request::new(Timestamp::ZERO, 0, service)
        },
    )
}

fn seed() -> impl Strategy<Value = Seed> {
    let place = || (0..10_000_000_000_u64, any::<usize>());
    let app = (option::of(scaling()), option::of("[A-Z0-9-]{1,8}"), "\\PC{1,20}");
    let start =
        (place(), 0..StartCause::ALL.len(), span(), option::of(span()), span(), any::<bool>());
    prop_oneof![
        1 => app.prop_map(|(scaling, machine_type, name)| {
            Seed::App(App { name, scaling, machine_type })
        }),
        6 => (place(), request()).prop_map(|((later, app), like)| Seed::Request { later, app, like }),
        2 => start.prop_map(|((later, app), cause, pending, pull, setup, ready)| Seed::Start {
            later,
            app,
            like: Start {
                at: Timestamp::ZERO,
                app: 0,
                cause: StartCause::ALL[cause],
                pending,
                pull,
                setup,
                ready,
            },
        }),
        2 => (place(), "[a-z_]{1,20}", span(), any::<u64>()).prop_map(
            |((later, app), reason, lived, served)| Seed::Stop {
                later,
                app,
                like: Stop { at: Timestamp::ZERO, app: 0, reason, lived, served },
            },
        ),
    ]
}

/// Puts what was drawn in order: apps before what names them, times that do not go back.
fn arrange(seeds: Vec<Seed>) -> Vec<Record> {
    let mut apps = 1;
    let (mut request, mut start, mut stop) = (at(0), at(0), at(0));
    let mut records = vec![Record::App(App::named("first"))];
    let advance = |clock: &mut Timestamp, later| {
        *clock = *clock + Duration::from_micros(later);
        *clock
    };
    let index = |app: usize, apps: usize| u32::try_from(app % apps).unwrap();
    for seed in seeds {
        records.push(match seed {
            Seed::App(mut app) => {
                app.name.push_str(&apps.to_string());
                apps += 1;
                Record::App(app)
            }
            Seed::Request { later, app, like } => {
                let at = advance(&mut request, later);
                Record::Request(Request { at, app: index(app, apps), ..like })
            }
            Seed::Start { later, app, like } => {
                let at = advance(&mut start, later);
                Record::Start(Start { at, app: index(app, apps), ..like })
            }
            Seed::Stop { later, app, like } => {
                let at = advance(&mut stop, later);
                Record::Stop(Stop { at, app: index(app, apps), ..like })
            }
        });
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_records_survive(seeds in vec(seed(), 0..60), level in 1..6_i32) {
        let records = arrange(seeds);
        let mut writer = Writer::new(Vec::new(), &header(), level).unwrap();
        for record in &records {
            writer.write(record).unwrap();
        }
        prop_assert_eq!(read(&writer.finish().unwrap()).unwrap(), records);
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..400), text in "[ars e0-9 -]{0,80}") {
        let _ = read(&bytes);
        let head = "{\"glowplug_trace\":1}\na {\"name\":\"b\"}\n";
        let _ = read(format!("{head}{text}\n").as_bytes());
        let mut compressed = write(&tiny());
        compressed.truncate(20);
        compressed.extend(bytes);
        prop_assert!(read(&compressed).is_err());
    }
}
