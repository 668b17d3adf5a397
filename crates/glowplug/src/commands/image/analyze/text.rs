//! A report for a terminal.

use std::fmt::Write;

use glowplug_image::analyze::{Finding, Report};
use indicatif::HumanBytes;

use crate::chart::Style;
use crate::output::{Output, plain, seconds};

/// Of packages and folders each.
const ROWS_MAX: usize = 10;
/// Of the widest bar.
const BAR_COLUMNS: u64 = 24;
/// A longer step of a build is cut.
const STEP_CHARACTERS_MAX: usize = 60;
const EXAMPLES_SHOWN: usize = 3;

pub(super) fn of(output: Output, report: &Report, style: Style) -> String {
    // Writing to a string does not fail, here and below.
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {} in {} layers to download, {} of {} files to see; a pull takes about {}",
        plain(&report.name),
        HumanBytes(report.compressed_bytes),
        report.layers.len(),
        HumanBytes(report.visible_bytes),
        report.files,
        seconds(rounded(report.pull_seconds)),
    );
    if let Some(touched) = report.touched_bytes {
        let _ = writeln!(text, "recorded starts touched {}", HumanBytes(touched));
    }
    text += &layers(output, report, style);
    let packages: Vec<(String, u64)> = report
        .packages
        .iter()
        .take(ROWS_MAX)
        .map(|package| {
            (format!("{} {} ({})", package.name, package.version, package.manager), package.bytes)
        })
        .collect();
    text += &bars("PACKAGE", &packages, style);
    let folders: Vec<(String, u64)> = report
        .folders
        .iter()
        .take(ROWS_MAX)
        .map(|folder| (folder.path.clone(), folder.bytes))
        .collect();
    text += &bars("FOLDER", &folders, style);
    if report.findings.is_empty() {
        text += "\nnothing is in it without need, as far as can be told\n";
    }
    for (number, finding) in (1..).zip(&report.findings) {
        text += &told(number, finding);
    }
    text
}

fn layers(output: Output, report: &Report, style: Style) -> String {
    let widest = report.layers.iter().map(|layer| layer.bytes).max().unwrap_or(0);
    let rows = report.layers.iter().enumerate().map(|(number, layer)| {
        let step: String = layer.made_by.clone().unwrap_or_default();
        vec![
            (number + 1).to_string(),
            HumanBytes(layer.compressed_bytes).to_string(),
            HumanBytes(layer.bytes).to_string(),
            if layer.lost_bytes > 0 {
                HumanBytes(layer.lost_bytes).to_string()
            } else {
                String::new()
            },
            bar(layer.bytes, widest, style),
            step.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .chars()
                .take(STEP_CHARACTERS_MAX)
                .collect(),
        ]
    });
    let header = ["LAYER", "DOWNLOAD", "FILES", "GONE LATER", "", "MADE BY"];
    format!("\n{}\n", output.table(&header, rows.collect(), "it has no layers"))
}

fn bars(header: &str, rows: &[(String, u64)], style: Style) -> String {
    let widest = rows.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    let mut text = String::new();
    if rows.is_empty() {
        return text;
    }
    let _ = writeln!(text, "\n{:>11}  {header}", "BYTES");
    for (name, bytes) in rows {
        let size = HumanBytes(*bytes).to_string();
        let drawn = bar(*bytes, widest, style);
        let pad = " ".repeat(
            usize::try_from(BAR_COLUMNS).unwrap_or(0).saturating_sub(drawn.chars().count()),
        );
        let _ = writeln!(text, "{size:>11}  {drawn}{pad} {}", plain(name));
    }
    text
}

fn bar(bytes: u64, widest: u64, style: Style) -> String {
    let eighths = u128::from(bytes) * u128::from(BAR_COLUMNS * 8) / u128::from(widest.max(1));
    style.bar(u64::try_from(eighths).unwrap_or(0))
}

fn told(number: usize, finding: &Finding) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{number}. {}: {} in {} file{}, {} to download",
        plain(&finding.title),
        HumanBytes(finding.bytes),
        finding.files,
        if finding.files == 1 { "" } else { "s" },
        HumanBytes(finding.compressed_bytes),
    );
    let _ = writeln!(
        text,
        "   saves {} of each pull, {} of a start that needs it",
        seconds(rounded(finding.pull_seconds)),
        seconds(rounded(finding.start_seconds)),
    );
    let _ = writeln!(text, "   change: {}", finding.change);
    for example in finding.examples.iter().take(EXAMPLES_SHOWN) {
        let _ = writeln!(
            text,
            "   {:>11}  {}",
            HumanBytes(example.bytes).to_string(),
            plain(&example.path)
        );
    }
    text
}

/// To milliseconds: the rest is not known.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}
