//! Label sets and their texts kept once: a thousand hosts send the same series of the same metrics, devices and modes.
//!
//! Each agent's table comes with sets and texts of its own. Shared between all hosts they take next to no memory, and
//! are compared by address. Nothing here keeps what nobody else uses any more, beyond the next clearing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tocsin_shared::labels::Labels;

/// Texts, or sets, before unused ones are looked for; afterwards twice those in use.
const CLEARED_FROM: usize = 8_192;

/// The sets and texts in use.
#[derive(Debug, Default)]
pub(crate) struct Texts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sets: HashSet<Labels>,
    clear_sets_at: usize,
    texts: HashSet<Arc<str>>,
    clear_at: usize,
}

impl Texts {
    /// The same label sets, shared, as their texts are, with all the others that went through here.
    pub(crate) fn share(&self, table: &[Labels]) -> Arc<[Labels]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().map(|labels| known.set(labels)).collect()
    }
}

impl Known {
    fn set(&mut self, labels: &Labels) -> Labels {
        if let Some(known) = self.sets.get(labels) {
            return known.clone();
        }
        if self.sets.len() >= self.clear_sets_at.max(CLEARED_FROM) {
            self.sets.retain(|labels| labels.holders() > 1);
            self.clear_sets_at = 2 * self.sets.len();
        }
        let pairs = labels.pairs().iter().map(|(name, value)| (self.one(name), self.one(value)));
        let shared = Labels::new(pairs.collect::<Vec<_>>());
        self.sets.insert(shared.clone());
        shared
    }

    fn one(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() >= self.clear_at.max(CLEARED_FROM) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.clear_at = 2 * self.texts.len();
        }
        self.texts.insert(Arc::clone(text));
        Arc::clone(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_become_one_and_unused_ones_go() {
        let texts = Texts::default();
        let table = || [Labels::series("up", &[("job", "node")]), Labels::series("load", &[("job", "node")])];
        let (first, second) = (texts.share(&table()), texts.share(&table()));
        assert_eq!(*first, table());
        for (a, b) in first.iter().zip(second.iter()) {
            assert!(std::ptr::eq(a.pairs(), b.pairs()), "{a}");
        }
        let job = |labels: &Labels| Arc::clone(&labels.pairs()[1].1);
        assert!(Arc::ptr_eq(&job(&first[0]), &job(&first[1])), "texts are shared between sets");
        for number in 0..3 * CLEARED_FROM {
            texts.share(&[Labels::series("up", &[("n", &number.to_string())])]);
        }
        let known = texts.0.lock().unwrap();
        assert!(known.texts.len() <= 2 * CLEARED_FROM, "{} texts", known.texts.len());
        assert!(known.sets.len() <= CLEARED_FROM, "{} sets", known.sets.len());
        assert!(["job", "node", "load"].iter().all(|text| known.texts.contains(*text)), "texts in use stay");
    }
}
