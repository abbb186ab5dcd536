//! The names of what there is: series, labels, values. No sample is read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use promql_parser::parser::Expr as Parsed;
use tocsin_promql::{Expr, MatchOp, Selector};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use crate::clock::now;
use crate::samples::{Store, Wanted};

/// How far back names are looked for: what a dashboard offers should still be there.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);

/// Reads a selector, and nothing but a selector.
pub(super) fn selector(text: &str) -> Result<Selector, String> {
    let expr = Expr::parse(text).map_err(|error| error.to_string())?;
    match (promql_parser::parser::parse(text)?, expr.selectors()) {
        (Parsed::VectorSelector(_), [selector]) => Ok(selector.clone()),
        _ => Err("series are selected by a selector alone: up{job=\"node\"}".to_owned()),
    }
}

/// The series that a selector selects and that have samples in the span.
pub(super) fn series(store: &Store, selector: &Selector, span: (Timestamp, Timestamp)) -> Vec<Labels> {
    let equal = selector.matchers.iter().filter(|m| m.op == MatchOp::Equal && !m.value.is_empty());
    let equals: Vec<(&str, &str)> = equal.map(|matcher| (&*matcher.name, &*matcher.value)).collect();
    let matches = |labels: &Labels| selector.matches(labels);
    store.view().series(&Wanted { equals: &equals, matches: &matches }, span)
}

/// The names of all labels, sorted.
pub(super) fn names(store: &Store) -> Vec<String> {
    collect(store, |labels, found| {
        for (name, _) in labels.iter() {
            keep(found, name);
        }
    })
}

/// The values of a label, sorted.
pub(super) fn values(store: &Store, name: &str) -> Vec<String> {
    collect(store, |labels, found| labels.get(name).into_iter().for_each(|value| keep(found, value)))
}

/// Looks at the labels of every series; no list of series is made.
fn collect(store: &Store, look: impl Fn(&Labels, &mut BTreeSet<String>)) -> Vec<String> {
    let found = RefCell::new(BTreeSet::new());
    let matches = |labels: &Labels| {
        look(labels, &mut found.borrow_mut());
        false
    };
    let span = (now().minus(LOOK_BACK), Timestamp::MAX);
    store.view().series(&Wanted { equals: &[], matches: &matches }, span);
    found.into_inner().into_iter().collect()
}

fn keep(found: &mut BTreeSet<String>, text: &str) {
    if !found.contains(text) {
        found.insert(text.to_owned());
    }
}
