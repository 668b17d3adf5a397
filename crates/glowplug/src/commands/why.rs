//! `glowplug why`

use glowplug_api::control::WhyView;

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::moment;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A request, a runner or an app
    id: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let why: WhyView = context.client()?.get(&["why", &args.id], &[]).await?;
    context.output.value(&why, |why| {
        let mut lines = vec![format!("{} {}: {}", why.kind, why.id, why.summary)];
        lines.extend(why.learned.iter().map(|sentence| format!("  {sentence}")));
        if !why.decisions.is_empty() {
            lines.push(String::new());
        }
        for decision in &why.decisions {
            lines.push(format!("{}  {}", moment(decision.at_micros), decision.sentence));
        }
        lines.join("\n")
    })
}
