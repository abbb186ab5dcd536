//! Evaluation: an expression over a source, at one instant or at every step of a range.
//!
//! A node is evaluated once for all steps together, so each selector is read once per evaluation however many steps
//! there are; an instant is a range of one step. Promise: what `range` gives at a step is what `instant` gives there.

mod block;
mod doubt;
mod walk;
mod window;

use std::time::Duration;

use tocsin_shared::labels::Labels;
use tocsin_shared::sample::{Sample, is_stale};
use tocsin_shared::time::Timestamp;

use crate::annotations::{Annotations, Notes};
use crate::expr::Expr;
use crate::plan::{Kind, Node};
use crate::source::{Limits, Options, Source};

pub(crate) use block::{ABSENT, Block, Scalars};
pub(crate) use doubt::Doubt;
pub use doubt::{Judged, Weighed, judge, weigh};
pub(crate) use walk::{Evaluator, Grid};

/// The result of an evaluation at one instant.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(f64),
    Vector(Vec<Element>),
    Matrix(Vec<SeriesPoints>),
    Text(String),
}

/// One element of an instant vector. Its time is the instant of evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub labels: Labels,
    pub value: f64,
}

/// A series of results, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesPoints {
    pub labels: Labels,
    pub points: Vec<Sample>,
}

/// A result with what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    pub value: T,
    pub annotations: Annotations,
}

/// Why an expression has no result over this data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    #[error("the query would read more than {limit} samples; narrow its selectors or its time range")]
    TooManySamples { limit: u64 },
    #[error(
        "the query's windows overlap at too many steps; use a longer step, a shorter window or a recording rule"
    )]
    TooMuchWork,
    #[error("the query selects more than {limit} series; narrow its selectors")]
    TooManySeries { limit: usize },
    #[error("the range has {steps} steps, at most {limit} are allowed; use a longer step")]
    TooManySteps { steps: u64, limit: usize },
    #[error("the range ends before it starts")]
    InvalidRange,
    #[error("the step of a range must be at least a millisecond")]
    InvalidStep,
    #[error("a range needs a scalar or an instant vector, and the expression gives {0}")]
    NotSteppable(&'static str),
    #[error("vector cannot contain metrics with the same labelset: {labels} comes up twice")]
    SameLabels { labels: Labels },
    #[error(
        "many-to-many matching not allowed: {first} and {second} match the same elements of the other side"
    )]
    ManyToMany { first: Labels, second: Labels, group: Labels, side: Side },
    #[error(
        "many-to-one matching must be explicit (group_left or group_right): {first} and {second} match one element"
    )]
    ManyToOne { first: Labels, second: Labels },
    #[error("grouping labels must ensure unique matches: {labels} comes up twice")]
    GroupingNotUnique { labels: Labels },
    #[error("{0}")]
    Parameter(String),
    #[error("the query was stopped before its end: it ran out of time, or its caller left")]
    Stopped,
}

/// A side of a binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    /// `left` or `right`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// Evaluates an expression at one instant.
pub fn instant(expr: &Expr, source: &dyn Source, at: Timestamp, limits: &Limits) -> Result<Value, EvalError> {
    at_instant(expr, source, at, (&Options::limited(limits), &Notes::deaf()), &Doubt::plain())
}

/// Evaluates an expression at one instant, and tells what is to be said of the result.
pub fn instant_with(
    expr: &Expr,
    source: &dyn Source,
    at: Timestamp,
    options: &Options<'_>,
) -> Result<Answer<Value>, EvalError> {
    let notes = Notes::listening();
    let value = at_instant(expr, source, at, (options, &notes), &Doubt::plain())?;
    Ok(Answer { value, annotations: notes.into_annotations(expr.text()) })
}

