//! The series of one host: their slots, how they are found by labels and by metric, and their labels as read.
//!
//! A slot is a series' place in every list of the host; it stays until `compact` renumbers. Labels as read are the
//! series' own with the host's target labels over them, made when first asked for, so that a relabelled host shows
//! its new labels on all of its samples. Complete series (recorded by rules) are read as they were written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tocsin_shared::labels::{Labels, METRIC_NAME};

/// Generations are unique in the process, so that a cache handed to the wrong host finds nothing instead of another series.
static GENERATION: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_generation() -> u64 {
    GENERATION.fetch_add(1, Ordering::Relaxed)
}

/// A series as stored: its own labels, and whether they are all it has (`true`) or the target's go over them.
pub(crate) type SeriesKey = (Labels, bool);

/// The labels under which a stored series is read.
pub(crate) fn resolve(labels: &Labels, complete: bool, target: &Labels) -> Labels {
    if complete || target.is_empty() {
        return labels.clone();
    }
    Labels::new(labels.pairs().iter().chain(target.pairs()).cloned())
}

/// Takes a series' labels as read, its times in milliseconds and its values, as long as each other.
pub type Visit<'v> = dyn FnMut(&Labels, &[i64], &[f64]) + 'v;

/// What a selection wants: a predicate, and the equalities in it that an index can use.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Label and non-empty value pairs that every selected series has. `matches` checks them again.
    pub equals: &'a [(&'a str, &'a str)],
    /// The whole condition, on labels as read.
    pub matches: &'a dyn Fn(&Labels) -> bool,
}

impl Wanted<'_> {
    /// The one metric that can match, if one is named.
    pub(crate) fn metric(&self) -> Option<&str> {
        self.equals.iter().find(|(name, _)| *name == METRIC_NAME).map(|(_, value)| *value)
    }

    /// Whether a host with these target labels can only match with complete series.
    pub(crate) fn excludes(&self, target: &Labels) -> bool {
        self.equals.iter().any(|(name, value)| target.get(name).is_some_and(|own| own != *value))
    }
}

#[derive(Debug)]
struct Slot {
    key: SeriesKey,
    read_as: OnceLock<Labels>,
}

/// All series of a host that have samples in memory or are being sent.
#[derive(Debug)]
pub(crate) struct Series {
    target: Labels,
    slots: Vec<Slot>,
    by_labels: HashMap<SeriesKey, u32>,
    by_metric: HashMap<Arc<str>, Vec<u32>>,
    /// Whether the host has, or had, series that the target's labels do not go over; also if only blocks hold them.
    pub(crate) some_complete: bool,
    /// Changes whenever a cached list of slots may have become wrong.
    generation: u64,
}

