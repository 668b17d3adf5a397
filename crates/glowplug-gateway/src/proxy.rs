//! `/proxy`: the JavaScript client's own way of reaching another server than fal's.
//!
//! It sends every request here with the address it means in `x-fal-target-url`. That address only
//! chooses one of our routes. Nothing is ever sent to it.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};

use crate::body::Body;
use crate::header::TARGET_URL;
use crate::options::ProxyOrigins;

/// How long a browser may remember that it is allowed, in seconds.
const PREFLIGHT_AGE: &str = "600";
/// What scripts may read beyond the few headers they always may.
const READABLE_HEADERS: &str =
    "x-fal-request-id, x-fal-error-type, x-fal-request-timeout-type, x-fal-billable-units";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The request's path is now that of a route of ours.
    DataPlane,
    /// The request's path is one of fal's REST service.
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error(
        "`x-fal-target-url` is missing: set `proxyUrl` of the JavaScript client to this address"
    )]
    Missing,
    #[error("`x-fal-target-url` is not an address: `{url}`")]
    Malformed { url: String },
    #[error(
        "`x-fal-target-url` names `{authority}`; only fal.run, queue.fal.run, ws.fal.run and \
         rest.fal.ai are served here"
    )]
    Foreign { authority: String },
}

/// Gives a proxied request the path it means here.
pub(crate) fn retarget<B>(request: &mut Request<B>) -> Result<Target, ProxyError> {
    let value = request.headers_mut().remove(TARGET_URL).ok_or(ProxyError::Missing)?;
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let (target, path) = parse(&text)?;
    *request.uri_mut() = Uri::from(path);
    Ok(target)
}

fn parse(text: &str) -> Result<(Target, PathAndQuery), ProxyError> {
    let malformed = || ProxyError::Malformed { url: text.to_owned() };
    let url = text.parse::<Uri>().map_err(|_| malformed())?;
    let authority = url.authority().ok_or_else(malformed)?.as_str();
    if !matches!(url.scheme_str(), Some("https" | "http" | "wss" | "ws")) {
        return Err(malformed());
    }
    // Compared whole, so that neither a port nor a user name gets past.
    let prefix = match authority {
        "fal.run" => "/run",
        "queue.fal.run" => "/queue",
        "ws.fal.run" => "/ws",
        "rest.fal.ai" => "",
        _ => return Err(ProxyError::Foreign { authority: authority.to_owned() }),
    };
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = [prefix, path].concat().parse().map_err(|_| malformed())?;
    let target = if prefix.is_empty() { Target::Rest } else { Target::DataPlane };
    Ok((target, path))
}

/// The answer to a browser whose page may use the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cors {
    origin: HeaderValue,
}

impl Cors {
    /// `None`: not a browser, or not a page that may.
    pub(crate) fn of(origins: &ProxyOrigins, headers: &HeaderMap) -> Option<Self> {
        let origin = headers.get(header::ORIGIN)?;
        let allowed = origin.to_str().is_ok_and(|origin| origins.allow(origin));
        allowed.then(|| Self { origin: origin.clone() })
    }

    pub(crate) fn preflight(&self, asked: &HeaderMap) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        self.permit(headers);
        let methods = HeaderValue::from_static("GET, POST, PUT, DELETE");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        let age = HeaderValue::from_static(PREFLIGHT_AGE);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
        answer
    }

    /// Replaces what the app said about other pages: here the node decides.
    pub(crate) fn permit(&self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let readable = HeaderValue::from_static(READABLE_HEADERS);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, readable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_choose_routes_of_ours_only() {
        let foreign =
            |authority: &str| Err(ProxyError::Foreign { authority: authority.to_owned() });
        let malformed = |url: &str| Err(ProxyError::Malformed { url: url.to_owned() });
        let data = |path: &str| Ok((Target::DataPlane, path.to_owned()));
        let cases = [
            ("https://fal.run/me/app", data("/run/me/app")),
            ("https://fal.run/me/app/a?b=c", data("/run/me/app/a?b=c")),
            (
                "https://queue.fal.run/me/app/requests/1/status?logs=1",
                data("/queue/me/app/requests/1/status?logs=1"),
            ),
            ("wss://ws.fal.run/me/app", data("/ws/me/app")),
            ("https://rest.fal.ai/tokens/", Ok((Target::Rest, "/tokens/".to_owned()))),
            ("https://rest.fal.ai/proxy", Ok((Target::Rest, "/proxy".to_owned()))),
            ("https://fal.run", data("/run/")),
            ("https://fal.run:8443/me/app", foreign("fal.run:8443")),
            ("https://a@fal.run/me/app", foreign("a@fal.run")),
            ("https://FAL.RUN/me/app", foreign("FAL.RUN")),
            ("https://fal.run.evil.test/me/app", foreign("fal.run.evil.test")),
            ("http://169.254.169.254/latest", foreign("169.254.169.254")),
            ("https://127.0.0.1:22/", foreign("127.0.0.1:22")),
            ("file:///etc/passwd", malformed("file:///etc/passwd")),
            ("ftp://fal.run/a", malformed("ftp://fal.run/a")),
            ("/me/app", malformed("/me/app")),
            ("", malformed("")),
        ];
        for (url, expected) in cases {
            let got = parse(url).map(|(target, path)| (target, path.to_string()));
            assert_eq!(got, expected, "{url}");
        }
    }
}
