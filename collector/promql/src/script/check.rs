//! One `eval`: what comes out of the engine beside what is expected.

use std::collections::HashMap;
use std::time::Duration;

use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::read::{Eval, Expected, When};
use super::series::Values;
use super::{Outcome, Skip, Store};
use crate::annotations::Annotations;
use crate::eval::{SeriesPoints, Value, instant_with, range, range_with};
use crate::expr::{Expr, ParseError};
use crate::numbers::quoted;
use crate::{Answer, Element, EvalError, Limits, Options};

/// How far two values may be apart, relatively: what Prometheus' runner allows.
const APART: f64 = 1e-6;
/// How far the instants around a case are that it is evaluated with once more.
const AROUND: i64 = 60_000;

pub(super) fn outcome(eval: &Eval, store: &Store, experimental: bool) -> Outcome {
    if eval.rows.iter().any(|row| row.values == Values::Histograms) {
        return Outcome::Skipped(Skip::NativeHistograms);
    }
    let expr = match parse(&eval.text, experimental) {
        Ok(expr) => expr,
        Err(Refused::Skip(skip)) => return Outcome::Skipped(skip),
        Err(Refused::Error(error)) => return failed_as(eval, &error),
    };
    if let Some(skip) = store.misses(expr.selectors()) {
        return Outcome::Skipped(skip);
    }
    match evaluated(eval, &expr, store) {
        Err(error) => failed_as(eval, &[error.to_string(), prometheus(&error)]),
        Ok(_) if eval.fail.is_some() => Outcome::Failed("expected it to fail, and it does not".to_owned()),
        Ok(answer) => {
            let judged = annotations(eval, &answer.annotations)
                .and_then(|()| compare(eval, &answer.value))
                .and_then(|()| within_a_range(eval, &expr, store, &answer.value));
            judged.map_or_else(Outcome::Failed, |()| Outcome::Passed)
        }
    }
}

enum Refused {
    Skip(Skip),
    Error([String; 2]),
}

fn parse(text: &str, experimental: bool) -> Result<Expr, Refused> {
    let skip = |what: &str| Refused::Skip(Skip::Experimental(what.to_owned()));
    match Expr::parse(text) {
        Ok(expr) => match expr.experimental() {
            Some(name) if !experimental => Err(skip(&format!("the function {name}()"))),
            _ => Ok(expr),
        },
        Err(ParseError::Experimental(what)) => Err(skip(&what)),
        Err(ParseError::NativeHistograms(_)) => Err(Refused::Skip(Skip::NativeHistograms)),
        Err(error) => Err(match (&error, super::experimental::syntax(text)) {
            (ParseError::Syntax(_), Some(what)) => skip(what),
            _ => Refused::Error([error.to_string(), error.to_string()]),
        }),
    }
}

/// Whether it was expected to fail, and with this; in either wording.
fn failed_as(eval: &Eval, error: &[String; 2]) -> Outcome {
    match &eval.fail {
        None => Outcome::Failed(format!("expected a result, got the error: {}", error[0])),
        Some(expected) if error.iter().any(|error| expected.is_met_by(error)) => Outcome::Passed,
        Some(expected) => Outcome::Failed(format!("expected the error {expected}, got {:?}", error[0])),
    }
}

/// An error as Prometheus says it.
fn prometheus(error: &EvalError) -> String {
    match error {
        EvalError::SameLabels { .. } => "vector cannot contain metrics with the same labelset".to_owned(),
        EvalError::ManyToMany { first, second, group, side } => {
            let mut both = [in_braces(first), in_braces(second)];
            both.sort();
            let [first, second] = both;
            format!(
                "found duplicate series for the match group {} on the {} hand-side of the operation: [{first}, \
                 {second}];many-to-many matching not allowed: matching labels must be unique on one side",
                in_braces(group),
                side.name()
            )
        }
        EvalError::ManyToOne { .. } => {
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                .to_owned()
        }
        EvalError::GroupingNotUnique { .. } => {
            "multiple matches for labels: grouping labels must ensure unique matches".to_owned()
        }
        EvalError::TooManySamples { .. } => {
            "query processing would load too many samples into memory in query execution".to_owned()
        }
        EvalError::Parameter(what) if what.starts_with("Parameter value is NaN") => {
            "Parameter value is NaN".to_owned()
        }
        other => other.to_string(),
    }
}

