//! `glowplug image convert`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glowplug_image::Reference;
use glowplug_image::convert::{self, Converted, LEVEL_DEFAULT, layout, push};
use glowplug_image::source::credentials::Lookup;
use glowplug_image::source::registry;
use glowplug_node::config::Config;
use indicatif::{HumanBytes, ProgressBar};
use serde::Serialize;

use super::origin::Origin;
use super::progress_bar;
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::plain;

/// The tag in a layout whose source has none.
const TAG_DEFAULT: &str = "latest";
const ARCHIVE: &str = "archive:";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image's name, an archive or an OCI layout
    image: String,
    /// Where it goes: a name in a registry, or `archive:PATH` for a file; a PATH that ends with `/` is a folder
    #[arg(long, value_name = "NAME")]
    to: String,
    /// How hard zstd tries: 1 is quick, 19 is small
    #[arg(long, default_value_t = LEVEL_DEFAULT, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
}

enum Target {
    Registry(Reference),
    File(PathBuf),
    Folder(PathBuf),
}

impl Target {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix(ARCHIVE) {
            let is_folder = path.ends_with('/') || Path::new(path).is_dir();
            return Ok(if is_folder { Self::Folder(path.into()) } else { Self::File(path.into()) });
        }
        text.parse().map(Self::Registry).map_err(|error| {
            Failure::Usage(format!(
                "`--to {text}` is neither `archive:PATH` nor the name of an image: {error}"
            ))
        })
    }
}

/// What became of an image.
#[derive(Debug, Serialize)]
struct Done {
    digest: String,
    to: String,
    /// Of its layers, to download.
    bytes_before: u64,
    bytes: u64,
    /// Of its files.
    file_bytes: u64,
    /// Of all layers, what starts touch. `None`: no start was recorded.
    first_use_bytes: Option<u64>,
    /// What the registry had already.
    known_bytes: u64,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let target = Target::parse(&args.to)?;
    let origin = Origin::find(&args.image, context).await?;
    let config = context.config(Vec::new())?.config;
    let bar = progress_bar("compressing");
    bar.set_length(origin.image.bytes);
    let converted = compress(&origin, args.level, &config, &bar);
    bar.finish_and_clear();
    let converted = converted?;
    let first_use = converted.layers.iter().map(|layer| layer.first_use_bytes);
    let mut done = Done {
        digest: converted.digest.to_string(),
        to: args.to.clone(),
        bytes_before: origin.image.compressed_bytes,
        bytes: converted.layers.iter().map(|layer| layer.bytes).sum(),
        file_bytes: origin.image.bytes,
        first_use_bytes: first_use.flatten().reduce(|sum, bytes| sum + bytes),
        known_bytes: 0,
    };
    let tag = origin.name.parse::<Reference>().ok();
    let tag = tag.as_ref().and_then(|name| name.tag()).unwrap_or(TAG_DEFAULT);
    done.known_bytes = put(converted, &target, tag, &config).await?;
    context.output.value(&done, text)
}

fn compress(
    origin: &Origin,
    level: i32,
    config: &Config,
    bar: &ProgressBar,
) -> Result<Converted, Failure> {
    let tell = &mut |bytes| bar.inc(bytes);
    let (image, json) = (&origin.image, &origin.resolved.config_json);
    let converted =
        convert::convert(&origin.reader, image, json, level, &config.node.data_dir, tell);
    converted.map_err(failed)
}

/// What the target had already.
async fn put(
    mut converted: Converted,
    target: &Target,
    tag: &str,
    config: &Config,
) -> Result<u64, Failure> {
    match target {
        Target::File(path) => {
            layout::write_file(&mut converted, path, tag).map_err(failed)?;
            Ok(0)
        }
        Target::Folder(path) => {
            layout::write_folder(&mut converted, path, tag).map_err(failed)?;
            Ok(0)
        }
        Target::Registry(reference) => {
            let bar = progress_bar("pushing");
            bar.set_length(converted.layers.iter().map(|layer| layer.bytes).sum());
            let credentials = Lookup::of_environment().find(reference.registry());
            let options = registry::Options {
                insecure: config.node.images.insecure_registries.clone(),
                ..registry::Options::default()
            };
            let told = bar.clone();
            let tell = Arc::new(move |bytes| told.inc(bytes));
            let credentials = credentials.map_err(Failure::user)?;
            let pushed = push::push(converted, reference, credentials, &options, tell).await;
            bar.finish_and_clear();
            Ok(pushed.map_err(failed)?.known_bytes)
        }
    }
}

fn failed(error: convert::Error) -> Failure {
    Failure::Environment(error.into())
}

fn text(done: &Done) -> String {
    let mut lines = vec![format!(
        "{} is {}: {} of files in {}, before {}",
        plain(&done.to),
        done.digest,
        HumanBytes(done.file_bytes),
        HumanBytes(done.bytes),
        HumanBytes(done.bytes_before),
    )];
    lines.push(match done.first_use_bytes {
        Some(bytes) => {
            format!("what recorded starts touched comes first, in {}", HumanBytes(bytes))
        }
        None => "no start of it was recorded: files are in the order of their paths".to_owned(),
    });
    if done.known_bytes > 0 {
        lines.push(format!("{} were there already", HumanBytes(done.known_bytes)));
    }
    lines.join("\n")
}
