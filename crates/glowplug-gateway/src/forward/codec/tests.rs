use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::options::{HEADER_COUNT_MAX, RESPONSE_HEADER_BYTES_MAX};

/// An answer as it was read.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// What became of all the bytes a runner sent.
#[derive(Debug, PartialEq)]
struct Read {
    answer: Answer,
    keeps_open: bool,
    /// Bytes that are not of the answer.
    surplus: Vec<u8>,
}

/// Reads an answer that arrives in pieces, after which the runner closes the connection.
fn read<'a>(method: &Method, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Read, String> {
    let mut received = BytesMut::new();
    let mut read: Option<(Answer, AnswerDecoder, bool)> = None;
    for piece in pieces {
        received.extend_from_slice(piece);
        while read.is_none() && !received.is_empty() {
            match parse_head(&mut received, method).map_err(|fault| fault.to_string())? {
                Parsed::Partial => break,
                Parsed::Interim => {}
                Parsed::Head { head, body, keeps_open } => {
                    let Head { status, headers } = head;
                    let answer = Answer { status, headers, ..Answer::default() };
                    read = Some((answer, body, keeps_open));
                }
            }
        }
        let Some((answer, decoder, _)) = &mut read else { continue };
        while let Some(frame) = decoder.decode(&mut received).map_err(|fault| fault.to_string())? {
            match frame.into_data().map_err(Frame::into_trailers) {
                Ok(data) => answer.body.extend_from_slice(&data),
                Err(trailers) => answer.trailers = Some(trailers.unwrap()),
            }
        }
    }
    let (answer, mut decoder, keeps_open) = read.ok_or("no head")?;
    decoder.close().map_err(|fault| fault.to_string())?;
    Ok(Read { answer, keeps_open, surplus: received.to_vec() })
}

fn get(text: &str) -> Result<Read, String> {
    read(&Method::GET, [text.as_bytes()])
}

