//! Files on their way in.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use glowplug_api::ErrorType;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json as value;
use tokio::sync::Mutex;

use super::address::Base;
use super::name::file_name;
use super::route::Step;
use super::{Chunks, Files, FilesRoute, NewFile, lifecycle, small_json};
use crate::answer::{Problem, json};
use crate::auth;
use crate::body::Body;
use crate::dispatch::{Exchange, Peer};
use crate::host::{Caller, Host};
use crate::path::query_value;
use crate::token::{Claims, Grant, UploadGrant};
use crate::tokens;

/// How long a token to upload holds, and an address to upload to.
pub(super) const TOKEN_AGE: Duration = Duration::from_hours(24);
/// Bytes of what begins an upload.
const BEGIN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the list of the parts of a file.
const PARTS_BYTES_MAX: usize = 4 << 20;
/// Bytes of a type of a file.
const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Of a body that is refused, this many bytes are read all the same: clients that send first and read
/// then would not see why.
const REFUSED_BYTES_MAX: u64 = 16 << 20;
const REFUSED_TIMEOUT: Duration = Duration::from_secs(5);

/// What the two clients call what keeps files.
const STORAGE_TYPES: [&str; 2] = ["fal-cdn-v3", "gcs"];

struct Uploading<'a> {
    exchange: &'a Exchange,
    files: &'a dyn Files,
    base: Base,
}

pub(super) async fn answer(
    exchange: &Exchange,
    peer: &Peer,
    files: &dyn Files,
    route: FilesRoute<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let base = Base::of(files, peer, &request);
    let uploading = Uploading { exchange, files, base };
    match (route, request.method().clone()) {
        (FilesRoute::AuthToken, Method::POST) => uploading.token(&request),
        (FilesRoute::Upload, Method::POST) => uploading.whole(request).await,
        (FilesRoute::BeginParts, Method::POST) => uploading.begin_parts(&request).await,
        (FilesRoute::Initiate, Method::POST) => uploading.initiate(request, false).await,
        (FilesRoute::InitiateParts, Method::POST) => uploading.initiate(request, true).await,
        (FilesRoute::Granted { file, step }, method) => {
            uploading.granted(file, step, &method, request).await
        }
        (FilesRoute::Parts { file, upload, step }, method) => {
            let caller = uploader(exchange, request.headers());
            let allowed = caller.and_then(|caller| {
                let known = files.upload(upload).is_none_or(|known| known.owner == caller.key_id);
                if known { Ok(()) } else { Err(no_upload()) }
            });
            uploading.parts(file, upload, step, &method, request, allowed).await
        }
        (_, method) => Err(not_allowed(&method)),
    }
}

fn not_allowed(method: &Method) -> Problem {
    Problem::new(ErrorType::MethodNotAllowed, format!("{method} means nothing here"))
}

fn no_upload() -> Problem {
    let detail = "there is no such upload; it may be finished, or left alone for too long";
    Problem::new(ErrorType::NotFound, detail)
}

/// What was sent as a credential. Something has to be even where the node is open to everyone: a page of any
/// origin can send a body, and cannot send this header.
fn presented(headers: &HeaderMap) -> Result<&str, Problem> {
    auth::presented(headers).ok_or_else(|| {
        let detail = "this needs a key, or a token of /storage/auth/token: send `Authorization`";
        Problem::new(ErrorType::Unauthorized, detail)
    })
}

/// Who sends a key.
pub(super) fn keyholder(exchange: &Exchange, headers: &HeaderMap) -> Result<Caller, Problem> {
    presented(headers).and_then(|_| auth::known(&*exchange.worker.host, headers))
}

/// Who uploads, by key or by token.
fn uploader(exchange: &Exchange, headers: &HeaderMap) -> Result<Caller, Problem> {
    let host = &*exchange.worker.host;
    let presented = presented(headers)?;
    let claims = host.tokens().and_then(|key| key.verify(presented, host.now()).ok());
    match claims {
        Some(Claims { grant: Grant::Files, caller, .. }) if host.still_knows(&caller) => {
            Ok(Caller { key_id: caller, admin: false })
        }
        _ => auth::known(host, headers),
    }
}

pub(super) fn cdn_claims(host: &dyn Host, caller: &str) -> Claims {
    Claims::new(Grant::Files, caller, host.now(), TOKEN_AGE)
}

