//! Many sockets at once.

use std::time::Duration;

use futures::future::join_all;

use crate::socket::{hear_text, open, say};
use crate::stage::stage;
use crate::wait::until;

const SOCKETS: usize = 1_000;
/// For both ends of both connections of a socket, all of which are in this process.
const BYTES_PER_SOCKET_MAX: usize = 200 * 1024;

#[tokio::test]
async fn idle_sockets_cost_little() {
    let stage = stage().await;
    let address = stage.gateway.address();
    drop(open(address, "/run/me/app/realtime").await);
    let before = resident_bytes();
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS / 50 {
        let batch = (0..50).map(|_| async {
            let mut socket = open(address, "/run/me/app/realtime").await;
            say(&mut socket, "hello").await;
            assert_eq!(hear_text(&mut socket).await, "hello");
            socket
        });
        sockets.extend(join_all(batch).await);
    }
    let each = resident_bytes().saturating_sub(before) / SOCKETS;
    println!("{each} bytes for each of {SOCKETS} idle sockets, their callers and apps included");
    assert!(each < BYTES_PER_SOCKET_MAX, "{each}");
    assert_eq!(stage.host.outcomes().len(), 1);
    drop(sockets);
    until("all sockets to close", || (stage.host.outcomes().len() == SOCKETS + 1).then_some(()))
        .await;
    tokio::time::sleep(Duration::ZERO).await;
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
