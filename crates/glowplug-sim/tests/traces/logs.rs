//! Access logs and JSON logs of the usual servers.

use std::time::Duration;

use glowplug_core::request::Mode;
use glowplug_sim::trace::{Format, Names, Options, Stamp, Unit};

use crate::reading::{Row, complaint, read};

/// An access log: each line's time of day, request and what follows it.
fn log(lines: &[(&str, &str, &str)]) -> String {
    let line = |(time, request, rest): &(&str, &str, &str)| {
        format!("10.0.0.1 - - [15/Nov/2024:{time} +0000] \"{request} HTTP/1.1\" {rest}\n")
    };
    lines.iter().map(line).collect()
}

#[test]
fn access_logs_tell_arrivals_by_their_ends() {
    let check = |lines: &[(&str, &str, &str)], options: &Options, expected: &[Row<'_>]| {
        let found = read(&log(lines), options).unwrap();
        assert_eq!(found.trace.format(), Format::AccessLog);
        assert_eq!(found.rows(), expected, "{lines:?}");
    };
    let usual = Options::default();
    // The second ended first and came last.
    let lines = [
        ("16:57:58", "POST /run/me/b", "200 5 \"-\" \"curl/8 (x)\" 0.250"),
        ("16:58:00", "POST /run/me/a/sub?x=1", "500 5 \"-\" \"curl/8\" 10.000"),
    ];
    check(
        &lines,
        &usual,
        &[("me/a", 0, Some(10_000), Some(500)), ("me/b", 7_750, Some(250), Some(200))],
    );
    let starts = Options { stamp: Some(Stamp::Start), ..Options::default() };
    check(
        &lines,
        &starts,
        &[("me/b", 0, Some(250), Some(200)), ("me/a", 2_000, Some(10_000), Some(500))],
    );
    check(&[("16:57:58", "GET /me/a", "200 5")], &usual, &[("me/a", 0, None, Some(200))]);
    check(&[("16:57:58", "GET /me/a", "200 5 35ms")], &usual, &[("me/a", 0, Some(35), Some(200))]);
    check(&[("16:57:58", "GET /me/a", "200 5 35")], &usual, &[("me/a", 0, None, Some(200))]);
    let unit = Options { service_unit: Some(Unit::Micros), ..Options::default() };
    check(&[("16:57:58", "GET /me/a", "200 5 35000")], &unit, &[("me/a", 0, Some(35), Some(200))]);
    let pattern = Options { app_path: Some("/v1/{app}/*".into()), ..Options::default() };
    check(&[("16:57:58", "GET /v1/a/x", "200 5")], &pattern, &[("a", 0, None, Some(200))]);
    let one = Options { one_app: Some("web".into()), ..Options::default() };
    check(&[("16:57:58", "GET /any", "200 5")], &one, &[("web", 0, None, Some(200))]);
}

#[test]
fn what_is_no_request_to_an_app_is_counted() {
    let mut text = log(&[
        ("16:57:58", "GET /metrics", "200 5 0.001"),
        ("16:57:58", "GET /queue/me/a/requests/1/status", "200 5 0.001"),
        ("16:57:58", "POST /queue/me/a", "200 5 0.001"),
        ("16:57:58", "POST /run/me/a", "200 5 0.000"),
        ("16:57:59", "POST /run/me/a", "200 5 1.000"),
    ]);
    text.push_str("10.0.0.1 - - [15/Nov/2024:16:57:59 +0000] \"\\x16\\x03\" 400 0 0.000\n\n");
    let found = read(&text, &Options::default()).unwrap();
    assert_eq!(found.left_out(), (1, 3));
    // The queue's receipt says nothing about the work.
    let expected = [("me/a", 0, None, Some(200)), ("me/a", 1, Some(1_000), Some(200))];
    assert_eq!(found.rows(), expected);
    let modes: Vec<Mode> = found.requests.iter().map(|request| request.mode).collect();
    assert_eq!(modes, [Mode::Queued, Mode::Direct]);
}

#[test]
fn a_request_longer_than_the_window_is_an_error() {
    let text = log(&[
        ("16:00:00", "POST /run/me/a", "200 5 1.000"),
        ("17:00:00", "POST /run/me/a", "200 5 1.000"),
        ("18:30:00", "POST /run/me/a", "200 5 1.000"),
        ("18:30:01", "POST /run/me/a", "200 5 9000.000"),
    ]);
    assert_eq!(
        complaint(&text, &Options::default()),
        "line 4: it came 59 min 58 s before one that went ahead of it, and the reorder window is \
         1 h: sort the file by time, or raise `--reorder`"
    );
    let wider = Options { reorder: Some(Duration::from_hours(3)), ..Options::default() };
    assert_eq!(read(&text, &wider).unwrap().rows()[1], ("me/a", 2_000, Some(9_000_000), Some(200)));
}

#[test]
fn json_logs_of_the_usual_servers_are_understood() {
    let check = |text: &str, options: &Options, expected: &[Row<'_>]| {
        let found = read(text, options).unwrap();
        assert_eq!(found.trace.format(), Format::JsonLog);
        assert_eq!(found.rows(), expected, "{text}");
    };
    let usual = Options::default();
    let row = [("me/a", 0, Some(250), Some(200))];
    let nginx = "{\"time_iso8601\":\"2024-11-15T16:57:50+00:00\",\"request_method\":\"POST\",\
                 \"request_uri\":\"/run/me/a?x\",\"status\":\"200\",\"request_time\":\"0.250\"}\n";
    check(nginx, &usual, &row);
    let whole = "{\"msec\":\"1731689870.123\",\"request\":\"POST /run/me/a HTTP/1.1\",\
                 \"status\":200,\"request_time\":0.25}\n";
    check(whole, &usual, &row);
    let caddy = "{\"level\":\"info\",\"ts\":1731689870.5,\"msg\":\"serving\"}\n\
                 {\"level\":\"info\",\"ts\":1731689870.5,\"logger\":\"http.log.access\",\
                 \"request\":{\"method\":\"POST\",\"uri\":\"/run/me/a\"},\"duration\":0.25,\
                 \"status\":200}\n";
    check(caddy, &usual, &row);
    let traefik = "{\"Duration\":250000000,\"DownstreamStatus\":200,\"RequestMethod\":\"POST\",\
                   \"RequestPath\":\"/run/me/a\",\"StartUTC\":\"2024-11-15T16:57:50.25Z\",\
                   \"time\":\"2024-11-15T16:57:51Z\"}\n";
    check(traefik, &usual, &row);
    let own =
        "{\"at\":{\"ms\":1731689870500},\"model\":\"me/a\",\"took\":\"250ms\",\"code\":200}\n";
    let name = |name: &str| Some(name.to_owned());
    let names = Names {
        time: name("at.ms"),
        app: name("model"),
        service: name("took"),
        status: name("code"),
        path: None,
    };
    check(own, &Options { names, ..Options::default() }, &row);
    // Written in order of their ends, told by their starts.
    let starts = "{\"StartUTC\":\"2024-11-15T16:57:55Z\",\"RequestPath\":\"/me/b\",\
                  \"Duration\":1000000}\n{\"StartUTC\":\"2024-11-15T16:57:50Z\",\
                  \"RequestPath\":\"/me/a\",\"Duration\":8000000000}\n";
    check(starts, &usual, &[("me/a", 0, Some(8_000), None), ("me/b", 5_000, Some(1), None)]);
}
