//! What the gateway reads from header blocks, and what it takes out of them on the way.
//!
//! Two rules hold in both directions. Fields about one connection (`Connection`, `Transfer-Encoding`, …)
//! end here. Fields named `x-fal-…` are the gateway's: a caller's are read and dropped, so that the app
//! can believe the ones it gets.

mod control;

use glowplug_core::request::{Answer, Hints};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::options::RESPONSE_HEADER_BYTES_MAX;

pub(crate) use control::CallerControl;
use control::{START_TIMEOUT_SECONDS_MIN, is_lifecycle_preference, latin_1};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-fal-request-id");
pub(crate) const ENDPOINT: HeaderName = HeaderName::from_static("x-fal-endpoint");
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-fal-caller-user-id");
pub(crate) const ERROR_TYPE: HeaderName = HeaderName::from_static("x-fal-error-type");
pub(crate) const NEEDS_RETRY: HeaderName = HeaderName::from_static("x-fal-needs-retry");
pub(crate) const TIMEOUT_TYPE: HeaderName = HeaderName::from_static("x-fal-request-timeout-type");
/// Ours, beside fal's: seconds until a queued request is expected to be answered.
pub(crate) const ETA_SECONDS: HeaderName = HeaderName::from_static("x-glowplug-eta-seconds");
/// Kept among the headers of a queued request, which its app is not shown.
pub(crate) const TAGS: HeaderName = HeaderName::from_static("x-fal-tags");
pub(crate) const TARGET_URL: HeaderName = HeaderName::from_static("x-fal-target-url");

const FAL_PREFIX: &str = "x-fal-";
/// What HTTP adds to each field beyond its name and value: `: ` and the line end.
const FIELD_OVERHEAD_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the request's headers take {bytes} bytes; at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("`{name}: {value}` is not a number of seconds above {START_TIMEOUT_SECONDS_MIN}")]
    StartTimeout { name: &'static str, value: String },
}

/// Why an app's response headers cannot be passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the app's response headers take {bytes} bytes; at most {RESPONSE_HEADER_BYTES_MAX} are allowed"
)]
pub(crate) struct ResponseHeadersTooLarge {
    bytes: usize,
}

/// Reads a caller's headers and leaves in them what the app should see.
pub(crate) fn receive(
    headers: &mut HeaderMap,
    bytes_max: usize,
) -> Result<CallerControl, HeaderError> {
    let mut bytes = 0;
    let mut dropped = Dropped::default();
    for (name, value) in &*headers {
        bytes += field_bytes(name, value);
        if !dropped.hop_by_hop(name) && is_gateways(name, value) {
            dropped.others.push(name.clone());
        }
    }
    if bytes > bytes_max {
        return Err(HeaderError::TooLarge { bytes, max: bytes_max });
    }
    if dropped.is_empty() {
        return Ok(CallerControl::default());
    }
    let mut control = if dropped.others.is_empty() {
        CallerControl::default()
    } else {
        CallerControl::read(headers)?
    };
    control.upgrade = upgrade(headers);
    dropped.take_out_of(headers);
    Ok(control)
}

/// Whether a caller's field ends here, read or not.
fn is_gateways(name: &HeaderName, value: &HeaderValue) -> bool {
    match name.as_str() {
        "expect" | "x-app-fal-disable-fallback" => true,
        name_text => name_text.starts_with(FAL_PREFIX) && !is_lifecycle_preference(name, value),
    }
}

/// Reads an app's headers and leaves in them what the caller should see.
pub(crate) fn answer(
    status: u16,
    headers: &mut HeaderMap,
) -> Result<Answer, ResponseHeadersTooLarge> {
    let mut answer = Answer { status, ..Answer::default() };
    let mut bytes = 0;
    let mut dropped = Dropped::default();
    for (name, value) in &*headers {
        bytes += field_bytes(name, value);
        match name.as_str() {
            "x-fal-needs-retry" => answer.needs_retry = flag(value),
            "x-fal-stop-runner" => answer.stop_runner = flag(value),
            "x-fal-runner-health-check" => answer.check_health = flag(value) == Some(true),
            "x-fal-runner-hints" => {
                // The caller sees them, too: the next request may name one.
                answer.hints = Some(Hints::parse(&latin_1(value.as_bytes())));
                continue;
            }
            _ => {
                dropped.hop_by_hop(name);
                continue;
            }
        }
        dropped.others.push(name.clone());
    }
    if bytes > RESPONSE_HEADER_BYTES_MAX {
        return Err(ResponseHeadersTooLarge { bytes });
    }
    if !dropped.is_empty() {
        dropped.take_out_of(headers);
    }
    Ok(answer)
}

fn field_bytes(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES
}

/// Fields that mean this connection only (RFC 9110 §7.6.1). `Trailer` is not one of them.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields found in a header block that end here. Nearly every block has one, so that these are found and
/// taken out without making a list of them.
#[derive(Default)]
struct Dropped {
    /// A bit for each of [`HOP_BY_HOP`].
    hop_by_hop: u8,
    others: Vec<HeaderName>,
}

impl Dropped {
    /// Notes the field if it means this connection only.
    fn hop_by_hop(&mut self, name: &HeaderName) -> bool {
        let found = HOP_BY_HOP.iter().position(|hop_by_hop| hop_by_hop == name);
        self.hop_by_hop |= found.map_or(0, |at| 1 << at);
        found.is_some()
    }

    fn is_empty(&self) -> bool {
        self.hop_by_hop == 0 && self.others.is_empty()
    }

    fn take_out_of(self, headers: &mut HeaderMap) {
        let named = named_by_connection(headers);
        let trailers = headers.get(header::TE).is_some_and(|value| {
            value.to_str().is_ok_and(|te| te.split(',').any(|coding| coding.trim() == "trailers"))
        });
        for (at, name) in HOP_BY_HOP.iter().enumerate() {
            if self.hop_by_hop & 1 << at != 0 {
                headers.remove(name);
            }
        }
        for name in self.others.into_iter().chain(named) {
            headers.remove(name);
        }
        if trailers {
            // The one coding that a gateway which passes trailers on may announce itself.
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Fields that mean this connection only because the sender says so.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    // What nearly always is all of it, and names nothing.
    if headers.get(header::CONNECTION).is_none_or(|value| value == "keep-alive" || value == "close")
        && headers.get_all(header::CONNECTION).iter().nth(1).is_none()
    {
        return Vec::new();
    }
    connection_tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        // Without these two the message would mean something else.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect()
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    connection_tokens(headers)
        .any(|token| token.eq_ignore_ascii_case("upgrade"))
        .then(|| protocol.clone())
}

fn flag(value: &HeaderValue) -> Option<bool> {
    let is = |word: &str| value.as_bytes().eq_ignore_ascii_case(word.as_bytes());
    if is("1") || is("true") || is("yes") {
        Some(true)
    } else if is("0") || is("false") || is("no") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
