//! `/run`: bodies that are carried while they are made, both ways.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::client::{ask, get, post, raw, send};
use crate::stage::{answered, outcome, stage};
use crate::wait::{bounded, until};

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const BYTES: usize = 48 * 1024 * 1024;
    let stage = stage().await;
    let pieces = stream::iter(0..BYTES / 65_536)
        .map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'y'; 65_536]))));
    let request = Request::post("/run/me/app/upload").body(StreamBody::new(pieces)).unwrap();
    let response = send(stage.gateway.address(), request).await;
    let body = bounded("the count", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, BYTES.to_string());

    let (status, _, body) =
        ask(stage.gateway.address(), get("/run/me/app/big?chunks=768&bytes=65536")).await;
    assert_eq!((status, body.len()), (200, BYTES));
    assert_eq!(stage.host.outcomes().len(), 2);
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_app_back() {
    let stage = stage().await;
    let made = &stage.upstream.seen.bytes_made;
    let path = "/run/me/app/big?chunks=4096&bytes=65536";
    let mut response = send(stage.gateway.address(), get(path)).await;
    response.frame().await.unwrap().unwrap();
    // The buffers on the way fill up, then nothing moves: the same count twice in a row.
    let mut before = usize::MAX;
    let held = until("the app to be held back", || {
        let now = made.load(Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(50));
        (std::mem::replace(&mut before, now) == now).then_some(now)
    });
    let held = held.await;
    assert!(held < 64 * 1024 * 1024, "{held} bytes were made for a caller that reads nothing");
    let rest = bounded("the rest", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(made.load(Ordering::SeqCst), 4_096 * 65_536);
    assert!(rest.len() > held / 2);
}

#[tokio::test]
async fn a_runner_may_answer_while_it_still_reads() {
    let stage = stage().await;
    let (pieces, body) = tokio::sync::mpsc::channel(1);
    let body = tokio_stream::wrappers::ReceiverStream::new(body)
        .map(|piece: &'static str| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
    let request = Request::post("/run/me/app/duplex").body(StreamBody::new(body)).unwrap();
    pieces.send("one").await.unwrap();
    let mut response = send(stage.gateway.address(), request).await;
    for piece in ["one", "two", "three"] {
        if piece != "one" {
            pieces.send(piece).await.unwrap();
        }
        let frame = bounded("the echo", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(pieces);
    assert!(bounded("the end", response.frame()).await.is_none());
    assert_eq!(outcome(&stage.host).await, answered(200));
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let stage = stage().await;
    let mut response = send(stage.gateway.address(), post("/run/me/app/events", "{}")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = bounded("the first event", response.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: {\"n\":0}\n\n");
    assert!(stage.host.outcomes().is_empty());
    stage.upstream.seen.go_on.notify_one();
    let second = bounded("the second event", response.frame()).await.unwrap().unwrap();
    assert_eq!(second.into_data().unwrap(), "data: {\"n\":1}\n\n");
    assert!(bounded("the end", response.frame()).await.is_none());
    assert_eq!(outcome(&stage.host).await, answered(200));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let stage = stage().await;
    let mut sum = http::HeaderMap::new();
    sum.insert("x-sum", "42".parse().unwrap());
    let frames =
        [Ok::<_, std::io::Error>(Frame::data(Bytes::from("data"))), Ok(Frame::trailers(sum))];
    let request = Request::post("/run/me/app/trailers")
        .header("trailer", "x-sum")
        .header("te", "trailers")
        .body(StreamBody::new(stream::iter(frames)))
        .unwrap();
    let response = send(stage.gateway.address(), request).await;
    let collected = bounded("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test]
async fn a_caller_that_expects_it_is_told_to_continue() {
    let stage = stage().await;
    let request = "POST /run/me/app HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\
                   connection: close\r\ncontent-length: 2\r\n\r\nhi";
    let answer = raw(stage.gateway.address(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("expect:"), "{answer}");
}

#[tokio::test]
async fn an_app_may_answer_before_it_has_read_the_request() {
    let stage = stage().await;
    let never = stream::once(async { Ok(Frame::data(Bytes::from("first of many"))) })
        .chain(stream::pending::<Result<_, std::io::Error>>());
    let request = Request::post("/run/me/app/early").body(StreamBody::new(never)).unwrap();
    let response = send(stage.gateway.address(), request).await;
    assert_eq!(response.status(), 200);
    let body = bounded("the body", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "early");
    assert_eq!(outcome(&stage.host).await, answered(200));
    // The connection that was in the middle of a request is not used again.
    assert_eq!(ask(stage.gateway.address(), get("/run/me/app/early")).await.0, 200);
    assert_eq!(stage.upstream.connections(), 2);
}
