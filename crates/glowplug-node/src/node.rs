//! A whole node: started from a config, stopped in order.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use glowplug_artifacts::PythonApps;
use glowplug_core::Event;
use glowplug_core::engine::{Config as EngineConfig, Engine};
use glowplug_core::resources::{Capacity, Gpu};
use glowplug_core::retry::Delays;
use glowplug_core::spec::Overrides;
use glowplug_gateway::host::Host;
use glowplug_gateway::options::{ProxyOrigins, SocketOptions};
use glowplug_gateway::webhook::{Client as WebhookClient, SigningKey};
use glowplug_gateway::{Fallback, Forwarder, Gateway, LocalAuthority, Options};
use glowplug_image::lazy::FillerCommand;
use glowplug_runner::{Backend, ShimCommand};
use glowplug_store::{KeyRecord, Store};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::apps::Apps;
use crate::clock::Clock;
use crate::config::{Config, RealtimeConfig};
use crate::desk::Desk;
use crate::events::NodeEvent;
use crate::executor::Executor;
use crate::files::NodeFiles;
use crate::host::NodeHost;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::recorder::Recorder;
use crate::recorder::tape::Recording;
use crate::shared::Shared;
use crate::snapshots::{self, Snapshots};
use crate::webhooks::Webhooks;
use crate::zygotes::{self, Zygotes};
use crate::{
    control, deploy, files, images, journal, processes, queue, recorder, runner_task, scale, store,
    webhooks,
};

/// Events of the node that a slow listener may fall behind by before it misses some.
const EVENTS_MAX: usize = 256;
/// Between two looks whether every runner has ended, while shutting down.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(10);
/// For runners to go after they were killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// In the data directory, held by the node that uses it.
const LOCK_FILE: &str = "lock";

/// Where images are, below the folder of caches: the data directory, unless an option of the node says otherwise.
pub const IMAGES_DIR: &str = "images";

/// What of a node its config does not say.
#[derive(Clone)]
pub struct NodeOptions {
    /// The program under which runners are started: this one, usually.
    pub shim: ShimCommand,
    /// The program that serves images which are not here yet: this one, usually.
    pub filler: FillerCommand,
    /// Keep nothing: no database, and runners end with the node.
    pub ephemeral: bool,
    /// Where Python environments and read apps are cached, if not in the data directory: caches can be
    /// shared between nodes, a data directory cannot.
    pub cache_dir: Option<PathBuf>,
    /// Run apps on this backend instead of as processes.
    pub backend: Option<Arc<dyn Backend>>,
}

impl std::fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOptions")
            .field("shim", &self.shim)
            .field("ephemeral", &self.ephemeral)
            .finish_non_exhaustive()
    }
}

