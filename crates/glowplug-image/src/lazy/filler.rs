//! The process that serves the files of one late image.
//!
//! ```text
//! kernel ──read──► Files ──chunks──► Fill ──┬── Local   layers that are complete by now
//!                    ▲                      └── Fetcher the registry
//!                    └──── cache ◄── verified chunks ──┘
//! ```
//!
//! It holds no lock that the node needs, so it goes on when the node is killed. When it is killed itself, reads of
//! what the kernel does not have fail, and who reads that fails or is replaced; nothing wrong is ever read.
//!
//! **Limits.** What the kernel asks at once ([`files`]), requests to the registry at once ([`super::fetch`]), and
//! with both the memory. The order is at most [`ORDER_BYTES_MAX`]. The limit on bytes per second holds for each filler
//! by itself, beside the node's own pulls.

mod end;
mod files;
mod fill;
mod local;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use self::files::Files;
use self::fill::Fill;
use self::local::Local;
use super::fetch::Fetcher;
use super::plan::Plan;
use super::reads::Recorder;
use super::{CACHE_FILE, FILES_MOUNT, LOCK_FILE, Patience};
use crate::pull::pace::Pace;
use crate::source::Recipe;

/// Of the order: a name, credentials, two folders.
const ORDER_BYTES_MAX: u64 = 1 << 20;
/// The first and last word of a filler that serves.
pub(super) const READY: &str = "ready";
/// Threads that fetch and inflate are apart from those that answer the kernel.
const WORKERS: usize = 2;

/// What a filler reads first. It has credentials in it.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) folder: PathBuf,
    pub(super) store: PathBuf,
    pub(super) recipe: Recipe,
    pub(super) patience: Patience,
    pub(super) bytes_per_second_max: Option<u64>,
}

/// Becomes a filler, whose order is at the standard input, until its image is not used any more.
pub fn main() -> ExitCode {
    // Signals of a terminal are for the node.
    let _ = rustix::process::setsid();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&problem);
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), String> {
    let mut order = Vec::new();
    let read = std::io::stdin().take(ORDER_BYTES_MAX).read_to_end(&mut order);
    read.map_err(|error| format!("its order cannot be read: {error}"))?;
    let order: Order =
        postcard::from_bytes(&order).map_err(|error| format!("its order is damaged: {error}"))?;
    let _lock = own(&order)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| format!("it has no threads: {error}"))?;
    let _entered = runtime.enter();
    let folder = order.folder.clone();
    let fill = Arc::new(fill(order)?);
    let recorder = Recorder::new(&folder, fill.chunks().stored.len());
    let recorder = recorder.map_err(|error| format!("it cannot record: {error}"))?;
    let files = Files::new(fill, recorder, runtime.handle().clone());
    let mount = folder.join(FILES_MOUNT);
    let session = fuser::spawn_mount(files, &mount, &files::config())
        .map_err(|error| format!("it cannot mount: {error}"))?;
    files::widen_readahead(&mount);
    say(READY);
    let _users = end::wait(&folder, &session);
    tracing::info!(folder = %folder.display(), "nobody uses the late image any more");
    drop(session);
    end::clean(&folder);
    // What still goes on is for nobody.
    runtime.shutdown_background();
    Ok(())
}

fn fill(order: Order) -> Result<Fill, String> {
    let problem = |what: &'static str| move |error| format!("{what}: {error}");
    let plan = Plan::read(&order.folder).map_err(problem("its plan cannot be read"))?;
    let path = order.folder.join(CACHE_FILE);
    let cache = File::options().read(true).write(true).open(path);
    let cache = Arc::new(cache.map_err(problem("its cache cannot be opened"))?);
    let source = order.recipe.open().map_err(|error| error.to_string())?;
    let layers: Vec<_> = plan.layers.iter().map(|layer| layer.digest.clone()).collect();
    let chunks = Arc::new(plan.chunks);
    let fetcher = Fetcher::new(
        source,
        plan.layers,
        Arc::clone(&chunks),
        cache,
        order.patience,
        Arc::new(Pace::new(order.bytes_per_second_max)),
    );
    Ok(Fill::new(fetcher, Local::new(order.store, layers), &plan.here))
}

/// Says to everybody who looks that this image has a living filler.
fn own(order: &Order) -> Result<File, String> {
    let problem = |error: std::io::Error| format!("it cannot take its lock: {error}");
    let lock = File::create(order.folder.join(LOCK_FILE)).map_err(problem)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| problem(error.into()))?;
    Ok(lock)
}

/// To who started it, who does not listen after the first word.
fn say(word: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{word}").and_then(|()| out.flush());
}
