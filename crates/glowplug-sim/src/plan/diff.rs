//! Changes as text: tables to put into `glowplug.toml`, and a unified diff.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::result::{AppChange, KeyChange};

/// Unchanged lines shown around changed ones.
const CONTEXT_LINES: usize = 3;
const FILE: &str = "glowplug.toml";

/// `[apps."…"]` tables with the keys to set.
pub(super) fn fragment(changes: &[AppChange]) -> String {
    tables(changes, Side::To)
}

/// Against the user's file, or, where that cannot be changed line by line, against today's values alone.
pub(super) fn unified(config: Option<&str>, changes: &[AppChange]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let against_file = config.and_then(|config| {
        let edits = Edits::new(config, changes);
        is_right(&edits.text(), changes).then(|| edits.unified())
    });
    against_file.unwrap_or_else(|| Edits::new(&tables(changes, Side::From), changes).unified())
}

#[derive(Clone, Copy)]
enum Side {
    From,
    To,
}

fn tables(changes: &[AppChange], side: Side) -> String {
    let mut text = String::new();
    for change in changes {
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", header(&change.app));
        for key in &change.keys {
            let value = match side {
                Side::From => &key.from,
                Side::To => &key.to,
            };
            if !value.is_empty() {
                let _ = writeln!(text, "{} = {value}", key.key);
            }
        }
    }
    text
}

fn header(app: &str) -> String {
    // A key may not be a text of several lines, which is what names with quotes become as values. JSON
    // escapes what TOML wants escaped, but for DEL.
    let quoted = serde_json::Value::from(app).to_string().replace('\u{7f}', "\\u007f");
    format!("[apps.{quoted}]")
}

/// A text, line by line, before and after.
struct Edits<'a> {
    lines: Vec<&'a str>,
    /// Lines that take the place of one; `None`: it goes.
    replaced: BTreeMap<usize, Option<String>>,
    /// Lines that come before the one with this index, or at the end.
    added: BTreeMap<usize, Vec<String>>,
}

impl<'a> Edits<'a> {
    fn new(text: &'a str, changes: &[AppChange]) -> Self {
        let mut edits = Self {
            lines: text.lines().collect(),
            replaced: BTreeMap::new(),
            added: BTreeMap::new(),
        };
        for change in changes {
            let at = edits.lines.iter().position(|line| heads(line, &change.app));
            match at {
                Some(at) => edits.change(at, change),
                None => edits.append(change),
            }
        }
        edits
    }

    fn change(&mut self, at: usize, change: &AppChange) {
        let rest = &self.lines[at + 1..];
        let length = rest.iter().position(|line| line.trim_start().starts_with('['));
        let end = at + 1 + length.unwrap_or(rest.len());
        for key in &change.keys {
            let wanted = line_of(key);
            let found = (at + 1..end).find(|line| sets(self.lines[*line], key.key));
            match found {
                Some(line) => drop(self.replaced.insert(line, wanted)),
                // Right below the header: further down a value may go over several lines.
                None => self.added.entry(at + 1).or_default().extend(wanted),
            }
        }
    }

    fn append(&mut self, change: &AppChange) {
        let end = self.added.entry(self.lines.len()).or_default();
        if !(self.lines.is_empty() && end.is_empty()) {
            end.push(String::new());
        }
        end.push(header(&change.app));
        end.extend(change.keys.iter().filter_map(line_of));
    }

    /// Afterwards.
    fn text(&self) -> String {
        let mut text = String::new();
        for line in self.marked().iter().filter(|line| line.mark != '-') {
            text.push_str(line.text);
            text.push('\n');
        }
        text
    }

