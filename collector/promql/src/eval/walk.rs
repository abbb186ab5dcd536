//! The walk over the plan: one evaluation of each node, for all steps.

use std::cell::Cell;

use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::sample::is_stale;

use super::{ABSENT, Block, Doubt, EvalError, Scalars};
use crate::aggregate;
use crate::annotations::Notes;
use crate::binary;
use crate::expr::Expr;
use crate::functions::{histogram, labels, math};
use crate::places::Place;
use crate::plan::{
    Aggregate, AggregateFunction, At, Binary, Clock, EachFunction, Fetch, Kind, Node, Operator, Shift, Window,
};
use crate::source::{Options, Source};

/// The instants a node is evaluated at, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    /// At least 1.
    pub(crate) count: usize,
}

impl Grid {
    pub(crate) fn at(self, step: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(step as i64))
    }

    pub(crate) fn last(self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }
}

/// One evaluation of one expression.
pub(crate) struct Evaluator<'a> {
    pub(super) expr: &'a Expr,
    pub(super) source: &'a dyn Source,
    pub(super) options: &'a Options<'a>,
    pub(super) notes: &'a Notes,
    doubt: &'a Doubt,
    whole: Grid,
    end: i64,
    samples: Cell<u64>,
    visits: Cell<u64>,
    /// Work done since `stop` was asked last.
    unasked: Cell<usize>,
}

/// How often a sample may be visited, on average over all that `Limits::samples` allows: overlapping windows visit it
/// at every step. 100 × 50 M visits are some 5 to 10 seconds of one core.
const VISITS_PER_SAMPLE: u64 = 100;

/// Samples between two questions whether to stop: under a millisecond, and asking may read a clock.
const ASK_AFTER: usize = 100_000;
/// What a call costs beside its samples, in samples: a series has labels to be looked at.
const CALL_WORK: usize = 20;

