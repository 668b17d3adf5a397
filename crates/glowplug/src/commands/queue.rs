//! `glowplug queue`

use glowplug_api::control::{FlushView, QueueView};

use crate::cli::Context;
use crate::commands::apps::parse_name;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How many requests wait, and how many are being worked on
    Size {
        /// As `hello`, `team/hello` or `hello--staging`
        app: String,
    },
    /// Remove all waiting requests; those being worked on go on
    Flush {
        /// As `hello`, `team/hello` or `hello--staging`
        app: String,
    },
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Size { app } => {
            let app = parse_name(&app)?;
            let path = ["apps", app.owner(), app.app(), "queue"];
            let queue: QueueView = context.client()?.get(&path, &[]).await?;
            context.output.value(&queue, |queue| {
                format!("{}: {} waiting, {} in progress", queue.app, queue.size, queue.in_progress)
            })
        }
        Command::Flush { app } => {
            let app = parse_name(&app)?;
            let path = ["apps", app.owner(), app.app(), "queue"];
            let flushed: FlushView = context.client()?.delete(&path).await?;
            context.output.value(&flushed, |flushed| {
                format!("{}: {} waiting requests removed", flushed.app, flushed.removed)
            })
        }
    }
}