#[test]
fn the_end_of_an_answer_is_found() {
    let cases = [
        // By its length.
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", true),
        ("GET", "HTTP/1.1 200 \r\ncontent-length:2\r\n\r\nhi", "hi", true),
        ("GET", "HTTP/1.1 200\r\nContent-Length: 2, 2\r\ncontent-length: 2\r\n\r\nhi", "hi", true),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", true),
        ("GET", "HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", "hi", true),
        // In chunks.
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "hi",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\nh\r\n01 \r\ni\r\n000\r\n\r\n",
            "hi",
            true,
        ),
        // By the end of the connection.
        ("GET", "HTTP/1.1 200 OK\r\n\r\nhi", "hi", false),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nhi", "hi", false),
        // With its head.
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", "", true),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "", true),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "", true),
        ("CONNECT", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", "", false),
        ("GET", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "", false),
        // After interim ones.
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "hi",
            true,
        ),
        // What is said of the connection.
        ("GET", "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n", "", false),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
            "",
            false,
        ),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "", false),
        ("GET", "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n", "", true),
    ];
    for (method, text, body, keeps_open) in cases {
        let method: Method = method.parse().unwrap();
        let read = read(&method, [text.as_bytes()]).unwrap();
        assert_eq!(String::from_utf8_lossy(&read.answer.body), body, "{text}");
        assert_eq!(read.keeps_open, keeps_open, "{text}");
        assert_eq!(read.surplus, b"", "{text}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_not_read() {
    let two = "it has two lengths";
    let number = "its length is not a number";
    let coding = "its transfer coding is not `chunked`";
    let both = "it has a length and comes in chunks";
    let cases = [
        ("content-length: 2\r\ncontent-length: 3\r\n\r\nhi", two),
        ("content-length: 2, 3\r\n\r\nhi", two),
        ("content-length: +2\r\n\r\nhi", number),
        ("content-length: -2\r\n\r\nhi", number),
        ("content-length: 0x2\r\n\r\nhi", number),
        ("content-length: \r\n\r\nhi", number),
        ("content-length: 2,\r\n\r\nhi", number),
        ("content-length: 18446744073709551616\r\n\r\nhi", number),
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", both),
        ("transfer-encoding: gzip\r\n\r\nhi", coding),
        ("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", coding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", coding),
        ("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", coding),
        ("transfer-encoding: chunked\r\n\r\n\r\n\r\n", "a chunk is not one"),
        ("transfer-encoding: chunked\r\n\r\n-1\r\n\r\n", "a chunk is not one"),
        ("transfer-encoding: chunked\r\n\r\n0x1\r\na\r\n", "a chunk is not one"),
        ("transfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", "a chunk is not one"),
        ("transfer-encoding: chunked\r\n\r\n11112222333344445\r\n", "a chunk is not one"),
        ("transfer-encoding: chunked\r\n\r\n0\r\nno field\r\n\r\n", "its trailers are not fields"),
        // What is missing.
        ("content-length: 3\r\n\r\nhi", "the connection closed"),
        ("transfer-encoding: chunked\r\n\r\n3\r\nhi", "the connection closed"),
        ("transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", "the connection closed"),
        ("transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", "the connection closed"),
        ("content-len", "no head"),
        // What is no HTTP.
        ("content length: 2\r\n\r\nhi", "invalid header name"),
        (" folded: 2\r\n\r\nhi", "invalid header name"),
        ("a: b\r\n folded\r\n\r\n", "invalid header name"),
        ("a: \0\r\n\r\n", "invalid header value"),
    ];
    for (rest, fault) in cases {
        assert_eq!(get(&format!("HTTP/1.1 200 OK\r\n{rest}")).unwrap_err(), fault, "{rest:?}");
    }
    let old = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(get(old).unwrap_err(), "HTTP/1.0 has no transfer codings");
    for text in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/2.0 200 OK\r\n", "HTTP/1.1 2000 OK\r\n", "\0"] {
        assert!(get(text).unwrap_err().starts_with("invalid"), "{text}");
    }
    assert_eq!(get("HTTP/1.1 099 No\r\n\r\n").unwrap_err(), "the status is not one");
}

#[test]
fn what_follows_an_answer_is_left() {
    for head in
        ["content-length: 2\r\n\r\nhi", "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"]
    {
        let read = get(&format!("HTTP/1.1 200 OK\r\n{head}HTTP/1.1 200 OK\r\n")).unwrap();
        assert_eq!(
            (&read.answer.body[..], &read.surplus[..]),
            (&b"hi"[..], &b"HTTP/1.1 200 OK\r\n"[..])
        );
    }
}

#[test]
fn heads_and_trailers_have_limits() {
    let too_large =
        format!("more than {HEADER_COUNT_MAX} fields or {RESPONSE_HEADER_BYTES_MAX} bytes");
    let many = |count| "a: b\r\n".repeat(count);
    let long = |bytes| format!("a: {}\r\n", "b".repeat(bytes));
    let head = |fields: &str| format!("HTTP/1.1 204 No Content\r\n{fields}\r\n");
    let trailers = |fields: &str| {
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{fields}\r\n")
    };
    assert_eq!(get(&head(&many(100))).unwrap().answer.headers.len(), 100);
    assert_eq!(get(&head(&many(101))).unwrap_err(), too_large);
    assert_eq!(get(&head(&long(32_000))).unwrap().answer.headers["a"].len(), 32_000);
    assert_eq!(get(&head(&long(33_000))).unwrap_err(), too_large);
    // Without waiting for an end that may not come.
    assert_eq!(get(head(&long(33_000)).trim_end()).unwrap_err(), too_large);
    assert_eq!(get(&trailers(&many(100))).unwrap().answer.trailers.unwrap().len(), 100);
    for fields in [many(101), long(17_000), long(17_000).trim_end().to_owned()] {
        assert_eq!(get(&trailers(&fields)).unwrap_err(), "its trailers are too large");
    }
    let chunk = |extension: usize| {
        let extension = "x".repeat(extension);
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{extension}\r\na\r\n0\r\n\r\n"
        )
    };
    assert_eq!(get(&chunk(4_000)).unwrap().answer.body, b"a");
    assert_eq!(get(&chunk(5_000)).unwrap_err(), "a chunk is not one");
}

