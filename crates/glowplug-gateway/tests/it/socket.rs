//! Both ends of a websocket: an app's that does what it is told, and a caller's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::client::{get, send, with};
use crate::upstream::{Seen, UpstreamBody};
use crate::wait::bounded;

pub(crate) const FIELDS: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

/// Of each message of a flood.
pub(crate) const FLOOD_BYTES: usize = 64 * 1024;

const READ_BYTES: usize = 4 * 1024;

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An app that echoes, and knows a few words.
pub(crate) fn accept(seen: Arc<Seen>, request: Request<Incoming>) -> Response<UpstreamBody> {
    let offered = request.headers().contains_key("sec-websocket-extensions");
    let query = request.uri().query().unwrap_or_default().to_owned();
    tokio::spawn(async move {
        let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut socket =
            WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config())).await;
        while let Some(Ok(message)) = socket.next().await {
            let done = match &message {
                Message::Text(text) => match text.as_str() {
                    "die" => return,
                    "leave" => socket.close(None).await,
                    "query" => socket.send(Message::text(query.clone())).await,
                    "offered" => socket.send(Message::text(offered.to_string())).await,
                    "flood" => flood(&mut socket, &seen).await,
                    _ => socket.send(message).await,
                },
                Message::Binary(_) => socket.send(message).await,
                Message::Close(frame) => {
                    let code = frame.as_ref().map_or(0, |frame| u16::from(frame.code));
                    seen.uris.lock().unwrap().push(format!("closed {code}"));
                    Ok(())
                }
                _ => Ok(()),
            };
            if done.is_err() {
                break;
            }
        }
        seen.dropped.fetch_add(1, Ordering::SeqCst);
    });
    let empty = Full::default().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", HeaderValue::from_static("abc"));
    response
}

/// Sends numbered messages for as long as they are taken, or until all are sent.
async fn flood(
    socket: &mut Socket,
    seen: &Seen,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    for number in 0..2_000_u32 {
        let mut message = vec![0; FLOOD_BYTES];
        message[..4].copy_from_slice(&number.to_be_bytes());
        socket.send(Message::binary(message)).await?;
        seen.bytes_made.fetch_add(FLOOD_BYTES, Ordering::SeqCst);
    }
    socket.send(Message::text("flooded")).await
}

/// With buffers that leave room for many sockets.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(READ_BYTES).write_buffer_size(0)
}

/// Opens a socket through the gateway, for the bytes.
pub(crate) async fn open_raw(address: SocketAddr, path: &str) -> TokioIo<Upgraded> {
    let response = send(address, with(get(path), &FIELDS)).await;
    assert_eq!(response.status(), 101, "{path}");
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["x-fal-request-id"].len(), 36);
    TokioIo::new(bounded("the upgrade", hyper::upgrade::on(response)).await.unwrap())
}

pub(crate) async fn open(address: SocketAddr, path: &str) -> Socket {
    let upgraded = open_raw(address, path).await;
    WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config())).await
}

pub(crate) async fn say(socket: &mut Socket, text: &str) {
    bounded("it to be sent", socket.send(Message::text(text))).await.unwrap();
}

/// The next message that is no ping.
pub(crate) async fn hear(socket: &mut Socket) -> Message {
    loop {
        match bounded("a message", socket.next()).await.unwrap().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

pub(crate) async fn hear_text(socket: &mut Socket) -> String {
    match hear(socket).await {
        Message::Text(text) => text.to_string(),
        other => panic!("a text was expected: {other:?}"),
    }
}

pub(crate) async fn hear_bytes(socket: &mut Socket) -> Bytes {
    match hear(socket).await {
        Message::Binary(bytes) => bytes,
        other => panic!("bytes were expected: {other:?}"),
    }
}

/// The code and reason with which the other side closes now.
pub(crate) async fn closed(socket: &mut Socket) -> (u16, String) {
    match hear(socket).await {
        Message::Close(Some(CloseFrame { code, reason })) => (code.into(), reason.to_string()),
        other => panic!("a close was expected: {other:?}"),
    }
}

/// What a caller of `/realtime` is told before the close that follows.
pub(crate) async fn told(socket: &mut Socket) -> (String, u16) {
    let told: serde_json::Value = serde_json::from_str(&hear_text(socket).await).unwrap();
    assert_eq!(told["type"], "x-fal-error", "{told}");
    assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
    let (code, reason) = closed(socket).await;
    assert_eq!(told["reason"], reason);
    (told["error"].as_str().unwrap().to_owned(), code)
}
