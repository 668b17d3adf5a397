//! One attempt of a queued request, run for the node, which decides whether there will be another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use glowplug_core::request::Outcome;
use glowplug_core::{RequestId, RunnerAddress};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::answer::Problem;
use crate::body::RequestBody;
use crate::forward::{AnswerBody, ForwardError, Forwarder};
use crate::header::{CALLER, ENDPOINT, REQUEST_ID, TAGS, answer};
use crate::identity;

/// For an app to acknowledge a cancellation. It may go on cleaning up for longer.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent to the app: a [`crate::host::Submission`] as it was stored.
#[derive(Clone, Debug)]
pub struct AttemptRequest {
    pub method: String,
    /// Below the app, without leading slash, query included.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub request_id: RequestId,
    /// `owner/app[--env]`.
    pub endpoint: String,
    /// The caller's key id; empty when the node is open.
    pub caller: String,
}

#[derive(Clone, Debug)]
pub struct AttemptResult {
    /// For the engine.
    pub outcome: Outcome,
    /// The app's whole answer, its orders to the gateway taken out. There whenever the outcome is
    /// `Answered`, except when the answer was too large to be kept.
    pub response: Option<AttemptResponse>,
    /// What the caller is told if there will be no other attempt; `None` where there is a response.
    pub error: Option<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Runs one attempt. To withdraw it, drop the future: the connection to the runner closes.
pub async fn attempt(
    forwarder: &Arc<Forwarder>,
    address: &Arc<RunnerAddress>,
    request: AttemptRequest,
) -> AttemptResult {
    match answered(forwarder, address, request).await {
        Ok(result) => result,
        Err(error) => {
            AttemptResult { outcome: error.outcome(), response: None, error: Some(error.problem()) }
        }
    }
}

async fn answered(
    forwarder: &Arc<Forwarder>,
    address: &Arc<RunnerAddress>,
    request: AttemptRequest,
) -> Result<AttemptResult, ForwardError> {
    let response = forwarder.exchange(address, to_runner(request)?).await?;
    let (mut parts, body) = response.into_parts();
    let answer = answer(parts.status.as_u16(), &mut parts.headers)
        .map_err(|error| ForwardError::HeadersTooLarge { reason: error.to_string() })?;
    let body = whole(body, forwarder.options().answer_bytes_max).await?;
    let headers = parts.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let response =
        AttemptResponse { status: parts.status.as_u16(), headers: headers.collect(), body };
    Ok(AttemptResult { outcome: Outcome::Answered(answer), response: Some(response), error: None })
}

async fn whole(body: AnswerBody, bytes_max: usize) -> Result<Bytes, ForwardError> {
    let body = match body {
        AnswerBody::Whole(bytes) => {
            return if bytes.len() <= bytes_max {
                Ok(bytes)
            } else {
                Err(ForwardError::AnswerTooLarge { bytes_max })
            };
        }
        AnswerBody::Streaming(body) => body,
    };
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ForwardError::AnswerTooLarge { bytes_max })
        }
        Err(error) => Err(ForwardError::Incomplete { reason: error.to_string() }),
    }
}

fn to_runner(request: AttemptRequest) -> Result<Request<RequestBody>, ForwardError> {
    let unusable = |what: &str| ForwardError::Unusable { what: what.to_owned() };
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| unusable(&format!("method `{}`", request.method)))?;
    let target = PathAndQuery::try_from(format!("/{}", request.path))
        .map_err(|_| unusable(&format!("path `{}`", request.path)))?;
    let mut headers = HeaderMap::with_capacity(request.headers.len() + 4);
    let shown = |(name, _): &&(String, String)| name != TAGS.as_str();
    for (name, value) in request.headers.iter().filter(shown) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else { return Err(unusable("header")) };
        headers.append(name, value);
    }
    let localhost = HeaderValue::from_static("localhost");
    headers.entry(header::HOST).or_insert(localhost);
    headers.insert(REQUEST_ID, identity::header(request.request_id));
    let below = target.path();
    let endpoint = match request.endpoint {
        endpoint if below == "/" || endpoint.is_empty() => endpoint,
        endpoint => endpoint + below,
    };
    for (name, value) in [(ENDPOINT, endpoint), (CALLER, request.caller)] {
        if let Ok(value) = HeaderValue::from_str(&value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    let mut sent = Request::new(RequestBody::full(request.body));
    *sent.method_mut() = method;
    *sent.uri_mut() = Uri::from(target);
    *sent.headers_mut() = headers;
    Ok(sent)
}

/// Asks an app to stop working on a request: `POST <path>/cancel` on the same runner. Returns the app's
/// status; 404 means it cannot be cancelled and simply finishes.
pub async fn cancel(
    forwarder: &Arc<Forwarder>,
    address: &Arc<RunnerAddress>,
    path: &str,
    request_id: RequestId,
) -> Result<u16, ForwardError> {
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let separator = if path.is_empty() { "" } else { "/" };
    let request = to_runner(AttemptRequest {
        method: "POST".to_owned(),
        path: format!("{path}{separator}cancel"),
        headers: Vec::new(),
        body: Bytes::new(),
        request_id,
        endpoint: String::new(),
        caller: String::new(),
    })?;
    let cancelled = async {
        let response = forwarder.exchange(address, request).await?;
        let (parts, body) = response.into_parts();
        whole(body, forwarder.options().answer_bytes_max).await?;
        Ok(parts.status.as_u16())
    };
    match tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await {
        Ok(status) => status,
        Err(_) => Err(ForwardError::Disconnected),
    }
}