pub struct Node {
    shared: Arc<Shared>,
    gateway: Gateway,
    authority: Arc<LocalAuthority>,
    /// A node that is dropped without a shutdown does nothing more, as one that was killed; its runners
    /// live on.
    cancelled: DropGuard,
    /// Held for as long as the data directory is ours.
    _lock: Option<File>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.local_addr()).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the port and the data directory, takes over what lives from before, and deploys the apps.
    /// Python apps go on being prepared after this returns; requests to them wait.
    pub async fn start(config: Config, options: NodeOptions) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let data_dir = config.node.data_dir.clone();
        make_dir(&data_dir)?;
        let lock = lock(&data_dir)?;
        let timelines = data_dir.join("timelines");
        // What earlier runners told of their starts has been read or is of no use any more.
        drop(std::fs::remove_dir_all(&timelines));
        make_dir(&timelines)?;

        let store = store::open(&config, options.ephemeral).await?;
        let boot = store.begin_boot().await?;
        let keys = store.keys().await?;
        let scaling = scale::load(&*store).await?;
        let webhook_client = WebhookClient::new(webhooks::options(&config.node.webhooks))?;
        let webhooks = (webhook_client, webhooks::signing_key(&*store).await?);
        let open_allowed = config.node.open || config.node.listen.ip().is_loopback();
        if keys.is_empty() && !open_allowed {
            bail!(
                "{} is reachable from other machines and no key exists: make one with `glowplug keys \
                 create --scope ADMIN` while the node listens on 127.0.0.1, or set `open = true` below \
                 [node]",
                config.node.listen
            );
        }
        let is_real = options.backend.is_none();
        let backend = match options.backend {
            Some(backend) => backend,
            None => processes::of_runners(&config, options.shim.clone(), clock)?,
        };
        let zygotes =
            is_real.then(|| processes::of_zygotes(&config, options.shim, clock)).transpose()?;
        let memory_max = config.node.warmth.zygote_memory_max;
        let zygotes = Zygotes::new(zygotes, &data_dir, memory_max, boot);
        let notices = backend.notices().context("the backend is in use by another node")?;
        let authority = Arc::new(LocalAuthority::open(&data_dir, clock.now())?);
        let python = PythonApps::new(options.cache_dir.as_ref().unwrap_or(&data_dir));
        let ephemeral = options.ephemeral;
        let recorder = if ephemeral { None } else { open_recorder(&config).await };
        let metrics = Arc::new(Metrics::new());
        let files = &config.node.files;
        let files = NodeFiles::open(&data_dir, files, &*store, clock, metrics.clone()).await?;
        let images_dir = options.cache_dir.as_ref().unwrap_or(&data_dir).join(IMAGES_DIR);
        let opened = Opened {
            boot,
            ephemeral,
            clock,
            store,
            files,
            metrics,
            backend,
            keys,
            scaling,
            webhooks,
            python,
            images: Images::new(images_dir, &data_dir, &config.node.images, options.filler),
            zygotes,
            recorder,
        };
        let shared = share(config, opened);
        let gateway = open_port(&shared, &authority)?;

        let cancelled = CancellationToken::new();
        let (decisions, written) = mpsc::channel(journal::WAITING_MAX);
        let tasks = &shared.tasks;
        tasks.spawn(journal::run(shared.store.clone(), shared.metrics.clone(), written));
        tasks.spawn(Executor::new(shared.clone(), decisions).run(cancelled.clone()));
        tasks.spawn(until(cancelled.clone(), wake_engine(shared.clone())));
        tasks.spawn(until(cancelled.clone(), queue::purge(shared.clone())));
        tasks.spawn(until(cancelled.clone(), files::sweep(shared.clone())));
        tasks.spawn(until(cancelled.clone(), images::keep_budget(shared.clone())));
        tasks.spawn(until(cancelled.clone(), queue::look_after(shared.clone())));
        tasks.spawn(until(cancelled.clone(), queue::follow_changes(shared.clone())));
        tasks.spawn(until(cancelled.clone(), shared.webhooks.clone().run()));
        tasks.spawn(snapshots::prepare(shared.clone()));
        let reports = zygotes::notices(shared.clone(), shared.zygotes.notices());
        tasks.spawn(until(cancelled.clone(), reports));
        tasks
            .spawn(until(cancelled.clone(), runner_task::backend_notices(shared.clone(), notices)));
        if let Some(recorder) = shared.recorder.clone() {
            tasks.spawn(until(cancelled.clone(), recorder::run(shared.clone(), recorder)));
        }
        let cancelled = cancelled.drop_guard();
        let node = Self { shared, gateway, authority, cancelled, _lock: lock };
        deploy::all(&node.shared).await?;
        Ok(node)
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// The certificate that callers over TLS must trust.
    pub fn ca_path(&self) -> &Path {
        self.authority.certificate_path()
    }

    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.shared.events.subscribe()
    }

    /// Stops accepting, lets requests and runners finish within `shutdown_timeout`, then ends the rest.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        let Self { shared, gateway, cancelled, .. } = self;
        let limit = shared.config.node.shutdown_timeout;
        let deadline = shared.desk.now() + limit;
        // New requests are refused while those under way still have their runners.
        gateway.shutdown(limit).await;
        shared.desk.report(Event::ShutDown);
        let left = deadline - shared.desk.now();
        let grace = left.max(Duration::from_secs(1));
        if !runners_gone(&shared, grace).await {
            kill_all(&shared);
            if !runners_gone(&shared, KILL_TIMEOUT).await {
                tracing::error!("some runners could not be ended");
            }
        }
        shared.zygotes.close().await;
        cancelled.disarm().cancel();
        shared.tasks.close();
        if tokio::time::timeout(KILL_TIMEOUT, shared.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Some(recorder) = &shared.recorder {
            recorder.flush(&shared.desk, &shared.metrics);
        }
        shared.forget_logs().await;
        shared.images.close().await;
        shared.store.close().await;
        Ok(())
    }
}

