//! Starts a runner of an image before the image is here.
//!
//! ```text
//!                    ┌ TREE  an EROFS image made of the layers' tables of contents; small files that starts
//!                    │       have touched are in it
//! root of a runner ──┼ CONTENTS  shared by all images
//!                    └ LATE  a FUSE mount: every other file, filled from the registry when it is read
//! ```
//!
//! What starts of the image have touched is brought in a few large ranges before the start, the rest when it is
//! read. Who answers the reads is a *filler*: a process of its own, which outlives the node as runners do. It
//! gives nobody a byte that was not compared with the digest of its chunk; those are in the table of contents,
//! whose own digest is in the manifest. The ordinary pull of the image goes on behind; later starts use that.
//!
//! ```text
//! late/NAME/record      which image it is, and the layers that the filler may take from the store
//!           plan        where everything is
//!           tree.erofs  mounted at `tree`
//!           files       where the filler serves
//!           cache       chunks that are here, at their places; with holes
//!           reads       which chunks were read, in order
//!           lock        held by the filler while it lives
//!           users       held, shared, by who is about to start a runner or has one
//! ```
//!
//! A late image without a living filler is of no use, and goes. The filler ends when nobody has used its image for
//! a while: no overlay, and no holder of `users`. It takes the folder with it.
//!
//! **Limits.** [`Options`]; those of the filler are with its parts. A late image's cache is at most as large as
//! the image's files.

mod cache;
mod decide;
mod fetch;
pub mod filler;
mod inflate;
mod plan;
mod prepare;
mod reads;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::layer::unpack;
use crate::source;
use crate::store;
use crate::toc;

pub use self::reads::Late;
pub use self::start::{Lazy, Started};

/// The folder of the late files below the filler's mount. Contents are in folders of two digits.
const FILES_FOLDER: &str = "f";
pub(crate) const RECORD_FILE: &str = "record";
const PLAN_FILE: &str = "plan";
pub(crate) const TREE_FILE: &str = "tree.erofs";
pub(crate) const TREE_MOUNT: &str = "tree";
pub(crate) const FILES_MOUNT: &str = "files";
pub(crate) const CACHE_FILE: &str = "cache";
const READS_FILE: &str = "reads";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const USERS_FILE: &str = "users";

/// Where a late file is, below the filler's mount.
pub(crate) fn relative_path(number: u32) -> String {
    format!("{FILES_FOLDER}/{number}")
}

/// The program that becomes a filler: `program args...`, with its order at its standard input.
#[derive(Clone, Debug)]
pub struct FillerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub filler: FillerCommand,
    /// Smaller images, as they are stored, are pulled before they are started.
    pub image_bytes_min: u64,
    pub limits: unpack::Limits,
    pub patience: Patience,
}

/// With a source that goes away.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Patience {
    /// Before it is tried again; doubled each time.
    pub retry_pause: Duration,
    /// Until a read fails.
    pub away_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { retry_pause: Duration::from_millis(200), away_max: Duration::from_mins(1) }
    }
}

impl Options {
    pub fn new(filler: FillerCommand) -> Self {
        Self {
            filler,
            image_bytes_min: 32 << 20,
            limits: unpack::Limits::default(),
            patience: Patience::default(),
        }
    }
}

/// Cheap to clone. A start that fails with one of these is done with a pull.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the table of contents of layer {layer} cannot be used")]
    Toc {
        layer: crate::Digest,
        #[source]
        source: toc::Error,
    },
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error(transparent)]
    Store(#[from] Arc<store::Error>),
    #[error(transparent)]
    Pull(#[from] crate::pull::Error),
    #[error("{name} has been away for {} seconds: {problem}", away.as_secs())]
    Away { name: String, away: Duration, problem: String },
    #[error("the layer has not what its table of contents says of `{path}`: nothing of it is used")]
    WrongBytes { path: String },
    #[error("cannot {operation}")]
    Io {
        operation: &'static str,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("the filler does not start: {problem}")]
    Filler { problem: String },
}

type Result<T, E = Error> = std::result::Result<T, E>;

fn failed(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { operation, source: Arc::new(source) }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}
