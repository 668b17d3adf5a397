//! A server that dies under load, that is away, that refuses; and options that cannot work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use glowplug_core::RequestId;
use glowplug_store::{
    Completed, Place, PostgresOptions, PostgresStore, QueuedRequest, Store, StoreError,
};
use glowplug_testkit::OwnPostgres;

use super::{bystander, fresh, open};
use crate::samples::{at, completion, id, request};

const CALLERS: u128 = 32;
const CRASHES: usize = 3;
/// Requests between two crashes.
const REQUESTS_PER_CRASH: usize = 300;

fn at_server(server: &OwnPostgres) -> PostgresOptions {
    PostgresOptions {
        connect_timeout: Duration::from_secs(10),
        ..PostgresOptions::new(server.url())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load_loses_and_doubles_nothing() {
    let mut server = OwnPostgres::start("");
    let store = open(&at_server(&server)).await;
    store.begin_boot().await.unwrap();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|caller| {
        tokio::spawn(call(Arc::clone(&store), caller, Arc::clone(&stop), Arc::clone(&done)))
    });
    let callers: Vec<_> = callers.collect();
    for crash in 1..=CRASHES {
        while done.load(Ordering::Acquire) < crash * REQUESTS_PER_CRASH {
            tokio::task::yield_now().await;
        }
        server = tokio::task::spawn_blocking(move || {
            server.crash();
            server
        })
        .await
        .unwrap();
    }
    stop.store(true, Ordering::Release);
    let mut acknowledged = BTreeMap::new();
    for caller in join_all(callers).await {
        acknowledged.extend(caller.unwrap());
    }
    assert!(acknowledged.len() >= CRASHES * REQUESTS_PER_CRASH);
    let all = store.export(Place::START, usize::MAX).await.unwrap().0;
    assert_eq!(all.len(), acknowledged.len(), "each is there once");
    for whole in all {
        let body = whole.completion.expect("its answer was acknowledged").response.body;
        assert_eq!(body, acknowledged[&whole.request.id], "{}", whole.request.id);
    }
    store.close().await;
}

/// Submits and answers one request after the other, and insists. Returns the answers that were recorded.
async fn call(
    store: Arc<PostgresStore>,
    caller: u128,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> BTreeMap<RequestId, Vec<u8>> {
    let mut answers = BTreeMap::new();
    for number in 0_u128.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let id = id(caller << 64 | number);
        let mut is_unsure = false;
        loop {
            match store.submit(request(id.0)).await {
                Ok(_) => break,
                Err(StoreError::Duplicate(_)) if is_unsure => break,
                Err(StoreError::Unavailable { .. }) => is_unsure = true,
                Err(other) => panic!("{other}"),
            }
        }
        let answer = format!("{caller}-{number}").into_bytes();
        is_unsure = false;
        loop {
            match store.complete(id, completion(at(1), &answer)).await {
                Ok(Completed::Recorded) => break,
                Ok(Completed::AlreadyComplete) if is_unsure => break,
                Err(StoreError::Unavailable { .. }) => is_unsure = true,
                other => panic!("{other:?}"),
            }
        }
        answers.insert(id, answer);
        done.fetch_add(1, Ordering::AcqRel);
    }
    answers
}

#[tokio::test]
async fn a_server_that_is_away_is_named_and_found_again() {
    let mut server = OwnPostgres::start("");
    let url = server.url().replace("glowplug@", "glowplug:s3cret@");
    let store = open(&PostgresOptions { url, ..at_server(&server) }).await;
    store.submit(request(1)).await.unwrap();
    server.stop();
    let place = server.folder().display().to_string();
    for error in [
        store.submit(request(2)).await.unwrap_err(),
        store.request(id(1)).await.unwrap_err(),
        store.check().await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{text}");
        assert!(text.contains("`postgres`") && text.contains(&place), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    server.start_again();
    store.check().await.unwrap();
    store.submit(request(2)).await.unwrap();
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(1), request(2)]);
    store.close().await;
    let error = store.submit(request(3)).await.unwrap_err();
    assert!(error.to_string().contains("is closed"), "{error}");
}

#[tokio::test]
async fn a_write_that_the_server_refuses_leaves_the_others_alone() {
    let store = open(&PostgresOptions { writers: 1, ..fresh() }).await;
    let all: Vec<_> = (0..40)
        .map(|number| {
            let path = if number % 10 == 3 { "nul\0" } else { "fine" }.to_owned();
            QueuedRequest { path, ..request(number) }
        })
        .collect();
    let answers = join_all(all.iter().map(|request| store.submit(request.clone()))).await;
    for (request, answer) in all.iter().zip(answers) {
        match answer {
            Ok(_) => assert_eq!(request.path, "fine"),
            Err(error) => {
                assert_eq!(request.path, "nul\0");
                assert!(error.to_string().contains("invalid byte sequence"), "{error}");
            }
        }
    }
    assert_eq!(store.pending(None, 100).await.unwrap().len(), 36);
}

#[tokio::test]
async fn writes_that_come_together_share_commits() {
    let store = open(&fresh()).await;
    let before = store.commit_count();
    join_all((0..500).map(|number| store.submit(request(number)))).await;
    let commits = store.commit_count() - before;
    assert!((1..100).contains(&commits), "{commits} commits");
    let order: Vec<_> = store.export(Place::START, 500).await.unwrap().0;
    assert_eq!(order.len(), 500);
}

#[tokio::test]
async fn nodes_that_start_at_once_migrate_once() {
    let options = fresh();
    let stores = join_all((0..4).map(|_| PostgresStore::connect(options.clone()))).await;
    for store in stores {
        store.unwrap().check().await.unwrap();
    }
    let db = bystander(&options).await;
    db.batch_execute("UPDATE schema_version SET version = 1000").await.unwrap();
    let error = PostgresStore::connect(options).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 1000, .. }), "{error}");

    let foreign = fresh();
    let table = format!("CREATE SCHEMA {0}; CREATE TABLE {0}.cats (name text)", foreign.schema);
    db.batch_execute(&table).await.unwrap();
    let error = PostgresStore::connect(foreign).await.unwrap_err();
    assert!(error.to_string().contains("tables of another program"), "{error}");
}

#[tokio::test]
async fn options_that_cannot_work_are_explained() {
    let options = PostgresOptions::new;
    let schema = |schema: &str| PostgresOptions { schema: schema.to_owned(), ..fresh() };
    for (options, expected) in [
        (schema("Robert'); DROP"), "cannot be the name of the schema"),
        (schema("pg_own"), "cannot be the name of the schema"),
        (schema(""), "cannot be the name of the schema"),
        (options("postgres://u:s3cret@h:x/d"), "the URL of the database is not valid"),
        (options("postgres://u:s3cret@h/d?sslmode=verify-ca"), "use verify-full"),
        (options("postgres://u:s3cret@h/d?sslrootcert=/nowhere.pem"), "cannot read /nowhere.pem"),
        (options("postgres://u:s3cret@127.0.0.1:1/d"), "database `d` at 127.0.0.1:1"),
    ] {
        assert!(!format!("{options:?}").contains("s3cret"));
        let text = PostgresStore::connect(options).await.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
