//! One pass over a trace that tells what is in it.
//!
//! Of each app up to [`SAMPLES_MAX`] service times and phases are kept, each as likely as any other, so that
//! memory does not grow with the trace. They are exact when there were no more.

use std::time::Duration;

use glowplug_core::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::error::Error;
use super::{App, Record, Request, Start};

/// Lengths of one kind that are kept of one app.
pub const SAMPLES_MAX: usize = 1_024;

#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// In the order of their declaration.
    pub apps: Vec<AppSummary>,
    pub requests: u64,
    pub starts: u64,
    pub stops: u64,
    /// Arrival of the first and of the last request, since the trace's beginning. `None`: there is none.
    pub span: Option<(Timestamp, Timestamp)>,
}

#[derive(Clone, Debug)]
pub struct AppSummary {
    pub app: App,
    pub requests: u64,
    /// Arrival of its first and of its last request.
    pub span: Option<(Timestamp, Timestamp)>,
    pub service: Lengths,
    /// From arrival to the first runner, as it was recorded.
    pub waited: Lengths,
    pub starts: u64,
    pub failed_starts: u64,
    /// Of starts that became ready. Those that had everything cached have no pull.
    pub pulls: Lengths,
    pub setups: Lengths,
}

/// What is known about many lengths of time.
#[derive(Clone, Debug, Default)]
pub struct Lengths {
    count: u64,
    sum_secs: f64,
    max: Duration,
    kept: Vec<Duration>,
}

impl Summary {
    /// Reads to the end.
    pub fn of(records: impl IntoIterator<Item = Result<Record, Error>>) -> Result<Self, Error> {
        /// Of which lengths are kept when there are more; any number will do.
        const SEED: u64 = 0;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
        let mut summary = Self::default();
        for record in records {
            match record? {
                Record::App(app) => summary.apps.push(AppSummary::new(app)),
                Record::Request(request) => summary.request(&request, &mut random),
                Record::Start(start) => summary.start(&start, &mut random),
                Record::Stop(_) => summary.stops += 1,
            }
        }
        for app in &mut summary.apps {
            for lengths in [&mut app.service, &mut app.waited, &mut app.pulls, &mut app.setups] {
                lengths.sort();
            }
        }
        Ok(summary)
    }

    fn request(&mut self, request: &Request, random: &mut Xoshiro256PlusPlus) {
        self.requests += 1;
        self.span = Some((self.span.map_or(request.at, |span| span.0), request.at));
        let app = &mut self.apps[request.app as usize];
        app.requests += 1;
        app.span = Some((app.span.map_or(request.at, |span| span.0), request.at));
        if let Some(service) = request.service {
            app.service.add(service, random);
        }
        if let Some(waited) = request.waited {
            app.waited.add(waited, random);
        }
    }

    fn start(&mut self, start: &Start, random: &mut Xoshiro256PlusPlus) {
        self.starts += 1;
        let app = &mut self.apps[start.app as usize];
        app.starts += 1;
        if !start.ready {
            app.failed_starts += 1;
            return;
        }
        app.setups.add(start.setup, random);
        if let Some(pull) = start.pull {
            app.pulls.add(pull, random);
        }
    }
}

impl AppSummary {
    fn new(app: App) -> Self {
        Self {
            app,
            requests: 0,
            span: None,
            service: Lengths::default(),
            waited: Lengths::default(),
            starts: 0,
            failed_starts: 0,
            pulls: Lengths::default(),
            setups: Lengths::default(),
        }
    }
}

impl Lengths {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn mean(&self) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "a mean of up to 2^53 lengths")]
        let mean = self.sum_secs / self.count as f64;
        (self.count > 0).then(|| Duration::from_secs_f64(mean))
    }

    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.max)
    }

    /// What a share of them, from 0 to 1, does not exceed. `None`: there are none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let last = self.kept.len().checked_sub(1)?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among at most SAMPLES_MAX"
        )]
        let rank = (share.clamp(0.0, 1.0) * self.kept.len() as f64).ceil() as usize;
        Some(self.kept[rank.saturating_sub(1).min(last)])
    }

    /// Those that were kept, the shortest first.
    pub fn samples(&self) -> &[Duration] {
        &self.kept
    }

    /// Every one so far is kept with the same probability.
    fn add(&mut self, length: Duration, random: &mut Xoshiro256PlusPlus) {
        self.count += 1;
        self.sum_secs += length.as_secs_f64();
        self.max = self.max.max(length);
        if self.kept.len() < SAMPLES_MAX {
            self.kept.push(length);
            return;
        }
        let place = random.random_range(0..self.count);
        if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.kept.get_mut(place)) {
            *kept = length;
        }
    }

    fn sort(&mut self) {
        self.kept.sort_unstable();
    }
}
