//! How far a preparation is, for a progress bar.
//!
//! Only the latest state is kept: a slow reader skips, and nothing queues.

use tokio::sync::watch;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Looking for what is there already.
    #[default]
    Checking,
    /// Another process prepares the same thing.
    Waiting,
    /// Installing uv or an interpreter.
    Tools,
    /// Finding versions that fit together.
    Resolving,
    Downloading,
    Installing,
    /// Making a container image.
    Building,
    /// Compiling bytecode.
    Compiling,
    /// Reading the app's source.
    Inspecting,
    Done,
}

impl Stage {
    /// In the present tense, for the start of a line.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Waiting => "waiting for",
            Self::Tools => "fetching",
            Self::Resolving => "resolving",
            Self::Downloading => "downloading",
            Self::Installing => "installing",
            Self::Building => "building",
            Self::Compiling => "compiling",
            Self::Inspecting => "reading",
            Self::Done => "ready",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub stage: Stage,
    /// What the stage is about: a package, a version, a file.
    pub detail: String,
    /// From 0 to 1, where it can be told.
    pub fraction: Option<f32>,
    pub downloaded_bytes: u64,
    /// Of the downloads announced so far; more may follow.
    pub announced_bytes: u64,
}

/// Where a preparation reports to. Cheap to clone; reporting never waits.
#[derive(Clone, Debug, Default)]
pub struct ProgressSender(Option<watch::Sender<Progress>>);

impl ProgressSender {
    /// A sender and the receiver that sees the latest state.
    pub fn channel() -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(Progress::default());
        (Self(Some(sender)), receiver)
    }

    /// For callers that show nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn stage(&self, stage: Stage, detail: impl Into<String>) {
        self.send(Progress { stage, detail: detail.into(), ..Progress::default() });
    }

    pub(crate) fn send(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            sender.send_replace(progress);
        }
    }
}

/// Reads uv's own words (its output without a terminal) into progress.
#[derive(Debug, Default)]
pub(crate) struct UvOutput {
    /// Announced downloads by package, in bytes.
    announced: Vec<(String, u64)>,
    announced_bytes: u64,
    downloaded_bytes: u64,
}

impl UvOutput {
    pub(crate) fn read(&mut self, line: &str) -> Option<Progress> {
        let line = line.trim();
        let (word, rest) = line.split_once(' ')?;
        let (stage, detail) = match word {
            "Resolved" => (Stage::Downloading, rest),
            "Downloading" | "Building" => {
                let (name, size) = rest.split_once(" (").unwrap_or((rest, ""));
                let bytes = parse_size(size.trim_end_matches(')')).unwrap_or(0);
                self.announced.push((name.to_owned(), bytes));
                self.announced_bytes += bytes;
                (Stage::Downloading, name)
            }
            "Downloaded" | "Built" => {
                if let Some(at) = self.announced.iter().position(|(name, _)| name == rest) {
                    self.downloaded_bytes += self.announced.swap_remove(at).1;
                }
                (Stage::Downloading, rest)
            }
            "Prepared" => (Stage::Installing, rest),
            "Installed" => (Stage::Compiling, rest),
            _ => return None,
        };
        Some(Progress {
            stage,
            detail: detail.split(" in ").next().unwrap_or(detail).to_owned(),
            fraction: self.fraction(stage),
            downloaded_bytes: self.downloaded_bytes,
            announced_bytes: self.announced_bytes,
        })
    }

    fn fraction(&self, stage: Stage) -> Option<f32> {
        if stage != Stage::Downloading || self.announced_bytes == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of a bar")]
        let fraction = self.downloaded_bytes as f32 / self.announced_bytes as f32;
        Some(fraction)
    }
}

/// `15.6MiB` in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().ok()?;
    let factor = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rounded size with three digits, checked not to be negative"
    )]
    let bytes = (number.max(0.0) * factor) as u64;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uv_output_becomes_progress() {
        let mut output = UvOutput::default();
        let mut read = |line: &str| output.read(line);
        let progress = read("Resolved 2 packages in 1.07s").unwrap();
        assert_eq!((progress.stage, progress.detail.as_str()), (Stage::Downloading, "2 packages"));
        let progress = read("Downloading numpy (15.0MiB)").unwrap();
        assert_eq!((progress.announced_bytes, progress.fraction), (15 << 20, Some(0.0)));
        assert!(read("Downloading torch (15.0MiB)").is_some());
        let progress = read(" Downloaded numpy").unwrap();
        assert_eq!((progress.downloaded_bytes, progress.fraction), (15 << 20, Some(0.5)));
        assert_eq!(read("Prepared 1 package in 581ms").unwrap().stage, Stage::Installing);
        assert_eq!(read("Installed 2 packages in 9ms").unwrap().stage, Stage::Compiling);
        assert_eq!(read(" + numpy==2.2.0"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn only_the_latest_state_is_kept() {
        let (sender, mut receiver) = ProgressSender::channel();
        sender.stage(Stage::Resolving, "a");
        sender.stage(Stage::Done, "b");
        assert_eq!(receiver.borrow_and_update().stage, Stage::Done);
        assert!(!receiver.has_changed().unwrap());
    }
}
