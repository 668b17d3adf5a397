//! One suite of behaviour, run against every store.

use std::sync::Arc;

use futures::future::join_all;
use glowplug_core::Timestamp;
use glowplug_store::{
    Bounds, Completed, CompletedSummary, Completion, MemoryStore, Priority, QueuedRequest,
    Retention, SqliteOptions, SqliteStore, Store, StoreError, StoredResponse, limits,
};

use crate::samples::{at, completion, decision, fast, id, key, log_line, request};

/// Small enough to be reached.
const BOUNDS: Bounds = Bounds { request_log_lines_max: 5, journal_records_max: 10 };

/// Makes a test of each behaviour for each store.
macro_rules! every_store {
    ($($behaviour:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $behaviour() {
                super::$behaviour(std::sync::Arc::new(super::MemoryStore::with_bounds(super::BOUNDS))).await;
            })+
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $behaviour() {
                let directory = tempfile::tempdir().unwrap();
                let options = super::SqliteOptions { bounds: super::BOUNDS, ..super::fast() };
                let path = directory.path().join("store.db");
                super::$behaviour(super::SqliteStore::open(&path, options).unwrap()).await;
            })+
        }
    };
}

every_store!(
    boots_count_up,
    a_request_comes_back_as_it_was,
    an_id_is_accepted_once,
    oversized_bodies_are_refused,
    only_the_first_answer_counts,
    racing_answers_leave_one,
    an_answer_comes_back_as_it_was,
    a_failed_request_keeps_its_error,
    pending_requests_keep_their_order,
    pending_pages_can_outlive_their_mark,
    a_pending_request_can_be_read_alone,
    logs_keep_their_order_and_limit,
    purge_takes_the_oldest_answers_and_their_logs,
    settings_are_replaced_and_deleted,
    keys_are_replaced_and_deleted,
    the_journal_is_searched_by_subject,
    the_journal_drops_its_oldest,
    the_check_succeeds,
);

async fn a_pending_request_can_be_read_alone(store: Arc<impl Store>) {
    store.submit(request(1)).await.unwrap();
    store.submit(request(2)).await.unwrap();
    let found = store.pending_request(id(1)).await.unwrap();
    assert_eq!(found, Some(request(1)));
    assert_eq!(store.pending_request(id(3)).await.unwrap(), None);
    store.complete(id(1), completion(at(3), b"done")).await.unwrap();
    assert_eq!(store.pending_request(id(1)).await.unwrap(), None, "it is complete");
}

async fn boots_count_up(store: Arc<impl Store>) {
    for boot in 1..=3 {
        assert_eq!(store.begin_boot().await.unwrap(), boot);
    }
}

async fn a_request_comes_back_as_it_was(store: Arc<impl Store>) {
    let full = QueuedRequest {
        app: "local/ocr--staging".to_owned(),
        path: String::new(),
        method: "PATCH".to_owned(),
        headers: vec![
            ("x-tag".to_owned(), "one".to_owned()),
            ("x-tag".to_owned(), "zwei \"ü\"".to_owned()),
            ("x-empty".to_owned(), String::new()),
        ],
        body: (0..=255).cycle().take(100_000).collect(),
        priority: Priority::Low,
        submitted_at: Timestamp::from_micros(1_234_567_890_123),
        start_deadline: Some(Timestamp::MAX),
        no_retry: true,
        webhook_url: Some("http://localhost/hook".to_owned()),
        caller: "key-1".to_owned(),
        ..request(u128::MAX)
    };
    let bare = QueuedRequest { headers: Vec::new(), body: Vec::new(), ..request(0) };
    store.submit(full.clone()).await.unwrap();
    store.submit(bare.clone()).await.unwrap();
    assert_eq!(store.pending(None, 10).await.unwrap(), [full.clone(), bare]);

    let record = store.request(full.id).await.unwrap().unwrap();
    assert_eq!((record.id, record.app, record.path), (full.id, full.app, full.path));
    assert_eq!((record.submitted_at, record.completed), (full.submitted_at, None));
    assert_eq!(store.request(id(7)).await.unwrap(), None);
}

