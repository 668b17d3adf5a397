//! What must not be written: unfinished work, tests that are left out, and names that only mean something on
//! one machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::source::Source;
use super::{File, Finding};
use crate::command::{Program, on_path};

/// Banned in code, tests included. Joined from parts, so that this file may contain them.
const CODE: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished work belongs in an issue"),
    (concat!("unimplemented", "!("), "unfinished work belongs in an issue"),
    (concat!("dbg", "!("), "left over from debugging"),
    (concat!("#[ig", "nore"), "a test that does not run is no test: fix or remove it"),
];

/// Banned everywhere, comments included.
const TEXT: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "fix it, or open an issue and write TODO(#number)"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (HOMES, "a path of one machine"),
];

/// Tests may invent the home of somebody.
const HOMES: &str = concat!("/ho", "me/");

/// Hosts in package settings that say nothing about where packages come from.
const NEUTRAL_HOSTS: &[&str] = &["github.com", "localhost", "127.0.0.1"];

pub(super) fn check(
    files: &[File],
    sources: &[Source],
    private_hosts: &BTreeSet<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (at, line) in source.numbered() {
            for (word, reason) in CODE.iter().filter(|(word, _)| line.code.contains(word)) {
                findings.push(Finding::new(&source.path, at, format!("`{word}`: {reason}")));
            }
        }
    }
    for file in files {
        let source = sources.iter().find(|source| source.path == file.path);
        for (at, line) in file.text.lines().enumerate() {
            let test = source.is_some_and(|source| source.lines[at].test);
            let allowed = |word: &str| test && word == HOMES;
            let found = TEXT.iter().filter(|(word, _)| line.contains(word) && !allowed(word));
            for (word, reason) in found {
                findings.push(Finding::new(&file.path, at + 1, format!("`{word}`: {reason}")));
            }
            for host in private_hosts.iter().filter(|host| line.contains(host.as_str())) {
                let problem = format!("`{host}`: where one machine gets its packages from");
                findings.push(Finding::new(&file.path, at + 1, problem));
            }
        }
    }
    findings
}

/// Where this machine gets packages from, if that is not where everybody does. Read from its own settings,
/// so that no such name has to be written down here.
pub(super) fn private_hosts() -> BTreeSet<String> {
    let mut settings = String::new();
    for (name, value) in std::env::vars() {
        let upper = name.to_uppercase();
        let tool = ["PIP_", "UV_", "NPM_CONFIG_", "CARGO_REGISTRIES_", "CARGO_SOURCE_", "GOPROXY"];
        if upper.ends_with("_PROXY") || tool.iter().any(|prefix| upper.starts_with(prefix)) {
            settings.push_str(&value);
            settings.push('\n');
        }
    }
    let asked: [(&str, &[&str]); 3] = [
        ("pip", &["config", "list"]),
        ("npm", &["config", "list", "--json"]),
        ("apt-config", &["dump", "Acquire"]),
    ];
    for (program, args) in asked {
        // A machine without the program has no settings for it.
        if let Some(Ok(said)) = on_path(program).map(|path| Program::new(path).args(args).capture())
        {
            settings.push_str(&said);
        }
    }
    for path in settings_files() {
        settings.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        settings.push('\n');
    }
    hosts(&settings)
}

fn settings_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut files: Vec<PathBuf> = ["config.toml", "config"].map(|name| cargo.join(name)).into();
    files.extend([".config/pip/pip.conf", ".config/uv/uv.toml", ".npmrc"].map(|f| home.join(f)));
    files.extend(["/etc/pip.conf", "/etc/apt/sources.list"].map(PathBuf::from));
    let listed = std::fs::read_dir(Path::new("/etc/apt/sources.list.d"));
    files.extend(listed.into_iter().flatten().flatten().map(|entry| entry.path()));
    files
}

/// The hosts of all URLs in a text, without those that are public.
fn hosts(settings: &str) -> BTreeSet<String> {
    settings
        .split("://")
        .skip(1)
        .filter_map(|rest| rest.split(['/', '"', '\'', ' ', '\n', ']', ',', ';']).next())
        .filter_map(|authority| authority.rsplit('@').next())
        .filter_map(|address| address.split(':').next())
        .filter(|host| host.contains('.') && !NEUTRAL_HOSTS.contains(host))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        let file = File { path: "src/a.rs".into(), text: text.into() };
        let source = Source::parse(&file.path, &file.text);
        let hosts = BTreeSet::from(["packages.example.org".to_owned()]);
        check(&[file], &[source], &hosts).len()
    }

    #[test]
    fn what_must_not_be_written_is_found() {
        for (word, _) in CODE.iter().chain(TEXT) {
            assert_eq!(findings(&format!("a {word} b")), 1, "{word}");
        }
        assert_eq!(findings("from https://packages.example.org/simple"), 1);
        assert_eq!(findings(concat!("// says dbg", "!( in a comment")), 0);
        assert_eq!(findings(&format!("#[cfg(test)]\nmod tests {{\n    // {HOMES}\n}}")), 0);
        assert_eq!(findings("fine"), 0);
    }

    #[test]
    fn hosts_are_taken_from_settings() {
        let settings = "global.index-url='https://user:word@pip.example.org:8443/simple'\n\
                        \"registry\": \"https://npm.example.org\", x = https://github.com/a/b";
        let expected = ["npm.example.org", "pip.example.org"].map(str::to_owned);
        assert_eq!(hosts(settings), BTreeSet::from(expected));
    }
}
