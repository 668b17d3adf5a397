//! What the documentation says exists does: paths, and the tests that hold the invariants.

use super::source::Source;
use super::{File, Finding, has_extension};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// Generated pages. Each is kept current by a test that names it.
const GENERATED: &str = "docs/reference/";
/// What a path in backticks starts with; other texts with a slash are routes, apps and types.
const TREES: &[&str] = &[
    ".cargo/",
    ".ci/",
    ".config/",
    "bench/",
    "crates/",
    "docs/",
    "examples/",
    "runtime/",
    "xtask/",
];

pub(super) fn check(
    files: &[File],
    sources: &[Source],
    exists: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| has_extension(&file.path, "md")) {
        for (at, line) in file.text.lines().enumerate() {
            for path in paths(line) {
                let parent = file.path.rsplit_once('/').map_or("", |(parent, _)| parent);
                let beside = format!("{parent}/{path}");
                if !exists(&path) && !exists(beside.trim_start_matches('/')) {
                    let problem = format!("there is no `{path}`");
                    findings.push(Finding::new(&file.path, at + 1, problem));
                }
            }
        }
        let unguarded = file.path.starts_with(GENERATED) && !is_named(&file.path, files);
        if unguarded {
            findings.push(Finding::new(&file.path, 0, "no test keeps this page current"));
        }
    }
    match files.iter().find(|file| file.path == ARCHITECTURE) {
        Some(file) => findings.extend(invariants(file, sources)),
        None => findings.push(Finding::new(ARCHITECTURE, 0, "this file is missing")),
    }
    findings
}

fn is_named(path: &str, files: &[File]) -> bool {
    let rust = files.iter().filter(|file| has_extension(&file.path, "rs"));
    rust.into_iter().any(|file| file.text.contains(path))
}

/// The paths that a line of Markdown names: in backticks, and as the targets of links.
fn paths(line: &str) -> Vec<String> {
    let quoted = backticks(line).filter(|text| TREES.iter().any(|tree| text.starts_with(tree)));
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    let plain = |path: &&str| {
        // A pattern, a command or an app of a file is no path.
        !path.is_empty() && !path.contains(['*', '{', '<', '…', '$', ' '])
    };
    let strip = |path: &str| {
        let path = path.split("::").next().unwrap_or(path);
        let path = path.split('#').next().unwrap_or(path);
        path.trim_end_matches('/').to_owned()
    };
    quoted.chain(targets).filter(plain).map(strip).collect()
}

fn backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Every invariant names at least one test, and every test that is named exists. The section begins with a
/// heading that has the word, and each invariant is an item of its numbered list.
fn invariants(file: &File, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut inside, mut count) = (false, 0);
    let mut without_test: Option<(usize, &str)> = None;
    for (at, line) in file.text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        if line.starts_with('#') {
            inside = line.to_lowercase().contains("invariant");
        }
        let number = line.split_once(". ").map(|(number, _)| number);
        let item = inside && number.is_some_and(|number| number.parse::<u32>().is_ok());
        if item || !inside {
            findings.extend(without_test.take().map(nameless));
        }
        if item {
            count += 1;
            without_test = Some((at, line));
        }
        for test in backticks(line).filter(|text| names_test(text)) {
            if exists(test, sources) {
                without_test = None;
            } else {
                let problem = format!("there is no test `{test}`");
                findings.push(Finding::new(ARCHITECTURE, at, problem));
            }
        }
    }
    findings.extend(without_test.map(nameless));
    if count == 0 {
        findings.push(Finding::new(ARCHITECTURE, 0, "it has no numbered list of invariants"));
    }
    findings
}

fn nameless((at, line): (usize, &str)) -> Finding {
    let words: Vec<&str> = line.split(' ').take(8).collect();
    let problem = format!("the invariant \"{} …\" names no test that holds it", words.join(" "));
    Finding::new(ARCHITECTURE, at, problem)
}

