//! From a decision to start to the program that is started.

mod container;
pub(crate) mod given;
mod pulling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use glowplug_artifacts::ProgressSender;
use glowplug_core::Event;
use glowplug_core::decision::StartCause;
use glowplug_gateway::host::AppProblem;
use glowplug_image::store::Mounted;
use glowplug_runner::{Limits, Listen, Recording, RunnerSpec, SecretFiles, Warm, host};

use self::container::World;
use crate::apps::{App, Deployed, Launch, PythonLaunch};
use crate::config::LazyStart;
use crate::images::Found;
use crate::late;
use crate::runner_task::Start;
use crate::shared::Shared;

/// How long the runners of a node that keeps nothing outlive it.
const EPHEMERAL_ORPHAN: Duration = Duration::from_secs(2);

/// What the node must know of a runner to adopt it after a restart.
pub(crate) mod label {
    pub(crate) const MACHINE_TYPE: &str = "machine_type";
    pub(crate) const CPU_MILLIS: &str = "cpu_millis";
    pub(crate) const MEMORY_BYTES: &str = "memory_bytes";
    pub(crate) const GPUS: &str = "gpus";
    /// A snapshot was to be taken of it: not adopted.
    pub(crate) const CAPTURE: &str = "capture";
    /// Identifies the code: a runner of other code is not adopted.
    pub(crate) const CODE: &str = "code";
    /// The folder of the late image that it uses.
    pub(crate) const LATE: &str = "late";
}

/// What a start needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) spec: RunnerSpec,
    /// What must stay in its place for as long as the runner is there.
    pub(crate) image: Option<Mounted>,
}

impl Prepared {
    fn new(mut spec: RunnerSpec, image: Option<Mounted>) -> Self {
        if let Some(late) = image.as_ref().and_then(Mounted::as_late) {
            let folder = late.folder().display().to_string();
            spec.labels.insert(label::LATE.to_owned(), folder);
        }
        Self { spec, image }
    }
}

/// Prepares what the start needs and describes it. Tells the engine when that takes a pull.
pub(crate) async fn prepare(shared: &Arc<Shared>, start: &Start) -> Result<Prepared, String> {
    let app = shared.apps.by_id(start.app).ok_or("its app is not known any more")?;
    // The engine may want a runner a moment before the app is open to callers.
    let deployed = app.settled().await.map_err(|problem| match problem {
        AppProblem::Broken { reason } => reason,
        AppProblem::Unknown { .. } => "its app is not known any more".to_owned(),
    })?;
    let mut spec = base(shared, app, &deployed, start);
    // Read anew at each start, so that a new one counts from the next start on.
    let secrets = given::secrets(&app.config.secrets)?;
    let (mut image, mut zygote) = (None, None);
    let node = &shared.config.node;
    match &*deployed.launch {
        Launch::Command(command) => {
            let argv = &app.config.warmth.zygote_command;
            zygote = Some(argv.clone()).filter(|argv| !argv.is_empty());
            spec.argv.clone_from(&command.argv);
            spec.cwd.clone_from(&command.cwd);
            spec.listen = command.listen;
        }
        Launch::Python(python) => {
            let launch = python_launch(shared, start, python).await?;
            if let Some(found) = &python.image {
                let (mounted, recording) = image_for(shared, start, app, found).await?;
                let world = World { app, image: &found.config, mounted: &mounted, recording, node };
                container::describe_python(&mut spec, &world, &launch)?;
                complete(&mut spec, app, secrets)?;
                return Ok(Prepared::new(spec, Some(mounted)));
            }
            zygote = launch.zygote_argv();
            spec.argv.clone_from(&launch.argv);
            spec.cwd.clone_from(&launch.working_dir);
            spec.listen = Listen::UnixSocket;
            let own = std::mem::take(&mut spec.env);
            spec.env.clone_from(&launch.env);
            spec.env.extend(own);
        }
        Launch::Image(launch) => {
            let found = &launch.found;
            let (mounted, recording) = image_for(shared, start, app, found).await?;
            let world = World { app, image: &found.config, mounted: &mounted, recording, node };
            container::describe(&mut spec, &world, launch)?;
            image = Some(mounted);
        }
    }
    let is_capture = start.cause == StartCause::Capture;
    let names: BTreeSet<String> = secrets.keys().cloned().collect();
    // What is captured is kept on the disk: no secret is to be in it.
    complete(&mut spec, app, if is_capture { BTreeMap::new() } else { secrets })?;
    shared.snapshots.warm(shared, (app, &deployed), is_capture, &names, &mut spec);
    if spec.warm == Warm::Plain && !is_capture {
        shared.zygotes.warm(shared, (app, &deployed), zygote, &mut spec);
    }
    Ok(Prepared::new(spec, image))
}

