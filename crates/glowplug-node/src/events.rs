//! What a node tells whoever shows it.

use glowplug_api::control::RunnerView;

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
    RunnerReady {
        view: Box<RunnerView>,
    },
    RunnerEnded {
        view: Box<RunnerView>,
    },
}
