//! Webhooks: what is said, how it is signed, what counts as taken, and where none goes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glowplug_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::ground::{Ground, SOON, app, start};

/// One call, as it was received.
#[derive(Clone, Debug)]
struct Call {
    head: String,
    body: Vec<u8>,
}

impl Call {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).expect(name).1
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Answers calls with what it is told, and with 200 from then on.
struct Receiver {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Receiver {
    fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut statuses) = (calls.clone(), VecDeque::from(statuses.to_vec()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(call) = receive(&mut stream) else { continue };
                kept.lock().unwrap().push(call);
                let status = statuses.pop_front().unwrap_or(200);
                let answer = format!(
                    "HTTP/1.1 {status} Said\r\nlocation: http://127.0.0.1:1/\r\n\
                     content-length: 0\r\nconnection: close\r\n\r\n"
                );
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        Self { address, calls }
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The query that asks for a call of this receiver.
    fn query(&self) -> String {
        format!("fal_webhook=http%3A%2F%2F{}%2Fhook", self.address.to_string().replace(':', "%3A"))
    }
}

fn receive(stream: &mut TcpStream) -> Option<Call> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let call = Call { head: head.to_owned(), body: bytes[head.len() + 4..].to_vec() };
            if call.body.len() >= call.header("content-length").parse().ok()? {
                return Some(call);
            }
        }
        match stream.read(&mut piece).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

fn with_receivers() -> Ground {
    start(&format!("[node.webhooks]\nallow = '127.0.0.0/8'\n{}", app("app", "")))
}

/// What became of a webhook, once it is no longer due for the first time.
async fn delivery(ground: &Ground, id: &str) -> Value {
    eventually("the webhook was called or given up", SOON, || async {
        let view = ground.get(&format!("/api/v1/webhooks/{id}")).await;
        let called = view.body["calls"].as_array().is_some_and(|calls| !calls.is_empty());
        (called || view.body["state"] == "failed").then_some(view.body)
    })
    .await
}

/// An answer of the app, and what its webhook says.
const MESSAGES: &[(&str, &str, Option<&str>)] = &[
    ("/answer?status=200", "OK", None),
    ("/answer?status=422", "ERROR", Some("Invalid status code: 422")),
    ("/answer?status=500", "ERROR", Some("Invalid status code: 500")),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_and_signed() {
    let ground = with_receivers();
    let keys = ground.get("/.well-known/jwks.json").await;
    let key = keys.body["keys"][0]["x"].as_str().unwrap();
    let key = UnparsedPublicKey::new(&ED25519, URL_SAFE_NO_PAD.decode(key).unwrap());
    for (path, status, error) in MESSAGES {
        let receiver = Receiver::start(&[]);
        let id = ground.submitted("app", &format!("{path}&{}", receiver.query()), &[]).await;
        let (_, answer) = ground.completed("app", &id).await;
        assert_eq!(delivery(&ground, &id).await["state"], "delivered", "{path}");
        let call = receiver.calls().remove(0);
        let mut expected = json!({
            "request_id": id, "gateway_request_id": id, "status": status, "payload": answer.body,
        });
        if let Some(error) = error {
            expected["error"] = json!(error);
        }
        assert_eq!(call.json(), expected, "{path}");
        assert!(call.head.starts_with("POST /hook HTTP/1.1"), "{}", call.head);

        let fields = ["Request-Id", "User-Id", "Timestamp"];
        let [request, user, at] =
            fields.map(|field| call.header(&format!("X-Fal-Webhook-{field}")));
        assert_eq!(request, id);
        assert!(at.parse::<u64>().is_ok(), "unix seconds: {at}");
        let body = hexadecimal(digest(&SHA256, &call.body).as_ref());
        let message = format!("{request}\n{user}\n{at}\n{body}");
        let signature = bytes(call.header("X-Fal-Webhook-Signature"));
        key.verify(message.as_bytes(), &signature).unwrap();
        assert!(key.verify(format!("{message} ").as_bytes(), &signature).is_err());
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// What a receiver answers, and what becomes of the webhook.
const ANSWERS: &[(u16, &str)] = &[
    (200, "delivered"),
    (204, "delivered"),
    (302, "failed"),
    (404, "due"),
    (500, "due"),
    (503, "due"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_as_taken() {
    let ground = with_receivers();
    for (status, state) in ANSWERS {
        let receiver = Receiver::start(&[*status]);
        let id = ground.submitted("app", &format!("/echo?{}", receiver.query()), &[]).await;
        ground.completed("app", &id).await;
        let view = delivery(&ground, &id).await;
        assert_eq!(view["state"], *state, "{status}: {view}");
        assert_eq!(view["calls"][0]["status"], *status, "{view}");
        assert_eq!(receiver.calls().len(), 1, "redirects are not followed");
        if *state == "delivered" {
            continue;
        }
        // Again, and the same: receivers tell by the request's id.
        let retry = format!("/api/v1/webhooks/{id}/retry");
        assert_eq!(ground.send(Method::POST, &retry, &[]).await.status, 200);
        eventually("it is delivered", SOON, || async {
            let view = ground.get(&format!("/api/v1/webhooks/{id}")).await;
            (view.body["state"] == "delivered").then_some(())
        })
        .await;
        let calls = receiver.calls();
        assert_eq!((calls.len(), calls[0].json()), (2, calls[1].json()), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_webhook_goes() {
    let ground = start(&app("app", ""));
    let receiver = Receiver::start(&[]);
    for (url, status) in [
        ("nowhere", 400),
        ("ftp%3A%2F%2Fexample.com%2F", 400),
        ("http%3A%2F%2F127.0.0.1%3A9%2F", 422),
        ("http%3A%2F%2F%5B%3A%3A1%5D%3A9%2F", 422),
        ("http%3A%2F%2F10.0.0.1%2F", 422),
        ("http%3A%2F%2F169.254.169.254%2F", 422),
    ] {
        let answer = ground.submit("app", &format!("/echo?fal_webhook={url}"), &[]).await;
        assert_eq!(answer.status, status, "{url}: {answer:?}");
    }
    let answer = ground.submit("app", &format!("/echo?{}", receiver.query()), &[]).await;
    assert_eq!(answer.text("error_type"), Some("not_allowed"), "{answer:?}");
    assert!(receiver.calls().is_empty());
}
