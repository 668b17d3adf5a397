//! What is kept of complete requests, and for how long.

use std::sync::Arc;

use glowplug_core::Timestamp;
use glowplug_store::{Place, QueuedRequest, Retention, Store};

use crate::samples::{at, completion, id, log_line, request};

pub(crate) async fn purge_takes_the_oldest_answers_and_their_logs(store: Arc<impl Store>) {
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

/// Requests 1 to 5, answered in the order 2, 4, 1, 3; the fifth is not. Each takes 16 bytes for its payload
/// and 4 for its answer.
async fn four_of_five_answered(store: &impl Store) {
    for number in 1..=5 {
        store.submit(request(number)).await.unwrap();
    }
    for (number, ended_at) in [(1, 30), (2, 10), (3, 40), (4, 20)] {
        store.complete(id(number), completion(at(ended_at), b"done")).await.unwrap();
    }
}

async fn kept(store: &impl Store) -> Vec<u128> {
    let all = store.export(Place::START, 100).await.unwrap().0;
    all.into_iter().map(|whole| whole.request.id.0).collect()
}

pub(crate) async fn purge_keeps_the_newest_requests(store: Arc<impl Store>) {
    four_of_five_answered(&*store).await;
    let newest = |requests_max| Retention { requests_max, ..Retention::since(Timestamp::ZERO) };
    for (requests_max, limit, purged, expected) in [
        (4, 10, 0, vec![1, 2, 3, 4, 5]),
        (2, 1, 1, vec![1, 3, 4, 5]),
        (2, 10, 1, vec![1, 3, 5]),
        (2, 10, 0, vec![1, 3, 5]),
        (0, 10, 2, vec![5]),
    ] {
        assert_eq!(store.purge(newest(requests_max), limit).await.unwrap(), purged);
        assert_eq!(kept(&*store).await, expected, "at most {requests_max}");
    }
}

pub(crate) async fn purge_keeps_the_newest_bytes(store: Arc<impl Store>) {
    four_of_five_answered(&*store).await;
    let newest = |bytes_max| Retention { bytes_max, ..Retention::since(Timestamp::ZERO) };
    for (bytes_max, purged, expected) in [
        (80, 0, vec![1, 2, 3, 4, 5]),
        (79, 1, vec![1, 3, 4, 5]),
        (40, 1, vec![1, 3, 5]),
        (39, 1, vec![3, 5]),
        (0, 1, vec![5]),
    ] {
        assert_eq!(store.purge(newest(bytes_max), 10).await.unwrap(), purged);
        assert_eq!(kept(&*store).await, expected, "at most {bytes_max} bytes");
    }
    // The totals are those of what is there, also after everything went.
    store.complete(id(5), completion(at(50), b"done")).await.unwrap();
    assert_eq!(store.purge(newest(20), 10).await.unwrap(), 0);
    assert_eq!(store.purge(newest(19), 10).await.unwrap(), 1);
}

pub(crate) async fn a_payload_goes_with_the_end_if_its_caller_wants(store: Arc<impl Store>) {
    let frugal = QueuedRequest { keep_payload: false, ..request(1) };
    store.submit(frugal.clone()).await.unwrap();
    store.submit(request(2)).await.unwrap();
    assert_eq!(store.pending_request(id(1)).await.unwrap(), Some(frugal.clone()));
    for (number, ended_at) in [(1, 1), (2, 2)] {
        store.complete(id(number), completion(at(ended_at), b"done")).await.unwrap();
    }
    let all = store.export(Place::START, 10).await.unwrap().0;
    assert_eq!(all[0].request, QueuedRequest { body: Vec::new(), ..frugal });
    assert_eq!(all[1].request, request(2));
    let newest = |bytes_max| Retention { bytes_max, ..Retention::since(Timestamp::ZERO) };
    assert_eq!(store.purge(newest(24), 10).await.unwrap(), 0, "4 of one and 20 of the other");
    assert_eq!(store.purge(newest(23), 10).await.unwrap(), 1);
}
