//! Evaluation: an expression over the sample store, and its result as the wire has it.

use std::time::Duration;

use tocsin_promql::{Answer, Element, Expr, Options, SeriesPoints, Value};
use tocsin_proto::pb;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tonic::Status;

use super::delta::Notes;
use super::messages::{RangeMessages, element_out, series_out};
use super::patience::Ended;
use super::reason::{self, BAD_QUERY, TOO_MANY_POINTS};
use crate::ask;
use crate::samples::Store;

/// Points in one answer, some 70 MB: beyond it nobody looks, and everybody waits.
const POINTS_MAX: usize = 4_000_000;

/// The instants of a range query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) step: Duration,
}

/// Evaluates at one instant.
pub(super) fn instant(
    store: &Store,
    expr: &Expr,
    at: Timestamp,
    ended: &Ended,
) -> Result<pb::InstantResponse, Status> {
    let (value, notes) = value(store, expr, at, ended)?;
    answer(value, notes, at)
}

/// Evaluates for a subscriber: the elements, and what they are.
pub(super) fn elements(
    store: &Store,
    expr: &Expr,
    at: Timestamp,
    ended: &Ended,
) -> Result<(Vec<Element>, &'static str, Notes), Status> {
    let (value, notes) = value(store, expr, at, ended)?;
    match value {
        Value::Scalar(value) => Ok((vec![Element { labels: Labels::empty(), value }], "scalar", notes)),
        Value::Vector(elements) => Ok((elements, "vector", notes)),
        Value::Matrix(_) | Value::Text(_) => {
            let why = "a subscription needs an instant vector or a scalar: put a function around it";
            Err(reason::invalid(BAD_QUERY, why))
        }
    }
}

fn value(store: &Store, expr: &Expr, at: Timestamp, ended: &Ended) -> Result<(Value, Notes), Status> {
    let options = Options { stop: &|| ended.is(), ..Options::default() };
    let answer = ask::instant(store, expr, at, &options);
    let Answer { value, annotations } = answer.map_err(|error| reason::unanswered(&error))?;
    Ok((value, annotations.into()))
}

/// Evaluates at every step of a range.
pub(super) fn range(
    store: &Store,
    expr: &Expr,
    steps: Steps,
    ended: &Ended,
) -> Result<RangeMessages, Status> {
    let Steps { start, end, step } = steps;
    let options = Options { stop: &|| ended.is(), ..Options::default() };
    let answer = ask::range(store, expr, (start, end), step, &options);
    let Answer { value: series, annotations } = answer.map_err(|error| reason::unanswered(&error))?;
    check_points(points(&series))?;
    Ok(RangeMessages::new(series, annotations.into()))
}

fn answer(value: Value, notes: Notes, at: Timestamp) -> Result<pb::InstantResponse, Status> {
    let (result_type, series, text) = match value {
        Value::Scalar(value) => {
            ("scalar", vec![element_out(&Element { labels: Labels::empty(), value }, at)], String::new())
        }
        Value::Vector(elements) => {
            check_points(elements.len())?;
            let series = elements.iter().map(|element| element_out(element, at));
            ("vector", series.collect(), String::new())
        }
        Value::Matrix(series) => {
            check_points(points(&series))?;
            ("matrix", series.iter().map(series_out).collect(), String::new())
        }
        Value::Text(text) => ("string", Vec::new(), text),
    };
    let (at_ms, result_type, Notes { warnings, infos }) = (at.as_millis(), result_type.to_owned(), notes);
    Ok(pb::InstantResponse { at_ms, result_type, series, text, warnings, infos })
}

fn points(series: &[SeriesPoints]) -> usize {
    series.iter().map(|series| series.points.len()).sum()
}

fn check_points(points: usize) -> Result<(), Status> {
    if points > POINTS_MAX {
        let why = format!(
            "the answer has {points} points, at most {POINTS_MAX} are sent: aggregate, or step wider"
        );
        return Err(reason::limit(TOO_MANY_POINTS, POINTS_MAX as u64, why));
    }
    Ok(())
}
