//! The values of an evaluation in flight: vectors and scalars for all steps at once.

use std::collections::HashMap;
use std::sync::Arc;

use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::sample::{STALE_NAN, is_stale};

use super::EvalError;

/// "No value at this step". The staleness marker never is a value: selectors drop it, and arithmetic cannot make it
/// because it is a signalling NaN.
pub(crate) const ABSENT: f64 = STALE_NAN;

/// An instant vector at each step: one row of `steps` values per label set, in one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) steps: usize,
    pub(crate) labels: Vec<Labels>,
    pub(crate) values: Vec<f64>,
    /// The metric name, one for all rows, is still in `labels` but no longer counts: `settle` drops it. Making a label
    /// set without it is the dearest part of a small evaluation, and a comparison drops most rows before that.
    pub(crate) nameless: bool,
}

impl Block {
    pub(crate) fn new(steps: usize) -> Self {
        Self { steps, labels: Vec::new(), values: Vec::new(), nameless: false }
    }

    pub(crate) fn one(labels: Labels, row: impl Iterator<Item = f64>, steps: usize) -> Self {
        let mut block = Self::new(steps);
        block.push(labels, row);
        block
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn row(&self, at: usize) -> &[f64] {
        &self.values[at * self.steps..(at + 1) * self.steps]
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Labels, &[f64])> {
        self.labels.iter().enumerate().map(|(at, labels)| (labels, self.row(at)))
    }

    /// Adds a row unless it has no value at all. `row` must give exactly `steps` values.
    pub(crate) fn push(&mut self, labels: Labels, row: impl Iterator<Item = f64>) {
        self.push_with(|| labels, row);
    }

    /// As `push`; the labels are only made for a row that stays.
    pub(crate) fn push_with(&mut self, labels: impl FnOnce() -> Labels, row: impl Iterator<Item = f64>) {
        let before = self.values.len();
        self.values.extend(row);
        debug_assert_eq!(self.values.len() - before, self.steps);
        if self.values[before..].iter().all(|value| is_stale(*value)) {
            self.values.truncate(before);
        } else {
            self.labels.push(labels());
        }
    }

    /// Applies `f(step, value)` to every value that is there.
    pub(crate) fn map(&mut self, f: impl Fn(usize, f64) -> f64) {
        for row in self.values.chunks_exact_mut(self.steps.max(1)) {
            for (step, value) in row.iter_mut().enumerate().filter(|(_, value)| !is_stale(**value)) {
                *value = f(step, *value);
            }
        }
    }

    /// Drops the rows that a filter left without values.
    pub(crate) fn compact(&mut self) {
        let mut kept = 0;
        for at in 0..self.labels.len() {
            if self.row(at).iter().all(|value| is_stale(*value)) {
                continue;
            }
            if kept < at {
                self.labels.swap(kept, at);
                self.values.copy_within(at * self.steps..(at + 1) * self.steps, kept * self.steps);
            }
            kept += 1;
        }
        self.labels.truncate(kept);
        self.values.truncate(kept * self.steps);
    }

    /// Whether all series have the same metric name, or none has any.
    pub(crate) fn has_one_name(&self) -> bool {
        let Some(first) = self.labels.first().map(metric) else { return true };
        let same = |name: Option<&Arc<str>>| match (name, first) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (a, b) => a.is_none() && b.is_none(),
        };
        self.labels[1..].iter().all(|labels| same(metric(labels)))
    }

    /// Drops the metric names; series that only differed in it become one, or are refused where they overlap.
    pub(crate) fn drop_names(mut self) -> Result<Self, EvalError> {
        let same_name = self.nameless || self.has_one_name();
        self.nameless = true;
        if same_name { Ok(self) } else { self.settle().merge_same() }
    }

    /// The labels as they are read.
    pub(crate) fn settle(mut self) -> Self {
        if std::mem::take(&mut self.nameless) {
            self.labels.iter_mut().for_each(|labels| *labels = without_name(labels));
        }
        self
    }

    /// Makes rows of equal labels one row.
    pub(crate) fn merge_same(self) -> Result<Self, EvalError> {
        self.merge_same_or(|labels| EvalError::SameLabels { labels })
    }

