//! Which starts of containers are recorded, and what becomes of the lists of files that they touched.
//!
//! A start is recorded when there is no list of its app for this image, or an old one, and no other start
//! of the same is being recorded. All others cost a look into a table. Lists are kept by the store of images.
//! Limits: [`KNOWN_MAX`] ages in memory; a recording goes with its runner.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_core::{RunnerId, Timestamp};
use glowplug_image::Digest;
use glowplug_image::touched::{Touched, TouchedFile};
use glowplug_runner::{Recording, TouchedFiles};

use crate::images::Images;

/// What a start touches changes with the app's settings and with what it finds outside of the image.
const RECORDED_AGAIN_AFTER: Duration = Duration::from_hours(7 * 24);
/// Of a list that lacks something, so that the next start is recorded again, by a later node as well.
const LONG_AGO: Timestamp = Timestamp::from_micros(0);
/// Ages of lists that are remembered. Beyond it all are looked up again.
const KNOWN_MAX: usize = 4_096;

/// An image and the app that it is of.
type Subject = (Digest, String);

#[derive(Debug, Default)]
pub(crate) struct Recordings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When lists were made; `None`: there is none.
    made: HashMap<Subject, Option<Timestamp>>,
    going_on: HashMap<RunnerId, Subject>,
}

impl Recordings {
    /// No code panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, subject: &Subject) -> bool {
        self.state().made.contains_key(subject)
    }

    fn learn(&self, subject: Subject, made: Option<Timestamp>) {
        let mut state = self.state();
        if state.made.len() >= KNOWN_MAX {
            state.made.clear();
        }
        state.made.insert(subject, made);
    }

    /// Whether this runner's start is to be recorded.
    fn begin(&self, runner: RunnerId, subject: Subject, now: Timestamp) -> Recording {
        let mut state = self.state();
        let made = state.made.get(&subject).copied().flatten();
        let is_due = made.is_none_or(|made| now.since(made) >= RECORDED_AGAIN_AFTER);
        let is_free = || !state.going_on.values().any(|other| *other == subject);
        if !is_due || !is_free() {
            return Recording::Off;
        }
        state.going_on.insert(runner, subject);
        Recording::UntilReady
    }

    fn subject(&self, runner: RunnerId) -> Option<Subject> {
        self.state().going_on.get(&runner).cloned()
    }

    fn end(&self, runner: RunnerId) {
        self.state().going_on.remove(&runner);
    }
}

/// When the list of these files counts as made. It is of use even if some are missing.
fn made(files: &TouchedFiles, now: Timestamp) -> Timestamp {
    if files.is_complete { now } else { LONG_AGO }
}

impl Images {
    /// Whether the start of this runner, of an app on an image, is to be recorded.
    pub(crate) async fn begin_recording(
        &self,
        runner: RunnerId,
        (image, app): (&Digest, &str),
        now: Timestamp,
    ) -> Recording {
        let subject = (image.clone(), app.to_owned());
        if !self.recordings.knows(&subject) {
            match self.touched_by(image, app).await {
                Ok(list) => {
                    self.recordings.learn(subject.clone(), list.map(|list| list.recorded()));
                }
                Err(problem) => {
                    tracing::warn!(app, "what its starts touched is not known: {problem}");
                    return Recording::Off;
                }
            }
        }
        self.recordings.begin(runner, subject, now)
    }

    /// Keeps what a recorded start has touched.
    pub(crate) async fn end_recording(
        &self,
        runner: RunnerId,
        files: TouchedFiles,
        now: Timestamp,
    ) {
        // A runner of an earlier life of the node: nobody knows any more what image it was started from.
        let Some((image, app)) = self.recordings.subject(runner) else { return };
        let count = files.paths.len();
        let is_complete = files.is_complete;
        let made = made(&files, now);
        let whole = files.paths.into_iter().map(TouchedFile::whole).collect();
        // At once, so that no start that comes meanwhile is recorded as well.
        self.recordings.learn((image.clone(), app.clone()), Some(made));
        self.recordings.end(runner);
        let touched = Touched::new(made, self.late.narrow(runner, whole, now).await);
        match self.note_touched(&image, &app, touched).await {
            Ok(()) => {
                if !is_complete {
                    tracing::info!(
                        app,
                        count,
                        "some of the files that a start touched went unseen: the next one is recorded again"
                    );
                }
                tracing::debug!(app, count, "what a start touched is recorded");
            }
            Err(problem) => {
                tracing::warn!(app, "what a start touched is not kept: {problem}");
                self.recordings.learn((image, app), None);
            }
        }
    }

    /// The runner is gone, whether or not it was recorded to the end.
    pub(crate) fn forget_recording(&self, runner: RunnerId) {
        self.recordings.end(runner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600;

    fn runner(sequence: u32) -> RunnerId {
        RunnerId { boot: 1, sequence }
    }

    fn at(days: u64) -> Timestamp {
        Timestamp::from_micros(days * DAY * 1_000_000)
    }

    fn subject(app: &str) -> Subject {
        (Digest::of(b"image"), app.to_owned())
    }

    #[test]
    fn a_start_is_recorded_if_there_is_no_list_or_an_old_one() {
        let check = |made: Option<u64>, now, expected| {
            let recordings = Recordings::default();
            recordings.learn(subject("a"), made.map(at));
            assert_eq!(recordings.begin(runner(1), subject("a"), at(now)), expected, "{made:?}");
        };
        check(None, 1, Recording::UntilReady);
        check(Some(1), 1, Recording::Off);
        check(Some(1), 7, Recording::Off);
        check(Some(1), 8, Recording::UntilReady);
        // A clock that was set back.
        check(Some(9), 1, Recording::Off);
    }

    #[test]
    fn a_list_that_lacks_something_is_made_again_at_the_next_start() {
        for (is_complete, expected) in [(true, Recording::Off), (false, Recording::UntilReady)] {
            let recordings = Recordings::default();
            let files = TouchedFiles { paths: Vec::new(), is_complete };
            recordings.learn(subject("a"), Some(made(&files, at(20_000))));
            let begun = recordings.begin(runner(1), subject("a"), at(20_000));
            assert_eq!(begun, expected, "{is_complete}");
        }
    }

    #[test]
    fn one_start_of_an_app_is_recorded_at_a_time() {
        let recordings = Recordings::default();
        let begin = |number, app| recordings.begin(runner(number), subject(app), at(1));
        assert_eq!(begin(1, "a"), Recording::UntilReady);
        assert_eq!(begin(2, "a"), Recording::Off);
        assert_eq!(begin(3, "b"), Recording::UntilReady);
        assert_eq!(recordings.subject(runner(2)), None);
        assert_eq!(recordings.subject(runner(1)), Some(subject("a")));
        recordings.end(runner(1));
        assert_eq!(begin(4, "a"), Recording::UntilReady);
    }

    #[test]
    fn ages_that_were_forgotten_are_looked_up_again() {
        let recordings = Recordings::default();
        for number in 0..=KNOWN_MAX {
            recordings.learn(subject(&number.to_string()), None);
        }
        assert!(!recordings.knows(&subject("0")));
        assert!(recordings.knows(&subject(&KNOWN_MAX.to_string())));
    }
}
