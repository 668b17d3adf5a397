//! One connection of a caller: finds out what it speaks and serves it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::uri::Scheme;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::Worker;
use crate::dispatch::{Peer, dispatch};

/// Read and write buffer of one connection.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

pub(super) async fn serve(worker: Arc<Worker>, stream: TcpStream, address: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "the caller is gone already");
    }
    let peer = Arc::new(Peer { address, scheme: Scheme::HTTP });
    serve_http1(worker, TokioIo::new(stream), peer).await;
}

async fn serve_http1<I>(worker: Arc<Worker>, stream: I, peer: Arc<Peer>)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let closing = worker.closing.clone();
    let service = {
        let worker = worker.clone();
        service_fn(move |request| dispatch(worker.clone(), peer.clone(), request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(worker.options.idle_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        // Beyond our own limit, so that a block over it gets an answer of ours.
        .max_header_size(worker.options.header_bytes_max.saturating_mul(2))
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
