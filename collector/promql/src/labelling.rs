//! What makes two label sets the same: `by`, `without`, `on` and `ignoring` are all a filter over label names.
//!
//! `Index` numbers the distinct filtered sets without building them: comparing and hashing in place costs no memory.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tocsin_shared::labels::{Labels, METRIC_NAME};

/// Which labels count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// `by`, `on`.
    Only(Box<[Box<str>]>),
    /// `without`, `ignoring`: never the metric name.
    AllBut(Box<[Box<str>]>),
}

impl Filter {
    pub(crate) fn keeps(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.iter().any(|n| **n == *name),
            Self::AllBut(names) => name != METRIC_NAME && !names.iter().any(|n| **n == *name),
        }
    }

    /// The labels that count, as a set of their own.
    pub(crate) fn project(&self, labels: &Labels) -> Labels {
        labels.without(|name| !self.keeps(name))
    }

    fn kept<'a>(&self, labels: &'a Labels) -> Kept<'a> {
        labels.pairs().iter().filter(|(name, _)| self.keeps(name)).collect()
    }
}

/// The labels of a set that count, in its order.
type Kept<'a> = Vec<&'a (Arc<str>, Arc<str>)>;

fn same(a: &Kept<'_>, b: &Kept<'_>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(&x.0, &y.0) && equal(&x.1, &y.1))
}

fn hash(kept: &Kept<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    kept.iter().for_each(|pair| pair.hash(&mut hasher));
    hasher.finish()
}

/// Series of one source share their texts, so most comparisons end at the pointer.
fn equal(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || **a == **b
}

/// Up to so many distinct sets a scan is faster than hashing; one host's rules rarely pass it.
const SCAN_UP_TO: usize = 8;

/// Numbers distinct label sets, as a filter sees them, from 0 in the order of first sight.
pub(crate) struct Index<'a> {
    filter: &'a Filter,
    sets: Vec<(&'a Labels, Kept<'a>)>,
    by_hash: Option<HashMap<u64, Vec<usize>>>,
}

impl<'a> Index<'a> {
    pub(crate) fn new(filter: &'a Filter) -> Self {
        Self { filter, sets: Vec::new(), by_hash: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(crate) fn find(&self, labels: &Labels) -> Option<usize> {
        self.place(&self.filter.kept(labels))
    }

    fn place(&self, kept: &Kept<'_>) -> Option<usize> {
        let is_it = |at: &usize| same(&self.sets[*at].1, kept);
        match &self.by_hash {
            None => (0..self.sets.len()).find(is_it),
            Some(table) => table.get(&hash(kept))?.iter().copied().find(is_it),
        }
    }

    pub(crate) fn find_or_add(&mut self, labels: &'a Labels) -> usize {
        let kept = self.filter.kept(labels);
        if let Some(at) = self.place(&kept) {
            return at;
        }
        self.sets.push((labels, kept));
        let table = match &mut self.by_hash {
            None if self.sets.len() <= SCAN_UP_TO => return self.sets.len() - 1,
            table => table.get_or_insert_default(),
        };
        // All of them when the table is new, else the last one.
        let hashed = if table.is_empty() { 0 } else { self.sets.len() - 1 };
        for at in hashed..self.sets.len() {
            table.entry(hash(&self.sets[at].1)).or_default().push(at);
        }
        self.sets.len() - 1
    }

    /// The filtered label sets in the order of their numbers.
    pub(crate) fn into_labels(self) -> Vec<Labels> {
        self.sets.iter().map(|(labels, _)| self.filter.project(labels)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_numbers_sets_the_same_whether_it_scans_or_hashes() {
        let filters = [
            (Filter::Only(["a".into()].into()), vec![0, 0, 1, 2]),
            (Filter::AllBut(["b".into()].into()), vec![0, 0, 1, 2]),
            (Filter::AllBut([].into()), vec![0, 1, 2, 3]),
            (Filter::Only([].into()), vec![0, 0, 0, 0]),
        ];
        let sets = [
            Labels::series("x", &[("a", "1"), ("b", "1")]),
            Labels::series("y", &[("a", "1"), ("b", "2")]),
            Labels::series("x", &[("a", "2")]),
            Labels::series("x", &[("b", "2")]),
        ];
        for (filter, expected) in filters {
            let mut index = Index::new(&filter);
            let numbers: Vec<_> = sets.iter().map(|set| index.find_or_add(set)).collect();
            assert_eq!(numbers, expected, "{filter:?}");
            let more: Vec<_> =
                (0..100).map(|n| Labels::series("z", &[("a", &format!("z{}", n % 50))])).collect();
            let known = index.len();
            more.iter().for_each(|set| _ = index.find_or_add(set));
            assert_eq!(index.len() - known, if filter.keeps("a") { 50 } else { 0 }, "{filter:?}");
            let again: Vec<_> = sets.iter().map(|set| index.find(set).unwrap()).collect();
            assert_eq!(again, expected, "{filter:?} after a hundred more");
        }
    }
}
