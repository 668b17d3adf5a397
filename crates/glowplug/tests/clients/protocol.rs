//! The queue in plain HTTP: every code and body of its routes, as fal documents them.

use std::time::Duration;

use glowplug_testkit::eventually;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::node::{Node, open_node};

/// For a cold start on a machine that is busy with other tests.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const NO_REQUEST: &str = "01890000-0000-7000-8000-000000000000";

struct Caller {
    node: Node,
    client: Client,
}

/// An answer's code, its headers that matter, and its body.
#[derive(Debug)]
struct Answer {
    status: u16,
    request_id: String,
    error_type: Option<String>,
    body: Value,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let header = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let request_id = header("x-fal-request-id").expect("every answer carries it");
        assert_eq!(header("content-type").as_deref(), Some("application/json"));
        let (status, error_type) = (response.status().as_u16(), header("x-fal-error-type"));
        Self { status, request_id, error_type, body: response.json().await.unwrap() }
    }

    fn assert_problem(&self, status: u16, error_type: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.error_type.as_deref(), Some(error_type), "{self:?}");
        assert_eq!(self.body["error_type"], error_type, "{self:?}");
        assert!(self.body["detail"].is_string(), "{self:?}");
    }
}

impl Caller {
    fn new(node: Node) -> Self {
        let client = Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build().unwrap();
        Self { node, client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.node.served.url(path))
    }