async fn an_id_is_accepted_once(store: Arc<impl Store>) {
    store.submit(request(1)).await.unwrap();
    let again = QueuedRequest { body: b"other".to_vec(), ..request(1) };
    let error = store.submit(again.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate(found) if found == id(1)), "{error}");
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(1)]);

    store.complete(id(1), completion(at(101), b"done")).await.unwrap();
    let error = store.submit(again).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate(_)), "{error}");
    assert_eq!(store.pending(None, 10).await.unwrap(), []);
}

async fn oversized_bodies_are_refused(store: Arc<impl Store>) {
    let body = vec![0; limits::BODY_BYTES_MAX + 1];
    let error = store.submit(QueuedRequest { body, ..request(1) }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request body has 268435457 bytes, and the store keeps at most 268435456; send less"
    );
    assert_eq!(store.request(id(1)).await.unwrap(), None);

    store.submit(request(1)).await.unwrap();
    let mut long = completion(at(101), b"");
    long.response.body = vec![0; limits::BODY_BYTES_MAX + 1];
    let error = store.complete(id(1), long).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "response body", .. }), "{error}");
    assert_eq!(store.pending(None, 10).await.unwrap().len(), 1);
}

async fn only_the_first_answer_counts(store: Arc<impl Store>) {
    let answer = |body: &[u8]| completion(at(101), body);
    assert_eq!(store.complete(id(1), answer(b"x")).await.unwrap(), Completed::UnknownRequest);
    store.submit(request(1)).await.unwrap();
    assert_eq!(store.response(id(1)).await.unwrap(), None);
    assert_eq!(store.complete(id(1), answer(b"first")).await.unwrap(), Completed::Recorded);
    assert_eq!(store.complete(id(1), answer(b"second")).await.unwrap(), Completed::AlreadyComplete);
    assert_eq!(store.response(id(1)).await.unwrap().unwrap().body, b"first");
    assert_eq!(store.pending(None, 10).await.unwrap(), []);
}

async fn racing_answers_leave_one(store: Arc<impl Store>) {
    store.submit(request(1)).await.unwrap();
    let racers = (0..32_u8).map(|racer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.complete(id(1), completion(at(101), &[racer])).await })
    });
    let outcomes: Vec<_> =
        join_all(racers).await.into_iter().map(|outcome| outcome.unwrap().unwrap()).collect();
    let winners: Vec<_> =
        (0..32_u8).zip(&outcomes).filter(|(_, o)| **o == Completed::Recorded).collect();
    let [(winner, _)] = winners[..] else { panic!("winners: {winners:?}") };
    assert_eq!(outcomes.iter().filter(|o| **o == Completed::AlreadyComplete).count(), 31);
    assert_eq!(store.response(id(1)).await.unwrap().unwrap().body, [winner]);
}

async fn an_answer_comes_back_as_it_was(store: Arc<impl Store>) {
    let response = StoredResponse {
        status: 299,
        headers: vec![
            ("set-cookie".to_owned(), "a=1".to_owned()),
            ("x-other".to_owned(), "between".to_owned()),
            ("set-cookie".to_owned(), "b=2".to_owned()),
        ],
        body: (0..=255).rev().cycle().take(300_000).collect(),
    };
    store.submit(request(1)).await.unwrap();
    let answer = Completion { response: response.clone(), ..completion(at(101), b"") };
    store.complete(id(1), answer).await.unwrap();
    assert_eq!(store.response(id(1)).await.unwrap(), Some(response));
    assert_eq!(store.response(id(2)).await.unwrap(), None);
    assert_eq!(
        store.request(id(1)).await.unwrap().unwrap().completed,
        Some(CompletedSummary {
            at: at(101),
            status: 299,
            error: None,
            inference_seconds: Some(0.25),
            attempts: 1,
        })
    );
}

async fn a_failed_request_keeps_its_error(store: Arc<impl Store>) {
    let error = Some(("the runner died".to_owned(), "runner_disconnected".to_owned()));
    let failed = Completion {
        error: error.clone(),
        inference_seconds: None,
        attempts: 10,
        ..completion(at(101), b"")
    };
    store.submit(request(1)).await.unwrap();
    store.complete(id(1), failed).await.unwrap();
    let summary = store.request(id(1)).await.unwrap().unwrap().completed.unwrap();
    assert_eq!((summary.error, summary.inference_seconds, summary.attempts), (error, None, 10));
}

