//! The server of the queue dies under load: nodes say so, lose nothing, and serve again by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use glowplug_testkit::{OwnPostgres, eventually};
use reqwest::Method;

use super::ground::{Answer, Caller, Ground, SOON};

const CALLERS: usize = 8;
const CRASHES: usize = 3;
/// Requests accepted between two crashes.
const REQUESTS: usize = 60;

fn assert_away(answer: &Answer) {
    let seen = (answer.status, answer.error_type.as_deref());
    assert_eq!(seen, (503, Some("store_unavailable")), "{answer:?}");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("the PostgreSQL database `postgres`"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_say_that_the_server_is_away_and_serve_again_when_it_is_back() {
    let mut server = OwnPostgres::start("");
    let ground = Ground::start_on(&server.url(), 2).await;
    let (here, there) = (ground.caller(0), ground.caller(1));
    let done = here.submit("/", "\"done\"").await;
    here.completed(&done).await;
    // Answered while nothing can be kept, and kept later.
    let running = here.submit("/?seconds=2", "\"running\"").await;
    ground.wait_for_run(&running).await;
    tokio::task::block_in_place(|| server.stop());
    for caller in [&here, &there] {
        let submit = caller.call(Method::POST, "/queue/local/app/", &[], "1").await.unwrap();
        assert_away(&submit);
        for what in ["/status", "/status/stream", "", "/cancel"] {
            assert_away(&caller.about(&done, what).await.unwrap());
        }
        let ready = caller.call(Method::GET, "/readyz", &[], "").await.unwrap();
        assert_eq!(ready.status, 503, "{ready:?}");
        // What needs no queue goes on.
        let direct = caller.call(Method::POST, "/run/local/app/", &[], "2").await.unwrap();
        assert_eq!((direct.status, &direct.body["echo"]), (200, &"2".into()), "{direct:?}");
    }
    tokio::task::block_in_place(|| server.start_again());
    for caller in [&here, &there] {
        eventually("the node is ready", SOON, || async {
            let ready = caller.call(Method::GET, "/readyz", &[], "").await.unwrap();
            (ready.status == 200).then_some(())
        })
        .await;
        let next = caller.submit("/", "\"next\"").await;
        assert_eq!(caller.completed(&next).await.body["echo"], "\"next\"");
        assert_eq!(caller.completed(&running).await.body["echo"], "\"running\"");
        assert_eq!(caller.completed(&done).await.status, 200);
    }
    ground.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_server_that_crashes_under_load() {
    let mut server = OwnPostgres::start("");
    let ground = Ground::start_on(&server.url(), 2).await;
    let (over, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|number| {
        let load = Load {
            number,
            nodes: [ground.caller(0), ground.caller(1)],
            query: ground.calls.query().to_owned(),
            over: over.clone(),
            accepted: accepted.clone(),
        };
        tokio::spawn(load.submit_all())
    });
    let callers: Vec<_> = callers.collect();
    for crash in 1..=CRASHES {
        eventually("requests are accepted", SOON, || async {
            (accepted.load(Ordering::Acquire) >= crash * REQUESTS).then_some(())
        })
        .await;
        tokio::task::block_in_place(|| server.crash());
    }
    over.store(true, Ordering::Release);
    let (mut all, mut refused) = (BTreeMap::new(), 0);
    for caller in callers {
        let (more, not) = caller.await.unwrap();
        all.extend(more);
        refused += not;
    }
    assert!(all.len() >= CRASHES * REQUESTS && refused > 0, "{} and {refused}", all.len());
    for (nth, (id, body)) in all.iter().enumerate() {
        let answer = ground.caller(nth % 2).completed(id).await;
        assert_eq!((answer.status, &answer.body["echo"]), (200, &body.as_str().into()), "{id}");
        let other = ground.caller((nth + 1) % 2).about(id, "").await.unwrap();
        assert_eq!(other.body, answer.body, "{id}");
        // One that was given out when the server died is called later than anybody waits for here.
        let path = format!("/api/v1/webhooks/{id}");
        let webhook = ground.caller(nth % 2).call(Method::GET, &path, &[], "").await.unwrap();
        let state = webhook.body["state"].as_str();
        assert!(matches!(state, Some("due" | "delivered")), "{webhook:?}");
        for call in ground.calls.heard(id) {
            assert_eq!(call["payload"], answer.body, "{id}");
        }
    }
    let called = || all.keys().filter(|id| !ground.calls.heard(id).is_empty()).count();
    eventually("most webhooks are called", SOON, || async {
        (called() > all.len() / 2).then_some(())
    })
    .await;
    ground.end();
}

/// One who submits to either node in turn, and sends again what was not accepted.
struct Load {
    number: usize,
    nodes: [Caller; 2],
    query: String,
    over: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

impl Load {
    /// The bodies of what was accepted, and how often something was not.
    async fn submit_all(self) -> (BTreeMap<String, String>, usize) {
        let (mut all, mut refused) = (BTreeMap::new(), 0);
        let path = format!("/queue/local/app/{}", self.query);
        for nth in 0_usize.. {
            if self.over.load(Ordering::Acquire) {
                break;
            }
            let key = format!("{}-{nth}", self.number);
            for node in self.nodes.iter().cycle() {
                let headers = [("idempotency-key", key.as_str())];
                let answer = node.call(Method::POST, &path, &headers, &key).await.unwrap();
                if answer.status == 200 {
                    let id = answer.body["request_id"].as_str().unwrap().to_owned();
                    assert_eq!(all.insert(id, key), None, "each key has a request of its own");
                    break;
                }
                assert_away(&answer);
                refused += 1;
            }
            self.accepted.fetch_add(1, Ordering::AcqRel);
        }
        (all, refused)
    }
}
