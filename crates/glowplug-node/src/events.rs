//! What a node tells whoever shows it.

use glowplug_api::control::{PullView, RunnerView};

/// What happens on a node, for a terminal to show.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// An app's environment is being built.
    AppProgress {
        app: String,
        text: String,
        fraction: Option<f32>,
    },
    AppPrepared {
        app: String,
    },
    AppBroken {
        app: String,
        reason: String,
    },
    /// A start waits for an image.
    ImagePulling {
        image: String,
        pull: PullView,
    },
    RunnerReady {
        view: Box<RunnerView>,
    },
    RunnerEnded {
        view: Box<RunnerView>,
    },
}
