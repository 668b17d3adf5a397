//! `glowplug image`

use std::io::IsTerminal;

use glowplug_api::control::{ImagePullEvent, ImagePullRequest, ImageView};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::{Output, plain};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Bring an image onto the node's disk, so that the next start need not
    Pull {
        /// As in the config: `example.com/team/model:1`
        image: String,
    },
    /// The images on the node's disk, and the apps they are for
    List,
    /// Take an image off the node's disk
    Rm {
        /// As `glowplug image list` shows it; its beginning is enough
        digest: String,
    },
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Pull { image } => pull(image, context).await,
        Command::List => {
            let images: Vec<ImageView> = context.client()?.get(&["images"], &[]).await?;
            context.output.value(&images, |images| table(context.output, images))
        }
        Command::Rm { digest } => remove(&digest, context).await,
    }
}

async fn pull(image: String, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let bar = progress_bar(&image);
    let mut pulled = None;
    let request = ImagePullRequest { image };
    let each = |event: ImagePullEvent| {
        if let Some(problem) = event.error {
            return Err(Failure::user(problem));
        }
        bar.set_length(event.total_bytes.max(bar.length().unwrap_or_default()));
        bar.set_position(event.bytes.max(bar.position()));
        pulled = event.image.or(pulled.take());
        Ok(())
    };
    let ended = client.post_lines(&["images"], &request, each).await;
    bar.finish_and_clear();
    ended?;
    let Some(pulled) = pulled else {
        return Err(Failure::environment("the node ended before the pull did: start it again"));
    };
    context.output.value(&pulled, |image| {
        format!(
            "{} is here: {} of files in {} layers",
            plain(&image.digest),
            HumanBytes(image.bytes),
            image.layers
        )
    })
}

/// Shown to people only.
fn progress_bar(image: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).expect("the template is constant");
    ProgressBar::new(0).with_style(style).with_prefix(plain(image))
}

async fn remove(digest: &str, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let images: Vec<ImageView> = client.get(&["images"], &[]).await?;
    let is_meant = |image: &&ImageView| {
        let hex = image.digest.split_once(':').map_or("", |(_, hex)| hex);
        image.digest == digest || (!digest.is_empty() && hex.starts_with(digest))
    };
    let meant: Vec<&ImageView> = images.iter().filter(is_meant).collect();
    let [image] = meant[..] else {
        let problem = match meant.len() {
            0 => "no image on the node's disk has this digest",
            _ => "several images have digests that begin like this: give more of it",
        };
        return Err(Failure::user(format!("{problem}; see `glowplug image list`")));
    };
    client.remove(&["images", &image.digest]).await?;
    context.output.note(&format!("removed {}", plain(&image.digest)));
    Ok(())
}

fn table(output: Output, images: &[ImageView]) -> String {
    let rows = images.iter().map(row).collect();
    output.table(&["DIGEST", "APPS", "LAYERS", "DOWNLOAD", "FILES"], rows, "no image is here")
}

/// Digits of a digest that people are shown: enough to tell images apart.
const DIGEST_DIGITS: usize = 12;

fn row(image: &ImageView) -> Vec<String> {
    let hex = image.digest.split_once(':').map_or(&*image.digest, |(_, hex)| hex);
    vec![
        hex.chars().take(DIGEST_DIGITS).collect(),
        image.apps.join(", "),
        image.layers.to_string(),
        HumanBytes(image.compressed_bytes).to_string(),
        HumanBytes(image.bytes).to_string(),
    ]
}
