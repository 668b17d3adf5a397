//! Webhooks: when they are due, to whom they are given, what is remembered of the calls.

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_store::{
    Accepted, DELIVERY_LEASE, Delivery, DeliveryAttempt, DeliveryRecord, DeliveryState,
    QueuedRequest, Retention, Store, limits,
};

use crate::samples::{at, completion, id, request};

fn hooked(number: u128) -> QueuedRequest {
    QueuedRequest {
        webhook_url: Some(format!("https://example.com/{number}")),
        caller: "key-1".to_owned(),
        ..request(number)
    }
}

async fn ended(store: &impl Store, number: u128, ended_at: u64) {
    assert_eq!(store.submit(hooked(number)).await.unwrap(), Accepted::New);
    store.complete(id(number), completion(at(ended_at), b"done")).await.unwrap();
}

fn given(number: u128, completed_at: u64, attempts: u32) -> Delivery {
    Delivery {
        request: id(number),
        url: format!("https://example.com/{number}"),
        caller: "key-1".to_owned(),
        completed_at: at(completed_at),
        attempts,
    }
}

fn failed_call(second: u64) -> DeliveryAttempt {
    DeliveryAttempt {
        at: at(second),
        took: Duration::from_micros(1_234),
        status: Some(503),
        problem: Some("the receiver answered 503".to_owned()),
    }
}

fn good_call(second: u64) -> DeliveryAttempt {
    DeliveryAttempt { status: Some(200), problem: None, ..failed_call(second) }
}

pub(crate) async fn a_webhook_is_due_when_its_request_ends(store: Arc<impl Store>) {
    store.submit(hooked(1)).await.unwrap();
    store.submit(request(2)).await.unwrap();
    store.complete(id(2), completion(at(50), b"")).await.unwrap();
    assert_eq!(store.next_delivery().await.unwrap(), None);
    assert_eq!(store.due_deliveries(Timestamp::MAX, 10).await.unwrap(), []);
    assert_eq!(store.delivery(id(1)).await.unwrap(), None, "it has not ended");
    assert_eq!(store.delivery(id(2)).await.unwrap(), None, "it has none");

    store.complete(id(1), completion(at(101), b"")).await.unwrap();
    store.complete(id(1), completion(at(90), b"again")).await.unwrap();
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(101)));
    let record = DeliveryRecord {
        url: "https://example.com/1".to_owned(),
        state: DeliveryState::Due(at(101)),
        attempts: Vec::new(),
    };
    assert_eq!(store.delivery(id(1)).await.unwrap(), Some(record));
    assert_eq!(store.due_deliveries(at(100), 10).await.unwrap(), []);
    assert_eq!(store.due_deliveries(at(101), 10).await.unwrap(), [given(1, 101, 0)]);
}

pub(crate) async fn a_webhook_is_given_to_one_at_a_time(store: Arc<impl Store>) {
    for (number, ended_at) in [(1, 30), (2, 10), (3, 20)] {
        ended(&*store, number, ended_at).await;
    }
    let due = async |now, limit| store.due_deliveries(now, limit).await.unwrap();
    assert_eq!(due(at(40), 0).await, []);
    assert_eq!(due(at(40), 2).await, [given(2, 10, 0), given(3, 20, 0)], "the longest due first");
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(30)));
    assert_eq!(due(at(41), 10).await, [given(1, 30, 0)]);
    assert_eq!(due(at(42), 10).await, []);
    let lease_ends = at(40) + DELIVERY_LEASE;
    assert_eq!(store.next_delivery().await.unwrap(), Some(lease_ends));
    assert_eq!(due(lease_ends, 10).await, [given(2, 10, 0), given(3, 20, 0)], "nobody reported");
}

pub(crate) async fn calls_are_logged_and_put_off(store: Arc<impl Store>) {
    ended(&*store, 1, 10).await;
    for (round, again_at) in [(0, 60), (1, 120)] {
        let now = if round == 0 { at(10) } else { at(60) };
        assert_eq!(store.due_deliveries(now, 10).await.unwrap(), [given(1, 10, round)]);
        let state = DeliveryState::Due(at(again_at));
        store.called(id(1), failed_call(again_at), state).await.unwrap();
        assert_eq!(store.next_delivery().await.unwrap(), Some(at(again_at)));
        assert_eq!(store.due_deliveries(at(again_at - 1), 10).await.unwrap(), []);
    }
    let unanswered = DeliveryAttempt { status: None, ..failed_call(130) };
    store.called(id(1), unanswered.clone(), DeliveryState::Failed).await.unwrap();
    let record = store.delivery(id(1)).await.unwrap().unwrap();
    assert_eq!(record.state, DeliveryState::Failed);
    assert_eq!(record.attempts, [failed_call(60), failed_call(120), unanswered]);
    assert_eq!(store.next_delivery().await.unwrap(), None);
    assert_eq!(store.due_deliveries(Timestamp::MAX, 10).await.unwrap(), []);
    store.called(id(9), failed_call(1), DeliveryState::Delivered).await.unwrap();
    assert_eq!(store.delivery(id(9)).await.unwrap(), None);
}

pub(crate) async fn what_was_delivered_stays_so(store: Arc<impl Store>) {
    ended(&*store, 1, 10).await;
    store.called(id(1), good_call(11), DeliveryState::Delivered).await.unwrap();
    for late in [DeliveryState::Due(at(60)), DeliveryState::Failed] {
        store.called(id(1), failed_call(12), late).await.unwrap();
        assert_eq!(store.delivery(id(1)).await.unwrap().unwrap().state, DeliveryState::Delivered);
    }
    assert_eq!(store.next_delivery().await.unwrap(), None);
    assert_eq!(store.delivery(id(1)).await.unwrap().unwrap().attempts.len(), 3);
    // What failed may be tried again by hand.
    ended(&*store, 2, 10).await;
    store.called(id(2), failed_call(11), DeliveryState::Failed).await.unwrap();
    store.called(id(2), failed_call(12), DeliveryState::Due(at(60))).await.unwrap();
    assert_eq!(store.due_deliveries(at(60), 10).await.unwrap(), [given(2, 10, 2)]);
}

pub(crate) async fn the_delivery_log_keeps_the_newest(store: Arc<impl Store>) {
    ended(&*store, 1, 10).await;
    let calls = limits::DELIVERY_ATTEMPTS_MAX as u64 + 5;
    for second in 0..calls {
        store.called(id(1), failed_call(second), DeliveryState::Due(at(second))).await.unwrap();
    }
    let log = store.delivery(id(1)).await.unwrap().unwrap().attempts;
    assert_eq!(log, (5..calls).map(failed_call).collect::<Vec<_>>());
    let due = store.due_deliveries(at(1_000), 10).await.unwrap();
    assert_eq!(due, [given(1, 10, u32::try_from(calls).unwrap())], "all are counted");
}

pub(crate) async fn a_purged_request_takes_its_webhook_along(store: Arc<impl Store>) {
    ended(&*store, 1, 10).await;
    store.called(id(1), failed_call(11), DeliveryState::Due(at(60))).await.unwrap();
    assert_eq!(store.purge(Retention::since(at(20)), 10).await.unwrap(), 1);
    assert_eq!(store.next_delivery().await.unwrap(), None);
    assert_eq!(store.due_deliveries(Timestamp::MAX, 10).await.unwrap(), []);
    assert_eq!(store.delivery(id(1)).await.unwrap(), None);
    ended(&*store, 1, 30).await;
    assert_eq!(store.delivery(id(1)).await.unwrap().unwrap().attempts, [], "it starts anew");
}
