//! Ends: answers and log lines.

use std::sync::Arc;

use futures::future::join_all;
use glowplug_store::{
    Completed, CompletedSummary, Completion, QueuedRequest, Store, StoredResponse,
};

use crate::samples::{at, completion, id, log_line, request};

pub(crate) async fn only_the_first_answer_counts(store: Arc<impl Store>) {
    let answer = |body: &[u8]| completion(at(101), body);
    assert_eq!(store.complete(id(1), answer(b"x")).await.unwrap(), Completed::UnknownRequest);
    store.submit(request(1)).await.unwrap();
    assert_eq!(store.response(id(1)).await.unwrap(), None);
    assert_eq!(store.complete(id(1), answer(b"first")).await.unwrap(), Completed::Recorded);
    assert_eq!(store.complete(id(1), answer(b"second")).await.unwrap(), Completed::AlreadyComplete);
    assert_eq!(store.response(id(1)).await.unwrap().unwrap().body, b"first");
    assert_eq!(store.pending(None, 10).await.unwrap(), []);
}

pub(crate) async fn racing_answers_leave_one(store: Arc<impl Store>) {
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

pub(crate) async fn an_answer_comes_back_as_it_was(store: Arc<impl Store>) {
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

pub(crate) async fn a_failed_request_keeps_its_error(store: Arc<impl Store>) {
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

pub(crate) async fn logs_keep_their_order_and_limit(store: Arc<impl Store>) {
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

pub(crate) async fn what_ended_last_is_listed_first(store: Arc<impl Store>) {
    for number in 1..=6 {
        let app = if number % 2 == 0 { "local/even" } else { "local/odd" };
        store.submit(QueuedRequest { app: app.to_owned(), ..request(number) }).await.unwrap();
    }
    // In another order than they came, and two at the same moment.
    for (number, second) in [(5, 101), (2, 103), (1, 102), (4, 103)] {
        store.complete(id(number), completion(at(second), b"")).await.unwrap();
    }
    for (app, limit, expected) in [
        (None, 10, vec![4, 2, 1, 5]),
        (None, 3, vec![4, 2, 1]),
        (Some("local/odd"), 10, vec![1, 5]),
        (Some("local/even"), 1, vec![4]),
        (Some("local/none"), 10, vec![]),
        (None, 0, vec![]),
    ] {
        let listed = store.completed(app.map(str::to_owned), limit).await.unwrap();
        let ids: Vec<_> = listed.iter().map(|record| record.id.0).collect();
        assert_eq!(ids, expected, "{app:?} {limit}");
        for record in listed {
            assert_eq!(Some(&record), store.request(record.id).await.unwrap().as_ref());
        }
    }
}