    fn marked(&self) -> Vec<Marked<'_>> {
        let mut marked = Vec::new();
        for at in 0..=self.lines.len() {
            let added = self.added.get(&at).into_iter().flatten();
            marked.extend(added.map(|text| Marked { mark: '+', text }));
            let Some(text) = self.lines.get(at) else { break };
            match self.replaced.get(&at) {
                None => marked.push(Marked { mark: ' ', text }),
                Some(new) => {
                    marked.push(Marked { mark: '-', text });
                    marked.extend(new.as_deref().map(|text| Marked { mark: '+', text }));
                }
            }
        }
        marked
    }

    fn unified(&self) -> String {
        let marked = self.marked();
        let mut diff = format!("--- {FILE}\n+++ {FILE}\n");
        let mut next = 0;
        while let Some((from, until)) = hunk(&marked, next) {
            write_hunk(&mut diff, &marked, from, until);
            next = until;
        }
        diff
    }
}

/// `None`: the key is not to be set.
fn line_of(key: &KeyChange) -> Option<String> {
    (!key.to.is_empty()).then(|| format!("{} = {}", key.key, key.to))
}

#[derive(Clone, Copy)]
struct Marked<'a> {
    mark: char,
    text: &'a str,
}

/// The lines of the first hunk from a line on.
fn hunk(marked: &[Marked<'_>], from: usize) -> Option<(usize, usize)> {
    let changed = |at: &usize| marked[*at].mark != ' ';
    let first = (from..marked.len()).find(changed)?;
    let mut last = first;
    // Hunks whose contexts would touch are one.
    while let Some(next) = (last + 1..marked.len().min(last + 2 * CONTEXT_LINES + 2)).find(changed)
    {
        last = next;
    }
    let begin = first.saturating_sub(CONTEXT_LINES).max(from);
    Some((begin, marked.len().min(last + 1 + CONTEXT_LINES)))
}

fn write_hunk(diff: &mut String, marked: &[Marked<'_>], from: usize, until: usize) {
    let count = |lines: &[Marked<'_>], not: char| lines.iter().filter(|l| l.mark != not).count();
    let range = |not: char| {
        let (before, length) = (count(&marked[..from], not), count(&marked[from..until], not));
        // An empty range is said to be at the line before it.
        let start = if length == 0 { before } else { before + 1 };
        format!("{start},{length}")
    };
    let _ = writeln!(diff, "@@ -{} +{} @@", range('+'), range('-'));
    for line in &marked[from..until] {
        let _ = writeln!(diff, "{}{}", line.mark, line.text);
    }
}

/// Whether a line is the header of an app's table, however the app is spelled there.
fn heads(line: &str, app: &str) -> bool {
    if !line.trim_start().starts_with("[apps.") {
        return false;
    }
    let Ok(table) = line.parse::<toml::Table>() else { return false };
    let Some(apps) = table.get("apps").and_then(toml::Value::as_table) else { return false };
    apps.iter().any(|(key, value)| {
        value.as_table().is_some_and(toml::Table::is_empty) && is_name_of(key, app)
    })
}

fn is_name_of(key: &str, app: &str) -> bool {
    key == app || app.strip_prefix("local/") == Some(key)
}

fn sets(line: &str, key: &str) -> bool {
    let after = line.trim_start().strip_prefix(key);
    after.is_some_and(|rest| rest.trim_start().starts_with('='))
}

/// Whether a config says what is to be changed.
fn is_right(config: &str, changes: &[AppChange]) -> bool {
    let Ok(table) = config.parse::<toml::Table>() else { return false };
    let Some(apps) = table.get("apps").and_then(toml::Value::as_table) else { return false };
    changes.iter().all(|change| {
        let app = apps.iter().find(|(key, _)| is_name_of(key, &change.app));
        let Ok(wanted) = tables(std::slice::from_ref(change), Side::To).parse::<toml::Table>()
        else {
            return false;
        };
        let wanted = wanted["apps"][change.app.as_str()].as_table();
        let has = |(key, value): (&String, &toml::Value)| {
            app.and_then(|(_, table)| table.get(key)) == Some(value)
        };
        let mut unset = change.keys.iter().filter(|key| key.to.is_empty());
        let still_set =
            |key: &KeyChange| app.is_some_and(|(_, table)| table.get(key.key).is_some());
        wanted.is_some_and(|wanted| wanted.iter().all(has)) && !unset.any(still_set)
    })
}

#[cfg(test)]
mod tests;
