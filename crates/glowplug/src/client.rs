//! Talks to a running node over `/api/v1`.

use std::time::Duration;

use futures::{Stream, StreamExt};
use glowplug_api::ErrorBody;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// A node on the same machine accepts at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From sending a request to its complete answer; streams are exempt.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// A larger answer is refused.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A longer line of a stream is refused.
const STREAM_LINE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Client {
    base: Url,
    key: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// `server` is `http://HOST:PORT`; the scheme may be left out.
    pub(crate) fn new(server: &str, key: Option<String>) -> Result<Self, Failure> {
        let with_scheme =
            if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let base = Url::parse(&with_scheme)
            .map_err(|error| Failure::Usage(format!("`{server}` is not a URL: {error}")))?;
        if base.scheme() != "http" || base.cannot_be_a_base() {
            return Err(Failure::Usage(format!(
                "`{server}` cannot be reached by this command: write the node's address as http://HOST:PORT"
            )));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A node is near; a proxy of the surroundings is not meant for it.
            .no_proxy()
            .build()
            .map_err(|error| Failure::environment(format!("cannot prepare to connect: {error}")))?;
        Ok(Self { base, key, http })
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        self.json(Method::GET, path, query, None::<&()>).await
    }

    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<T, Failure> {
        self.json(Method::POST, path, query, body).await
    }

    /// A POST that may take as long as it takes.
    pub(crate) async fn copy<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &B,
    ) -> Result<T, Failure> {
        let response = self.send(Method::POST, path, &[], Some(body), None).await?;
        self.parse(&self.read(response).await?)
    }

    pub(crate) async fn patch<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &B,
    ) -> Result<T, Failure> {
        self.json(Method::PATCH, path, &[], Some(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.json(Method::DELETE, path, &[], None::<&()>).await
    }

    /// A DELETE that is answered with nothing.
    pub(crate) async fn remove(&self, path: &[&str]) -> Result<(), Failure> {
        let response = self.send(Method::DELETE, path, &[], None::<&()>, Some(ANSWER_TIMEOUT));
        response.await.map(drop)
    }

    /// Hands each line of a streamed answer to `each`, until the stream or `each` ends.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::GET, path, query, None::<&()>, None).await?;
        self.each_line(response, each).await
    }

    /// As [`lines`](Self::lines), for an answer to something that was asked for.
    pub(crate) async fn post_lines<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &B,
        each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::POST, path, &[], Some(body), None).await?;
        self.each_line(response, each).await
    }

    async fn each_line<T: DeserializeOwned>(
        &self,
        response: Response,
        mut each: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut chunks = response.bytes_stream();
        let mut pending = Vec::new();
        while let Some(chunk) = chunks.next().await {
            pending.extend_from_slice(&chunk.map_err(|error| self.broken(&error))?);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(self.parse(&line)?)?;
            }
            if pending.len() > STREAM_LINE_BYTES_MAX {
                return Err(Failure::environment(format!(
                    "{} sent a line of more than {STREAM_LINE_BYTES_MAX} bytes",
                    self.base
                )));
            }
        }
        if pending.is_empty() { Ok(()) } else { each(self.parse(&pending)?) }
    }

    /// Hands each piece of a streamed answer to `each`. First of all `begin` gets the number in a header.
    pub(crate) async fn bytes(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        number_header: &str,
        begin: impl FnOnce(Option<u64>),
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::GET, path, query, None::<&()>, None).await?;
        let header = response.headers().get(number_header);
        begin(header.and_then(|value| value.to_str().ok()?.parse().ok()));
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            each(&chunk.map_err(|error| self.broken(&error))?)?;
        }
        Ok(())
    }

    /// A POST whose body is made while it is sent.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &[&str],
        pieces: impl Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static,
    ) -> Result<T, Failure> {
        let body = reqwest::Body::wrap_stream(pieces);
        let request = self.request(Method::POST, path, &[]).body(body);
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        let response = if response.status().is_success() {
            response
        } else {
            return Err(self.refused(response).await);
        };
        self.parse(&self.read(response).await?)
    }

    async fn json<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<T, Failure> {
        let response = self.send(method, path, query, body, Some(ANSWER_TIMEOUT)).await?;
        self.parse(&self.read(response).await?)
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&B>,
        timeout: Option<Duration>,
    ) -> Result<Response, Failure> {
        let mut request = self.request(method, path, query);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refused(response).await)
        }
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.header("authorization", format!("Key {key}")),
            None => request,
        }
    }

    async fn read(&self, response: Response) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.broken(&error))?);
            if bytes.len() > ANSWER_BYTES_MAX {
                let message =
                    format!("the answer of {} is larger than {ANSWER_BYTES_MAX} bytes", self.base);
                return Err(Failure::environment(message));
            }
        }
        Ok(bytes)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes).map_err(|error| {
            Failure::environment(format!(
                "{} answered with something else than expected ({error}); is it a glowplug node of this \
                 version?",
                self.base
            ))
        })
    }

    /// Why there is no answer.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let base = self.base.as_str().trim_end_matches('/');
        if error.is_connect() {
            return Failure::environment(format!(
                "no node answers at {base} ({cause})\n  \
                 help: start one with `glowplug serve`, or name another with --server URL"
            ));
        }
        if error.is_timeout() {
            return Failure::environment(format!(
                "the node at {base} took longer than {} s to answer",
                ANSWER_TIMEOUT.as_secs()
            ));
        }
        Failure::environment(format!("the connection to the node at {base} broke: {cause}"))
    }

    /// What the node says against the request.
    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let body = self.read(response).await.unwrap_or_default();
        let message = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.detail,
            Err(_) => format!("{} answered with status {}", self.base, status.as_u16()),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::user(format!(
                "{message}\n  help: give a key with --key ID:SECRET or in GLOWPLUG_KEY"
            )),
            status if status.is_client_error() => Failure::user(message),
            _ => Failure::environment(message),
        }
    }
}
