//! The clients that people use, unmodified, against the real binary and a real app.
//!
//! Each test starts a node and gives it to scripts of `python/` or `javascript/`, each of which checks one
//! subject and prints what it found; [`protocol`] says the same in plain HTTP. The clients themselves come
//! from `cargo xtask test`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod node;
mod protocol;
mod script;

use node::{Node, open_node};
use script::{javascript, python, python_by_proxy};

#[test]
fn python_calls_and_streams() {
    let node = open_node();
    python(&node, "calls.py");
    python(&node, "streams.py");
}

#[test]
fn python_holds_sockets_open() {
    python(&open_node(), "sockets.py");
}

#[test]
fn python_queues_and_cancels() {
    let node = open_node();
    python(&node, "queued.py");
    python(&node, "cancelling.py");
}

#[test]
fn python_is_called_back() {
    python(&open_node(), "webhooks.py");
}

#[test]
fn python_is_asynchronous_and_part_of_fal() {
    let node = open_node();
    python(&node, "asynchronous.py");
    python(&node, "fal_apps.py");
}

#[test]
fn javascript_calls_and_streams() {
    let node = open_node();
    javascript(&node, "calls.mjs");
    javascript(&node, "streams.mjs");
}

#[test]
fn javascript_queues_and_cancels() {
    javascript(&open_node(), "queued.mjs");
}

#[test]
fn files_are_uploaded_and_the_proxy_leads_to_everything() {
    for node in [open_node(), Node::with_keys()] {
        python_by_proxy(&node, "files.py");
        javascript(&node, "files.mjs");
    }
}

#[test]
fn keys_are_asked_for() {
    let node = Node::with_keys();
    python(&node, "keys.py");
    javascript(&node, "keys.mjs");
}
