//! How large a scenario may be in all. One line of a file may stand for many apps, and each of them for many
//! runners, so what each line may say does not bound what all of them come to.

use super::document::Problem;

/// Apps, all copies counted.
pub const APPS_MAX: u64 = 100_000;
/// Runners that are kept or held ready without any traffic, over all apps.
pub const FLOOR_RUNNERS_MAX: u64 = 100_000;
/// Streams of requests, over all apps.
pub const STREAMS_MAX: u64 = 200_000;
/// Happenings, each counted once for every app that it happens to and every step that it takes.
pub const HAPPENINGS_MAX: u64 = 200_000;
/// Bounds that are expected to hold, over all apps.
pub const EXPECTATIONS_MAX: u64 = 1_000_000;

/// What adds up over the lines of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Apps,
    FloorRunners,
    Streams,
    Happenings,
    Expectations,
}

/// How much there is of each part so far, in the order of [`Part`].
#[derive(Debug, Default)]
pub(super) struct Size([u64; 5]);

impl Part {
    /// The limit, what it is of, and how to keep it.
    fn limit(self) -> (u64, &'static str, &'static str) {
        match self {
            Self::Apps => (APPS_MAX, "apps", "lower `copies`"),
            Self::FloorRunners => (
                FLOOR_RUNNERS_MAX,
                "runners that are there without traffic",
                "lower `min_concurrency`, `concurrency_buffer` or `copies`",
            ),
            Self::Streams => (
                STREAMS_MAX,
                "streams of traffic",
                "lower `copies`, or write fewer tables `traffic`",
            ),
            Self::Happenings => {
                (HAPPENINGS_MAX, "happenings", "write fewer of them, or lower `copies`")
            }
            Self::Expectations => {
                (EXPECTATIONS_MAX, "expectations", "write fewer of them, or lower `copies`")
            }
        }
    }
}

impl Size {
    /// Adds so many, unless that is too much. `line` and `path`: of the table that brings them.
    pub(super) fn grow(
        &mut self,
        part: Part,
        by: u64,
        line: usize,
        path: &str,
    ) -> Result<(), Problem> {
        let (limit, what, help) = part.limit();
        let now = self.0[part as usize].saturating_add(by);
        if now > limit {
            let message =
                format!("[{path}] brings the scenario to {now} {what}, more than {limit}");
            return Err(Problem { line, message, help: Some(help.to_owned()) });
        }
        self.0[part as usize] = now;
        Ok(())
    }
}
