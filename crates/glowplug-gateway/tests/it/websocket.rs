//! Upgrades: bytes both ways, and what the host is told.

use std::net::SocketAddr;
use std::sync::Arc;

use glowplug_core::request::{Answer, Outcome, Refusal};
use glowplug_gateway::host::Access;
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{ask_json, get, send, with};
use crate::host::{KEY, Plan, TableHost, gateway};
use crate::upstream::{self, Upstream};
use crate::wait::{bounded, until};

const FIELDS: [(&str, &str); 3] =
    [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-key", "x")];

async fn open(address: SocketAddr, path: &str) -> TokioIo<Upgraded> {
    let response = send(address, with(get(path), &FIELDS)).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["sec-websocket-accept"], "abc");
    assert_eq!(response.headers()["x-fal-request-id"].len(), 36);
    TokioIo::new(bounded("the upgrade", hyper::upgrade::on(response)).await.unwrap())
}

async fn echo(socket: &mut TokioIo<Upgraded>, bytes: &[u8]) {
    socket.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    bounded("the echo", socket.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, bytes);
}

#[tokio::test]
async fn bytes_pass_both_ways_until_the_caller_closes() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    for (round, path) in ["/ws/me/app/websocket", "/run/me/app/websocket"].into_iter().enumerate() {
        let mut socket = open(gateway.address(), path).await;
        echo(&mut socket, b"hello").await;
        echo(&mut socket, &vec![7; 300_000]).await;
        assert_eq!(host.outcomes().len(), round, "the slot is held while the socket is open");
        socket.shutdown().await.unwrap();
        let mut rest = Vec::new();
        bounded("the other side to close", socket.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
        until("the outcome", || (host.outcomes().len() == round + 1).then_some(())).await;
    }
    let closed = Outcome::Answered(Answer { status: 101, ..Answer::default() });
    assert_eq!(host.outcomes(), [closed.clone(), closed]);
}

#[tokio::test]
async fn a_withdrawn_socket_is_cut() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Revocable(upstream.address.clone()));
    let gateway = gateway(&host);
    let mut socket = open(gateway.address(), "/ws/me/app/websocket").await;
    echo(&mut socket, b"hello").await;
    host.revoke(&Refusal::RequestTimeout { seconds: 1 });
    let mut rest = Vec::new();
    bounded("the cut", socket.read_to_end(&mut rest)).await.unwrap();
    until("the outcome", || host.outcomes().pop()).await;
    assert_eq!(host.outcomes(), [Outcome::Disconnected]);
}

#[tokio::test]
async fn what_is_not_a_websocket_is_answered() {
    let host = Arc::new(TableHost::default());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    host.add("me/none", Access::Public, Plan::Now(upstream::nobody()));
    let gateway = gateway(&host);
    let address = gateway.address();
    let (status, _, body) = ask_json(address, get("/ws/me/app/websocket")).await;
    assert_eq!((status, body["error_type"].as_str()), (400, Some("bad_request")));
    let (status, _, _) = ask_json(address, with(get("/ws/me/app/websocket"), &FIELDS)).await;
    assert_eq!(status, 401);
    let (status, _, body) = ask_json(address, with(get("/ws/me/none"), &FIELDS)).await;
    assert_eq!((status, body["error_type"].as_str()), (503, Some("runner_connection_refused")));

    // The app answers without an upgrade; a token in the query stands in for the header.
    let token = KEY.replace(':', "%3A");
    let path = format!("/ws/me/app/plain?fal_jwt_token={token}");
    let (status, _, body) = ask_json(address, with(get(&path), &FIELDS)).await;
    assert_eq!((status, body["method"].as_str()), (200, Some("GET")));
    let headers = body["headers"].to_string();
    assert!(headers.contains("upgrade: websocket") && headers.contains("connection: upgrade"));
    let answered = Outcome::Answered(Answer { status: 200, ..Answer::default() });
    assert_eq!(host.outcomes(), [Outcome::ConnectFailed, answered]);
}

#[tokio::test]
async fn other_upgrades_are_offers_that_are_ignored() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let offer =
        [("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "x")];
    let response = send(gateway.address(), with(get("/run/me/app/x"), &offer)).await;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&body).contains("upgrade"));
}
