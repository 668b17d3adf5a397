//! The log: kept, followed, and never larger than it may be.

use futures::StreamExt;
use glowplug_core::RunnerId;
use tokio::time::timeout;

use super::{Fixture, Node, PATIENCE, POLL_PAUSE, Program, get};
use crate::backend::{LogLine, LogStream};

/// Enough for words that are merely quick to be late once.
const ANSWERS: usize = 50;

async fn whole_log(node: &Node, id: RunnerId) -> Vec<LogLine> {
    let lines = node.backend.logs(id, 0, false).await.expect("the log can be read");
    timeout(PATIENCE, lines.collect()).await.expect("a log that is not followed ends")
}

/// The log, once it holds such a line: a program may be ready before its words have arrived.
async fn log_with(
    node: &Node,
    id: RunnerId,
    wanted: fn(&LogLine) -> bool,
) -> (Vec<LogLine>, LogLine) {
    let waiting = async {
        loop {
            let log = whole_log(node, id).await;
            if let Some(line) = log.iter().find(|line| wanted(line)).cloned() {
                return (log, line);
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the line comes")
}

pub async fn keeps_the_log(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    let (_, hello) = log_with(&node, spec.id, |line| line.text == "hello").await;
    assert_eq!(hello.stream, LogStream::Stdout);
    assert!(hello.at_micros > 0);
    let later = node.backend.logs(spec.id, hello.number + 1, false).await.expect("is known");
    let later: Vec<LogLine> = later.collect().await;
    assert!(later.iter().all(|line| line.number > hello.number), "{later:?}");
    get(&address, "/crash").await;
    node.exited(spec.id).await;
    let log = whole_log(&node, spec.id).await;
    assert!(log.iter().any(|line| line.text == "hello"), "the log outlives the runner: {log:?}");
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

/// What a program says before it answers is in the log of whoever has the answer.
pub async fn the_log_is_up_to_date(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    for count in 1..=ANSWERS {
        assert_eq!(get(&address, "/say").await.map(|(status, _)| status), Some(200));
        let log = whole_log(&node, spec.id).await;
        assert_eq!(log.iter().filter(|line| line.text == "said").count(), count);
    }
    node.clear(spec.id).await;
}

pub async fn follows_the_log(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    node.bring_up(&spec).await;
    let mut lines = node.backend.logs(spec.id, 0, true).await.expect("the log can be read");
    let first = timeout(PATIENCE, lines.next()).await.expect("a line comes");
    assert_eq!(first.map(|line| line.text).as_deref(), Some("hello"));
    let waiting = tokio::spawn(async move { lines.collect::<Vec<_>>().await });
    node.kill(spec.id).await;
    node.exited(spec.id).await;
    timeout(PATIENCE, waiting).await.expect("the end of the runner is its end").expect("no panic");
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

pub async fn cuts_long_lines(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let length = fixture.line_bytes_max() * 3 + 11;
    let spec = fixture.spec(1, Program::LongLine(length));
    node.bring_up(&spec).await;
    let (_, long) = log_with(&node, spec.id, |line| line.text.starts_with("xxx")).await;
    let kept = long.text.chars().take_while(|character| *character == 'x').count();
    assert_eq!(kept, fixture.line_bytes_max());
    assert!(long.text.contains("more bytes"), "the cut is said");
    node.clear(spec.id).await;
}

pub async fn contains_a_flood(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let lines = fixture.log_bytes_max() / 50;
    let spec = fixture.spec(1, Program::Floods(lines));
    let address = node.bring_up(&spec).await;
    assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
    assert!(fixture.log_bytes(spec.id) <= fixture.log_bytes_max());
    let is_note =
        |line: &LogLine| line.stream == LogStream::Supervisor && line.text.contains("dropped");
    let (log, _) = log_with(&node, spec.id, is_note).await;
    assert!(log.windows(2).all(|pair| pair[0].number < pair[1].number), "numbers ascend");
    node.clear(spec.id).await;
}