/// What is given last: secrets, and in a container the GPUs.
fn complete(
    spec: &mut RunnerSpec,
    app: &App,
    secrets: BTreeMap<String, String>,
) -> Result<(), String> {
    match (&mut spec.container, &app.config.container.secret_files) {
        (Some(container), Some(dir)) => {
            container.secrets = Some(SecretFiles { dir: dir.clone(), files: secrets });
        }
        _ => spec.env.extend(secrets),
    }
    host::give_gpus(spec, &host::GpuPlaces::default())
}

/// The image's files, and whether it is recorded which of them this start opens.
async fn image_for(
    shared: &Arc<Shared>,
    start: &Start,
    app: &App,
    found: &Found,
) -> Result<(Mounted, Recording), String> {
    let mounted = mounted(shared, start, app, found).await?;
    let (of, now) = ((&found.digest, app.name()), shared.desk.now());
    let recording = shared.images.begin_recording(start.runner, of, now).await;
    Ok((mounted, recording))
}

/// The image's files, pulled if they are not here.
async fn mounted(
    shared: &Arc<Shared>,
    start: &Start,
    app: &App,
    found: &Found,
) -> Result<Mounted, String> {
    if let Some(mounted) = shared.images.mount(found, shared.desk.now()).await? {
        return Ok(mounted);
    }
    shared.desk.report(Event::PullStarted { runner: start.runner });
    if app.config.container.lazy() == LazyStart::Auto
        && let Some(mounted) = shared.images.start_late(found, app.name(), start.runner).await
    {
        late::pull_behind(shared, start, found);
        return Ok(mounted);
    }
    let progress = pulling::report(shared, start, found);
    shared.images.pull(found, &progress, shared.desk.now()).await?;
    drop(progress);
    let mounted = shared.images.mount(found, shared.desk.now()).await?;
    mounted.ok_or_else(|| "its image was removed as soon as it was pulled".to_owned())
}

/// How to start a Python app, building what has gone from the disk since it was deployed.
async fn python_launch(
    shared: &Arc<Shared>,
    start: &Start,
    python: &PythonLaunch,
) -> Result<Arc<glowplug_artifacts::Launch>, String> {
    if let Some(launch) = python.cached() {
        return Ok(launch);
    }
    shared.desk.report(Event::PullStarted { runner: start.runner });
    let prepared = python.prepare(&shared.python, &ProgressSender::none()).await;
    prepared.map_err(|error| error.to_string())
}

fn base(shared: &Shared, app: &App, deployed: &Deployed, start: &Start) -> RunnerSpec {
    let node = &shared.config.node;
    let allocation = &start.allocation;
    let gpus = allocation.gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut labels = BTreeMap::from([
        (label::MACHINE_TYPE.to_owned(), allocation.machine_type.clone()),
        (label::CPU_MILLIS.to_owned(), allocation.cpu_millis.to_string()),
        (label::MEMORY_BYTES.to_owned(), allocation.memory_bytes.to_string()),
        (label::GPUS.to_owned(), gpus),
        (label::CODE.to_owned(), deployed.code.clone()),
    ]);
    if start.cause == StartCause::Capture {
        labels.insert(label::CAPTURE.to_owned(), String::new());
    }
    let enforced = deployed.enforced.get(&allocation.machine_type).copied().unwrap_or(false);
    RunnerSpec {
        id: start.runner,
        app: app.name().to_owned(),
        revision: start.revision,
        labels,
        argv: Vec::new(),
        cwd: app.config.cwd.clone(),
        env: environment(shared, app, start),
        listen: Listen::Port,
        health_path: app.config.health_path.clone(),
        limits: Limits {
            cpu_millis: enforced.then_some(allocation.cpu_millis).filter(|millis| *millis > 0),
            memory_bytes: enforced.then_some(allocation.memory_bytes).filter(|bytes| *bytes > 0),
            pids_max: Some(u64::from(node.limits.runner_processes_max)),
            open_files_max: node.limits.runner_open_files_max.map(u64::from),
        },
        gpus: allocation.gpus.clone(),
        user: app.config.user.clone().or_else(|| node.user.clone()),
        container: None,
        warm: Warm::Plain,
        grace: deployed.spec.scaling.termination_grace_period,
        orphan_timeout: if shared.ephemeral { EPHEMERAL_ORPHAN } else { node.adopt_timeout },
    }
}

/// What a runner finds in its environment, as fal's runners do. The user's own `env` wins.
fn environment(shared: &Shared, app: &App, start: &Start) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = [
        ("FAL_APP_NAME", app.config.name.app().to_owned()),
        ("FAL_APP_ID", app.name().to_owned()),
        ("FAL_USER_NICKNAME", app.config.name.owner().to_owned()),
        ("FAL_JOB_ID", start.runner.to_string()),
        ("GLOWPLUG_RUNNER_ID", start.runner.to_string()),
        ("GLOWPLUG_TIMELINE", shared.timeline_path(start.runner).display().to_string()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    env.extend(app.config.env.clone());
    env
}
