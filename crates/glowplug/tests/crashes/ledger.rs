//! What was accepted, and what was seen of it. Every line is checked against all that was seen before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use glowplug_testkit::eventually;
use serde_json::Value;

/// For the node to complete what it had accepted when the crashes are over.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(3);

#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// By idempotency key.
    items: BTreeMap<String, Item>,
    /// Webhook bodies by request, as they came.
    calls: BTreeMap<String, Vec<Value>>,
}

#[derive(Clone, Debug)]
struct Item {
    request: String,
    payload: Value,
    wants_call: bool,
    answer: Option<Value>,
}

impl Ledger {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap()
    }

    /// The node said that it has the request. However often it is asked, the id is the same.
    pub(crate) fn accepted(&self, key: &str, request: &str, payload: &Value, wants_call: bool) {
        let mut lines = self.lines();
        let item = lines.items.entry(key.to_owned()).or_insert_with(|| Item {
            request: request.to_owned(),
            payload: payload.clone(),
            wants_call,
            answer: None,
        });
        assert_eq!(item.request, request, "one key, two requests: {key}");
    }

    /// The result of a request was read.
    pub(crate) fn answered(&self, key: &str, answer: &Value) {
        let mut lines = self.lines();
        let item = lines.items.get_mut(key).unwrap();
        assert_eq!(answer["echo"], item.payload, "somebody else's answer: {item:?}");
        let first = item.answer.get_or_insert_with(|| answer.clone());
        assert_eq!(first, answer, "completed twice: {key}");
    }

    /// A webhook was called.
    pub(crate) fn called(&self, body: Value) {
        let request = body["request_id"].as_str().unwrap().to_owned();
        self.lines().calls.entry(request).or_default().push(body);
    }

    /// Waits until everything that was accepted is complete, and looks at all of it once more.
    pub(crate) async fn settle(&self, base: &str) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let items: Vec<(String, Item)> =
            self.lines().items.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        for (key, item) in items {
            let path = format!("{base}/queue/local/app/requests/{}", item.request);
            let answer = eventually(&format!("{key} is complete"), SETTLE_TIMEOUT, || async {
                let status = client.get(format!("{path}/status")).send().await.ok()?;
                let code = status.status().as_u16();
                assert!(
                    matches!(code, 200 | 202),
                    "{key} is lost: {code} {:?}",
                    status.text().await
                );
                let status: Value = status.json().await.ok()?;
                if status["status"] != "COMPLETED" {
                    return None;
                }
                client.get(&path).send().await.ok()?.json::<Value>().await.ok()
            })
            .await;
            self.answered(&key, &answer);
            if item.wants_call {
                eventually(&format!("the webhook of {key} is called"), SETTLE_TIMEOUT, || async {
                    self.lines().calls.contains_key(&item.request).then_some(())
                })
                .await;
            }
        }
        let lines = self.lines();
        for item in lines.items.values() {
            for call in lines.calls.get(&item.request).into_iter().flatten() {
                assert_eq!(Some(&call["payload"]), item.answer.as_ref(), "a webhook differs");
            }
        }
    }

    pub(crate) fn summary(&self) -> String {
        let lines = self.lines();
        let calls: usize = lines.calls.values().map(Vec::len).sum();
        format!("{calls} calls of the webhooks of {} requests", lines.calls.len())
    }
}
