//! One line of an exported queue.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glowplug_core::{RequestId, Timestamp};
use glowplug_store::{
    Completion, DeliveryAttempt, DeliveryRecord, DeliveryState, Priority, QueuedRequest,
    RequestLogLine, StoredResponse, WholeRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{CHECK_BYTES, Error, FORMAT};

pub(super) enum Record {
    Request(Box<WholeRequest>),
    End { count: u64 },
}

#[derive(Serialize, Deserialize)]
struct Head {
    glowplug_queue: u32,
    glowplug_version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// May be left out: lines made by hand are not checked.
    check: Option<String>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    end: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    id: String,
    app: String,
    path: String,
    method: String,
    headers: Vec<(String, String)>,
    body: Body,
    priority: Level,
    submitted_at_micros: u64,
    start_deadline_micros: Option<u64>,
    no_retry: bool,
    retry_config: Option<String>,
    hint: Option<String>,
    webhook_url: Option<String>,
    idempotency_key: Option<String>,
    keep_payload: bool,
    caller: String,
    answer: Option<Answer>,
    logs: Vec<Log>,
    webhook: Option<Webhook>,
}

/// Text as it is, anything else in base64.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Text(String),
    Base64(String),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Normal,
    Low,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    at_micros: u64,
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    error: Option<Failure>,
    inference_seconds: Option<f64>,
    attempts: u32,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    message: String,
    error_type: String,
}

#[derive(Serialize, Deserialize)]
struct Log {
    at_micros: u64,
    level: String,
    source: String,
    message: String,
}

#[derive(Serialize, Deserialize)]
struct Webhook {
    url: String,
    state: State,
    calls: Vec<Call>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// At this time, in microseconds.
    Due(u64),
    Delivered,
    Failed,
}

#[derive(Serialize, Deserialize)]
struct Call {
    at_micros: u64,
    took_micros: u64,
    status: Option<u16>,
    problem: Option<String>,
}

pub(super) fn head() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    ended(json(&Head { glowplug_queue: FORMAT, glowplug_version: version }))
}

pub(super) fn line(whole: &WholeRequest) -> Vec<u8> {
    let request = json(&written(whole));
    let mut line = format!("{{\"check\":\"{}\",\"request\":", check(&request)).into_bytes();
    line.extend_from_slice(&request);
    line.push(b'}');
    ended(line)
}

pub(super) fn end(count: u64) -> Vec<u8> {
    format!("{{\"end\":{count}}}\n").into_bytes()
}

pub(super) fn check_head(line: &[u8]) -> Result<(), Error> {
    let head: Head = serde_json::from_slice(line)
        .map_err(|error| Error::NotAnExport { problem: error.to_string() })?;
    match head.glowplug_queue {
        1..=FORMAT => Ok(()),
        0 => Err(Error::NotAnExport { problem: "there is no format 0".to_owned() }),
        found => Err(Error::TooNew { found }),
    }
}

