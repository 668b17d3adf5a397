//! Tells from a request's path which route of the data plane it means.

use crate::files::FilesRoute;

/// Bytes of `owner/app` together.
const APP_NAME_BYTES_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/run/{owner}/{app}[/{path}]`
    Run(AppPath<'a>),
    /// `/ws/{owner}/{app}[/{path}]`
    WebSocket(AppPath<'a>),
    /// `/queue/{owner}/{app}[/{path}]`
    Submit(AppPath<'a>),
    /// `/queue/{owner}/{app}/requests/{id}[/…]`
    Queued { app: &'a str, id: &'a str, action: QueuedAction },
    /// `/proxy`
    Proxy,
    /// `/tokens/`
    Tokens,
    /// `/files/…` and `/storage/…`
    Files(FilesRoute<'a>),
    /// Not of the data plane.
    Other,
}

/// What is asked about a queued request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueuedAction {
    Status,
    StatusStream,
    Response,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppPath<'a> {
    /// `owner/app[--env]`.
    pub(crate) app: &'a str,
    /// What follows: empty, or a path with its leading slash.
    pub(crate) rest: &'a str,
}

/// A path below one of our prefixes that names no app or no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("the path names no app: expected {prefix}/OWNER/APP")]
    NoApp { prefix: &'static str },
    #[error(
        "`{prefix}/…` names an app with characters other than letters, digits, `-`, `_` and `.`"
    )]
    AppName { prefix: &'static str },
    #[error(
        "nothing is found there: below requests/ID there are `status`, `status/stream`, `response` and `cancel`"
    )]
    Action,
}

impl<'a> Route<'a> {
    pub(crate) fn parse(path: &'a str) -> Result<Self, PathError> {
        if let Some(rest) = below(path, "/run") {
            return app_path(rest, "/run").map(Self::Run);
        }
        if let Some(rest) = below(path, "/queue") {
            let target = app_path(rest, "/queue")?;
            return match target.rest.strip_prefix("/requests/") {
                Some(request) => queued(target.app, request),
                None => Ok(Self::Submit(target)),
            };
        }
        if let Some(rest) = below(path, "/ws") {
            return app_path(rest, "/ws").map(Self::WebSocket);
        }
        match path {
            "/proxy" | "/proxy/" => Ok(Self::Proxy),
            "/tokens" | "/tokens/" | "/tokens/realtime" | "/tokens/realtime/" => Ok(Self::Tokens),
            _ => Ok(FilesRoute::parse(path).map_or(Self::Other, Self::Files)),
        }
    }
}

/// What follows `prefix`, if the path is it or is below it.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn app_path<'a>(below: &'a str, prefix: &'static str) -> Result<AppPath<'a>, PathError> {
    let no_app = PathError::NoApp { prefix };
    let owner_end = below.find('/').ok_or(no_app)?;
    let name_from = owner_end + 1;
    let app_end = below[name_from..].find('/').map_or(below.len(), |at| name_from + at);
    let (owner, name) = (&below[..owner_end], &below[name_from..app_end]);
    if owner.is_empty() || name.is_empty() {
        return Err(no_app);
    }
    if app_end > APP_NAME_BYTES_MAX || !is_name(owner) || !is_name(name) {
        return Err(PathError::AppName { prefix });
    }
    Ok(AppPath { app: &below[..app_end], rest: &below[app_end..] })
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.bytes().all(allowed) && text != "." && text != ".."
}

fn queued<'a>(app: &'a str, below: &'a str) -> Result<Route<'a>, PathError> {
    let below = below.strip_suffix('/').unwrap_or(below);
    let (id, action) = below.split_once('/').unwrap_or((below, ""));
    let action = match action {
        "" | "response" => QueuedAction::Response,
        "status" => QueuedAction::Status,
        "status/stream" => QueuedAction::StatusStream,
        "cancel" => QueuedAction::Cancel,
        _ => return Err(PathError::Action),
    };
    Ok(Route::Queued { app, id, action })
}

/// The first value of a query parameter, as written.
pub(crate) fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn app<'a>(app: &'a str, rest: &'a str) -> AppPath<'a> {
        AppPath { app, rest }
    }

    #[test]
    fn paths_mean_routes() {
        let queued = |action| Ok(Route::Queued { app: "me/app--dev", id: "0192-x", action });
        let no_app = |prefix| Err(PathError::NoApp { prefix });
        let cases = [
            ("/run/me/app", Ok(Route::Run(app("me/app", "")))),
            ("/run/me/app/", Ok(Route::Run(app("me/app", "/")))),
            ("/run/me/app/a/b%20c", Ok(Route::Run(app("me/app", "/a/b%20c")))),
            ("/run/me/app//x", Ok(Route::Run(app("me/app", "//x")))),
            ("/run/me/app/requests/1", Ok(Route::Run(app("me/app", "/requests/1")))),
            ("/ws/me/app/realtime", Ok(Route::WebSocket(app("me/app", "/realtime")))),
            ("/queue/me/app--dev", Ok(Route::Submit(app("me/app--dev", "")))),
            ("/queue/me/app/sub/path", Ok(Route::Submit(app("me/app", "/sub/path")))),
            ("/queue/me/app/requests", Ok(Route::Submit(app("me/app", "/requests")))),
            ("/queue/me/app--dev/requests/0192-x", queued(QueuedAction::Response)),
            ("/queue/me/app--dev/requests/0192-x/", queued(QueuedAction::Response)),
            ("/queue/me/app--dev/requests/0192-x/response", queued(QueuedAction::Response)),
            ("/queue/me/app--dev/requests/0192-x/status", queued(QueuedAction::Status)),
            ("/queue/me/app--dev/requests/0192-x/status/", queued(QueuedAction::Status)),
            (
                "/queue/me/app--dev/requests/0192-x/status/stream",
                queued(QueuedAction::StatusStream),
            ),
            ("/queue/me/app--dev/requests/0192-x/cancel", queued(QueuedAction::Cancel)),
            ("/queue/me/app/requests/1/other", Err(PathError::Action)),
            ("/proxy", Ok(Route::Proxy)),
            ("/proxy/x", Ok(Route::Other)),
            ("/tokens/", Ok(Route::Tokens)),
            ("/tokens/realtime", Ok(Route::Tokens)),
            ("/tokens/other", Ok(Route::Other)),
            ("/files/upload", Ok(Route::Files(FilesRoute::Upload))),
            ("/files", Ok(Route::Other)),
            ("/runs/me/app", Ok(Route::Other)),
            ("/", Ok(Route::Other)),
            ("", Ok(Route::Other)),
            ("*", Ok(Route::Other)),
            ("/run", no_app("/run")),
            ("/run/me", no_app("/run")),
            ("/run/me/", no_app("/run")),
            ("/run//app", no_app("/run")),
            ("/queue/me", no_app("/queue")),
            ("/ws/", no_app("/ws")),
            ("/run/../app", Err(PathError::AppName { prefix: "/run" })),
            ("/run/me/a%2Fb", Err(PathError::AppName { prefix: "/run" })),
            ("/queue/me/a;b", Err(PathError::AppName { prefix: "/queue" })),
        ];
        for (path, expected) in cases {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn query_values_are_found_by_whole_name() {
        let cases = [
            ("logs=1", "logs", Some("1")),
            ("a=b&logs=true&c", "logs", Some("true")),
            ("xlogs=1", "logs", None),
            ("logs", "logs", Some("")),
            ("", "logs", None),
            ("fal_webhook=http%3A%2F%2Fa", "fal_webhook", Some("http%3A%2F%2Fa")),
        ];
        for (query, name, expected) in cases {
            assert_eq!(query_value(query, name), expected, "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/(run|queue|ws|proxy|requests|status|stream|[a-z.%é-]{0,5}))*/?") {
            match Route::parse(&path) {
                Ok(Route::Run(at) | Route::Submit(at) | Route::WebSocket(at)) => {
                    prop_assert!(at.app.split('/').count() == 2);
                    prop_assert!(at.rest.is_empty() || at.rest.starts_with('/'));
                    prop_assert!(path.ends_with(at.rest));
                }
                Ok(Route::Queued { app, .. }) => prop_assert!(app.split('/').count() == 2),
                Ok(_) | Err(_) => {}
            }
        }

        #[test]
        fn no_text_panics(path in ".*", name in ".*") {
            let _ = Route::parse(&path);
            let _ = query_value(&path, &name);
        }
    }
}
