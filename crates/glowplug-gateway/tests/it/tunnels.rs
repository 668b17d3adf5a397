//! `CONNECT`, as callers use it that take the gateway for their proxy.

use std::sync::Arc;

use bytes::Bytes;
use glowplug_gateway::host::Access;
use glowplug_gateway::{Gateway, LocalAuthority, Options};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::raw;
use crate::host::{Plan, START_SECONDS, TableHost, bind};
use crate::protocols::{over_http2, tls_on};
use crate::upstream::Upstream;
use crate::wait::bounded;

const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

struct Scene {
    host: Arc<TableHost>,
    authority: Arc<LocalAuthority>,
    gateway: Gateway,
    _upstream: Upstream,
    _folder: tempfile::TempDir,
}

async fn scene() -> Scene {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let folder = tempfile::tempdir().unwrap();
    let now = glowplug_core::Timestamp::from_secs(START_SECONDS);
    let authority = Arc::new(LocalAuthority::open(folder.path(), now).unwrap());
    let gateway = bind(&host, Options::default(), Some(&authority));
    Scene { host, authority, gateway, _upstream: upstream, _folder: folder }
}

/// A tunnel to `host`, with TLS in it.
async fn tunnel(scene: &Scene, host: &str, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut stream = TcpStream::connect(scene.gateway.address()).await.unwrap();
    // In two pieces, since nothing says that a head comes in one.
    stream.write_all(b"CONN").await.unwrap();
    let rest = format!("ECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = [0; OPEN.len()];
    bounded("the tunnel", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *OPEN);
    tls_on(stream, &scene.host, &scene.authority, host, alpn).await.unwrap()
}

/// Asks through a tunnel to `to` for `path` of `named`.
async fn ask(scene: &Scene, to: &str, named: &str, path: &str) -> (u16, String) {
    let stream = tunnel(scene, to, &[]).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(path).header("host", named).body(Full::<Bytes>::default());
    let response = bounded("an answer", sender.send_request(request.unwrap())).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn the_host_chooses_the_route() {
    let scene = scene().await;
    for (host, path, status, said) in [
        ("fal.run", "/me/app/x", 200, "/x"),
        ("falrun.com", "/me/app/x", 200, "/x"),
        ("queue.fal.run", "/me/app", 200, "https://queue.fal.run/me/app/requests/"),
        ("rest.fal.ai", "/.well-known/jwks.json", 200, "fallback POST /.well-known/jwks.json"),
        ("rest.fal.ai", "/api/v1/keys", 404, "`/api/v1/keys`"),
        ("rest.fal.ai", "/run/me/app", 404, "`/run/me/app`"),
        ("rest.fal.ai", "/proxy", 404, "`/proxy`"),
        ("v3.fal.media", "/run/me/app", 404, "`/run/me/app`"),
        ("v3.fal.media", "/files/upload", 404, "keeps no files"),
        ("ws.fal.run", "/me/app", 400, "Upgrade"),
    ] {
        let (got, body) = ask(&scene, host, host, path).await;
        assert_eq!(got, status, "{host}{path}: {body}");
        assert!(body.contains(said), "{host}{path}: {body}");
    }
    let (status, body) = ask(&scene, "fal.run", "queue.fal.run:443", "/me/app").await;
    assert!(status == 200 && body.contains("request_id"), "{body}");
    for foreign in ["evil.test", "fal.run:80", "127.0.0.1", "fal.run.evil.test"] {
        let (status, body) = ask(&scene, "fal.run", foreign, "/me/app").await;
        assert_eq!(status, 403, "{foreign}: {body}");
    }
}

#[tokio::test]
async fn http2_names_the_host_in_another_place() {
    let scene = scene().await;
    let stream = tunnel(&scene, "queue.fal.run", &[b"h2"]).await;
    let submit = Request::post("https://queue.fal.run/me/app").body(Full::default()).unwrap();
    let (status, body) = over_http2(stream, submit).await;
    assert_eq!(status, 200, "{body}");
    let url = body["response_url"].as_str().unwrap();
    assert!(url.starts_with("https://queue.fal.run/me/app/requests/"), "{url}");
}

#[tokio::test]
async fn a_tunnel_leads_nowhere_else() {
    let scene = scene().await;
    let long = format!("CONNECT fal.run:443 HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9_000));
    for (head, expected) in [
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", "403 Forbidden"),
        ("CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n", "403 Forbidden"),
        ("CONNECT fal.run:80 HTTP/1.1\r\n\r\n", "403 Forbidden"),
        ("CONNECT fal.run:443 HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET / HTTP/1.1", "400 Bad"),
        ("CONNECT fal.run:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "400 Bad"),
        ("CONNECTED /run/me/app HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (long.as_str(), "431 Request Header Fields Too Large"),
    ] {
        let answer = raw(scene.gateway.address(), head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{head}: {answer}");
        assert!(answer.contains("\"error_type\""), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(scene.host.arrivals.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn what_follows_must_be_tls() {
    let scene = scene().await;
    let smuggled =
        b"CONNECT fal.run:443 HTTP/1.1\r\n\r\nPOST /run/me/app HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = raw(scene.gateway.address(), smuggled).await;
    let after = answer.strip_prefix(std::str::from_utf8(OPEN).unwrap()).unwrap();
    assert!(!after.contains("HTTP/1.1"), "{answer}");
    assert_eq!(scene.host.arrivals.lock().unwrap().len(), 0);
}
