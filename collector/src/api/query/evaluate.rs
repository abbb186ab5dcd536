//! Evaluation: an expression over the sample store, and its result as the wire has it.

use std::time::Duration;

use tocsin_promql::{Element, EvalError, Expr, Limits, SeriesPoints, Value};
use tocsin_proto::convert::labels_out;
use tocsin_proto::pb;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::Sample;
use tocsin_shared::time::Timestamp;
use tonic::Status;

use super::super::refusal;
use crate::samples::{SelectError, Store};

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
pub(super) fn instant(store: &Store, expr: &Expr, at: Timestamp) -> Result<pb::InstantResponse, Status> {
    let limits = Limits::default();
    let view = store.view().with_samples_max(limits.samples);
    let value = tocsin_promql::instant(expr, &view, at, &limits);
    // A selection that failed is the cause of whatever else is wrong.
    view.take_error().map_or(Ok(()), |error| Err(unreadable(&error)))?;
    answer(value.map_err(|error| refused(&error))?, at)
}

/// Evaluates at every step of a range.
pub(super) fn range(store: &Store, expr: &Expr, steps: Steps) -> Result<Vec<pb::PointSeries>, Status> {
    let limits = Limits::default();
    let Steps { start, end, step } = steps;
    let view = store.view().with_samples_max(limits.samples);
    let series = tocsin_promql::range(expr, &view, start, end, step, &limits);
    view.take_error().map_or(Ok(()), |error| Err(unreadable(&error)))?;
    let series = series.map_err(|error| refused(&error))?;
    check_points(series.iter().map(|series| series.points.len()).sum())?;
    Ok(series.iter().map(series_out).collect())
}

fn answer(value: Value, at: Timestamp) -> Result<pb::InstantResponse, Status> {
    let at_ms = at.as_millis();
    let one = |labels: &Labels, value: f64| pb::PointSeries {
        labels: labels_out(labels),
        points: vec![pb::Point { at_ms, value }],
    };
    let (result_type, series, text) = match value {
        Value::Scalar(value) => ("scalar", vec![one(&Labels::empty(), value)], String::new()),
        Value::Vector(elements) => {
            check_points(elements.len())?;
            let series = elements.iter().map(|Element { labels, value }| one(labels, *value));
            ("vector", series.collect(), String::new())
        }
        Value::Matrix(series) => {
            check_points(series.iter().map(|series| series.points.len()).sum())?;
            ("matrix", series.iter().map(series_out).collect(), String::new())
        }
        Value::Text(text) => ("string", Vec::new(), text),
    };
    Ok(pb::InstantResponse { at_ms, result_type: result_type.to_owned(), series, text })
}

fn series_out(series: &SeriesPoints) -> pb::PointSeries {
    let SeriesPoints { labels, points } = series;
    let point = |Sample { at, value }: &Sample| pb::Point { at_ms: at.as_millis(), value: *value };
    pb::PointSeries { labels: labels_out(labels), points: points.iter().map(point).collect() }
}

fn check_points(points: usize) -> Result<(), Status> {
    if points > POINTS_MAX {
        let why = format!(
            "the answer has {points} points, at most {POINTS_MAX} are sent: aggregate, or step wider"
        );
        return Err(Status::resource_exhausted(why));
    }
    Ok(())
}

fn refused(error: &EvalError) -> Status {
    match error {
        EvalError::Stopped => Status::cancelled(error.to_string()),
        EvalError::TooMuchWork | EvalError::TooManySamples { .. } | EvalError::TooManySeries { .. } => {
            Status::resource_exhausted(error.to_string())
        }
        EvalError::TooManySteps { .. }
        | EvalError::InvalidRange
        | EvalError::InvalidStep
        | EvalError::NotSteppable(_)
        | EvalError::SameLabels { .. }
        | EvalError::ManyToMany { .. }
        | EvalError::ManyToOne { .. }
        | EvalError::GroupingNotUnique { .. }
        | EvalError::Parameter(_) => refusal::invalid(error),
    }
}

fn unreadable(error: &SelectError) -> Status {
    match error {
        SelectError::TooManySamples { .. } => Status::resource_exhausted(error.to_string()),
        SelectError::Block(_) | SelectError::Memory(_) => {
            tracing::error!(%error, "a query found damaged samples");
            Status::data_loss(error.to_string())
        }
    }
}
