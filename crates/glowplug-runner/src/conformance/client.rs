//! One request to a runner.

use bytes::Bytes;
use glowplug_dial::Stream;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use crate::backend::RunnerAddress;

/// Status and body. `None` if nobody answers.
pub async fn get(address: &RunnerAddress, path: &str) -> Option<(u16, String)> {
    exchange(Stream::connect(address).await.ok()?, path).await
}

async fn exchange(stream: Stream, path: &str) -> Option<(u16, String)> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.ok()?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, "localhost");
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    driver.abort();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}
