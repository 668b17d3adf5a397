//! Parses the head of an answer.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use httparse::Status;

use super::AnswerDecoder;
use crate::options::{HEADER_COUNT_MAX, RESPONSE_HEADER_BYTES_MAX};

/// Where the parser gives up on a head. Above [`RESPONSE_HEADER_BYTES_MAX`], so that a block a little
/// over that limit is still counted exactly and named in the error.
const HEAD_BYTES_MAX: usize = 2 * RESPONSE_HEADER_BYTES_MAX;

#[derive(Debug)]
pub(in crate::forward) struct Head {
    pub(in crate::forward) status: StatusCode,
    pub(in crate::forward) headers: HeaderMap,
}

#[derive(Debug)]
pub(in crate::forward) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// An interim answer was passed over.
    Interim,
    Head {
        head: Head,
        body: AnswerDecoder,
        /// The runner keeps the connection open after this answer.
        keeps_open: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub(in crate::forward) enum HeadFault {
    #[error("more than {HEADER_COUNT_MAX} fields or {RESPONSE_HEADER_BYTES_MAX} bytes")]
    TooLarge,
    #[error(transparent)]
    Syntax(httparse::Error),
    #[error("{0}")]
    Framing(&'static str),
}

impl From<httparse::Error> for HeadFault {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooLarge,
            error => Self::Syntax(error),
        }
    }
}

/// Takes the head of the answer to a request of this method out of what was received.
pub(in crate::forward) fn parse_head(
    received: &mut BytesMut,
    method: &Method,
) -> Result<Parsed, HeadFault> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADER_COUNT_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        received,
        &mut fields,
    )?;
    let Status::Complete(length) = parsed else {
        return if received.len() > HEAD_BYTES_MAX {
            Err(HeadFault::TooLarge)
        } else {
            Ok(Parsed::Partial)
        };
    };
    if length > HEAD_BYTES_MAX {
        return Err(HeadFault::TooLarge);
    }
    let status = StatusCode::from_u16(response.code.unwrap_or_default())
        .map_err(|_| HeadFault::Framing("the status is not one"))?;
    let parsed = if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        Parsed::Interim
    } else {
        let is_newer = response.version == Some(1);
        read(status, is_newer, response.headers, method)?
    };
    received.advance(length);
    Ok(parsed)
}

/// What the fields say of the message they are in.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

/// `is_newer`: HTTP/1.1, not HTTP/1.0.
fn read(
    status: StatusCode,
    is_newer: bool,
    fields: &[httparse::Header<'_>],
    method: &Method,
) -> Result<Parsed, HeadFault> {
    let bodiless = is_bodiless(status, method);
    let mut said = Said::default();
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadFault::Syntax(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_bytes(field.value)
            .map_err(|_| HeadFault::Syntax(httparse::Error::HeaderValue))?;
        if name == header::CONNECTION {
            said.connection(field.value);
        } else if bodiless {
            // What they say would be true of another answer.
        } else if name == header::CONTENT_LENGTH {
            said.length(field.value)?;
        } else if name == header::TRANSFER_ENCODING {
            said.coding(field.value, is_newer)?;
        }
        headers.append(name, value);
    }
    let body = match said {
        _ if bodiless => AnswerDecoder::End,
        Said { chunked: true, length: Some(_), .. } => {
            return Err(HeadFault::Framing("it has a length and comes in chunks"));
        }
        Said { chunked: true, .. } => AnswerDecoder::chunked(),
        Said { length: Some(bytes), .. } => AnswerDecoder::length(bytes),
        Said { .. } => AnswerDecoder::UntilClose,
    };
    let keeps_open = !said.close
        && (is_newer || said.keep_alive)
        && status != StatusCode::SWITCHING_PROTOCOLS
        && *method != Method::CONNECT
        && !matches!(body, AnswerDecoder::UntilClose);
    Ok(Parsed::Head { head: Head { status, headers }, body, keeps_open })
}

/// Whether such an answer ends with its head, whatever its fields say (RFC 9112 §6.3).
fn is_bodiless(status: StatusCode, method: &Method) -> bool {
    matches!(
        status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) || *method == Method::HEAD
        || (*method == Method::CONNECT && status.is_success())
}

impl Said {
    fn connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// The same length said twice is still one length.
    fn length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        for text in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let bytes = decimal(text).ok_or(HeadFault::Framing("its length is not a number"))?;
            if self.length.replace(bytes).is_some_and(|before| before != bytes) {
                return Err(HeadFault::Framing("it has two lengths"));
            }
        }
        Ok(())
    }

    fn coding(&mut self, value: &[u8], is_newer: bool) -> Result<(), HeadFault> {
        if !is_newer {
            return Err(HeadFault::Framing("HTTP/1.0 has no transfer codings"));
        }
        if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(HeadFault::Framing("its transfer coding is not `chunked`"));
        }
        self.chunked = true;
        Ok(())
    }
}

/// Digits and nothing else: the standard parser would take a sign.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
