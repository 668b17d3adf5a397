//! Files that callers upload: the routes of fal's storage and of its file hosts, on the same port.
//!
//! ```text
//! POST /storage/auth/token             a token to upload with, and where
//! POST /files/upload                   a whole file                         ─► access_url
//! POST /files/upload/multipart         begins one in parts                  ─► access_url, uploadId
//! PUT  {access_url}/multipart/{upload}/{n}, POST …/complete, DELETE …
//! POST /storage/upload/initiate[-multipart]                                 ─► upload_url, file_url
//! PUT  {upload_url}   or   PUT {upload_url}/{n}, POST {upload_url}/complete
//! GET, HEAD, DELETE /files/{id}[/{name}]
//! ```
//!
//! Whoever knows the address of a file may read it: addresses cannot be guessed, and are given to its
//! uploader alone. Everything else takes a key or a token. Whoever knows an `upload_url` may upload that one
//! file: a token is part of it, since clients send none beside.
//!
//! The bytes go straight to the host; none of a file's are kept here. How much a file may have, and how much
//! all may, is the host's to say.

mod address;
mod app_token;
mod lifecycle;
mod name;
mod range;
mod route;
mod serve;
mod upload;

use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use glowplug_api::ErrorType;
use glowplug_core::Timestamp;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::answer::Problem;
use crate::body::Body;
use crate::dispatch::{Exchange, Peer};

pub use app_token::{APP_TOKEN, AppTokens};
pub(crate) use route::FilesRoute;

/// The bytes of a file on their way in. An error says why no more came.
pub type Chunks = BoxStream<'static, Result<Bytes, String>>;
/// Gives the bytes of a range of a file.
pub type Reader = Box<dyn FnOnce(Range<u64>) -> BoxStream<'static, io::Result<Bytes>> + Send>;

/// Where files are kept. The node implements it; ids are its own, and mean nothing here.
pub trait Files: Send + Sync {
    /// Whether it is known what files there are. Nothing else is asked before.
    fn ready(&self) -> Result<(), Problem>;

    /// How the node is reached by those who are given the address of a file, such as
    /// `https://files.example.org`. `None`: as the uploader reached it.
    fn public_url(&self) -> Option<&str>;

    /// An id that nobody can guess, for a file that comes later.
    fn new_id(&self) -> String;

    /// Keeps a file under this id, or under a new one. Answered when it is on disk.
    fn put(
        &self,
        id: Option<String>,
        file: NewFile,
        body: Chunks,
    ) -> BoxFuture<'_, Result<FileView, Problem>>;

    fn find(&self, id: &str) -> Option<FileView>;

    fn read(&self, id: &str) -> BoxFuture<'_, Result<Reader, Problem>>;

    /// Says whether there was one.
    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Problem>>;

    /// Begins an upload in parts.
    fn begin(&self, file: NewFile) -> BoxFuture<'_, Result<UploadView, Problem>>;

    /// An upload that is not finished.
    fn upload(&self, id: &str) -> Option<UploadView>;

    /// Keeps a part and returns its etag, without quotes.
    fn part(
        &self,
        upload: String,
        number: u32,
        length: Option<u64>,
        body: Chunks,
    ) -> BoxFuture<'_, Result<String, Problem>>;

    /// Makes the file of its parts, given as number and etag.
    fn complete(
        &self,
        file: &str,
        upload: &str,
        parts: Vec<(u32, String)>,
    ) -> BoxFuture<'_, Result<FileView, Problem>>;

    /// Drops an unfinished upload. Says whether there was one.
    fn abort(&self, upload: &str) -> BoxFuture<'_, Result<bool, Problem>>;
}

/// A file that is about to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// A valid header value.
    pub content_type: String,
    /// For people: not empty, without `/` and control characters.
    pub file_name: String,
    /// Key id of the uploader.
    pub owner: String,
    /// How long the uploader wants it kept.
    pub keep: Option<Duration>,
    /// If it is known ahead.
    pub length: Option<u64>,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    pub id: String,
    pub file_name: String,
    pub content_type: String,
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub owner: String,
    pub expires_at: Option<Timestamp>,
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadView {
    pub id: String,
    /// The id that the file will have.
    pub file: String,
    pub file_name: String,
    pub owner: String,
}

pub(crate) async fn answer(
    exchange: &Exchange,
    peer: &Peer,
    route: FilesRoute<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let none = || Problem::new(ErrorType::NotFound, "this node keeps no files");
    let files = exchange.worker.host.files().ok_or_else(none)?;
    if request.method() == Method::OPTIONS && route.is_for_browsers() {
        return Ok(serve::preflight(request.headers()));
    }
    let for_browsers = route.is_for_browsers();
    let ready = files.ready().map_err(Problem::temporary);
    let mut answer = match (ready, route, request.method().clone()) {
        (Err(problem), ..) => Err(problem),
        (Ok(()), FilesRoute::File { id, name }, Method::GET | Method::HEAD) => {
            serve::file(exchange, files, id, name, &request).await
        }
        (Ok(()), FilesRoute::File { id, name }, Method::DELETE) => {
            serve::delete(exchange, files, id, name, &request).await
        }
        (Ok(()), route, _) => upload::answer(exchange, peer, files, route, request).await,
    };
    if for_browsers {
        let mut given = answer.unwrap_or_else(|problem| problem.answer());
        serve::permit(given.headers_mut());
        answer = Ok(given);
    }
    answer
}

/// A body that is JSON of a few bytes.
pub(crate) async fn small_json<T: DeserializeOwned>(
    body: Incoming,
    bytes_max: usize,
) -> Result<T, Problem> {
    let bytes = match Limited::new(body, bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the request's body is larger than {bytes_max} bytes");
            return Err(Problem::new(ErrorType::PayloadTooLarge, detail));
        }
        Err(error) => {
            let detail = format!("the request's body broke off: {error}");
            return Err(Problem::new(ErrorType::BadRequest, detail));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!("the request's body is not what is expected here: {error}");
        Problem::new(ErrorType::BadRequest, detail)
    })
}
