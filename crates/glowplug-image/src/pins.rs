//! Who relies on what, so that nothing is collected that somebody is about to use.
//!
//! A collection first looks at what there is, and later removes what nobody had. In between somebody may have
//! finished, and given its pins back: so everything that was pinned at any moment since the collection began
//! counts as pinned until it has ended.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct PinTable<K> {
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// How many rely on each.
    counts: HashMap<K, u32>,
    /// What was pinned since the collection began that goes on now, if one does.
    since: Option<HashSet<K>>,
}

/// A collection that goes on. At most one at a time for each table.
#[derive(Debug)]
pub(crate) struct Collection<'t, K: Clone + Eq + Hash>(&'t PinTable<K>);

impl<K> Default for PinTable<K> {
    fn default() -> Self {
        Self { state: Mutex::new(State { counts: HashMap::new(), since: None }) }
    }
}

impl<K: Clone + Eq + Hash> PinTable<K> {
    pub(crate) fn pin(&self, key: &K) {
        let mut state = self.state();
        *state.counts.entry(key.clone()).or_default() += 1;
        if let Some(since) = &mut state.since {
            since.insert(key.clone());
        }
    }

    pub(crate) fn unpin(&self, key: &K) {
        let mut state = self.state();
        if let Some(count) = state.counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                state.counts.remove(key);
            }
        }
    }

    /// Begins a collection: what it removes must be looked up after this.
    pub(crate) fn collect(&self) -> Collection<'_, K> {
        let mut state = self.state();
        state.since = Some(state.counts.keys().cloned().collect());
        Collection(self)
    }

    /// Does `remove` unless somebody relies on it. Whoever pins it later finds it gone.
    pub(crate) fn unless_pinned<T>(&self, key: &K, remove: impl FnOnce() -> T) -> Option<T> {
        let state = self.state();
        let was_pinned = state.since.as_ref().is_some_and(|since| since.contains(key));
        (!was_pinned && !state.counts.contains_key(key)).then(remove)
    }

    /// What is done under this lock does not panic.
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Drop for Collection<'_, K> {
    fn drop(&mut self) {
        self.0.state().since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can_go(table: &PinTable<u8>, key: u8) -> bool {
        table.unless_pinned(&key, || ()).is_some()
    }

    #[test]
    fn what_two_rely_on_stays_until_both_are_done() {
        let table = PinTable::default();
        table.pin(&1);
        table.pin(&1);
        table.unpin(&1);
        assert!(!can_go(&table, 1));
        table.unpin(&1);
        assert!(can_go(&table, 1));
    }

    #[test]
    fn what_was_pinned_during_a_collection_outlives_it() {
        let table = PinTable::default();
        table.pin(&1);
        let collection = table.collect();
        table.pin(&2);
        for key in [1, 2] {
            table.unpin(&key);
            assert!(!can_go(&table, key));
        }
        assert!(can_go(&table, 3));
        drop(collection);
        assert!(can_go(&table, 1) && can_go(&table, 2));
    }
}
