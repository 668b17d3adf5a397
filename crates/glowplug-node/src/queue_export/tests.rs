use std::time::Duration;

use glowplug_core::{RequestId, Timestamp};
use glowplug_store::{
    Completion, DeliveryAttempt, DeliveryRecord, DeliveryState, MemoryStore, Place, Priority,
    QueuedRequest, RequestLogLine, Store, StoredResponse, WholeRequest,
};

use super::*;

fn whole(id: u128, body: Vec<u8>, answer: Option<Vec<u8>>) -> WholeRequest {
    let completion = answer.map(|body| Completion {
        at: Timestamp::from_secs(1_060),
        response: StoredResponse {
            status: 422,
            headers: vec![("content-type".into(), "text/plain".into())],
            body,
        },
        error: Some(("Invalid status code: 422".into(), "bad_request".into())),
        inference_seconds: Some(1.5),
        attempts: 3,
    });
    let delivery = completion.is_some().then(|| DeliveryRecord {
        url: "https://receiver.example/hook".into(),
        state: DeliveryState::Due(Timestamp::from_secs(1_070)),
        attempts: vec![DeliveryAttempt {
            at: Timestamp::from_secs(1_061),
            took: Duration::from_millis(20),
            status: Some(503),
            problem: Some("it answered 503".into()),
        }],
    });
    WholeRequest {
        request: QueuedRequest {
            id: RequestId(id),
            app: if id.is_multiple_of(2) { "local/even" } else { "local/odd" }.into(),
            path: "run?x=1".into(),
            method: "POST".into(),
            headers: vec![("accept".into(), "*/*".into()), ("accept".into(), "a/b".into())],
            body,
            priority: if id.is_multiple_of(3) { Priority::Low } else { Priority::Normal },
            submitted_at: Timestamp::from_secs(1_000),
            start_deadline: Some(Timestamp::from_secs(9_000)),
            no_retry: id == 1,
            retry_config: Some(r#"{"timeout":{"retries":1}}"#.into()),
            hint: Some("a model".into()),
            webhook_url: delivery.as_ref().map(|delivery| delivery.url.clone()),
            idempotency_key: Some(format!("key {id}")),
            keep_payload: true,
            caller: "me".into(),
        },
        completion,
        logs: vec![RequestLogLine {
            at: Timestamp::from_secs(1_030),
            level: "STDOUT".into(),
            source: "run".into(),
            message: "half \"way\"\tthere".into(),
        }],
        delivery,
    }
}

/// Requests with bodies of every kind: none, text, no text, above the limit for rows.
fn samples() -> Vec<WholeRequest> {
    let noise: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    vec![
        whole(1, Vec::new(), None),
        whole(2, br#"{"prompt": "caf\u00e9 ""#.to_vec(), Some(b"{}".to_vec())),
        whole(3, noise.clone(), Some(vec![b'x'; 100_000])),
        whole(4, vec![0; 70_000], Some(noise)),
        whole(5, "ä\n\r\t\u{7f}\u{2028}".into(), None),
    ]
}

async fn exported(store: &dyn Store, app: Option<&str>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut lines = Vec::new();
    export(store, app, |line| {
        lines.push(line);
        std::future::ready(true)
    })
    .await
    .unwrap();
    for line in lines {
        file.extend_from_slice(&line);
    }
    file
}

async fn imported(store: &dyn Store, file: &[u8], piece_bytes: usize) -> Result<Moved, Error> {
    let (mut lines, mut import) = (Lines::default(), Import::new(store));
    for piece in file.chunks(piece_bytes) {
        lines.push(piece)?;
        while let Some(line) = lines.next_line() {
            import.line(&line).await?;
        }
    }
    if let Some(rest) = lines.rest() {
        import.line(&rest).await?;
    }
    import.finish()
}

async fn filled() -> MemoryStore {
    let store = MemoryStore::default();
    for sample in samples() {
        assert!(store.import(sample).await.unwrap());
    }
    store
}

#[tokio::test]
async fn what_is_exported_is_what_is_imported_and_again() {
    let first = filled().await;
    let file = exported(&first, None).await;
    for piece_bytes in [1_000, 65_536, usize::MAX] {
        let second = MemoryStore::default();
        let moved = imported(&second, &file, piece_bytes.min(file.len())).await.unwrap();
        assert_eq!(moved, Moved { requests: 5, known: 0 });
        assert_eq!(second.export(Place::START, 10).await.unwrap().0, samples());
        assert_eq!(exported(&second, None).await, file, "the same again");
        let again = imported(&second, &file, 10_000).await.unwrap();
        assert_eq!(again, Moved { requests: 0, known: 5 }, "what is there is left alone");
    }
}

#[tokio::test]
async fn one_app_may_be_exported_alone() {
    let file = exported(&filled().await, Some("local/even")).await;
    let store = MemoryStore::default();
    assert_eq!(imported(&store, &file, 4_096).await.unwrap().requests, 2);
    let apps = store.export(Place::START, 10).await.unwrap().0;
    assert!(apps.iter().all(|whole| whole.request.app == "local/even"));
}

#[tokio::test]
async fn a_damaged_line_names_its_number_and_what_was_before_it_stays() {
    let file = exported(&filled().await, None).await;
    let text = String::from_utf8(file.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |number: usize, line: &str| {
        let mut lines = lines.clone();
        lines[number - 1] = line;
        lines.join("\n") + "\n"
    };
    let flipped = lines[2].replace("a model", "b model");
    let cut = &lines[3][..lines[3].len() / 2];
    for (file, expected, kept) in [
        (String::new(), "line 1: this is no exported queue: it is empty", 0),
        (with(1, "{}"), "line 1: this is no exported queue: missing field", 0),
        (with(1, r#"{"glowplug_queue":2,"glowplug_version":"9"}"#), "line 1: this queue was", 0),
        (with(3, &flipped), "line 3: it is damaged: its `check` does not fit", 1),
        (with(4, cut), "line 4: it is damaged: EOF", 2),
        (with(5, ""), "line 5: it is damaged: EOF", 3),
        (with(7, r#"{"end":6}"#), "line 7: 6 requests were written, and 5 are there", 5),
        (with(7, lines[1]), "the file ends after line 7 without", 5),
        (text.clone() + lines[1], "line 8: there is more after the end", 5),
        (with(2, r#"{"request":{"id":"x"}}"#), "line 2: it is damaged: missing field `app`", 0),
    ] {
        let store = MemoryStore::default();
        let error = imported(&store, file.as_bytes(), 1_000).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(store.export(Place::START, 10).await.unwrap().0.len(), kept, "{expected}");
    }
}

#[tokio::test]
async fn a_line_made_by_hand_needs_no_check() {
    let file = String::from_utf8(exported(&filled().await, None).await).unwrap();
    let by_hand: String = file
        .lines()
        .map(|line| match line.split_once("\"request\":") {
            Some((_, request)) => format!("{{\"request\":{request}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let store = MemoryStore::default();
    assert_eq!(imported(&store, by_hand.as_bytes(), 8_192).await.unwrap().requests, 5);
}
