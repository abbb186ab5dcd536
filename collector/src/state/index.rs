//! Sets by key that vanish when they are empty, so that equal contents are equal values.

use std::collections::{BTreeMap, BTreeSet};

/// Groups: which values stand under a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index<K: Ord, V: Ord>(BTreeMap<K, BTreeSet<V>>);

impl<K: Ord, V: Ord> Default for Index<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Ord> Index<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.entry(key).or_default().insert(value);
    }

    pub(crate) fn remove(&mut self, key: &K, value: &V) {
        if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(crate) fn get<'a>(&'a self, key: &K) -> impl DoubleEndedIterator<Item = &'a V> + use<'a, K, V> {
        self.0.get(key).into_iter().flatten()
    }

    pub(crate) fn count(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &BTreeSet<V>)> {
        self.0.iter()
    }
}
