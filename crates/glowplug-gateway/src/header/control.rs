//! What a caller's headers ask of the gateway.
//!
//! Wrong values are of two kinds. A start timeout that cannot be meant is an error, because the caller
//! counts on it. Everything else is a wish, and a wish that nobody understands is none.

use std::time::Duration;

use glowplug_core::request::Priority;
use glowplug_core::retry::{Budgets, Wish};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{HeaderError, flag};
use crate::host::Caller;

pub(super) const LIFECYCLE: HeaderName =
    HeaderName::from_static("x-fal-object-lifecycle-preference");

/// Bytes of `X-Fal-Runner-Hint`. A longer hint is none: it only says which runner would be best.
pub(crate) const RUNNER_HINT_BYTES_MAX: usize = 256;
/// Bytes of `X-Fal-Retry-Config` and of `X-Fal-Object-Lifecycle-Preference`. Longer ones are ignored.
const JSON_BYTES_MAX: usize = 1_024;
/// `X-Fal-Tags`: pairs in all, and bytes of a key, of a value, and of the header. What goes beyond, or is not
/// a pair, is dropped: a tag is for reports, and no reason to refuse a request.
const TAGS_MAX: usize = 10;
const TAG_KEY_BYTES_MAX: usize = 64;
const TAG_VALUE_BYTES_MAX: usize = 256;
const TAGS_BYTES_MAX: usize = 1_024;
/// A start timeout of this or less is a mistake: no app could start within it.
pub(super) const START_TIMEOUT_SECONDS_MIN: f64 = 0.1;

/// What a caller's headers ask of the gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallerControl {
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) priority: Priority,
    pub(super) retries: Wish,
    /// The kind of runner that would be best.
    pub(crate) hint: Option<String>,
    /// Whether the payload of a queued request is kept as long as its answer.
    pub(crate) keep_payload: bool,
    /// The caller's own labels, `key=value,key=value`, that are kept with a queued request.
    pub(crate) tags: Option<HeaderValue>,
    /// The protocol of an `Upgrade` the caller wants on this connection.
    pub(crate) upgrade: Option<HeaderValue>,
}

impl Default for CallerControl {
    fn default() -> Self {
        Self {
            start_timeout: None,
            priority: Priority::Normal,
            retries: Wish::Unsaid,
            hint: None,
            keep_payload: true,
            tags: None,
            upgrade: None,
        }
    }
}

impl CallerControl {
    /// Reads the fields that are the gateway's.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, HeaderError> {
        let is_no = |name| headers.get(name).and_then(flag) == Some(false);
        Ok(Self {
            start_timeout: start_timeout(headers)?,
            priority: priority(headers),
            retries: retries(headers),
            hint: hint(headers),
            keep_payload: !is_no("x-fal-store-io"),
            tags: headers.get(super::TAGS).and_then(tags),
            upgrade: None,
        })
    }

    /// What this caller may say about retries. Budgets cost the app's owner runner time, so they are for
    /// those whom the owner gave a key; that there be no retry is anyone's to say.
    pub(crate) fn retries(&self, caller: &Caller) -> Wish {
        match self.retries {
            Wish::Budgets(_) if caller.is_anonymous() => Wish::Unsaid,
            wish => wish,
        }
    }
}

/// The newer name wins over the deprecated one, which the clients still send.
fn start_timeout(headers: &HeaderMap) -> Result<Option<Duration>, HeaderError> {
    let names = ["x-fal-request-start-timeout", "x-fal-request-timeout"];
    let found = names.into_iter().find_map(|name| Some((name, headers.get(name)?)));
    let Some((name, value)) = found else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    match seconds {
        // A length of time that cannot be represented never ends.
        Some(seconds) if seconds > START_TIMEOUT_SECONDS_MIN => {
            Ok(Duration::try_from_secs_f64(seconds).ok())
        }
        _ => {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            Err(HeaderError::StartTimeout { name, value })
        }
    }
}

/// Callers can only lower their priority; anything unknown is normal.
fn priority(headers: &HeaderMap) -> Priority {
    match headers.get("x-fal-queue-priority") {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"low") => Priority::Low,
        _ => Priority::Normal,
    }
}

fn retries(headers: &HeaderMap) -> Wish {
    if headers.get("x-fal-no-retry").and_then(flag) == Some(true) {
        return Wish::Never;
    }
    let config = headers.get("x-fal-retry-config").and_then(budgets);
    config.map_or(Wish::Unsaid, Wish::Budgets)
}

/// Half understood would be neither what the caller said nor what holds without it, so that one wrong
/// part makes the whole invalid.
fn budgets(value: &HeaderValue) -> Option<Budgets> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Condition {
        retries: u32,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        timeout: Option<Condition>,
        client_error: Option<Condition>,
        server_error: Option<Condition>,
        connection_error: Option<Condition>,
    }
    let config: Config = json(value)?;
    let retries = |condition: Option<Condition>| condition.map(|condition| condition.retries);
    Some(Budgets {
        timeout: retries(config.timeout),
        client_error: retries(config.client_error),
        server_error: retries(config.server_error),
        connection_error: retries(config.connection_error),
    })
}

/// The pairs that are tags.
fn tags(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok().filter(|text| text.len() <= TAGS_BYTES_MAX)?;
    let is_key = |key: &str| {
        let is_of_a_key =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
        (1..=TAG_KEY_BYTES_MAX).contains(&key.len())
            && key.bytes().all(is_of_a_key)
            && !key.starts_with("fal.")
    };
    let is_tag = |pair: &&str| {
        pair.split_once('=')
            .is_some_and(|(key, value)| is_key(key) && value.len() <= TAG_VALUE_BYTES_MAX)
    };
    let pairs = text.split(',').map(str::trim).filter(is_tag).take(TAGS_MAX);
    let tags = pairs.collect::<Vec<_>>().join(",");
    HeaderValue::from_str(&tags).ok().filter(|tags| !tags.is_empty())
}

/// Apps name their hints in bytes of any kind, and only the same bytes are the same hint.
fn hint(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-fal-runner-hint")?.as_bytes().trim_ascii();
    let fits = !value.is_empty() && value.len() <= RUNNER_HINT_BYTES_MAX;
    fits.then(|| latin_1(value))
}

/// Each byte as one character.
pub(super) fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Apps read this one themselves when they store what they made, so that it is theirs to have if it is
/// what it should be.
pub(super) fn is_lifecycle_preference(name: &HeaderName, value: &HeaderValue) -> bool {
    *name == LIFECYCLE && json::<Map<String, Value>>(value).is_some()
}

fn json<T: for<'de> Deserialize<'de>>(value: &HeaderValue) -> Option<T> {
    let bytes = value.as_bytes();
    if bytes.len() > JSON_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}