fn at_instant(
    expr: &Expr,
    source: &dyn Source,
    at: Timestamp,
    scope: (&Options<'_>, &Notes),
    doubt: &Doubt,
) -> Result<Value, EvalError> {
    let at = at.as_millis();
    let whole = Grid { start: at, step: 0, count: 1 };
    let evaluator = Evaluator::new(expr, source, scope, doubt, (whole, at));
    let grid = evaluator.grid();
    Ok(match expr.root() {
        Node::Text(text) => Value::Text(text.to_string()),
        Node::Window(window) => Value::Matrix(evaluator.matrix(window)?),
        root if root.kind() == Kind::Scalar => Value::Scalar(evaluator.scalars(root, grid)?.at(0)),
        root => {
            let Block { labels, values, .. } = evaluator.vector(root, grid)?;
            let present = labels.into_iter().zip(values).filter(|(_, value)| !is_stale(*value));
            Value::Vector(present.map(|(labels, value)| Element { labels, value }).collect())
        }
    })
}

/// Evaluates an expression at `start`, `start + step`, … up to `end`. Series are sorted by their labels.
pub fn range(
    expr: &Expr,
    source: &dyn Source,
    start: Timestamp,
    end: Timestamp,
    step: Duration,
    limits: &Limits,
) -> Result<Vec<SeriesPoints>, EvalError> {
    let grid = grid(start.as_millis(), end.as_millis(), step, limits)?;
    at_steps(expr, source, (&Options::limited(limits), &Notes::deaf()), (grid, end.as_millis()))
}

/// As `range`, and tells what is to be said of the result.
pub fn range_with(
    expr: &Expr,
    source: &dyn Source,
    (start, end): (Timestamp, Timestamp),
    step: Duration,
    options: &Options<'_>,
) -> Result<Answer<Vec<SeriesPoints>>, EvalError> {
    let grid = grid(start.as_millis(), end.as_millis(), step, &options.limits)?;
    let notes = Notes::listening();
    let value = at_steps(expr, source, (options, &notes), (grid, end.as_millis()))?;
    Ok(Answer { value, annotations: notes.into_annotations(expr.text()) })
}

fn at_steps(
    expr: &Expr,
    source: &dyn Source,
    scope: (&Options<'_>, &Notes),
    (grid, end): (Grid, i64),
) -> Result<Vec<SeriesPoints>, EvalError> {
    let doubt = Doubt::plain();
    let evaluator = Evaluator::new(expr, source, scope, &doubt, (grid, end));
    let block = match expr.root().kind() {
        Kind::Vector => evaluator.vector(expr.root(), grid)?,
        Kind::Scalar => {
            let scalars = evaluator.scalars(expr.root(), grid)?;
            Block::one(Labels::empty(), (0..grid.count).map(|step| scalars.at(step)), grid.count)
        }
        other => return Err(EvalError::NotSteppable(other.name())),
    };
    let mut series: Vec<SeriesPoints> =
        block.rows().filter_map(|(labels, row)| points(labels, row, grid)).collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(series)
}

fn points(labels: &Labels, row: &[f64], grid: Grid) -> Option<SeriesPoints> {
    let present = row.iter().enumerate().filter(|(_, value)| !is_stale(**value));
    let sample =
        |(step, value): (usize, &f64)| Sample { at: Timestamp::from_millis(grid.at(step)), value: *value };
    let points: Vec<Sample> = present.map(sample).collect();
    (!points.is_empty()).then(|| SeriesPoints { labels: labels.clone(), points })
}

fn grid(start: i64, end: i64, step: Duration, limits: &Limits) -> Result<Grid, EvalError> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
    if step == 0 {
        return Err(EvalError::InvalidStep);
    }
    if end < start {
        return Err(EvalError::InvalidRange);
    }
    let steps = end.abs_diff(start) / step.unsigned_abs() + 1;
    match usize::try_from(steps) {
        Ok(count) if count <= limits.steps => Ok(Grid { start, step, count }),
        _ => Err(EvalError::TooManySteps { steps, limit: limits.steps }),
    }
}
