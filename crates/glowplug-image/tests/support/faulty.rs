//! A registry that keeps images in memory and does not always do what it should.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::images::{Blob, TestImage};

/// How it answers a request for a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends after this many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after this many bytes of the body, and the connection stays.
    StallAfter(usize),
    Status(&'static str),
}

/// Something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// The first byte that was wanted.
    pub(crate) from: usize,
    /// Of the body.
    pub(crate) sent: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Manners {
    /// Each is the answer to one request for a layer; later requests are answered well.
    pub(crate) faults: Vec<Fault>,
    /// Requests are answered with everything, whatever part is wanted.
    pub(crate) no_ranges: bool,
    /// Parts of layers are longer than was asked for by so many bytes.
    pub(crate) beyond_bytes: usize,
    /// A body comes in pieces of so many bytes, each in a packet of its own.
    pub(crate) piece_bytes: Option<usize>,
}

#[derive(Debug)]
struct State {
    /// By path.
    documents: HashMap<String, Blob>,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Faulty {
    /// Each image under its name, `test:TAG`.
    pub(crate) async fn start(images: &[(&str, &TestImage)], manners: Manners) -> Self {
        let mut documents = HashMap::new();
        for (tag, image) in images {
            for name in [*tag, image.manifest.digest.as_str()] {
                documents.insert(format!("/v2/test/manifests/{name}"), image.manifest.clone());
            }
            for blob in image.layers.iter().chain([&image.config]) {
                documents.insert(format!("/v2/test/blobs/{}", blob.digest), blob.clone());
            }
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let manners = Mutex::new(manners);
        let state = Arc::new(State { documents, manners, asked: Mutex::default() });
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, serving }
    }

    pub(crate) fn name(&self, tag: &str) -> String {
        format!("{}/test:{tag}", self.address)
    }

    /// From here on.
    pub(crate) fn behave(&self, manners: Manners) {
        *self.state.manners.lock().unwrap() = manners;
    }

    /// What was asked for of this blob.
    pub(crate) fn asked(&self, blob: &Blob) -> Vec<Asked> {
        let asked = self.state.asked.lock().unwrap();
        let is_it = |asked: &&Asked| asked.path.ends_with(blob.digest.as_str());
        asked.iter().filter(is_it).cloned().collect()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let state = Arc::clone(&state);
        // Whoever pulls may go away at any moment.
        connections.spawn(async move { answer(stream, &state).await.ok() });
    }
}

/// One request, then the connection ends.
async fn answer(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut path, mut from, mut end) = (String::new(), 0, usize::MAX);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? <= 2 {
            break;
        }
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        match words.as_slice() {
            [_, target, "HTTP/1.1"] => (*target).clone_into(&mut path),
            [name, range] if name.eq_ignore_ascii_case("range:") => {
                let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                from = first.parse().unwrap();
                end = last.parse().map_or(usize::MAX, |last: usize| last + 1);
            }
            _ => {}
        }
    }
    let Some(blob) = state.documents.get(&path) else {
        let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
        return head(&mut stream, status, 0).await;
    };
    let manners = Reply::choose(&mut state.manners.lock().unwrap(), &path, blob);
    manners.send(&mut stream, state, path, blob, from..end).await
}

async fn head(
    stream: &mut BufReader<TcpStream>,
    status: &str,
    bytes: usize,
) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\nConnection: close\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(b"\r\n").await
}

struct Reply {
    fault: Option<Fault>,
    no_ranges: bool,
    beyond_bytes: usize,
    piece_bytes: usize,
}

impl Reply {
    fn choose(manners: &mut Manners, path: &str, blob: &Blob) -> Self {
        let is_layer = path.contains("/blobs/") && blob.kind.contains(".tar");
        let is_faulty = is_layer && !manners.faults.is_empty();
        Self {
            fault: is_faulty.then(|| manners.faults.remove(0)),
            no_ranges: manners.no_ranges,
            beyond_bytes: if is_layer { manners.beyond_bytes } else { 0 },
            piece_bytes: manners.piece_bytes.unwrap_or(usize::MAX),
        }
    }

    async fn send(
        self,
        stream: &mut BufReader<TcpStream>,
        state: &State,
        path: String,
        blob: &Blob,
        wanted: Range<usize>,
    ) -> std::io::Result<()> {
        let from = wanted.start;
        let mut asked = Asked { path, from, sent: 0 };
        if let Some(Fault::Status(status)) = self.fault {
            state.asked.lock().unwrap().push(asked);
            return head(stream, status, 0).await;
        }
        let (status, body): (_, Bytes) =
            if self.no_ranges || (from == 0 && wanted.end == usize::MAX) {
                ("200 OK", blob.bytes.clone())
            } else {
                let part = from.min(blob.bytes.len())..wanted.end.min(blob.bytes.len());
                let mut part = blob.bytes[part].to_vec();
                part.resize(part.len() + self.beyond_bytes, 0);
                ("206 Partial Content", part.into())
            };
        let sent = match self.fault {
            Some(Fault::CutAfter(bytes) | Fault::StallAfter(bytes)) => {
                body.slice(..bytes.min(body.len()))
            }
            _ => body.clone(),
        };
        asked.sent = sent.len();
        state.asked.lock().unwrap().push(asked);
        let length = body.len();
        let kind = blob.kind;
        let digest = &blob.digest;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        for piece in sent.chunks(self.piece_bytes) {
            stream.write_all(piece).await?;
            stream.flush().await?;
            tokio::task::yield_now().await;
        }
        if matches!(self.fault, Some(Fault::StallAfter(_))) {
            // The other side goes away first.
            stream.read_line(&mut String::new()).await?;
        }
        Ok(())
    }
}