/// `glowplug_core::engine::tests::a_name`, and neither a type nor a module.
fn names_test(text: &str) -> bool {
    let segments: Vec<&str> = text.split("::").collect();
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    segments.len() >= 2
        && (segments[0].starts_with("glowplug") || segments[0] == "xtask")
        && segments.iter().all(|segment| plain(segment))
}

/// Whether a test function of that name is in that crate, in a file or module that the path names.
fn exists(test: &str, sources: &[Source]) -> bool {
    let segments: Vec<&str> = test.split("::").collect();
    let [krate, modules @ .., function] = segments.as_slice() else { return false };
    let folder = match *krate {
        "xtask" => "xtask/".to_owned(),
        krate => format!("crates/{}/", krate.replace('_', "-")),
    };
    let declarations = [format!("fn {function}("), format!("fn {function}<")];
    sources.iter().filter(|source| source.path.starts_with(&folder)).any(|source| {
        let parts: Vec<&str> = source.path.trim_end_matches(".rs").split('/').collect();
        let inside = |module: &&str| {
            let block = format!("mod {module} ");
            parts.contains(module) || source.lines.iter().any(|line| line.code.contains(&block))
        };
        let declared = |line: &super::source::Line| {
            line.test && declarations.iter().any(|text| line.code.contains(text))
        };
        modules.iter().all(inside) && source.lines.iter().any(declared)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn paths_are_found_in_markdown() {
        let check = |line: &str, expected: &[&str]| assert_eq!(paths(line), expected, "{line}");
        check("see `crates/a/src/b.rs` and `/run/{owner}`", &["crates/a/src/b.rs"]);
        check("`examples/ocr/app.py::Ocr`", &["examples/ocr/app.py"]);
        check("[a](docs/b.md#c), [d](https://e.org/f), [g](#h)", &["docs/b.md"]);
        check("`crates/*/tests` and `docs/<page>`", &[]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let files = [
            file("docs/a.md", "`crates/b/` and [c](c.md) and `xtask/d`"),
            file(ARCHITECTURE, "## Invariants\n1. a `xtask::e::f`"),
        ];
        let test = Source::parse("xtask/src/e.rs", "#[cfg(test)]\nmod tests {\nfn f() {}\n}");
        let there = ["crates/b", "docs/c.md"];
        let found = check(&files, &[test], |path| there.contains(&path));
        assert_eq!(found, [Finding::new("docs/a.md", 1, "there is no `xtask/d`")]);
    }

    #[test]
    fn an_invariant_without_its_test_is_found() {
        let text = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn holds() {}\n}\nfn free() {}";
        let sources = [Source::parse("crates/glowplug-core/src/engine.rs", text)];
        let check = |invariant: &str, findings: usize| {
            let text = format!("# Invariants\n1. first: {invariant}\n\n# Next\n");
            let found = invariants(&file(ARCHITECTURE, &text), &sources);
            assert_eq!(found.len(), findings, "{invariant}: {found:?}");
        };
        check("`glowplug_core::engine::tests::holds`", 0);
        check("`glowplug_core::engine::holds`", 0);
        check("`Event::Arrived` and more\n   lines: `glowplug_core::engine::holds`", 0);
        check("no test", 1);
        check("`glowplug_core::engine::free`", 2);
        check("`glowplug_core::scaler::holds`", 2);
        check("`glowplug_node::engine::holds`", 2);
    }

    #[test]
    fn a_generated_page_without_a_test_is_found() {
        let test = |text: &str| {
            let page = file("docs/reference/a.md", "");
            let guard = file("crates/a/src/b.rs", text);
            let rules = file(ARCHITECTURE, "# Invariants\n1. `xtask::e::f`");
            let holds = Source::parse("xtask/tests/e.rs", "fn f() {}");
            check(&[page, guard, rules], &[holds], |_| true).len()
        };
        assert_eq!(test("\"../../docs/reference/a.md\""), 0);
        assert_eq!(test("nothing"), 1);
    }
}
