//! `/tokens/`: short-lived tokens for callers that cannot send a key, such as web pages with a socket.

use std::time::Duration;

use glowplug_api::ErrorType;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use crate::answer::{Problem, json};
use crate::auth;
use crate::body::Body;
use crate::dispatch::Exchange;
use crate::files::small_json;
use crate::host::{Caller, Host};
use crate::token::{Claims, Grant, TokenKey};

/// Apps of one token.
const APPS_MAX: usize = 100;
/// Bytes of the name of one.
const APP_BYTES_MAX: usize = 200;
/// For callers that do not say.
const SECONDS_DEFAULT: u64 = 120;
const SECONDS_MAX: u64 = 24 * 60 * 60;
const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
struct Wanted {
    allowed_apps: Vec<String>,
    #[serde(alias = "duration")]
    token_expiration: Option<u64>,
}

/// Serves `POST /tokens/` and `POST /tokens/realtime`.
pub(crate) async fn create(
    exchange: &Exchange,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::new(ErrorType::MethodNotAllowed, "tokens are made with POST"));
    }
    let host = &*exchange.worker.host;
    let caller = auth::known(host, request.headers())?;
    let wanted: Wanted = small_json(request.into_body(), BODY_BYTES_MAX).await?;
    let refuse = |detail: String| Err(Problem::new(ErrorType::BadRequest, detail));
    let apps = wanted.allowed_apps;
    if apps.is_empty() || apps.len() > APPS_MAX {
        return refuse(format!("`allowed_apps` names 1 to {APPS_MAX} apps"));
    }
    if let Some(app) = apps.iter().find(|app| app.is_empty() || app.len() > APP_BYTES_MAX) {
        let shown: String = app.chars().take(APP_BYTES_MAX).collect();
        return refuse(format!("`allowed_apps` names `{shown}`, which is no app"));
    }
    let seconds = wanted.token_expiration.unwrap_or(SECONDS_DEFAULT);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return refuse(format!("a token holds for 1 to {SECONDS_MAX} seconds, not {seconds}"));
    }
    let age = Duration::from_secs(seconds);
    let claims = Claims::new(Grant::Apps { apps }, &caller.key_id, host.now(), age);
    Ok(json(StatusCode::OK, &key(host)?.sign(&claims)))
}

pub(crate) fn key(host: &dyn Host) -> Result<&TokenKey, Problem> {
    let none = || Problem::new(ErrorType::NotFound, "this node gives out no tokens");
    host.tokens().ok_or_else(none)
}

/// The caller for whom a token to call this app was made. `None`: it is no token of ours, and may be a key.
pub(crate) fn caller(host: &dyn Host, token: &str, app: &str) -> Result<Option<Caller>, Problem> {
    let claims = host.tokens().and_then(|key| key.verify(token, host.now()).ok());
    let Some(claims) = claims.filter(|claims| host.still_knows(&claims.caller)) else {
        return Ok(None);
    };
    if !claims.allows_app(app) {
        let detail = format!("the token is not for the app `{app}`; name it in `allowed_apps`");
        return Err(Problem::new(ErrorType::Forbidden, detail));
    }
    Ok(Some(Caller { key_id: claims.caller, admin: false }))
}
