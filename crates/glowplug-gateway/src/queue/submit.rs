//! Takes a request for the queue: reads what its caller says about it, and hands it to the host.

use glowplug_api::ErrorType;
use glowplug_api::queue::{MetricsView, QueueState, SubmitView};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::{eta_view, links, tell_eta, wrong_method};
use crate::answer::{Problem, json};
use crate::auth;
use crate::body::Body;
use crate::dispatch::{Exchange, Peer};
use crate::header::{TAGS, receive};
use crate::host::{Caller, Submission, SubmitProblem};
use crate::identity;
use crate::path::{AppPath, query_value};
use crate::run::find_app;

const WEBHOOK: &str = "fal_webhook";
const QUEUE_LENGTH_MAX: &str = "fal_max_queue_length";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Beyond it: 400. The key is kept with the request, so that it should be an id and no document.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Serves `/queue/{owner}/{app}[/{path}]`.
pub(crate) async fn submit(
    exchange: &mut Exchange,
    peer: &Peer,
    target: AppPath<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let worker = &exchange.worker;
    let (mut parts, body) = request.into_parts();
    let submits = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    if !submits.contains(&parts.method) {
        return Ok(wrong_method("POST"));
    }
    let control = receive(&mut parts.headers, worker.options.header_bytes_max)
        .map_err(|error| Problem::from(&error))?;
    let app = find_app(&*worker.host, target.app, &parts.headers).await?;
    let caller = auth::admit(&*worker.host, app.access, &mut parts.headers, None)?;
    let query = parts.uri.query().unwrap_or_default();
    let webhook_url = webhook_url(query)?;
    let queue_length_max = queue_length_max(query)?;
    let idempotency_key = idempotency_key(&parts.headers, &caller)?;
    let body = whole_body(body, worker.options.queue_body_bytes_max).await?;
    let submission = Submission {
        id: exchange.id,
        app,
        path: app_path(target.rest, query),
        method: parts.method.as_str().to_owned(),
        headers: stored(&parts.headers, control.tags.as_ref()),
        body,
        priority: control.priority,
        start_deadline: control.start_timeout.map(|timeout| worker.host.now() + timeout),
        retries: control.retries(&caller),
        hint: control.hint,
        idempotency_key,
        keep_payload: control.keep_payload,
        webhook_url,
        queue_length_max,
        caller,
    };
    let submitted = worker.host.submit(submission).await.map_err(Problem::from)?;
    let links = links(peer, &parts, worker.address, target.app, submitted.id);
    // With an idempotency key that was used before, the answer is about the earlier request.
    exchange.id_header = identity::header(submitted.id);
    let id = submitted.id.to_string();
    let view = SubmitView {
        status: QueueState::InQueue,
        request_id: id.clone(),
        links,
        queue_position: submitted.queue_position,
        eta: submitted.eta.map(eta_view),
        gateway_request_id: id,
        logs: None,
        metrics: MetricsView::default(),
    };
    let mut answer = json(StatusCode::OK, &view);
    tell_eta(answer.headers_mut(), view.eta.as_ref());
    Ok(answer)
}

impl From<SubmitProblem> for Problem {
    fn from(problem: SubmitProblem) -> Self {
        match problem {
            SubmitProblem::QueueFull { limit } => {
                Self::new(ErrorType::QueueFull, format!("{limit} requests wait already"))
            }
            SubmitProblem::Unavailable { reason } => Self::new(
                ErrorType::StoreUnavailable,
                format!("the queue cannot take the request now: {reason}"),
            ),
            SubmitProblem::StorageFull { reason } => Self::new(ErrorType::StorageFull, reason),
            SubmitProblem::KeyReused { earlier } => Self::new(
                ErrorType::IdempotencyKeyReused,
                format!(
                    "the idempotency key was used for another request before ({earlier}); use a new key for \
                     a new request"
                ),
            ),
            SubmitProblem::WebhookNotAllowed { reason } => Self::new(ErrorType::NotAllowed, reason),
            SubmitProblem::Refused(refusal) => refusal.into(),
        }
    }
}