    /// Makes rows of equal labels one row; `refuse` says what two values at one step are.
    pub(crate) fn merge_same_or(self, refuse: impl Fn(Labels) -> EvalError) -> Result<Self, EvalError> {
        if self.labels_differ() {
            return Ok(self);
        }
        let mut merged = Self { nameless: self.nameless, ..Self::new(self.steps) };
        let mut places: HashMap<&Labels, usize> = HashMap::with_capacity(self.len());
        for (labels, row) in self.rows() {
            let next = merged.len();
            let place = *places.entry(labels).or_insert(next);
            if place == next {
                merged.labels.push(labels.clone());
                merged.values.extend_from_slice(row);
                continue;
            }
            let target = &mut merged.values[place * self.steps..(place + 1) * self.steps];
            for (value, new) in target.iter_mut().zip(row).filter(|(_, new)| !is_stale(**new)) {
                if !is_stale(*value) {
                    return Err(refuse(if self.nameless { without_name(labels) } else { labels.clone() }));
                }
                *value = *new;
            }
        }
        Ok(merged)
    }

    fn labels_differ(&self) -> bool {
        if self.len() <= 8 {
            return (1..self.len()).all(|at| !self.labels[..at].contains(&self.labels[at]));
        }
        let mut seen = std::collections::HashSet::with_capacity(self.len());
        self.labels.iter().all(|labels| seen.insert(labels))
    }
}

/// The pair of the metric name is the first one unless labels begin with a capital or a digit.
fn metric(labels: &Labels) -> Option<&Arc<str>> {
    let pairs = labels.pairs();
    let at = match pairs.first() {
        Some((name, _)) if **name == *METRIC_NAME => 0,
        _ => pairs.binary_search_by(|(name, _)| (**name).cmp(METRIC_NAME)).ok()?,
    };
    Some(&pairs[at].1)
}

fn without_name(labels: &Labels) -> Labels {
    match metric(labels) {
        Some(_) => labels.without(|name| name == METRIC_NAME),
        None => labels.clone(),
    }
}

/// A scalar at each step.
#[derive(Clone, Debug)]
pub(crate) enum Scalars {
    Same(f64),
    Steps(Vec<f64>),
}

impl Scalars {
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Self::Same(value) => *value,
            Self::Steps(values) => values[step],
        }
    }

    /// One value per step, without memory for a single step.
    pub(crate) fn each(count: usize, f: impl Fn(usize) -> f64) -> Self {
        if count == 1 { Self::Same(f(0)) } else { Self::Steps((0..count).map(f).collect()) }
    }

    pub(crate) fn zip(&self, other: &Self, count: usize, f: impl Fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Same(a), Self::Same(b)) => Self::Same(f(*a, *b)),
            _ => Self::each(count, |step| f(self.at(step), other.at(step))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: &[(&str, [f64; 2])]) -> Block {
        let mut block = Block::new(2);
        for (name, row) in rows {
            block.push(Labels::series(name, &[("a", "1")]), row.iter().copied());
        }
        block
    }

    #[test]
    fn dropping_names_merges_what_does_not_overlap_and_refuses_what_does() {
        let apart = block(&[("x", [1.0, ABSENT]), ("y", [ABSENT, 2.0])]).drop_names().unwrap();
        assert_eq!((apart.len(), apart.row(0)), (1, [1.0, 2.0].as_slice()));
        let together = block(&[("x", [1.0, 1.0]), ("y", [ABSENT, 2.0])]).drop_names();
        assert!(matches!(together, Err(EvalError::SameLabels { .. })));
    }

    #[test]
    fn compacting_keeps_the_rows_that_have_values_in_order() {
        let mut block = block(&[("x", [1.0, 2.0]), ("y", [3.0, 4.0]), ("z", [5.0, 6.0])]);
        block.map(|step, value| if value < 5.0 && step == 0 || value < 3.0 { ABSENT } else { value });
        block.compact();
        let names: Vec<_> = block.labels.iter().map(|l| l.metric().to_owned()).collect();
        assert_eq!(names, ["y", "z"]);
        assert_eq!(block.row(1), [5.0, 6.0]);
        assert!(is_stale(block.row(0)[0]) && block.row(0)[1] == 4.0);
    }
}
