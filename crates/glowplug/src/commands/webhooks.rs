//! `glowplug webhooks`

use glowplug_api::control::{WebhookCallView, WebhookView};

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::{Output, ahead, moment, plain, seconds};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The calls of a request's webhook, and what comes next
    Show {
        /// The id that the submit answered
        request_id: String,
    },
    /// Call a webhook that was not delivered once more, now
    Retry {
        /// The id that the submit answered
        request_id: String,
    },
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let view: WebhookView = match command {
        Command::Show { request_id } => client.get(&["webhooks", &request_id], &[]).await?,
        Command::Retry { request_id } => {
            let view = client.post(&["webhooks", &request_id, "retry"], &[], None::<&()>).await?;
            context.output.note(&format!(
                "it is called now; `glowplug webhooks show {}` tells how that ended",
                plain(&request_id)
            ));
            view
        }
    };
    context.output.value(&view, |view| text(context.output, view))
}

fn text(output: Output, view: &WebhookView) -> String {
    let next = view.next_call_at_micros.map(ahead).filter(|ahead| !ahead.is_empty());
    let next = next.map(|ahead| format!(", called next in {ahead}")).unwrap_or_default();
    let head = format!("{}\n{}{next}", plain(&view.url), view.state);
    let rows = view.calls.iter().map(row).collect();
    let calls = output.table(&["CALLED", "TOOK", "STATUS", "PROBLEM"], rows, "not called yet");
    format!("{head}\n\n{calls}")
}

fn row(call: &WebhookCallView) -> Vec<String> {
    vec![
        moment(call.at_micros),
        seconds(call.seconds),
        call.status.map(|status| status.to_string()).unwrap_or_default(),
        call.problem.clone().unwrap_or_default(),
    ]
}