impl Uploading<'_> {
    fn host(&self) -> &dyn Host {
        &*self.exchange.worker.host
    }

    fn token(&self, request: &Request<Incoming>) -> Result<Response<Body>, Problem> {
        check_storage(request)?;
        let caller = auth::known(self.host(), request.headers())?;
        let claims = cdn_claims(self.host(), &caller.key_id);
        let expires_at = i64::try_from(claims.expires_at).unwrap_or(i64::MAX);
        let expires_at = jiff::Timestamp::from_second(expires_at).unwrap_or(jiff::Timestamp::MAX);
        let answer = value!({
            "token": tokens::key(self.host())?.sign(&claims),
            "token_type": "Bearer",
            "base_url": self.base.as_str(),
            // Older Pythons do not read a `Z`.
            "expires_at": expires_at.to_string().replace('Z', "+00:00"),
        });
        Ok(json(StatusCode::OK, &answer))
    }

    async fn whole(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let (parts, body) = request.into_parts();
        let file = uploader(self.exchange, &parts.headers)
            .and_then(|caller| announced(&parts.headers, caller, length(&body)));
        let stored = receive(body, file, |file, body| self.files.put(None, file, body)).await?;
        let answer = value!({
            "access_url": self.base.file(&stored),
            "file_size": stored.bytes,
            "content_type": stored.content_type,
        });
        Ok(json(StatusCode::OK, &answer))
    }

    async fn begin_parts(&self, request: &Request<Incoming>) -> Result<Response<Body>, Problem> {
        let caller = uploader(self.exchange, request.headers())?;
        let file = announced(request.headers(), caller, None)?;
        let begun = self.files.begin(file).await?;
        let access_url = self.base.of_upload(&begun);
        Ok(json(StatusCode::OK, &value!({"access_url": access_url, "uploadId": begun.id})))
    }

    /// Gives out an address to which anybody may upload this one file.
    async fn initiate(
        &self,
        request: Request<Incoming>,
        in_parts: bool,
    ) -> Result<Response<Body>, Problem> {
        #[derive(Deserialize)]
        struct Wanted {
            file_name: Option<String>,
            content_type: Option<String>,
        }

        check_storage(&request)?;
        let (parts, body) = request.into_parts();
        let caller = auth::known(self.host(), &parts.headers)?;
        let keep = lifecycle::keep(&parts.headers)?;
        let wanted: Wanted = small_json(body, BEGIN_BYTES_MAX).await?;
        let content_type = content_type(wanted.content_type.as_deref())?;
        let file_name = file_name(wanted.file_name.as_deref(), &content_type);
        let owner = caller.key_id.clone();
        let file = NewFile { content_type, file_name, owner, keep, length: None };
        let (id, upload) = if in_parts {
            let begun = self.files.begin(file.clone()).await?;
            (begun.file, Some(begun.id))
        } else {
            (self.files.new_id(), None)
        };
        let file_url = self.base.future_file(&id, &file.file_name);
        let grant = UploadGrant {
            file: id.clone(),
            upload,
            file_name: file.file_name,
            content_type: file.content_type,
            keep_seconds: keep.map(|keep| keep.as_secs()),
        };
        let grant = Grant::Upload(grant);
        let claims = Claims::new(grant, &caller.key_id, self.host().now(), TOKEN_AGE);
        let token = tokens::key(self.host())?.sign(&claims);
        let upload_url = self.base.granted(&id, &token);
        Ok(json(StatusCode::OK, &value!({"upload_url": upload_url, "file_url": file_url})))
    }

    /// What comes to an address that was given out.
    async fn granted(
        &self,
        file: &str,
        step: Step<'_>,
        method: &Method,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let grant = self.grant(file, &request);
        let upload = grant.as_ref().ok().and_then(|(grant, _)| grant.upload.clone());
        match (step, method, upload) {
            (Step::Whole, &Method::PUT, None) => {
                let body = request.into_body();
                let length = length(&body);
                let new = grant.map(|(grant, owner)| NewFile {
                    content_type: grant.content_type,
                    file_name: grant.file_name,
                    owner,
                    keep: grant.keep_seconds.map(Duration::from_secs),
                    length,
                });
                let id = Some(file.to_owned());
                receive(body, new, |new, body| self.files.put(id, new, body)).await?;
                Ok(Response::new(Body::empty()))
            }
            (_, _, Some(upload)) => {
                let grant = grant.map(drop);
                self.parts(file, &upload, step, method, request, grant).await
            }
            _ => {
                let problem = grant.err().unwrap_or_else(|| not_allowed(method));
                receive(request.into_body(), Err(problem), async |(), _| {
                    Ok(Response::new(Body::empty()))
                })
                .await
            }
        }
    }

    fn grant(
        &self,
        file: &str,
        request: &Request<Incoming>,
    ) -> Result<(UploadGrant, String), Problem> {
        let refuse = |detail: &str| Problem::new(ErrorType::Unauthorized, detail);
        let token = request.uri().query().and_then(|query| query_value(query, "token"));
        let token = token.ok_or_else(|| refuse("the upload address lacks its token"))?;
        let token = percent_decode_str(token).decode_utf8_lossy();
        let claims = tokens::key(self.host())?.verify(&token, self.host().now());
        let claims = claims.map_err(|problem| refuse(&format!("the upload address: {problem}")))?;
        match claims.grant {
            Grant::Upload(grant)
                if grant.file == file && self.host().still_knows(&claims.caller) =>
            {
                Ok((grant, claims.caller))
            }
            _ => Err(refuse("the token is not for this upload")),
        }
    }

    async fn parts(
        &self,
        file: &str,
        upload: &str,
        step: Step<'_>,
        method: &Method,
        request: Request<Incoming>,
        allowed: Result<(), Problem>,
    ) -> Result<Response<Body>, Problem> {
        let body = request.into_body();
        match (step, method) {
            (Step::Part(number), &Method::PUT) => {
                let length = length(&body);
                let number = allowed.and_then(|()| part_number(number));
                let number = number.and_then(|number| {
                    let known = self.files.upload(upload).filter(|known| known.file == file);
                    known.map(|_| number).ok_or_else(no_upload)
                });
                let put = async |number: u32, body| {
                    let etag = self.files.part(upload.to_owned(), number, length, body).await?;
                    Ok((number, etag))
                };
                let (number, etag) = receive(body, number, put).await?;
                let etag = format!("\"{etag}\"");
                let answer = value!({"partNumber": number, "etag": etag});
                let mut answer = json(StatusCode::OK, &answer);
                if let Ok(etag) = HeaderValue::from_str(&etag) {
                    answer.headers_mut().insert(header::ETAG, etag);
                }
                Ok(answer)
            }
            (Step::Complete, &Method::POST) => {
                allowed?;
                let parts = small_json::<PartList>(body, PARTS_BYTES_MAX).await?.parts;
                let parts = parts
                    .into_iter()
                    .map(|part| (part.part_number, part.etag.trim_matches('"').to_owned()));
                let stored = self.files.complete(file, upload, parts.collect()).await?;
                let access_url = self.base.file(&stored);
                let answer = value!({"access_url": access_url, "file_size": stored.bytes});
                Ok(json(StatusCode::OK, &answer))
            }
            (Step::Whole, &Method::DELETE) => {
                allowed?;
                if !self.files.abort(upload).await? {
                    return Err(no_upload());
                }
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                Ok(answer)
            }
            _ => Err(not_allowed(method)),
        }
    }
}

