//! The one port: accepts connections and serves them on worker threads.
//!
//! ```text
//! accept (worker 0) ──► the worker with the fewest connections ──► sniff ─┬► TLS ─┬► HTTP/1.1
//!                                                                        └───────┴► HTTP/2
//! ```
//!
//! Each worker is a thread with an event loop of its own, and a connection stays where it was put:
//! nothing on the way of a request is shared between workers except the host. Limits: see
//! [`Options`]. On shutdown the port closes, what is being answered gets a bounded time, and the rest is
//! cut.

mod connect;
mod connection;
mod ending;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::files::AppTokens;
use crate::forward::{Clock, Forwarder};
use crate::host::Host;
use crate::options::Options;
use crate::tls::{self, AuthorityError, LocalAuthority};
use crate::websocket::OpenSockets;

pub(crate) use ending::OpenExchange;

/// Connections the kernel accepts ahead of us.
const BACKLOG_MAX: i32 = 4_096;
/// Accepted connections on their way to one worker. Beyond it, accepting waits.
const HANDED_OVER_MAX: usize = 256;
/// After accepting failed (out of descriptors, say), until the next try.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Between two looks for idle runner connections to close.
const POOL_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Answers what is not of the data plane. Runs on a worker's event loop, so it must not block.
pub type Fallback =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {source}; choose another address with `--listen`")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls {
        #[from]
        source: AuthorityError,
    },
    #[error("cannot start a worker thread of the gateway: {source}")]
    Worker { source: io::Error },
}

/// The open port and the threads that serve it. Dropped, it cuts every connection.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    stop: watch::Sender<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// No new connection or request; what is being answered has this long.
    Drain(Duration),
    Now,
}

/// What the connections of one thread share.
pub(crate) struct Worker {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) options: Options,
    pub(crate) fallback: Fallback,
    pub(crate) app_tokens: AppTokens,
    /// Where the gateway listens, for callers that did not say how they reached it.
    pub(crate) address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    closing: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Shared by all workers.
    pub(crate) sockets: Arc<OpenSockets>,
    stopping: watch::Receiver<Stop>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An accepted connection on its way to its worker.
struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    held: Held,
}

/// What an open connection takes up.
struct Held {
    _permit: OwnedSemaphorePermit,
    _open: OpenCount,
}

/// Counts the open connections of one worker.
struct OpenCount(Arc<AtomicUsize>);

impl OpenCount {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way to one worker.
struct Handover {
    open: Arc<AtomicUsize>,
    accepted: mpsc::Sender<Accepted>,
}

impl Gateway {
    /// Opens the port and serves it until [`Gateway::shutdown`]. Without `tls`, callers that begin a TLS
    /// handshake are cut.
    pub fn bind(
        listen: SocketAddr,
        host: &Arc<dyn Host>,
        options: &Options,
        tls: Option<&Arc<LocalAuthority>>,
        fallback: &Fallback,
    ) -> Result<Self, BindError> {
        let listener =
            open(listen).map_err(|source| BindError::Listen { address: listen, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| BindError::Listen { address: listen, source })?;
        let clock: Clock = {
            let host = host.clone();
            Arc::new(move || host.now())
        };
        let tls = tls
            .map(|authority| tls::server_config(authority, address.ip(), clock.clone()))
            .transpose()?;
        let (stop, stopping) = watch::channel(Stop::No);
        let mut gateway = Self { address, stop, threads: Vec::new() };
        let mut handovers = Vec::new();
        let mut inboxes = Vec::new();
        for _ in 0..options.workers.max(1) {
            let (accepted, inbox) = mpsc::channel(HANDED_OVER_MAX);
            handovers.push(Handover { open: Arc::default(), accepted });
            inboxes.push(inbox);
        }
        let mut acceptor = Some(Acceptor {
            listener,
            handovers,
            permits: Arc::new(Semaphore::new(options.connections_max.max(1))),
        });
        let sockets = Arc::new(OpenSockets::new(&options.sockets));
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let worker = Arc::new(Worker {
                host: host.clone(),
                forwarder: Forwarder::new(options.forward.clone(), clock.clone()),
                options: options.clone(),
                fallback: fallback.clone(),
                app_tokens: AppTokens::default(),
                address,
                tls: tls.clone(),
                closing: CancellationToken::new(),
                tasks: TaskTracker::new(),
                sockets: sockets.clone(),
                stopping: stopping.clone(),
            });
            let (acceptor, stopping) = (acceptor.take(), stopping.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| BindError::Worker { source })?;
            let thread = std::thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || runtime.block_on(worker.run(inbox, acceptor, stopping)))
                .map_err(|source| BindError::Worker { source })?;
            gateway.threads.push(thread);
        }
        Ok(gateway)
    }

