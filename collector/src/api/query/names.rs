//! The names of what there is: series, labels, values. No sample is read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use tocsin_promql::Selector;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::patience::Ended;
use crate::ask;
use crate::clock::now;
use crate::samples::Store;

/// How far back names are looked for: what a dashboard offers should still be there.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);

/// Which series: those that any of the selectors selects, or all without any, with samples in the span.
#[derive(Clone, Debug)]
pub(super) struct Of {
    pub(super) selectors: Vec<Selector>,
    /// After the first, up to the second.
    pub(super) span: (Timestamp, Timestamp),
}

impl Of {
    /// For names of labels and their values, from times of the wire: 0 is 24 hours before the end, and now.
    pub(super) fn names(selectors: Vec<Selector>, start_ms: i64, end_ms: i64) -> Self {
        let (start, end) = (Timestamp::from_millis(start_ms), Timestamp::from_millis(end_ms));
        let span = match (start_ms, end_ms) {
            (0, 0) => (now().minus(LOOK_BACK), Timestamp::MAX),
            (0, _) => (end.minus(LOOK_BACK), end),
            (_, 0) => (start, Timestamp::MAX),
            (_, _) => (start, end),
        };
        Self { selectors, span }
    }

    /// The series that are being sent.
    pub(super) fn sent() -> Self {
        // After all blocks: such a span selects what is in memory.
        Self { selectors: Vec::new(), span: (Timestamp::from_millis(i64::MAX - 1), Timestamp::MAX) }
    }

    /// Asks for the series; `take` gives whether to list one.
    fn ask(&self, store: &Store, ended: &Ended, take: impl Fn(&Labels) -> bool) -> Vec<Labels> {
        ask::series(store, &self.selectors, self.span, |labels| !ended.is() && take(labels))
    }
}

/// The label sets of the series, sorted, that come after one.
pub(super) fn series(store: &Store, of: &Of, after: Option<&Labels>, ended: &Ended) -> Vec<Labels> {
    of.ask(store, ended, |labels| after.is_none_or(|after| after < labels))
}

/// The names of all labels, sorted, that come after one.
pub(super) fn names(store: &Store, of: &Of, after: Option<&str>, ended: &Ended) -> Vec<String> {
    collect(store, of, after, ended, |labels, found| {
        for (name, _) in labels.iter() {
            keep(found, name);
        }
    })
}

/// The values of a label, sorted, that come after one.
pub(super) fn values(store: &Store, of: &Of, name: &str, after: Option<&str>, ended: &Ended) -> Vec<String> {
    collect(store, of, after, ended, |labels, found| {
        labels.get(name).into_iter().for_each(|value| keep(found, value));
    })
}

/// Looks at the labels of every series; no list of series is made.
fn collect(
    store: &Store,
    of: &Of,
    after: Option<&str>,
    ended: &Ended,
    look: impl Fn(&Labels, &mut BTreeSet<String>),
) -> Vec<String> {
    let found = RefCell::new(BTreeSet::new());
    of.ask(store, ended, |labels| {
        look(labels, &mut found.borrow_mut());
        false
    });
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    found.into_inner().range::<str, _>((from, Bound::Unbounded)).cloned().collect()
}

fn keep(found: &mut BTreeSet<String>, text: &str) {
    if !found.contains(text) {
        found.insert(text.to_owned());
    }
}
