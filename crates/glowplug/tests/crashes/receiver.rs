//! Takes the calls of webhooks, and refuses some of them the first time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::ledger::Ledger;

/// One call in so many is refused, so that it is made again.
const REFUSED_EVERY: u32 = 5;

#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
}

impl Receiver {
    pub(crate) async fn start(ledger: Arc<Ledger>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let calls = Arc::new(AtomicU32::new(0));
            while let Ok((stream, _)) = listener.accept().await {
                let (ledger, calls) = (ledger.clone(), calls.clone());
                let serve = service_fn(move |request| take(request, ledger.clone(), calls.clone()));
                tokio::spawn(async move {
                    // A caller that was killed breaks off.
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), serve).await);
                });
            }
        });
        Self { address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn take(
    request: Request<Incoming>,
    ledger: Arc<Ledger>,
    calls: Arc<AtomicU32>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut answer = Response::new(Empty::new());
    if let Ok(body) = request.into_body().collect().await {
        ledger.called(serde_json::from_slice(&body.to_bytes()).unwrap());
        if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(REFUSED_EVERY) {
            *answer.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
        }
    }
    Ok(answer)
}
