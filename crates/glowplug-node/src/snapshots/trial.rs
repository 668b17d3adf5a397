//! Restores a capture once, beside everything else, and asks it what the original was asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use glowplug_core::{Rung, RunnerAddress, RunnerId};
use glowplug_dial::Stream;
use glowplug_runner::{Notice, RunnerSpec, StopMode, Warm};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::launch::given;
use crate::runner_task::{chain, describe};
use crate::shared::Shared;

/// From the beginning of a restore until it is ready, and again for its answer and its end.
const TRIAL_TIMEOUT: Duration = Duration::from_mins(1);
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// What a backend says of one runner that nobody has heard yet.
const NOTICES_MAX: usize = 16;

pub(super) struct Golden {
    pub(super) path: String,
    pub(super) compares_body: bool,
    pub(super) answer: (StatusCode, Bytes),
}

pub(super) fn subject(notice: &Notice) -> RunnerId {
    match notice {
        Notice::Spawned { runner, .. }
        | Notice::Ready { runner, .. }
        | Notice::Touched { runner, .. }
        | Notice::Frozen { runner, .. }
        | Notice::Thawed { runner, .. }
        | Notice::NotRestored { runner, .. }
        | Notice::Captured { runner, .. }
        | Notice::Exited { runner, .. } => *runner,
    }
}

/// How long it took to be ready, or what is wrong with it.
pub(super) async fn run(
    shared: &Arc<Shared>,
    spec: &RunnerSpec,
    images: &Path,
    golden: &Golden,
) -> Result<Duration, String> {
    let Warm::Enclosed { criu } = &spec.warm else { return Err("it was not enclosed".to_owned()) };
    let (sender, mut notices) = mpsc::channel(NOTICES_MAX);
    let id = {
        let mut state = shared.snapshots.state();
        state.trials_begun += 1;
        // Far from what the engine counts up to.
        let id = RunnerId { boot: shared.snapshots.boot, sequence: u32::MAX - state.trials_begun };
        state.trials.insert(id, sender);
        id
    };
    let mut spec = spec.clone();
    spec.id = id;
    // Of no app: a later node that finds it ends it.
    spec.labels.clear();
    // As every start from it will have them; it is not captured again.
    if let Some(app) = shared.apps.by_name(&spec.app) {
        spec.env.extend(given::secrets(&app.config.secrets)?);
    }
    spec.warm = Warm::Snapshot { criu: criu.clone(), dir: images.to_owned() };
    let begun = Instant::now();
    let tried = match shared.backend.ensure(&spec).await {
        Ok(()) => {
            let ready = timeout(TRIAL_TIMEOUT, ready(&mut notices)).await;
            match ready.unwrap_or_else(|_| Err("on trial it did not become ready".to_owned())) {
                Ok(address) => {
                    let took = begun.elapsed();
                    compare(&address, golden).await.map(|()| took)
                }
                Err(problem) => Err(problem),
            }
        }
        Err(error) => Err(chain(&error)),
    };
    end(shared, id, &mut notices).await;
    shared.snapshots.state().trials.remove(&id);
    tried
}

async fn ready(notices: &mut mpsc::Receiver<Notice>) -> Result<RunnerAddress, String> {
    loop {
        match notices.recv().await {
            Some(Notice::Ready { address, .. }) => return Ok(address),
            Some(Notice::NotRestored { problem, .. }) => {
                return Err(format!("on trial it was not restored: {problem}"));
            }
            Some(Notice::Exited { exit, .. }) => {
                return Err(format!("on trial it {}", describe(&exit)));
            }
            Some(Notice::Spawned { rung, .. }) if rung != Rung::Snapshot => {
                return Err("on trial it was not restored".to_owned());
            }
            Some(_) => {}
            None => return Err("the node ends".to_owned()),
        }
    }
}

async fn compare(address: &RunnerAddress, golden: &Golden) -> Result<(), String> {
    let (status, body) = ask(address, &golden.path).await?;
    if status != golden.answer.0 {
        let before = golden.answer.0;
        return Err(format!(
            "on trial it answered {} with {status} instead of {before}",
            golden.path
        ));
    }
    if golden.compares_body && body != golden.answer.1 {
        return Err(format!("on trial it answered {} with something else", golden.path));
    }
    Ok(())
}

async fn end(shared: &Arc<Shared>, id: RunnerId, notices: &mut mpsc::Receiver<Notice>) {
    if let Err(error) = shared.backend.stop(id, StopMode::Kill).await {
        tracing::warn!(runner = %id, "cannot stop: {}", chain(&error));
    }
    let ended = async {
        while let Some(notice) = notices.recv().await {
            if matches!(notice, Notice::Exited { .. }) {
                return;
            }
        }
    };
    if timeout(TRIAL_TIMEOUT, ended).await.is_ok() {
        // What stays is found, and removed, by the next node.
        let _ = shared.backend.forget(id).await;
    }
}

/// One request, and its answer.
pub(super) async fn ask(
    address: &RunnerAddress,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let ask = async {
        let stream = Stream::connect(address).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let request = Request::get(path)
            .header(http::header::HOST, "glowplug")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    let answer = timeout(TRIAL_TIMEOUT, ask).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    answer.map_err(|error| format!("{path} was not answered: {error}"))
}
