//! Calls to receivers that behave and to receivers that do not.

use std::io::ErrorKind;
use std::sync::Mutex;

use glowplug_core::{RequestId, Timestamp};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::super::SigningKey;
use super::*;

/// Long enough on a busy machine for everything that is not meant to take forever.
const SOON: Duration = Duration::from_secs(30);
/// For what is meant to take forever.
const SHORT: Duration = Duration::from_millis(300);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn on_loopback() -> WebhookOptions {
    WebhookOptions { allow: vec!["127.0.0.0/8".parse().unwrap()], ..WebhookOptions::default() }
}

fn signed(body: &[u8]) -> Signed {
    let key = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    key.sign(RequestId(9), "me", Timestamp::from_secs(1_700_000_000), body)
}

async fn call(client: &Client, url: &str, timeout: Duration) -> Outcome {
    let target = client.target(url).unwrap();
    client.call(&target, signed(b"{}"), Bytes::from_static(b"{}"), timeout).await
}

/// What a receiver does after it has read a request.
#[derive(Clone, Copy)]
enum Behaviour {
    Says(&'static [u8]),
    /// Then nothing more, with the connection open.
    SaysAndWaits(&'static [u8]),
    /// The first piece, then the second for ever.
    Endless(&'static [u8], &'static [u8]),
}

/// Answers every connection alike; hands out what it read.
async fn receiver(behaviour: Behaviour) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, hears) = mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, behaviour, heard.clone()));
        }
    });
    (address, hears)
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    behaviour: Behaviour,
    heard: mpsc::Sender<String>,
) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n{}") {
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    // Nobody may care what was said.
    let _ = heard.try_send(String::from_utf8(read).unwrap());
    match behaviour {
        Behaviour::Says(text) => drop(stream.write_all(text).await),
        Behaviour::SaysAndWaits(text) => {
            let mut rest = [0; 1];
            drop(stream.write_all(text).await);
            drop(stream.read(&mut rest).await);
        }
        Behaviour::Endless(first, again) => {
            let mut written = stream.write_all(first).await;
            while written.is_ok() {
                written = stream.write_all(again).await;
            }
        }
    }
}

#[tokio::test]
async fn a_call_says_who_it_is_for_and_what_became_of_it() {
    let (address, mut heard) = receiver(Behaviour::Says(OK)).await;
    let client = Client::new(on_loopback()).unwrap();
    let url = format!("http://{address}/hook?token=a%20b");
    assert_eq!(call(&client, &url, SOON).await, Outcome::Answered(200));
    let said = heard.recv().await.unwrap().to_ascii_lowercase();
    for expected in [
        "post /hook?token=a%20b http/1.1\r\n".to_owned(),
        format!("host: {address}\r\n"),
        "content-type: application/json\r\n".to_owned(),
        "content-length: 2\r\n".to_owned(),
        "x-fal-webhook-request-id: 00000000-0000-0000-0000-000000000009\r\n".to_owned(),
        "x-fal-webhook-user-id: me\r\n".to_owned(),
        "x-fal-webhook-timestamp: 1700000000\r\n".to_owned(),
        "x-fal-webhook-signature: ".to_owned(),
        "\r\n\r\n{}".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected:?} in {said}");
    }
}

#[tokio::test]
async fn whatever_a_receiver_does_the_call_ends() {
    let behaviours = [
        (Behaviour::Says(OK), SOON, Ok(200)),
        (Behaviour::Says(b"HTTP/1.1 204 \r\n\r\n"), SOON, Ok(204)),
        (Behaviour::Says(b"HTTP/1.0 202 Yes\r\n\r\nwords until the end"), SOON, Ok(202)),
        (
            Behaviour::Says(b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"),
            SOON,
            Ok(302),
        ),
        (Behaviour::Says(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), SOON, Ok(500)),
        (Behaviour::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ncut"), SOON, Ok(200)),
        (Behaviour::Says(b"HTTP/1.1 200 OK\r\n"), SOON, Err("cannot be read")),
        (Behaviour::Says(b"220 mail.example ESMTP\r\n"), SOON, Err("cannot be read")),
        (Behaviour::Says(b""), SOON, Err("cannot be read")),
        (Behaviour::SaysAndWaits(b""), SHORT, Err("no answer within 0.3 s")),
        (Behaviour::Endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'a'; 4096]), SOON, Ok(200)),
        (Behaviour::Endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"), SOON, Err("cannot be read")),
        (Behaviour::Endless(b"HTTP/1.1 200 OK\r\na: ", &[b'a'; 4096]), SOON, Err("cannot be read")),
        (Behaviour::Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), SHORT, Err("no answer")),
    ];
    let client = Client::new(on_loopback()).unwrap();
    for (index, (behaviour, timeout, expected)) in behaviours.into_iter().enumerate() {
        let (address, mut heard) = receiver(behaviour).await;
        let outcome = call(&client, &format!("http://{address}/"), timeout).await;
        match (&outcome, expected) {
            (Outcome::Answered(status), Ok(expected)) => assert_eq!(*status, expected, "{index}"),
            (Outcome::Failed(reason), Err(expected)) => {
                assert!(reason.contains(expected), "{index}: {reason}");
            }
            _ => panic!("{index}: {outcome:?} instead of {expected:?}"),
        }
        assert!(heard.recv().await.is_some());
        assert!(heard.try_recv().is_err(), "{index}: it was called once, and led nowhere else");
    }
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_hold_the_call_up() {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nthe rest does not come";
    let (address, _heard) = receiver(Behaviour::SaysAndWaits(head)).await;
    let client = Client::new(on_loopback()).unwrap();
    let outcome = call(&client, &format!("http://{address}/"), SOON).await;
    assert_eq!(outcome, Outcome::Answered(200));
}

#[tokio::test]
async fn nobody_there_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(on_loopback()).unwrap();
    let Outcome::Failed(reason) = call(&client, &url, SOON).await else { panic!("it was called") };
    assert!(reason.contains("cannot connect to 127.0.0.1:"), "{reason}");
}

