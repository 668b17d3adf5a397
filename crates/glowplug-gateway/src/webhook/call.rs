//! One call of a webhook.
//!
//! The connection is opened here, to an address that was judged here, and is used once: a name that leads
//! elsewhere a moment later leads nowhere else, and no redirect, proxy or pool is in between.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use url::Host;

use super::address::refusal;
use super::signature::Signed;
use super::target::{Target, TargetError};
use super::trust::{self, TrustError};
use super::{WebhookOptions, limits};

const USER_AGENT: &str = concat!("glowplug/", env!("CARGO_PKG_VERSION"));

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver's status.
    Answered(u16),
    /// The address must not be called, now or later.
    Refused(String),
    /// No answer.
    Failed(String),
}

/// Finds the addresses of a host.
type Resolver =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Calls webhooks.
pub struct Client {
    options: WebhookOptions,
    resolver: Resolver,
    further_authorities: Vec<CertificateDer<'static>>,
    /// Made with the first call over https: reading the system's authorities takes a moment.
    tls: OnceCell<TlsConnector>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Client {
    /// Fails when the file of further authorities cannot be used.
    pub fn new(options: WebhookOptions) -> Result<Self, TrustError> {
        let further_authorities = match &options.ca_file {
            Some(path) => trust::authorities(path)?,
            None => Vec::new(),
        };
        let resolver: Resolver = Arc::new(|host, port| Box::pin(system_addresses(host, port)));
        Ok(Self { options, resolver, further_authorities, tls: OnceCell::new() })
    }

    pub fn options(&self) -> &WebhookOptions {
        &self.options
    }

    /// Reads a URL, and refuses what is never called.
    pub fn target(&self, url: &str) -> Result<Target, TargetError> {
        Target::parse(url, &self.options.allow)
    }

    /// Calls once. `timeout`: until the head of the answer is here.
    pub async fn call(
        &self,
        target: &Target,
        signed: Signed,
        body: Bytes,
        timeout: Duration,
    ) -> Outcome {
        let request = request(target, signed, body);
        let answered = tokio::time::timeout(timeout, self.exchange(target, request)).await;
        match answered {
            Ok(Ok((answer, connection))) => {
                let status = answer.status().as_u16();
                swallow(answer, connection).await;
                Outcome::Answered(status)
            }
            Ok(Err(Problem::Refused(reason))) => Outcome::Refused(reason),
            Ok(Err(Problem::Failed(reason))) => Outcome::Failed(reason),
            Err(_) => Outcome::Failed(format!("no answer within {} s", timeout.as_secs_f64())),
        }
    }

    /// Sends the request; its answer's body is still to be read.
    async fn exchange(
        &self,
        target: &Target,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Wire), Problem> {
        let stream = self.connect(target).await?;
        if !target.secure {
            return converse(TokioIo::new(stream), request).await;
        }
        let connector = self.connector().await?;
        let name = server_name(&target.host)?;
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| Problem::failed("TLS could not be agreed on", &error))?;
        converse(TokioIo::new(stream), request).await
    }

    /// A connection to one of the host's addresses that may be called.
    async fn connect(&self, target: &Target) -> Result<TcpStream, Problem> {
        let mut problem = None;
        for address in self.addresses(target).await?.into_iter().take(limits::ADDRESSES_MAX) {
            let connecting = TcpStream::connect(address);
            match tokio::time::timeout(self.options.connect_timeout, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => problem = Some(format!("cannot connect to {address}: {error}")),
                Err(_) => {
                    let seconds = self.options.connect_timeout.as_secs_f64();
                    problem = Some(format!("{address} did not accept within {seconds} s"));
                }
            }
        }
        Err(Problem::Failed(problem.unwrap_or_else(|| format!("{} has no address", target.host))))
    }

    /// The addresses that may be called.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Problem> {
        let found = match &target.host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, target.port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, target.port))],
            Host::Domain(name) => (self.resolver)(name.clone(), target.port)
                .await
                .map_err(|error| Problem::failed(&format!("cannot resolve {name}"), &error))?,
        };
        let refused = |address: &SocketAddr| refusal(address.ip(), &self.options.allow);
        let reason = found.iter().find_map(|address| Some((address.ip(), refused(address)?)));
        let allowed: Vec<_> = found.into_iter().filter(|at| refused(at).is_none()).collect();
        match reason {
            Some((address, why)) if allowed.is_empty() => {
                Err(Problem::Refused(reason_to_refuse(target, address, why)))
            }
            _ => Ok(allowed),
        }
    }

    async fn connector(&self) -> Result<&TlsConnector, Problem> {
        let make = || async {
            let further = self.further_authorities.clone();
            let made = tokio::task::spawn_blocking(move || trust::connector(further)).await;
            match made {
                Ok(Ok(connector)) => Ok(connector),
                Ok(Err(error)) => Err(Problem::Failed(error.to_string())),
                Err(error) => Err(Problem::failed("the TLS library did not start", &error)),
            }
        };
        self.tls.get_or_try_init(make).await
    }
}

enum Problem {
    Refused(String),
    Failed(String),
}

impl Problem {
    fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Failed(format!("{what}: {}", root(error)))
    }
}

/// The cause that says most.
fn root<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a dyn std::error::Error {
    while let Some(deeper) = error.source() {
        error = deeper;
    }
    error
}

fn reason_to_refuse(target: &Target, address: IpAddr, why: &'static str) -> String {
    TargetError::Address { address: format!("{} ({address})", target.host), why }.to_string()
}

async fn system_addresses(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect())
}

fn server_name(host: &Host<String>) -> Result<ServerName<'static>, Problem> {
    let not_named = |_| Problem::Failed(format!("{host} cannot be in a certificate"));
    match host {
        Host::Ipv4(address) => Ok(IpAddr::from(*address).into()),
        Host::Ipv6(address) => Ok(IpAddr::from(*address).into()),
        Host::Domain(name) => {
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(not_named)
        }
    }
}

fn request(target: &Target, signed: Signed, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::post(&target.path)
        .header(header::HOST, &target.authority)
        .body(Full::new(body))
        .expect("a parsed URL has a path and a host that a request can carry");
    let headers = request.headers_mut();
    headers.extend(signed.0);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

/// What carries the bytes while somebody waits for them. May be asked again after it ended.
type Wire = Fuse<BoxFuture<'static, ()>>;

async fn converse<S>(
    stream: TokioIo<S>,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Wire), Problem>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Problem::failed("the answer cannot be read", &error);
    let (mut sender, connection): (_, Connection<_, Full<Bytes>>) = http1::Builder::new()
        .max_buf_size(limits::RESPONSE_HEAD_BYTES_MAX)
        .max_headers(limits::RESPONSE_HEADER_COUNT_MAX)
        .handshake(stream)
        .await
        .map_err(broken)?;
    let mut wire = async move { drop(connection.await) }.boxed().fuse();
    let answer = alongside(&mut wire, sender.send_request(request)).await.map_err(broken)?;
    Ok((answer, wire))
}

/// Waits for something that the wire brings. The wire may end before it is looked at.
async fn alongside<T>(wire: &mut Wire, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = wire => {}
    }
    work.await
}

/// Reads what the receiver says besides its status, within limits, so that a polite one is not cut off.
async fn swallow(answer: Response<Incoming>, mut wire: Wire) {
    let body = Limited::new(answer.into_body(), limits::RESPONSE_BYTES_MAX).collect();
    let read = alongside(&mut wire, body);
    drop(tokio::time::timeout(limits::RESPONSE_BODY_TIMEOUT, read).await);
}

#[cfg(test)]
mod tests;
