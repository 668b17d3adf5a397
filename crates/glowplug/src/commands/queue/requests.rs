//! `glowplug queue list`, `show` and `cancel`.

use glowplug_api::control::{CancelView, QueuedView};

use crate::cli::Context;
use crate::commands::apps::parse_name;
use crate::failure::Failure;
use crate::output::moment;

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of this app
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Only those that are: `queued`, `running`, `completed`; or `open` (both that are not), or `all`
    #[arg(long, default_value = "open", value_parser = ["open", "queued", "running", "completed", "all"])]
    state: String,
    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,
}

pub(crate) async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let app = args.app.as_deref().map(parse_name).transpose()?;
    let limit = args.limit.to_string();
    let mut query = vec![("state", args.state.as_str()), ("limit", limit.as_str())];
    query.extend(app.as_ref().map(|app| ("app", app.as_str())));
    let requests: Vec<QueuedView> = context.client()?.get(&["queue"], &query).await?;
    context.output.value(&requests, |requests| {
        let row = |request: &QueuedView| {
            vec![
                request.id.clone(),
                request.app.clone(),
                request.state.clone(),
                request.position.map(|position| position.to_string()).unwrap_or_default(),
                request.status.map(|status| status.to_string()).unwrap_or_default(),
                request.completed_at_micros.map(moment).unwrap_or_default(),
            ]
        };
        let header = ["REQUEST", "APP", "STATE", "POSITION", "STATUS", "COMPLETED"];
        context.output.table(&header, requests.iter().map(row).collect(), "no such requests")
    })
}

pub(crate) async fn show(id: &str, context: &Context) -> Result<(), Failure> {
    let request: QueuedView = context.client()?.get(&["queue", id], &[]).await?;
    context.output.value(&request, |request| {
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let lines = [
            ("request", Some(request.id.clone())),
            ("app", Some(request.app.clone())),
            ("state", Some(request.state.clone())),
            ("position", request.position.map(|position| position.to_string())),
            ("submitted", request.submitted_at_micros.map(moment)),
            ("completed", request.completed_at_micros.map(moment)),
            ("status", request.status.map(|status| status.to_string())),
            ("error", request.error.clone()),
            ("attempts", number(request.attempts)),
            ("webhook", request.webhook.clone()),
            ("called", request.webhook_state.clone()),
        ];
        let known = lines.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut text: Vec<String> =
            known.map(|(name, value)| format!("{name:10} {value}")).collect();
        text.extend(request.logs.iter().map(|line| format!("  {line}")));
        crate::output::plain(&text.join("\n"))
    })
}

pub(crate) async fn cancel(id: &str, context: &Context) -> Result<(), Failure> {
    let cancelled: CancelView = context.client()?.delete(&["queue", id]).await?;
    context.output.value(&cancelled, |cancelled| match cancelled.outcome.as_str() {
        "removed" => format!("{}: removed before it was begun", cancelled.id),
        "requested" => format!("{}: its app is told; no further attempt is made", cancelled.id),
        _ => format!("{}: was complete already", cancelled.id),
    })
}
