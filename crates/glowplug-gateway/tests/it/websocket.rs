//! Websockets through the gateway, against a real app and a real library.

mod calls;
mod endings;
mod hostile;
mod many;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::SinkExt;
use glowplug_core::request::Outcome;
use glowplug_gateway::host::Access;
use glowplug_gateway::token::{Claims, Grant, TokenKey};
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::client::{ask_json, get, send, with};
use crate::host::{KEY, KEY_ID, Plan, START_SECONDS, TableHost, gateway};
use crate::socket::{FIELDS, closed, hear, hear_text, open, say};
use crate::stage::{answered, outcome, stage};
use crate::table_files::TableFiles;
use crate::upstream::{self, Upstream};
use crate::wait::{bounded, until};

#[tokio::test]
async fn messages_pass_both_ways_until_the_caller_closes() {
    let stage = stage().await;
    let paths = ["/run/me/app/socket", "/run/me/app/realtime", "/ws/me/app/realtime"];
    for (round, path) in paths.into_iter().enumerate() {
        let mut socket = open(stage.gateway.address(), path).await;
        say(&mut socket, "hello").await;
        assert_eq!(hear_text(&mut socket).await, "hello");
        let large = Message::binary(vec![7; 3_000_000]);
        let (sent, heard) = futures::join!(socket.send(large.clone()), std::future::ready(()));
        sent.unwrap();
        let () = heard;
        assert_eq!(hear(&mut socket).await, large);
        assert_eq!(stage.host.outcomes().len(), round, "the slot is held while the socket is open");
        bounded("the close", socket.close(None)).await.unwrap();
        assert_eq!(hear(&mut socket).await, Message::Close(None));
        until("the outcome", || (stage.host.outcomes().len() == round + 1).then_some(())).await;
    }
    assert_eq!(stage.host.outcomes(), [answered(101), answered(101), answered(101)]);
}

#[tokio::test]
async fn the_app_may_close_too() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/run/me/app/realtime").await;
    say(&mut socket, "leave").await;
    assert_eq!(hear(&mut socket).await, Message::Close(None));
    // The library answers the close when it is asked for more.
    assert!(bounded("the end", futures::StreamExt::next(&mut socket)).await.is_none());
    assert_eq!(outcome(&stage.host).await, answered(101));
}

#[tokio::test]
async fn a_caller_that_vanishes_is_seen_by_the_app() {
    let stage = stage().await;
    let socket = open(stage.gateway.address(), "/run/me/app/realtime").await;
    drop(socket);
    assert_eq!(outcome(&stage.host).await, answered(101));
    let seen = &stage.upstream.seen;
    until("the app to notice", || (seen.dropped.load(Ordering::SeqCst) == 1).then_some(())).await;
}

#[tokio::test]
async fn what_is_not_a_websocket_is_answered() {
    let host = Arc::new(TableHost::default());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    host.add("me/none", Access::Public, Plan::Now(upstream::nobody()));
    let gateway = gateway(&host);
    let address = gateway.address();
    for path in ["/ws/me/app/socket", "/ws/me/app/realtime"] {
        let (status, _, body) = ask_json(address, get(path)).await;
        assert_eq!((status, body["error_type"].as_str()), (400, Some("bad_request")));
    }
    for path in ["/ws/me/app", "/ws/me/app/realtime", "/run/me/app/realtime"] {
        let (status, _, _) = ask_json(address, with(get(path), &FIELDS)).await;
        assert_eq!(status, 401, "{path}");
    }
    let (status, _, body) = ask_json(address, with(get("/run/me/none"), &FIELDS)).await;
    assert_eq!((status, body["error_type"].as_str()), (503, Some("runner_connection_refused")));

    // The app answers without an upgrade; a token in the query stands in for the header.
    let token = KEY.replace(':', "%3A");
    let path = format!("/run/me/app/plain?a=1&fal_jwt_token={token}");
    let (status, _, body) = ask_json(address, with(get(&path), &FIELDS)).await;
    assert_eq!((status, body["method"].as_str()), (200, Some("GET")));
    assert_eq!(body["uri"], "/plain?a=1", "the app does not see the token");
    let headers = body["headers"].to_string();
    assert!(headers.contains("upgrade: websocket") && headers.contains("connection: upgrade"));
    assert_eq!(host.outcomes(), [Outcome::ConnectFailed, answered(200)]);
}

