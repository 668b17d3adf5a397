//! Whose a request is. The boots here are those of one store that stays open, which is what a restart of
//! the node is to its requests.

use std::sync::Arc;

use glowplug_store::{Completed, QueuedHead, QueuedRequest, Store};

use crate::samples::{at, completion, id, request};

pub(crate) async fn a_new_start_takes_over_what_the_last_one_left(store: Arc<impl Store>) {
    let first_boot = store.begin_boot().await.unwrap();
    let full = QueuedRequest {
        start_deadline: Some(at(500)),
        no_retry: true,
        retry_config: Some(r#"{"timeout":{"retries":2}}"#.to_owned()),
        hint: Some("gpu-7".to_owned()),
        caller: "key-1".to_owned(),
        ..request(1)
    };
    store.submit(full.clone()).await.unwrap();
    store.submit(request(2)).await.unwrap();
    let second_boot = store.begin_boot().await.unwrap();
    let owner = async |number| store.request(id(number)).await.unwrap().unwrap().owner;
    assert_eq!(owner(1).await, first_boot);

    let adopted = store.adopt(10).await.unwrap();
    assert_eq!(adopted, [QueuedHead::from(&full), QueuedHead::from(&request(2))]);
    assert_eq!(owner(1).await, second_boot);
    assert_eq!(store.adopt(10).await.unwrap(), []);
    let done = store.complete(id(1), completion(at(101), b"")).await.unwrap();
    assert_eq!(done, Completed::Recorded);
    assert_eq!(owner(1).await, second_boot, "it is known who answered");
}

pub(crate) async fn an_answer_of_an_older_start_does_not_count(store: Arc<impl Store>) {
    store.begin_boot().await.unwrap();
    store.submit(request(1)).await.unwrap();
    store.begin_boot().await.unwrap();
    let answer = async || store.complete(id(1), completion(at(101), b"late")).await.unwrap();
    assert_eq!(answer().await, Completed::Fenced);
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(1)]);
    assert_eq!(store.response(id(1)).await.unwrap(), None);
    store.adopt(10).await.unwrap();
    assert_eq!(answer().await, Completed::Recorded);
    store.begin_boot().await.unwrap();
    assert_eq!(answer().await, Completed::AlreadyComplete, "whoever asks");
}

pub(crate) async fn what_is_taken_over_is_told_page_by_page(store: Arc<impl Store>) {
    store.begin_boot().await.unwrap();
    for number in 0..10 {
        store.submit(request(number)).await.unwrap();
    }
    store.begin_boot().await.unwrap();
    store.submit(request(100)).await.unwrap();
    assert_eq!(store.adopt(0).await.unwrap(), []);
    let mut seen = Vec::new();
    loop {
        let page = store.adopt(3).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|head| head.id.0));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

pub(crate) async fn nothing_is_taken_over_that_is_complete_or_ones_own(store: Arc<impl Store>) {
    store.begin_boot().await.unwrap();
    for number in 1..=3 {
        store.submit(request(number)).await.unwrap();
    }
    assert_eq!(store.adopt(10).await.unwrap(), []);
    store.complete(id(2), completion(at(101), b"")).await.unwrap();
    store.begin_boot().await.unwrap();
    let adopted = store.adopt(10).await.unwrap();
    assert_eq!(adopted, [QueuedHead::from(&request(1)), QueuedHead::from(&request(3))]);
}

pub(crate) async fn attempts_are_known_to_whoever_takes_over(store: Arc<impl Store>) {
    store.begin_boot().await.unwrap();
    for number in 1..=3 {
        store.submit(request(number)).await.unwrap();
    }
    let taken_over = async || {
        store.begin_boot().await.unwrap();
        // Nobody's yet.
        store.started(id(3), 7).await.unwrap();
        let adopted = store.adopt(10).await.unwrap();
        adopted.into_iter().map(|head| head.attempts).collect::<Vec<_>>()
    };
    assert_eq!(taken_over().await, [0, 0, 0]);
    store.started(id(1), 1).await.unwrap();
    store.started(id(2), 2).await.unwrap();
    store.started(id(2), 3).await.unwrap();
    store.started(id(9), 1).await.unwrap();
    assert_eq!(taken_over().await, [1, 3, 0]);
    store.started(id(2), 2).await.unwrap();
    assert_eq!(taken_over().await, [1, 3, 0], "one that is told of late takes nothing back");
    assert_eq!(store.pending(None, 1).await.unwrap(), [request(1)]);
}
