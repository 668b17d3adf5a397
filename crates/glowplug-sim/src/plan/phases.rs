//! Models of how long things take, learnt from what was recorded.

use std::time::Duration;

use super::Error;
use super::result::Source;
use super::traffic::TracedApp;
use crate::model::Model;

/// Recorded times from which on an app is simulated with these very times.
const OWN_MIN: usize = 20;
/// Recorded times from which on a lognormal is fitted to them.
const FIT_MIN: usize = 5;
/// Times kept of one phase of one app; of more, every second, fourth … is kept.
const SAMPLES_MAX: usize = 4_096;

/// Times of one phase, thinned evenly when they are many.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    kept: Vec<Duration>,
    seen: u64,
    /// One of 2 to this power is kept.
    halvings: u32,
}

impl Samples {
    pub(super) fn add(&mut self, time: Duration) {
        let due = self.seen.trailing_zeros() >= self.halvings;
        self.seen += 1;
        if !due {
            return;
        }
        if self.kept.len() == SAMPLES_MAX {
            let mut position = 0;
            self.kept.retain(|_| {
                position += 1;
                position % 2 == 1
            });
            self.halvings += 1;
        }
        self.kept.push(time);
    }

    fn own(&self) -> Option<(Model, Source)> {
        if self.kept.len() >= OWN_MIN {
            return Some((Model::Empirical(self.kept.as_slice().into()), Source::Own));
        }
        (self.kept.len() >= FIT_MIN).then(|| (Model::fit_lognormal(&self.kept), Source::OwnFitted))
    }
}

/// The models of one phase for every app.
pub(super) struct Phase<'a> {
    given: Option<&'a Model>,
    pooled: Option<Model>,
    of: fn(&TracedApp) -> &Samples,
}

impl<'a> Phase<'a> {
    /// What the user gives is taken for every app: it is the question "what if".
    pub(super) fn new(
        apps: &[TracedApp],
        of: fn(&TracedApp) -> &Samples,
        given: Option<&'a Model>,
    ) -> Self {
        let all: Vec<Duration> = apps.iter().flat_map(|app| of(app).kept.iter().copied()).collect();
        let pooled = (!all.is_empty()).then(|| Model::fit_lognormal(&all));
        Self { given, pooled, of }
    }

    /// `None`: nothing is known for any app.
    pub(super) fn model(&self, app: &TracedApp) -> Option<(Model, Source)> {
        self.given
            .map(|given| (given.clone(), Source::Given))
            .or_else(|| (self.of)(app).own())
            .or_else(|| Some((self.pooled.clone()?, Source::Pooled)))
    }
}

pub(super) fn setup(
    apps: &[TracedApp],
    given: Option<&Model>,
) -> Result<Vec<(Model, Source)>, Error> {
    let phase = Phase::new(apps, |app| &app.setup, given);
    apps.iter().map(|app| phase.model(app).ok_or(Error::NoSetup)).collect()
}

/// Service times of requests that do not bring their own.
pub(super) fn service(
    apps: &[TracedApp],
    given: Option<&Model>,
) -> Result<Vec<(Model, Source)>, Error> {
    let phase = Phase::new(apps, |app| &app.service, given);
    apps.iter().map(|app| phase.model(app).ok_or(Error::NoService)).collect()
}

/// `None`: what the app needs was always cached.
pub(super) fn pull(app: &TracedApp) -> Option<Model> {
    match app.pull.kept.as_slice() {
        [] => None,
        few if few.len() < OWN_MIN => Some(Model::fit_lognormal(few)),
        enough => Some(Model::Empirical(enough.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_samples_are_thinned_evenly() {
        let mut samples = Samples::default();
        for n in 0..20_000 {
            samples.add(Duration::from_micros(n));
        }
        assert!((2_048..=4_096).contains(&samples.kept.len()), "{}", samples.kept.len());
        let steps: Vec<u128> =
            samples.kept.windows(2).map(|pair| pair[1].abs_diff(pair[0]).as_micros()).collect();
        assert!(steps.iter().all(|step| *step == 8), "{steps:?}");
    }

    #[test]
    fn the_more_is_recorded_the_less_is_assumed() {
        let samples = |count: u64| {
            let mut samples = Samples::default();
            (0..count).for_each(|_| samples.add(Duration::from_secs(3)));
            samples
        };
        assert!(samples(4).own().is_none());
        let (model, source) = samples(5).own().unwrap();
        assert_eq!(source, Source::OwnFitted);
        assert_eq!(model.quantile(0.5).as_millis(), 3_000);
        assert_eq!(samples(20).own().unwrap().1, Source::Own);
    }
}
