//! What is known of the hosts that were called: whether they hold up a place for long.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A call that took this long or longer is slow, whatever came of it.
pub(super) const SLOW: Duration = Duration::from_secs(5);
/// Hosts of which is known how their last call went. Beyond it the one whose last call is the longest ago
/// is forgotten.
const HOSTS_KNOWN_MAX: usize = 4_096;
/// A name in the DNS has no more. What is longer is never resolved, and not remembered either.
const NAME_BYTES_MAX: usize = 253;

/// How the last call of a host went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Quick,
    /// There was none, or it was long ago.
    Unknown,
    Slow,
}

impl Standing {
    pub(super) const ALL: [Self; 3] = [Self::Quick, Self::Unknown, Self::Slow];

    /// After a call that took this long.
    pub(super) fn after(took: Duration) -> Self {
        if took < SLOW { Self::Quick } else { Self::Slow }
    }
}

/// A value for each standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByStanding<T>(pub(super) [T; Standing::ALL.len()]);

impl<T> ByStanding<T> {
    pub(super) fn of(&self, standing: Standing) -> &T {
        &self.0[standing as usize]
    }

    pub(super) fn of_mut(&mut self, standing: Standing) -> &mut T {
        &mut self.0[standing as usize]
    }
}

#[derive(Debug, Default)]
pub(super) struct Known {
    /// With the number of the last call.
    hosts: HashMap<String, (u64, Standing)>,
    by_call: BTreeMap<u64, String>,
    calls: u64,
}

impl Known {
    pub(super) fn of(&self, host: &str) -> Standing {
        self.hosts.get(host).map_or(Standing::Unknown, |(_, standing)| *standing)
    }

    pub(super) fn note(&mut self, host: &str, standing: Standing) {
        if host.len() > NAME_BYTES_MAX {
            return;
        }
        self.calls += 1;
        if let Some((earlier, _)) = self.hosts.insert(host.to_owned(), (self.calls, standing)) {
            self.by_call.remove(&earlier);
        }
        self.by_call.insert(self.calls, host.to_owned());
        if self.hosts.len() > HOSTS_KNOWN_MAX
            && let Some((_, oldest)) = self.by_call.pop_first()
        {
            self.hosts.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_counts_and_the_oldest_is_forgotten() {
        let mut known = Known::default();
        assert_eq!(known.of("a"), Standing::Unknown);
        known.note("a", Standing::Slow);
        known.note("b", Standing::Slow);
        known.note("a", Standing::Quick);
        assert_eq!((known.of("a"), known.of("b")), (Standing::Quick, Standing::Slow));
        for number in 0..HOSTS_KNOWN_MAX - 1 {
            known.note(&number.to_string(), Standing::Quick);
        }
        assert_eq!((known.of("a"), known.of("b")), (Standing::Quick, Standing::Unknown));
        known.note(&"x".repeat(NAME_BYTES_MAX + 1), Standing::Slow);
        assert_eq!((known.hosts.len(), known.by_call.len()), (HOSTS_KNOWN_MAX, HOSTS_KNOWN_MAX));
    }
}
