//! `glowplug image`

mod analyze;
mod convert;
mod fsck;
mod gc;
mod holder;
mod origin;
mod show;

use std::io::IsTerminal;
use std::path::Path;

use glowplug_api::control::{ImagePullEvent, ImagePullRequest, ImageView};
use glowplug_node::config::ImageName;
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
        /// Its name, or its digest as `glowplug image list` shows it; the beginning is enough
        digest: String,
    },
    /// What an image on the disk is made of, when it was last used, and what it shares with others
    Show {
        /// Its name, or its digest as `glowplug image list` shows it; the beginning is enough
        image: String,
    },
    /// What is in an image, what of it is paid for without need, and what to change. Runs nothing of it
    Analyze(analyze::Args),
    /// Write an image anew so that it starts sooner: what starts touch first, in parts that can be read alone
    Convert(convert::Args),
    /// Remove what no app wants and no runner uses
    Gc(gc::Args),
    /// Look for damage in what is on the disk; exit code 1 if there is any
    Fsck(fsck::Args),
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Pull { image } => pull(image, context).await,
        Command::List => {
            let images: Vec<ImageView> = context.client()?.get(&["images"], &[]).await?;
            context.output.value(&images, |images| table(context.output, images))
        }
        Command::Rm { digest } => remove(&digest, context).await,
        Command::Show { image } => show::run(&image, context).await,
        Command::Analyze(args) => analyze::run(&args, context).await,
        Command::Convert(args) => convert::run(&args, context).await,
        Command::Gc(args) => gc::run(&args, context).await,
        Command::Fsck(args) => fsck::run(&args, context).await,
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
fn progress_bar(about: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).expect("the template is constant");
    ProgressBar::new(0).with_style(style).with_prefix(plain(about))
}

async fn remove(wanted: &str, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let images: Vec<ImageView> = client.get(&["images"], &[]).await?;
    let image = meant(&images, wanted)?;
    client.remove(&["images", &image.digest]).await?;
    context.output.note(&format!("removed {}", plain(&image.digest)));
    Ok(())
}

/// The image that a person means by a name, a digest or the beginning of one.
fn meant<'i>(images: &'i [ImageView], wanted: &str) -> Result<&'i ImageView, Failure> {
    let name = ImageName::parse(wanted, Path::new(".")).map(|name| name.to_string());
    let has_name = |image: &&ImageView| {
        image.names.iter().any(|known| known == wanted || name.as_ref() == Ok(known))
    };
    let has_digest = |image: &&ImageView| {
        image.digest == wanted || (!wanted.is_empty() && hex(&image.digest).starts_with(wanted))
    };
    let named: Vec<&ImageView> = images.iter().filter(has_name).collect();
    let found = if named.is_empty() { images.iter().filter(has_digest).collect() } else { named };
    let [image] = found[..] else {
        let problem = match found.len() {
            0 => format!("no image on the disk is called `{wanted}` or has this digest"),
            _ => "several images have digests that begin like this: give more of it".to_owned(),
        };
        return Err(Failure::user(format!("{problem}; see `glowplug image list`")));
    };
    Ok(image)
}

fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// As people are shown it.
fn short(digest: &str) -> String {
    hex(digest).chars().take(DIGEST_DIGITS).collect()
}

fn table(output: Output, images: &[ImageView]) -> String {
    let rows = images.iter().map(row).collect();
    output.table(
        &["DIGEST", "NAMES", "APPS", "LAYERS", "DOWNLOAD", "FILES"],
        rows,
        "no image is here",
    )
}

/// Digits of a digest that people are shown: enough to tell images apart.
const DIGEST_DIGITS: usize = 12;

fn row(image: &ImageView) -> Vec<String> {
    vec![
        short(&image.digest),
        image.names.join(", "),
        image.apps.join(", "),
        image.layers.to_string(),
        HumanBytes(image.compressed_bytes).to_string(),
        HumanBytes(image.bytes).to_string(),
    ]
}
