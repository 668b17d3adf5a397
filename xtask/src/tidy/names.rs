//! Names of modules: they come from the field, not from having no better idea.

use super::Finding;
use super::source::Source;

const BANNED: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "shared_types", "manager"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let parts = source.path.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| BANNED.contains(part)) {
            let problem = format!("`{part}` says nothing: name what is in it");
            findings.push(Finding::new(&source.path, 0, problem));
        }
        // `tests/support/mod.rs` is how Cargo is told that a file is no test of its own.
        if source.path.ends_with("/mod.rs") && !source.path.contains("/tests/") {
            findings.push(Finding::new(&source.path, 0, "modules are `a.rs` beside `a/`"));
        }
        for (at, line) in source.numbered() {
            let name = module_declared(&line.code);
            if let Some(name) = name.filter(|name| BANNED.contains(name)) {
                let problem = format!("`{name}` says nothing: name what is in it");
                findings.push(Finding::new(&source.path, at, problem));
            }
        }
    }
    findings
}

/// The name in `mod name;` or `mod name {`.
fn module_declared(code: &str) -> Option<&str> {
    let code = code.trim_start();
    let rest = match code.strip_prefix("pub") {
        Some(rest) => rest.split_once("mod ")?.1,
        None => code.strip_prefix("mod ")?,
    };
    Some(rest.trim_end_matches(['{', '}', ';', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_found() {
        let check = |path: &str, text: &str, findings: usize| {
            assert_eq!(check(&[Source::parse(path, text)]).len(), findings, "{path}: {text}");
        };
        check("crates/a/src/utils.rs", "", 1);
        check("crates/a/src/common/b.rs", "", 1);
        check("crates/a/src/b/mod.rs", "", 1);
        check("crates/a/tests/it/mod.rs", "", 0);
        check("crates/a/src/b.rs", "mod helpers;", 1);
        check("crates/a/src/b.rs", "pub(crate) mod misc {", 1);
        check("crates/a/src/b.rs", "mod retry;", 0);
    }
}
