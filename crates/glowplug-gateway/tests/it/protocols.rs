//! One port: HTTP/1.1 and HTTP/2, with and without TLS.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use glowplug_core::Timestamp;
use glowplug_gateway::host::{Access, Host};
use glowplug_gateway::{LocalAuthority, Options};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{ask_json, get};
use crate::host::{Plan, START_SECONDS, TableHost, bind, gateway};
use crate::upstream::Upstream;
use crate::wait::bounded;

/// The caller's clock, moved together with the host's.
#[derive(Debug)]
struct TestTime(Arc<TableHost>);

impl rustls::time_provider::TimeProvider for TestTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_micros(self.0.now().as_micros())))
    }
}

async fn tls(
    address: SocketAddr,
    host: &Arc<TableHost>,
    authority: &LocalAuthority,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    tls_on(stream, host, authority, name, alpn).await
}

/// A handshake on a connection that is open already.
pub(crate) async fn tls_on(
    stream: TcpStream,
    host: &Arc<TableHost>,
    authority: &LocalAuthority,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate_path()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let time = Arc::new(TestTime(host.clone()));
    let mut config = rustls::ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn over_http1<S>(stream: S, request: Request<Full<Bytes>>) -> (u16, Value)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    read(sender.send_request(request)).await
}

pub(crate) async fn over_http2<S>(stream: S, request: Request<Full<Bytes>>) -> (u16, Value)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    read(sender.send_request(request)).await
}

async fn read(
    response: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
) -> (u16, Value) {
    let response = bounded("the answer", response).await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["x-fal-request-id"].len(), 36);
    let body = bounded("the body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn request(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("in")).unwrap()
}

#[tokio::test]
async fn http2_works_by_prior_knowledge() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let address = gateway.address();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut call = request(&format!("http://{address}/run/me/app/a?b"));
    call.headers_mut().append("cookie", "a=1".parse().unwrap());
    call.headers_mut().append("cookie", "b=2".parse().unwrap());
    let (status, body) = over_http2(stream, call).await;
    assert_eq!((status, &body["uri"], &body["body"]), (200, &json!("/a?b"), &json!("in")));
    let headers = body["headers"].to_string();
    assert!(headers.contains(&format!("host: {address}")), "{headers}");
    assert!(headers.contains("cookie: a=1; b=2"), "{headers}");

    let stream = TcpStream::connect(address).await.unwrap();
    let call = request(&format!("http://{address}/queue/me/app"));
    let (status, body) = over_http2(stream, call).await;
    assert_eq!(status, 200);
    let expected = format!("http://{address}/queue/me/app/requests/");
    assert!(body["response_url"].as_str().unwrap().starts_with(&expected));
}

#[tokio::test]
async fn tls_is_told_apart_on_the_same_port() {
    let folder = tempfile::tempdir().unwrap();
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let authority = Arc::new(LocalAuthority::open(folder.path(), host.now()).unwrap());
    let gateway = bind(&host, Options::default(), Some(&authority));
    let address = gateway.address();

    for name in ["localhost", "127.0.0.1", "::1", "fal.run", "queue.fal.run", "rest.fal.ai"] {
        let stream = tls(address, &host, &authority, name, &[]).await.unwrap();
        let mut call = request("/queue/me/app");
        call.headers_mut().insert("host", address.to_string().parse().unwrap());
        let (status, body) = over_http1(stream, call).await;
        assert_eq!(status, 200, "{name}");
        let expected = format!("https://{address}/queue/me/app/requests/");
        assert!(body["status_url"].as_str().unwrap().starts_with(&expected));
    }
    let stream = tls(address, &host, &authority, "localhost", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let call = request(&format!("https://{address}/run/me/app"));
    assert_eq!(over_http2(stream, call).await.0, 200);
    assert_eq!(ask_json(address, get("/run/me/app")).await.0, 200);
    assert!(tls(address, &host, &authority, "other.test", &[]).await.is_err());
}

#[tokio::test]
async fn the_certificate_is_renewed_before_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let host = Arc::new(TableHost::open());
    let authority = Arc::new(LocalAuthority::open(folder.path(), host.now()).unwrap());
    let gateway = bind(&host, Options::default(), Some(&authority));
    let address = gateway.address();
    let certificate = || async {
        let stream = tls(address, &host, &authority, "localhost", &[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = certificate().await;
    assert_eq!(certificate().await, first);
    // Far beyond the first one's life, in steps as a node lives through them.
    for days in [59, 61, 100, 200] {
        host.seconds_passed.store(days * 86_400, Ordering::Relaxed);
        let renewed = certificate().await;
        assert_eq!(renewed == first, days == 59, "after {days} days");
    }
}

#[test]
fn the_authority_is_kept_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let now = Timestamp::from_secs(START_SECONDS);
    let first = LocalAuthority::open(folder.path(), now).unwrap();
    let read = || std::fs::read_to_string(first.certificate_path()).unwrap();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(folder.path().join("ca").join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("ca.key"), mode("ca.pem") & 0o444), (0o600, 0o444));
    let pem = read();
    LocalAuthority::open(folder.path(), now + Duration::from_secs(1_000_000)).unwrap();
    assert_eq!(read(), pem);

    // A lost key makes a new authority; a damaged one is reported and left alone.
    let key = folder.path().join("ca/ca.key");
    std::fs::remove_file(&key).unwrap();
    LocalAuthority::open(folder.path(), now).unwrap();
    assert_ne!(read(), pem);
    std::fs::write(&key, "nonsense").unwrap();
    let error = LocalAuthority::open(folder.path(), now).unwrap_err().to_string();
    assert!(error.contains("ca.key is not a private key; delete"), "{error}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "nonsense");
}
