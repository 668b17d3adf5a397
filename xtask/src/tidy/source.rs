//! A Rust source file as the rules see it: line by line, code apart from comments and literals.

/// One line of a source file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// With comments left out and string and character literals emptied.
    pub(super) code: String,
    /// Whether the line belongs to a test.
    pub(super) test: bool,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) lines: Vec<Line>,
}

/// What the scanner is inside of at the end of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Code,
    /// `/* … */`, which nest.
    Comment {
        depth: usize,
    },
    Text,
    /// `r##"…"##`
    RawText {
        hashes: usize,
    },
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let mut inside = Inside::Code;
        let mut lines: Vec<Line> = Vec::new();
        for line in text.lines() {
            let (code, after) = scan(line, inside);
            inside = after;
            lines.push(Line { code, test: false });
        }
        mark_tests(path, &mut lines);
        Self { path: path.to_owned(), lines }
    }

    /// The lines whose code contains one of `patterns` as whole words, outside tests.
    pub(super) fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered().filter(|(_, line)| !line.test).map(|(at, line)| (at, line.code.as_str()))
    }

    /// Lines with their numbers, counted from 1.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(at, line)| (at + 1, line))
    }
}

/// The code of one line, and what its end is inside of.
fn scan(line: &str, mut inside: Inside) -> (String, Inside) {
    let chars: Vec<char> = line.chars().collect();
    let mut code = String::new();
    let mut at = 0;
    while at < chars.len() {
        let (here, next) = (chars[at], chars.get(at + 1).copied());
        match inside {
            Inside::Comment { depth } => match (here, next) {
                ('*', Some('/')) => {
                    inside = if depth == 1 {
                        Inside::Code
                    } else {
                        Inside::Comment { depth: depth - 1 }
                    };
                    at += 1;
                }
                ('/', Some('*')) => {
                    inside = Inside::Comment { depth: depth + 1 };
                    at += 1;
                }
                _ => {}
            },
            Inside::Text => match here {
                '\\' => at += 1,
                '"' => {
                    code.push('"');
                    inside = Inside::Code;
                }
                _ => {}
            },
            Inside::RawText { hashes } => {
                let closing = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                if here == '"' && closing >= hashes {
                    code.push('"');
                    at += hashes;
                    inside = Inside::Code;
                }
            }
            Inside::Code => match (here, next) {
                ('/', Some('/')) => break,
                ('/', Some('*')) => {
                    inside = Inside::Comment { depth: 1 };
                    at += 1;
                }
                ('"', _) => {
                    let hashes = code.chars().rev().take_while(|c| *c == '#').count();
                    let raw = code.trim_end_matches('#').ends_with('r');
                    inside = if raw { Inside::RawText { hashes } } else { Inside::Text };
                    code.push('"');
                }
                ('\'', _) => at += character_literal(&chars[at..]),
                _ => code.push(here),
            },
        }
        at += 1;
    }
    (code, inside)
}

/// How many characters after the quote belong to a character literal; none when it starts a lifetime.
fn character_literal(rest: &[char]) -> usize {
    match rest {
        [_, '\\', ..] => {
            // The escaped character may itself be a quote.
            rest.iter().skip(3).position(|c| *c == '\'').map_or(0, |end| end + 3)
        }
        [_, _, '\'', ..] => 2,
        _ => 0,
    }
}

/// Tests are whole files by their place, among them suites that a library offers to whoever implements its
/// trait, and what follows `#[cfg(test)]` up to the end of its block.
fn mark_tests(path: &str, lines: &mut [Line]) {
    let by_place = ["tests", "benches", "conformance"];
    if path.trim_end_matches(".rs").split('/').any(|part| by_place.contains(&part)) {
        for line in lines.iter_mut() {
            line.test = true;
        }
        return;
    }
    let mut at = 0;
    while at < lines.len() {
        if lines[at].code.trim() == "#[cfg(test)]" {
            let end = end_of_item(lines, at + 1);
            for line in &mut lines[at..end] {
                line.test = true;
            }
            at = end;
        } else {
            at += 1;
        }
    }
}

/// The line after an item that begins at `at`: behind its block, or behind its semicolon.
fn end_of_item(lines: &[Line], at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, line) in lines[at..].iter().enumerate() {
        for c in line.code.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        let ends = line.code.trim_end().ends_with(['}', ';']);
        if depth == 0 && ends {
            return at + offset + 1;
        }
    }
    lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        Source::parse("src/a.rs", text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let check = |text: &str, expected: &[&str]| assert_eq!(code(text), expected, "{text}");
        check("a(); // b", &["a(); "]);
        check("a /* b /* c */ d */ e", &["a  e"]);
        check("/* a\nb */ c", &["", " c"]);
        check(r#"f("a \" b", c)"#, &[r#"f("", c)"#]);
        check(r##"f(r#"a " b"#, c)"##, &[r#"f(r#"", c)"#]);
        check("'a' '\\'' '\\u{1}' x: &'static str", &["   x: &static str"]);
        check("let a = \"b\nc\"; d", &["let a = \"", "\"; d"]);
    }

    #[test]
    fn tests_are_told_from_what_they_test() {
        let text = "a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod more;\nd";
        let source = Source::parse("src/a.rs", text);
        let kept: Vec<usize> = source.production().map(|(at, _)| at).collect();
        assert_eq!(kept, [1, 6, 9]);
        let whole = |path| Source::parse(path, "a").lines[0].test;
        assert!(whole("crates/a/tests/it/b.rs"));
        assert!(whole("crates/a/src/b/tests.rs"));
        assert!(whole("crates/a/src/conformance/b.rs"));
        assert!(!whole("crates/a/src/contests.rs"));
    }
}
