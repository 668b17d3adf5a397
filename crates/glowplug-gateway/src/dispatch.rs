//! Sends each request to its route, and puts on every answer what every answer carries.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_core::RequestId;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;

use crate::answer::Problem;
use crate::body::Body;
use crate::files;
use crate::header::REQUEST_ID;
use crate::identity;
use crate::listener::Worker;
use crate::path::Route;
use crate::proxy::{self, Service};
use crate::queue;
use crate::run;
use crate::tokens;
use crate::websocket;

/// What webhooks are verified with, which receivers fetch from one of fal's hosts. The node answers it.
const PUBLIC_KEYS: &str = "/.well-known/jwks.json";

/// Who is at the other end of a connection. In the extensions of requests given to the fallback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// How the caller wrote our address: `http` or `https`.
    pub scheme: Scheme,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The connection is a tunnel of a caller that takes us for fal's hosts, and names one with each request.
    pub as_fal: bool,
}

impl Peer {
    /// What addresses of the queue begin with for a caller that named us like this.
    pub(crate) fn queue_base(&self, authority: &str) -> String {
        // One of fal's hosts serves the queue at its root.
        let prefix = if self.as_fal { "" } else { "/queue" };
        format!("{}://{authority}{prefix}", self.scheme)
    }
}

/// How a caller named us: in `Host`, or in what stands for it in HTTP/2.
pub(crate) fn authority(headers: &HeaderMap, uri: &Uri) -> Option<Authority> {
    let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    named.and_then(|host| host.parse().ok()).or_else(|| uri.authority().cloned())
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
    let answer = if peer.as_fal || request.method() == Method::CONNECT {
        Box::pin(as_fal(&mut exchange, &peer, request)).await
    } else {
        route(&mut exchange, &peer, request).await
    };
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
        Route::Tokens => Box::pin(tokens::create(exchange, request)).await,
        Route::Files(wanted) => Box::pin(files::answer(exchange, peer, wanted, request)).await,
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
        Ok(service) => on_service(exchange, peer, service, request).await,
        Err(error) => Err(Problem::new(ErrorType::BadRequest, error.to_string())),
    };
    let Some(cors) = cors else { return answer };
    let mut answer = answer.unwrap_or_else(|problem| problem.answer());
    cors.permit(answer.headers_mut());
    Ok(answer)
}

/// Answers a caller that takes us for one of fal's hosts.
async fn as_fal(
    exchange: &mut Exchange,
    peer: &Peer,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    if request.method() == Method::CONNECT {
        let detail = "tunnels begin on a connection without TLS: set HTTPS_PROXY to http://…";
        return Err(Problem::new(ErrorType::Forbidden, detail));
    }
    match proxy::retarget_by_host(&mut request) {
        Ok(service) => on_service(exchange, peer, service, request).await,
        Err(error) => Err(Problem::new(ErrorType::Forbidden, error.to_string())),
    }
}

/// Answers by those of our routes that a service of fal has. The node's own API is none of them: a page that
/// may use `/proxy` would read and change everything by it.
async fn on_service(
    exchange: &mut Exchange,
    peer: &Peer,
    service: Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path();
    let ours = match Route::parse(path) {
        Ok(route) => service.has(&route),
        Err(_) => service.has(&Route::Other),
    };
    if ours {
        return Box::pin(route(exchange, peer, request)).await;
    }
    if path == PUBLIC_KEYS {
        return Ok(fallback(exchange, peer, request).await);
    }
    let detail = format!("nothing of fal's is served at `{path}`");
    Err(Problem::new(ErrorType::NotFound, detail))
}

async fn fallback(
    exchange: &Exchange,
    peer: &Peer,
    mut request: Request<Incoming>,
) -> Response<Body> {
    request.extensions_mut().insert(peer.clone());
    (exchange.worker.fallback)(request).await
}
