//! Limits of connections, and how a gateway ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use glowplug_core::request::{Answer, Outcome};
use glowplug_gateway::host::{Access, Host};
use glowplug_gateway::{BindError, Body, Fallback, Gateway, Options};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{ask, ask_json, get, raw, send};
use crate::host::{Plan, TableHost, gateway, gateway_with};
use crate::upstream::Upstream;
use crate::wait::{bounded, until};

async fn closes(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A reset is as good an end as any here.
    let _ = bounded("the connection to close", stream.read_to_end(&mut rest)).await;
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn slow_and_silent_connections_are_closed() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let short = Duration::from_millis(60);
    let options = Options { handshake_timeout: short, idle_timeout: short, ..Options::default() };
    let gateway = gateway_with(&host, options);
    let starts: [&[u8]; 4] =
        [b"", b"PR", b"GET /run/me/app HTTP/1.1\r\nhost: a\r\nx-slow", b"\x16\x03"];
    for start in starts {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(start).await.unwrap();
        closes(&mut stream).await;
    }
    let mut idle = TcpStream::connect(gateway.address()).await.unwrap();
    idle.write_all(b"GET /run/me/app HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(closes(&mut idle).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn nonsense_gets_an_answer_or_a_close() {
    let host = Arc::new(TableHost::open());
    let gateway = gateway(&host);
    let many = "x-many: v\r\n".repeat(200);
    let cases = [
        ("\r\n\r\nnonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("GET /run/me/app HTTP/1.1\r\ncontent-length: x\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), "HTTP/1.1 431"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(300_000)), ""),
        ("PRI nonsense".to_owned() + &"x".repeat(100), ""),
        ("\u{1}\u{2}\u{3}".repeat(50), ""),
    ];
    for (bytes, expected) in cases {
        let answer = raw(gateway.address(), bytes.as_bytes()).await;
        assert!(answer.starts_with(expected), "{answer} to {bytes:.60}");
    }
    let (status, _, _) = ask(gateway.address(), get("/elsewhere")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let host = Arc::new(TableHost::open());
    let gateway = gateway_with(&host, Options { connections_max: 2, ..Options::default() });
    let address = gateway.address();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        bounded("an answer", stream.read_exact(&mut answer)).await.unwrap();
        held.push(stream);
    }
    let third = tokio::spawn(async move { ask(address, get("/b")).await });
    // Two more round trips on the held connections: the third had every chance to be served.
    for stream in &mut held {
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 64];
        bounded("an answer", stream.read(&mut answer)).await.unwrap();
    }
    assert!(!third.is_finished());
    held.pop();
    assert_eq!(bounded("the third", third).await.unwrap().0, 200);
}

#[tokio::test]
async fn shutdown_lets_what_runs_finish_and_refuses_the_rest() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let address = gateway.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let running = tokio::spawn(async move { ask(address, get("/run/me/app/hang")).await });
    let seen = &upstream.seen;
    until("the app to be asked", || (seen.requests.load(Ordering::SeqCst) == 1).then_some(()))
        .await;
    let shutdown = tokio::spawn(gateway.shutdown(Duration::from_mins(1)));
    closes(&mut idle).await;
    bounded("the port to close", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!shutdown.is_finished());
    seen.go_on.notify_one();
    let (status, _, body) = bounded("the answer", running).await.unwrap();
    assert_eq!((status, &body[..]), (200, &b"at last"[..]));
    bounded("the shutdown", shutdown).await.unwrap();
    assert_eq!(host.outcomes(), [Outcome::Answered(Answer { status: 200, ..Answer::default() })]);
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_finish() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    host.add("me/waits", Access::Private, Plan::Wait);
    let gateway = gateway(&host);
    let address = gateway.address();
    let mut stream = send(address, get("/run/me/app/events")).await;
    stream.frame().await.unwrap().unwrap();
    let waiting = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /run/me/waits HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        closes(&mut stream).await
    });
    until("it to wait", || (!host.waiting.lock().unwrap().is_empty()).then_some(())).await;
    bounded("the shutdown", gateway.shutdown(Duration::from_millis(50))).await;
    assert!(bounded("the cut", stream.frame()).await.unwrap().is_err());
    assert_eq!(waiting.await.unwrap(), "");
    assert_eq!(host.outcomes(), [Outcome::CallerGone]);
    assert_eq!(host.abandoned.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let host = Arc::new(TableHost::open());
    let first = gateway(&host);
    let host: Arc<dyn Host> = host;
    let fallback: Fallback = Arc::new(|_| Box::pin(async { http::Response::new(Body::empty()) }));
    let error = Gateway::bind(first.address(), &host, &Options::default(), None, &fallback);
    let error = error.unwrap_err();
    assert!(matches!(error, BindError::Listen { .. }));
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
}

#[tokio::test]
async fn a_panicking_fallback_harms_only_its_own_connection() {
    let host: Arc<dyn Host> = Arc::new(TableHost::open());
    let fallback: Fallback = Arc::new(|request| {
        Box::pin(async move {
            assert_ne!(request.uri().path(), "/panic", "as asked");
            http::Response::new(Body::full("{}"))
        })
    });
    let options = Options { workers: 1, ..Options::default() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let gateway = Gateway::bind(listen, &host, &options, None, &fallback).unwrap();
    assert_eq!(raw(gateway.address(), b"GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    assert_eq!(ask_json(gateway.address(), get("/fine")).await.0, 200);
}
