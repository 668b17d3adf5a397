//! HTTP over a websocket, as on `ws.fal.run`: each message of the caller is the payload of one call.
//!
//! ```text
//! caller ── payload ──►
//!        ◄── {"type":"start","request_id","status","headers"} ◄── body, in binary frames ◄── {"type":"end",…}
//! ```
//!
//! A call is a direct request: with an id, a place and an outcome of its own, and none is held between
//! calls. Calls are answered one after the other. What is sent meanwhile waits: [`CALLS_WAITING_MAX`] of
//! them, and together no more bytes than one message may have; then nothing more is read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, request};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::ending::Ending;
use super::frame::{Fault, Sender};
use super::seat::Seat;
use crate::answer::Problem;
use crate::body::{Body, RequestBody};
use crate::dispatch::Exchange;
use crate::header::CallerControl;
use crate::host::{AppRoute, Caller};
use crate::identity;
use crate::listener::Worker;
use crate::options::SocketOptions;
use crate::path::AppPath;
use crate::run;

/// Calls that wait for the one before them. Beyond it the caller's messages are not read.
const CALLS_WAITING_MAX: usize = 16;
/// Read buffer of one socket.
const READ_BYTES: usize = 4 * 1024;
/// Fields of the upgrade that are not the calls'.
const UPGRADE_FIELDS: [&str; 5] = [
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "content-length",
];

/// A socket whose messages are calls.
pub(super) struct Calls {
    pub(super) worker: Arc<Worker>,
    pub(super) app: Arc<AppRoute>,
    /// Below the app, as called.
    pub(super) path: String,
    pub(super) caller: Caller,
    pub(super) control: CallerControl,
    /// Head of the upgrade, which every call has in common.
    pub(super) head: request::Parts,
    pub(super) seat: Seat,
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A payload that waits.
#[derive(Debug)]
struct Payload {
    bytes: Bytes,
    is_text: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Meta<'a> {
    Start { request_id: String, status: u16, headers: BTreeMap<&'a str, String> },
    End { request_id: String, time_to_first_byte_seconds: f64 },
}

/// When the caller is listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    BetweenCalls,
    Answering,
}

impl Calls {
    pub(super) async fn run(mut self, upgrade: OnUpgrade) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a websocket ended before it was open"),
        };
        for name in UPGRADE_FIELDS {
            self.head.headers.remove(name);
        }
        self.head.method = Method::POST;
        let config = config(&self.worker.options.sockets);
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        let mut open = Open {
            socket,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pinged: None,
            last_heard: Instant::now(),
            last_call: Instant::now(),
            calls: &self,
        };
        if let Err(closing) = open.serve().await {
            open.close(closing).await;
        }
        drop(self.seat);
    }

    /// Asks the app. What goes wrong is an answer, too.
    async fn ask(&self, exchange: &Exchange, payload: Payload) -> Response<Body> {
        let mut head = self.head.clone();
        let kind = if payload.is_text { "application/json" } else { "application/octet-stream" };
        head.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        let target = AppPath { app: &self.app.name, rest: &self.path };
        let body = RequestBody::full(payload.bytes);
        let call = run::Call { app: &self.app, caller: &self.caller, control: &self.control };
        let answer = run::call(exchange, target, call, head, body).await;
        answer.unwrap_or_else(|problem: Problem| problem.answer())
    }
}

fn config(options: &SocketOptions) -> WebSocketConfig {
    let bytes_max = usize::try_from(options.message_bytes_max).unwrap_or(usize::MAX);
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max))
}

/// Why a socket is over. `None`: the caller closed it, or is gone.
type Over = Option<Ending>;

struct Open<'a> {
    socket: Socket,
    waiting: VecDeque<Payload>,
    /// Of `waiting` together.
    waiting_bytes: u64,
    pinged: Option<Instant>,
    last_heard: Instant,
    /// When the last call came, or its answer ended.
    last_call: Instant,
    calls: &'a Calls,
}

