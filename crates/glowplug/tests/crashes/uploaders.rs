//! Callers that upload files without end, whole and in parts, over all crashes, and delete some.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glowplug_testkit::Served;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const UPLOADERS: u64 = 2;
/// While the node is down.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two files, so that requests have most of the machine.
const REST: Duration = Duration::from_millis(20);
const PART_BYTES: usize = 10_000;
const PARTS_MAX: u32 = 3;
/// Contents that come again and again, so that several names share one.
const CONTENTS: u64 = 5;

pub(crate) struct Uploaders {
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Files>>,
}

/// Content by address; `None` once it was deleted.
type Files = BTreeMap<String, Option<Vec<u8>>>;

struct Uploader {
    base: String,
    client: reqwest::Client,
    random: StdRng,
    files: Files,
}

impl Uploaders {
    pub(crate) fn start(node: &Served, seed: u64) -> Self {
        let over = Arc::<AtomicBool>::default();
        let tasks = (0..UPLOADERS).map(|number| {
            let uploader = Uploader {
                base: node.url(""),
                client: reqwest::Client::builder().no_proxy().build().unwrap(),
                random: StdRng::seed_from_u64(seed ^ (number << 32)),
                files: Files::new(),
            };
            tokio::spawn(uploader.work(over.clone()))
        });
        let tasks = tasks.collect();
        Self { over, tasks }
    }

    /// Lets each finish what it is at, and looks at every file once more; how many there were.
    pub(crate) async fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut count = 0;
        for task in self.tasks {
            for (address, content) in task.await.unwrap() {
                let answer = client.get(&address).send().await.unwrap();
                match content {
                    Some(content) => {
                        assert_eq!(answer.status().as_u16(), 200, "{address} is lost");
                        let got = answer.bytes().await.unwrap();
                        assert!(got == content, "{address} has other bytes");
                    }
                    None => assert_eq!(answer.status().as_u16(), 404, "{address} was deleted"),
                }
                count += 1;
            }
        }
        count
    }
}

impl Uploader {
    async fn work(mut self, over: Arc<AtomicBool>) -> Files {
        while !over.load(Ordering::Relaxed) {
            let parts = self.random.random_range(0..=PARTS_MAX);
            let (address, content) =
                if parts == 0 { self.whole().await } else { self.in_parts(parts).await };
            self.files.insert(address.clone(), Some(content));
            if self.random.random_bool(0.4) {
                self.delete(&address).await;
            }
            tokio::time::sleep(REST).await;
        }
        self.files
    }

    fn content(&mut self) -> Vec<u8> {
        let letter = b'a' + u8::try_from(self.random.random_range(0..CONTENTS)).unwrap();
        vec![letter; PART_BYTES]
    }

    async fn whole(&mut self) -> (String, Vec<u8>) {
        let content = self.content();
        let url = format!("{}/files/upload", self.base);
        let said = self.insist(Method::POST, &url, &content).await;
        (text(&said["access_url"]), content)
    }

    /// What the node said that it has of an upload can be completed, whatever happened since.
    async fn in_parts(&mut self, parts: u32) -> (String, Vec<u8>) {
        let url = format!("{}/files/upload/multipart", self.base);
        let begun = self.insist(Method::POST, &url, b"").await;
        let address = text(&begun["access_url"]);
        let upload = format!("{address}/multipart/{}", text(&begun["uploadId"]));
        let (mut whole, mut listed) = (Vec::new(), Vec::new());
        for number in 1..=parts {
            let content = self.content();
            listed.push(self.insist(Method::PUT, &format!("{upload}/{number}"), &content).await);
            whole.extend(content);
        }
        let list = json!({ "parts": listed }).to_string();
        self.insist(Method::POST, &format!("{upload}/complete"), list.as_bytes()).await;
        (address, whole)
    }

    async fn delete(&mut self, address: &str) {
        // Asked again by one who never heard the answer, there is nothing to delete.
        while !matches!(self.send(Method::DELETE, address, b"").await, Ok(204 | 404)) {
            tokio::time::sleep(PAUSE).await;
        }
        self.files.insert(address.to_owned(), None);
    }

    /// Sends until the node says that it has it.
    async fn insist(&self, method: Method, url: &str, body: &[u8]) -> Value {
        loop {
            if let Ok(answer) = self.ask(method.clone(), url, body).await {
                let code = answer.status().as_u16();
                let said = answer.json::<Value>().await;
                if let (200, Ok(said)) = (code, &said) {
                    return said.clone();
                }
                // It is stopping, or has not begun; anything else is a failure of its own.
                assert!(matches!(code, 200 | 503), "{url}: {code} {said:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn send(&self, method: Method, url: &str, body: &[u8]) -> reqwest::Result<u16> {
        Ok(self.ask(method, url, body).await?.status().as_u16())
    }

    async fn ask(&self, method: Method, url: &str, body: &[u8]) -> reqwest::Result<Response> {
        let request = self.client.request(method, url).header("authorization", "Key any:thing");
        request.body(body.to_vec()).send().await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
