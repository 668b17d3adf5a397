//! Callers that do what they like, and remember what they were promised.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glowplug_core::RunnerId;
use glowplug_testkit::eventually;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinHandle;

use super::super::ground::{Answer, Caller, SOON};

/// Errors that a crash of a runner or of the node, or too many waiting requests, explain.
const EXPLAINED: &[&str] = &[
    "app_broken",
    "queue_full",
    "request_timeout",
    "runner_connection_error",
    "runner_connection_refused",
    "runner_disconnected",
    "runner_incomplete_response",
    "shutting_down",
    "startup_timeout",
];

pub(super) fn one_of<'a>(random: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices[random.random_range(0..choices.len())]
}

pub(super) fn between(random: &mut StdRng, millis: u64, most: u64) -> Duration {
    Duration::from_millis(random.random_range(millis..most))
}

type PathOf = fn(&mut StdRng, u64) -> String;

#[derive(Clone)]
pub(super) struct Traffic(Arc<Inner>);

struct Inner {
    caller: Caller,
    apps: Vec<String>,
    path: PathOf,
    number: AtomicU64,
    /// App, path, and whether its cancellation was asked for, by request.
    accepted: Mutex<HashMap<String, (String, String, bool)>>,
    /// How calls ended, by status or error type.
    ends: Mutex<BTreeMap<String, u64>>,
    stopped: AtomicBool,
    /// Grows when the node is about to be killed and when it is back: a call that breaks off with it is
    /// excused.
    disturbances: AtomicU64,
    faults: AtomicU64,
}

/// The node is away for as long as this lives.
pub(super) struct Disturbance(Arc<Inner>);

impl Drop for Disturbance {
    fn drop(&mut self) {
        self.0.disturbances.fetch_add(1, Ordering::SeqCst);
    }
}

impl Traffic {
    pub(super) fn new(caller: Caller, apps: Vec<String>, path: PathOf) -> Self {
        Self(Arc::new(Inner {
            caller,
            apps,
            path,
            number: AtomicU64::new(0),
            accepted: Mutex::default(),
            ends: Mutex::default(),
            stopped: AtomicBool::new(false),
            disturbances: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }))
    }

    pub(super) fn start(&self, callers: usize, random: &mut StdRng) -> Vec<JoinHandle<()>> {
        (0..callers)
            .map(|_| {
                let (traffic, seed) = (self.clone(), random.random());
                tokio::spawn(async move { traffic.0.call_until_stopped(seed).await })
            })
            .collect()
    }

    /// Lets every call end, and passes on what a caller found wrong.
    pub(super) async fn stop(&self, callers: Vec<JoinHandle<()>>) {
        self.0.stopped.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
    }

    pub(super) fn disturb(&self) -> Disturbance {
        self.0.disturbances.fetch_add(1, Ordering::SeqCst);
        self.count_fault();
        Disturbance(self.0.clone())
    }

    pub(super) fn count_fault(&self) {
        self.0.faults.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn summary(&self) -> String {
        let faults = self.0.faults.load(Ordering::SeqCst);
        let accepted = self.0.accepted.lock().unwrap().len();
        format!("{faults} faults, {accepted} accepted, calls: {:?}", self.0.ends.lock().unwrap())
    }

    /// None is lost, and none has two answers.
    pub(super) async fn assert_every_accepted_request_is_complete(&self) {
        let accepted: Vec<_> = self.0.accepted.lock().unwrap().clone().into_iter().collect();
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for (id, (app, path, cancelled)) in accepted {
            let answer = self.0.caller.completed(&app, &id).await;
            let again = self.0.caller.result(&app, &id).await.unwrap();
            assert_eq!((again.status, &again.body), (answer.status, &answer.body), "{id}");
            let end = answer.error_type.clone().unwrap_or_else(|| answer.status.to_string());
            *ends.entry(end.clone()).or_default() += 1;
            match end.as_str() {
                "200" => assert_eq!(answer.body["path"], *path, "{id} has another's answer"),
                "client_cancelled" => assert!(cancelled, "nobody cancelled {id}"),
                other => assert!(EXPLAINED.contains(&other), "{id}: {answer:?}"),
            }
        }
        println!("accepted requests: {ends:?}");
    }

    /// Takes every floor away, so that all runners are idle and end.
    pub(super) async fn let_everything_go_cold(&self) {
        let patch = json!({
            "min_concurrency": 0, "concurrency_buffer": 0, "concurrency_buffer_perc": 0, "keep_alive": 0,
        });
        for app in &self.0.apps {
            self.0.patch(app, patch.clone()).await.unwrap().assert_ok();
        }
    }

    /// A runner that has been ready. One that dies before counts as a failed start, after which the app
    /// waits for half a minute and more: that is for other tests.
    pub(super) async fn pick_ready_runner(&self, random: &mut StdRng) -> Option<RunnerId> {
        let path = "/api/v1/runners";
        let all = self.0.caller.call(reqwest::Method::GET, path, String::new()).await.ok()?;
        let ready: Vec<RunnerId> = all
            .body
            .as_array()?
            .iter()
            .filter(|runner| runner["state"] == "IDLE" || runner["state"] == "RUNNING")
            .map(|runner| runner["id"].as_str().unwrap().parse().unwrap())
            .collect();
        (!ready.is_empty()).then(|| ready[random.random_range(0..ready.len())])
    }

    /// Nothing waits, runs or holds resources.
    pub(super) async fn assert_idle(&self) {
        let get = async |path: &str| {
            self.0.caller.call(reqwest::Method::GET, path, String::new()).await.unwrap().body
        };
        eventually("the node is idle", SOON, || async {
            let (node, apps) = (get("/api/v1/node").await, get("/api/v1/apps").await);
            let idle =
                apps.as_array()?.iter().all(|app| app["queued"] == 0 && app["in_flight"] == 0);
            let free = node["runners"] == 0
                && node["cpu_millis_free"] == node["cpu_millis"]
                && node["memory_bytes_free"] == node["memory_bytes"];
            (idle && free).then_some(())
        })
        .await;
    }
}

impl Inner {
    async fn call_until_stopped(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !self.stopped.load(Ordering::SeqCst) {
            // A few apps get most of the calls.
            let among =
                if random.random_bool(0.7) { self.apps.len() / 10 } else { self.apps.len() };
            let app = self.apps[random.random_range(0..among.max(1))].clone();
            match random.random_range(0..100) {
                0..45 => self.direct(&app, &mut random).await,
                45..85 => self.queued(&app, &mut random).await,
                85..90 => self.impatient(&app, &mut random).await,
                90..95 => self.cancel(&mut random).await,
                _ => self.rescale(&app, &mut random).await,
            }
        }
    }

