//! What metrics are, as whoever sends them says: kind, help, unit by metric.
//!
//! In memory and bounded: senders repeat it, and nobody is paged by it. Agents say nothing of their metrics; those are
//! described by a table (`tocsin_shared::metric`). Not here: who may ask.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use tocsin_shared::metric::Kind;

/// Metrics that are described at a time, some megabytes at worst; later ones stay without a description.
const METRICS_MAX: usize = 20_000;
/// Longer helps are cut: a help is a sentence.
const HELP_BYTES_MAX: usize = 512;
/// Longer units are cut: a unit is a word.
const UNIT_BYTES_MAX: usize = 64;

/// What a metric is. `help` and `unit` are empty where nobody has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub kind: Kind,
    pub help: Box<str>,
    pub unit: Box<str>,
}

/// The descriptions of received metrics.
#[derive(Debug, Default)]
pub struct Metadata(RwLock<BTreeMap<Box<str>, Description>>);

impl Metadata {
    /// Somebody who sends a metric says what it is; the newest word counts. Repeating is cheap.
    pub fn note(&self, metric: &str, kind: Kind, help: &str, unit: &str) {
        let (help, unit) = (cut(help, HELP_BYTES_MAX), cut(unit, UNIT_BYTES_MAX));
        let same = |known: &Description| known.kind == kind && *known.help == *help && *known.unit == *unit;
        if self.0.read().unwrap_or_else(PoisonError::into_inner).get(metric).is_some_and(same) {
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() < METRICS_MAX || all.contains_key(metric) {
            all.insert(metric.into(), Description { kind, help: help.into(), unit: unit.into() });
        }
    }

    /// What is known of a metric.
    pub fn get(&self, metric: &str) -> Option<Description> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(metric).cloned()
    }

    /// Looks at all that is known, by name, until `look` says stop (`false`); `look` must be short.
    pub fn each(&self, mut look: impl FnMut(&str, &Description) -> bool) {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (metric, description) in all.iter() {
            if !look(metric, description) {
                return;
            }
        }
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_counts_and_the_table_is_bounded() {
        let metadata = Metadata::default();
        metadata.note("a", Kind::Gauge, "what it was", "");
        metadata.note("a", Kind::Counter, &"é".repeat(HELP_BYTES_MAX), &"s".repeat(1_000));
        let known = metadata.get("a").unwrap();
        assert_eq!((known.kind, known.help.len(), known.unit.len()), (Kind::Counter, 512, 64));
        for number in 0..METRICS_MAX {
            metadata.note(&format!("m{number}"), Kind::Gauge, "", "");
        }
        let mut count = 0;
        metadata.each(|_, _| {
            count += 1;
            true
        });
        assert_eq!((count, metadata.get("nothing")), (METRICS_MAX, None));
        metadata.note("a", Kind::Gauge, "known ones are still renewed", "");
        assert_eq!(metadata.get("a").unwrap().kind, Kind::Gauge);
    }
}
