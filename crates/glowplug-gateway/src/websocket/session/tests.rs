//! An open socket on a clock that stands still while anything can be done.

use std::future::pending;
use std::time::Duration;

use glowplug_core::request::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// As good as never.
const DAY: Duration = Duration::from_hours(24);
/// Between the gateway and each side.
const PIPE_BYTES: usize = 4 * 1024;
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// A text of one letter, as callers send it.
const LETTER: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, b'x'];
const PING: [u8; 2] = [0x89, 0];
/// As callers answer it.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

fn socket(options: SocketOptions) -> (DuplexStream, DuplexStream, JoinHandle<Outcome>) {
    socket_until(options, pending())
}

fn socket_until(
    options: SocketOptions,
    ended: impl Future<Output = Ending> + Send + 'static,
) -> (DuplexStream, DuplexStream, JoinHandle<Outcome>) {
    let (caller, callers_end) = duplex(PIPE_BYTES);
    let (app, apps_end) = duplex(PIPE_BYTES);
    let outbox = Outbox::new(None, MESSAGE_BYTES_MAX);
    let passage = Passage::new(caller, app, outbox, MESSAGE_BYTES_MAX);
    let mut open = Open { passage, options, is_realtime: true, pinged: None };
    (callers_end, apps_end, tokio::spawn(async move { open.carry(ended).await }))
}

/// What comes next, and how long it took.
async fn next<const BYTES: usize>(from: &mut DuplexStream) -> ([u8; BYTES], Duration) {
    let began = Instant::now();
    let mut bytes = [0; BYTES];
    from.read_exact(&mut bytes).await.unwrap();
    (bytes, began.elapsed())
}

/// Timers are as exact as a millisecond.
fn assert_took(took: Duration, expected: Duration) {
    assert!((expected..expected + SECOND / 100).contains(&took), "{took:?}, not {expected:?}");
}

async fn rest(from: &mut DuplexStream) -> String {
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).await.unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test(start_paused = true)]
async fn an_idle_socket_ends_and_a_used_one_does_not() {
    let options =
        SocketOptions { idle_timeout: 4 * SECOND, ping_interval: DAY, ..SocketOptions::default() };
    let (mut caller, mut app, outcome) = socket(options);
    for _ in 0..8 {
        sleep(3 * SECOND).await;
        caller.write_all(&LETTER).await.unwrap();
        assert_eq!(next(&mut app).await.0, LETTER);
    }
    let ([first], took) = next(&mut caller).await;
    assert_took(took, 4 * SECOND);
    let said = rest(&mut caller).await;
    assert!(first == 0x81 && said.contains("TIMEOUT"), "{said}");
    assert_eq!(outcome.await.unwrap(), answered(SWITCHED));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_answers_pings_is_alive_however_long_it_says_nothing() {
    let options = SocketOptions {
        ping_interval: 10 * SECOND,
        pong_timeout: 5 * SECOND,
        idle_timeout: DAY,
        ..SocketOptions::default()
    };
    let (mut caller, mut app, outcome) = socket(options);
    for _ in 0..100 {
        let (ping, took) = next(&mut caller).await;
        assert_eq!(ping, PING);
        assert_took(took, 10 * SECOND);
        caller.write_all(&PONG).await.unwrap();
        assert_eq!(next(&mut app).await.0, PONG, "the app sees it too");
    }
    assert_eq!(next(&mut caller).await.0, PING);
    let ([first], took) = next(&mut caller).await;
    assert_took(took, 5 * SECOND);
    let said = rest(&mut caller).await;
    assert!(first == 0x81 && said.contains("UNRESPONSIVE"), "{said}");
    assert_eq!(outcome.await.unwrap(), answered(SWITCHED));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_slows_the_app_down() {
    let options =
        SocketOptions { idle_timeout: DAY, ping_interval: DAY, ..SocketOptions::default() };
    let (mut caller, mut app, _outcome) = socket(options);
    let letter = [0x81, 1, b'y'];
    let flood = letter.repeat(100_000);
    let mut taken = 0;
    // The clock moves only when nobody can do anything any more.
    while let Ok(written) = timeout(SECOND, app.write(&flood[taken..])).await {
        taken += written.unwrap();
    }
    // The pipes, and what is read at once and not yet written.
    assert!(taken <= 2 * PIPE_BYTES + 16 * 1024, "{taken} bytes are on their way to nobody");
    let sending = tokio::spawn(async move {
        app.write_all(&flood[taken..]).await.unwrap();
        (app, flood)
    });
    let mut heard = vec![0; 3 * 100_000];
    caller.read_exact(&mut heard).await.unwrap();
    let (_app, flood) = sending.await.unwrap();
    assert!(heard == flood, "nothing was left out");
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_runner_is_killed_for_it_says_why() {
    let (withdraw, withdrawn) = tokio::sync::oneshot::channel();
    let ended = async { Ending::Withdrawn(withdrawn.await.unwrap()) };
    let (mut caller, app, outcome) = socket_until(SocketOptions::default(), ended);
    caller.write_all(&LETTER).await.unwrap();
    // Both are there when the socket is looked at for the first time.
    withdraw.send(Refusal::RequestTimeout { seconds: 2 }).unwrap();
    drop(app);
    let said = rest(&mut caller).await;
    assert!(said.contains("REQUEST_TIMEOUT"), "{said}");
    assert_eq!(outcome.await.unwrap(), Outcome::Disconnected);
}
