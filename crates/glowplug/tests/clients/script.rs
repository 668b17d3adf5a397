//! Runs a script that checks a client, and shows what it said if it fails.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::Node;

/// Runs a script with the Python client, which finds the node by its environment alone.
pub(crate) fn python(node: &Node, script: &str) {
    let address = node.served.address();
    let mut command = command(&variable("GLOWPLUG_TEST_PYTHON"), "python", script, node);
    command
        .args(["-W", "ignore::UserWarning"])
        .arg(folder("python").join(script))
        .env("FAL_RUN_HOST", format!("{address}/run"))
        .env("FAL_QUEUE_RUN_HOST", format!("{address}/queue"))
        .env("FAL_WS_RUN_HOST", format!("{address}/ws"))
        .env("SSL_CERT_FILE", node.served.ca_path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    succeeds(command, script);
}

/// As [`python`], with fal's own hosts, which the node stands for as a proxy.
pub(crate) fn python_by_proxy(node: &Node, script: &str) {
    let mut command = command(&variable("GLOWPLUG_TEST_PYTHON"), "python", script, node);
    command
        .args(["-W", "ignore::UserWarning"])
        .arg(folder("python").join(script))
        .env("HTTPS_PROXY", node.served.url(""))
        .env("SSL_CERT_FILE", node.served.ca_path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name);
    }
    succeeds(command, script);
}

/// Runs a script with the JavaScript client, which finds the node by its option `proxyUrl`.
pub(crate) fn javascript(node: &Node, script: &str) {
    let mut command = command("node".as_ref(), "javascript", script, node);
    command
        .arg(folder("javascript").join(script))
        .env("GLOWPLUG_URL", node.served.url(""))
        .env("NODE_MODULES", variable("GLOWPLUG_TEST_NODE_MODULES"));
    succeeds(command, script);
}

fn folder(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(language)
}

#[expect(clippy::disallowed_methods, reason = "the test waits for its script")]
fn command(program: &OsStr, language: &str, script: &str, node: &Node) -> Command {
    assert!(folder(language).join(script).is_file(), "{script}");
    let mut command = Command::new(program);
    command
        .current_dir(node.served.folder())
        .env("FAL_KEY", &node.key)
        .env("REVOKED_KEY", &node.revoked_key)
        .env("SCRATCH", node.served.folder())
        // What a developer has for fal itself, and a proxy for the rest of the world, mean nothing here.
        .env("FAL_HOME_DIR", node.served.folder())
        .env("NO_PROXY", "127.0.0.1");
    for name in ["FAL_KEY_ID", "FAL_KEY_SECRET", "FAL_FORCE_AUTH_BY_USER", "FAL_HOST"] {
        command.env_remove(name);
    }
    command
}

fn variable(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: `cargo xtask test` sets up what this test needs and runs it")
    })
}

fn succeeds(mut command: Command, script: &str) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}", command.get_program().display());
    });
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    // A script that ends without a word has checked nothing.
    let checked = said.lines().any(|line| line.ends_with(" passed, 0 failed"));
    assert!(
        output.status.success() && checked,
        "{script}: {}\n{said}\n{complained}",
        output.status
    );
}
