//! `/.well-known/jwks.json` and `/api/v1/webhooks/{request_id}`.

use glowplug_api::ErrorType;
use glowplug_api::control::{WebhookCallView, WebhookView};
use glowplug_core::RequestId;
use glowplug_gateway::Body;
use glowplug_gateway::webhook::SigningKey;
use glowplug_store::{DeliveryRecord, DeliveryState};
use http::{Method, Response, StatusCode, header};

use super::{Answer, Failure, json, not_found, unavailable};
use crate::shared::Shared;

/// For everyone: receivers of webhooks have no key of this node.
pub(super) fn public_keys(shared: &Shared) -> Response<Body> {
    let mut response = json(StatusCode::OK, &shared.webhooks.public_keys());
    response.headers_mut().insert(header::CACHE_CONTROL, SigningKey::cache_control());
    response
}

pub(super) async fn about(shared: &Shared, method: &Method, id: &str, rest: &[&str]) -> Answer {
    let request: RequestId =
        id.parse().map_err(|error| Failure::new(ErrorType::BadRequest, format!("{error}")))?;
    match (method, rest) {
        (&Method::GET, []) => show(shared, request).await,
        (&Method::POST, ["retry"]) => retry(shared, request).await,
        _ => Err(not_found(method, &format!("/api/v1/webhooks/{id}/{}", rest.join("/")))),
    }
}

async fn show(shared: &Shared, request: RequestId) -> Answer {
    let record = shared.store.delivery(request).await.map_err(unavailable)?;
    let record = record.ok_or_else(|| none(request))?;
    Ok(json(StatusCode::OK, &view(request, record)))
}

async fn retry(shared: &Shared, request: RequestId) -> Answer {
    match shared.webhooks.call_again(request).await.map_err(unavailable)? {
        None => Err(none(request)),
        Some(DeliveryState::Delivered) => {
            let detail = format!("the webhook of request {request} was delivered already");
            Err(Failure::new(ErrorType::Conflict, detail))
        }
        Some(DeliveryState::Due(_) | DeliveryState::Failed) => show(shared, request).await,
    }
}

fn none(request: RequestId) -> Failure {
    let detail = format!(
        "there is no webhook to call for request {request}: it has none, is not complete, or is too long \
         ago"
    );
    Failure::new(ErrorType::NotFound, detail)
}

fn view(request: RequestId, record: DeliveryRecord) -> WebhookView {
    let (state, next) = match record.state {
        DeliveryState::Due(at) => ("due", Some(at.as_micros())),
        DeliveryState::Delivered => ("delivered", None),
        DeliveryState::Failed => ("failed", None),
    };
    let calls = record.attempts.into_iter().map(|attempt| WebhookCallView {
        at_micros: attempt.at.as_micros(),
        seconds: attempt.took.as_secs_f64(),
        status: attempt.status,
        problem: attempt.problem,
    });
    WebhookView {
        request_id: request.to_string(),
        url: record.url,
        state: state.to_owned(),
        next_call_at_micros: next,
        calls: calls.collect(),
    }
}
