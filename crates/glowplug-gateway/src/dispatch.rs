//! Sends each request to its route, and puts on every answer what every answer carries.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_core::RequestId;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;

use crate::answer::Problem;
use crate::body::Body;
use crate::header::REQUEST_ID;
use crate::identity;
use crate::listener::Worker;
use crate::path::Route;
use crate::run;

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
    let exchange = Exchange { worker, id, id_header: identity::header(id) };
    let answer = route(&exchange, &peer, request).await;
    let mut answer = answer.unwrap_or_else(|problem| problem.answer());
    answer.headers_mut().insert(REQUEST_ID, exchange.id_header);
    Ok(answer)
}

async fn route(
    exchange: &Exchange,
    peer: &Peer,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let uri = request.uri().clone();
    let route = Route::parse(uri.path())
        .map_err(|error| Problem::new(ErrorType::NotFound, error.to_string()))?;
    match route {
        Route::Run(target) => run::direct(exchange, target, request).await,
        _ => {
            request.extensions_mut().insert(peer.clone());
            Ok((exchange.worker.fallback)(request).await)
        }
    }
}
