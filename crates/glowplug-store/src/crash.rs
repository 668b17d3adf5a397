//! Points at which a test lets the process die, to show that nothing is lost there.
//!
//! In a build with debug assertions, `GLOWPLUG_CRASH_AT=name` in the environment makes the process kill
//! itself with SIGKILL when it comes to the point of that name, and `GLOWPLUG_CRASH_AT=name:3` when it
//! comes there for the third time. Other builds contain none of this.

/// Every crash point and what has happened, and what has not, when the process dies there.
pub const CRASH_POINTS: &[(&str, &str)] = &[
    ("store.body.written", "a body is in its file under a temporary name, and not in its place"),
    ("store.body.placed", "the file of a body is in its place, and no row names it"),
    ("store.group.applied", "a group of writes is made, and its transaction is not committed"),
    ("store.group.committed", "a group of writes is durable, and no caller has been told"),
    ("store.body.dropped", "what named a file is gone for good, and the file is still there"),
    ("node.webhook.given_out", "a webhook was given out to be called, and is not called yet"),
    ("node.webhook.called", "a webhook was called, and nobody knows how that ended"),
    ("store.backup.copied", "a backup is written under a temporary name, and not in its place"),
    ("queue.accepted", "a request is durable, and the engine has not heard of it"),
    ("queue.attempt.noted", "a further attempt is written down, and its app was not sent anything"),
    ("queue.answered", "an answer is there, and it is not durable"),
    ("queue.completed", "an answer is durable, and nobody who waits for it has been told"),
    ("queue.cancel.marked", "a running request is marked as cancelled, and its app was not told"),
    ("files.body.written", "an upload is written under a temporary name, and not in its place"),
    ("files.content.placed", "the content of an upload is in its place, and no name means it"),
    ("files.name.written", "the name of a file is written, and not in its place"),
    ("files.name.placed", "a file is there, and its uploader has not been told"),
    ("files.name.removed", "the name of a file is gone, and its content is still there"),
    ("files.content.removed", "a file and its content are gone, and nobody has been told"),
    ("files.upload.begun", "an upload in parts is begun, and its uploader has not been told"),
    ("files.part.written", "a part is written under a temporary name, and not in its place"),
    ("files.part.placed", "a part is in its place, and its uploader has not been told"),
    ("files.upload.complete", "a file is made of its parts, and they are still there"),
];

/// Dies here if the environment says so.
#[cfg(debug_assertions)]
pub fn crash_point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static VISITS: AtomicU64 = AtomicU64::new(0);

    let chosen = CHOSEN.get_or_init(|| std::env::var("GLOWPLUG_CRASH_AT").ok().map(parse));
    debug_assert!(CRASH_POINTS.iter().any(|(known, _)| *known == name), "{name} is not listed");
    let Some((_, visit)) = chosen.as_ref().filter(|(chosen, _)| chosen == name) else { return };
    if VISITS.fetch_add(1, Ordering::SeqCst) + 1 == *visit {
        // Nothing of the process may run on, so nobody waits for the signal to arrive.
        while rustix::process::kill_process(
            rustix::process::getpid(),
            rustix::process::Signal::KILL,
        )
        .is_ok()
        {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub fn crash_point(_name: &'static str) {}

#[cfg(debug_assertions)]
fn parse(chosen: String) -> (String, u64) {
    match chosen.split_once(':').map(|(name, visit)| (name.to_owned(), visit.parse())) {
        Some((name, Ok(visit))) => (name, visit),
        _ => (chosen, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_no_name_twice() {
        let mut names: Vec<_> = CRASH_POINTS.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CRASH_POINTS.len());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_point_is_chosen_by_name_and_visit() {
        for (text, name, visit) in [("a.b", "a.b", 1), ("a.b:7", "a.b", 7), ("a.b:x", "a.b:x", 1)] {
            assert_eq!(parse(text.to_owned()), (name.to_owned(), visit));
        }
    }
}
