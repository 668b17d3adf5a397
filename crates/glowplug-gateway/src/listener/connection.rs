//! One connection of a caller: finds out what it speaks and serves it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Worker;
use super::connect::open_tunnel;
use super::ending::{Ending, Exchanges, OpenExchange, ending};
use crate::dispatch::{Peer, dispatch};

/// Read and write buffer of one connection.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Bytes one HTTP/2 stream may send before they are read.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes all streams of an HTTP/2 connection together may send before they are read.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How HTTP/2 begins where it was not negotiated. No method of HTTP/1.1 begins like it.
const HTTP2_PREFACE: &[u8; 3] = b"PRI";
/// How a request for a tunnel begins, and no other that is served.
const TUNNEL: &[u8; 3] = b"CON";
/// Between two looks at a connection that has sent one or two bytes only.
const SNIFF_RETRY: Duration = Duration::from_millis(5);

/// What a connection's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tls,
    /// `CONNECT`, for a tunnel.
    Connect,
    Http1,
    Http2,
}

impl Protocol {
    /// `None`: too few bytes to tell.
    fn of(start: &[u8]) -> Option<Self> {
        match start {
            [] => None,
            [TLS_HANDSHAKE, ..] => Some(Self::Tls),
            _ if start.starts_with(HTTP2_PREFACE) => Some(Self::Http2),
            _ if start.starts_with(TUNNEL) => Some(Self::Connect),
            _ if HTTP2_PREFACE.starts_with(start) || TUNNEL.starts_with(start) => None,
            _ => Some(Self::Http1),
        }
    }
}

pub(super) async fn serve(worker: Arc<Worker>, stream: TcpStream, address: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "the caller is gone already");
    }
    let handshake_timeout = worker.options.handshake_timeout;
    let protocol = tokio::select! {
        protocol = tokio::time::timeout(handshake_timeout, sniff(&stream)) => protocol,
        // Nothing was asked on it yet.
        () = worker.closing.cancelled() => return,
    };
    let Ok(local) = stream.local_addr() else { return };
    let plain = Peer { address, scheme: Scheme::HTTP, local, as_fal: false };
    match protocol {
        Ok(Ok(Protocol::Connect)) => serve_tunnel(worker, stream, plain).await,
        Ok(Ok(Protocol::Http1)) => serve_http1(worker, TokioIo::new(stream), plain.into()).await,
        Ok(Ok(Protocol::Http2)) => serve_http2(worker, TokioIo::new(stream), plain.into()).await,
        Ok(Ok(Protocol::Tls)) => serve_tls(worker, stream, plain).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection closed before it said anything"),
        Err(_) => tracing::debug!("a connection said nothing for too long"),
    }
}

async fn sniff(stream: &TcpStream) -> io::Result<Protocol> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = Protocol::of(&start[..length]) {
            return Ok(protocol);
        }
        // Peeking does not consume, so the socket stays readable: only time brings more bytes.
        tokio::time::sleep(SNIFF_RETRY).await;
    }
}

async fn serve_tunnel(worker: Arc<Worker>, mut stream: TcpStream, peer: Peer) {
    let opening = open_tunnel(&mut stream);
    match tokio::time::timeout(worker.options.handshake_timeout, opening).await {
        Ok(Ok(true)) => serve_tls(worker, stream, Peer { as_fal: true, ..peer }).await,
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a tunnel was not opened"),
        Err(_) => tracing::debug!("the request for a tunnel took too long"),
    }
}

async fn serve_tls(worker: Arc<Worker>, stream: TcpStream, peer: Peer) {
    let Some(config) = worker.tls.clone() else {
        return tracing::debug!("a caller wants TLS, which is off");
    };
    let accept = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(worker.options.handshake_timeout, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let peer = Arc::new(Peer { scheme: Scheme::HTTPS, ..peer });
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(worker, TokioIo::new(stream), peer).await;
    } else {
        serve_http1(worker, TokioIo::new(stream), peer).await;
    }
}

async fn serve_http1<I>(worker: Arc<Worker>, stream: I, peer: Arc<Peer>)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let exchanges = Arc::<Exchanges>::default();
    let idle_timeout = worker.options.idle_timeout;
    let mut ending = ending(worker.closing.clone(), exchanges.clone(), idle_timeout);
    let service = {
        let worker = worker.clone();
        service_fn(move |request| {
            let exchange = OpenExchange::begin(&exchanges);
            let answer = dispatch(worker.clone(), peer.clone(), request);
            async move { answer.await.map(|answer| answer.map(|body| body.ends(exchange))) }
        })
    };
    let connection = http1::Builder::new()
        // How long a head may take is a part of how long a connection may be idle.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        // Beyond our own limit, so that a block over it gets an answer of ours.
        .max_header_size(worker.options.header_bytes_max.saturating_mul(2))
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        ending = &mut ending => match ending {
            Ending::Closing => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            Ending::Idle => return tracing::debug!("a connection was idle for too long"),
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn serve_http2<I>(worker: Arc<Worker>, stream: I, peer: Arc<Peer>)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let closing = worker.closing.clone();
    let service = {
        let worker = worker.clone();
        service_fn(move |request| dispatch(worker.clone(), peer.clone(), request))
    };
    let header_bytes_max = worker.options.header_bytes_max.saturating_mul(2);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(worker.options.idle_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
        .serve_connection(stream, service);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        let cases: [(&[u8], Option<Protocol>); 14] = [
            (b"", None),
            (b"P", None),
            (b"PR", None),
            (b"PRI", Some(Protocol::Http2)),
            (b"PO", Some(Protocol::Http1)),
            (b"PUT", Some(Protocol::Http1)),
            (b"G", Some(Protocol::Http1)),
            (b"C", None),
            (b"CO", None),
            (b"COP", Some(Protocol::Http1)),
            (b"CON", Some(Protocol::Connect)),
            (b"\x16", Some(Protocol::Tls)),
            (b"\x16\x03\x01", Some(Protocol::Tls)),
            (b"\x00\x01", Some(Protocol::Http1)),
        ];
        for (start, expected) in cases {
            assert_eq!(Protocol::of(start), expected, "{start:?}");
        }
    }
}
