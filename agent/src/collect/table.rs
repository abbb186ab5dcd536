//! The series table of a host: the sections' series, sorted, each once, and where each section's values go.
//!
//! Promise: the shared table is replaced only when the set of series really differs, so that a reader may compare
//! by pointer. Not here: which series there are.

use std::sync::Arc;

use tocsin_shared::labels::Labels;

use super::section::Slot;

/// The most series of one host: what a row on the wire may be wide. Sections said first have precedence.
pub(crate) const SERIES_MAX: usize = 20_000;

/// The sorted series, and for each slot in section order its place among them.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) series: Arc<[Labels]>,
    places: Vec<usize>,
}

impl Default for Table {
    fn default() -> Self {
        Self { series: Arc::from([]), places: Vec::new() }
    }
}

impl Table {
    /// Sorts the slots anew; whether the set of series differs from the one before.
    pub(crate) fn arrange<'a>(&mut self, slots: impl Iterator<Item = &'a Slot>) -> bool {
        let mut said: Vec<(&Labels, usize)> =
            slots.take(SERIES_MAX).enumerate().map(|(at, slot)| (&slot.labels, at)).collect();
        said.sort_unstable();
        self.places.clear();
        self.places.resize(said.len(), 0);
        let mut series: Vec<Labels> = Vec::with_capacity(said.len());
        for (labels, at) in said {
            if series.last() != Some(labels) {
                series.push(labels.clone());
            }
            self.places[at] = series.len() - 1;
        }
        let differs = *self.series != *series;
        if differs {
            self.series = series.into();
        }
        differs
    }

    /// Puts the slots' values in table order. Of a series said twice the later value stays.
    pub(crate) fn fill<'a>(&self, slots: impl Iterator<Item = &'a Slot>, values: &mut Vec<f64>) {
        values.resize(self.series.len(), f64::NAN);
        for (slot, &place) in slots.zip(&self.places) {
            values[place] = slot.value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(said: &[(&str, f64)]) -> Vec<Slot> {
        said.iter().map(|(name, value)| Slot { labels: Labels::series(name, &[]), value: *value }).collect()
    }

    #[test]
    fn series_are_sorted_once_each_and_the_table_is_kept_while_equal() {
        let mut table = Table::default();
        let mut values = Vec::new();
        let first = slots(&[("b", 1.0), ("a", 2.0), ("b", 3.0)]);
        assert!(table.arrange(first.iter()));
        table.fill(first.iter(), &mut values);
        assert_eq!(table.series.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(values, [2.0, 3.0]);
        let kept = Arc::clone(&table.series);

        let second = slots(&[("a", 4.0), ("b", 5.0)]);
        assert!(!table.arrange(second.iter()), "another order of the same series is the same table");
        table.fill(second.iter(), &mut values);
        assert!(Arc::ptr_eq(&kept, &table.series));
        assert_eq!(values, [4.0, 5.0]);

        assert!(table.arrange(slots(&[("a", 4.0)]).iter()));
    }

    #[test]
    fn a_table_is_bounded_and_the_first_said_stay() {
        let names: Vec<String> = (0..SERIES_MAX + 5).map(|n| format!("m{:05}", SERIES_MAX + 5 - n)).collect();
        let said: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        let (slots, mut table, mut values) = (slots(&said), Table::default(), Vec::new());
        assert!(table.arrange(slots.iter()));
        table.fill(slots.iter(), &mut values);
        assert_eq!((table.series.len(), values.len()), (SERIES_MAX, SERIES_MAX));
        assert_eq!(table.series[0].metric(), "m00006", "the last said are left out");
    }
}