    /// Where it listens, with the port the system chose if none was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets what is being answered finish within `grace`, cuts the rest.
    pub async fn shutdown(mut self, grace: Duration) {
        self.stop.send_replace(Stop::Drain(grace));
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if joined.is_err() {
            tracing::error!("waiting for the gateway's workers failed");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        join(std::mem::take(&mut self.threads));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker of the gateway panicked");
        }
    }
}

/// Without `SO_REUSEPORT`, so that a second node on the same port is refused instead of sharing it.
fn open(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(listen)?;
    // The standard library asks for 128 only, which a burst of new connections overruns.
    rustix::net::listen(&listener, BACKLOG_MAX)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts for all workers.
struct Acceptor {
    listener: std::net::TcpListener,
    handovers: Vec<Handover>,
    permits: Arc<Semaphore>,
}

impl Acceptor {
    async fn run(self) {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the port cannot be watched"),
        };
        loop {
            let Ok(permit) = self.permits.clone().acquire_owned().await else { return };
            let accepted = match listener.accept().await {
                Ok((stream, peer)) => stream.into_std().map(|stream| (stream, peer)),
                Err(error) => Err(error),
            };
            match accepted {
                Ok((stream, peer)) => hand_over(&self.handovers, stream, peer, permit).await,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn hand_over(
    handovers: &[Handover],
    stream: std::net::TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let fewest = handovers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed));
    let Some(worker) = fewest else { return };
    let open = OpenCount::new(&worker.open);
    let held = Held { _permit: permit, _open: open };
    let accepted = Accepted { stream, peer, held };
    if worker.accepted.send(accepted).await.is_err() {
        tracing::debug!("a connection came while the gateway was closing");
    }
}

impl Worker {
    async fn run(
        self: Arc<Self>,
        mut inbox: mpsc::Receiver<Accepted>,
        acceptor: Option<Acceptor>,
        mut stopping: watch::Receiver<Stop>,
    ) {
        let acceptor = acceptor.map(|acceptor| {
            let closing = self.closing.clone();
            self.tasks.spawn(async move { closing.run_until_cancelled_owned(acceptor.run()).await })
        });
        let serving = async {
            let mut sweep = tokio::time::interval(POOL_SWEEP_INTERVAL);
            loop {
                tokio::select! {
                    accepted = inbox.recv() => match accepted {
                        Some(accepted) => self.take(accepted),
                        None => std::future::pending().await,
                    },
                    _ = sweep.tick() => self.forwarder.close_idle(),
                }
            }
        };
        let stop = async {
            match stopping.wait_for(|stop| *stop != Stop::No).await {
                Ok(stop) => *stop,
                Err(_) => Stop::Now,
            }
        };
        let stop = tokio::select! {
            () = serving => Stop::Now,
            stop = stop => stop,
        };
        drop(acceptor);
        drop(inbox);
        self.closing.cancel();
        self.tasks.close();
        if let Stop::Drain(grace) = stop
            && tokio::time::timeout(grace, self.tasks.wait()).await.is_err()
        {
            let cut = self.tasks.len();
            tracing::warn!(cut, "connections were still busy at the end of the grace period");
        }
    }

    /// When no more is begun.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until the gateway shuts down, and tells how long it waits for what is open.
    pub(crate) async fn shutdown(&self) -> Duration {
        let mut stopping = self.stopping.clone();
        match stopping.wait_for(|stop| *stop != Stop::No).await.as_deref() {
            Ok(Stop::Drain(grace)) => *grace,
            _ => Duration::ZERO,
        }
    }

    fn take(self: &Arc<Self>, accepted: Accepted) {
        let worker = self.clone();
        let Accepted { stream, peer, held } = accepted;
        self.tasks.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => connection::serve(worker, stream, peer).await,
                Err(error) => tracing::warn!(%error, "a connection cannot be watched"),
            }
            drop(held);
        });
    }
}
