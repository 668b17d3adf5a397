use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

/// A connection, and the runner's end of it.
fn connection() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::new(Stream::Unix(ours)), theirs)
}

fn request(body: &'static [u8]) -> Request<RequestBody> {
    Request::post("/").body(RequestBody::full(Bytes::from_static(body))).unwrap()
}

async fn whole_body(connection: &mut Connection) -> Result<Vec<u8>, BodyFault> {
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
        body.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(body)
}

/// Waits until the connection has heard of what the runner did.
async fn heard(connection: &Connection) {
    match &connection.stream {
        Stream::Unix(stream) => stream.readable().await.unwrap(),
        Stream::Tcp(stream) => stream.readable().await.unwrap(),
    }
}

#[tokio::test]
async fn a_small_request_is_one_write() {
    let (mut connection, mut runner) = connection();
    let sent = connection.send(request(b"body"));
    let runner = async {
        let mut read = vec![0; 1_024];
        let length = runner.read(&mut read).await.unwrap();
        runner.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        String::from_utf8(read[..length].to_vec()).unwrap()
    };
    let (head, read) = tokio::join!(sent, runner);
    assert_eq!(head.unwrap().status, 200);
    assert_eq!(read, "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody");
    assert!(!connection.is_reusable(), "its answer was not read");
    assert_eq!(whole_body(&mut connection).await.unwrap(), b"hi");
    assert!(connection.is_reusable());
}

#[tokio::test]
async fn only_what_is_complete_and_silent_is_used_again() {
    let cases: [(&[u8], bool); 5] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi and more", false),
        (b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false),
    ];
    for (answer, reusable) in cases {
        let (mut connection, mut runner) = connection();
        runner.write_all(answer).await.unwrap();
        connection.send(request(b"")).await.unwrap();
        whole_body(&mut connection).await.unwrap();
        assert_eq!(connection.is_reusable(), reusable, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn an_idle_connection_that_says_anything_is_over() {
    let (mut idle, _runner) = connection();
    assert!(!idle.is_stale().await);

    let (mut closed, runner) = connection();
    drop(runner);
    heard(&closed).await;
    assert!(closed.is_stale().await);

    let (mut talking, mut runner) = connection();
    runner.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    heard(&talking).await;
    assert!(talking.is_stale().await);
}

#[tokio::test]
async fn an_answer_is_read_though_the_runner_reads_no_further() {
    let (mut connection, mut runner) = connection();
    runner
        .write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        .await
        .unwrap();
    drop(runner);
    let head = connection.send(request(b"body")).await.unwrap();
    assert_eq!(head.status, 413);
    assert_eq!(whole_body(&mut connection).await.unwrap(), b"no");
    assert!(!connection.is_reusable());
}

#[tokio::test]
async fn interim_answers_have_an_end() {
    for (count, fits) in [(INTERIM_ANSWERS_MAX, true), (INTERIM_ANSWERS_MAX + 1, false)] {
        let (mut connection, mut runner) = connection();
        for _ in 0..count {
            runner.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n").await.unwrap();
        }
        runner.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let sent = connection.send(request(b"")).await;
        assert_eq!(sent.is_ok(), fits, "{count}");
        if !fits {
            assert!(matches!(sent, Err(ForwardError::Malformed { .. })), "{sent:?}");
        }
    }
}

#[tokio::test]
async fn reads_grow_with_the_answer() {
    const BYTES: usize = 2 * 1024 * 1024;
    let (mut connection, mut runner) = connection();
    let written = tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
        runner.write_all(head.as_bytes()).await.unwrap();
        runner.write_all(&vec![b'x'; BYTES]).await.unwrap();
        runner
    });
    connection.send(request(b"")).await.unwrap();
    assert_eq!(whole_body(&mut connection).await.unwrap().len(), BYTES);
    assert!(connection.read_bytes > READ_BYTES_MIN);
    assert!(connection.read_bytes <= READ_BYTES_MAX);
    drop(written.await.unwrap());
}

#[tokio::test]
async fn a_body_of_another_length_than_it_says_is_not_sent() {
    let cases: [(u64, &'static [u8], Option<bool>); 4] = [
        (4, b"body", Some(true)),
        (5, b"body", Some(false)),
        (3, b"body", None),
        (0, b"", Some(true)),
    ];
    for (length, data, complete) in cases {
        let framing = Framing::Length(length);
        let mut upload = Upload { body: RequestBody::Full(None), framing, announced: Vec::new() };
        let mut outbox = Outbox::default();
        let encoded = upload.encode(Some(Frame::data(Bytes::from_static(data))), &mut outbox);
        assert_eq!(encoded.ok(), complete, "{length}");
        if complete == Some(false) {
            assert!(upload.encode(None, &mut outbox).is_err(), "it ended early");
        }
    }
}
