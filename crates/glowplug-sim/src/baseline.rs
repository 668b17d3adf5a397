//! What is shown beside our own engine, on the same traffic.
//!
//! | module | holds |
//! | --- | --- |
//! | `kpa` | Knative's autoscaler: another policy |
//! | `clairvoyant` | what nobody does better who must serve each request as it comes: a bound |

pub mod clairvoyant;
pub mod kpa;

use glowplug_core::Timestamp;

use crate::simulation::Failure;
use crate::traffic::Arrival;

/// The traffic, as long as it comes in order of time and for apps that are known.
fn in_order<E: std::error::Error + 'static>(
    apps: usize,
    traffic: impl Iterator<Item = Result<Arrival, E>>,
) -> impl Iterator<Item = Result<Arrival, Failure<E>>> {
    let mut before = Timestamp::ZERO;
    (1..).zip(traffic).map(move |(number, arrival)| {
        let arrival = arrival.map_err(Failure::Traffic)?;
        let Arrival { at, app, .. } = arrival;
        if at < before {
            return Err(Failure::Unordered { number, at, before });
        }
        if app as usize >= apps {
            return Err(Failure::UnknownApp { number, app, apps });
        }
        before = at;
        Ok(arrival)
    })
}