    async fn ask(&self, method: Method, path: &str) -> Answer {
        Answer::of(self.request(method, path).send().await.unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let response = self.request(Method::POST, path).json(body).send().await.unwrap();
        Answer::of(response).await
    }

    /// Submits and returns the path of the request.
    async fn submit(&self, app: &str, path: &str, body: &Value) -> String {
        let answer = self.post(&format!("/queue/{app}{path}"), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.body["request_id"].as_str().unwrap();
        format!("/queue/{app}/requests/{id}")
    }

    /// Keeps an app that takes one request at a time from taking another, until this one is cancelled.
    async fn occupy(&self, app: &str) -> String {
        let request = self.submit(app, "/patient", &json!({"seconds": 60})).await;
        let path = format!("{request}/status?logs=1");
        let path = path.as_str();
        eventually("the work", ANSWER_TIMEOUT, || async move {
            let answer = self.ask(Method::GET, path).await;
            (answer.body["logs"][0]["message"] == "patient work begins").then_some(())
        })
        .await;
        request
    }

    async fn cancel(&self, request: &str) -> (u16, String) {
        let answer = self.ask(Method::PUT, &format!("{request}/cancel")).await;
        (answer.status, answer.body["status"].as_str().unwrap().to_owned())
    }

    /// The status of a request once it is in this state.
    async fn status(&self, request: &str, state: &str) -> Answer {
        let path = format!("{request}/status?logs=1");
        let path = path.as_str();
        eventually(state, ANSWER_TIMEOUT, || async move {
            let answer = self.ask(Method::GET, path).await;
            (answer.body["status"] == state).then_some(answer)
        })
        .await
    }
}

/// One test, because a node's first start of an app takes longer than all that is asked of it.
#[tokio::test]
async fn the_queue_speaks_as_fal_does() {
    let caller = Caller::new(open_node());
    a_request_from_submission_to_result(&caller).await;
    logs_are_asked_for_in_any_clients_way(&caller).await;
    an_apps_error_is_the_result(&caller).await;
    each_cancellation_has_its_code(&caller).await;
    what_is_not_there_is_not_found(&caller).await;
    a_full_queue_is_the_callers_choice(&caller).await;
    a_status_stream_ends_with_the_request(&caller).await;
    start_timeouts_have_two_names(&caller).await;
    bytes_are_kept_as_they_came(&caller).await;
}

async fn a_request_from_submission_to_result(caller: &Caller) {
    let busy = caller.occupy("me/single").await;

    let input = json!({"steps": 1, "seconds": 0.6});
    let submitted = caller.post("/queue/me/single/slow", &input).await;
    assert_eq!(submitted.status, 200);
    let id = submitted.body["request_id"].as_str().unwrap().to_owned();
    assert_eq!(submitted.request_id, id);
    let request = format!("/queue/me/single/requests/{id}");
    let url = caller.node.served.url(&request);
    let links = |view: &Value| {
        assert_eq!(view["request_id"], id);
        assert_eq!(view["response_url"], url);
        assert_eq!(view["status_url"], format!("{url}/status"));
        assert_eq!(view["cancel_url"], format!("{url}/cancel"));
    };
    links(&submitted.body);
    assert_eq!(submitted.body["status"], "IN_QUEUE");
    assert_eq!(submitted.body["queue_position"], 0);
    assert_eq!(submitted.body["gateway_request_id"], id);

    let waiting = caller.ask(Method::GET, &format!("{request}/status")).await;
    assert_eq!((waiting.status, &waiting.request_id), (202, &id));
    links(&waiting.body);
    assert_eq!(waiting.body["status"], "IN_QUEUE");
    assert_eq!(waiting.body["queue_position"], 0);
    assert_eq!(waiting.body["logs"], Value::Null);
    for path in [&request, &format!("{request}/response"), &format!("{request}/")] {
        let early = caller.ask(Method::GET, path).await;
        early.assert_problem(400, "bad_request");
        assert_eq!(early.body["detail"], "Request is still in progress");
    }

    caller.cancel(&busy).await;
    let working = caller.status(&request, "IN_PROGRESS").await;
    assert_eq!(working.status, 202);
    links(&working.body);
    assert!(working.body.get("queue_position").is_none(), "{working:?}");
    assert!(working.body["logs"].is_array(), "{working:?}");

    let done = caller.status(&request, "COMPLETED").await;
    assert_eq!(done.status, 200);
    links(&done.body);
    assert!(done.body["metrics"]["inference_time"].as_f64().unwrap() >= 0.6, "{done:?}");
    assert!(done.body.get("error").is_none(), "{done:?}");
    let line = &done.body["logs"][0];
    assert_eq!(line["message"], "step 1 of 1");
    assert_eq!((&line["level"], &line["source"]), (&json!("STDOUT"), &json!("run")));
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");

    for path in [&request, &format!("{request}/response"), &format!("{request}/")] {
        let result = caller.ask(Method::GET, path).await;
        assert_eq!((result.status, &result.request_id), (200, &id));
        assert_eq!(result.body, json!({"steps": 1}));
    }
}

async fn logs_are_asked_for_in_any_clients_way(caller: &Caller) {
    let request = caller.submit("me/app", "/slow", &json!({"steps": 1, "seconds": 0})).await;
    caller.status(&request, "COMPLETED").await;
    for (query, shown) in [
        ("?logs=1", true),
        ("?logs=true", true),
        ("?logs=True", true),
        ("?logs=0", false),
        ("?logs=false", false),
        ("?logs=False", false),
        ("?logs=", false),
        ("", false),
    ] {
        for path in ["status", "status/"] {
            let answer = caller.ask(Method::GET, &format!("{request}/{path}{query}")).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body["logs"].is_array(), shown, "{path}{query}");
        }
    }
}

async fn an_apps_error_is_the_result(caller: &Caller) {
    for (path, input, status) in [
        ("", json!({"name": 3}), 422),
        ("/fail", json!({"status": 404}), 404),
        ("/raise", json!({"number": 1}), 500),
        ("/nowhere", json!({}), 404),
    ] {
        let request = caller.submit("me/app", path, &input).await;
        let done = caller.status(&request, "COMPLETED").await;
        assert_eq!(done.status, 200, "{done:?}");
        assert_eq!(done.body["error"], format!("Invalid status code: {status}"));
        let direct = caller.post(&format!("/run/me/app{path}"), &input).await;
        let result = caller.ask(Method::GET, &request).await;
        assert_eq!((result.status, direct.status), (status, status));
        assert_eq!(result.body, direct.body);
    }
    let request = caller.submit("me/app", "/fail", &json!({"status": 500})).await;
    caller.status(&request, "COMPLETED").await;
    let result = caller.request(Method::GET, &request).send().await.unwrap();
    assert!(!result.headers().contains_key("x-fal-needs-retry"));
}

async fn each_cancellation_has_its_code(caller: &Caller) {
    let cancel = async |request: &str| caller.cancel(request).await;
    let running = caller.submit("me/single", "/slow", &json!({"steps": 1, "seconds": 2})).await;
    caller.status(&running, "IN_PROGRESS").await;
    let waiting = caller.submit("me/single", "", &json!({"name": "x"})).await;

    assert_eq!(cancel(&waiting).await, (200, "OK".to_owned()));
    let removed = caller.ask(Method::GET, &waiting).await;
    removed.assert_problem(499, "client_cancelled");
    assert_eq!(cancel(&waiting).await, (400, "ALREADY_COMPLETED".to_owned()));
    assert_eq!(cancel(&running).await, (202, "CANCELLATION_REQUESTED".to_owned()));
    // The endpoint has no `/cancel`, so the work just finishes.
    caller.status(&running, "COMPLETED").await;
    assert_eq!(caller.ask(Method::GET, &running).await.body, json!({"steps": 1}));
    assert_eq!(cancel(&running).await, (400, "ALREADY_COMPLETED".to_owned()));
    let unknown = format!("/queue/me/single/requests/{NO_REQUEST}");
    assert_eq!(cancel(&unknown).await, (404, "NOT_FOUND".to_owned()));
}

async fn what_is_not_there_is_not_found(caller: &Caller) {
    let request = caller.submit("me/app", "", &json!({"name": "x"})).await;
    caller.status(&request, "COMPLETED").await;
    let elsewhere = request.replace("me/app", "me/single");
    for base in [elsewhere, format!("/queue/me/app/requests/{NO_REQUEST}")] {
        for path in ["", "/response", "/status", "/status/stream"] {
            let answer = caller.ask(Method::GET, &format!("{base}{path}")).await;
            answer.assert_problem(404, "not_found");
            assert_eq!(answer.body["status"], "NOT_FOUND");
        }
    }
    caller.post("/queue/me/nothing", &json!({})).await.assert_problem(404, "app_not_found");
    let answer = caller.ask(Method::GET, &format!("{request}/else")).await;
    answer.assert_problem(404, "not_found");
    let answer = caller.ask(Method::DELETE, &format!("{request}/status")).await;
    answer.assert_problem(405, "method_not_allowed");
    let answer = caller.ask(Method::GET, &format!("{request}/cancel")).await;
    answer.assert_problem(405, "method_not_allowed");
}

async fn a_full_queue_is_the_callers_choice(caller: &Caller) {
    let busy = caller.occupy("me/single").await;
    let submit = async |limit: &str| {
        let path = format!("/queue/me/single/echo?a=b&fal_max_queue_length={limit}");
        caller.post(&path, &json!({})).await
    };
    let first = submit("0").await;
    assert_eq!(first.status, 200, "nothing waits before it: {first:?}");
    submit("0").await.assert_problem(429, "queue_full");
    let second = submit("1").await;
    assert_eq!((second.status, &second.body["queue_position"]), (200, &json!(1)));
    submit("many").await.assert_problem(400, "bad_request");
    caller.cancel(&busy).await;
    let request = format!("/queue/me/single/requests/{}", second.request_id);
    caller.status(&request, "COMPLETED").await;
    let echo = caller.ask(Method::GET, &request).await;
    assert_eq!(echo.body["query"], "a=b", "the app does not see the queue's own parameters");
}

async fn a_status_stream_ends_with_the_request(caller: &Caller) {
    let request = caller.submit("me/single", "/slow", &json!({"steps": 3, "seconds": 0.2})).await;
    let path = format!("{request}/status/stream?logs=1");
    let response = caller.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-fal-request-id"].len(), 36);
    let body = response.text().await.unwrap();
    let events: Vec<Value> = body
        .split_terminator("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let states: Vec<&str> = events.iter().map(|event| event["status"].as_str().unwrap()).collect();
    let order = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"];
    assert!(states.is_sorted_by_key(|state| order.iter().position(|known| known == state)));
    assert_eq!(states.iter().filter(|state| **state == "COMPLETED").count(), 1, "{states:?}");
    let lines: Vec<&str> = events
        .iter()
        .flat_map(|event| event["logs"].as_array().unwrap())
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    assert_eq!(lines, ["step 1 of 3", "step 2 of 3", "step 3 of 3"]);
}

async fn start_timeouts_have_two_names(caller: &Caller) {
    let busy = caller.occupy("me/single").await;
    for headers in [
        vec![("x-fal-request-timeout", "0.3")],
        vec![("x-fal-request-start-timeout", "0.3")],
        vec![("x-fal-request-start-timeout", "0.3"), ("x-fal-request-timeout", "60")],
    ] {
        let with_headers = |path: &str| {
            let request = caller.request(Method::POST, path).json(&json!({"name": "x"}));
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        let direct = with_headers("/run/me/single").send().await.unwrap();
        let submitted = Answer::of(with_headers("/queue/me/single").send().await.unwrap()).await;
        let request = format!("/queue/me/single/requests/{}", submitted.request_id);
        let done = caller.status(&request, "COMPLETED").await;
        assert_eq!(done.body["error_type"], "request_timeout");
        let queued = caller.request(Method::GET, &request).send().await.unwrap();
        for response in [direct, queued] {
            assert_eq!(response.headers()["x-fal-request-timeout-type"], "user");
            Answer::of(response).await.assert_problem(504, "request_timeout");
        }
    }
    let request =
        caller.request(Method::POST, "/queue/me/single").header("x-fal-request-timeout", "soon");
    Answer::of(request.send().await.unwrap()).await.assert_problem(400, "bad_request");
    assert_eq!(caller.ask(Method::GET, &format!("{busy}/status")).await.status, 202);
}

async fn bytes_are_kept_as_they_came(caller: &Caller) {
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for path in ["/run/me/app/mirror", "/queue/me/app/mirror"] {
        let request = caller.request(Method::POST, path).header("content-type", "image/x-raw");
        let mut response = request.body(body.clone()).send().await.unwrap();
        if path.starts_with("/queue") {
            let id = Answer::of(response).await.request_id;
            let request = format!("/queue/me/app/requests/{id}");
            caller.status(&request, "COMPLETED").await;
            response = caller.request(Method::GET, &request).send().await.unwrap();
        }
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "image/x-raw");
        assert!(response.bytes().await.unwrap() == body.as_slice());
    }
}

#[tokio::test]
async fn a_key_is_needed_where_there_is_one() {
    let caller = Caller::new(Node::with_keys());
    let right = format!("Key {}", caller.node.key);
    let submit = caller.request(Method::POST, "/queue/me/app").json(&json!({"name": "x"}));
    let submitted = submit.header("authorization", &right).send().await.unwrap();
    let id = Answer::of(submitted).await.request_id;
    let request = format!("/queue/me/app/requests/{id}");
    let asked = [
        (Method::POST, "/run/me/app".to_owned()),
        (Method::POST, "/queue/me/app".to_owned()),
        (Method::GET, format!("{request}/status")),
        (Method::GET, format!("{request}/status/stream")),
        (Method::GET, request.clone()),
        (Method::PUT, format!("{request}/cancel")),
    ];
    let wrong = ["Key any".to_owned(), format!("Key {}x", caller.node.key), format!("Basic {id}")];
    for (method, path) in &asked {
        caller.ask(method.clone(), path).await.assert_problem(401, "unauthorized");
        for key in &wrong {
            let request = caller.request(method.clone(), path).header("authorization", key);
            let answer = Answer::of(request.send().await.unwrap()).await;
            answer.assert_problem(401, "unauthorized");
        }
    }
    let bearer = format!("Bearer {}", caller.node.key);
    for key in [right, bearer] {
        let status = caller.request(Method::GET, &asked[2].1).header("authorization", key);
        let status = status.send().await.unwrap().status().as_u16();
        assert!(matches!(status, 200 | 202), "{status}");
    }
}
