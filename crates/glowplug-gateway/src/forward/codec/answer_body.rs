//! Decodes the body of an answer.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use httparse::Status;

use crate::options::{HEADER_COUNT_MAX, RESPONSE_HEADER_BYTES_MAX};

/// Bytes of the line before a chunk, extensions included. They are passed over.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
const LINE_END: &[u8; 2] = b"\r\n";

/// Where in an answer's body the decoder is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::forward) enum AnswerDecoder {
    End,
    /// So many bytes are to come.
    Length(u64),
    UntilClose,
    Chunked(Chunk),
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::forward) enum Chunk {
    /// Before the line that says a chunk's size.
    Size,
    /// So many bytes of it are to come.
    Data(u64),
    /// Before the line end after it.
    DataEnd,
    /// Behind the last one.
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::forward) enum BodyFault {
    #[error("the connection closed")]
    Cut,
    #[error("a chunk is not one")]
    Chunk,
    #[error("its trailers are not fields")]
    Trailers,
    #[error("its trailers are too large")]
    TrailersTooLarge,
}

impl AnswerDecoder {
    pub(super) fn length(bytes: u64) -> Self {
        if bytes == 0 { Self::End } else { Self::Length(bytes) }
    }

    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    pub(in crate::forward) fn is_end(&self) -> bool {
        *self == Self::End
    }

    /// Takes the next piece out of what was received. `None`: the body is at its end, or more bytes are
    /// needed.
    pub(in crate::forward) fn decode(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<Option<Frame<Bytes>>, BodyFault> {
        match self {
            Self::End => Ok(None),
            _ if received.is_empty() => Ok(None),
            Self::UntilClose => Ok(Some(Frame::data(received.split().freeze()))),
            Self::Length(left) => {
                let data = take(received, left);
                if *left == 0 {
                    *self = Self::End;
                }
                Ok(Some(Frame::data(data)))
            }
            Self::Chunked(_) => self.decode_chunks(received),
        }
    }

    fn decode_chunks(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<Option<Frame<Bytes>>, BodyFault> {
        while let Self::Chunked(chunk) = self {
            match chunk {
                Chunk::Size => match chunk_size(received)? {
                    Some(0) => *chunk = Chunk::Trailers,
                    Some(bytes) => *chunk = Chunk::Data(bytes),
                    None => return Ok(None),
                },
                Chunk::Data(_) if received.is_empty() => return Ok(None),
                Chunk::Data(left) => {
                    let data = take(received, left);
                    if *left == 0 {
                        *chunk = Chunk::DataEnd;
                    }
                    return Ok(Some(Frame::data(data)));
                }
                Chunk::DataEnd => {
                    if received.len() < LINE_END.len() {
                        return Ok(None);
                    }
                    if !received.starts_with(LINE_END) {
                        return Err(BodyFault::Chunk);
                    }
                    received.advance(LINE_END.len());
                    *chunk = Chunk::Size;
                }
                Chunk::Trailers => {
                    let Some(trailers) = trailers(received)? else { return Ok(None) };
                    *self = Self::End;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
            }
        }
        Ok(None)
    }

    /// The runner sends nothing more.
    pub(in crate::forward) fn close(&mut self) -> Result<(), BodyFault> {
        match self {
            Self::End | Self::UntilClose => {
                *self = Self::End;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(BodyFault::Cut),
        }
    }

    pub(in crate::forward) fn size_hint(&self) -> SizeHint {
        match self {
            Self::End => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::UntilClose | Self::Chunked(_) => SizeHint::default(),
        }
    }
}

/// As much of the next `left` bytes as there is.
fn take(received: &mut BytesMut, left: &mut u64) -> Bytes {
    let bytes = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
    *left -= bytes as u64;
    received.split_to(bytes).freeze()
}

fn chunk_size(received: &mut BytesMut) -> Result<Option<u64>, BodyFault> {
    let Some(first) = received.first() else { return Ok(None) };
    // The parser takes a line without any digit for the size 0, which would end the body.
    if !first.is_ascii_hexdigit() {
        return Err(BodyFault::Chunk);
    }
    match httparse::parse_chunk_size(received) {
        Ok(Status::Complete((length, _))) if length > CHUNK_LINE_BYTES_MAX => Err(BodyFault::Chunk),
        Ok(Status::Complete((length, size))) => {
            received.advance(length);
            Ok(Some(size))
        }
        Ok(Status::Partial) if received.len() > CHUNK_LINE_BYTES_MAX => Err(BodyFault::Chunk),
        Ok(Status::Partial) => Ok(None),
        Err(_) => Err(BodyFault::Chunk),
    }
}

fn trailers(received: &mut BytesMut) -> Result<Option<HeaderMap>, BodyFault> {
    let mut trailers = HeaderMap::new();
    if received.starts_with(LINE_END) {
        received.advance(LINE_END.len());
        return Ok(Some(trailers));
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADER_COUNT_MAX];
    let length = match httparse::parse_headers(received, &mut fields) {
        Ok(Status::Complete((length, fields))) if length <= RESPONSE_HEADER_BYTES_MAX => {
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes());
                let value = HeaderValue::from_bytes(field.value);
                let (Ok(name), Ok(value)) = (name, value) else { return Err(BodyFault::Trailers) };
                trailers.append(name, value);
            }
            length
        }
        Ok(Status::Partial) if received.len() <= RESPONSE_HEADER_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BodyFault::TrailersTooLarge),
        Err(_) => return Err(BodyFault::Trailers),
    };
    received.advance(length);
    Ok(Some(trailers))
}