impl Series {
    pub(crate) fn new(target: Labels) -> Self {
        let (slots, by_labels, by_metric, some_complete) = Default::default();
        Self { target, slots, by_labels, by_metric, some_complete, generation: next_generation() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn target(&self) -> &Labels {
        &self.target
    }

    /// Sets the target labels, for everything read from now on.
    pub(crate) fn set_target(&mut self, target: Labels) {
        if self.target != target {
            self.target = target;
            self.slots.iter_mut().for_each(|slot| slot.read_as = OnceLock::new());
            self.generation = next_generation();
        }
    }

    pub(crate) fn slot(&self, key: &SeriesKey) -> Option<u32> {
        self.by_labels.get(key).copied()
    }

    /// Makes room for a table's new series, and no more: a table seldom grows.
    pub(crate) fn reserve(&mut self, series: usize) {
        self.slots.reserve_exact(series);
        self.by_labels.reserve(series);
    }

    /// The slot of a series, made if it is new.
    pub(crate) fn slot_or_insert(&mut self, key: SeriesKey) -> u32 {
        if let Some(slot) = self.slot(&key) {
            return slot;
        }
        self.some_complete |= key.1;
        let slot = self.slots.len() as u32;
        let metric = key.0.pairs().iter().find(|(name, _)| &**name == METRIC_NAME);
        let metric = metric.map_or_else(|| Arc::from(""), |(_, metric)| Arc::clone(metric));
        self.by_metric.entry(metric).or_default().push(slot);
        self.by_labels.insert(key.clone(), slot);
        self.slots.push(Slot { key, read_as: OnceLock::new() });
        self.generation = next_generation();
        slot
    }

    pub(crate) fn key(&self, slot: u32) -> &SeriesKey {
        &self.slots[slot as usize].key
    }

    /// The labels a series is read under.
    pub(crate) fn labels(&self, slot: u32) -> &Labels {
        let Slot { key: (labels, complete), read_as } = &self.slots[slot as usize];
        read_as.get_or_init(|| resolve(labels, *complete, &self.target))
    }

    /// Whether nothing of this host, wherever it is held, can match.
    pub(crate) fn excluded(&self, wanted: &Wanted) -> bool {
        !self.some_complete && wanted.excludes(&self.target)
    }

    /// The slots that match.
    pub(crate) fn find(&self, wanted: &Wanted) -> Vec<u32> {
        let complete_only = wanted.excludes(&self.target);
        let fits = |slot: &u32| {
            let complete = self.slots[*slot as usize].key.1;
            (complete || !complete_only) && (wanted.matches)(self.labels(*slot))
        };
        match wanted.metric() {
            Some(metric) => self.by_metric.get(metric).into_iter().flatten().copied().filter(fits).collect(),
            None => (0..self.slots.len() as u32).filter(fits).collect(),
        }
    }

    /// Keeps the slots that `keep` names and renumbers them in order. Gives the new number of each old slot.
    pub(crate) fn compact(&mut self, keep: impl Fn(u32) -> bool) -> Vec<Option<u32>> {
        let empty = Self { some_complete: self.some_complete, ..Self::new(self.target.clone()) };
        let old = std::mem::replace(self, empty);
        old.slots
            .into_iter()
            .enumerate()
            .map(|(slot, entry)| keep(slot as u32).then(|| self.slot_or_insert(entry.key)))
            .collect()
    }

    /// Bytes of memory of the lists; label texts, shared with the sender's table, are not counted.
    pub(crate) fn memory(&self) -> usize {
        let metrics = self.by_metric.values().map(|slots| slots.capacity() * 4).sum::<usize>();
        self.slots.capacity() * size_of::<Slot>()
            + self.by_labels.capacity() * (size_of::<(SeriesKey, u32)>() + 1)
            + self.by_metric.capacity() * (size_of::<(Arc<str>, Vec<u32>)>() + 1)
            + metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_the_labels_they_are_read_under() {
        let mut series = Series::new(Labels::new([("instance", "a"), ("job", "node")]));
        for (metric, labels, complete) in [
            ("up", vec![], false),
            ("cpu", vec![("mode", "idle")], false),
            ("cpu", vec![("mode", "user")], false),
            ("cpu", vec![("instance", "b")], true),
        ] {
            series.slot_or_insert((Labels::series(metric, &labels), complete));
        }
        let find = |series: &Series, equals: &[(&str, &str)]| {
            let matches =
                |labels: &Labels| equals.iter().all(|(name, value)| labels.get(name) == Some(value));
            series.find(&Wanted { equals, matches: &matches })
        };
        for (equals, slots) in [
            (vec![("__name__", "cpu")], vec![1, 2, 3]),
            (vec![("__name__", "cpu"), ("instance", "a")], vec![1, 2]),
            (vec![("instance", "b")], vec![3]),
            (vec![("job", "node")], vec![0, 1, 2]),
            (vec![("__name__", "none")], vec![]),
        ] {
            assert_eq!(find(&series, &equals), slots, "{equals:?}");
        }
        let elsewhere = Wanted { equals: &[("instance", "z")], matches: &|_| true };
        assert!(!series.excluded(&elsewhere), "a complete series may have any instance");
        let generation = series.generation();
        series.set_target(Labels::new([("instance", "c")]));
        assert_ne!(series.generation(), generation);
        assert_eq!(find(&series, &[("instance", "c")]), [0, 1, 2]);
        assert_eq!(series.compact(|slot| slot != 1), [Some(0), None, Some(1), Some(2)]);
        assert_eq!(find(&series, &[("__name__", "cpu")]), [1, 2]);
        let mut plain = Series::new(Labels::new([("instance", "a")]));
        plain.slot_or_insert((Labels::series("up", &[]), false));
        assert!(plain.excluded(&elsewhere));
        plain.compact(|_| true);
        assert!(
            plain.excluded(&elsewhere)
                && !plain.excluded(&Wanted { equals: &[("instance", "a")], ..elsewhere })
        );
    }
}
