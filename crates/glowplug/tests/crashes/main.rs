//! `kill -9` of the node, at every named point and at any moment, under load, many times over.
//!
//! Nothing that was accepted may be lost, and nothing completed twice: whatever was once seen as a request's
//! answer is its answer for good, in the result and in every call of its webhook, and each idempotency key
//! has one request however often it was sent. A file that was uploaded can be read, and one that was deleted
//! cannot.
//!
//! `GLOWPLUG_CRASHES` says how many crashes, `GLOWPLUG_CRASH_SEED` repeats a run as far as chance is ours.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod ledger;
mod receiver;
mod submitters;
mod uploaders;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use glowplug_store::CRASH_POINTS;
use glowplug_testkit::{Served, ServedOptions, processes_with};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::ledger::Ledger;
use self::receiver::Receiver;
use self::submitters::Submitters;
use self::uploaders::Uploaders;

const CRASHES_DEFAULT: u32 = 60;
/// Beyond it a crash point is taken not to be on the way of this life.
const POINT_PATIENCE: Duration = Duration::from_secs(3);
/// Longer than any run: what was answered at its beginning is still compared at its end.
const RETENTION_SECONDS: u32 = 7 * 24 * 3600;
/// How often a crash point is passed before the node dies there, at most.
const VISITS_MAX: u32 = 12;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// An app that never gives the same answer twice.
fn start_node(receiver: &Receiver) -> Served {
    let app = "import os, sys, json, threading, itertools, http.server as h\n\
        count = itertools.count()\n\
        class A(h.BaseHTTPRequestHandler):\n\
        \x20   protocol_version = 'HTTP/1.1'\n\
        \x20   def do_POST(self):\n\
        \x20       body = self.rfile.read(int(self.headers.get('content-length') or 0)).decode()\n\
        \x20       run = f'{os.getpid()}-{next(count)}'\n\
        \x20       text = json.dumps({'echo': json.loads(body), 'run': run}).encode()\n\
        \x20       self.send_response(200)\n\
        \x20       self.send_header('content-type', 'application/json')\n\
        \x20       self.send_header('content-length', str(len(text)))\n\
        \x20       self.end_headers()\n\
        \x20       self.wfile.write(text)\n\
        \x20   def log_message(self, *words): pass\n\
        class S(h.ThreadingHTTPServer):\n\
        \x20   daemon_threads = True\n\
        \x20   request_queue_size = 128\n\
        S(('127.0.0.1', int(os.environ['PORT'])), A).serve_forever()\n";
    let app = serde_json::to_string(app).unwrap();
    let config = format!(
        "[node.queue]\ninline_bytes_max = 4096\nretention = {RETENTION_SECONDS}\n[node.webhooks]\nallow = [\"{}\"]\n[apps.app]\n\
         command = [\"python3\", \"-c\", {app}]\nkeep_alive = 600\nmax_concurrency = 2\nmax_multiplexing = 8\n",
        receiver.address().ip()
    );
    Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config,
        env: Vec::new(),
        data_dir: None,
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_anywhere_lose_nothing_and_complete_nothing_twice() {
    let crashes = u32::try_from(number("GLOWPLUG_CRASHES", u64::from(CRASHES_DEFAULT))).unwrap();
    let seed = number("GLOWPLUG_CRASH_SEED", rand::random());
    println!("GLOWPLUG_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let ledger = Arc::new(Ledger::default());
    let receiver = Receiver::start(ledger.clone()).await;
    let mut node = start_node(&receiver);
    let submitters = Submitters::start(&node, &ledger, receiver.address(), seed);
    let uploaders = Uploaders::start(&node, seed);
    let mut deaths: BTreeMap<&str, u32> = BTreeMap::new();
    for crash in 0..crashes {
        // Every second life ends by chance; the others at a point, each in its turn.
        let point = (crash % 2 == 1).then(|| CRASH_POINTS[crash as usize / 2 % CRASH_POINTS.len()]);
        let how = match point {
            None => {
                let span = Duration::from_millis(random.random_range(20..500));
                tokio::time::sleep(span).await;
                node.kill();
                "at any moment"
            }
            Some((name, _)) => die_at(&mut node, name, &mut random),
        };
        *deaths.entry(how).or_default() += 1;
        if random.random_bool(0.1) {
            kill_a_runner(&node, &mut random);
        }
        tokio::task::block_in_place(|| node.start_again()).unwrap();
    }
    let accepted = submitters.stop().await;
    let files = uploaders.stop().await;
    ledger.settle(&node.url("")).await;
    println!("{crashes} crashes: {deaths:?}");
    println!("{accepted} requests accepted, {}; {files} files", ledger.summary());
    assert!(accepted > crashes as usize, "too little was submitted to say anything");
    assert!(files > crashes as usize, "too little was uploaded to say anything");
    assert_eq!(node.stop(), Some(0), "{}", node.log());
}

/// Lets the node live a life that ends at a crash point, or by a kill if that is not on its way.
fn die_at(node: &mut Served, point: &'static str, random: &mut StdRng) -> &'static str {
    node.kill();
    let visits = random.random_range(1..=VISITS_MAX);
    let chosen = format!("{point}:{visits}");
    tokio::task::block_in_place(|| {
        // A life may end before it has begun.
        let started = node.start_again_with(&[("GLOWPLUG_CRASH_AT", &chosen)]);
        if started.is_err() || node.dies_within(POINT_PATIENCE) {
            return point;
        }
        node.kill();
        "after a point that was not passed"
    })
}

/// A program or a supervisor, whichever comes.
fn kill_a_runner(node: &Served, random: &mut StdRng) {
    let others = processes_with(&node.folder().display().to_string());
    if others.is_empty() {
        return;
    }
    let pid = i32::try_from(others[random.random_range(0..others.len())]).unwrap();
    // It may have ended just now.
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    );
}