/// Answers every question with these addresses, and counts the questions.
fn resolving(addresses: &[&str]) -> (Resolver, Arc<Mutex<u32>>) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let resolver: Resolver = Arc::new(move |_, port| {
        *count.lock().unwrap() += 1;
        let found = addresses.iter().map(|ip| SocketAddr::from((*ip, port))).collect();
        Box::pin(async move { Ok(found) })
    });
    (resolver, asked)
}

#[tokio::test]
async fn a_name_is_judged_by_where_it_leads() {
    let (address, mut heard) = receiver(Behaviour::Says(OK)).await;
    for (allow, leads_to, expected) in [
        (&[][..], &["127.0.0.1"][..], Err("loopback")),
        (&[], &["169.254.169.254"], Err("cloud")),
        (&[], &["::ffff:127.0.0.1"], Err("loopback")),
        (&[], &["10.0.0.1", "127.0.0.1"], Err("private")),
        (&["127.0.0.1"], &["10.0.0.1", "127.0.0.1"], Ok(200)),
        (&["127.0.0.1"], &["127.0.0.1"], Ok(200)),
        (&["127.0.0.1"], &["::ffff:127.0.0.1"], Ok(200)),
        (&["127.0.0.1"], &[], Err("has no address")),
    ] {
        let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
        let mut client = Client::new(WebhookOptions { allow, ..on_loopback() }).unwrap();
        let (resolver, asked) = resolving(leads_to);
        client.resolver = resolver;
        let url = format!("http://hook.example:{}/", address.port());
        let outcome = call(&client, &url, SOON).await;
        match (&outcome, expected) {
            (Outcome::Answered(200), Ok(_)) => drop(heard.recv().await),
            (Outcome::Refused(reason) | Outcome::Failed(reason), Err(expected)) => {
                assert!(reason.contains(expected), "{leads_to:?}: {reason}");
            }
            _ => panic!("{leads_to:?}: {outcome:?}"),
        }
        assert_eq!(*asked.lock().unwrap(), 1, "what was judged is what was connected to");
        assert!(heard.try_recv().is_err(), "{leads_to:?}: nothing else was called");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_may_be_later() {
    let mut client = Client::new(on_loopback()).unwrap();
    client.resolver = Arc::new(|_, _| {
        Box::pin(async { Err(io::Error::new(ErrorKind::NotFound, "no such name")) })
    });
    let outcome = call(&client, "http://hook.example/", SOON).await;
    let expected = "cannot resolve hook.example: no such name".to_owned();
    assert_eq!(outcome, Outcome::Failed(expected));
}

/// A receiver over TLS for `name`, and the file with its certificate.
async fn secure_receiver(name: &str) -> (SocketAddr, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                answer(stream, Behaviour::Says(OK), mpsc::channel(1).0).await;
            });
        }
    });
    (address, file)
}

#[tokio::test]
async fn a_receiver_over_tls_must_be_trusted_and_be_who_was_meant() {
    let (address, ca) = secure_receiver("hook.example").await;
    let (_, of_another) = secure_receiver("hook.example").await;
    for (ca_file, name, trusted) in [
        (ca.path(), "hook.example", true),
        (ca.path(), "other.example", false),
        (of_another.path(), "hook.example", false),
    ] {
        let options = WebhookOptions { ca_file: Some(ca_file.to_owned()), ..on_loopback() };
        let mut client = Client::new(options).unwrap();
        client.resolver = resolving(&["127.0.0.1"]).0;
        let outcome = call(&client, &format!("https://{name}:{}/", address.port()), SOON).await;
        match outcome {
            Outcome::Answered(200) => assert!(trusted, "{name}"),
            Outcome::Failed(reason) if reason.contains("TLS") => {
                assert!(!trusted, "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_file_of_authorities_that_holds_none_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refusal = || {
        let ca_file = Some(file.path().to_owned());
        Client::new(WebhookOptions { ca_file, ..WebhookOptions::default() }).unwrap_err()
    };
    assert!(refusal().to_string().contains("holds no certificate"), "{}", refusal());
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    assert!(refusal().to_string().contains("holds no certificate"), "{}", refusal());
    let large = vec![b' '; usize::try_from(limits::CA_FILE_BYTES_MAX).unwrap() + 1];
    std::fs::write(file.path(), large).unwrap();
    assert!(refusal().to_string().contains("larger than"), "{}", refusal());
}