fn in_braces(labels: &Labels) -> String {
    let pair = |(name, value): (&str, &str)| format!("{name}={}", quoted(value));
    format!("{{{}}}", labels.iter().map(pair).collect::<Vec<_>>().join(", "))
}

fn evaluated(eval: &Eval, expr: &Expr, store: &Store) -> Result<Answer<Value>, EvalError> {
    let options = Options::default();
    match eval.when {
        When::Instant(at) => instant_with(expr, &store.source, at, &options),
        When::Range { from, to, step } => {
            let span = (Timestamp::from_millis(from), Timestamp::from_millis(to));
            let answer = range_with(expr, &store.source, span, millis(step), &options)?;
            Ok(Answer { value: Value::Matrix(answer.value), annotations: answer.annotations })
        }
    }
}

fn millis(span: i64) -> Duration {
    Duration::from_millis(span.unsigned_abs())
}

fn annotations(eval: &Eval, said: &Annotations) -> Result<(), String> {
    let kinds = [
        ("warning", &eval.warn, eval.no_warn, &said.warnings),
        ("info", &eval.info, eval.no_info, &said.infos),
    ];
    for (kind, expected, none, said) in kinds {
        if none && !said.is_empty() {
            return Err(format!("expected no {kind}, got {said:?}"));
        }
        let met = |expected: &&Expected| said.iter().any(|said| expected.is_met_by(said));
        if let Some(missing) = expected.iter().find(|expected| !met(expected)) {
            return Err(format!("expected {missing} {kind}, got {said:?}"));
        }
        let is_expected = |said: &&String| expected.iter().any(|expected| expected.is_met_by(said));
        if let Some(more) = said.iter().find(|said| !expected.is_empty() && !is_expected(said)) {
            return Err(format!("expected no such {kind}: {more:?}"));
        }
    }
    Ok(())
}

fn compare(eval: &Eval, value: &Value) -> Result<(), String> {
    match value {
        Value::Text(got) if *got == eval.string => Ok(()),
        Value::Text(got) => Err(format!("expected the string {:?}, got {got:?}", eval.string)),
        Value::Scalar(got) => match eval.scalar {
            Some(expected) if equal(expected, *got) => Ok(()),
            Some(expected) => Err(format!("expected {expected}, got {got}")),
            None => Err(format!("expected series, got the number {got}")),
        },
        Value::Vector(_) | Value::Matrix(_) if eval.scalar.is_some() => {
            Err("expected a number, got series".to_owned())
        }
        Value::Vector(elements) => compare_elements(eval, elements),
        Value::Matrix(series) => compare_series(eval, series),
    }
}

/// What each series is expected to have, by its labels: a line later in the file is the one that counts.
fn expected(eval: &Eval) -> HashMap<&Labels, (usize, &[Option<f64>])> {
    let mut rows = HashMap::new();
    for (at, line) in eval.rows.iter().enumerate() {
        let Values::Floats(values) = &line.values else { continue };
        rows.insert(&line.labels, (at, values.as_slice()));
    }
    rows
}

fn compare_elements(eval: &Eval, elements: &[Element]) -> Result<(), String> {
    let expected = expected(eval);
    for (at, Element { labels, value }) in elements.iter().enumerate() {
        let Some((place, values)) = expected.get(labels) else {
            return Err(format!("expected no series {labels}, got it with the value {value}"));
        };
        if eval.ordered && *place != at {
            return Err(format!("expected {labels} as number {}, got it as number {}", place + 1, at + 1));
        }
        let wanted = values.first().copied().flatten();
        let wanted = wanted.ok_or_else(|| format!("no value is given that {labels} should have"))?;
        if !equal(wanted, *value) {
            return Err(format!("expected {wanted} for {labels}, got {value}"));
        }
    }
    missing(&expected, elements.iter().map(|element| &element.labels))
}

fn missing<'l>(
    expected: &HashMap<&Labels, (usize, &[Option<f64>])>,
    got: impl Iterator<Item = &'l Labels>,
) -> Result<(), String> {
    let got: Vec<&Labels> = got.collect();
    let mut missing: Vec<_> = expected.iter().filter(|(labels, _)| !got.contains(labels)).collect();
    missing.sort_by_key(|(_, (at, _))| *at);
    match missing.first() {
        Some((labels, (_, values))) => {
            Err(format!("expected {labels} with {}, got no such series", shown(values)))
        }
        None => Ok(()),
    }
}

