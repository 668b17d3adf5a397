//! How many runners an app should have: fal's parameters as one formula.
//!
//! ```text
//! volume  = requests in flight + requests that waited at least scaling_delay
//! demand  = ⌈volume / max_multiplexing⌉
//! buffer  = max(concurrency_buffer, ⌈concurrency_buffer_perc/100 × volume / max_multiplexing⌉)
//! desired = min(max_concurrency, RUNNERS_MAX, max(min_concurrency, demand + buffer))
//! ```
//!
//! fal publishes the parameters and worked charts but no formula; this one agrees with all of them. The
//! percentage is of requests, so it is divided by the multiplexing to become runners.

use crate::spec::Scaling;
use crate::spec::limits::RUNNERS_MAX;

/// What an app has to do right now, in requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub in_flight: u32,
    /// Waiting, and counted: see [`Scaling::scaling_delay`].
    pub waiting: u32,
}

/// The parameter that set the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Demand alone (no buffer asked for).
    Demand,
    /// Demand and the buffer above it.
    Buffer,
    /// `min_concurrency`.
    Floor,
    /// `max_concurrency`, or the limit on runners of one app.
    Cap,
}

/// The formula's result, with its steps, in runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// In requests.
    pub volume: u32,
    pub demand: u32,
    pub buffer: u32,
    pub desired: u32,
    pub bound: Bound,
}

pub fn target(scaling: &Scaling, load: Load) -> Target {
    let volume = load.in_flight.saturating_add(load.waiting);
    let multiplexing = scaling.max_multiplexing.max(1);
    let demand = volume.div_ceil(multiplexing);
    let buffer_perc = match scaling.concurrency_buffer_perc {
        0 => 0,
        perc => (u64::from(perc) * u64::from(volume)).div_ceil(100 * u64::from(multiplexing)),
    };
    let buffer = scaling.concurrency_buffer.max(u32::try_from(buffer_perc).unwrap_or(u32::MAX));
    let wanted = demand.saturating_add(buffer);
    let (unbounded, bound) = if scaling.min_concurrency > wanted {
        (scaling.min_concurrency, Bound::Floor)
    } else if buffer > 0 {
        (wanted, Bound::Buffer)
    } else {
        (wanted, Bound::Demand)
    };
    let cap = scaling.max_concurrency.unwrap_or(RUNNERS_MAX).min(RUNNERS_MAX);
    let (desired, bound) = if unbounded > cap { (cap, Bound::Cap) } else { (unbounded, bound) };
    Target { volume, demand, buffer, desired, bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(min: u32, buffer: u32, perc: u32, mux: u32, max: Option<u32>, volume: u32) -> u32 {
        let scaling = Scaling {
            min_concurrency: min,
            concurrency_buffer: buffer,
            concurrency_buffer_perc: perc,
            max_multiplexing: mux,
            max_concurrency: max,
            ..Scaling::default()
        };
        target(&scaling, Load { in_flight: volume, waiting: 0 }).desired
    }

    /// The worked table: the parameter sets of fal's scaling charts.
    #[test]
    fn worked_table() {
        for (min, buffer, perc, mux, max, cells) in [
            (1, 1, 0, 1, Some(10), &[(0, 1), (4, 5)][..]),
            (3, 2, 0, 1, Some(10), &[(0, 3), (1, 3), (5, 7), (12, 10)]),
            (
                0,
                2,
                0,
                4,
                Some(6),
                &[(0, 2), (1, 3), (4, 3), (5, 4), (8, 4), (9, 5), (12, 5), (13, 6), (99, 6)],
            ),
            (0, 2, 20, 1, None, &[(5, 7), (20, 24)]),
            (0, 0, 20, 1, None, &[(0, 0)]),
        ] {
            for (volume, expected) in cells {
                assert_eq!(
                    desired(min, buffer, perc, mux, max, *volume),
                    *expected,
                    "min {min} buffer {buffer} perc {perc} mux {mux} max {max:?} volume {volume}"
                );
            }
        }
    }

    #[test]
    fn the_percentage_is_of_requests() {
        // 40 requests on 10 runners; half of the requests again is 20 requests, so 5 runners.
        assert_eq!(desired(0, 0, 50, 4, None, 40), 15);
    }

    #[test]
    fn the_bound_names_the_parameter_that_decided() {
        let check = |scaling: Scaling, volume, expected| {
            let load = Load { in_flight: 0, waiting: volume };
            assert_eq!(target(&scaling, load).bound, expected);
        };
        let base = Scaling::default;
        check(base(), 3, Bound::Demand);
        check(Scaling { min_concurrency: 4, ..base() }, 3, Bound::Floor);
        check(Scaling { concurrency_buffer: 2, ..base() }, 3, Bound::Buffer);
        check(Scaling { max_concurrency: Some(2), ..base() }, 3, Bound::Cap);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let scaling = Scaling {
            concurrency_buffer_perc: 10_000,
            concurrency_buffer: u32::MAX,
            ..Scaling::default()
        };
        let load = Load { in_flight: u32::MAX, waiting: u32::MAX };
        assert_eq!(target(&scaling, load).desired, RUNNERS_MAX);
    }
}
