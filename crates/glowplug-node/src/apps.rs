//! The apps of this node: what each one runs, and whether it can be called.
//!
//! ```text
//! PREPARING ──► READY            a Python app's class is read first, a command is ready at once
//!     └───────► BROKEN           its code cannot be loaded; calls are told why
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use glowplug_artifacts::{AppDescription, AppError, ProgressSender, PythonApps};
use glowplug_core::AppId;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_gateway::host::{AppProblem, AppRoute};
use glowplug_image::Digest;
use glowplug_runner::Listen;
use tokio::sync::watch;

use crate::config::{AppConfig, nearest};
use crate::images::Found;
use crate::interest::LastSign;

/// An app's place on this node, from config to removal.
#[derive(Debug)]
pub(crate) struct App {
    pub id: AppId,
    pub config: AppConfig,
    pub last_sign: LastSign,
    /// How long a request may wait for its runner if its caller does not say; microseconds, 0 for ever.
    start_timeout: AtomicU64,
    status: watch::Sender<Status>,
}

#[derive(Clone, Debug)]
pub(crate) enum Status {
    Preparing { doing: String },
    Ready(Arc<Deployed>),
    Broken { reason: String },
}

/// Everything about a callable app.
#[derive(Clone, Debug)]
pub(crate) struct Deployed {
    pub route: Arc<AppRoute>,
    /// As the engine has it.
    pub spec: AppSpec,
    pub launch: Arc<Launch>,
    pub health: Option<HealthCheck>,
    /// The defaults with what the app's own code asks for: below config and settings.
    pub class_scaling: Scaling,
    /// Identifies the code: runners of other code are outdated.
    pub code: String,
    /// Whether the resources of the machine type bind the program, by machine type.
    pub enforced: HashMap<String, bool>,
}

/// How its runners are started.
#[derive(Debug)]
pub(crate) enum Launch {
    Command(CommandLaunch),
    Python(Box<PythonLaunch>),
    Image(Box<ImageLaunch>),
}

impl Launch {
    /// The image that it needs, if it needs one.
    pub(crate) fn image(&self) -> Option<&Digest> {
        match self {
            Self::Command(_) => None,
            Self::Python(python) => python.image.as_ref().map(|found| &found.digest),
            Self::Image(image) => Some(&image.found.digest),
        }
    }
}

/// An image as it was when the app was deployed, and how it is to be run.
#[derive(Debug)]
pub(crate) struct ImageLaunch {
    pub found: Found,
    /// Instead of what the image would run. Empty: what the image says.
    pub command: Vec<String>,
    /// That the app itself names. `None`: as the image says.
    pub port: Option<u16>,
}

/// A Python app's description, and how to start it once its environment is there.
#[derive(Debug)]
pub(crate) struct PythonLaunch {
    pub description: AppDescription,
    /// Of the container that it runs in, if it runs in one.
    pub image: Option<Found>,
    prepared: RwLock<Option<Arc<glowplug_artifacts::Launch>>>,
}

impl PythonLaunch {
    pub(crate) fn new(description: AppDescription, image: Option<Found>) -> Self {
        Self { description, image, prepared: RwLock::default() }
    }

    /// How to start it, if what that needs is still in its place.
    pub(crate) fn cached(&self) -> Option<Arc<glowplug_artifacts::Launch>> {
        let launch = self.prepared.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let in_place = if self.image.is_some() {
            launch.binds.iter().all(|(source, _)| source.exists())
        } else {
            launch.argv.first().is_some_and(|python| Path::new(python).exists())
        };
        in_place.then_some(launch)
    }

    /// Builds what is missing.
    pub(crate) async fn prepare(
        &self,
        python: &PythonApps,
        progress: &ProgressSender,
    ) -> Result<Arc<glowplug_artifacts::Launch>, AppError> {
        let launch = Arc::new(python.prepare(&self.description, progress).await?);
        *self.prepared.write().unwrap_or_else(PoisonError::into_inner) = Some(launch.clone());
        Ok(launch)
    }
}

#[derive(Debug)]
pub(crate) struct CommandLaunch {
    pub argv: Vec<String>,
    pub cwd: PathBuf,
    pub listen: Listen,
}

/// Liveness as fal checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    pub path: String,
    pub post: bool,
    pub start_period: Duration,
    pub timeout: Duration,
    pub failure_threshold: u32,
    /// Every 15 s, or only when an answer asks for it.
    pub regularly: bool,
}

impl App {
    pub(crate) fn name(&self) -> &str {
        self.config.name.as_str()
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn deployed(&self) -> Option<Arc<Deployed>> {
        match &*self.status.borrow() {
            Status::Ready(deployed) => Some(deployed.clone()),
            _ => None,
        }
    }

    /// How long a request may wait for its runner where its caller does not say.
    pub(crate) fn start_timeout(&self) -> Option<Duration> {
        match self.start_timeout.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Zero: requests wait as long as it takes.
    pub(crate) fn set_start_timeout(&self, timeout: Duration) {
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        self.start_timeout.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn preparing(&self, doing: String) {
        self.status.send_if_modified(|status| match status {
            Status::Preparing { doing: before } if *before != doing => {
                *before = doing;
                true
            }
            _ => false,
        });
    }

    /// Waits until the app can be called, or cannot.
    pub(crate) async fn settled(&self) -> Result<Arc<Deployed>, AppProblem> {
        let mut status = self.status.subscribe();
        let settled = status.wait_for(|status| !matches!(status, Status::Preparing { .. })).await;
        match settled.as_deref() {
            Ok(Status::Ready(deployed)) => Ok(deployed.clone()),
            Ok(Status::Broken { reason }) => Err(AppProblem::Broken { reason: reason.clone() }),
            _ => Err(AppProblem::Broken { reason: "the node is shutting down".into() }),
        }
    }
}

/// All apps, by name and by id. The list is fixed when the node starts.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    by_name: BTreeMap<String, Arc<App>>,
    by_id: Vec<Arc<App>>,
    /// Callable apps, for the gateway: one lookup, nothing to wait for.
    routes: RwLock<HashMap<String, Arc<AppRoute>>>,
}

impl Apps {
    pub(crate) fn new(configs: Vec<AppConfig>) -> Self {
        let mut apps = Self::default();
        for (id, config) in (0..).map(AppId).zip(configs) {
            let (status, _) =
                watch::channel(Status::Preparing { doing: "waiting its turn".into() });
            let (last_sign, start_timeout) = (LastSign::default(), AtomicU64::new(0));
            let app = Arc::new(App { id, config, last_sign, start_timeout, status });
            apps.by_id.push(app.clone());
            apps.by_name.insert(app.name().to_owned(), app);
        }
        apps
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<App>> {
        self.by_name.values()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<App>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: AppId) -> Option<&Arc<App>> {
        self.by_id.get(id.0 as usize)
    }

    pub(crate) fn route(&self, name: &str) -> Option<Arc<AppRoute>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn unknown(&self, name: &str) -> AppProblem {
        let known = self.by_name.keys().map(String::as_str);
        AppProblem::Unknown { nearest: nearest(name, known).map(str::to_owned) }
    }

    pub(crate) fn deploy(&self, app: &App, deployed: Deployed) {
        let route = deployed.route.clone();
        app.status.send_replace(Status::Ready(Arc::new(deployed)));
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert(app.name().to_owned(), route);
    }

    pub(crate) fn break_app(&self, app: &App, reason: String) {
        app.status.send_replace(Status::Broken { reason });
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.remove(app.name());
    }
}
