//! A caller that says exactly what it is told, and shows what came back.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::bounded;

/// Sends one request on a connection of its own.
pub(crate) async fn send<B>(address: SocketAddr, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = request;
    let host = address.to_string().parse().unwrap();
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    bounded("an answer", sender.send_request(request)).await.unwrap()
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::new(body.into())).unwrap()
}

pub(crate) fn with(
    mut request: Request<Full<Bytes>>,
    fields: &[(&'static str, &str)],
) -> Request<Full<Bytes>> {
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// Status, headers and whole body.
pub(crate) async fn ask(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (u16, http::HeaderMap, Bytes) {
    let response = send(address, request).await;
    let (head, body) = response.into_parts();
    let body = bounded("the body", body.collect()).await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, body)
}

pub(crate) async fn ask_json(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (u16, http::HeaderMap, Value) {
    let (status, headers, body) = ask(address, request).await;
    let value = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&body)));
    (status, headers, value)
}

/// Writes bytes as they are and reads until the other end closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is a close, too: the other end had not read everything.
    let _ = bounded("the connection to close", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
