//! Brings apps to life: reads their code, builds what they need, hands them to the engine, and takes back
//! the runners and queued requests that an earlier life of the node left.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use glowplug_artifacts::{AppContainer, AppDescription, ProgressSender};
use glowplug_core::event::{Adopted, StopRequest};
use glowplug_core::resources::{Allocation, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{AppId, Event, RunnerId};
use glowplug_gateway::host::AppRoute;
use glowplug_image::lazy::Late;
use glowplug_runner::{Listen, ObservedRunner, ObservedState, StopMode};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::apps::{App, CommandLaunch, Deployed, HealthCheck, ImageLaunch, Launch, PythonLaunch};
use crate::config::{ImageProgram, Program};
use crate::events::NodeEvent;
use crate::images::{Found, NotFound};
use crate::launch::label;
use crate::runner_task::chain;
use crate::shared::Shared;
use crate::{queue, recall, retries};

/// Apps whose environments are built at the same time.
const BUILDS_AT_ONCE: usize = 2;
/// Apps are not deployed anew while a node runs.
const REVISION: u32 = 1;
/// Between two questions to a registry that does not answer; doubled each time, up to the other.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_MAX: Duration = Duration::from_mins(1);
/// No app is prepared for longer than this before its runners are let go.
const PREPARING_MAX: Duration = Duration::from_hours(24);
/// Requests that an app takes on at a time are what `fal.App` documents where the class says nothing.
const FAL_HEALTH_START: Duration = Duration::from_secs(30);
const FAL_HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
const FAL_HEALTH_FAILURES: u32 = 3;

/// Deploys every app of the config. Commands are ready when this returns; Python apps follow.
pub(crate) async fn all(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let mut found: BTreeMap<String, Vec<ObservedRunner>> = BTreeMap::new();
    let observed = shared.backend.observe().await?;
    shared.zygotes.adopt(shared, &observed).await;
    for runner in observed {
        if runner.labels.contains_key(label::CAPTURE) {
            // Whoever was at work on it is gone.
            shared.backend.stop(runner.id, StopMode::Kill).await?;
        } else {
            found.entry(runner.app.clone()).or_default().push(runner);
        }
    }
    // They are held back until their apps are ready.
    queue::take_over(shared).await?;
    recall::all(shared).await;
    let builds = Arc::new(Semaphore::new(BUILDS_AT_ONCE));
    // All of them first: what they hold must be known before anything is started.
    let mut taken_over: BTreeMap<AppId, Vec<ObservedRunner>> = BTreeMap::new();
    for app in shared.apps.all() {
        let runners = found.remove(app.name()).unwrap_or_default();
        take_over(shared, app, &runners);
        taken_over.insert(app.id, runners);
    }
    for app in shared.apps.all() {
        let runners = taken_over.remove(&app.id).unwrap_or_default();
        match &app.config.program {
            Program::Command { argv } => {
                let command = command(app, argv.clone());
                finish(shared, app, command, runners).await;
            }
            Program::Python { .. } | Program::Image(_) => {
                let (shared, app, builds) = (shared.clone(), app.clone(), builds.clone());
                shared.tasks.clone().spawn(async move {
                    look_into(&shared, &app, runners, &builds).await;
                });
            }
        }
    }
    for (name, runners) in found {
        tracing::warn!(
            app = name,
            count = runners.len(),
            "runners of an app that is not configured any more are stopped"
        );
        for runner in runners {
            stop_leftover(shared, runner.id).await;
        }
    }
    for (name, count) in shared.queue.held_back_unknown(shared) {
        tracing::warn!(
            app = name,
            count,
            "queued requests wait for an app that is not configured any more"
        );
    }
    Ok(())
}

async fn stop_leftover(shared: &Shared, runner: RunnerId) {
    let grace = Scaling::default().termination_grace_period;
    if let Err(error) = shared.backend.stop(runner, StopMode::Graceful { grace }).await {
        tracing::error!(%runner, "cannot stop: {}", chain(&error));
    }
}

/// What an app's program says about itself.
struct Described {
    launch: Launch,
    health: Option<HealthCheck>,
    scaling: Scaling,
    retry: Rules,
    /// Zero: none.
    start_timeout: Duration,
    machine_types: Vec<String>,
    code: String,
}

impl Described {
    /// A program that says nothing about itself.
    fn silent(launch: Launch, code: String) -> Self {
        Self {
            launch,
            health: None,
            scaling: Scaling::default(),
            retry: Rules::default(),
            start_timeout: Duration::ZERO,
            machine_types: Vec::new(),
            code,
        }
    }
}

fn command(app: &App, argv: Vec<String>) -> Described {
    let code = format!("{argv:?} in {}", app.config.cwd.display());
    let (cwd, listen) = (app.config.cwd.clone(), app.config.listen.unwrap_or(Listen::Port));
    Described::silent(Launch::Command(CommandLaunch { argv, cwd, listen }), code)
}

/// For apps that have to be asked what they are. Where a registry does not answer, it is asked again until it does;
/// until then callers are told why.
async fn look_into(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    runners: Vec<ObservedRunner>,
    builds: &Semaphore,
) {
    let mut pause = ASK_AGAIN_MIN;
    loop {
        let Ok(permit) = builds.acquire().await else { return };
        let described = match &app.config.program {
            Program::Image(image) => describe_image(shared, app, image).await,
            _ => describe_python(shared, app).await.map_err(NotFound::from),
        };
        drop(permit);
        match described {
            Ok(described) => return finish(shared, app, described, runners).await,
            Err(NotFound { reason, is_temporary: false }) => {
                break_app(shared, app, reason);
                return stop_all(shared, &runners);
            }
            Err(NotFound { reason, is_temporary: true }) => {
                let seconds = pause.as_secs();
                break_app(shared, app, format!("{reason}; it is asked again in {seconds} s"));
                tokio::time::sleep(pause).await;
                pause = ASK_AGAIN_MAX.min(pause * 2);
            }
        }
    }
}

fn break_app(shared: &Shared, app: &App, reason: String) {
    tracing::error!(app = app.name(), "{reason}");
    shared.apps.break_app(app, reason.clone());
    shared.announce(NodeEvent::AppBroken { app: app.name().to_owned(), reason });
}

async fn describe_python(shared: &Arc<Shared>, app: &Arc<App>) -> Result<Described, String> {
    let Program::Python { file, class } = &app.config.program else {
        return Err("it is not a Python app".into());
    };
    let progress = report_progress(shared, app);
    let description = shared
        .python
        .inspect(file, class.as_deref(), &progress)
        .await
        .map_err(|error| error.to_string())?;
    let image = match description.image_build() {
        Some(build) => Some(shared.images.build(&build, &progress, shared.desk.now()).await?),
        None if app.config.container.is_silent() => None,
        None => {
            return Err("`port`, `network`, `runtime`, `scratch`, `data`, `mounts` and `secret_files` are for apps \
                        in containers, which this class is not: give it an `image`"
                .to_owned());
        }
    };
    let of_class = |launch, code| Described {
        health: description.health_check.as_ref().map(|check| health(check, &description)),
        scaling: description.scaling.over(Scaling::default()),
        retry: retries::of_class(&description.retry),
        start_timeout: Duration::from_secs(description.retry.request_start_timeout.unwrap_or(0)),
        machine_types: own_machine_types(shared, &description),
        code,
        launch,
    };
    let code = match &image {
        Some(found) => {
            format!("{} in {} with {}", description.content_hash, found.digest, rights(shared, app))
        }
        None => description.content_hash.clone(),
    };
    let image = match (image, &description.container) {
        (Some(found), Some(container)) if !container.isolated => {
            let launch = direct(container, found, description.exposed_port);
            return Ok(of_class(Launch::Image(Box::new(launch)), code));
        }
        (image, _) => image,
    };
    let launch = PythonLaunch::new(description.clone(), image);
    launch.prepare(&shared.python, &progress).await.map_err(|error| error.to_string())?;
    Ok(of_class(Launch::Python(Box::new(launch)), code))
}

/// A container that is itself the server, as its class says.
fn direct(container: &AppContainer, found: Found, port: Option<u16>) -> ImageLaunch {
    let command = container.argv(&found.config.entrypoint, &found.config.cmd);
    ImageLaunch { found, command, port }
}

/// Only asks what the image is, or builds it: it is pulled when a runner is wanted.
async fn describe_image(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    image: &ImageProgram,
) -> Result<Described, NotFound> {
    app.preparing(format!("looking for {}", image.image));
    let progress = report_progress(shared, app);
    let found = shared.images.find(&image.image, &progress, shared.desk.now()).await?;
    let code = format!("{} as {image:?} with {}", found.digest, rights(shared, app));
    let launch = ImageLaunch { found, command: image.command.clone(), port: None };
    Ok(Described::silent(Launch::Image(Box::new(launch)), code))
}

/// Identifies what the config lets a container do and see: a runner that has more, or less, is outdated. A hash,
/// since variables may be secret.
fn rights(shared: &Shared, app: &App) -> String {
    let config = &app.config;
    let said = (&config.container, &config.secrets, &config.user, &config.env);
    let runtime = &shared.config.node.runtime;
    format!("{:x}", Sha256::digest(format!("{said:?} by {runtime}")))
}

/// Passes a preparation's progress on to whoever looks, until the returned end is dropped.
fn report_progress(shared: &Arc<Shared>, app: &Arc<App>) -> ProgressSender {
    let (sender, mut progress) = ProgressSender::channel();
    let (shared, app) = (shared.clone(), app.clone());
    shared.tasks.clone().spawn(async move {
        while progress.changed().await.is_ok() {
            let now = progress.borrow_and_update().clone();
            let text = format!("{} {}", now.stage.verb(), now.detail).trim_end().to_owned();
            app.preparing(text.clone());
            shared.announce(NodeEvent::AppProgress {
                app: app.name().to_owned(),
                text,
                fraction: now.fraction,
            });
        }
    });
    sender
}

/// The class's machine types, if its author named them and this node knows one of them. fal gives every
/// class a machine type, which would not fit a small node: that default does not count.
fn own_machine_types(shared: &Shared, description: &AppDescription) -> Vec<String> {
    let named = description.set_by_class.iter().any(|setting| setting.starts_with("machine_type"));
    if !named {
        return Vec::new();
    }
    let known = &shared.config.machine_types;
    description.machine_types.iter().filter(|name| known.contains_key(*name)).cloned().collect()
}

fn health(check: &glowplug_artifacts::HealthCheck, app: &AppDescription) -> HealthCheck {
    let start = check.start_period_seconds.map_or(FAL_HEALTH_START, Duration::from_secs);
    let startup = app.scaling.startup_timeout.map_or(start, Duration::from_secs);
    HealthCheck {
        path: check.path.clone(),
        post: check.method.eq_ignore_ascii_case("POST"),
        start_period: start.max(startup),
        timeout: check.timeout_seconds.map_or(FAL_HEALTH_TIMEOUT, Duration::from_secs),
        failure_threshold: check.failure_threshold.unwrap_or(FAL_HEALTH_FAILURES).max(1),
        regularly: check.call_regularly.unwrap_or(true),
    }
}

/// Hands an app to the engine with what it had before the restart, and opens it to callers.
async fn finish(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    described: Described,
    runners: Vec<ObservedRunner>,
) {
    match deployed(shared, app, described).await {
        Ok(deployed) => {
            let (current, outdated): (Vec<_>, Vec<_>) =
                runners.into_iter().partition(|runner| runs(runner, &deployed.code));
            stop_all(shared, &outdated);
            for runner in &current {
                tracing::info!(runner = %runner.id, app = app.name(), "adopted");
            }
            shared.metrics.name_app(app.id, app.name());
            shared.desk.report(Event::AppChanged { app: app.id, spec: deployed.spec.clone() });
            // Before new callers can come, so that they are served after those who waited.
            shared.queue.release(shared, app);
            shared.apps.deploy(app, deployed);
            // What was taken over between the two.
            shared.queue.release(shared, app);
            shared.announce(NodeEvent::AppPrepared { app: app.name().to_owned() });
        }
        Err(reason) => {
            break_app(shared, app, reason);
            stop_all(shared, &runners);
        }
    }
}

/// Works out everything about an app from its config, its own code, and what was set at run time.
async fn deployed(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    described: Described,
) -> Result<Deployed, String> {
    let config = &app.config;
    let (machine_types, enforced) = machine_types(shared, app, &described.machine_types)?;
    let changed = shared.scaling.lock().await.get(app.name()).copied().unwrap_or_default();
    let base = config.scaling.apply(described.scaling);
    let base = base.map_err(|error| format!("{}: {error}", app.name()))?;
    let scaling = changed.over(config.scaling).apply(described.scaling).unwrap_or_else(|problem| {
        tracing::warn!(app = app.name(), "settings made at run time no longer fit: {problem}");
        base
    });
    let spec = AppSpec {
        name: app.name().to_owned(),
        revision: REVISION,
        scaling,
        machine_types,
        retry: retries::of_app(described.retry, config),
    };
    app.set_start_timeout(config.request_start_timeout.unwrap_or(described.start_timeout));
    let route = AppRoute {
        id: app.id,
        name: app.name().to_owned(),
        access: config.access,
        request_timeout: scaling.request_timeout,
    };
    Ok(Deployed {
        route: Arc::new(route),
        spec,
        launch: Arc::new(described.launch),
        health: described.health,
        class_scaling: described.scaling,
        code: described.code,
        enforced,
    })
}

/// The machine types of an app: the config's, else its own, else the node's default.
fn machine_types(
    shared: &Shared,
    app: &App,
    own: &[String],
) -> Result<(Vec<MachineType>, HashMap<String, bool>), String> {
    let default = [shared.config.node.default_machine.clone()];
    let names: &[String] = match (app.config.machine_types.as_slice(), own) {
        ([], []) => &default,
        ([], own) => own,
        (configured, _) => configured,
    };
    let mut machines = Vec::new();
    let mut enforced = HashMap::new();
    for name in names {
        let Some(known) = shared.config.machine_types.get(name) else {
            return Err(format!(
                "{} wants machine type `{name}`, which does not exist",
                app.name()
            ));
        };
        machines.push(known.machine.clone());
        enforced.insert(name.clone(), known.enforce);
    }
    Ok((machines, enforced))
}

/// Gives the engine the runners of an app that outlived the node. Until the app is deployed nothing ends
/// or joins them.
fn take_over(shared: &Arc<Shared>, app: &App, found: &[ObservedRunner]) {
    if found.is_empty() {
        return;
    }
    let scaling = Scaling {
        keep_alive: PREPARING_MAX,
        unused_runner_timeout: None,
        startup_timeout: PREPARING_MAX,
        frozen_for: Some(PREPARING_MAX),
        ..Scaling::default()
    };
    let machine_types = machine_types(shared, app, &[]).map(|(machines, _)| machines);
    let spec = AppSpec {
        name: app.name().to_owned(),
        revision: REVISION,
        scaling,
        machine_types: machine_types.unwrap_or_default(),
        retry: Rules::default(),
    };
    shared.metrics.name_app(app.id, app.name());
    shared.desk.report(Event::AppChanged { app: app.id, spec });
    for runner in found {
        let address = match &runner.state {
            ObservedState::Ready(address) => Some(address.clone()),
            ObservedState::Starting | ObservedState::Stopping => None,
        };
        let adopted = Adopted {
            runner: runner.id,
            app: app.id,
            revision: REVISION,
            allocation: allocation(runner),
            started_at: runner.started_at,
            ready: address.is_some(),
            frozen: runner.is_frozen,
        };
        if let Some(folder) = runner.labels.get(label::LATE) {
            shared.images.late.watch(runner.id, Late::at(Path::new(folder)));
        }
        shared.desk.adopt(adopted, app.name(), address);
    }
}

/// Whether a runner that was found runs this code, and is to go on.
fn runs(runner: &ObservedRunner, code: &str) -> bool {
    runner.state != ObservedState::Stopping
        && runner.labels.get(label::CODE).is_some_and(|label| label == code)
}

fn stop_all(shared: &Shared, runners: &[ObservedRunner]) {
    for runner in runners {
        tracing::info!(runner = %runner.id, app = runner.app, "of an earlier run of the node; is stopped");
        let how = StopRequest::Graceful;
        shared.desk.report(Event::StopRequested { runner: runner.id, how });
    }
}

fn allocation(runner: &ObservedRunner) -> Allocation {
    let text = |key| runner.labels.get(key).map(String::as_str).unwrap_or_default();
    Allocation {
        machine_type: text(label::MACHINE_TYPE).to_owned(),
        cpu_millis: text(label::CPU_MILLIS).parse().unwrap_or(0),
        memory_bytes: text(label::MEMORY_BYTES).parse().unwrap_or(0),
        gpus: text(label::GPUS).split(',').filter_map(|gpu| gpu.parse().ok()).collect(),
    }
}
