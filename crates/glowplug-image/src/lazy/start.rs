//! From an image that is not here to one that can be mounted.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::decide::Why;
use super::filler::{Order, READY};
use super::prepare::Preparation;
use super::{Error, FILES_MOUNT, Options, Result, failed};
use crate::digest::Digest;
use crate::pull::Puller;
use crate::source::{Recipe, Resolved, Source};
use crate::store::{Mounted, Mounting};
use crate::touched::Touched;

/// For a filler to serve.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 4096;
/// What all fillers say, at most; then it begins anew.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lazy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    puller: Puller,
    options: Options,
    /// One preparation of an image at a time: who comes second finds it done.
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
pub enum Started {
    Late(Mounted),
    /// An ordinary pull is better, or the only way.
    Full(Why),
}

impl Lazy {
    pub fn new(puller: Puller, options: Options) -> Self {
        Self { inner: Arc::new(Inner { puller, options, turns: Mutex::default() }) }
    }

    /// Makes a late image of one that is not here, with what is in `touched` brought first. Needs root.
    pub async fn start(
        &self,
        source: &Arc<dyn Source>,
        resolved: &Resolved,
        touched: &Touched,
    ) -> Result<Started> {
        let Some(recipe) = source.recipe() else { return Ok(Started::Full(Why::Elsewhere)) };
        let turn = self.turn(&resolved.digest).lock_owned().await;
        let (store, image) = (self.inner.puller.store().clone(), resolved.digest.clone());
        let living = tokio::task::spawn_blocking(move || {
            if store.mounting()? == Mounting::Directories {
                return Ok(Err(Why::Kernel));
            }
            let living = store.living_late(&image)?;
            if living.is_none() {
                store.sweep_late(Some(&image))?;
            }
            Ok::<_, crate::store::Error>(Ok(living))
        });
        match living.await.expect("the store does not panic")? {
            Ok(Some(living)) => return Ok(Started::Late(living)),
            Ok(None) => {}
            Err(why) => return Ok(Started::Full(why)),
        }
        let preparation = Preparation {
            puller: &self.inner.puller,
            options: &self.inner.options,
            source,
            resolved,
            touched,
        };
        let folder = match preparation.run().await? {
            Ok(folder) => folder,
            Err(why) => return Ok(Started::Full(why)),
        };
        let lazy = self.clone();
        // Whoever waits may go away at any moment; a filler that nobody waits for must end all the same.
        let serving = tokio::spawn(async move {
            let mounted = lazy.serve(folder, recipe).await;
            drop(turn);
            mounted
        });
        let problem = "the work on its start ended without a word".to_owned();
        let mounted = serving.await.unwrap_or(Err(Error::Filler { problem }));
        mounted.map(Started::Late)
    }

    /// With a filler, and mounted. Without anybody who uses it the filler ends.
    async fn serve(&self, folder: TempDir, recipe: Recipe) -> Result<Mounted> {
        let child = self.fill(folder.path(), recipe).await?;
        let store = self.inner.puller.store().clone();
        let path = folder.path().to_owned();
        let mounted = tokio::task::spawn_blocking(move || store.mount_late(&path)).await;
        match mounted.expect("the store does not panic") {
            Ok(mounted) => {
                // From here on it is the filler's.
                let _ = folder.keep();
                Ok(mounted)
            }
            Err(error) => {
                give_up(child, folder.path()).await;
                Err(error.into())
            }
        }
    }

    fn turn(&self, image: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(image).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(image.clone(), Arc::downgrade(&turn));
        turn
    }

    /// Starts the filler and waits until it serves.
    async fn fill(&self, folder: &Path, recipe: Recipe) -> Result<Child> {
        let options = &self.inner.options;
        let store = self.inner.puller.store().folder().to_owned();
        let order = Order {
            folder: folder.to_owned(),
            store,
            recipe,
            patience: options.patience,
            bytes_per_second_max: self.inner.puller.options().bytes_per_second_max,
        };
        let order = postcard::to_allocvec(&order).expect("plain data has a form");
        let log = log(folder).map_err(failed("open the log of fillers"))?;
        #[expect(clippy::disallowed_methods, reason = "it ends on its own, as runners do")]
        let mut command = Command::new(&options.filler.program);
        command.args(&options.filler.args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(failed("start the filler"))?;
        let ready = tokio::time::timeout(READY_TIMEOUT, hand_over(&mut child, &order));
        let problem = match ready.await {
            Ok(Ok(answer)) if answer == READY => return Ok(child),
            Ok(Ok(answer)) if answer.is_empty() => "it ended without a word".to_owned(),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not ready after {} seconds", READY_TIMEOUT.as_secs()),
        };
        give_up(child, folder).await;
        Err(Error::Filler { problem })
    }
}

async fn hand_over(child: &mut Child, order: &[u8]) -> std::io::Result<String> {
    if let Some(mut input) = child.stdin.take() {
        input.write_all(order).await?;
    }
    let Some(output) = child.stdout.take() else { return Ok(String::new()) };
    let mut answer = String::new();
    BufReader::new(output.take(ANSWER_BYTES_MAX)).read_line(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}

async fn give_up(mut child: Child, folder: &Path) {
    let _ = child.kill().await;
    // Nothing is there that anybody uses yet.
    let _ = unmount(folder.join(FILES_MOUNT), UnmountFlags::DETACH);
}

fn log(folder: &Path) -> std::io::Result<File> {
    let path = folder.with_file_name("log");
    let log = File::options().create(true).append(true).open(path)?;
    if log.metadata()?.len() > LOG_BYTES_MAX {
        log.set_len(0)?;
    }
    Ok(log)
}