fn encoded(request: &Request<()>, framing: Framing) -> Outbox {
    let (parts, ()) = request.clone().into_parts();
    let mut outbox = Outbox::default();
    encode_head(&parts, framing, &mut outbox);
    outbox
}

fn text(outbox: &Outbox) -> String {
    outbox.slices().iter().map(|slice| String::from_utf8_lossy(slice).into_owned()).collect()
}

#[test]
fn requests_say_where_they_end() {
    let plain = Request::post("/a?b").header("host", "h").body(()).unwrap();
    // What a stored request says of its length is not believed.
    let said = Request::put("/")
        .header("content-length", "9")
        .header("transfer-encoding", "gzip")
        .header("x-a", "1")
        .body(())
        .unwrap();
    let cases = [
        (&plain, Framing::Empty, "POST /a?b HTTP/1.1\r\nhost: h\r\n\r\n"),
        (&plain, Framing::Length(3), "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n"),
        (
            &plain,
            Framing::Chunked,
            "POST /a?b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (&said, Framing::Empty, "PUT / HTTP/1.1\r\nx-a: 1\r\ncontent-length: 0\r\n\r\n"),
        (&said, Framing::Length(3), "PUT / HTTP/1.1\r\nx-a: 1\r\ncontent-length: 3\r\n\r\n"),
        (&said, Framing::Chunked, "PUT / HTTP/1.1\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
    ];
    for (request, framing, expected) in cases {
        assert_eq!(text(&encoded(request, framing)), expected, "{framing:?}");
    }
}

#[test]
fn chunks_end_once_and_carry_announced_trailers() {
    let request = Request::post("/").body(()).unwrap();
    let mut outbox = encoded(&request, Framing::Chunked);
    encode_chunk(Bytes::from_static(b"seventeen bytes!!"), &mut outbox);
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(text(&outbox), format!("{head}11\r\nseventeen bytes!!\r\n"));
    outbox.clear();
    encode_chunk(Bytes::new(), &mut outbox);
    assert!(outbox.is_empty(), "nothing is not an end");
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "x-other", "content-length"] {
        trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    let announced = [HeaderName::from_static("x-sum"), HeaderName::from_static("content-length")];
    encode_end(Some(&trailers), &announced, &mut outbox);
    assert_eq!(text(&outbox), "0\r\nx-sum: 1\r\n\r\n");
}

proptest! {
    #[test]
    fn an_outbox_is_written_in_any_pieces(pieces in vec(1_usize..9, 30)) {
        let request = Request::post("/").body(()).unwrap();
        let mut outbox = encoded(&request, Framing::Chunked);
        encode_chunk(Bytes::from_static(b"data"), &mut outbox);
        let whole = text(&outbox);
        let mut written = String::new();
        for piece in pieces.into_iter().cycle() {
            if outbox.is_empty() {
                break;
            }
            let rest = text(&outbox);
            let piece = piece.min(rest.len());
            written.push_str(&rest[..piece]);
            outbox.advance(piece);
        }
        prop_assert_eq!(written, whole);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300), cut in 0_usize..300) {
        let (start, end) = bytes.split_at(cut.min(bytes.len()));
        let _ = read(&Method::GET, [start, end]);
        for framing in ["transfer-encoding: chunked", "content-length: 100", "x: y"] {
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
            let _ = read(&Method::GET, [head.as_bytes(), start, end]);
        }
    }

    #[test]
    fn no_almost_http_panics(lines in vec("(HTTP/1.[01] [0-9]{3}|[a-f0-9;]{0,4}|[Cc]ontent-[Ll]ength: ?[0-9]{0,3}|transfer-encoding: chunked|connection: close|[a-z]{1,3}: [ -~]{0,5})(\r\n|\n|\r)?", 0..12)) {
        let text = lines.concat();
        let _ = get(&text);
        let _ = read(&Method::HEAD, text.as_bytes().chunks(3));
        let _ = get(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{text}"));
    }
}

/// The bytes of a valid answer to a `GET` or `HEAD`.
fn valid_answer() -> impl Strategy<Value = Vec<u8>> {
    let field = ("x-[a-z]{1,4}", "[!-~]([ -~]{0,8}[!-~])?");
    let status =
        prop_oneof![Just(200_u16), Just(204), Just(304), Just(404), Just(503), 200..=599_u16];
    let interim = prop::option::weighted(0.2, prop_oneof![Just(100_u16), Just(103)]);
    let body = vec(vec(any::<u8>(), 1..40), 0..5);
    (status, interim, vec(field, 0..6), body, 0..4_u8, vec(field, 0..3)).prop_map(
        |(status, interim, fields, chunks, framing, trailers)| {
            let mut out = Vec::new();
            if let Some(interim) = interim {
                out.extend(format!("HTTP/1.1 {interim} Wait\r\nx-interim: 1\r\n\r\n").bytes());
            }
            out.extend(format!("HTTP/1.1 {status} Some Reason\r\n").bytes());
            let lines = |out: &mut Vec<u8>, fields: Vec<(String, String)>| {
                for (name, value) in fields {
                    out.extend(format!("{name}: {value}\r\n").bytes());
                }
            };
            lines(&mut out, fields);
            let bodiless = matches!(status, 204 | 304);
            match framing {
                0 => {
                    let length: usize = chunks.iter().map(Vec::len).sum();
                    out.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
                    out.extend(chunks.concat().iter().filter(|_| !bodiless));
                }
                1 | 2 => {
                    out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    if !bodiless {
                        for chunk in chunks {
                            out.extend(format!("{:X}\r\n", chunk.len()).bytes());
                            out.extend(chunk);
                            out.extend(b"\r\n");
                        }
                        out.extend(b"0\r\n");
                        lines(&mut out, trailers);
                        out.extend(b"\r\n");
                    }
                }
                _ => {
                    out.extend(b"\r\n");
                    out.extend(chunks.concat().iter().filter(|_| !bodiless));
                }
            }
            out
        },
    )
}

fn pieces<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, left) = rest.split_at(rest.len().min(*size));
        pieces.push(piece);
        rest = left;
    }
    pieces
}

