//! `glowplug image gc`

use glowplug_api::control::{ImageGcRequest, ImageGcView, ImageGoneView};
use glowplug_node::config::parse_bytes;
use glowplug_node::image_views;
use indicatif::HumanBytes;

use super::holder::{Holder, unusable};
use super::short;
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images go, the least used first, until all that is left takes at most this, such as 20GiB or 0
    /// [default: `budget` in [node.images]; without one no image goes, only what no image needs]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    keep: Option<u64>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a number of bytes, or text such as 20GiB".to_owned())
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let request = ImageGcRequest { keep_bytes: args.keep, dry_run: args.dry_run };
    let gone = match Holder::find(context)? {
        Holder::Node(client) => client.copy(&["images", "gc"], &request).await?,
        Holder::Nobody(shelf) => {
            let (wanted, budget) = (shelf.wanted_digests(), shelf.config.node.images.budget_bytes);
            image_views::collect(&shelf.store, request, budget, wanted).map_err(unusable)?
        }
    };
    context.output.value(&gone, text)
}

fn text(gone: &ImageGcView) -> String {
    let verb = if gone.dry_run { "would go" } else { "went" };
    let name = |image: &ImageGoneView| {
        let names = image.names.join(", ");
        let names = if names.is_empty() { String::new() } else { format!("  {}", plain(&names)) };
        format!("{}{names} {verb}", short(&image.digest))
    };
    let mut lines: Vec<String> = gone.images.iter().map(name).collect();
    let count = |number: usize, one: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    };
    lines.push(format!(
        "{}, {} and {} {verb}: {}; {} {}",
        count(gone.images.len(), "image"),
        count(gone.layers, "layer"),
        count(gone.contents, "large file"),
        HumanBytes(gone.bytes),
        HumanBytes(gone.left_bytes),
        if gone.dry_run { "would be left" } else { "are left" },
    ));
    lines.join("\n")
}
