//! Callers that submit without end, over all crashes, and read results now and then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use glowplug_testkit::Served;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::ledger::Ledger;

const SUBMITTERS: u64 = 12;
/// While the node is down.
const PAUSE: Duration = Duration::from_millis(10);
/// Some payloads are larger than what a row takes.
const PAYLOAD_CHARACTERS_MAX: usize = 20_000;

pub(crate) struct Submitters {
    over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
struct Submitter {
    number: u64,
    base: String,
    webhook: String,
    client: reqwest::Client,
    ledger: Arc<Ledger>,
    over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

impl Submitters {
    pub(crate) fn start(node: &Served, ledger: &Arc<Ledger>, hook: SocketAddr, seed: u64) -> Self {
        let (over, accepted) = (Arc::default(), Arc::default());
        let tasks = (0..SUBMITTERS).map(|number| {
            let submitter = Submitter {
                number,
                base: format!("{}/queue/local/app", node.url("")),
                webhook: format!("http%3A%2F%2F{hook}%2F"),
                client: reqwest::Client::builder().no_proxy().build().unwrap(),
                ledger: ledger.clone(),
                over: Arc::clone(&over),
                accepted: Arc::clone(&accepted),
            };
            tokio::spawn(submitter.work(StdRng::seed_from_u64(seed ^ number)))
        });
        let tasks = tasks.collect();
        Self { over, accepted, tasks }
    }

    /// Lets each finish what it is at; how many requests were accepted.
    pub(crate) async fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Submitter {
    async fn work(self, mut random: StdRng) {
        let mut count = 0;
        while !self.over.load(Ordering::Relaxed) {
            count += 1;
            let key = format!("{}-{count}", self.number);
            let length = random.random_range(0..PAYLOAD_CHARACTERS_MAX);
            let long = if random.random_bool(0.2) { "x".repeat(length) } else { String::new() };
            let payload = json!({ "key": key, "long": long });
            let with_webhook = random.random_bool(0.3);
            let request = self.submit(&key, &payload, with_webhook).await;
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if random.random_bool(0.1) {
                // Sent again by one who never heard the answer.
                self.submit(&key, &payload, with_webhook).await;
            }
            // What is looked at before a crash must be the same after it; this also bounds what waits.
            if random.random_bool(0.7) {
                self.wait_for(&key, &request).await;
            }
        }
    }

    /// Sends a request until the node says that it has it.
    async fn submit(&self, key: &str, payload: &Value, with_webhook: bool) -> String {
        let query =
            if with_webhook { format!("?fal_webhook={}", self.webhook) } else { String::new() };
        loop {
            let sent = self
                .client
                .post(format!("{}/{query}", self.base))
                .header("idempotency-key", key)
                .body(payload.to_string())
                .send()
                .await;
            if let Ok(answer) = sent {
                let code = answer.status().as_u16();
                let said = answer.json::<Value>().await;
                if let (200, Ok(said)) = (code, &said) {
                    let request = said["request_id"].as_str().unwrap().to_owned();
                    self.ledger.accepted(key, &request, payload, with_webhook);
                    return request;
                }
                // It is stopping, or has not begun; anything else is a failure of its own.
                assert!(matches!(code, 200 | 503), "{key}: {code} {said:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn wait_for(&self, key: &str, request: &str) {
        let url = format!("{}/requests/{request}", self.base);
        loop {
            if let Ok(answer) = self.client.get(&url).send().await {
                let code = answer.status().as_u16();
                if let Ok(answer) = answer.json::<Value>().await
                    && code == 200
                {
                    return self.ledger.answered(key, &answer);
                }
                assert_ne!(code, 404, "{key} is lost: {request}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