fn shown(values: &[Option<f64>]) -> String {
    let show = |value: &Option<f64>| value.map_or("_".to_owned(), |value| value.to_string());
    values.iter().map(show).collect::<Vec<_>>().join(" ")
}

fn compare_series(eval: &Eval, series: &[SeriesPoints]) -> Result<(), String> {
    if eval.ordered {
        return Err("expected an order, and the series of a range have one only".to_owned());
    }
    let (from, to, step) = match (eval.vector_range, eval.when) {
        (Some(range), _) => range,
        (None, When::Range { from, to, step }) => (from, to, step),
        (None, When::Instant(at)) => (at.as_millis(), at.as_millis(), 1),
    };
    let expected = expected(eval);
    for SeriesPoints { labels, points } in series {
        let got: Vec<(i64, f64)> = points.iter().map(|point| (point.at.as_millis(), point.value)).collect();
        let Some((_, values)) = expected.get(labels) else {
            return Err(format!("expected no series {labels}, got it with {}", pairs(&got)));
        };
        let at = |at: usize| from.saturating_add(step.saturating_mul(i64::try_from(at).unwrap_or(i64::MAX)));
        if to < at(values.len().saturating_sub(1)) {
            return Err(format!(
                "{} values are expected of {labels}, more than the range has instants",
                values.len()
            ));
        }
        let wanted = values.iter().enumerate().filter_map(|(step, value)| Some((at(step), (*value)?)));
        let wanted: Vec<(i64, f64)> = wanted.collect();
        let same = |(a, b): (&(i64, f64), &(i64, f64))| a.0 == b.0 && equal(a.1, b.1);
        if wanted.len() != got.len() || !wanted.iter().zip(&got).all(same) {
            return Err(format!("expected {} for {labels}, got {}", pairs(&wanted), pairs(&got)));
        }
    }
    missing(&expected, series.iter().map(|series| &series.labels))
}

fn pairs(points: &[(i64, f64)]) -> String {
    let show = |(at, value): &(i64, f64)| format!("{value} at {} s", *at as f64 / 1000.0);
    if points.is_empty() {
        "nothing".to_owned()
    } else {
        points.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

/// The same query as a range around the instant gives the same in its middle.
fn within_a_range(eval: &Eval, expr: &Expr, store: &Store, value: &Value) -> Result<(), String> {
    let When::Instant(at) = eval.when else { return Ok(()) };
    let text = expr.text();
    // The bounds of the query differ, and so does what looks at them.
    let bounds = ["start()", "end()", "range()", "step()"].iter().any(|name| text.contains(name));
    if bounds
        || eval.ordered
        || eval.vector_range.is_some()
        || matches!(value, Value::Text(_) | Value::Matrix(_))
    {
        return Ok(());
    }
    let at = at.as_millis();
    let (from, to) = (Timestamp::from_millis(at - AROUND), Timestamp::from_millis(at + AROUND));
    let series = range(expr, &store.source, from, to, millis(AROUND), &Limits::default())
        .map_err(|error| format!("as a range around the instant it fails: {error}"))?;
    let middle = |SeriesPoints { labels, points }: SeriesPoints| {
        let point = points.into_iter().find(|point| point.at.as_millis() == at)?;
        Some(Element { labels, value: point.value })
    };
    let elements: Vec<Element> = series.into_iter().filter_map(middle).collect();
    let value = match (value, &elements[..]) {
        (Value::Scalar(_), [element]) => Value::Scalar(element.value),
        _ => Value::Vector(elements),
    };
    compare(eval, &value).map_err(|why| format!("as a range around the instant: {why}"))
}

/// As Prometheus' runner compares: NaN is NaN, and beside a zero only a zero passes.
fn equal(a: f64, b: f64) -> bool {
    if a == b || a.is_nan() && b.is_nan() {
        return true;
    }
    let (sum, apart) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return apart < APART * f64::MIN_POSITIVE;
    }
    apart / sum.min(f64::MAX) < APART
}