async fn until(cancelled: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = work => {}
    }
}

/// Calls the engine when time alone makes something due.
async fn wake_engine(shared: Arc<Shared>) {
    loop {
        let rearmed = shared.desk.rearmed.notified();
        let wakeup = async {
            match shared.desk.next_wakeup() {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wakeup => shared.desk.advance(),
            () = rearmed => {}
        }
    }
}

async fn runners_gone(shared: &Shared, within: Duration) -> bool {
    let gone = async {
        while shared.desk.read(|state, _| state.engine.runner_count()) > 0 {
            tokio::time::sleep(SHUTDOWN_LOOK).await;
        }
    };
    tokio::time::timeout(within, gone).await.is_ok()
}

fn kill_all(shared: &Shared) {
    let ids: Vec<_> =
        shared.desk.read(|state, _| state.engine.runners().map(|runner| runner.id).collect());
    for runner in ids {
        let how = glowplug_core::event::StopRequest::Kill;
        shared.desk.report(Event::StopRequested { runner, how });
    }
}

fn make_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| {
        format!("cannot create {}; choose another place with `--data-dir`", path.display())
    })
}

/// Whether a node uses the data directory now.
pub fn is_running(data_dir: &Path) -> bool {
    match File::open(data_dir.join(LOCK_FILE)) {
        Ok(file) => matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)),
        // What cannot be looked at may well be in use.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Makes sure that no other node uses the data directory.
fn lock(data_dir: &Path) -> anyhow::Result<Option<File>> {
    let path = data_dir.join(LOCK_FILE);
    let file =
        File::create(&path).with_context(|| format!("cannot write to {}", data_dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "another node uses {}; stop it, or choose another place with `--data-dir`",
            data_dir.display()
        ),
        // A file system without locks: nothing protects the directory, and nothing forbids it.
        Err(std::fs::TryLockError::Error(_)) => Ok(None),
    }
}

/// A node that cannot record serves all the same.
async fn open_recorder(config: &Config) -> Option<Arc<Recorder>> {
    let settings = config.node.recorder.clone();
    if !settings.enabled {
        return None;
    }
    let data_dir = config.node.data_dir.clone();
    let opening = tokio::task::spawn_blocking(move || Recorder::open(&data_dir, &settings));
    match opening.await {
        Ok(Ok(recorder)) => Some(Arc::new(recorder)),
        Ok(Err(error)) => {
            tracing::warn!(
                "the traffic is not recorded, since its files cannot be opened: {error}"
            );
            None
        }
        Err(_) => None,
    }
}

/// What a node holds that is open or read before it can be shared.
struct Opened {
    boot: u32,
    ephemeral: bool,
    clock: Clock,
    store: Arc<dyn Store>,
    files: NodeFiles,
    metrics: Arc<Metrics>,
    backend: Arc<dyn Backend>,
    keys: Vec<KeyRecord>,
    scaling: HashMap<String, Overrides>,
    webhooks: (WebhookClient, SigningKey),
    python: PythonApps,
    images: Images,
    zygotes: Zygotes,
    recorder: Option<Arc<Recorder>>,
}

