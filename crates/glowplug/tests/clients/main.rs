//! The clients that people use, unmodified, against the real binary and a real app.
//!
//! Each test starts a node and gives it to one script of `python/` or `javascript/`, which checks one
//! subject and prints what it found; [`protocol`] says the same in plain HTTP. The clients themselves come
//! from `cargo xtask test`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod node;
mod protocol;
mod script;

use node::{Node, open_node};
use script::{javascript, python};

#[test]
fn python_calls() {
    python(&open_node(), "calls.py");
}

#[test]
fn python_queue() {
    python(&open_node(), "queued.py");
}

#[test]
fn python_cancelling() {
    python(&open_node(), "cancelling.py");
}

#[test]
fn python_streams() {
    python(&open_node(), "streams.py");
}

#[test]
fn python_asynchronous() {
    python(&open_node(), "asynchronous.py");
}

#[test]
fn python_fal_apps() {
    python(&open_node(), "fal_apps.py");
}

#[test]
fn javascript_calls() {
    javascript(&open_node(), "calls.mjs");
}

#[test]
fn javascript_queue() {
    javascript(&open_node(), "queued.mjs");
}

#[test]
fn javascript_streams() {
    javascript(&open_node(), "streams.mjs");
}

#[test]
fn keys_are_asked_for() {
    let node = Node::with_keys();
    python(&node, "keys.py");
    javascript(&node, "keys.mjs");
}