impl Open<'_> {
    async fn serve(&mut self) -> Result<(), Over> {
        let closing = self.calls.worker.shutdown();
        let mut closing = std::pin::pin!(closing);
        loop {
            let payload = loop {
                if let Some(payload) = self.waiting.pop_front() {
                    self.waiting_bytes -= payload.bytes.len() as u64;
                    break payload;
                }
                tokio::select! {
                    heard = self.hear(When::BetweenCalls) => heard?,
                    _ = &mut closing => return Err(Some(Ending::ShuttingDown)),
                }
            };
            self.answer(payload).await?;
        }
    }

    async fn answer(&mut self, payload: Payload) -> Result<(), Over> {
        let worker = self.calls.worker.clone();
        let id = identity::request_id(worker.host.now());
        let exchange = Exchange { worker, id, id_header: identity::header(id) };
        let since = Instant::now();
        let response = {
            let asked = self.calls.ask(&exchange, payload);
            let mut asked = std::pin::pin!(asked);
            loop {
                tokio::select! {
                    biased;
                    response = &mut asked => break response,
                    // The caller's end is the call's: dropped, it is withdrawn from the app.
                    heard = self.hear(When::Answering) => heard?,
                }
            }
        };
        let (head, mut body) = response.into_parts();
        let request_id = id.to_string();
        let status = head.status.as_u16();
        let start =
            Meta::Start { request_id: request_id.clone(), status, headers: fields(&head.headers) };
        self.say(&start).await?;
        let mut first_byte = None;
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                heard = self.hear(When::Answering) => {
                    heard?;
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            let frame =
                frame.map_err(|error| Some(Ending::AnswerBroken { reason: error.to_string() }))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                first_byte.get_or_insert_with(|| since.elapsed());
                self.send(Message::Binary(data)).await?;
            }
        }
        let seconds = first_byte.unwrap_or_else(|| since.elapsed()).as_secs_f64();
        self.last_call = Instant::now();
        self.say(&Meta::End { request_id, time_to_first_byte_seconds: seconds }).await
    }

    async fn say(&mut self, meta: &Meta<'_>) -> Result<(), Over> {
        let text = serde_json::to_string(meta).expect("texts and numbers serialize");
        self.send(Message::text(text)).await
    }

    /// A caller that takes nothing for as long as it may leave a ping unanswered is gone.
    async fn send(&mut self, message: Message) -> Result<(), Over> {
        let options = &self.calls.worker.options.sockets;
        let patience = options.ping_interval + options.pong_timeout;
        match timeout(patience, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Ending::Unresponsive)),
        }
    }

    /// Waits for the caller, and for what time makes due. What it said is in `waiting`.
    async fn hear(&mut self, when: When) -> Result<(), Over> {
        let options = &self.calls.worker.options.sockets;
        let has_room = self.waiting.len() < CALLS_WAITING_MAX
            && self.waiting_bytes < options.message_bytes_max;
        if !has_room {
            // Not even its pongs are read; how long that may last is the call's own limit.
            return pending().await;
        }
        let life_due = match self.pinged {
            Some(pinged) => pinged + options.pong_timeout,
            None => self.last_heard + options.ping_interval,
        };
        let idle_due = (when == When::BetweenCalls).then(|| self.last_call + options.idle_timeout);
        let due = idle_due.map_or(life_due, |idle| idle.min(life_due));
        let heard = tokio::select! {
            biased;
            heard = self.socket.next() => heard,
            () = sleep_until(due) => {
                if idle_due.is_some_and(|idle| Instant::now() >= idle) {
                    return Err(Some(Ending::Idle { timeout: options.idle_timeout }));
                }
                if self.pinged.is_some() {
                    return Err(Some(Ending::Unresponsive));
                }
                self.pinged = Some(Instant::now());
                return self.send(Message::Ping(Bytes::new())).await;
            }
        };
        self.pinged = None;
        self.last_heard = Instant::now();
        let payload = match heard.ok_or(None)?.map_err(|error| fault(&error, options))? {
            Message::Text(text) => Payload { bytes: text.into(), is_text: true },
            Message::Binary(bytes) => Payload { bytes, is_text: false },
            Message::Close(_) => return Err(None),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        self.last_call = self.last_heard;
        self.waiting_bytes += payload.bytes.len() as u64;
        self.waiting.push_back(payload);
        Ok(())
    }

    /// Says why, and waits a little for the caller's close.
    async fn close(&mut self, over: Over) {
        let close_timeout = self.calls.worker.options.sockets.close_timeout;
        let parting = async {
            let Some(ending) = over else {
                // Asked for more, the library answers the caller's close.
                while let Some(Ok(_)) = self.socket.next().await {}
                let _ = self.socket.get_mut().shutdown().await;
                return;
            };
            tracing::debug!(reason = ending.reason(), "a websocket is closed");
            let code = CloseCode::from(ending.code());
            let reason = super::frame::cut(&ending.reason()).into();
            if self.socket.close(Some(CloseFrame { code, reason })).await.is_ok() {
                // After a fault, what comes is no longer frames.
                let _ = tokio::io::copy(self.socket.get_mut(), &mut tokio::io::sink()).await;
            }
        };
        if timeout(close_timeout, parting).await.is_err() {
            tracing::debug!("a websocket's caller did not answer the close");
        }
    }
}

fn fault(error: &Error, options: &SocketOptions) -> Over {
    let fault = match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Fault::TooLarge { bytes_max: options.message_bytes_max }
        }
        Error::Utf8(_) => Fault::NotText,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => Fault::Protocol("a frame is not as RFC 6455 wants it"),
        _ => return None,
    };
    Some(Ending::Fault(Sender::Caller, fault))
}

/// Fields that came several times are joined, as HTTP reads them.
fn fields(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match fields.entry(name.as_str()) {
            Entry::Vacant(entry) => drop(entry.insert(value.into_owned())),
            Entry::Occupied(mut entry) => {
                entry.get_mut().push_str(", ");
                entry.get_mut().push_str(&value);
            }
        }
    }
    fields
}
