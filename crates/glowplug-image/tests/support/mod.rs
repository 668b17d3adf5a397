//! What the tests share: images made of nothing, and servers that misbehave.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

pub(crate) mod faulty;
pub(crate) mod images;
pub(crate) mod killed;
pub(crate) mod root;
pub(crate) mod tree;

use std::sync::Arc;

use glowplug_image::Store;
use glowplug_image::pull::{self, Options, ProgressSender, Puller};
use glowplug_image::source::Source;
use glowplug_image::source::credentials::Credentials;
use glowplug_image::source::registry::{self, Registry};
use glowplug_image::store::Image;

/// A source of the image with this name, such as `127.0.0.1:5000/name:tag`.
pub(crate) fn source(name: &str, credentials: Credentials) -> Arc<dyn Source> {
    let options = registry::Options {
        read_timeout: std::time::Duration::from_millis(500),
        ..registry::Options::default()
    };
    Arc::new(Registry::new(name.parse().unwrap(), credentials, &options).unwrap())
}

/// One that leaves nothing free and does not wait long between its tries.
pub(crate) fn puller(store: &Store) -> Puller {
    let options = Options {
        free_bytes_min: 0,
        retry_pause: std::time::Duration::from_millis(1),
        ..Options::default()
    };
    Puller::new(store.clone(), options)
}

pub(crate) async fn pull(puller: &Puller, name: &str) -> Result<Image, pull::Error> {
    puller.pull(&source(name, Credentials::Anonymous), &ProgressSender::none()).await
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