impl<'a> Evaluator<'a> {
    /// `whole` are the steps of the query, `end` its end, which the last step may miss.
    pub(crate) fn new(
        expr: &'a Expr,
        source: &'a dyn Source,
        (options, notes): (&'a Options<'a>, &'a Notes),
        doubt: &'a Doubt,
        (whole, end): (Grid, i64),
    ) -> Self {
        let (samples, visits, unasked) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { expr, source, options, notes, doubt, whole, end, samples, visits, unasked }
    }

    pub(crate) fn grid(&self) -> Grid {
        self.whole
    }

    /// Counts samples read or points made against the limit.
    pub(super) fn charge(&self, samples: usize) -> Result<(), EvalError> {
        let total = self.samples.get().saturating_add(samples as u64);
        self.samples.set(total);
        let limit = self.options.limits.samples;
        if limit < total {
            return Err(EvalError::TooManySamples { limit });
        }
        self.go_on(samples)
    }

    /// Asks whether to stop, after so much work since it was last asked; some work comes with every call.
    pub(super) fn go_on(&self, work: usize) -> Result<(), EvalError> {
        let unasked = self.unasked.get().saturating_add(work).saturating_add(CALL_WORK);
        if unasked < ASK_AFTER {
            self.unasked.set(unasked);
            return Ok(());
        }
        self.unasked.set(0);
        if (self.options.stop)() { Err(EvalError::Stopped) } else { Ok(()) }
    }

    /// Counts samples visited by windows: work, where `charge` counts memory.
    pub(super) fn charge_visits(&self, samples: u64) -> Result<(), EvalError> {
        let total = self.visits.get().saturating_add(samples);
        self.visits.set(total);
        if self.options.limits.samples.saturating_mul(VISITS_PER_SAMPLE) < total {
            return Err(EvalError::TooMuchWork);
        }
        self.go_on(usize::try_from(samples).unwrap_or(usize::MAX))
    }

    /// Where a step at `at` looks after `@` and `offset`.
    pub(super) fn look(&self, shift: Shift, at: i64) -> i64 {
        let base = match shift.at {
            None => at,
            Some(At::Fixed(fixed)) => fixed,
            Some(At::Start) => self.whole.start,
            Some(At::End) => self.end,
        };
        base.saturating_sub(shift.offset)
    }

    pub(crate) fn scalars(&self, node: &Node, grid: Grid) -> Result<Scalars, EvalError> {
        let seconds = |ms: i64| Scalars::Same(ms as f64 / 1000.0);
        Ok(match node {
            Node::Number(value) => Scalars::Same(*value),
            Node::Clock(Clock::Now) => Scalars::each(grid.count, |step| grid.at(step) as f64 / 1000.0),
            Node::Clock(Clock::Start) => seconds(self.whole.start),
            Node::Clock(Clock::End) => seconds(self.end),
            Node::Clock(Clock::Step) => seconds(self.whole.step),
            Node::Clock(Clock::Range) => seconds(self.end.saturating_sub(self.whole.start)),
            Node::Negate(inner) => {
                let inner = self.scalars(inner, grid)?;
                inner.zip(&inner, grid.count, |value, _| -value)
            }
            Node::Extreme { largest, left, right } => {
                let (left, right) = (self.scalars(left, grid)?, self.scalars(right, grid)?);
                left.zip(&right, grid.count, if *largest { math::max } else { math::min })
            }
            Node::Binary(binary) => {
                let (left, right) = (self.scalars(&binary.left, grid)?, self.scalars(&binary.right, grid)?);
                left.zip(&right, grid.count, |a, b| binary::scalar(binary.operator, a, b))
            }
            Node::Scalar(inner) => only_element(&self.unsettled(inner, grid)?),
            _ => unreachable!("the planner puts scalar nodes where scalars are wanted"),
        })
    }

    pub(crate) fn vector(&self, node: &Node, grid: Grid) -> Result<Block, EvalError> {
        self.unsettled(node, grid).map(Block::settle)
    }

    /// As `vector`, for a reader that looks at no metric name, or at `Block::nameless`.
    /// One arm per kind of node, each a call, so that a level of recursion takes little stack.
    fn unsettled(&self, node: &Node, grid: Grid) -> Result<Block, EvalError> {
        self.go_on(0)?;
        match node {
            Node::Select(fetch) => self.fetch(fetch, grid, |_, value| value),
            Node::SampleTime(fetch) => self.sample_times(fetch, grid),
            Node::OverWindow { function, window, parameters, place } => {
                let block = self.over_window((*function, *place), window, parameters, grid)?;
                if function.keeps_name() { Ok(block) } else { block.drop_names() }
            }
            Node::Absent { inner, labels } => self.absent(inner, labels, grid),
            Node::AbsentOverTime { window, labels } => self.absent_over_time(window, labels, grid),
            Node::Each { function, input, parameters } => {
                self.each(*function, input, parameters, grid)?.drop_names()
            }
            Node::Vector(inner) => self.vector_of(inner, grid),
            Node::Replace(replace) => labels::replace(replace, self.vector(&replace.input, grid)?),
            Node::Join(join) => labels::join(join, self.vector(&join.input, grid)?),
            Node::Sort { input, descending } => Ok(math::sort(self.unsettled(input, grid)?, *descending)),
            Node::HistogramQuantile { quantile, input, places } => {
                self.histogram_quantile(quantile, input, *places, grid)
            }
            Node::HistogramFraction { bounds, input, place } => {
                self.histogram_fraction(bounds, input, *place, grid)
            }
            Node::Negate(inner) => self.negate(inner, grid),
            Node::Binary(binary) => self.binary(binary, grid),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, grid),
            _ => unreachable!("the planner puts vector nodes where vectors are wanted"),
        }
    }

    fn sample_times(&self, fetch: &Fetch, grid: Grid) -> Result<Block, EvalError> {
        self.fetch(fetch, grid, |time, _| time as f64 / 1000.0)?.drop_names()
    }

    fn absent(&self, inner: &Node, labels: &Labels, grid: Grid) -> Result<Block, EvalError> {
        let block = self.doubt.turned(|| self.unsettled(inner, grid))?;
        let present = |step: usize| (0..block.len()).any(|at| !is_stale(block.row(at)[step]));
        Ok(missing(labels, (0..grid.count).map(present), grid))
    }

    fn absent_over_time(&self, window: &Window, labels: &Labels, grid: Grid) -> Result<Block, EvalError> {
        let present = self.doubt.turned(|| self.presence(window, grid))?;
        Ok(missing(labels, present.into_iter(), grid))
    }