/// How another implementation reads the same answer.
async fn read_by_hyper(method: &Method, bytes: &[u8]) -> Answer {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri("/").body(Empty::<Bytes>::new()).unwrap();
    let runner = async {
        let mut asked = [0; 1];
        theirs.read_exact(&mut asked).await.unwrap();
        theirs.write_all(bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
    };
    let (response, ()) = tokio::join!(sender.send_request(request), runner);
    let (parts, body) = response.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let _ = connection.await;
    let body = body.to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body, trailers }
}

proptest! {
    #[test]
    fn valid_answers_are_read_alike_in_any_pieces_and_by_anyone(
        bytes in valid_answer(),
        sizes in vec(1_usize..50, 1..20),
        head in any::<bool>(),
    ) {
        let method = if head { Method::HEAD } else { Method::GET };
        let whole = read(&method, [&bytes[..]]).unwrap();
        prop_assert_eq!(&read(&method, pieces(&bytes, &sizes)).unwrap(), &whole);
        prop_assert_eq!(&read(&method, bytes.chunks(1)).unwrap(), &whole);
        if head {
            prop_assert!(whole.answer.body.is_empty());
        } else {
            prop_assert!(whole.surplus.is_empty());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(read_by_hyper(&method, &bytes)), whole.answer);
        }
    }
}