#[derive(Deserialize)]
struct PartList {
    parts: Vec<ListedPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedPart {
    part_number: u32,
    etag: String,
}

fn part_number(text: &str) -> Result<u32, Problem> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
    number.flatten().ok_or_else(|| {
        Problem::new(ErrorType::BadRequest, format!("`{text}` is not the number of a part"))
    })
}

fn check_storage(request: &Request<Incoming>) -> Result<(), Problem> {
    let wanted = request.uri().query().and_then(|query| query_value(query, "storage_type"));
    match wanted {
        Some(wanted) if !STORAGE_TYPES.contains(&wanted) => {
            let detail = format!("`storage_type` is `{wanted}`; {} is known", STORAGE_TYPES[0]);
            Err(Problem::new(ErrorType::BadRequest, detail))
        }
        _ => Ok(()),
    }
}

/// A file as the headers before its bytes describe it.
fn announced(headers: &HeaderMap, caller: Caller, length: Option<u64>) -> Result<NewFile, Problem> {
    let text = |name: &str| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let content_type = content_type(text("content-type").as_deref())?;
    let file_name = file_name(text("x-fal-file-name").as_deref(), &content_type);
    let keep = lifecycle::keep(headers)?;
    Ok(NewFile { content_type, file_name, owner: caller.key_id, keep, length })
}

fn content_type(wanted: Option<&str>) -> Result<String, Problem> {
    let wanted = wanted.map(str::trim).filter(|wanted| !wanted.is_empty());
    let wanted = wanted.unwrap_or("application/octet-stream");
    let plain = wanted.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !plain || wanted.len() > CONTENT_TYPE_BYTES_MAX {
        let detail = "the file's content type is not one that can be sent in a header";
        return Err(Problem::new(ErrorType::BadRequest, detail));
    }
    Ok(wanted.to_owned())
}

fn length(body: &Incoming) -> Option<u64> {
    body.size_hint().exact()
}

/// A body, and what is left of it when nobody wants it any more.
type SharedBody = Arc<Mutex<Incoming>>;

/// Hands a body on if that is allowed. Whatever goes wrong, the caller gets to read why.
async fn receive<A, T, F>(
    body: Incoming,
    allowed: Result<A, Problem>,
    take: impl FnOnce(A, Chunks) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    let body: SharedBody = Arc::new(Mutex::new(body));
    let taken = match allowed {
        Ok(allowed) => take(allowed, chunks(body.clone())).await,
        Err(problem) => Err(problem),
    };
    if taken.is_err() {
        drain(body).await;
    }
    taken
}

fn chunks(body: SharedBody) -> Chunks {
    let next = async |body: SharedBody| {
        let frame = body.lock().await.frame().await?;
        let chunk = frame.map(|frame| frame.into_data().unwrap_or_default());
        Some((chunk.map_err(|error| error.to_string()), body))
    };
    stream::unfold(body, next).boxed()
}

async fn drain(body: SharedBody) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.lock().await.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > REFUSED_BYTES_MAX {
                break;
            }
        }
    };
    // Who does not send it by then does not wait for the answer either.
    let _ = tokio::time::timeout(REFUSED_TIMEOUT, reading).await;
}
