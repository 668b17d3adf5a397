//! Encodes requests.

use std::io::{Cursor, IoSlice, Write};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

/// What HTTP adds to a head beyond its fields: the request line, and the framing field.
const HEAD_OVERHEAD_BYTES: usize = 128;
/// About what one field takes.
const FIELD_BYTES: usize = 48;

/// How the runner is told where a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum Framing {
    /// There is no body.
    Empty,
    Length(u64),
    Chunked,
}

/// Encoded and not yet written, in three parts so that data is not copied.
#[derive(Debug, Default)]
pub(in crate::forward) struct Outbox {
    front: Cursor<Vec<u8>>,
    data: Bytes,
    back: &'static [u8],
}

impl Outbox {
    pub(in crate::forward) fn is_empty(&self) -> bool {
        !self.front.has_remaining() && self.data.is_empty() && self.back.is_empty()
    }

    pub(in crate::forward) fn slices(&self) -> [IoSlice<'_>; 3] {
        [self.front.chunk(), &self.data, self.back].map(IoSlice::new)
    }

    /// So many bytes were written.
    pub(in crate::forward) fn advance(&mut self, bytes: usize) {
        let front = bytes.min(self.front.remaining());
        self.front.advance(front);
        let data = (bytes - front).min(self.data.len());
        self.data.advance(data);
        self.back = &self.back[bytes - front - data..];
        if self.is_empty() {
            self.clear();
        }
    }

    pub(in crate::forward) fn clear(&mut self) {
        self.front.get_mut().clear();
        self.front.set_position(0);
        self.data = Bytes::new();
        self.back = &[];
    }

    /// Sends this after what the outbox holds, which is a head or nothing.
    pub(in crate::forward) fn set_data(&mut self, data: Bytes) {
        debug_assert!(self.data.is_empty() && self.back.is_empty(), "the outbox holds data");
        self.data = data;
    }
}

pub(in crate::forward) fn encode_head(request: &Parts, framing: Framing, outbox: &mut Outbox) {
    outbox.clear();
    let out = outbox.front.get_mut();
    out.reserve(HEAD_OVERHEAD_BYTES + request.headers.len() * FIELD_BYTES);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut has_length = false;
    for (name, value) in &request.headers {
        if *name == header::CONTENT_LENGTH {
            has_length = true;
        } else if *name != header::TRANSFER_ENCODING {
            encode_field(name, value, out);
        }
    }
    match framing {
        Framing::Empty if has_length => out.extend_from_slice(b"content-length: 0\r\n"),
        Framing::Empty => {}
        Framing::Length(bytes) => {
            // Writing into memory does not fail.
            drop(write!(out, "content-length: {bytes}\r\n"));
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn encode_field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Adds a piece of a chunked body to an outbox that holds nothing, or only a head.
pub(in crate::forward) fn encode_chunk(data: Bytes, outbox: &mut Outbox) {
    // A chunk of nothing would be the end.
    if !data.is_empty() {
        drop(write!(outbox.front.get_mut(), "{:x}\r\n", data.len()));
        outbox.set_data(data);
        outbox.back = b"\r\n";
    }
}

/// Adds the end of a chunked body to an outbox that holds nothing, or only a head. Of the trailers, those
/// that the head announced are sent.
pub(in crate::forward) fn encode_end(
    trailers: Option<&HeaderMap>,
    announced: &[HeaderName],
    outbox: &mut Outbox,
) {
    let out = outbox.front.get_mut();
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if announced.contains(name) && !is_about_the_message(name) {
            encode_field(name, value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that decide how a message is read or who may send it: never in trailers (RFC 9110 §6.5.1).
fn is_about_the_message(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::EXPECT
            | header::HOST
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    )
}
