use proptest::prelude::*;

use std::time::Duration;

use glowplug_core::HintId;
use glowplug_core::request::Priority;
use glowplug_core::retry::{Budgets, Wish};

use super::control::RUNNER_HINT_BYTES_MAX;
use super::*;
use crate::host::Caller;

const BYTES_MAX: usize = 4_096;
const LIFECYCLE: &str = "x-fal-object-lifecycle-preference";

fn block(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    fields.sort();
    fields
}

#[test]
fn the_app_sees_the_callers_own_headers_only() {
    type Fields<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Fields, &[&str])] = &[
        (&[], &[]),
        (&[("host", "a"), ("accept", "*/*")], &["accept: */*", "host: a"]),
        (&[("x-fal-request-id", "forged"), ("x-other", "1")], &["x-other: 1"]),
        (&[("X-Fal-Caller-User-Id", "root"), ("x-fal-target-url", "u")], &[]),
        (&[("x-fal-runner-hint", "a"), ("x-fal-runner-hint", "b"), ("x-fal", "c")], &["x-fal: c"]),
        (
            &[("x-app-fal-disable-fallback", "1"), ("x-app-fal-can-disable-filter", "1")],
            &["x-app-fal-can-disable-filter: 1"],
        ),
        (&[("x-fal-tags", "a=b"), ("x-fal-store-io", "0"), ("x-fal-retry-config", "{}")], &[]),
        (&[("x-fal-cdn-token", "forged"), ("x-fal-endpoint", "forged")], &[]),
        (
            &[(LIFECYCLE, r#"{"expiration_duration_seconds":60}"#)],
            &[r#"x-fal-object-lifecycle-preference: {"expiration_duration_seconds":60}"#],
        ),
        (&[(LIFECYCLE, "60"), (LIFECYCLE, "{}")], &[]),
        (&[(LIFECYCLE, "{")], &[]),
        (&[("idempotency-key", "k")], &["idempotency-key: k"]),
        (&[("connection", "keep-alive, x-hop"), ("keep-alive", "5"), ("x-hop", "1")], &[]),
        (&[("connection", "host, content-length"), ("host", "a")], &["host: a"]),
        (&[("transfer-encoding", "chunked"), ("trailer", "x-sum")], &["trailer: x-sum"]),
        (&[("te", "gzip, trailers"), ("expect", "100-continue")], &["te: trailers"]),
        (&[("te", "gzip"), ("proxy-authorization", "Basic x")], &[]),
        (&[("upgrade", "h2c"), ("connection", "Upgrade")], &[]),
        (&[("authorization", "Bearer x")], &["authorization: Bearer x"]),
    ];
    for (fields, expected) in cases {
        let mut headers = block(fields);
        receive(&mut headers, BYTES_MAX).unwrap();
        assert_eq!(shown(&headers), *expected, "{fields:?}");
    }
}

#[test]
fn control_headers_are_read() {
    let normal = CallerControl::default();
    let seconds = |seconds| CallerControl {
        start_timeout: Some(Duration::from_secs_f64(seconds)),
        ..normal.clone()
    };
    let low = CallerControl { priority: Priority::Low, ..normal.clone() };
    let hint = |hint: &str| CallerControl { hint: Some(hint.to_owned()), ..normal.clone() };
    let dropped = CallerControl { keep_payload: false, ..normal.clone() };
    let websocket =
        CallerControl { upgrade: Some(HeaderValue::from_static("websocket")), ..normal.clone() };
    let tagged =
        |tags| CallerControl { tags: Some(HeaderValue::from_static(tags)), ..normal.clone() };
    let eleven: Vec<String> = (0..11).map(|at| format!("k{at}=v")).collect();
    let eleven = eleven.join(",");
    let longest = "h".repeat(RUNNER_HINT_BYTES_MAX);
    let too_long = format!("{longest}h");
    let start = "x-fal-request-start-timeout";
    let deprecated = "x-fal-request-timeout";
    let cases: &[(&[(&str, &str)], CallerControl)] = &[
        (&[], normal.clone()),
        (&[(start, "2.5")], seconds(2.5)),
        (&[(deprecated, "30.0")], seconds(30.0)),
        (&[(deprecated, "30.0"), (start, "5")], seconds(5.0)),
        (&[(start, "inf")], normal.clone()),
        (&[(start, "1e30")], normal.clone()),
        (&[("x-fal-queue-priority", "low")], low),
        (&[("x-fal-queue-priority", "high")], normal.clone()),
        (&[("x-fal-queue-priority", "?")], normal.clone()),
        (&[("x-fal-runner-hint", "model-a")], hint("model-a")),
        (&[("x-fal-runner-hint", " a b ")], hint("a b")),
        (&[("x-fal-runner-hint", &longest)], hint(&longest)),
        (&[("x-fal-runner-hint", &too_long)], normal.clone()),
        (&[("x-fal-runner-hint", "")], normal.clone()),
        (&[("x-fal-store-io", "0")], dropped.clone()),
        (&[("x-fal-store-io", "false")], dropped),
        (&[("x-fal-store-io", "1")], normal.clone()),
        (&[("x-fal-store-io", "?")], normal.clone()),
        (&[("x-fal-tags", "a=b")], tagged("a=b")),
        (&[("x-fal-tags", " team=a b, env=prod ")], tagged("team=a b,env=prod")),
        (&[("x-fal-tags", "Upper=1,=2,no,fal.own=3,k==v,e=")], tagged("k==v,e=")),
        (&[("x-fal-tags", &eleven)], tagged("k0=v,k1=v,k2=v,k3=v,k4=v,k5=v,k6=v,k7=v,k8=v,k9=v")),
        (&[("x-fal-tags", &format!("{}=v,a=b", "k".repeat(65)))], tagged("a=b")),
        (&[("x-fal-tags", &format!("k={},a=b", "v".repeat(257)))], tagged("a=b")),
        (&[("x-fal-tags", &"a=b,".repeat(257))], normal.clone()),
        (&[("x-fal-tags", "nonsense")], normal.clone()),
        (&[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")], websocket),
        (&[("upgrade", "websocket")], normal),
    ];
    for (fields, expected) in cases {
        assert_eq!(receive(&mut block(fields), BYTES_MAX).as_ref(), Ok(expected), "{fields:?}");
    }
}

#[test]
fn retries_are_read_and_belong_to_known_callers() {
    type Fields<'a> = &'a [(&'a str, &'a str)];
    let known = Caller { key_id: "k".to_owned(), admin: false };
    let open = Caller { key_id: String::new(), admin: true };
    let anonymous = Caller::default();
    let timeout = Budgets { timeout: Some(2), ..Budgets::default() };
    let all = Budgets {
        timeout: Some(0),
        client_error: Some(1),
        server_error: Some(2),
        connection_error: Some(u32::MAX),
    };
    let (unsaid, never) = (Wish::Unsaid, Wish::Never);
    let (config, no) = ("x-fal-retry-config", "x-fal-no-retry");
    let short = r#"{"timeout":{"retries":2}}"#;
    let whole = r#"{"timeout":{"retries":0},"client_error":{"retries":1},
                    "server_error":{"retries":2},"connection_error":{"retries":4294967295}}"#;
    let whole = whole.replace('\n', "");
    let padded = format!("{short}{}", " ".repeat(1_024));
    let cases: &[(Fields, Wish, Wish)] = &[
        (&[], unsaid, unsaid),
        (&[(no, "1")], never, never),
        (&[(no, "Yes")], never, never),
        (&[(no, "true")], never, never),
        (&[(no, "0")], unsaid, unsaid),
        (&[(no, "maybe")], unsaid, unsaid),
        (&[(config, short)], Wish::Budgets(timeout), unsaid),
        (&[(config, "{}")], Wish::Budgets(Budgets::default()), unsaid),
        (&[(config, &whole)], Wish::Budgets(all), unsaid),
        (&[(config, short), (no, "1")], never, never),
        (&[(config, short), (no, "0")], Wish::Budgets(timeout), unsaid),
        (&[(config, "")], unsaid, unsaid),
        (&[(config, "5")], unsaid, unsaid),
        (&[(config, "[]")], unsaid, unsaid),
        (&[(config, r#"{"timeout":2}"#)], unsaid, unsaid),
        (&[(config, r#"{"timeout":{"retries":-1}}"#)], unsaid, unsaid),
        (&[(config, r#"{"timeout":{"retries":1.5}}"#)], unsaid, unsaid),
        (&[(config, r#"{"timeout":{"retries":1,"delay":2}}"#)], unsaid, unsaid),
        (&[(config, r#"{"timeout":{"retries":2},"weather":{"retries":1}}"#)], unsaid, unsaid),
        (&[(config, r#"{"timeout":{"retries":2}"#)], unsaid, unsaid),
        (&[(config, &padded)], unsaid, unsaid),
    ];
    for (fields, for_known, for_anonymous) in cases {
        let control = receive(&mut block(fields), BYTES_MAX).unwrap();
        assert_eq!(control.retries(&known), *for_known, "{fields:?}");
        assert_eq!(control.retries(&open), *for_known, "{fields:?}");
        assert_eq!(control.retries(&anonymous), *for_anonymous, "{fields:?}");
    }
}

#[test]
fn an_apps_hints_are_read_and_passed_on() {
    let name = "x-fal-runner-hints";
    for (value, hints) in [
        ("a", Some(vec!["a"])),
        ("a, model-b,,c ", Some(vec!["a", "model-b", "c"])),
        ("", Some(vec![])),
    ] {
        let mut headers = block(&[(name, value)]);
        let hints = hints.map(|hints| hints.into_iter().map(HintId::of).collect());
        assert_eq!(answer(200, &mut headers).unwrap().hints, hints, "{value}");
        assert_eq!(headers[name], value);
    }
    assert_eq!(answer(200, &mut block(&[("x-own", "a")])).unwrap().hints, None);
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let hints = answer(200, &mut headers).unwrap().hints.unwrap();
    assert!(hints.accept(HintId::of("caf\u{e9}")) && !hints.accept(HintId::of("caf")));
}

#[test]
fn a_hint_is_the_bytes_it_was_sent_as() {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_bytes(b"caf\xe9").unwrap();
    headers.insert("x-fal-runner-hint", value);
    let control = receive(&mut headers, BYTES_MAX).unwrap();
    assert_eq!(control.hint.as_deref(), Some("caf\u{e9}"));
}

#[test]
fn impossible_start_timeouts_are_named() {
    for value in ["0", "0.1", "-3", "soon", "", "NaN"] {
        let mut headers = block(&[("x-fal-request-timeout", value)]);
        let name = "x-fal-request-timeout";
        let expected = HeaderError::StartTimeout { name, value: value.to_owned() };
        assert_eq!(receive(&mut headers, BYTES_MAX), Err(expected), "{value}");
    }
}

#[test]
fn header_blocks_have_a_limit() {
    let long = "v".repeat(BYTES_MAX);
    let expected = HeaderError::TooLarge { bytes: BYTES_MAX + 5, max: BYTES_MAX };
    assert_eq!(receive(&mut block(&[("a", &long)]), BYTES_MAX), Err(expected));

    let long = "v".repeat(RESPONSE_HEADER_BYTES_MAX);
    let error = answer(200, &mut block(&[("a", &long)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the app's response headers take 16389 bytes; at most 16384 are allowed"
    );
}

#[test]
fn an_apps_orders_to_the_gateway_stop_here() {
    let mut headers = block(&[
        ("content-type", "text/plain"),
        ("x-fal-billable-units", "3"),
        ("X-Fal-Needs-Retry", "0"),
        ("x-fal-stop-runner", "true"),
        ("x-fal-runner-health-check", "true"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
    ]);
    let expected = Answer {
        status: 503,
        needs_retry: Some(false),
        stop_runner: Some(true),
        check_health: true,
        hints: None,
    };
    assert_eq!(answer(503, &mut headers), Ok(expected));
    assert_eq!(shown(&headers), ["content-type: text/plain", "x-fal-billable-units: 3"]);

    let unsure = &[("x-fal-needs-retry", "maybe"), ("x-fal-stop-runner", ""), ("a", "b")];
    let mut headers = block(unsure);
    assert_eq!(answer(200, &mut headers), Ok(Answer { status: 200, ..Answer::default() }));
    assert_eq!(shown(&headers), ["a: b"]);
}

proptest! {
    #[test]
    fn no_header_block_panics_or_lets_a_forged_field_through(
        fields in prop::collection::vec(
            ("(x-fal-[a-z-]{0,12}|connection|te|upgrade|keep-alive|[a-z]{1,8})", "[ -~\u{80}-\u{ff}]{0,20}"),
            0..20,
        )
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name, value);
            }
        }
        let mut response = headers.clone();
        if receive(&mut headers, BYTES_MAX).is_ok() {
            prop_assert!(headers.keys().all(|name| !name.as_str().starts_with(FAL_PREFIX)));
            prop_assert!(!headers.contains_key(header::CONNECTION));
        }
        answer(200, &mut response).unwrap();
        prop_assert!(!response.contains_key(NEEDS_RETRY));
    }
}
