//! `glowplug image analyze`

mod page;
mod text;

use std::path::{Path, PathBuf};

use glowplug_image::analyze::{self, Rates, Report, gather};

use super::holder::unusable;
use super::origin::{Origin, archive};
use super::progress_bar;
use crate::chart::Style;
use crate::cli::Context;
use crate::commands::target::Target;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An image's name, an archive or an OCI layout, or a folder that is a root
    image: String,
    /// Write a page with all figures, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How fast images come, in bits a second: `1G`, `200M`
    #[arg(long, value_name = "RATE", default_value = "1G", value_parser = bits_per_second)]
    bandwidth: u64,
}

/// `1G` and `1Gbit/s` are 1,000,000,000.
fn bits_per_second(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches("bit/s").trim_end_matches("bps");
    let (number, factor) = match number.char_indices().last() {
        Some((at, 'k' | 'K')) => (&number[..at], 1_000),
        Some((at, 'M')) => (&number[..at], 1_000_000),
        Some((at, 'G')) => (&number[..at], 1_000_000_000),
        _ => (number, 1),
    };
    let number: u64 = number.trim().parse().map_err(|_| malformed())?;
    number.checked_mul(factor).filter(|rate| *rate >= 8).ok_or_else(malformed)
}

fn malformed() -> String {
    "write bits a second, such as 1G or 200M".to_owned()
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let rates = Rates { downloaded_bytes_per_second: args.bandwidth / 8, ..Rates::default() };
    let path = Path::new(&args.image);
    let subject = if archive(&args.image).is_none() && path.is_dir() {
        folder(path)?
    } else {
        let origin = Origin::find(&args.image, context).await?;
        let steps = origin.resolved.steps();
        gather::image(&origin.reader, &origin.name, &origin.image, &steps).map_err(unusable)?
    };
    let report = analyze::judge(&subject, rates);
    if let Some(file) = &args.html {
        write_page(file, &report)?;
    }
    let style = Style::of_locale();
    context.output.value(&report, |report| text::of(context.output, report, style))
}

fn folder(path: &Path) -> Result<analyze::Subject, Failure> {
    let bar = progress_bar("reading");
    let subject = gather::folder(path, &mut || bar.inc(1));
    bar.finish_and_clear();
    subject.map_err(|error| Failure::user(format!("cannot read {}: {error}", path.display())))
}

fn write_page(file: &Path, report: &Report) -> Result<(), Failure> {
    use std::io::Write;
    let mut target = Target::open(file, indicatif::ProgressBar::hidden())?;
    target.write_all(page::html(report).as_bytes())?;
    target.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bits_a_second() {
        for (text, expected) in
            [("1G", 1_000_000_000), ("200Mbit/s", 200_000_000), ("64kbps", 64_000), ("9600", 9_600)]
        {
            assert_eq!(bits_per_second(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "0", "99999999999G"] {
            assert!(bits_per_second(text).is_err(), "{text}");
        }
    }
}
