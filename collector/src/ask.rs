//! What is asked of the samples: the value of an expression, which series there are, the newest samples.
//!
//! gRPC and HTTP answer from here, so both give the same numbers. Synchronous, and ends early when `stop` says so.
//! Not here: how many may ask at a time (`api::places`), and the forms of answers.

use promql_parser::parser::Expr as Parsed;
use tocsin_promql::{
    Answer, EvalError, Expr, Options, Selector, SeriesPoints, Value, instant_with, range_with,
};
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::is_stale;
use tocsin_shared::time::Timestamp;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::samples::{SelectError, Store, View, Wanted, equalities};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Refused(#[from] EvalError),
    #[error(transparent)]
    Unreadable(#[from] SelectError),
}

/// The value of an expression at one instant.
pub(crate) fn instant(
    store: &Store,
    expr: &Expr,
    at: Timestamp,
    options: &Options<'_>,
) -> Result<Answer<Value>, AskError> {
    let view = store.view().with_samples_max(options.limits.samples);
    let answer = instant_with(expr, &view, at, options);
    whole(&view, answer)
}

/// The values of an expression at every step from the first to the last time.
pub(crate) fn range(
    store: &Store,
    expr: &Expr,
    (start, end): (Timestamp, Timestamp),
    step: Duration,
    options: &Options<'_>,
) -> Result<Answer<Vec<SeriesPoints>>, AskError> {
    let view = store.view().with_samples_max(options.limits.samples);
    let answer = range_with(expr, &view, (start, end), step, options);
    whole(&view, answer)
}

/// A selection that failed is the cause of whatever else is wrong.
fn whole<T>(view: &View<'_>, answer: Result<T, EvalError>) -> Result<T, AskError> {
    match view.take_error() {
        Some(error) => Err(error.into()),
        None => Ok(answer?),
    }
}

/// Reads a selector, and nothing but a selector.
pub(crate) fn selector(text: &str) -> Result<Selector, String> {
    let expr = Expr::parse(text).map_err(|error| error.to_string())?;
    match (promql_parser::parser::parse(text)?, expr.selectors()) {
        (Parsed::VectorSelector(_), [selector]) => Ok(selector.clone()),
        _ => Err("series are selected by a selector alone: up{job=\"node\"}".to_owned()),
    }
}

/// The label sets that `take` takes of the series that any of the selectors selects, of all without any, sorted.
/// Series that have samples after the first and up to the second time of `span`; no sample is read.
pub(crate) fn series(
    store: &Store,
    selectors: &[Selector],
    span: (Timestamp, Timestamp),
    take: impl Fn(&Labels) -> bool,
) -> Vec<Labels> {
    let matches = |labels: &Labels| {
        (selectors.is_empty() || selectors.iter().any(|one| one.matches(labels))) && take(labels)
    };
    // What all must have narrows the search: with several selectors that is nothing.
    let only = if let [only] = selectors { equalities(only) } else { Vec::new() };
    store.view().series(&Wanted { equals: &only, matches: &matches }, span)
}

/// The newest sample of each series that any of the selectors selects, in a span as above; by labels. Those whose
/// newest sample says that they have ended are left out.
pub(crate) fn newest(
    store: &Store,
    selectors: &[Selector],
    span: (Timestamp, Timestamp),
    most: u64,
    stop: &dyn Fn() -> bool,
) -> Result<BTreeMap<Labels, (i64, f64)>, AskError> {
    let mut found = BTreeMap::new();
    let view = store.view().with_samples_max(most);
    for selector in selectors {
        let equals = equalities(selector);
        let matches = |labels: &Labels| !stop() && selector.matches(labels);
        let wanted = Wanted { equals: &equals, matches: &matches };
        view.latest_matching(&wanted, span, &mut |labels, time, value| {
            if !is_stale(value) {
                found.insert(labels.clone(), (time, value));
            }
        })?;
        if most < found.len() as u64 {
            return Err(SelectError::TooManySamples { max: most }.into());
        }
    }
    if stop() { Err(EvalError::Stopped.into()) } else { Ok(found) }
}
