//! Idempotency keys: a submit that is repeated makes one request.

use std::sync::Arc;

use futures::future::join_all;
use glowplug_store::{Accepted, QueuedRequest, Retention, Store, StoreError, limits};

use crate::samples::{at, completion, id, request};

/// All of the same caller, app, key and content: only the id tells them apart.
fn keyed(number: u128) -> QueuedRequest {
    QueuedRequest {
        idempotency_key: Some("order-7".to_owned()),
        caller: "key-1".to_owned(),
        body: b"same".to_vec(),
        ..request(number)
    }
}

pub(crate) async fn a_repeated_submit_finds_the_first(store: Arc<impl Store>) {
    store.begin_boot().await.unwrap();
    assert_eq!(store.submit(keyed(1)).await.unwrap(), Accepted::New);
    for again in [keyed(2), keyed(1)] {
        assert_eq!(store.submit(again).await.unwrap(), Accepted::Before(id(1)));
    }
    // What the caller may change from one try to the next.
    let again = QueuedRequest { submitted_at: at(900), headers: Vec::new(), ..keyed(3) };
    assert_eq!(store.submit(again).await.unwrap(), Accepted::Before(id(1)));
    assert_eq!(store.pending(None, 10).await.unwrap(), [keyed(1)]);

    store.complete(id(1), completion(at(101), b"done")).await.unwrap();
    assert_eq!(store.submit(keyed(4)).await.unwrap(), Accepted::Before(id(1)));
    store.begin_boot().await.unwrap();
    assert_eq!(store.submit(keyed(5)).await.unwrap(), Accepted::Before(id(1)));
    assert_eq!(store.request(id(5)).await.unwrap(), None);
}

pub(crate) async fn a_key_used_for_another_request_is_refused(store: Arc<impl Store>) {
    store.submit(keyed(1)).await.unwrap();
    let others = [
        QueuedRequest { method: "PUT".to_owned(), ..keyed(2) },
        QueuedRequest { path: "write".to_owned(), ..keyed(2) },
        QueuedRequest { body: b"other".to_vec(), ..keyed(2) },
        QueuedRequest { body: Vec::new(), ..keyed(2) },
    ];
    for other in others {
        let error = store.submit(other.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::KeyReused { earlier } if earlier == id(1)), "{error}");
    }
    assert_eq!(store.pending(None, 10).await.unwrap(), [keyed(1)]);
}

pub(crate) async fn keys_belong_to_a_caller_and_an_app(store: Arc<impl Store>) {
    let all = [
        keyed(1),
        QueuedRequest { caller: "key-2".to_owned(), ..keyed(2) },
        QueuedRequest { app: "local/other".to_owned(), ..keyed(3) },
        QueuedRequest { caller: String::new(), ..keyed(4) },
        QueuedRequest { idempotency_key: Some("order-8".to_owned()), ..keyed(5) },
        QueuedRequest { idempotency_key: None, ..keyed(6) },
        QueuedRequest { idempotency_key: None, ..keyed(7) },
    ];
    for each in &all {
        assert_eq!(store.submit(each.clone()).await.unwrap(), Accepted::New, "{:?}", each.id);
    }
    assert_eq!(store.pending(None, 10).await.unwrap(), all);
}

pub(crate) async fn a_key_lasts_as_long_as_its_request(store: Arc<impl Store>) {
    // The payload goes with the end of the request, and is still known by its checksum.
    store.submit(QueuedRequest { keep_payload: false, ..keyed(1) }).await.unwrap();
    store.complete(id(1), completion(at(101), b"done")).await.unwrap();
    assert_eq!(store.submit(keyed(2)).await.unwrap(), Accepted::Before(id(1)));
    let other = QueuedRequest { body: Vec::new(), ..keyed(2) };
    store.submit(other.clone()).await.unwrap_err();
    assert_eq!(store.purge(Retention::since(at(200)), 10).await.unwrap(), 1);
    assert_eq!(store.submit(other).await.unwrap(), Accepted::New);
}

pub(crate) async fn racing_repeats_leave_one(store: Arc<impl Store>) {
    let racers = (1..=32).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { (number, store.submit(keyed(number)).await.unwrap()) })
    });
    let outcomes: Vec<_> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
    let new: Vec<_> = outcomes.iter().filter(|(_, outcome)| *outcome == Accepted::New).collect();
    let [(winner, _)] = new[..] else { panic!("accepted: {new:?}") };
    let told = outcomes.iter().filter(|(_, outcome)| *outcome == Accepted::Before(id(*winner)));
    assert_eq!(told.count(), 31);
    assert_eq!(store.pending(None, 10).await.unwrap(), [keyed(*winner)]);
}

pub(crate) async fn a_long_key_is_refused(store: Arc<impl Store>) {
    let with_key = |bytes| QueuedRequest { idempotency_key: Some("k".repeat(bytes)), ..request(1) };
    let error = store.submit(with_key(limits::IDEMPOTENCY_KEY_BYTES_MAX + 1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the idempotency key has 256 bytes, and the store keeps at most 255; send less"
    );
    store.submit(with_key(limits::IDEMPOTENCY_KEY_BYTES_MAX)).await.unwrap();
}
