//! Which app a path asks for.

use std::time::Duration;

use glowplug_core::request::Mode;

use super::super::error::Fault;

/// The gateway's own paths, which are no apps.
const RESERVED: &[&str] = &["api", "proxy"];

/// Where the app stands in a path.
#[derive(Debug)]
pub(super) enum AppPath {
    /// The gateway's paths, or else `/{owner}/{app}`.
    Gateway,
    Pattern(Vec<Part>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Any,
    Owner,
    App,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) name: String,
    /// Through the queue: the answer is only a receipt, and its time not the service time.
    pub(super) queued: bool,
}

impl AppPath {
    pub(super) fn new(pattern: Option<&str>) -> Result<Self, Fault> {
        pattern.map_or(Ok(Self::Gateway), |pattern| parse(pattern).map(Self::Pattern))
    }

    /// As [`AppPath::find`], where everything may be one app.
    pub(super) fn asked(&self, method: &str, target: &str, one_app: Option<&str>) -> Option<Asked> {
        match one_app {
            None => self.find(method, target),
            Some(_) if target.is_empty() || method.eq_ignore_ascii_case("OPTIONS") => None,
            Some(name) => Some(Asked { name: name.to_owned(), queued: false }),
        }
    }

    /// `None`: no app, or something about one that is no request to it.
    fn find(&self, method: &str, target: &str) -> Option<Asked> {
        let segments: Vec<&str> = path_of(target).split('/').skip(1).collect();
        if method.eq_ignore_ascii_case("OPTIONS") {
            return None;
        }
        match self {
            Self::Gateway => gateway(method, &segments),
            Self::Pattern(pattern) => {
                matched(pattern, &segments).map(|name| Asked { name, queued: false })
            }
        }
    }
}

impl Asked {
    /// How it was asked for, and how long that took.
    pub(super) fn mode(&self, service: Option<Duration>) -> (Mode, Option<Duration>) {
        if self.queued { (Mode::Queued, None) } else { (Mode::Direct, service) }
    }
}

fn gateway(method: &str, segments: &[&str]) -> Option<Asked> {
    let (owner, app, queued) = match segments {
        [first, ..] if RESERVED.contains(first) => return None,
        ["queue", owner, app, rest @ ..] => {
            let submits = method.eq_ignore_ascii_case("POST");
            if !submits || matches!(rest, ["requests", _, ..]) {
                return None;
            }
            (owner, app, true)
        }
        ["run" | "ws", owner, app, ..] | [owner, app, ..] => (owner, app, false),
        _ => return None,
    };
    let named = !owner.is_empty() && !app.is_empty();
    named.then(|| Asked { name: format!("{owner}/{app}"), queued })
}

/// Without scheme, host and query.
fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

fn parse(pattern: &str) -> Result<Vec<Part>, Fault> {
    let parts: Vec<Part> = pattern
        .split('/')
        .skip(1)
        .map(|segment| match segment {
            "*" => Part::Any,
            "{owner}" => Part::Owner,
            "{app}" => Part::App,
            text => Part::Text(text.to_owned()),
        })
        .collect();
    if pattern.starts_with('/') && parts.contains(&Part::App) {
        Ok(parts)
    } else {
        Err(Fault::AppPath(pattern.to_owned()))
    }
}

/// A pattern matches what begins like it.
fn matched(pattern: &[Part], segments: &[&str]) -> Option<String> {
    if segments.len() < pattern.len() {
        return None;
    }
    let (mut owner, mut app) = (None, None);
    for (part, segment) in pattern.iter().zip(segments) {
        match part {
            _ if segment.is_empty() => return None,
            Part::Text(text) if text != segment => return None,
            Part::Text(_) | Part::Any => {}
            Part::Owner => owner = Some(segment),
            Part::App => app = Some(segment),
        }
    }
    let app = app?;
    Some(owner.map_or_else(|| (*app).to_owned(), |owner| format!("{owner}/{app}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_apps() {
        let check = |pattern: Option<&str>, request: &str, expected: Option<(&str, bool)>| {
            let (method, target) = request.split_once(' ').unwrap();
            let asked = AppPath::new(pattern).unwrap().find(method, target);
            let expected = expected.map(|(name, queued)| Asked { name: name.into(), queued });
            assert_eq!(asked, expected, "{request}");
        };
        check(None, "POST /run/me/ocr", Some(("me/ocr", false)));
        check(None, "POST /run/me/ocr/sub/path?a=/b", Some(("me/ocr", false)));
        check(None, "GET /ws/me/ocr", Some(("me/ocr", false)));
        check(None, "POST /me/ocr", Some(("me/ocr", false)));
        check(None, "POST https://host:8443/me/ocr", Some(("me/ocr", false)));
        check(None, "POST /queue/me/ocr", Some(("me/ocr", true)));
        check(None, "POST /queue/me/ocr/sub", Some(("me/ocr", true)));
        check(None, "GET /queue/me/ocr/requests/1/status", None);
        check(None, "PUT /queue/me/ocr/requests/1/cancel", None);
        check(None, "OPTIONS /run/me/ocr", None);
        check(None, "GET /api/v1/apps", None);
        check(None, "GET /metrics", None);
        check(None, "GET /", None);
        check(None, "GET *", None);
        check(None, "GET //x", None);
        check(None, "GET /run/x", Some(("run/x", false)));
        check(Some("/{owner}/{app}"), "POST /queue/ocr", Some(("queue/ocr", false)));
        check(Some("/v1/{app}/*"), "POST /v1/ocr/predict", Some(("ocr", false)));
        check(Some("/v1/{app}/*"), "POST /v1/ocr", None);
        check(Some("/v1/{app}/*"), "POST /v2/ocr/predict", None);
        check(Some("/models/{owner}/{app}"), "GET /models/me/ocr", Some(("me/ocr", false)));
    }

    #[test]
    fn a_pattern_without_an_app_is_refused() {
        for pattern in ["", "v1/{app}", "/v1/app", "/{owner}"] {
            assert!(AppPath::new(Some(pattern)).is_err(), "{pattern}");
        }
    }
}