#[tokio::test]
async fn max_buffering_is_read() {
    let stage = stage().await;
    let address = stage.gateway.address();
    for value in ["0", "61", "x", ""] {
        let path = format!("/run/me/app/realtime?max_buffering={value}");
        let (status, _, body) = ask_json(address, with(get(&path), &FIELDS)).await;
        assert_eq!((status, body["error_type"].as_str()), (400, Some("bad_request")), "{value}");
        assert!(body["detail"].as_str().unwrap().contains("from 1 to 60"), "{body}");
    }
    let offer = [&FIELDS[..], &[("sec-websocket-extensions", "permessage-deflate")]].concat();
    for (query, expected) in [("", "true"), ("?max_buffering=2", "false")] {
        let path = format!("/run/me/app/realtime{query}");
        let response = send(address, with(get(&path), &offer)).await;
        let upgraded = bounded("the upgrade", hyper::upgrade::on(response)).await.unwrap();
        let upgraded = hyper_util::rt::TokioIo::new(upgraded);
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        let mut socket =
            tokio_tungstenite::WebSocketStream::from_raw_socket(upgraded, role, None).await;
        say(&mut socket, "offered").await;
        assert_eq!(hear_text(&mut socket).await, expected, "messages of their own can be dropped");
        say(&mut socket, "query").await;
        assert_eq!(hear_text(&mut socket).await, query.trim_start_matches('?'));
    }
}

#[tokio::test]
async fn other_upgrades_are_offers_that_are_ignored() {
    let stage = stage().await;
    let offer =
        [("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "x")];
    let response = send(stage.gateway.address(), with(get("/run/me/app/x"), &offer)).await;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&body).contains("upgrade"));
}

#[tokio::test]
async fn pings_and_pongs_pass() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/run/me/app/socket").await;
    let ping = Message::Ping(Bytes::from_static(b"x"));
    bounded("it to be sent", socket.send(ping)).await.unwrap();
    let pong = bounded("a pong", futures::StreamExt::next(&mut socket)).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"x")));
    let close = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 4_000.into(),
        reason: "mine".into(),
    };
    bounded("the close", socket.close(Some(close))).await.unwrap();
    assert_eq!(closed(&mut socket).await, (4_000, "mine".to_owned()));
    assert!(stage.upstream.seen.uris.lock().unwrap().contains(&"closed 4000".to_owned()));
}

/// As with fal: both clients keep their sockets for longer than their tokens of two minutes.
#[tokio::test]
async fn a_token_that_runs_out_leaves_its_socket_open() {
    let key = TokenKey::open(&TokenKey::secret().unwrap()).unwrap();
    let grant = Grant::Apps { apps: vec!["app".to_owned()] };
    let expires_at = START_SECONDS + 120;
    let token = key.sign(&Claims { grant, caller: KEY_ID.to_owned(), expires_at });
    let mut host = TableHost::default();
    host.files = Some((TableFiles::default(), key));
    let host = Arc::new(host);
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let path = format!("/run/me/app/realtime?fal_jwt_token={token}");
    let mut socket = open(gateway.address(), &path).await;
    host.seconds_passed.store(121, Ordering::Relaxed);
    say(&mut socket, "hello").await;
    assert_eq!(hear_text(&mut socket).await, "hello");
    let (status, ..) = ask_json(gateway.address(), with(get(&path), &FIELDS)).await;
    assert_eq!(status, 401, "it opens no other");
}