async fn pending_requests_keep_their_order(store: Arc<impl Store>) {
    // Neither the ids nor the times are in order of acceptance, and priority is not the store's.
    let numbers = [50, 3, 99, 1, 70, 20];
    for (place, number) in numbers.into_iter().enumerate() {
        let submitted_at = at(1_000 - place as u64);
        let priority = if place % 2 == 0 { Priority::Low } else { Priority::Normal };
        store.submit(QueuedRequest { submitted_at, priority, ..request(number) }).await.unwrap();
    }
    store.complete(id(99), completion(at(2_000), b"")).await.unwrap();

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.pending(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|request| request.id.0));
    }
    assert_eq!(seen, [50, 3, 1, 70, 20]);
    assert_eq!(store.pending(None, 0).await.unwrap(), []);
    assert_eq!(store.pending(None, usize::MAX).await.unwrap().len(), 5);
}

async fn pending_pages_can_outlive_their_mark(store: Arc<impl Store>) {
    for number in 1..=3 {
        store.submit(request(number)).await.unwrap();
    }
    store.complete(id(2), completion(at(101), b"")).await.unwrap();
    assert_eq!(store.pending(Some(id(2)), 10).await.unwrap(), [request(3)]);
    store.purge(Retention::since(at(200)), 10).await.unwrap();
    let from_the_start = [request(1), request(3)];
    assert_eq!(store.pending(Some(id(2)), 10).await.unwrap(), from_the_start);
    assert_eq!(store.pending(Some(id(77)), 10).await.unwrap(), from_the_start);
}

async fn logs_keep_their_order_and_limit(store: Arc<impl Store>) {
    let lines = |numbers: std::ops::Range<u64>| {
        numbers.map(|number| log_line(number, &format!("line {number}"))).collect::<Vec<_>>()
    };
    store.append_request_logs(id(1), lines(0..2)).await.unwrap();
    assert_eq!(store.request_logs(id(1)).await.unwrap(), [], "the request is not known yet");

    store.submit(request(1)).await.unwrap();
    store.submit(request(2)).await.unwrap();
    store.append_request_logs(id(1), lines(0..2)).await.unwrap();
    store.append_request_logs(id(1), Vec::new()).await.unwrap();
    store.complete(id(1), completion(at(101), b"")).await.unwrap();
    store.append_request_logs(id(1), lines(2..5)).await.unwrap();
    assert_eq!(store.request_logs(id(1)).await.unwrap(), lines(0..5));
    assert_eq!(store.request_logs(id(2)).await.unwrap(), []);

    store.append_request_logs(id(2), lines(0..4)).await.unwrap();
    store.append_request_logs(id(2), lines(4..7)).await.unwrap();
    store.append_request_logs(id(2), lines(7..8)).await.unwrap();
    let mut kept = store.request_logs(id(2)).await.unwrap();
    let notice = kept.pop().unwrap();
    assert_eq!(kept, lines(0..5));
    assert_eq!(notice.message, "3 more log lines of this request were dropped");
    assert_eq!(notice.at, at(7));
}

async fn purge_takes_the_oldest_answers_and_their_logs(store: Arc<impl Store>) {
    for number in 1..=5 {
        store.submit(request(number)).await.unwrap();
        let lines = (0..8).map(|second| log_line(second, "line")).collect();
        store.append_request_logs(id(number), lines).await.unwrap();
    }
    // The fifth stays pending. The others end in another order than they came.
    for (number, ended_at) in [(1, 40), (2, 10), (3, 30), (4, 20)] {
        store.complete(id(number), completion(at(ended_at), b"")).await.unwrap();
    }
    assert_eq!(
        store.purge(Retention::since(at(10)), 10).await.unwrap(),
        0,
        "an answer at that moment stays"
    );
    assert_eq!(store.purge(Retention::since(at(40)), 0).await.unwrap(), 0);
    assert_eq!(store.purge(Retention::since(at(40)), 2).await.unwrap(), 2);
    for (number, is_kept) in [(1, true), (2, false), (3, true), (4, false), (5, true)] {
        assert_eq!(store.request(id(number)).await.unwrap().is_some(), is_kept, "{number}");
        assert_eq!(
            store.request_logs(id(number)).await.unwrap().len(),
            if is_kept { 6 } else { 0 }
        );
    }
    assert_eq!(store.response(id(2)).await.unwrap(), None);
    assert_eq!(store.purge(Retention::since(Timestamp::MAX), usize::MAX).await.unwrap(), 2);
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(5)]);

    // What was purged is gone for good: its id starts anew, without the old log and answer.
    store.submit(request(2)).await.unwrap();
    assert_eq!(store.request_logs(id(2)).await.unwrap(), []);
    assert_eq!(store.response(id(2)).await.unwrap(), None);
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(5), request(2)]);
}

