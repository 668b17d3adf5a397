//! Sends each request to its route, and puts on every answer what every answer carries.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_core::RequestId;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;

use crate::answer::Problem;
use crate::body::Body;
use crate::header::REQUEST_ID;
use crate::identity;
use crate::listener::Worker;
use crate::path::Route;
use crate::proxy;
use crate::queue;
use crate::run;
use crate::websocket;

/// Who is at the other end of a connection. In the extensions of requests given to the fallback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// How the caller wrote our address: `http` or `https`.
    pub scheme: Scheme,
}

/// One request while it is being answered.
pub(crate) struct Exchange {
    pub(crate) worker: Arc<Worker>,
    pub(crate) id: RequestId,
    /// The id as a header value, shared by the request to the app and the answer to the caller.
    pub(crate) id_header: HeaderValue,
}

pub(crate) async fn dispatch(
    worker: Arc<Worker>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let id = identity::request_id(worker.host.now());
    let mut exchange = Exchange { worker, id, id_header: identity::header(id) };
    let answer = route(&mut exchange, &peer, request).await;
    let mut answer = answer.unwrap_or_else(|problem| problem.answer());
    answer.headers_mut().insert(REQUEST_ID, exchange.id_header);
    Ok(answer)
}

async fn route(
    exchange: &mut Exchange,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let uri = request.uri().clone();
    let route = Route::parse(uri.path())
        .map_err(|error| Problem::new(ErrorType::NotFound, error.to_string()))?;
    // All but the way of a plain direct request are boxed, so that that one stays small.
    match route {
        Route::Run(target) if websocket::is_wanted(&request) => {
            Box::pin(websocket::pass(exchange, peer, target, request)).await
        }
        Route::Run(target) => run::direct(exchange, target, request).await,
        Route::WebSocket(target) => {
            Box::pin(websocket::connect(exchange, peer, target, request)).await
        }
        Route::Submit(target) => Box::pin(queue::submit(exchange, peer, target, request)).await,
        Route::Queued { app, id, action } => {
            Box::pin(queue::about(exchange, peer, app, id, action, request)).await
        }
        Route::Proxy => Box::pin(proxied(exchange, peer, request)).await,
        Route::Other => Ok(fallback(exchange, peer, request).await),
    }
}

/// Answers `/proxy` by the route its target means.
async fn proxied(
    exchange: &mut Exchange,
    peer: &Peer,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let cors = proxy::Cors::of(&exchange.worker.options.proxy_origins, request.headers());
    if let Some(cors) = &cors
        && request.method() == Method::OPTIONS
    {
        return Ok(cors.preflight(request.headers()));
    }
    let answer = match proxy::retarget(&mut request) {
        Ok(proxy::Target::DataPlane) => Box::pin(route(exchange, peer, request)).await,
        Ok(proxy::Target::Rest) => Ok(fallback(exchange, peer, request).await),
        Err(error) => Err(Problem::new(ErrorType::BadRequest, error.to_string())),
    };
    let Some(cors) = cors else { return answer };
    let mut answer = answer.unwrap_or_else(|problem| problem.answer());
    cors.permit(answer.headers_mut());
    Ok(answer)
}

async fn fallback(
    exchange: &Exchange,
    peer: &Peer,
    mut request: Request<Incoming>,
) -> Response<Body> {
    request.extensions_mut().insert(peer.clone());
    (exchange.worker.fallback)(request).await
}
