//! Out of a store and into a store.

use std::sync::Arc;
use std::time::Duration;

use glowplug_store::{
    Accepted, Completed, Completion, DeliveryAttempt, DeliveryState, MemoryStore, Place, Priority,
    QueuedHead, QueuedRequest, Retention, Store, WholeRequest,
};

use super::BOUNDS;
use crate::samples::{at, completion, id, log_line, request};

/// One that waits, one that ended with everything a request can have, one that ended with nothing.
async fn fill(store: &impl Store) {
    let rich = QueuedRequest {
        priority: Priority::Low,
        start_deadline: Some(at(500)),
        no_retry: true,
        retry_config: Some("{}".to_owned()),
        hint: Some("gpu-7".to_owned()),
        webhook_url: Some("https://example.com/hook".to_owned()),
        idempotency_key: Some("order-7".to_owned()),
        caller: "key-1".to_owned(),
        body: vec![7; 200_000],
        ..request(2)
    };
    for each in [request(1), rich, QueuedRequest { keep_payload: false, ..request(3) }] {
        store.submit(each).await.unwrap();
    }
    let lines = (0..8).map(|second| log_line(second, "line")).collect();
    store.append_request_logs(id(2), lines).await.unwrap();
    let answer = Completion {
        error: Some(("it broke".to_owned(), "internal_error".to_owned())),
        ..completion(at(101), &vec![8; 300_000])
    };
    store.complete(id(2), answer).await.unwrap();
    let call = DeliveryAttempt {
        at: at(102),
        took: Duration::from_millis(3),
        status: None,
        problem: Some("it did not answer".to_owned()),
    };
    store.called(id(2), call, DeliveryState::Due(at(200))).await.unwrap();
    store.complete(id(3), completion(at(103), b"done")).await.unwrap();
}

pub(crate) async fn what_is_exported_can_be_imported(store: Arc<impl Store>) {
    fill(&*store).await;
    let all = store.export(Place::START, 10).await.unwrap().0;
    assert_eq!(all.len(), 3);
    let rich = &all[1];
    assert_eq!(rich.request.body.len(), 200_000);
    assert_eq!(rich.completion.as_ref().unwrap().response.body.len(), 300_000);
    assert_eq!((rich.logs.len(), rich.delivery.as_ref().unwrap().attempts.len()), (6, 1));

    // From this store into another, and back into this one after it has forgotten.
    let other = MemoryStore::with_bounds(BOUNDS);
    for whole in &all {
        assert!(other.import(whole.clone()).await.unwrap());
    }
    assert_eq!(other.export(Place::START, 10).await.unwrap().0, all);
    assert_eq!(store.purge(Retention::since(at(1_000)), 10).await.unwrap(), 2);
    let (_, first) = other.export(Place::START, 1).await.unwrap();
    let (taken, _) = other.export(first, 10).await.unwrap();
    for whole in taken {
        assert!(store.import(whole).await.unwrap());
    }
    assert_eq!(store.export(Place::START, 10).await.unwrap().0, all);
    assert_eq!(store.response(id(2)).await.unwrap().unwrap().body, vec![8; 300_000]);
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(200)));
    let bytes = 16 + 200_000 + 300_000 + 4;
    let keep = |bytes_max| Retention { bytes_max, ..Retention::since(at(0)) };
    assert_eq!(store.purge(keep(bytes), 10).await.unwrap(), 0, "the totals are right");
    assert_eq!(store.purge(keep(500_003), 10).await.unwrap(), 1);
}

pub(crate) async fn an_import_happens_once(store: Arc<impl Store>) {
    fill(&*store).await;
    let all = store.export(Place::START, 10).await.unwrap().0;
    for whole in &all {
        let mut changed = whole.clone();
        changed.request.body = b"other".to_vec();
        assert!(!store.import(changed).await.unwrap());
    }
    assert_eq!(store.export(Place::START, 10).await.unwrap().0, all);
}

fn waiting(request: QueuedRequest) -> WholeRequest {
    WholeRequest { request, completion: None, logs: Vec::new(), delivery: None }
}

pub(crate) async fn an_imported_request_waits_for_an_owner(store: Arc<impl Store>) {
    store.begin_boot().await.unwrap();
    assert_eq!(store.adopt(10).await.unwrap(), []);
    store.submit(request(1)).await.unwrap();
    let hooked =
        QueuedRequest { webhook_url: Some("https://example.com".to_owned()), ..request(2) };
    assert!(store.import(waiting(hooked.clone())).await.unwrap());
    let answer = async || store.complete(id(2), completion(at(101), b"")).await.unwrap();
    assert_eq!(answer().await, Completed::Fenced);
    assert_eq!(store.adopt(10).await.unwrap(), [QueuedHead::from(&hooked)]);
    assert_eq!(answer().await, Completed::Recorded);
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(101)));
}

pub(crate) async fn an_import_does_not_take_a_key_away(store: Arc<impl Store>) {
    let keyed = |number| QueuedRequest { idempotency_key: Some("k".to_owned()), ..request(number) };
    let body = b"same".to_vec();
    store.submit(QueuedRequest { body: body.clone(), ..keyed(1) }).await.unwrap();
    assert!(store.import(waiting(keyed(2))).await.unwrap());
    let again = QueuedRequest { body, ..keyed(3) };
    assert_eq!(store.submit(again).await.unwrap(), Accepted::Before(id(1)));
    let taken = store.pending_request(id(2)).await.unwrap().unwrap();
    assert_eq!(taken.idempotency_key, None);
}

pub(crate) async fn exports_come_in_pages(store: Arc<impl Store>) {
    for number in [5, 1, 4, 2, 3] {
        store.submit(request(number)).await.unwrap();
    }
    store.complete(id(4), completion(at(101), b"")).await.unwrap();
    let mut seen = Vec::new();
    let mut after = Place::START;
    loop {
        let (page, last) = store.export(after, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        after = last;
        seen.extend(page.into_iter().map(|whole| whole.request.id.0));
        // The request that a page ended with is gone before the next is asked for.
        store.purge(Retention::since(at(1_000)), 10).await.unwrap();
    }
    assert_eq!(seen, [5, 1, 4, 2, 3]);
}
