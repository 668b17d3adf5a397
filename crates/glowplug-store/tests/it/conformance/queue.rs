//! Getting in line: what is accepted, and what is read of it.

use std::sync::Arc;

use glowplug_core::Timestamp;
use glowplug_store::{Priority, QueuedRequest, Retention, Store, StoreError, limits};

use crate::samples::{at, completion, id, request};

pub(crate) async fn boots_count_up(store: Arc<impl Store>) {
    for boot in 1..=3 {
        assert_eq!(store.begin_boot().await.unwrap(), boot);
    }
}

pub(crate) async fn a_request_comes_back_as_it_was(store: Arc<impl Store>) {
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

pub(crate) async fn an_id_is_accepted_once(store: Arc<impl Store>) {
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

pub(crate) async fn oversized_bodies_are_refused(store: Arc<impl Store>) {
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

pub(crate) async fn pending_requests_keep_their_order(store: Arc<impl Store>) {
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

pub(crate) async fn pending_pages_can_outlive_their_mark(store: Arc<impl Store>) {
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

pub(crate) async fn a_pending_request_can_be_read_alone(store: Arc<impl Store>) {
    store.submit(request(1)).await.unwrap();
    store.submit(request(2)).await.unwrap();
    let found = store.pending_request(id(1)).await.unwrap();
    assert_eq!(found, Some(request(1)));
    assert_eq!(store.pending_request(id(3)).await.unwrap(), None);
    store.complete(id(1), completion(at(3), b"done")).await.unwrap();
    assert_eq!(store.pending_request(id(1)).await.unwrap(), None, "it is complete");
}

pub(crate) async fn those_ahead_are_counted_per_app(store: Arc<impl Store>) {
    let other = |number| QueuedRequest { app: "local/other".to_owned(), ..request(number) };
    for each in [request(1), other(2), request(3), request(4), other(5)] {
        store.submit(each).await.unwrap();
    }
    for (number, ahead) in [(1, 0), (2, 0), (3, 1), (4, 2), (5, 1), (6, 0)] {
        assert_eq!(store.ahead(id(number)).await.unwrap(), ahead, "{number}");
    }
    store.complete(id(1), completion(at(101), b"")).await.unwrap();
    assert_eq!(store.ahead(id(4)).await.unwrap(), 1);
}
