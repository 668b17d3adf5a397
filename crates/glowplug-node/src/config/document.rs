//! A config file as a tree in which everything knows its line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    Moment(String),
    List(Vec<Raw>),
    Table(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: Raw,
}

impl Raw {
    /// What stands there, for a message that says what was expected instead.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Integer(number) => format!("the number {number}"),
            Self::Float(number) => format!("the number {number}"),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Moment(moment) => format!("the date {moment}"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Reads TOML. The only problem it can have is one of syntax.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Problem> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        Problem {
            origin: Origin::File { path: path.to_owned(), line },
            message: format!("this is not valid TOML: {}", error.message()),
            help: None,
        }
    })?;
    Ok(entries(text, table.get_ref()))
}

fn entries(text: &str, table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            line: line_at(text, key.span().start),
            value: raw(text, value.get_ref()),
        })
        .collect();
    // In the order of the file, so that problems are told in that order too.
    entries.sort_by_key(|entry| entry.line);
    entries
}

fn raw(text: &str, value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(value) => Raw::Text(value.to_string()),
        DeValue::Integer(number) => Raw::Integer(
            // A number that no i128 holds is out of every setting's range all the same.
            i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX),
        ),
        DeValue::Float(number) => Raw::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Datetime(moment) => Raw::Moment(moment.to_string()),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| raw(text, item.get_ref())).collect())
        }
        DeValue::Table(table) => Raw::Table(entries(text, table)),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let text = "a = 1\n\n[b]\nc = 'x'\nd.e = 0x10\n[[f]]\ng = 1.5\n";
        let tree = parse(Path::new("t.toml"), text).unwrap();
        let lines: Vec<(&str, usize)> =
            tree.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 3), ("f", 6)]);
        let Raw::Table(inner) = &tree[1].value else { unreachable!("b is a table") };
        assert_eq!(inner[0].line, 4);
        assert_eq!(inner[1].line, 5);
        let Raw::Table(deep) = &inner[1].value else { unreachable!("d is a table") };
        assert_eq!(deep[0].value, Raw::Integer(16));
    }

    #[test]
    fn a_slip_of_syntax_is_placed() {
        let problem = parse(Path::new("t.toml"), "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(problem.origin.to_string(), "t.toml:2");
        let twice = parse(Path::new("t.toml"), "a = 1\na = 2\n").unwrap_err();
        assert_eq!(twice.to_string(), "t.toml:2: this is not valid TOML: duplicate key");
    }
}
