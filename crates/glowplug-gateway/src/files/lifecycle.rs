//! How long an uploader wants a file kept.

use std::time::Duration;

use glowplug_api::ErrorType;
use http::HeaderMap;
use serde::Deserialize;

use crate::answer::Problem;

/// Two names of one thing; clients send one or both.
const NAMES: [&str; 2] = ["x-fal-object-lifecycle", "x-fal-object-lifecycle-preference"];
/// More is as good as for ever.
const SECONDS_MAX: u64 = 10 * 365 * 24 * 60 * 60;

/// Who may read a file is not settable here, so `initial_acl` is not looked at.
#[derive(Deserialize)]
struct Lifecycle {
    expiration_duration_seconds: Option<u64>,
}

pub(super) fn keep(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let found = NAMES.iter().find_map(|name| Some((name, headers.get(*name)?)));
    let Some((name, value)) = found else { return Ok(None) };
    let lifecycle: Lifecycle = serde_json::from_slice(value.as_bytes()).map_err(|error| {
        let detail =
            format!("`{name}` is not like {{\"expiration_duration_seconds\": 3600}}: {error}");
        Problem::new(ErrorType::BadRequest, detail)
    })?;
    // As with fal, 0 is no wish.
    let seconds = lifecycle.expiration_duration_seconds.filter(|seconds| *seconds > 0);
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.min(SECONDS_MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_by_both_names() {
        let kept = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            keep(&headers).map_err(|problem| problem.kind)
        };
        for (value, expected) in [
            (r#"{"expiration_duration_seconds": 60}"#, Ok(Some(60))),
            (r#"{"expiration_duration_seconds": 0}"#, Ok(None)),
            (r#"{"initial_acl": {"default": "hide"}}"#, Ok(None)),
            (r#"{"expiration_duration_seconds": 18446744073709551615}"#, Ok(Some(SECONDS_MAX))),
            (r#"{"expiration_duration_seconds": -1}"#, Err(ErrorType::BadRequest)),
            ("60", Err(ErrorType::BadRequest)),
        ] {
            for name in NAMES {
                let expected = expected.map(|seconds| seconds.map(Duration::from_secs));
                assert_eq!(kept(name, value), expected, "{name}: {value}");
            }
        }
        assert_eq!(keep(&HeaderMap::new()).unwrap(), None);
    }
}
