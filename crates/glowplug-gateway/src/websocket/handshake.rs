//! The gateway's own answer to an upgrade (RFC 6455 §4.2.2).

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use glowplug_api::ErrorType;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::answer::Problem;
use crate::body::Body;

/// What the key is hashed with, so that no server agrees by accident.
const AGREEMENT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The only version there is.
const VERSION: &str = "13";
const KEY_BYTES: usize = 16;

/// Neither a subprotocol nor an extension is agreed on.
pub(super) fn accept(headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != VERSION) {
        let detail = format!("send `Sec-WebSocket-Version: {VERSION}`");
        return Err(Problem::new(ErrorType::BadRequest, detail));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let is_key = |key: &&[u8]| BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES);
    let Some(key) = key.filter(is_key) else {
        let detail = format!("send `Sec-WebSocket-Key` with {KEY_BYTES} bytes in base64");
        return Err(Problem::new(ErrorType::BadRequest, detail));
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, agreed(key));
    Ok(answer)
}

fn agreed(key: &[u8]) -> HeaderValue {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(AGREEMENT);
    let text = BASE64_STANDARD.encode(hash.finish());
    HeaderValue::try_from(text).expect("base64 is made of letters, digits and signs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_gets_its_answer() {
        assert_eq!(agreed(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let check = |fields: &[(&'static str, &str)], expected: bool| {
            let headers = fields
                .iter()
                .map(|(name, value)| {
                    (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
                })
                .collect();
            assert_eq!(accept(&headers).is_ok(), expected, "{fields:?}");
        };
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        check(&[key, ("sec-websocket-version", "13")], true);
        check(&[key], false);
        check(&[key, ("sec-websocket-version", "8")], false);
        check(&[("sec-websocket-version", "13")], false);
        check(&[("sec-websocket-version", "13"), ("sec-websocket-key", "dGhl")], false);
    }
}
