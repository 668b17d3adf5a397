//! Webhooks over `kill -9` of the node: between completion and call, during a call, between calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glowplug_testkit::{eventually, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::ground::{self, Ground, SOON};

const CONFIG: &str = "[node.webhooks]\nallow = ['127.0.0.1']\n[apps.app]\n$APP\nkeep_alive = 600\n";

/// What the receiver does with a call.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Accepts,
    Refuses,
    Hangs,
}

/// Outlives the node. Notes every body by its request.
struct Receiver {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    heard: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

impl Receiver {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Arc::new(Mutex::new(manner));
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let (how, notes) = (manner.clone(), heard.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (how, notes) = (how.clone(), notes.clone());
                std::thread::spawn(move || answer(stream, &how, &notes));
            }
        });
        Self { address, manner, heard }
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn path(&self) -> String {
        format!("/?fal_webhook=http%3A%2F%2F{}%2Fdone", self.address)
    }

    fn calls(&self, id: &str) -> Vec<String> {
        self.heard.lock().unwrap().get(id).cloned().unwrap_or_default()
    }

    fn wait_for_calls(&self, id: &str, count: usize) -> Vec<String> {
        wait_until(&format!("{id} calls {count} times"), SOON, || {
            Some(self.calls(id)).filter(|calls| calls.len() >= count)
        })
    }
}

fn answer(
    mut stream: TcpStream,
    manner: &Mutex<Manner>,
    heard: &Mutex<BTreeMap<String, Vec<String>>>,
) {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    let (id, body) = loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(said) = serde_json::from_str::<Value>(body)
        {
            break (said["request_id"].as_str().unwrap().to_owned(), body.to_owned());
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => read.extend_from_slice(&piece[..bytes]),
        }
    };
    heard.lock().unwrap().entry(id).or_default().push(body);
    let how = *manner.lock().unwrap();
    let status = match how {
        Manner::Accepts => 204,
        Manner::Refuses => 503,
        // Until the node goes away.
        Manner::Hangs => return drop(stream.read(&mut piece)),
    };
    drop(stream.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes()));
}

async fn state(ground: &Ground, id: &str) -> Option<Value> {
    let path = format!("/api/v1/webhooks/{id}");
    let answer = ground.caller().call(reqwest::Method::GET, &path, String::new()).await.ok()?;
    (answer.status == 200).then_some(answer.body)
}

async fn delivered(ground: &Ground, id: &str) -> Value {
    eventually(&format!("{id} is delivered"), SOON * 2, || async {
        state(ground, id).await.filter(|state| state["state"] == "delivered")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_at_the_crash_is_made_again() {
    let receiver = Receiver::start(Manner::Hangs);
    let mut ground = ground::start(CONFIG);
    let id = ground.caller().submit("app", &receiver.path(), "{}").await.unwrap();
    receiver.wait_for_calls(&id, 1);
    ground.served.kill();
    receiver.behave(Manner::Accepts);
    ground.served.start_again().unwrap();
    let state = delivered(&ground, &id).await;
    assert_eq!(state["calls"].as_array().unwrap().len(), 1, "nobody noted the first: {state}");
    let calls = receiver.calls(&id);
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0], calls[1], "the same words");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_outlives_a_crash() {
    let receiver = Receiver::start(Manner::Refuses);
    let mut ground = ground::start(CONFIG);
    let id = ground.caller().submit("app", &receiver.path(), "{}").await.unwrap();
    eventually("the first call is noted", SOON, || async {
        state(&ground, &id).await.filter(|state| state["calls"][0]["status"] == 503)
    })
    .await;
    ground.served.kill();
    receiver.behave(Manner::Accepts);
    ground.served.start_again().unwrap();
    let state = delivered(&ground, &id).await;
    assert_eq!(state["calls"].as_array().unwrap().len(), 2, "{state}");
    let shown = ground.cli(&["webhooks", "show", &id]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("delivered") && shown.contains("answered 503"), "{shown}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_node_is_killed_every_webhook_arrives() {
    let receiver = Receiver::start(Manner::Accepts);
    let mut ground = ground::start(CONFIG);
    ground.run("app", "/").await.assert_ok();
    let mut random = StdRng::seed_from_u64(4);
    let mut accepted = BTreeSet::new();
    for _ in 0..8 {
        let caller = ground.caller();
        let path = receiver.path();
        let submits = tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..30 {
                ids.extend(caller.submit("app", &path, "{}").await);
            }
            ids
        });
        // From before the first is accepted until after the last was called.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        ground.served.kill();
        accepted.extend(submits.await.unwrap());
        ground.served.start_again().unwrap();
    }
    assert!(accepted.len() > 20, "{} were accepted", accepted.len());
    for id in &accepted {
        delivered(&ground, id).await;
        let calls = receiver.calls(id);
        assert!(!calls.is_empty() && calls.iter().all(|call| *call == calls[0]), "{calls:?}");
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_calls_again_what_had_failed() {
    let receiver = Receiver::start(Manner::Refuses);
    let ground = ground::start(&CONFIG.replace("[apps", "calls_max = 1\n[apps"));
    let id = ground.caller().submit("app", &receiver.path(), "{}").await.unwrap();
    eventually("it has failed", SOON, || async {
        state(&ground, &id).await.filter(|state| state["state"] == "failed")
    })
    .await;
    receiver.behave(Manner::Accepts);
    assert_eq!(ground.cli(&["webhooks", "retry", &id]).status.code(), Some(0));
    delivered(&ground, &id).await;
    let twice = ground.cli(&["webhooks", "retry", &id]);
    assert_ne!(twice.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&twice.stderr).contains("was delivered already"), "{twice:?}");
    let caller = ground.caller();
    let refused = caller.post("/queue/local/app/?fal_webhook=http%3A%2F%2F10.0.0.1%2F", "{}");
    refused.await.unwrap().assert_error(422, "not_allowed");
    ground.end().await;
}