fn share(config: Config, opened: Opened) -> Arc<Shared> {
    let Opened {
        boot,
        ephemeral,
        clock,
        store,
        files,
        metrics,
        backend,
        keys,
        scaling,
        python,
        images,
        zygotes,
        recorder,
        ..
    } = opened;
    let recording = if recorder.is_some() { Recording::On } else { Recording::Off };
    let engine = Engine::new(
        EngineConfig {
            boot,
            waiting_max: config.node.limits.waiting_max as usize,
            contention_wait_max: config.node.contention.wait_max,
            frozen_memory_max: config.node.warmth.frozen_memory_max,
            retry_delays: Delays {
                first: config.node.queue.retry_delay,
                max: config.node.queue.retry_delay_max,
            },
        },
        capacity(&config),
    );
    let (client, key) = opened.webhooks;
    let retention = config.node.queue.retention;
    let webhooks = Webhooks::new(store.clone(), clock, metrics.clone(), client, key, retention);
    let snapshots = Snapshots::new(&config.node.data_dir, &config.node.warmth, boot);
    Arc::new(Shared {
        boot,
        ephemeral,
        started_at: clock.now(),
        desk: Desk::new(clock, engine, metrics.clone(), recording),
        apps: Apps::new(config.apps.clone()),
        store,
        files,
        backend,
        forwarder: Forwarder::new(gateway_options(&config).forward, clock.shared()),
        queue: Queue::default(),
        webhooks: Arc::new(webhooks),
        metrics,
        recorder,
        python,
        images,
        zygotes,
        snapshots,
        scaling: tokio::sync::Mutex::new(scaling),
        keys: RwLock::new(keys),
        events: broadcast::channel(EVENTS_MAX).0,
        tasks: TaskTracker::new(),
        ended_logs: Mutex::default(),
        config,
    })
}

/// What apps may use: what the config says, and where it says nothing what the machine has.
pub fn capacity(config: &Config) -> Capacity {
    let (found, _) = glowplug_runner::host::discover();
    let wanted = &config.node.resources;
    let declared = wanted.gpus.as_ref().map(|groups| {
        groups
            .iter()
            .flat_map(|group| (0..group.count).map(move |_| group))
            .zip(0..)
            .map(|(group, index)| Gpu {
                index,
                kind: group.kind.clone(),
                memory_bytes: group.memory_bytes,
            })
            .collect()
    });
    Capacity {
        cpu_millis: wanted.cpu_millis.unwrap_or(found.cpu_millis),
        memory_bytes: wanted.memory_bytes.unwrap_or(found.memory_bytes),
        gpus: declared.unwrap_or(found.gpus),
    }
}

fn gateway_options(config: &Config) -> Options {
    let limits = &config.node.limits;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut options = Options {
        connections_max: limits.connections_max as usize,
        header_bytes_max: bytes(limits.header_bytes_max),
        run_body_bytes_max: limits.run_body_bytes_max,
        queue_body_bytes_max: bytes(limits.queue_body_bytes_max),
        proxy_origins: match config.node.proxy_origins.as_slice() {
            [] => ProxyOrigins::None,
            origins if origins.iter().any(|origin| origin == "*") => ProxyOrigins::Any,
            origins => ProxyOrigins::Only(origins.to_vec()),
        },
        sockets: socket_options(&config.node.realtime),
        ..Options::default()
    };
    options.forward.answer_bytes_max = bytes(limits.response_bytes_max);
    options
}

fn socket_options(realtime: &RealtimeConfig) -> SocketOptions {
    SocketOptions {
        sockets_max: realtime.sockets_max as usize,
        sockets_per_caller_max: realtime.sockets_per_caller_max as usize,
        message_bytes_max: realtime.message_bytes_max,
        idle_timeout: realtime.idle_timeout,
        ping_interval: realtime.ping_interval,
        pong_timeout: realtime.pong_timeout,
        ..SocketOptions::default()
    }
}

fn open_port(shared: &Arc<Shared>, authority: &Arc<LocalAuthority>) -> anyhow::Result<Gateway> {
    let host: Arc<dyn Host> = Arc::new(NodeHost(shared.clone()));
    let control = shared.clone();
    let fallback: Fallback =
        Arc::new(move |request| Box::pin(control::serve(control.clone(), request)));
    let options = gateway_options(&shared.config);
    let listen = shared.config.node.listen;
    Ok(Gateway::bind(listen, &host, &options, Some(authority), &fallback)?)
}
