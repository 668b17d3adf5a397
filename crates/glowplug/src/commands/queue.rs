//! `glowplug queue`

mod requests;
mod transfer;

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
    /// Queued requests, those at work first
    List(requests::ListArgs),
    /// One queued request: where it is, its answer's status, its log
    Show {
        /// The request's id
        id: String,
    },
    /// Cancel one queued request
    Cancel {
        /// The request's id
        id: String,
    },
    /// Write all queued requests with their answers into one file
    Export(transfer::ExportArgs),
    /// Take in queued requests that were exported
    Import(transfer::ImportArgs),
    /// Copy the node's database while it is in use
    Backup(transfer::BackupArgs),
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
        Command::List(args) => requests::list(&args, context).await,
        Command::Show { id } => requests::show(&id, context).await,
        Command::Cancel { id } => requests::cancel(&id, context).await,
        Command::Export(args) => transfer::export(&args, context).await,
        Command::Import(args) => transfer::import(&args, context).await,
        Command::Backup(args) => transfer::backup(&args, context).await,
    }
}
