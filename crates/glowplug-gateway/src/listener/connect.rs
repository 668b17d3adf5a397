//! `CONNECT`: a caller that takes us for its proxy, and means one of fal's hosts by it.
//!
//! We answer that the tunnel is open, and go on as that host: the TLS that follows ends here, with a
//! certificate of the local authority. Nothing is ever forwarded; a tunnel to anywhere else is refused.
//!
//! The connection stays the one that was accepted, so it counts as one and has its limits: head and handshake
//! have `handshake_timeout` each.

use std::io;

use glowplug_api::ErrorType;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Collected};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::answer::Problem;
use crate::proxy::Service;

/// Bytes of the head of a `CONNECT`. Beyond it the tunnel is refused.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEAD_COUNT_MAX: usize = 64;
/// The only port of fal's hosts.
const PORT: &str = "443";
const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Reads the request for a tunnel and answers it. Says whether the tunnel is open: then the next byte on the
/// connection is the first of its TLS.
pub(super) async fn open_tunnel(stream: &mut TcpStream) -> io::Result<bool> {
    let wanted = head(stream).await?.map_or_else(too_long, |head| check(&head));
    match wanted {
        Ok(()) => {
            stream.write_all(OPEN).await?;
            Ok(true)
        }
        Err(problem) => {
            stream.write_all(&refusal(&problem).await).await?;
            stream.shutdown().await?;
            Ok(false)
        }
    }
}

fn too_long() -> Result<(), Problem> {
    let detail = format!("the head of a CONNECT may have at most {HEAD_BYTES_MAX} bytes");
    Err(Problem::new(ErrorType::HeadersTooLarge, detail))
}

/// Reads to the end of the head and not further. `None`: it does not end.
async fn head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let had = head.len();
        head.resize(HEAD_BYTES_MAX, 0);
        let seen = had + stream.peek(&mut head[had..]).await?;
        if seen == had {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = head[..seen].windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END);
        let end = end.map(|at| at + HEAD_END.len());
        let taken = end.unwrap_or(seen);
        stream.read_exact(&mut head[had..taken]).await?;
        head.truncate(taken);
        if end.is_some() {
            return Ok(Some(head));
        }
        if taken == HEAD_BYTES_MAX {
            return Ok(None);
        }
    }
}

fn check(head: &[u8]) -> Result<(), Problem> {
    let malformed = |detail: &str| Problem::new(ErrorType::BadRequest, detail);
    let mut fields = [httparse::EMPTY_HEADER; HEAD_COUNT_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head).is_ok_and(|status| status.is_complete());
    let target = request.path.filter(|_| parsed && request.method == Some("CONNECT"));
    let target = target.ok_or_else(|| malformed("that is no CONNECT"))?;
    // Bytes that one of us takes for a body and the other for what comes after it are how requests are
    // smuggled.
    let is_framing = |name: &str| {
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
            .iter()
            .any(|framing| name.eq_ignore_ascii_case(framing.as_str()))
    };
    if request.headers.iter().any(|field| is_framing(field.name)) {
        return Err(malformed("a CONNECT has no body"));
    }
    let host = target.rsplit_once(':').filter(|(_, port)| *port == PORT).map(|(host, _)| host);
    if host.is_some_and(|host| Service::of(&host.to_ascii_lowercase()).is_some()) {
        return Ok(());
    }
    let shown: String = target.chars().take(100).collect();
    let detail = format!(
        "this is no way to `{shown}`: it leads to fal's hosts alone; name the others in NO_PROXY"
    );
    Err(Problem::new(ErrorType::Forbidden, detail))
}

/// An answer as it is on the wire, after which the connection closes.
async fn refusal(problem: &Problem) -> Vec<u8> {
    let (parts, body) = problem.answer().into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).into_bytes();
    for (name, value) in &parts.headers {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).bytes());
    answer.extend(body);
    debug_assert!(parts.status != StatusCode::OK, "an open tunnel is not refused");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fals_hosts_are_reached() {
        let check = |head: &str| check(head.as_bytes()).map_err(|problem| problem.kind);
        let connect = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        for target in ["fal.run:443", "QUEUE.fal.run:443", "v3.fal.media:443", "rest.fal.ai:443"] {
            assert_eq!(check(&connect(target)), Ok(()), "{target}");
        }
        for target in [
            "fal.run:80",
            "fal.run",
            "fal.run:443:443",
            "evil.test:443",
            "fal.run.evil.test:443",
            "x@fal.run:443",
            "127.0.0.1:443",
            "169.254.169.254:443",
            "[::1]:443",
            ":443",
            "/",
            "https://fal.run:443/",
        ] {
            assert_eq!(check(&connect(target)), Err(ErrorType::Forbidden), "{target}");
        }
        for head in [
            "CONNECT fal.run:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
            "CONNECT fal.run:443 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            "CONNECT fal.run:443\r\n\r\n",
            "CONTROL fal.run:443 HTTP/1.1\r\n\r\n",
            "CONNECT  HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(check(head), Err(ErrorType::BadRequest), "{head}");
        }
    }
}
