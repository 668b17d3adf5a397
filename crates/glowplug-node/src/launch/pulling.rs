//! What is told of a pull that a start waits for.

use std::sync::Arc;
use std::time::Duration;

use glowplug_image::pull::ProgressSender;

use crate::events::NodeEvent;
use crate::images::Found;
use crate::runner_task::Start;
use crate::shared::Shared;
use crate::views;

/// Between two words about one pull.
const INTERVAL: Duration = Duration::from_millis(250);

/// Where the pull of a start reports to. What comes there is told to whoever looks at the runner or watches the
/// node, and to the log when the returned end is dropped.
pub(super) fn report(shared: &Arc<Shared>, start: &Start, found: &Found) -> ProgressSender {
    let (sender, mut progress) = ProgressSender::channel();
    shared.desk.pulling(start.runner, progress.clone());
    let (begun, image) = (shared.desk.now(), found.name().to_owned());
    let app = shared.apps.by_id(start.app).map(|app| app.name().to_owned()).unwrap_or_default();
    let (shared, runner) = (shared.clone(), start.runner);
    shared.tasks.clone().spawn(async move {
        while progress.changed().await.is_ok() {
            let pull = views::pull(*progress.borrow_and_update(), shared.desk.now() - begun);
            shared.announce(NodeEvent::ImagePulling { image: image.clone(), pull });
            tokio::time::sleep(INTERVAL).await;
        }
        let last = *progress.borrow();
        let took = shared.desk.now() - begun;
        let pull = views::pull(last, took);
        tracing::info!(
            app, %runner, image,
            bytes = pull.bytes - pull.known_bytes,
            known_bytes = pull.known_bytes,
            layers = pull.layers,
            bytes_per_second = pull.bytes_per_second,
            seconds = took.as_secs_f64(),
            "{}",
            if last.is_done { "pulled" } else { "the pull ended early" },
        );
    });
    sender
}
