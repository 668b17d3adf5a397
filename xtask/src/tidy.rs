//! `cargo xtask tidy`: the rules of the repository that no compiler checks.
//!
//! Each rule is a function from what is in the repository to what is wrong with it, so that a test can show
//! that it finds what it is for.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::repository;

mod documents;
mod edges;
mod names;
mod purity;
mod size;
mod source;
mod words;

use source::Source;

/// A text file of the repository.
#[derive(Debug)]
struct File {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// Counted from 1; 0 when the whole file is meant.
    line: usize,
    problem: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, problem: impl Into<String>) -> Self {
        Self { path: path.into(), line, problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.problem),
            line => write!(f, "{}:{line}: {}", self.path, self.problem),
        }
    }
}

pub(crate) fn run() -> Result<()> {
    let files = read_files()?;
    let (findings, warnings) = check(&files)?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} violation(s) of the repository's rules", findings.len());
    }
    eprintln!("{} files are tidy", files.len());
    Ok(())
}

/// What breaks a rule, and what is about to.
fn check(files: &[File]) -> Result<(Vec<Finding>, Vec<Finding>)> {
    let rust = files.iter().filter(|file| has_extension(&file.path, "rs"));
    let sources: Vec<Source> = rust.map(|file| Source::parse(&file.path, &file.text)).collect();
    let mut findings = edges::check(&edges::packages()?);
    findings.extend(purity::check(&sources));
    findings.extend(names::check(&sources));
    findings.extend(words::check(files, &sources, &words::private_hosts()));
    findings
        .extend(documents::check(files, &sources, |path| repository::root().join(path).exists()));
    let (too_long, warnings) = size::check(&sources);
    findings.extend(too_long);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok((findings, warnings))
}

fn read_files() -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in repository::files()? {
        let bytes = std::fs::read(repository::root().join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        // What is no text, such as a picture, has no rules.
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: slashed(&path)?, text });
        }
    }
    Ok(files)
}

fn slashed(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .with_context(|| format!("the name {} is no UTF-8", path.display()))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let (findings, _) = check(&read_files().unwrap()).unwrap();
        let shown: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "{}", shown.join("\n"));
    }
}