    fn next_path(&self, random: &mut StdRng) -> String {
        (self.path)(random, self.number.fetch_add(1, Ordering::SeqCst))
    }

    fn ended(&self, end: &str) {
        *self.ends.lock().unwrap().entry(end.to_owned()).or_default() += 1;
    }

    /// What a caller sees is its answer, a clear error, or a connection that broke with the node.
    async fn call(&self, path: &str) -> Option<Answer> {
        let before = self.disturbances.load(Ordering::SeqCst);
        match self.caller.post(path, "{}").await {
            Ok(answer) => {
                let end = answer.error_type.clone().unwrap_or_else(|| answer.status.to_string());
                let clear = answer.status == 200 || EXPLAINED.contains(&&*end);
                assert!(clear, "{path}: {answer:?}");
                self.ended(&end);
                Some(answer)
            }
            Err(error) => {
                let after = self.disturbances.load(Ordering::SeqCst);
                // Odd: the node is away at this moment.
                let away = before != after || before % 2 == 1;
                // An answer that has begun breaks off with its runner.
                assert!(away || error.is_body() || error.is_decode(), "{path}: {error:?}");
                self.ended("broken off");
                if away {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                None
            }
        }
    }

    async fn direct(&self, app: &str, random: &mut StdRng) {
        let path = self.next_path(random);
        if let Some(answer) = self.call(&format!("/run/local/{app}{path}")).await
            && answer.status == 200
        {
            assert_eq!(answer.body["path"], *path, "another's answer");
        }
    }

    async fn queued(&self, app: &str, random: &mut StdRng) {
        let path = self.next_path(random);
        if let Some(answer) = self.call(&format!("/queue/local/{app}{path}")).await
            && answer.status == 200
        {
            let id = answer.body["request_id"].as_str().unwrap().to_owned();
            self.accepted.lock().unwrap().insert(id, (app.to_owned(), path, false));
        }
    }

    /// Goes away before the answer.
    async fn impatient(&self, app: &str, random: &mut StdRng) {
        let place = if random.random_bool(0.5) { "run" } else { "queue" };
        let path = format!("/{place}/local/{app}{}", self.next_path(random));
        let patience = between(random, 0, 30);
        if tokio::time::timeout(patience, self.caller.post(&path, "{}")).await.is_err() {
            self.ended("given up");
        }
    }

    async fn cancel(&self, random: &mut StdRng) {
        let picked = {
            let mut accepted = self.accepted.lock().unwrap();
            let count = accepted.len();
            let nth = if count == 0 { return } else { random.random_range(0..count) };
            accepted.iter_mut().nth(nth).map(|(id, (app, _, cancelled))| {
                *cancelled = true;
                format!("/queue/local/{app}/requests/{id}/cancel")
            })
        };
        let Some(path) = picked else { return };
        if let Ok(answer) = self.caller.call(reqwest::Method::PUT, &path, String::new()).await {
            assert!(matches!(answer.status, 200 | 202 | 400), "{answer:?}");
        }
    }

    async fn rescale(&self, app: &str, random: &mut StdRng) {
        let keep_alive = [0.0, 0.1, 2.0][random.random_range(0..3)];
        let patch = json!({
            "keep_alive": keep_alive,
            "min_concurrency": u32::from(random.random_bool(0.1)),
            "max_concurrency": random.random_range(1..4),
            "max_multiplexing": random.random_range(1..4),
            "concurrency_buffer": u32::from(random.random_bool(0.1)),
        });
        if let Ok(answer) = self.patch(app, patch).await {
            // Just after a start the app may not be deployed yet.
            assert!(matches!(answer.status, 200 | 409), "{answer:?}");
        }
    }

    async fn patch(&self, app: &str, patch: serde_json::Value) -> reqwest::Result<Answer> {
        let path = format!("/api/v1/apps/local/{app}/scaling");
        self.caller.call(reqwest::Method::PATCH, &path, patch.to_string()).await
    }
}
