//! Files on their way out.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use glowplug_api::ErrorType;
use percent_encoding::percent_decode_str;

use super::range::{Asked, asked};
use super::upload::keyholder;
use super::{FileView, Files, name};
use crate::answer::Problem;
use crate::body::Body;
use crate::dispatch::Exchange;

/// A script in a file must not act as a page of this node, whose API may be open to it.
const POLICY: &str =
    "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'";
/// What scripts of pages may read beyond the few headers they always may.
const READABLE: &str = "etag, content-range, accept-ranges, content-disposition, repr-digest, \
                        x-fal-request-id, x-fal-error-type";
/// How long a browser may remember that it is allowed, in seconds.
const PREFLIGHT_AGE: &str = "600";
/// How long anybody may keep a copy at most, in seconds.
const COPY_SECONDS_MAX: u64 = 365 * 24 * 60 * 60;

/// Serves `GET` and `HEAD` of a file.
pub(super) async fn file(
    exchange: &Exchange,
    files: &dyn Files,
    id: &str,
    name: Option<&str>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let file = find(files, id, name)?;
    let given = request.headers();
    let etag = HeaderValue::from_str(&format!("\"{}\"", hex(&file.sha256)))
        .expect("digits are a header value");
    let text = |name: header::HeaderName| given.get(name).and_then(|value| value.to_str().ok());
    let mut answer = Response::new(Body::empty());
    describe(answer.headers_mut(), &file, &etag, exchange.worker.host.now());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| names(tags, &etag)) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(answer);
    }
    // A range of what the caller has seen, or the whole of what there is.
    let same = given.get(header::IF_RANGE).is_none_or(|tag| *tag == etag);
    let range = text(header::RANGE).filter(|_| same && request.method() == Method::GET);
    let range = match asked(range, file.bytes) {
        Asked::Whole => 0..file.bytes,
        Asked::Part(range) => {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let part = format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes);
            insert(answer.headers_mut(), header::CONTENT_RANGE, &part);
            range
        }
        Asked::Unsatisfiable => {
            let detail = format!("the file has {} bytes, and the range lies beyond", file.bytes);
            let mut answer = Problem::new(ErrorType::RangeNotSatisfiable, detail).answer();
            let all = format!("bytes */{}", file.bytes);
            insert(answer.headers_mut(), header::CONTENT_RANGE, &all);
            return Ok(answer);
        }
    };
    insert(answer.headers_mut(), header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    if request.method() == Method::GET {
        let bytes = files.read(id).await?(range);
        *answer.body_mut() = Body::boxed(StreamBody::new(bytes.map_ok(Frame::data)));
    }
    Ok(answer)
}

fn find(files: &dyn Files, id: &str, name: Option<&str>) -> Result<FileView, Problem> {
    let name = name.map(|name| percent_decode_str(name).decode_utf8_lossy());
    files.find(id).filter(|file| name.is_none_or(|name| name == file.file_name)).ok_or_else(|| {
        let detail = "there is no such file; it may have been deleted, or its time may be over";
        Problem::new(ErrorType::NotFound, detail)
    })
}

fn describe(
    headers: &mut HeaderMap,
    file: &FileView,
    etag: &HeaderValue,
    now: glowplug_core::Timestamp,
) {
    headers.insert(header::ETAG, etag.clone());
    insert(headers, header::CONTENT_TYPE, &file.content_type);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    let digest = format!("sha-256=:{}:", STANDARD.encode(file.sha256));
    insert(headers, header::HeaderName::from_static("repr-digest"), &digest);
    let shown = if is_shown(&file.content_type) { "inline" } else { "attachment" };
    let disposition = format!("{shown}; filename*=UTF-8''{}", name::encoded(&file.file_name));
    insert(headers, header::CONTENT_DISPOSITION, &disposition);
    let left = file.expires_at.map_or(COPY_SECONDS_MAX, |at| (at - now).as_secs());
    let copies = format!("public, max-age={}, immutable", left.min(COPY_SECONDS_MAX));
    insert(headers, header::CACHE_CONTROL, &copies);
}

/// What browsers show without running it. Everything else they save.
fn is_shown(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let media = ["image/", "audio/", "video/"].iter().any(|prefix| kind.starts_with(prefix));
    media || matches!(kind.as_str(), "text/plain" | "application/json" | "application/pdf")
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn names(tags: &str, etag: &HeaderValue) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes()
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0')).collect()
}

/// Serves `DELETE` of a file, by its uploader or by who may do everything. A token to upload is not enough:
/// every app has one of its caller.
pub(super) async fn delete(
    exchange: &Exchange,
    files: &dyn Files,
    id: &str,
    name: Option<&str>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let caller = keyholder(exchange, request.headers())?;
    let file = find(files, id, name)?;
    if file.owner != caller.key_id && !caller.admin {
        let detail = "only the key that uploaded a file deletes it, and one with the scope ADMIN";
        return Err(Problem::new(ErrorType::Forbidden, detail));
    }
    files.delete(id).await?;
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Ok(answer)
}

pub(super) fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    permit(headers);
    let methods = HeaderValue::from_static("GET, HEAD, PUT, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    answer
}

/// Without credentials: a page gets what its address alone opens.
pub(super) fn permit(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READABLE));
}
