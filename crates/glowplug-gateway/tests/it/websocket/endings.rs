//! What ends a socket that neither side closes, and what both sides hear of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::request::{Outcome, Refusal};
use glowplug_gateway::Options;
use glowplug_gateway::host::Access;
use glowplug_gateway::options::SocketOptions;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::client::{ask_json, get, with};
use crate::host::{Plan, START_SECONDS, TableHost, gateway_with};
use crate::socket::{FIELDS, closed, hear, hear_text, open, say, told};
use crate::stage::{answered, assert_problem, outcome};
use crate::upstream::Upstream;
use crate::wait::{bounded, until};

const SHORT: Duration = Duration::from_millis(100);

struct Scene {
    host: Arc<TableHost>,
    upstream: Upstream,
    gateway: glowplug_gateway::Gateway,
}

async fn scene(sockets: SocketOptions) -> Scene {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Revocable(upstream.address.clone()));
    let gateway = gateway_with(&host, Options { sockets, ..Options::default() });
    Scene { host, upstream, gateway }
}

impl Scene {
    async fn app_saw(&self, close: &str) {
        let uris = &self.upstream.seen.uris;
        until("the app to be told", || {
            uris.lock().unwrap().iter().any(|seen| seen == close).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_overrunning_socket_is_told_and_closed() {
    let scene = scene(SocketOptions::default()).await;
    let mut socket = open(scene.gateway.address(), "/run/me/app/realtime").await;
    say(&mut socket, "hello").await;
    assert_eq!(hear_text(&mut socket).await, "hello");
    scene.host.revoke(&Refusal::RequestTimeout { seconds: 1 });
    assert_eq!(told(&mut socket).await, ("REQUEST_TIMEOUT".to_owned(), 1008));
    assert_eq!(outcome(&scene.host).await, Outcome::Disconnected);
    scene.app_saw("closed 1008").await;

    // An app that does not speak realtime is only closed: no text comes in between.
    let mut socket = open(scene.gateway.address(), "/run/me/app/socket").await;
    scene.host.revoke(&Refusal::RequestTimeout { seconds: 1 });
    let (code, reason) = closed(&mut socket).await;
    assert_eq!(code, 1008);
    assert!(reason.contains("request_timeout of 1 s"), "{reason}");
}

#[tokio::test]
async fn an_idle_socket_times_out() {
    let options = SocketOptions { idle_timeout: SHORT, ..SocketOptions::default() };
    let scene = scene(options).await;
    let mut socket = open(scene.gateway.address(), "/run/me/app/realtime").await;
    assert_eq!(told(&mut socket).await, ("TIMEOUT".to_owned(), 1000));
    assert_eq!(outcome(&scene.host).await, answered(101));
    scene.app_saw("closed 1000").await;
}

#[tokio::test]
async fn a_dead_app_is_told() {
    let scene = scene(SocketOptions::default()).await;
    let mut socket = open(scene.gateway.address(), "/run/me/app/realtime").await;
    say(&mut socket, "die").await;
    assert_eq!(told(&mut socket).await, ("RUNNER_DISCONNECTED".to_owned(), 1011));
    assert_eq!(outcome(&scene.host).await, answered(502), "the runner is looked at");
}

#[tokio::test]
async fn a_silent_caller_is_pinged_and_given_up() {
    let options = SocketOptions {
        ping_interval: SHORT,
        pong_timeout: 20 * SHORT,
        ..SocketOptions::default()
    };
    let scene = scene(options).await;
    let mut alive = open(scene.gateway.address(), "/run/me/app/realtime").await;
    let mut pings = 0;
    while pings < 5 {
        let message = bounded("a ping", futures::StreamExt::next(&mut alive)).await;
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
        pings += 1;
    }
    say(&mut alive, "hello").await;
    assert_eq!(hear_text(&mut alive).await, "hello");
    let _silent = open(scene.gateway.address(), "/run/me/app/realtime").await;
    assert_eq!(outcome(&scene.host).await, answered(101));
    let seen = &scene.upstream.seen;
    until("the app to notice", || (seen.dropped.load(Ordering::SeqCst) >= 1).then_some(())).await;
}

#[tokio::test]
async fn a_draining_runners_sockets_close_before_it_is_killed() {
    let scene = scene(SocketOptions::default()).await;
    let mut socket = open(scene.gateway.address(), "/run/me/app/realtime").await;
    say(&mut socket, "hello").await;
    assert_eq!(hear_text(&mut socket).await, "hello");
    scene.host.leave(Timestamp::from_secs(START_SECONDS + 1));
    assert_eq!(told(&mut socket).await, ("RUNNER_STOPPING".to_owned(), 1001));
    assert_eq!(outcome(&scene.host).await, answered(101));
    scene.app_saw("closed 1001").await;
}

#[tokio::test]
async fn a_gateway_that_shuts_down_closes_its_sockets() {
    let scene = scene(SocketOptions::default()).await;
    let address = scene.gateway.address();
    let mut socket = open(address, "/run/me/app/realtime").await;
    let mut idle = open(address, "/ws/me/app").await;
    say(&mut socket, "hello").await;
    assert_eq!(hear_text(&mut socket).await, "hello");
    let shutdown = tokio::spawn(scene.gateway.shutdown(Duration::from_secs(2)));
    assert_eq!(told(&mut socket).await, ("SHUTTING_DOWN".to_owned(), 1001));
    assert_eq!(closed(&mut idle).await.0, 1001, "it waits for nothing");
    drop((socket, idle));
    bounded("the shutdown", shutdown).await.unwrap();
    assert_eq!(scene.host.outcomes(), [answered(101)]);
}

#[tokio::test]
async fn sockets_beyond_the_limit_are_refused() {
    let options = SocketOptions { sockets_per_caller_max: 2, ..SocketOptions::default() };
    let scene = scene(options).await;
    let address = scene.gateway.address();
    let mut first = open(address, "/run/me/app/realtime").await;
    let _calls = open(address, "/ws/me/app").await;
    for path in ["/run/me/app/realtime", "/ws/me/app"] {
        let answer = ask_json(address, with(get(path), &FIELDS)).await;
        assert_problem(&answer, 429, "too_many_sockets");
    }
    bounded("the close", first.close(None)).await.unwrap();
    assert_eq!(hear(&mut first).await, Message::Close(None));
    assert_eq!(outcome(&scene.host).await, answered(101));
    open(address, "/ws/me/app").await;
}
