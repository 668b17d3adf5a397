//! The error types, each with its status, brought about in a real node.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ground::{Answer, Fields, app, start};

/// An app and what is asked of it, and the error that comes of it.
struct Row {
    error_type: &'static str,
    status: u16,
    app: &'static str,
    path: &'static str,
    fields: Fields,
}

const fn row(error_type: &'static str, status: u16, app: &'static str, path: &'static str) -> Row {
    Row { error_type, status, app, path, fields: &[] }
}

const TABLE: &[Row] = &[
    row("request_timeout", 504, "slow", "/job"),
    row("startup_timeout", 504, "never", "/"),
    row("runner_scheduling_failure", 503, "huge", "/"),
    row("runner_disconnected", 503, "app", "/drop"),
    row("runner_disconnected", 503, "app", "/die"),
    row("runner_incomplete_response", 502, "app", "/garbage"),
    row("runner_server_error", 500, "app", "/headers?bytes=17000"),
    row("app_broken", 503, "broken", "/"),
    row("app_not_found", 404, "nothing", "/"),
    Row { fields: &[("x-fal-request-timeout", "soon")], ..row("bad_request", 400, "app", "/") },
    Row {
        fields: &[("x-fal-request-timeout", "0.5")],
        ..row("request_timeout", 504, "waiting", "/")
    },
];

fn assert_error(answer: &Answer, row: &Row) {
    let name = (row.error_type, row.app, row.path);
    assert_eq!(answer.status, row.status, "{name:?}: {answer:?}");
    assert_eq!(answer.text("error_type"), Some(row.error_type), "{name:?}: {answer:?}");
    assert_eq!(answer.header("x-fal-error-type"), Some(row.error_type), "{name:?}");
    assert!(answer.text("detail").is_some_and(|detail| !detail.is_empty()), "{name:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{name:?}");
    assert_eq!(answer.id().len(), 36, "{name:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_status_and_type() {
    let tables = [
        app("app", ""),
        app("slow", "request_timeout = 1"),
        app("never", "env.NEVER = '1'\nstartup_timeout = 1"),
        app("waiting", "env.NEVER = '1'"),
        app("huge", "machine_type = 'huge'"),
        app("broken", "env.BROKEN = '1'"),
        app("deaf", ""),
        app("full", ""),
        app("other-kind", "listen = 'unix'"),
        "[machine_types.huge]\ncpu = 1000\n".to_owned(),
    ];
    let ground = start(&tables.concat());
    let rows = TABLE.iter().map(async |row| {
        assert_error(&ground.run(row.app, row.path, row.fields).await, row);
    });
    let others = async {
        assert_eq!(ground.run("deaf", "/deaf", &[]).await.status, 200);
        let refused = ground.run("deaf", "/echo", &[]).await;
        assert_error(&refused, &row("runner_connection_refused", 503, "deaf", "/echo"));
    };
    // The runner lives and listens, and takes no connection.
    let full = async {
        assert_eq!(ground.run("full", "/full", &[]).await.status, 200);
        let late = ground.run("full", "/echo", &[]).await;
        assert_error(&late, &row("runner_connection_timeout", 503, "full", "/echo"));
    };
    let other_kind = async {
        assert_eq!(ground.run("other-kind", "/other-kind", &[]).await.status, 200);
        let failed = ground.run("other-kind", "/echo", &[]).await;
        assert_error(&failed, &row("runner_connection_error", 503, "other-kind", "/echo"));
    };
    // One after the other on the app that breaks, and beside each other where nothing does.
    let (breaking, quiet): (Vec<_>, Vec<_>) =
        rows.zip(TABLE).partition(|(_, row)| row.app == "app");
    let breaking = async {
        for (check, _) in breaking {
            check.await;
        }
    };
    let quiet = futures::future::join_all(quiet.into_iter().map(|(check, _)| check));
    futures::join!(breaking, quiet, others, full, other_kind);
}

/// A caller that closes its side in the middle of its request can still hear what became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_breaks_off_is_told_so() {
    let ground = start(&app("app", ""));
    assert_eq!(ground.run("app", "/echo", &[]).await.status, 200);
    let address = ground.url("").replace("http://", "");
    let mut caller = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!("POST /run/local/app/echo HTTP/1.1\r\nhost: {address}\r\n");
    let part = head + "content-length: 100\r\n\r\n{";
    caller.write_all(part.as_bytes()).await.unwrap();
    caller.shutdown().await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 499 "), "{answer:?}");
    assert!(answer.contains("\r\nx-fal-error-type: client_disconnected\r\n"), "{answer}");
    // Nobody is to try again on behalf of a caller that left, and its runner is as good as before.
    assert!(!answer.contains("x-fal-needs-retry"), "{answer}");
    assert_eq!(ground.run("app", "/echo", &[]).await.status, 200);
}
