//! Connecting, with everything but a namespace of somebody else: that is the runner's to test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use glowplug_core::RunnerAddress;
use glowplug_dial::{Stream, namespace};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The namespaces of this very process, by name.
fn own_namespaces() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().canonicalize().unwrap().join("namespaces");
    let own = rustix::process::getpid().as_raw_nonzero().get();
    namespace::name(&file, own).unwrap();
    (dir, file)
}

fn echo(mut stream: impl Read + Write) {
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
}

async fn check(address: &RunnerAddress) {
    let mut stream = Stream::connect(address).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello", "{address}");
}

#[tokio::test]
async fn every_kind_of_address_is_connected_to() {
    let (dir, namespaces) = own_namespaces();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = tcp.local_addr().unwrap();
    let path = dir.path().canonicalize().unwrap().join("sock");
    let unix = UnixListener::bind(&path).unwrap();
    let servers = [
        std::thread::spawn(move || (0..2).for_each(|_| echo(tcp.accept().unwrap().0))),
        std::thread::spawn(move || (0..2).for_each(|_| echo(unix.accept().unwrap().0))),
    ];
    check(&RunnerAddress::Tcp(at)).await;
    let inside = RunnerAddress::InNamespace { namespaces: namespaces.clone(), port: at.port() };
    // Entering a namespace takes rights, even one's own.
    if rustix::process::geteuid().is_root() {
        check(&inside).await;
    } else {
        Stream::connect(&inside).await.unwrap_err();
        check(&RunnerAddress::Tcp(at)).await;
    }
    check(&RunnerAddress::Unix(path.clone())).await;
    check(&RunnerAddress::UnixInNamespace { namespaces, path }).await;
    for server in servers {
        server.join().unwrap();
    }
}

#[tokio::test]
async fn what_is_no_socket_is_refused() {
    let (dir, namespaces) = own_namespaces();
    let dir = dir.path().canonicalize().unwrap();
    std::fs::write(dir.join("file"), "").unwrap();
    let _real = UnixListener::bind(dir.join("real")).unwrap();
    std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).unwrap();
    for name in ["file", "link", "missing"] {
        let path = dir.join(name);
        let namespaces = namespaces.clone();
        Stream::connect(&RunnerAddress::Unix(path.clone())).await.unwrap_err();
        let inside = RunnerAddress::UnixInNamespace { namespaces, path };
        Stream::connect(&inside).await.unwrap_err();
    }
}
