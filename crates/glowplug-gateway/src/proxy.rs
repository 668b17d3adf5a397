//! `/proxy`: the JavaScript client's own way of reaching another server than fal's.
//!
//! It sends every request here with the address it means in `x-fal-target-url`. That address only
//! chooses one of our routes. Nothing is ever sent to it.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};

use crate::body::Body;
use crate::dispatch::authority;
use crate::header::TARGET_URL;
use crate::options::ProxyOrigins;
use crate::path::Route;

/// How long a browser may remember that it is allowed, in seconds.
const PREFLIGHT_AGE: &str = "600";
/// What scripts may read beyond the few headers they always may.
const READABLE_HEADERS: &str =
    "x-fal-request-id, x-fal-error-type, x-fal-request-timeout-type, x-fal-billable-units";

/// fal's hosts that the clients name by themselves, and what each means here.
pub(crate) const FAL_HOSTS: [(&str, Service); 9] = [
    ("fal.run", Service::Run),
    ("falrun.com", Service::Run),
    ("queue.fal.run", Service::Queue),
    ("queue.falrun.com", Service::Queue),
    ("ws.fal.run", Service::WebSocket),
    ("rest.fal.ai", Service::Rest),
    ("api.fal.ai", Service::Rest),
    ("v3.fal.media", Service::Files),
    ("fal.media", Service::Files),
];

/// What one of fal's hosts serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Run,
    Queue,
    WebSocket,
    /// Its paths are not those of apps.
    Rest,
    Files,
}

impl Service {
    pub(crate) fn of(host: &str) -> Option<Self> {
        FAL_HOSTS.iter().find(|(known, _)| *known == host).map(|(_, service)| *service)
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Run => "/run",
            Self::Queue => "/queue",
            Self::WebSocket => "/ws",
            Self::Rest | Self::Files => "",
        }
    }

    /// Whether a host that serves this has such a route.
    pub(crate) fn has(self, route: &Route<'_>) -> bool {
        match self {
            Self::Run | Self::Queue | Self::WebSocket => true,
            Self::Rest => matches!(route, Route::Tokens | Route::Files(_)),
            Self::Files => matches!(route, Route::Files(_)),
        }
    }
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
    #[error(
        "the request is for the host `{authority}`, which is not one of fal's that are served here"
    )]
    ForeignHost { authority: String },
}

/// Gives a proxied request the path it means here.
pub(crate) fn retarget<B>(request: &mut Request<B>) -> Result<Service, ProxyError> {
    let value = request.headers_mut().remove(TARGET_URL).ok_or(ProxyError::Missing)?;
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let (service, path) = parse(&text)?;
    lead_to(request, path);
    Ok(service)
}

/// As [`retarget`], for a caller that took us for the host it names.
pub(crate) fn retarget_by_host<B>(request: &mut Request<B>) -> Result<Service, ProxyError> {
    let named = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let named = named.map(|host| String::from_utf8_lossy(host).into_owned());
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let authority = named.or(authority).unwrap_or_default().to_ascii_lowercase();
    let host = authority.strip_suffix(":443").unwrap_or(&authority);
    let Some(service) = Service::of(host) else {
        return Err(ProxyError::ForeignHost { authority });
    };
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let path = [service.prefix(), path].concat();
    let malformed = |_| ProxyError::Malformed { url: path.clone() };
    lead_to(request, PathAndQuery::try_from(path.as_str()).map_err(malformed)?);
    Ok(service)
}

/// In HTTP/2 the URI alone says how the caller named us, and addresses in answers are made of that name.
fn lead_to<B>(request: &mut Request<B>, path: PathAndQuery) {
    if let Some(named) = authority(request.headers(), request.uri())
        && let Ok(named) = HeaderValue::from_str(named.as_str())
    {
        request.headers_mut().insert(header::HOST, named);
    }
    *request.uri_mut() = Uri::from(path);
}

fn parse(text: &str) -> Result<(Service, PathAndQuery), ProxyError> {
    let malformed = || ProxyError::Malformed { url: text.to_owned() };
    let url = text.parse::<Uri>().map_err(|_| malformed())?;
    let authority = url.authority().ok_or_else(malformed)?.as_str();
    if !matches!(url.scheme_str(), Some("https" | "http" | "wss" | "ws")) {
        return Err(malformed());
    }
    // Compared whole, so that neither a port nor a user name gets past.
    let service = Service::of(authority)
        .ok_or_else(|| ProxyError::Foreign { authority: authority.to_owned() })?;
    let path = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = [service.prefix(), path].concat().parse().map_err(|_| malformed())?;
    Ok((service, path))
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
        let to = |service, path: &str| Ok((service, path.to_owned()));
        let cases = [
            ("https://fal.run/me/app", to(Service::Run, "/run/me/app")),
            ("https://fal.run/me/app/a?b=c", to(Service::Run, "/run/me/app/a?b=c")),
            (
                "https://queue.fal.run/me/app/requests/1/status?logs=1",
                to(Service::Queue, "/queue/me/app/requests/1/status?logs=1"),
            ),
            ("wss://ws.fal.run/me/app", to(Service::WebSocket, "/ws/me/app")),
            ("https://rest.fal.ai/tokens/", to(Service::Rest, "/tokens/")),
            ("https://rest.fal.ai/proxy", to(Service::Rest, "/proxy")),
            ("https://fal.run", to(Service::Run, "/run/")),
            ("https://v3.fal.media/files/a/b", to(Service::Files, "/files/a/b")),
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
            let got = parse(url).map(|(service, path)| (service, path.to_string()));
            assert_eq!(got, expected, "{url}");
        }
    }
}
