//! Which settings a sweep tries.

use std::time::Duration;

use glowplug_core::auto;

use super::options::Budget;
use super::result::WaitMeasure;
use super::setting::{Auto, Fixed, Setting, WaitBudget};

/// Results of one sweep: settings × apps. 64 bytes each.
pub(super) const CELLS_MAX: usize = 20_000_000;

/// From nothing to two hours, each step a third to twice as long as the one before.
const KEEP_ALIVE_SECS: [u64; 17] =
    [0, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1_800, 3_600, 7_200];
/// Delays that let a short burst pass without a start.
const SCALING_DELAY_SECS: [u64; 3] = [0, 2, 15];
const BUFFERS: [u32; 3] = [0, 1, 2];
const BUFFERS_PERC: [u32; 4] = [0, 25, 50, 100];
/// Runner-seconds for a second of waiting: the three intents, and one beyond them on either side.
const WAIT_PRICES: [f64; 5] = [
    2.0,
    auto::Settings::COST_SENSITIVE,
    auto::Settings::BALANCED,
    auto::Settings::LATENCY_CRITICAL,
    60.0,
];

/// How many settings are tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Grid {
    /// 63: the whole ladder of `keep_alive`, the other parameters at a few of its steps, and the automatic
    /// policy at five prices of waiting.
    #[default]
    Sensible,
    /// 1,229: every combination of buffers, delays and floors at each step of the ladder, and the automatic
    /// policy.
    Thorough,
    /// These.
    Only(Vec<Setting>),
}

impl Grid {
    /// A budget that the automatic policy can be given is tried too.
    pub(super) fn settings(&self, budget: &Budget) -> Vec<Setting> {
        let fixed = match self {
            Self::Sensible => sensible(),
            Self::Thorough => thorough(),
            Self::Only(settings) => return settings.clone(),
        };
        let prices = WAIT_PRICES.map(|wait_price| Auto { wait_price, budget: None });
        let percent = |measure| match measure {
            WaitMeasure::Mean => None,
            WaitMeasure::P50 => Some(50.0),
            WaitMeasure::P95 => Some(5.0),
            WaitMeasure::P99 | WaitMeasure::OverBudget => Some(1.0),
        };
        let stated = budget.wait.and_then(|(measure, wait)| {
            let budget = Some(WaitBudget { wait, percent: percent(measure)? });
            Some(Auto { budget, ..Auto::default() })
        });
        let fixed = fixed.into_iter().map(Setting::Fixed);
        fixed.chain(prices.into_iter().chain(stated).map(Setting::Auto)).collect()
    }
}

fn sensible() -> Vec<Fixed> {
    let alone = Fixed::default();
    let mut fixed = Vec::new();
    let mut add = |keep_alives: &[u64], like: Fixed| {
        fixed.extend(
            keep_alives.iter().map(|secs| Fixed { keep_alive: Duration::from_secs(*secs), ..like }),
        );
    };
    add(&KEEP_ALIVE_SECS, alone);
    add(&[10, 60, 300, 900, 1_800, 3_600], Fixed { concurrency_buffer: 1, ..alone });
    add(&[60, 300, 1_800], Fixed { concurrency_buffer: 2, ..alone });
    for concurrency_buffer_perc in [25, 50, 100] {
        add(&[10, 60, 180, 600, 1_800], Fixed { concurrency_buffer_perc, ..alone });
    }
    for secs in [2, 15] {
        let scaling_delay = Duration::from_secs(secs);
        add(&[10, 60, 180, 600], Fixed { scaling_delay, ..alone });
    }
    add(&[10, 60, 300, 900, 1_800, 3_600], Fixed { min_concurrency: 1, ..alone });
    let floor_and_buffer = Fixed { min_concurrency: 1, concurrency_buffer_perc: 50, ..alone };
    add(&[60, 300, 1_800], floor_and_buffer);
    fixed
}

fn thorough() -> Vec<Fixed> {
    let mut fixed = Vec::new();
    for min_concurrency in [0, 1] {
        for concurrency_buffer in BUFFERS {
            for concurrency_buffer_perc in BUFFERS_PERC {
                for delay_secs in SCALING_DELAY_SECS {
                    fixed.extend(KEEP_ALIVE_SECS.map(|secs| Fixed {
                        keep_alive: Duration::from_secs(secs),
                        min_concurrency,
                        concurrency_buffer,
                        concurrency_buffer_perc,
                        scaling_delay: Duration::from_secs(delay_secs),
                    }));
                }
            }
        }
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_have_no_setting_twice() {
        for (grid, expected) in [(Grid::Sensible, 63), (Grid::Thorough, 1_229)] {
            let settings = grid.settings(&Budget::default());
            assert_eq!(settings.len(), expected);
            for (at, setting) in settings.iter().enumerate() {
                assert!(!settings[..at].contains(setting), "{setting} is there twice");
            }
        }
    }

    #[test]
    fn a_stated_budget_is_tried_if_the_policy_can_keep_it() {
        let stated = |measure| {
            let wait = Some((measure, Duration::from_secs(2)));
            Grid::Sensible.settings(&Budget { wait, cost_per_day: None }).len()
        };
        assert_eq!(stated(WaitMeasure::P95), 64);
        assert_eq!(stated(WaitMeasure::Mean), 63);
    }
}
