//! A node in this process whose runners are fakes that outlive it.
//!
//! Each life of the node has a runtime of its own, so that it can be killed as a process is: between two
//! instructions of any of its tasks, with nothing said to anybody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use glowplug_core::{RunnerId, Timestamp};
use glowplug_image::lazy::FillerCommand;
use glowplug_node::config::{self, Config, FileChoice, Sources};
use glowplug_node::{Node, NodeOptions};
use glowplug_runner::{
    Backend, BackendError, FakeBackend, FakeWorld, LogLine, Notice, ObservedRunner, RunnerSpec,
    ShimCommand, StopMode,
};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;

use super::super::ground::Caller;

/// For what is blocking when the node is killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct FakeNode {
    pub(super) world: FakeWorld,
    node: Node,
    runtime: Runtime,
    address: SocketAddr,
    config: Config,
    folder: TempDir,
}

impl FakeNode {
    pub(super) async fn start(seed: u64, toml: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("glowplug-soak-").tempdir().unwrap();
        let file = folder.path().join("glowplug.toml");
        let node = "[node]\nlisten = '127.0.0.1:0'\ndata_dir = 'data'\n";
        std::fs::write(&file, format!("{node}{toml}")).unwrap();
        let sources = Sources {
            file: FileChoice::Named(file),
            flags: Vec::new(),
            only_app: None,
            env: std::collections::BTreeMap::new(),
            cwd: folder.path().to_owned(),
        };
        let config = config::load(sources).unwrap().config;
        let world = FakeWorld::new(seed, Arc::new(now));
        Self::live(world, config, folder).await
    }

    async fn live(world: FakeWorld, mut config: Config, folder: TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let backend = Outliving { backend: Arc::new(world.backend()), runtime: Handle::current() };
        let options = NodeOptions {
            shim: ShimCommand { program: "/nonexistent".into(), args: Vec::new() },
            filler: FillerCommand { program: "/nonexistent".into(), args: Vec::new() },
            ephemeral: false,
            cache_dir: None,
            backend: Some(Arc::new(backend)),
        };
        let starting = runtime.spawn(Node::start(config.clone(), options));
        let node = starting.await.unwrap().unwrap();
        let address = node.local_addr();
        config.node.listen = address;
        Self { world, node, runtime, address, config, folder }
    }

    pub(super) fn caller(&self) -> Caller {
        Caller::new(format!("http://{}", self.address))
    }

    /// Ends the node without a word and starts one on what it left.
    pub(super) async fn killed_and_started(self) -> Self {
        let Self { world, node, runtime, config, folder, .. } = self;
        let killed = tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(KILL_TIMEOUT);
            drop(node);
        });
        killed.await.unwrap();
        Self::live(world, config, folder).await
    }

    pub(super) async fn stop(self) {
        let Self { node, runtime, .. } = self;
        runtime.spawn(node.shutdown()).await.unwrap().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(KILL_TIMEOUT)).await.unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of the world outside the node")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::ZERO + since.unwrap_or_default()
}

/// Does everything on another runtime than the caller's: fake runners live where they were started.
struct Outliving {
    backend: Arc<FakeBackend>,
    runtime: Handle,
}

impl Outliving {
    fn there<T, F>(&self, work: impl FnOnce(Arc<FakeBackend>) -> F) -> BoxFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let task = self.runtime.spawn(work(self.backend.clone()));
        Box::pin(async move { task.await.unwrap() })
    }
}

impl Backend for Outliving {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn ensure<'a>(&'a self, spec: &'a RunnerSpec) -> BoxFuture<'a, Result<(), BackendError>> {
        let spec = spec.clone();
        self.there(|backend| async move { backend.ensure(&spec).await })
    }

    fn stop(&self, runner: RunnerId, mode: StopMode) -> BoxFuture<'_, Result<(), BackendError>> {
        self.there(move |backend| async move { backend.stop(runner, mode).await })
    }

    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedRunner>, BackendError>> {
        self.there(|backend| async move { backend.observe().await })
    }

    fn logs(
        &self,
        runner: RunnerId,
        from: u64,
        follow: bool,
    ) -> BoxFuture<'_, Result<BoxStream<'static, LogLine>, BackendError>> {
        self.there(move |backend| async move { backend.logs(runner, from, follow).await })
    }

    fn forget(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        self.there(move |backend| async move { backend.forget(runner).await })
    }

    fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        self.backend.notices()
    }
}
