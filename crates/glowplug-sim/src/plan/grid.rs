//! Which settings a sweep tries.

use std::time::Duration;

use super::setting::{Fixed, Setting};

/// Results of one sweep: settings × apps. 64 bytes each.
pub(super) const CELLS_MAX: usize = 20_000_000;

/// From nothing to two hours, each step a third to twice as long as the one before.
const KEEP_ALIVE_SECS: [u64; 17] =
    [0, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1_800, 3_600, 7_200];
/// Delays that let a short burst pass without a start.
const SCALING_DELAY_SECS: [u64; 3] = [0, 2, 15];
const BUFFERS: [u32; 3] = [0, 1, 2];
const BUFFERS_PERC: [u32; 4] = [0, 25, 50, 100];

/// How many settings are tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Grid {
    /// 58: the whole ladder of `keep_alive`, the other parameters at a few of its steps.
    #[default]
    Sensible,
    /// Every combination of buffers, delays and floors at each step of the ladder: 1,224.
    Thorough,
    /// These.
    Only(Vec<Fixed>),
}

impl Grid {
    pub(super) fn settings(&self) -> Vec<Setting> {
        let fixed = match self {
            Self::Sensible => sensible(),
            Self::Thorough => thorough(),
            Self::Only(fixed) => fixed.clone(),
        };
        fixed.into_iter().map(Setting::Fixed).collect()
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
        for (grid, expected) in [(Grid::Sensible, 58), (Grid::Thorough, 1_224)] {
            let settings = grid.settings();
            assert_eq!(settings.len(), expected);
            for (at, setting) in settings.iter().enumerate() {
                assert!(!settings[..at].contains(setting), "{setting} is there twice");
            }
        }
    }
}
