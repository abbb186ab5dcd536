//! The same questions to two query engines over the same samples: what differs is a mistake of one of them.
//!
//! `data` draws the samples, `queries` draws the questions, `prometheus` runs a Prometheus that has the samples by
//! remote write, `ask` puts a question to whoever answers, and `difference` compares.
//!
//! The peer is Prometheus 2.42, and the engine follows Prometheus 3. What 3.0 changed is kept out of the data and the
//! questions, so that both must agree in everything else:
//! - ranges and look-back are left-open: no sample stands on the edge of a window, because samples are a millisecond
//!   before the grid of all instants, and subqueries have a second more than a multiple of their step;
//! - `rate` over a window in which a series begins: 3 limits the extrapolation to zero differently, so no counter is near
//!   zero;
//! - a dot in a pattern matches a line end: no label has one;
//! - `holt_winters` is `double_exponential_smoothing`, and names may be any UTF-8: not asked;
//! - `histogram_fraction` of classic histograms, durations as numbers, `min_of` and its like: unknown to 2.42;
//! - `atan2` drops the metric's name, `stddev` and `stdvar` of an infinite value are NaN: the one is asked of numbers, the
//!   others of plain series;
//! - a date of an infinite time is whatever the processor makes of it there: dates are asked of plain series;
//! - under `@`, `predict_linear` and `timestamp` of 2.42 move with the step: asked without;
//! - several elements for one are refused also where a filter drops all but one: filters stand between sides that match;
//! - `-x` and functions that drop the name refuse a range in which series of two names follow each other under the same
//!   labels; here a range is its instants, and only what overlaps is refused (`is_known`);
//! - sums are compensated everywhere: values are compared to nine digits.

pub mod ask;
pub mod data;
pub mod prometheus;
pub mod queries;

use std::collections::BTreeMap;

pub use ask::{Respondent, ask};

/// When a question is asked. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    pub query: String,
    pub when: When,
}

/// An answer: the kind of result, and the points of each series by its labels as text; or that it is refused.
#[derive(Clone, Debug)]
pub enum Answer {
    Result { kind: &'static str, series: BTreeMap<String, Vec<(i64, f64)>> },
    Refused(String),
}

/// Whether a difference is one that is meant: see above.
pub fn is_known(question: &Question, theirs: &Answer) -> bool {
    let same_labels =
        matches!(theirs, Answer::Refused(why) if why.contains("metrics with the same labelset"));
    same_labels && matches!(question.when, When::Range { .. })
}

/// How far two values may be apart, relatively.
const APART: f64 = 1e-9;
/// Values this small are the noise of a difference of larger ones.
const NOISE: f64 = 1e-9;

/// What is not the same in two answers; nothing if all is.
pub fn difference(ours: &Answer, theirs: &Answer) -> Option<String> {
    let (our_kind, our_series, their_kind, their_series) = match (ours, theirs) {
        (Answer::Refused(_), Answer::Refused(_)) => return None,
        (Answer::Refused(why), _) => return Some(format!("only we refuse: {why}")),
        (_, Answer::Refused(why)) => return Some(format!("only they refuse: {why}")),
        (Answer::Result { kind: a, series: b }, Answer::Result { kind: c, series: d }) => (a, b, c, d),
    };
    if our_kind != their_kind {
        return Some(format!("we give a {our_kind}, they a {their_kind}"));
    }
    let missing = |of: &BTreeMap<String, _>, in_: &BTreeMap<String, _>| {
        of.keys().find(|labels| !in_.contains_key(*labels)).cloned()
    };
    if let Some(labels) = missing(our_series, their_series) {
        return Some(format!("only we have {labels} with {:?}", our_series[&labels]));
    }
    if let Some(labels) = missing(their_series, our_series) {
        return Some(format!("only they have {labels} with {:?}", their_series[&labels]));
    }
    our_series.iter().find_map(|(labels, ours)| {
        let theirs = &their_series[labels];
        let same = |(a, b): (&(i64, f64), &(i64, f64))| a.0 == b.0 && equal(a.1, b.1);
        let at = ours.iter().zip(theirs).position(|pair| !same(pair));
        match at {
            Some(at) => Some(format!("{labels}: we give {:?}, they {:?}", ours[at], theirs[at])),
            None if ours.len() != theirs.len() => {
                Some(format!("{labels}: we give {} points, they {}", ours.len(), theirs.len()))
            }
            None => None,
        }
    })
}

fn equal(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= NOISE.max(APART * a.abs().max(b.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_one() {
        let answer = |kind, series: &[(&str, &[(i64, f64)])]| Answer::Result {
            kind,
            series: series.iter().map(|(labels, points)| ((*labels).to_owned(), points.to_vec())).collect(),
        };
        let one = answer("vector", &[("a", &[(1, 1.0)])]);
        for (other, expected) in [
            (one.clone(), None),
            (answer("vector", &[("a", &[(1, 1.0 + 1e-12)])]), None),
            (answer("vector", &[("a", &[(1, 1.0 + 1e-6)])]), Some("a: we give")),
            (answer("vector", &[("a", &[(2, 1.0)])]), Some("a: we give")),
            (answer("vector", &[("a", &[(1, 1.0), (2, 1.0)])]), Some("a: we give 1 points")),
            (answer("vector", &[("b", &[(1, 1.0)])]), Some("only we have a")),
            (answer("vector", &[("a", &[(1, 1.0)]), ("b", &[])]), Some("only they have b")),
            (answer("matrix", &[("a", &[(1, 1.0)])]), Some("we give a vector")),
            (Answer::Refused("no".to_owned()), Some("only they refuse")),
        ] {
            let got = difference(&one, &other);
            assert!(got.as_deref().unwrap_or("").starts_with(expected.unwrap_or("")), "{got:?}");
            assert_eq!(got.is_some(), expected.is_some(), "{got:?}");
        }
        let refused = Answer::Refused("why".to_owned());
        assert_eq!(difference(&refused, &refused), None);
    }
}
