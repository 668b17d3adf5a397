//! Frames that nobody should send, and callers that do not read.

use std::sync::atomic::Ordering;

use futures::SinkExt;
use glowplug_gateway::Options;
use glowplug_gateway::options::SocketOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::client::{ask_json, post, with};
use crate::host::gateway_with;
use crate::socket::{FIELDS, FLOOD_BYTES, hear, hear_bytes, hear_text, open, open_raw, say};
use crate::stage::{answered, assert_problem, outcome, stage};
use crate::wait::{bounded, until};

/// A masked frame, the mask being zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// What comes before the connection closes.
async fn rest(socket: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = bounded("the close", socket.read_to_end(&mut rest)).await;
    rest
}

fn close_code(bytes: &[u8]) -> Option<u16> {
    let at = bytes.iter().rposition(|byte| *byte == 0x88)?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

#[tokio::test]
async fn forbidden_frames_close_the_socket() {
    let stage = stage().await;
    let too_large = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let cases: [(&str, Vec<u8>, u16); 7] = [
        ("unmasked", vec![0x81, 1, b'x'], 1002),
        ("an unknown kind", frame(0x83, b"x"), 1002),
        ("nothing to continue", frame(0x80, b"x"), 1002),
        ("a message in another", [frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002),
        ("a ping in pieces", frame(0x09, b"x"), 1002),
        ("a long ping", [&[0x89, 0xfe, 0, 200, 0, 0, 0, 0][..], &[0; 200]].concat(), 1002),
        ("endless", too_large, 1009),
    ];
    for path in ["/run/me/app/socket", "/ws/me/app"] {
        for (what, bytes, code) in &cases {
            let mut socket = open_raw(stage.gateway.address(), path).await;
            socket.write_all(bytes).await.unwrap();
            socket.shutdown().await.unwrap();
            let said = rest(&mut socket).await;
            assert_eq!(close_code(&said), Some(*code), "{path} {what}: {said:?}");
        }
    }
    until("all outcomes", || (stage.host.outcomes().len() == cases.len()).then_some(())).await;
    assert!(stage.host.outcomes().iter().all(|outcome| *outcome == answered(101)));
}

#[tokio::test]
async fn nothing_comes_before_the_first_frame() {
    let stage = stage().await;
    for path in ["/run/me/app/socket", "/run/me/app/realtime", "/ws/me/app"] {
        let mut request = with(post(path, frame(0x82, b"x")), &FIELDS);
        *request.method_mut() = http::Method::GET;
        let answer = ask_json(stage.gateway.address(), request).await;
        assert_problem(&answer, 400, "bad_request");
    }
    assert_eq!(stage.upstream.seen.requests.load(Ordering::SeqCst), 0, "the app heard nothing");
}

#[tokio::test]
async fn text_that_is_none_is_refused_by_whoever_reads_it() {
    let stage = stage().await;
    let mut socket = open_raw(stage.gateway.address(), "/ws/me/app").await;
    socket.write_all(&frame(0x81, b"\xff\xfe")).await.unwrap();
    assert_eq!(close_code(&rest(&mut socket).await), Some(1007));
    assert!(stage.host.outcomes().is_empty(), "no call was made");
}

#[tokio::test]
async fn fragments_pass_as_they_are() {
    let stage = stage().await;
    for path in ["/run/me/app/socket", "/run/me/app/realtime?max_buffering=2"] {
        let mut socket = open_raw(stage.gateway.address(), path).await;
        let pieces = [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x00, b""), frame(0x80, b"b")];
        // One byte at a time, a head is never whole.
        for byte in pieces.concat() {
            socket.write_all(&[byte]).await.unwrap();
            socket.flush().await.unwrap();
        }
        let mut back = [0; 7];
        bounded("the echo", socket.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"\x8a\x01p\x81\x02ab");
    }
}

#[tokio::test]
async fn both_sides_may_close_at_once() {
    let stage = stage().await;
    for round in 0..50 {
        let mut socket = open(stage.gateway.address(), "/run/me/app/realtime").await;
        say(&mut socket, "leave").await;
        bounded("the close", socket.close(None)).await.unwrap();
        while bounded("the end", futures::StreamExt::next(&mut socket)).await.is_some() {}
        until("the outcome", || (stage.host.outcomes().len() == round + 1).then_some(())).await;
    }
    assert!(stage.host.outcomes().iter().all(|outcome| *outcome == answered(101)));
}

/// How much is held for it meanwhile is shown where the clock can stand still.
#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/run/me/app/realtime").await;
    say(&mut socket, "flood").await;
    for number in 0..2_000_u32 {
        let bytes = hear_bytes(&mut socket).await;
        assert_eq!((bytes.len(), &bytes[..4]), (FLOOD_BYTES, &number.to_be_bytes()[..]));
    }
    assert_eq!(hear_text(&mut socket).await, "flooded", "nothing was left out");
}

#[tokio::test]
async fn a_slow_reader_that_wants_the_newest_loses_the_oldest() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/run/me/app/realtime?max_buffering=3").await;
    say(&mut socket, "flood").await;
    let made = &stage.upstream.seen.bytes_made;
    until("the app to be done", || {
        (made.load(Ordering::SeqCst) == 2_000 * FLOOD_BYTES).then_some(())
    })
    .await;
    let mut numbers = Vec::new();
    loop {
        match hear(&mut socket).await {
            Message::Binary(bytes) => {
                assert_eq!(bytes.len(), FLOOD_BYTES, "no message is cut");
                numbers.push(u32::from_be_bytes(bytes[..4].try_into().unwrap()));
            }
            Message::Text(text) => {
                assert_eq!(text.as_str(), "flooded");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(numbers.is_sorted() && numbers.len() < 2_000, "{} came", numbers.len());
    assert_eq!(numbers[numbers.len() - 2..], [1_998, 1_999]);
}

#[tokio::test]
async fn a_message_beyond_the_limit_closes_either_way() {
    let stage = stage().await;
    let sockets = SocketOptions { message_bytes_max: 1_000, ..SocketOptions::default() };
    let gateway = gateway_with(&stage.host, Options { sockets, ..Options::default() });
    let mut socket = open(gateway.address(), "/run/me/app/realtime").await;
    socket.send(Message::binary(vec![0; 1_000])).await.unwrap();
    assert_eq!(hear_bytes(&mut socket).await.len(), 1_000);
    socket.send(Message::binary(vec![0; 1_001])).await.unwrap();
    assert_eq!(crate::socket::told(&mut socket).await, ("MESSAGE_TOO_LARGE".to_owned(), 1009));
    assert_eq!(outcome(&stage.host).await, answered(101));
    let mut socket = open(gateway.address(), "/run/me/app/realtime").await;
    say(&mut socket, "flood").await;
    assert_eq!(crate::socket::told(&mut socket).await, ("MESSAGE_TOO_LARGE".to_owned(), 1009));
    until("the outcome", || (stage.host.outcomes().len() == 2).then_some(())).await;
    assert_eq!(stage.host.outcomes()[1], answered(502));
}
