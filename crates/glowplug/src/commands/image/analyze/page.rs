//! A report as one page that needs nothing else. All names in it come from the image and are escaped.

use std::fmt::Write;

use glowplug_image::analyze::{Finding, Report};
use glowplug_sim::report::{SCRIPT, STYLE, escaped};
use indicatif::HumanBytes;

use crate::output::seconds;

const OWN_STYLE: &str = include_str!("page.css");

pub(super) fn html(report: &Report) -> String {
    let mut page = String::new();
    page.push_str("<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n");
    page.push_str("<meta name=viewport content='width=device-width, initial-scale=1'>\n");
    let name = escaped(&report.name);
    // Writing to a string does not fail, here and below.
    let _ = writeln!(page, "<title>Image {name}</title>\n<style>\n{STYLE}{OWN_STYLE}</style>");
    let _ = writeln!(page, "<h1>What is in <span class=name>{name}</span></h1>");
    head(&mut page, report);
    findings(&mut page, report);
    layers(&mut page, report);
    tables(&mut page, report);
    let rates = &report.rates;
    let _ = writeln!(
        page,
        "<h2>How to read this</h2><ul><li>A pull downloads {} a second and inflates {} a second at the same time: \
         the slower of the two counts.</li><li>A start is one that needs the image first. Where starts were \
         recorded, it waits for what they touched and for nothing else.</li><li>Each byte counts towards one finding \
         only. Compressed sizes of files are their share of their layer.</li></ul>",
        HumanBytes(rates.downloaded_bytes_per_second),
        HumanBytes(rates.inflated_bytes_per_second),
    );
    let _ = writeln!(page, "<script>\n{SCRIPT}</script>\n</html>");
    page
}

fn head(page: &mut String, report: &Report) {
    let mut facts = vec![
        ("to download", HumanBytes(report.compressed_bytes).to_string()),
        ("in all layers", HumanBytes(report.bytes).to_string()),
        ("to see", format!("{} in {} files", HumanBytes(report.visible_bytes), report.files)),
        ("a full pull", seconds(rounded(report.pull_seconds))),
    ];
    if let Some(touched) = report.touched_bytes {
        facts.push(("touched by starts", HumanBytes(touched).to_string()));
    }
    page.push_str("<div class=facts>");
    for (name, value) in facts {
        let _ = write!(page, "<div><b>{value}</b><span class=soft>{name}</span></div>");
    }
    page.push_str("</div>\n");
}

fn findings(page: &mut String, report: &Report) {
    page.push_str("<h2>What to change</h2>\n");
    if report.findings.is_empty() {
        page.push_str("<p>Nothing is in it without need, as far as can be told.</p>\n");
    }
    let longest = report.findings.iter().map(|finding| finding.pull_seconds).fold(0.0, f64::max);
    for finding in &report.findings {
        finding_card(page, finding, longest);
    }
}

fn finding_card(page: &mut String, finding: &Finding, longest: f64) {
    let percent = if longest > 0.0 { finding.pull_seconds / longest * 100.0 } else { 0.0 };
    let _ = write!(
        page,
        "<section class='card finding'><h3>{}</h3><div class=bar><i style='width:{percent:.1}%'></i></div>\
         <p class=sentence>saves {} of each pull, {} of a start that needs it</p><p>{}</p>\
         <p class=soft>{} in {} file{}, {} to download</p>",
        escaped(&finding.title),
        seconds(rounded(finding.pull_seconds)),
        seconds(rounded(finding.start_seconds)),
        code(&finding.change),
        HumanBytes(finding.bytes),
        finding.files,
        if finding.files == 1 { "" } else { "s" },
        HumanBytes(finding.compressed_bytes),
    );
    page.push_str("<details><summary>the largest</summary><ul class=files>");
    for example in &finding.examples {
        let _ = write!(
            page,
            "<li><b>{}</b> {}</li>",
            HumanBytes(example.bytes),
            escaped(&example.path)
        );
    }
    page.push_str("</ul></details></section>\n");
}

/// What is between backticks is code.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(number, part)| {
        let part = escaped(part);
        if number % 2 == 1 { format!("<code>{part}</code>") } else { part }
    });
    parts.collect()
}

fn layers(page: &mut String, report: &Report) {
    let widest = report.layers.iter().map(|layer| layer.bytes).max().unwrap_or(0);
    let mut rows = String::new();
    for (number, layer) in (1..).zip(&report.layers) {
        let _ = writeln!(
            rows,
            "<tr><td>{number}</td><td class=step>{}</td>{}{}{}<td class=drawn>{}</td></tr>",
            escaped(layer.made_by.as_deref().unwrap_or_default()),
            bytes(layer.compressed_bytes),
            bytes(layer.bytes),
            bytes(layer.lost_bytes),
            drawn(layer.bytes, widest),
        );
    }
    let _ = writeln!(
        page,
        "<h2>Layers</h2>\n<div class=scroll><table><thead><tr><th>layer</th><th>made by</th>\
         <th data-sort>download</th><th data-sort>files</th><th data-sort>gone later</th><th></th></tr></thead>\
         <tbody>\n{rows}</tbody></table></div>"
    );
}

fn tables(page: &mut String, report: &Report) {
    let packages = report.packages.iter().map(|package| {
        (
            format!("{} {}", package.name, package.version),
            package.manager,
            package.bytes,
            package.files,
        )
    });
    table(page, "Packages", "package", &packages.collect::<Vec<_>>());
    let folders =
        report.folders.iter().map(|folder| (folder.path.clone(), "", folder.bytes, folder.files));
    table(page, "Folders", "folder", &folders.collect::<Vec<_>>());
}

fn table(page: &mut String, title: &str, head: &str, rows: &[(String, &str, u64, usize)]) {
    if rows.is_empty() {
        return;
    }
    let widest = rows.iter().map(|row| row.2).max().unwrap_or(0);
    let mut body = String::new();
    for (name, of, size, files) in rows {
        let _ = writeln!(
            body,
            "<tr><td class=step>{} <span class=soft>{of}</span></td>{}<td data-value={files}>{files}</td>\
             <td class=drawn>{}</td></tr>",
            escaped(name),
            bytes(*size),
            drawn(*size, widest),
        );
    }
    let _ = writeln!(
        page,
        "<h2>{title}</h2>\n<div class='scroll tall'><table><thead><tr><th>{head}</th><th data-sort>bytes</th>\
         <th data-sort>files</th><th></th></tr></thead><tbody>\n{body}</tbody></table></div>"
    );
}

fn bytes(bytes: u64) -> String {
    let shown = if bytes == 0 { "–".to_owned() } else { HumanBytes(bytes).to_string() };
    format!("<td data-value={bytes}>{shown}</td>")
}

fn drawn(bytes: u64, widest: u64) -> String {
    let thousandths = u128::from(bytes) * 1_000 / u128::from(widest.max(1));
    format!("<div class=bar><i style='width:{}.{}%'></i></div>", thousandths / 10, thousandths % 10)
}

/// To milliseconds: the rest is not known.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use glowplug_image::analyze::{self, Rates, Subject};

    use super::*;

    #[test]
    fn names_in_an_image_are_text_and_nothing_is_loaded() {
        let subject =
            Subject { name: "<script>alert(1)</script>'\"&".to_owned(), ..Subject::default() };
        let page = html(&analyze::judge(&subject, Rates::default()));
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("&lt;script&gt;alert"), "{page}");
        for loads in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert_eq!(code("use `a<b` now"), "use <code>a&lt;b</code> now");
    }
}
