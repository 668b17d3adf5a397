//! Parts of a trace, and what is in one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::request::{Mode, Priority};
use glowplug_sim::trace::{
    Error, Reader, Record, SAMPLES_MAX, Selection, Summary, arrivals, select,
};
use glowplug_sim::traffic::Arrival;

const TRACE: &str = r#"{"glowplug_trace":1}
a {"name":"a"}
a {"name":"b"}
r 1000000 0 q 10000
r 2000000 1 d 20000 500
s 2000000 1 spike 0 3000000 4000000 1
s 2500000 0 expired 0 - 100000 0
r 3000000 0 q 30000
e 3500000 1 keep_alive 9 1
r 4000000 1 ql - - 1 - 7000000
"#;

fn records() -> impl Iterator<Item = Result<Record, Error>> {
    Reader::new(TRACE.as_bytes()).unwrap()
}

/// Each record as its letter, its app, and its time in tenths of a second.
fn short(records: impl Iterator<Item = Result<Record, Error>>) -> String {
    let one = |record: Result<Record, Error>| {
        let tenths = |at: Timestamp| at.as_micros() / 100_000;
        match record.unwrap() {
            Record::App(app) => app.name,
            Record::Request(one) => format!("r{}@{}", one.app, tenths(one.at)),
            Record::Start(one) => format!("s{}@{}", one.app, tenths(one.at)),
            Record::Stop(one) => format!("e{}@{}", one.app, tenths(one.at)),
        }
    };
    records.map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn parts_of_a_trace_are_selected() {
    let check = |selection: Selection, expected: &str| {
        assert_eq!(short(select(records(), selection.clone())), expected, "{selection:?}");
    };
    let base = Selection::default;
    let tenths = |tenths: u64| Some(Duration::from_millis(tenths * 100));
    check(base(), "a b r0@10 r1@20 s1@20 s0@25 r0@30 e1@35 r1@40");
    check(Selection { requests_max: Some(2), ..base() }, "a b r0@10 r1@20 s1@20 s0@25");
    check(Selection { requests_max: Some(0), ..base() }, "a b");
    check(Selection { from: tenths(25), ..base() }, "a b s0@25 r0@30 e1@35 r1@40");
    check(Selection { until: tenths(30), ..base() }, "a b r0@10 r1@20 s1@20 s0@25");
    check(Selection { from: tenths(20), until: tenths(25), ..base() }, "a b r1@20 s1@20");
    let apps = BTreeSet::from(["b".to_owned()]);
    check(Selection { apps: apps.clone(), ..base() }, "b r0@20 s0@20 e0@35 r0@40");
    check(Selection { apps, requests_max: Some(1), ..base() }, "b r0@20 s0@20 e0@35");
    check(Selection { apps: BTreeSet::from(["c".to_owned()]), ..base() }, "");
}

#[test]
fn requests_arrive_as_they_were_recorded() {
    let arrivals: Vec<Arrival> = arrivals(records()).map(Result::unwrap).collect();
    let at = Timestamp::from_secs;
    let expected = [
        Arrival::new(at(1), 0, Some(Duration::from_millis(10))),
        Arrival { mode: Mode::Direct, ..Arrival::new(at(2), 1, Some(Duration::from_millis(20))) },
        Arrival::new(at(3), 0, Some(Duration::from_millis(30))),
        Arrival {
            priority: Priority::Low,
            start_within: Some(Duration::from_secs(7)),
            ..Arrival::new(at(4), 1, None)
        },
    ];
    assert_eq!(arrivals, expected);
}

#[test]
fn a_summary_tells_what_is_in_a_trace() {
    let summary = Summary::of(records()).unwrap();
    assert_eq!((summary.requests, summary.starts, summary.stops), (4, 2, 1));
    assert_eq!(summary.span, Some((Timestamp::from_secs(1), Timestamp::from_secs(4))));
    let [a, b] = summary.apps.as_slice() else { panic!("there are two apps") };
    let millis = |millis| Some(Duration::from_millis(millis));
    assert_eq!((a.app.name.as_str(), a.requests, a.service.count()), ("a", 2, 2));
    assert_eq!((a.service.mean(), a.service.max()), (millis(20), millis(30)));
    assert_eq!((a.service.quantile(0.5), a.service.quantile(0.99)), (millis(10), millis(30)));
    assert_eq!((a.starts, a.failed_starts, a.setups.count()), (1, 1, 0));
    assert_eq!(a.waited.mean(), None);
    assert_eq!((b.requests, b.service.count(), b.waited.count()), (2, 1, 1));
    assert_eq!(b.span, Some((Timestamp::from_secs(2), Timestamp::from_secs(4))));
    assert_eq!(
        (b.setups.samples(), b.pulls.samples()),
        ([Duration::from_secs(4)].as_slice(), [Duration::from_secs(3)].as_slice(),)
    );
}

#[test]
fn a_summary_of_many_keeps_a_fair_share() {
    let mut text = "{\"glowplug_trace\":1}\na {\"name\":\"a\"}\n".to_owned();
    for at in 1..=100_000 {
        writeln!(text, "r {at} 0 q {at}").unwrap();
    }
    let summary = Summary::of(Reader::new(text.as_bytes()).unwrap()).unwrap();
    let service = &summary.apps[0].service;
    assert_eq!((service.count(), service.samples().len()), (100_000, SAMPLES_MAX));
    assert_eq!(service.mean(), Some(Duration::from_nanos(50_000_500)));
    for share in [0.1, 0.5, 0.9, 0.99] {
        let found = service.quantile(share).unwrap().as_secs_f64() / 0.1;
        // 4 standard errors of a share among 1,024.
        let slack = 4.0 * (share * (1.0 - share) / 1_024.0_f64).sqrt();
        assert!((found - share).abs() < slack, "{share}: {found}");
    }
}

#[test]
fn an_error_ends_a_summary() {
    let text = "{\"glowplug_trace\":1}\na {\"name\":\"a\"}\nr 1 7 q\n";
    let error = Summary::of(Reader::new(text.as_bytes()).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("line 3:"), "{error}");
}