    fn each(
        &self,
        function: EachFunction,
        input: &Node,
        parameters: &[Node],
        grid: Grid,
    ) -> Result<Block, EvalError> {
        let mut block = self.unsettled(input, grid)?;
        let parameters: Result<Vec<_>, _> = parameters.iter().map(|node| self.scalars(node, grid)).collect();
        math::each(function, &mut block, &parameters?, grid);
        Ok(block)
    }

    fn vector_of(&self, inner: &Node, grid: Grid) -> Result<Block, EvalError> {
        let scalars = self.scalars(inner, grid)?;
        Ok(Block::one(Labels::empty(), (0..grid.count).map(|step| scalars.at(step)), grid.count))
    }

    fn histogram_quantile(
        &self,
        quantile: &Node,
        input: &Node,
        places: [Option<Place>; 2],
        grid: Grid,
    ) -> Result<Block, EvalError> {
        let quantile = self.scalars(quantile, grid)?;
        self.note_quantiles(&quantile, places[0], grid);
        let block = self.unsettled(input, grid)?;
        let scope = histogram::Scope { notes: self.notes, place: places[1], go_on: &|work| self.go_on(work) };
        histogram::quantiles(&quantile, &block, grid, &scope)
    }

    fn histogram_fraction(
        &self,
        [lower, upper]: &[Node; 2],
        input: &Node,
        place: Option<Place>,
        grid: Grid,
    ) -> Result<Block, EvalError> {
        let bounds = [self.scalars(lower, grid)?, self.scalars(upper, grid)?];
        let block = self.unsettled(input, grid)?;
        let scope = histogram::Scope { notes: self.notes, place, go_on: &|work| self.go_on(work) };
        histogram::fractions(&bounds, &block, &scope)
    }

    pub(super) fn note_quantiles(&self, quantile: &Scalars, place: Option<Place>, grid: Grid) {
        if self.notes.listens() {
            (0..grid.count).for_each(|step| self.notes.quantile(quantile.at(step), place));
        }
    }

    fn negate(&self, inner: &Node, grid: Grid) -> Result<Block, EvalError> {
        let mut block = self.unsettled(inner, grid)?;
        block.map(|_, value| -value);
        block.drop_names()
    }

    fn aggregate(&self, node: &Aggregate, grid: Grid) -> Result<Block, EvalError> {
        let block = self.for_labels(&node.input, grid, node.grouping.keeps(METRIC_NAME))?;
        let parameter = node.parameter.as_ref().map(|node| self.scalars(node, grid)).transpose()?;
        if let (AggregateFunction::Quantile, Some(quantile)) = (&node.function, &parameter) {
            self.note_quantiles(quantile, node.parameter_place, grid);
        }
        aggregate::aggregate(&node.function, &node.grouping, parameter, block, &|samples| {
            self.charge(samples)
        })
    }

    fn for_labels(&self, node: &Node, grid: Grid, names: bool) -> Result<Block, EvalError> {
        if names { self.vector(node, grid) } else { self.unsettled(node, grid) }
    }

    fn binary(&self, node: &Binary, grid: Grid) -> Result<Block, EvalError> {
        match (node.left.kind(), node.right.kind()) {
            (Kind::Scalar, _) => {
                let left = self.scalars(&node.left, grid)?;
                binary::with_scalar(node, self.unsettled(&node.right, grid)?, (&left, true), self.doubt)
            }
            (_, Kind::Scalar) => {
                let right = self.scalars(&node.right, grid)?;
                binary::with_scalar(node, self.unsettled(&node.left, grid)?, (&right, false), self.doubt)
            }
            _ => {
                let names = binary::reads_names(node);
                let left = self.for_labels(&node.left, grid, names)?;
                let right = || self.for_labels(&node.right, grid, names);
                let right =
                    if node.operator == Operator::Unless { self.doubt.turned(right) } else { right() };
                binary::vectors(node, (left, right?), &|samples| self.charge(samples), self.doubt)
            }
        }
    }
}

/// `scalar()`: the value of a vector's only element, else NaN.
fn only_element(block: &Block) -> Scalars {
    Scalars::each(block.steps, |step| {
        let mut present = (0..block.len()).map(|at| block.row(at)[step]).filter(|value| !is_stale(*value));
        match (present.next(), present.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    })
}

/// 1 where nothing is present.
fn missing(labels: &Labels, present: impl Iterator<Item = bool>, grid: Grid) -> Block {
    Block::one(labels.clone(), present.map(|present| if present { ABSENT } else { 1.0 }), grid.count)
}
