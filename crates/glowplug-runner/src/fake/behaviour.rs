//! What fake runners do, and the randomness they do it with.

use std::time::Duration;

use glowplug_core::RunnerId;

/// How the runners of one app behave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FakeBehaviour {
    pub setup: SetupTime,
    /// Probability, 0 to 1, that a start ends with code 1 after its setup.
    pub start_failure: f64,
    /// Ends with this code as soon as it has started.
    pub exit_at_once: Option<i32>,
    /// Sets up for ever.
    pub never_ready: bool,
    /// So many of the first answers to the health path are 500.
    pub unhealthy_answers: u32,
    /// Probability, 0 to 1, that a request ends the runner with code 3 instead of being answered.
    pub crash_per_request: f64,
    pub stop: FakeStop,
    /// Written to the log at the start.
    pub says: Vec<String>,
}

/// How long a start takes before the runner listens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SetupTime {
    Fixed(Duration),
    Uniform {
        from: Duration,
        to: Duration,
    },
    /// Log-normal, as real setups are: now and then much longer than usual.
    LogNormal {
        median: Duration,
        sigma: f64,
    },
}

impl Default for SetupTime {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl SetupTime {
    /// The longest setup that is ever drawn.
    pub const MAX: Duration = Duration::from_hours(1);

    pub(super) fn draw(self, random: &mut Random) -> Duration {
        let drawn = match self {
            Self::Fixed(span) => span,
            Self::Uniform { from, to } => {
                from + to.saturating_sub(from).mul_f64(random.next_fraction())
            }
            Self::LogNormal { median, sigma } => {
                let factor = (sigma * random.next_normal()).exp();
                median.mul_f64(factor.min(Self::MAX.as_secs_f64() / median.as_secs_f64().max(1e-6)))
            }
        };
        drawn.min(Self::MAX)
    }
}

/// What a runner does when it is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FakeStop {
    /// Ends at once, as a program that does not handle SIGTERM.
    #[default]
    Prompt,
    /// Ends with code 0 after this long.
    After(Duration),
    /// Only a kill ends it.
    Ignored,
}

/// SplitMix64: small, and the same on every platform and in every release.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A sequence of its own for each runner, so that the order of starts does not matter.
    pub(super) fn for_runner(seed: u64, id: RunnerId) -> Self {
        let id = (u64::from(id.boot) << 32) | u64::from(id.sequence);
        Self(seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    pub(super) fn next_fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn next_normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.next_fraction()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.next_fraction()).cos()
    }

    pub(super) fn happens(&mut self, probability: f64) -> bool {
        self.next_fraction() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(setup: SetupTime) -> Vec<Duration> {
        let mut random = Random::for_runner(42, RunnerId { boot: 1, sequence: 1 });
        (0..2_000).map(|_| setup.draw(&mut random)).collect()
    }

    #[test]
    fn setups_are_drawn_as_said_and_the_same_each_time() {
        let (from, to) = (Duration::from_millis(10), Duration::from_millis(20));
        let uniform = draws(SetupTime::Uniform { from, to });
        assert!(uniform.iter().all(|span| (from..to).contains(span)));
        let median = Duration::from_millis(100);
        let normal = SetupTime::LogNormal { median, sigma: 0.5 };
        let mut spans = draws(normal);
        assert_eq!(spans, draws(normal));
        spans.sort_unstable();
        let middle = spans[spans.len() / 2].as_secs_f64() / median.as_secs_f64();
        assert!((0.9..1.1).contains(&middle), "{middle}");
        assert!(spans[spans.len() - 1] > median * 2);
    }

    #[test]
    fn probabilities_hold() {
        let mut random = Random::for_runner(1, RunnerId { boot: 1, sequence: 2 });
        let hits = (0..10_000).filter(|_| random.happens(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.happens(0.0) && random.happens(1.0));
    }
}
