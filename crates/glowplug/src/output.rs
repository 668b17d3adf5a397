//! What a command says: data on standard output, everything else on standard error.
//!
//! People get tables and colours, programs get JSON with `--json`. Colours are off when standard output
//! is no terminal or `NO_COLOR` is set.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use glowplug_core::time::Pretty;
use serde::Serialize;

use crate::failure::Failure;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    stdout_is_terminal: bool,
    color: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        Self { json, stdout_is_terminal: stdout.is_terminal(), color: wants_color(&stdout) }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One line, or several, of data.
    #[expect(clippy::unused_self, reason = "all output goes through this type")]
    pub(crate) fn data(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", text.trim_end_matches('\n'))?;
        Ok(stdout.flush()?)
    }

    /// Something a person should know that is not what was asked for.
    #[expect(clippy::unused_self, reason = "all output goes through this type")]
    pub(crate) fn note(self, text: &str) {
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// For programs the value, for people what `text` makes of it.
    pub(crate) fn value<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(value)
                .map_err(|error| Failure::environment(format!("cannot write JSON: {error}")))?;
            self.data(&json)
        } else {
            self.data(&text(value))
        }
    }

    /// A table with a header and nothing drawn around it. `empty` is said when there are no rows.
    pub(crate) fn table(self, header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> String {
        if rows.is_empty() {
            return empty.to_owned();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(if self.stdout_is_terminal {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        let head = |text: &&str| {
            let cell = Cell::new(text);
            if self.color { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(header.iter().map(head));
        for row in rows {
            table.add_row(row.iter().map(|text| self.cell(text)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    /// States carry a colour, all else none.
    fn cell(self, text: &str) -> Cell {
        let text = plain(text);
        let color = match text.as_str() {
            "IDLE" | "RUNNING" | "ready" | "ok" => Some(Color::Green),
            "PENDING" | "DOCKER_PULL" | "SETUP" | "DRAINING" | "TERMINATING" | "preparing"
            | "missing" => Some(Color::Yellow),
            "FAILURE_DELAY" | "broken" => Some(Color::Red),
            _ => None,
        };
        match color {
            Some(color) if self.color => Cell::new(text).fg(color),
            _ => Cell::new(text),
        }
    }
}

/// Text from a file, with nothing in it that would command the terminal or turn its lines around.
pub(crate) fn plain(text: &str) -> String {
    let commands = |letter: char| {
        letter.is_control() && letter != '\n'
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(commands, "\u{fffd}")
}

/// Whether colours are welcome there.
pub(crate) fn wants_color(stream: &impl IsTerminal) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !forbidden
}

/// Seconds as people read them.
pub(crate) fn seconds(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => "0 s".to_owned(),
        Ok(duration) => Pretty(duration).to_string(),
        Err(_) => format!("{seconds} s"),
    }
}

/// How long ago a moment was.
pub(crate) fn age(at_micros: u64) -> String {
    Pretty(Duration::from_micros(now_micros().saturating_sub(at_micros))).to_string()
}

/// How far ahead a moment is; empty when it has passed.
pub(crate) fn ahead(at_micros: u64) -> String {
    match at_micros.saturating_sub(now_micros()) {
        0 => String::new(),
        left => Pretty(Duration::from_micros(left)).to_string(),
    }
}

/// A moment on the user's clock, to the millisecond.
pub(crate) fn moment(at_micros: u64) -> String {
    let at =
        i64::try_from(at_micros).ok().and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    at.map_or_else(
        || format!("{at_micros} µs"),
        |at| {
            at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
        },
    )
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_micros() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_command_the_terminal() {
        for (text, shown) in [
            ("me/ocr", "me/ocr"),
            ("ä <b>\n", "ä <b>\n"),
            ("\u{1b}[2Jx\u{7}", "\u{fffd}[2Jx\u{fffd}"),
            ("a\rb\u{9b}31m", "a\u{fffd}b\u{fffd}31m"),
            ("a\u{202e}b\u{2066}", "a\u{fffd}b\u{fffd}"),
        ] {
            assert_eq!(plain(text), shown, "{text:?}");
        }
    }
}
