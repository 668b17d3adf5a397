//! The driver against receivers that answer over real connections.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use glowplug_store::{
    Completion, DeliveryRecord, MemoryStore, Priority, QueuedRequest, Retention, SqliteOptions,
    SqliteStore, StoredResponse,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

const SOON: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(5);

/// What a receiver does with one call.
#[derive(Clone, Copy, PartialEq)]
enum Reply {
    Status(u16),
    Close,
    Hang,
}

/// Answers the nth call with the nth reply, and all further ones with the last.
struct Receiver {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    async fn start(at: &str, replies: &[Reply]) -> Self {
        let listener = TcpListener::bind((at.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (heard, replies) = (calls.clone(), replies.to_vec());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(reply(stream, heard.clone(), replies.clone()));
            }
        });
        Self { address, calls, task }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn bodies(&self) -> Vec<Value> {
        self.calls.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

async fn reply(
    mut stream: TcpStream,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    replies: Vec<Reply>,
) {
    let mut read = Vec::new();
    let (head, body) = loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            break (head.to_owned(), body);
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let number = {
        let mut calls = heard.lock().unwrap();
        calls.push((head, body));
        calls.len()
    };
    match replies[number.min(replies.len()) - 1] {
        Reply::Status(status) => {
            let head = format!("HTTP/1.1 {status} X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n");
            drop(stream.write_all(head.as_bytes()).await);
        }
        Reply::Close => {}
        Reply::Hang => drop(stream.read(&mut [0]).await),
    }
}

fn options() -> WebhookOptions {
    WebhookOptions {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        first_delay: Duration::from_millis(10),
        first_timeout: SOON,
        timeout: SOON,
        ..WebhookOptions::default()
    }
}

struct Ground {
    store: Arc<dyn Store>,
    webhooks: Arc<Webhooks>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ground {
    async fn memory(options: WebhookOptions) -> Self {
        Self::start(Arc::new(MemoryStore::default()), options).await
    }

    async fn start(store: Arc<dyn Store>, options: WebhookOptions) -> Self {
        store.begin_boot().await.unwrap();
        Self::join(store, options).await
    }

    /// One more driver on a store.
    async fn join(store: Arc<dyn Store>, options: WebhookOptions) -> Self {
        let key = signing_key(&*store).await.unwrap();
        let client = Client::new(options).unwrap();
        let metrics = Arc::new(Metrics::new());
        let webhooks = Arc::new(Webhooks::new(
            store.clone(),
            Clock::start(),
            metrics.clone(),
            client,
            key,
            Duration::from_mins(1),
        ));
        let task = tokio::spawn(webhooks.clone().run());
        Self { store, webhooks, metrics, task }
    }

    async fn end(&self, number: u128, url: &str, completion: Completion) {
        let webhook_url = Some(url.to_owned());
        let request = QueuedRequest { webhook_url, ..request(number) };
        self.store.submit(request).await.unwrap();
        self.store.complete(RequestId(number), completion).await.unwrap();
        self.webhooks.wake();
    }

    async fn ok(&self, number: u128, url: &str) {
        self.end(number, url, self.completion(200, r#"{"a":1}"#, None)).await;
    }

    fn completion(&self, status: u16, body: &str, error: Option<&str>) -> Completion {
        Completion {
            at: self.webhooks.clock.now(),
            response: StoredResponse { status, headers: Vec::new(), body: body.into() },
            error: error.map(|message| (message.to_owned(), "type".to_owned())),
            inference_seconds: None,
            attempts: 1,
        }
    }

    async fn until(&self, number: u128, state: DeliveryState) -> DeliveryRecord {
        let looking = async {
            loop {
                let record = self.store.delivery(RequestId(number)).await.unwrap();
                if let Some(record) = record
                    && record.state == state
                {
                    return record;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(SOON, looking).await.expect("it gets there")
    }
}

fn request(number: u128) -> QueuedRequest {
    QueuedRequest {
        id: RequestId(number),
        app: "local/app".to_owned(),
        path: String::new(),
        method: "POST".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        priority: Priority::Normal,
        submitted_at: Timestamp::from_secs(1),
        start_deadline: None,
        no_retry: false,
        retry_config: None,
        hint: None,
        webhook_url: None,
        idempotency_key: None,
        keep_payload: true,
        caller: "key-1".to_owned(),
    }
}

#[test]
fn what_the_config_says_is_how_webhooks_are_called() {
    let config = WebhooksConfig {
        allow: Vec::new(),
        first_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        calls_max: 3,
        ca_file: Some("/etc/ours.pem".into()),
    };
    let expected = WebhookOptions {
        allow: Vec::new(),
        first_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        calls_max: 3,
        ca_file: Some("/etc/ours.pem".into()),
        ..WebhookOptions::default()
    };
    assert_eq!(super::options(&config), expected);
}

#[tokio::test]
async fn a_complete_request_calls_once() {
    let receiver = Receiver::start("127.0.0.1", &[Reply::Status(204)]).await;
    let ground = Ground::memory(options()).await;
    ground.ok(7, &receiver.url()).await;
    let record = ground.until(7, DeliveryState::Delivered).await;
    let [call] = &record.attempts[..] else { panic!("{record:?}") };
    assert_eq!((call.status, call.problem.as_deref()), (Some(204), None));
    let id = RequestId(7).to_string();
    let expected = json!({
        "request_id": id, "gateway_request_id": id, "status": "OK", "payload": {"a": 1},
    });
    assert_eq!(receiver.bodies(), [expected]);
    assert!(receiver.calls.lock().unwrap()[0].0.contains("x-fal-webhook-user-id: key-1"));
    assert!(ground.metrics.render(&[]).contains(r#"webhook_calls_total{outcome="delivered"} 1"#));
}

#[tokio::test]
async fn a_request_without_an_answer_of_its_own_calls_too() {
    let receiver = Receiver::start("127.0.0.1", &[Reply::Status(200)]).await;
    let ground = Ground::memory(options()).await;
    let ends = [
        (422, r#"{"detail":"no"}"#, "Invalid status code: 422", "Invalid status code: 422"),
        (499, r#"{"detail":"gone"}"#, "the caller cancelled", "Invalid status code: 499"),
        (504, r#"{"detail":"late"}"#, "request_timeout", "Invalid status code: 504"),
        (503, "plain", "the runner crashed", "Invalid status code: 503"),
    ];
    for (number, (status, body, stored, said)) in (1..).zip(ends) {
        let completion = ground.completion(status, body, Some(stored));
        ground.end(number, &receiver.url(), completion).await;
        ground.until(number, DeliveryState::Delivered).await;
        let body = receiver.bodies().pop().unwrap();
        assert_eq!((&body["status"], &body["error"]), (&"ERROR".into(), &said.into()), "{body}");
        let has_payload = body["payload"].is_object() && body.get("payload_error").is_none();
        assert_eq!(has_payload, status != 503, "{body}");
    }
}

#[tokio::test]
async fn a_receiver_that_fails_is_called_again_with_the_same_words() {
    let replies = [Reply::Status(500), Reply::Close, Reply::Status(404), Reply::Status(200)];
    let receiver = Receiver::start("127.0.0.1", &replies).await;
    let ground = Ground::memory(options()).await;
    ground.ok(7, &receiver.url()).await;
    let record = ground.until(7, DeliveryState::Delivered).await;
    let statuses: Vec<_> = record.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(500), None, Some(404), Some(200)]);
    assert!(record.attempts.iter().take(3).all(|attempt| attempt.problem.is_some()));
    let bodies = receiver.bodies();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let metrics = ground.metrics.render(&[]);
    assert!(metrics.contains(r#"webhook_calls_total{outcome="again"} 3"#), "{metrics}");
}

#[tokio::test]
async fn what_can_never_be_delivered_fails() {
    let receiver = Receiver::start("127.0.0.1", &[Reply::Status(307)]).await;
    let broken = Receiver::start("127.0.0.1", &[Reply::Status(500)]).await;
    let ground = Ground::memory(WebhookOptions { calls_max: 3, ..options() }).await;
    let cases = [
        (receiver.url(), "redirects", 1),
        (broken.url(), "that was the last of 3 calls", 3),
        ("http://10.0.0.1/".to_owned(), "a private address", 1),
        ("http://[::1]:9/".to_owned(), "a loopback address", 1),
        ("nowhere".to_owned(), "cannot be read", 1),
    ];
    for (number, (url, problem, calls)) in (1..).zip(cases) {
        ground.ok(number, &url).await;
        let record = ground.until(number, DeliveryState::Failed).await;
        assert_eq!(record.attempts.len(), calls, "{url}: {record:?}");
        let said = record.attempts.last().unwrap().problem.clone().unwrap();
        assert!(said.contains(problem), "{url}: {said}");
    }
    assert_eq!(receiver.bodies().len(), 1, "the redirect leads nowhere");
}

#[tokio::test]
async fn a_person_can_have_it_called_once_more() {
    let replies = [Reply::Status(500), Reply::Status(500), Reply::Status(200)];
    let receiver = Receiver::start("127.0.0.1", &replies).await;
    let ground = Ground::memory(WebhookOptions { calls_max: 1, ..options() }).await;
    ground.ok(7, &receiver.url()).await;
    ground.until(7, DeliveryState::Failed).await;
    let again = async |number| ground.webhooks.call_again(RequestId(number)).await.unwrap();
    assert_eq!(again(8).await, None, "there is no such webhook");
    again(7).await.unwrap();
    let record = ground.until(7, DeliveryState::Failed).await;
    assert_eq!(record.attempts.len(), 3);
    again(7).await.unwrap();
    let record = ground.until(7, DeliveryState::Delivered).await;
    assert!(record.attempts[3].problem.as_ref().unwrap().contains("a person asked"), "{record:?}");
    assert_eq!(again(7).await, Some(DeliveryState::Delivered));
    assert_eq!(receiver.bodies().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_answers_does_not_hold_up_others() {
    const TO_DEAD: u128 = 10_000;
    let dead = Receiver::start("127.0.0.2", &[Reply::Hang]).await;
    let alive = Receiver::start("127.0.0.1", &[Reply::Status(200)]).await;
    let ground =
        Ground::memory(WebhookOptions { concurrency_max: 16, per_host_max: 4, ..options() }).await;
    for number in 0..TO_DEAD {
        ground.ok(number, &dead.url()).await;
    }
    for number in TO_DEAD..TO_DEAD + 100 {
        ground.ok(number, &alive.url()).await;
    }
    for number in TO_DEAD..TO_DEAD + 100 {
        ground.until(number, DeliveryState::Delivered).await;
    }
    assert_eq!(alive.bodies().len(), 100);
    assert_eq!(dead.bodies().len(), 4, "the dead one keeps its share of the places");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hosts_that_never_answer_do_not_hold_up_one_that_does() {
    const TO_DEAD: u128 = 1_000;
    let mut dead = Vec::new();
    for host in 2..14 {
        dead.push(Receiver::start(&format!("127.0.0.{host}"), &[Reply::Hang]).await);
    }
    let alive = Receiver::start("127.0.0.1", &[Reply::Status(200)]).await;
    let ground =
        Ground::memory(WebhookOptions { concurrency_max: 16, per_host_max: 4, ..options() }).await;
    ground.ok(TO_DEAD, &alive.url()).await;
    ground.until(TO_DEAD, DeliveryState::Delivered).await;
    for number in 0..TO_DEAD {
        ground.ok(number, &dead[usize::try_from(number).unwrap() % dead.len()].url()).await;
    }
    for number in TO_DEAD + 1..TO_DEAD + 100 {
        ground.ok(number, &alive.url()).await;
        ground.until(number, DeliveryState::Delivered).await;
    }
    let hanging: usize = dead.iter().map(|receiver| receiver.bodies().len()).sum();
    assert_eq!(hanging, 12, "all but a quarter of the places");
}

#[tokio::test]
async fn a_burst_to_one_host_is_delivered_once_each_and_by_whoever_is_free() {
    let receiver = Receiver::start("127.0.0.1", &[Reply::Status(200)]).await;
    let ground = Ground::memory(options()).await;
    let second = Ground::join(ground.store.clone(), options()).await;
    for number in 0..600 {
        ground.ok(number, &receiver.url()).await;
        second.webhooks.wake();
    }
    for number in 0..600 {
        ground.until(number, DeliveryState::Delivered).await;
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for body in receiver.bodies() {
        *times.entry(body["request_id"].to_string()).or_default() += 1;
    }
    assert_eq!((times.len(), times.values().sum::<u32>()), (600, 600));
}

#[tokio::test]
async fn a_request_that_is_gone_is_not_called() {
    let receiver = Receiver::start("127.0.0.1", &[Reply::Status(500), Reply::Status(200)]).await;
    let delayed = WebhookOptions { first_delay: Duration::from_millis(300), ..options() };
    let ground = Ground::memory(delayed).await;
    ground.ok(7, &receiver.url()).await;
    tokio::time::timeout(SOON, async {
        while ground.store.delivery(RequestId(7)).await.unwrap().unwrap().attempts.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await
    .expect("it is called");
    let purged = ground.store.purge(Retention::since(Timestamp::MAX), 10).await.unwrap();
    assert_eq!(purged, 1);
    ground.ok(8, &receiver.url()).await;
    ground.until(8, DeliveryState::Delivered).await;
    assert_eq!(receiver.bodies().len(), 2);
}

#[tokio::test]
async fn a_restart_goes_on_with_what_was_under_way() {
    let receiver = Receiver::start("127.0.0.1", &[Reply::Hang, Reply::Status(200)]).await;
    let folder = tempfile::tempdir().unwrap();
    let open =
        || SqliteStore::open(&folder.path().join("store.db"), SqliteOptions::default()).unwrap();
    let keys = {
        let ground = Ground::start(open(), options()).await;
        ground.ok(7, &receiver.url()).await;
        tokio::time::timeout(SOON, async {
            while receiver.bodies().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
        .expect("it is called");
        ground.task.abort();
        ground.store.close().await;
        ground.webhooks.public_keys()
    };
    let ground = Ground::start(open(), options()).await;
    let record = ground.until(7, DeliveryState::Delivered).await;
    assert_eq!(record.attempts.len(), 1, "nobody knows how the first call ended");
    let bodies = receiver.bodies();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(ground.webhooks.public_keys(), keys, "the key is the same");
}

#[tokio::test]
async fn nodes_of_one_store_sign_alike() {
    let store = MemoryStore::default();
    let key = signing_key(&store).await.unwrap().public_keys();
    assert_eq!(signing_key(&store).await.unwrap().public_keys(), key);
    let other = signing_key(&MemoryStore::default()).await.unwrap().public_keys();
    assert_ne!(other, key);
}

#[tokio::test]
async fn a_look_does_not_take_all_that_is_due_while_calls_wait() {
    let ground = Ground::memory(options()).await;
    ground.task.abort();
    let most = BATCHES_PER_LOOK_MAX * BATCH;
    for number in 0..=most as u128 {
        ground.ok(number, "http://127.0.0.1:9/").await;
    }
    let next = ground.webhooks.look(&mut Lines::new(1, 1)).await;
    let now = ground.webhooks.clock.now();
    assert!(next <= now + LOOK_INTERVAL_MIN, "the rest is due as well");
    let left = ground.store.due_deliveries(now, usize::MAX).await.unwrap();
    assert_eq!(left.len(), 1);
}
