//! Label texts kept once: a thousand hosts name the same metrics, devices and modes.
//!
//! Each agent's table comes with texts of its own. Shared between all hosts they take a third of the memory, and label
//! sets are compared by address. Nothing here keeps a text that nobody else uses any more, beyond the next clearing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tocsin_shared::labels::Labels;

/// Texts before unused ones are looked for; afterwards twice those in use.
const CLEARED_FROM: usize = 8_192;

/// The texts in use.
#[derive(Debug, Default)]
pub(crate) struct Texts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    texts: HashSet<Arc<str>>,
    clear_at: usize,
}

impl Texts {
    /// The same label sets, of texts that are shared with all the others that went through here.
    pub(crate) fn share(&self, table: &[Labels]) -> Arc<[Labels]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = |labels: &Labels| {
            Labels::new(labels.pairs().iter().map(|(name, value)| (known.one(name), known.one(value))))
        };
        table.iter().map(share).collect()
    }
}

impl Known {
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
            let same = a
                .pairs()
                .iter()
                .zip(b.pairs())
                .all(|(a, b)| Arc::ptr_eq(&a.0, &b.0) && Arc::ptr_eq(&a.1, &b.1));
            assert!(same, "{a}");
        }
        for number in 0..3 * CLEARED_FROM {
            texts.share(&[Labels::series("up", &[("n", &number.to_string())])]);
        }
        let known = texts.0.lock().unwrap();
        assert!(known.texts.len() <= CLEARED_FROM, "{} texts", known.texts.len());
        assert!(["job", "node", "load"].iter().all(|text| known.texts.contains(*text)), "texts in use stay");
    }
}
