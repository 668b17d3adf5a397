//! Looks at a runner from outside: does it accept, is it healthy.

use std::time::Duration;

use bytes::Bytes;
use glowplug_core::RunnerAddress;
use glowplug_dial::Stream;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::rt::TokioIo;

use crate::apps::HealthCheck;

/// Until a runner on the same machine accepts.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn accepts(address: &RunnerAddress) -> Result<(), String> {
    match tokio::time::timeout(ACCEPT_TIMEOUT, Stream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ACCEPT_TIMEOUT.as_secs())),
    }
}

pub(crate) async fn health(address: &RunnerAddress, check: &HealthCheck) -> Result<(), String> {
    let ask = async {
        let stream = Stream::connect(address).await.map_err(|error| error.to_string())?;
        exchange(stream, check).await
    };
    match tokio::time::timeout(check.timeout, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", check.timeout.as_secs_f64())),
    }
}

async fn exchange(stream: Stream, check: &HealthCheck) -> Result<(), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let method = if check.post { Method::POST } else { Method::GET };
    let request = Request::builder()
        .method(method)
        .uri(&check.path)
        .header(http::header::HOST, "glowplug")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(if check.post { b"{}" } else { b"" })))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request);
    let answer = tokio::select! {
        answer = answer => answer.map_err(|error| error.to_string())?,
        // The connection ends first only when it breaks.
        ended = connection => return Err(match ended {
            Err(error) => error.to_string(),
            Ok(()) => "the connection was closed".to_owned(),
        }),
    };
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("it answered {}", answer.status()))
    }
}