fn webhook_url(query: &str) -> Result<Option<String>, Problem> {
    let Some(value) = query_value(query, WEBHOOK) else { return Ok(None) };
    let url = percent_decode_str(value).decode_utf8_lossy().into_owned();
    let is_web = url.parse::<Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
    });
    if is_web {
        return Ok(Some(url));
    }
    let detail = format!("`{WEBHOOK}` is not an http or https address: `{url}`");
    Err(Problem::new(ErrorType::BadRequest, detail))
}

fn queue_length_max(query: &str) -> Result<Option<usize>, Problem> {
    let Some(value) = query_value(query, QUEUE_LENGTH_MAX) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| {
        let detail = format!("`{QUEUE_LENGTH_MAX}` is not a number: `{value}`");
        Problem::new(ErrorType::BadRequest, detail)
    })
}

/// The key under which this caller may submit the same request again without making a second one.
fn idempotency_key(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let refused = |detail: String| Err(Problem::new(ErrorType::BadRequest, detail));
    if value.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return refused(format!(
            "the `Idempotency-Key` takes {} bytes; at most {IDEMPOTENCY_KEY_BYTES_MAX} are allowed",
            value.len()
        ));
    }
    let Some(key) = value.to_str().ok().map(str::trim).filter(|key| !key.is_empty()) else {
        return refused("the `Idempotency-Key` is not printable ASCII, or empty".to_owned());
    };
    if caller.is_anonymous() {
        // Whoever guessed another's key would be handed the other's request.
        return refused("an `Idempotency-Key` needs a caller: send a key of this node".to_owned());
    }
    Ok(Some(key.to_owned()))
}

/// Path and query for the app, without what was meant for the queue.
fn app_path(rest: &str, query: &str) -> String {
    let path = rest.strip_prefix('/').unwrap_or(rest);
    let is_apps = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && name != WEBHOOK && name != QUEUE_LENGTH_MAX
    };
    let query: Vec<&str> = query.split('&').filter(is_apps).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// Headers as they are kept with the request. Its length is the stored body's.
fn stored(headers: &HeaderMap, tags: Option<&HeaderValue>) -> Vec<(String, String)> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let kept = headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH);
    kept.map(field).chain(tags.map(|tags| field((&TAGS, tags)))).collect()
}

async fn whole_body(body: Incoming, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let detail = format!("the request's body is larger than {bytes_max} bytes");
        Problem::new(ErrorType::PayloadTooLarge, detail)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            let detail = format!("the request's body broke off: {error}");
            Err(Problem::new(ErrorType::BadRequest, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_own_parameters_are_taken_out() {
        let cases = [
            ("", "", ""),
            ("/", "", ""),
            ("/a/b", "", "a/b"),
            ("/a", "x=1&y", "a?x=1&y"),
            ("/a", "fal_webhook=http%3A%2F%2Fh&x=1", "a?x=1"),
            ("", "fal_max_queue_length=3&fal_webhook=u", ""),
            ("", "fal_webhooks=u", "?fal_webhooks=u"),
        ];
        for (rest, query, expected) in cases {
            assert_eq!(app_path(rest, query), expected, "{rest} {query}");
        }
    }

    #[test]
    fn webhooks_must_be_web_addresses() {
        let url = |query: &str| webhook_url(query).map_err(|problem| problem.kind);
        assert_eq!(url("a=b"), Ok(None));
        assert_eq!(url("fal_webhook=https%3A%2F%2Fh%2Fp%3Fq"), Ok(Some("https://h/p?q".into())));
        for bad in ["", "nowhere", "ftp%3A%2F%2Fh", "http%3A%2F%2F", "%ff", "javascript:x"] {
            assert_eq!(url(&format!("fal_webhook={bad}")), Err(ErrorType::BadRequest), "{bad}");
        }
    }
}