async fn settings_are_replaced_and_deleted(store: Arc<impl Store>) {
    let text = str::to_owned;
    let triple = |app, key, json| (text(app), text(key), text(json));
    store.put_setting(text("local/b"), text("keep_alive"), text("30")).await.unwrap();
    store.put_setting(text("local/a"), text("min_concurrency"), text("1")).await.unwrap();
    store.put_setting(text("local/a"), text("keep_alive"), text("10")).await.unwrap();
    store.put_setting(text("local/a"), text("keep_alive"), text("20")).await.unwrap();
    store.delete_setting(text("local/b"), text("min_concurrency")).await.unwrap();
    let all = [
        triple("local/a", "keep_alive", "20"),
        triple("local/a", "min_concurrency", "1"),
        triple("local/b", "keep_alive", "30"),
    ];
    assert_eq!(store.settings().await.unwrap(), all);
    store.delete_setting(text("local/a"), text("keep_alive")).await.unwrap();
    assert_eq!(store.settings().await.unwrap(), all[1..]);
}

async fn keys_are_replaced_and_deleted(store: Arc<impl Store>) {
    let (old, new) = (key("zebra", at(1)), key("ant", at(2)));
    store.put_key(new.clone()).await.unwrap();
    store.put_key(old.clone()).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [old.clone(), new.clone()]);
    let mut changed = old.clone();
    changed.secret_sha256 = [0; 32];
    "API".clone_into(&mut changed.scope);
    store.put_key(changed.clone()).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [changed.clone(), new]);
    assert!(store.delete_key("ant".to_owned()).await.unwrap());
    assert!(!store.delete_key("ant".to_owned()).await.unwrap());
    assert_eq!(store.keys().await.unwrap(), [changed]);
}

async fn the_journal_is_searched_by_subject(store: Arc<impl Store>) {
    let (first, second, third) = (
        decision(1, &["request:a", "app:local/ocr"]),
        decision(2, &["app:local/ocr", "app:local/ocr"]),
        decision(3, &["request:a", "runner:r1-2"]),
    );
    store.append_journal(vec![first.clone(), second.clone()]).await.unwrap();
    store.append_journal(Vec::new()).await.unwrap();
    store.append_journal(vec![third.clone(), decision(4, &[])]).await.unwrap();
    let about = |subject: &str, limit| store.journal(subject.to_owned(), limit);
    assert_eq!(about("request:a", 10).await.unwrap(), [first.clone(), third.clone()]);
    assert_eq!(about("request:a", 1).await.unwrap(), std::slice::from_ref(&third));
    assert_eq!(about("app:local/ocr", 10).await.unwrap(), [first, second]);
    assert_eq!(about("runner:r1-2", usize::MAX).await.unwrap(), [third]);
    assert_eq!(about("request", 10).await.unwrap(), []);
    assert_eq!(about("runner:r1-2", 0).await.unwrap(), []);
}

async fn the_journal_drops_its_oldest(store: Arc<impl Store>) {
    let records_max = BOUNDS.journal_records_max as u64;
    let named = |number: u64| decision(number, &["app:x", &format!("request:{number}")]);
    for number in 0..records_max + 3 {
        store.append_journal(vec![named(number)]).await.unwrap();
    }
    let kept: Vec<_> = (3..records_max + 3).map(named).collect();
    assert_eq!(store.journal("app:x".to_owned(), 100).await.unwrap(), kept);
    assert_eq!(store.journal("request:2".to_owned(), 100).await.unwrap(), []);

    // One batch above the limit leaves its end.
    store.append_journal((100..100 + 2 * records_max).map(named).collect()).await.unwrap();
    let kept: Vec<_> = (100 + records_max..100 + 2 * records_max).map(named).collect();
    assert_eq!(store.journal("app:x".to_owned(), 100).await.unwrap(), kept);
}

async fn the_check_succeeds(store: Arc<impl Store>) {
    for _ in 0..3 {
        store.check().await.unwrap();
    }
}
