//! What the core must not touch: anything whose answer may differ between two runs of the same events.

use super::Finding;
use super::source::Source;

const PURE: &str = "crates/glowplug-core/src/";

/// Paths and words banned there, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("std::fs", "the core has no I/O"),
    ("std::io", "the core has no I/O"),
    ("std::process", "the core has no I/O"),
    ("std::env", "the core has no I/O"),
    ("std::thread", "the core has one owner and starts nothing"),
    ("std::sync", "the core has one owner and needs no lock"),
    ("Instant", "time is given to the core"),
    ("SystemTime", "time is given to the core"),
    ("async", "the core never waits"),
    ("await", "the core never waits"),
    ("Mutex", "the core has one owner and needs no lock"),
    ("RwLock", "the core has one owner and needs no lock"),
    ("HashMap", "its order differs from run to run: use BTreeMap"),
    ("HashSet", "its order differs from run to run: use BTreeSet"),
    ("RandomState", "the core has no randomness"),
    ("rand", "the core has no randomness"),
    ("println", "the core does not print"),
    ("eprintln", "the core does not print"),
    ("tracing", "the core does not log: its decisions are values"),
    ("thread_local", "the core has one owner and no hidden state"),
    ("unsafe", "the core has no need of it"),
];

/// Addresses are values; sockets are not.
const NET: &str = "std::net";
const NET_ALLOWED: &[&str] = &["SocketAddr", "IpAddr", "Ipv4Addr", "Ipv6Addr"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with(PURE)) {
        for (at, code) in source.production() {
            for (word, reason) in BANNED.iter().filter(|(word, _)| has_word(code, word)) {
                findings.push(Finding::new(&source.path, at, format!("`{word}`: {reason}")));
            }
            if has_word(code, NET) && !only_addresses(code) {
                findings.push(Finding::new(&source.path, at, "`std::net`: the core has no I/O"));
            }
        }
    }
    findings
}

/// Whether `code` contains `word`, and not as a part of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(part_of_name) && !code[at + word.len()..].starts_with(part_of_name)
    })
}

fn only_addresses(code: &str) -> bool {
    code.split(NET).skip(1).all(|rest| {
        let names = rest.trim_start_matches(':').trim_start_matches('{');
        let list = names.split(['}', ';', ')', '>', '(']).next().unwrap_or_default();
        list.split(',').map(str::trim).all(|name| NET_ALLOWED.contains(&name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_pure_is_found() {
        let check = |code: &str, findings: usize| {
            let inside = Source::parse("crates/glowplug-core/src/a.rs", code);
            let outside = Source::parse("crates/glowplug-node/src/a.rs", code);
            assert_eq!(check(&[inside, outside]).len(), findings, "{code}");
        };
        check("use std::fs;", 1);
        check("use std::collections::HashMap;", 1);
        check("async fn a() {}", 1);
        check("let at = std::time::Instant::now();", 1);
        check("use std::net::SocketAddr;", 0);
        check("use std::net::{IpAddr, SocketAddr};", 0);
        check("use std::net::{SocketAddr, TcpStream};", 1);
        check("use std::net::TcpListener;", 1);
        check("let operand = asynchronous;", 0);
        check("// no HashMap here", 0);
        check("#[cfg(test)]\nmod tests {\n    use std::fs;\n}", 0);
    }
}
