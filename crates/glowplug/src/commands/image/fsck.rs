//! `glowplug image fsck`

use glowplug_api::control::{ImageFsckEvent, ImageFsckRequest, ImageFsckView};
use glowplug_node::image_views;
use indicatif::{HumanBytes, ProgressBar};

use super::holder::{Holder, unusable};
use super::progress_bar;
use crate::cli::Context;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove what is damaged, so that the next pull brings it again
    #[arg(long)]
    repair: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let bar = progress_bar("checking");
    let found = find(args.repair, context, &bar).await;
    bar.finish_and_clear();
    let found = found?;
    context.output.value(&found, text)?;
    if found.is_clean() {
        return Ok(());
    }
    Err(Failure::user(match (args.repair, found.repaired) {
        (false, _) => "something is damaged: `glowplug image fsck --repair` takes it away",
        (true, true) => "what was damaged is gone: the next pull brings it again",
        (true, false) => "damaged images are in use by runners: stop those, then repair once more",
    }))
}

async fn find(
    repair: bool,
    context: &Context,
    bar: &ProgressBar,
) -> Result<ImageFsckView, Failure> {
    let show = |bytes: u64, total_bytes: u64| {
        bar.set_length(total_bytes);
        bar.set_position(bytes);
    };
    match Holder::find(context)? {
        Holder::Node(client) => {
            let mut found = None;
            let each = |event: ImageFsckEvent| {
                if let Some(problem) = event.error {
                    return Err(Failure::environment(problem));
                }
                // The last one has findings and no numbers.
                match event.findings {
                    Some(findings) => found = Some(findings),
                    None => show(event.bytes, event.total_bytes),
                }
                Ok(())
            };
            client.post_lines(&["images", "fsck"], &ImageFsckRequest { repair }, each).await?;
            let ended =
                || Failure::environment("the node ended before the check did: start it again");
            found.ok_or_else(ended)
        }
        Holder::Nobody(shelf) => {
            let tell = &mut |checked: glowplug_image::store::Checked| {
                show(checked.bytes, checked.total_bytes);
            };
            image_views::check(&shelf.store, repair, tell).map_err(unusable)
        }
    }
}

fn text(found: &ImageFsckView) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (kind, names) in
        [("image", &found.images), ("layer", &found.layers), ("large file", &found.contents)]
    {
        lines.extend(names.iter().map(|name| format!("{kind} {name} is damaged")));
    }
    lines.extend(found.in_use.iter().map(|image| format!("image {image} is in use and stays")));
    let read = HumanBytes(found.bytes_read);
    lines.push(if found.is_clean() {
        format!("{read} read, all is as it should be")
    } else {
        format!("{read} read")
    });
    lines.join("\n")
}