/// Says what is wrong with a line that is not what was written.
pub(super) fn read(line: &[u8]) -> Result<Record, String> {
    let damaged = |error: serde_json::Error| format!("it is damaged: {error}");
    let line: Line<'_> = serde_json::from_slice(line).map_err(damaged)?;
    match (line.request, line.end) {
        (Some(request), None) => {
            let right = check(request.get().as_bytes());
            if line.check.is_some_and(|check| check != right) {
                return Err("it is damaged: its `check` does not fit".to_owned());
            }
            let request: Request = serde_json::from_str(request.get()).map_err(damaged)?;
            Ok(Record::Request(Box::new(whole(request)?)))
        }
        (None, Some(count)) => Ok(Record::End { count }),
        _ => Err("it is neither a request nor the end".to_owned()),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and lists of them can be written as JSON")
}

fn ended(mut line: Vec<u8>) -> Vec<u8> {
    line.push(b'\n');
    line
}

fn check(request: &[u8]) -> String {
    let hash = Sha256::digest(request);
    hash[..CHECK_BYTES].iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Body {
    /// What JSON would make much longer is no text here.
    fn written(bytes: &[u8]) -> Self {
        let plain = |byte: &u8| *byte >= b' ' || b"\t\r\n".contains(byte);
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(plain) => Self::Text(text.to_owned()),
            _ => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    fn read(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64(text) => {
                STANDARD.decode(text).map_err(|error| format!("its body is damaged: {error}"))
            }
        }
    }
}

fn written(whole: &WholeRequest) -> Request {
    let WholeRequest { request, completion, logs, delivery } = whole;
    Request {
        id: request.id.to_string(),
        app: request.app.clone(),
        path: request.path.clone(),
        method: request.method.clone(),
        headers: request.headers.clone(),
        body: Body::written(&request.body),
        priority: match request.priority {
            Priority::Normal => Level::Normal,
            Priority::Low => Level::Low,
        },
        submitted_at_micros: request.submitted_at.as_micros(),
        start_deadline_micros: request.start_deadline.map(Timestamp::as_micros),
        no_retry: request.no_retry,
        retry_config: request.retry_config.clone(),
        hint: request.hint.clone(),
        webhook_url: request.webhook_url.clone(),
        idempotency_key: request.idempotency_key.clone(),
        keep_payload: request.keep_payload,
        caller: request.caller.clone(),
        answer: completion.as_ref().map(answer),
        logs: logs.iter().map(log).collect(),
        webhook: delivery.as_ref().map(webhook),
    }
}

fn answer(completion: &Completion) -> Answer {
    let error = completion.error.clone();
    Answer {
        at_micros: completion.at.as_micros(),
        status: completion.response.status,
        headers: completion.response.headers.clone(),
        body: Body::written(&completion.response.body),
        error: error.map(|(message, error_type)| Failure { message, error_type }),
        inference_seconds: completion.inference_seconds,
        attempts: completion.attempts,
    }
}

fn log(line: &RequestLogLine) -> Log {
    Log {
        at_micros: line.at.as_micros(),
        level: line.level.clone(),
        source: line.source.clone(),
        message: line.message.clone(),
    }
}

fn webhook(delivery: &DeliveryRecord) -> Webhook {
    let call = |attempt: &DeliveryAttempt| Call {
        at_micros: attempt.at.as_micros(),
        took_micros: u64::try_from(attempt.took.as_micros()).unwrap_or(u64::MAX),
        status: attempt.status,
        problem: attempt.problem.clone(),
    };
    Webhook {
        url: delivery.url.clone(),
        state: match delivery.state {
            DeliveryState::Due(at) => State::Due(at.as_micros()),
            DeliveryState::Delivered => State::Delivered,
            DeliveryState::Failed => State::Failed,
        },
        calls: delivery.attempts.iter().map(call).collect(),
    }
}

fn whole(request: Request) -> Result<WholeRequest, String> {
    let id: RequestId = request.id.parse().map_err(|error| format!("{error}"))?;
    let at = Timestamp::from_micros;
    let completion = request.answer.map(|answer| {
        Ok::<_, String>(Completion {
            at: at(answer.at_micros),
            response: StoredResponse {
                status: answer.status,
                headers: answer.headers,
                body: answer.body.read()?,
            },
            error: answer.error.map(|error| (error.message, error.error_type)),
            inference_seconds: answer.inference_seconds,
            attempts: answer.attempts,
        })
    });
    let log = |line: Log| RequestLogLine {
        at: at(line.at_micros),
        level: line.level,
        source: line.source,
        message: line.message,
    };
    Ok(WholeRequest {
        request: QueuedRequest {
            id,
            app: request.app,
            path: request.path,
            method: request.method,
            headers: request.headers,
            body: request.body.read()?,
            priority: match request.priority {
                Level::Normal => Priority::Normal,
                Level::Low => Priority::Low,
            },
            submitted_at: at(request.submitted_at_micros),
            start_deadline: request.start_deadline_micros.map(at),
            no_retry: request.no_retry,
            retry_config: request.retry_config,
            hint: request.hint,
            webhook_url: request.webhook_url,
            idempotency_key: request.idempotency_key,
            keep_payload: request.keep_payload,
            caller: request.caller,
        },
        completion: completion.transpose()?,
        logs: request.logs.into_iter().map(log).collect(),
        delivery: request.webhook.map(delivery),
    })
}

fn delivery(webhook: Webhook) -> DeliveryRecord {
    let attempt = |call: Call| DeliveryAttempt {
        at: Timestamp::from_micros(call.at_micros),
        took: std::time::Duration::from_micros(call.took_micros),
        status: call.status,
        problem: call.problem,
    };
    DeliveryRecord {
        url: webhook.url,
        state: match webhook.state {
            State::Due(at) => DeliveryState::Due(Timestamp::from_micros(at)),
            State::Delivered => DeliveryState::Delivered,
            State::Failed => DeliveryState::Failed,
        },
        attempts: webhook.calls.into_iter().map(attempt).collect(),
    }
}
