//! What an expression does: the tree that is evaluated, with every name looked up and every pattern compiled.
//!
//! `build` makes it from the parser's tree; `reach` answers what can be known without samples.

mod build;
mod call;
mod reach;

use regex::Regex;
use tocsin_shared::labels::Labels;

pub(crate) use build::{build, experimental};
pub(crate) use reach::{is_host_local, longest_range};

use crate::functions::rate::Growth;
use crate::labelling::Filter;
use crate::places::Place;

/// What a node gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Vector,
    Matrix,
    Text,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scalar => "a scalar",
            Self::Vector => "an instant vector",
            Self::Matrix => "a range vector",
            Self::Text => "a string",
        }
    }
}

/// A moment fixed by `@`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Fixed(i64),
    Start,
    End,
}

/// Where a selector or window looks, relative to the step. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    pub(crate) at: Option<At>,
    pub(crate) offset: i64,
}

/// An instant selector.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) selector: usize,
    pub(crate) shift: Shift,
}

/// A range of samples per series: `x[5m]` or `(…)[1h:1m]`. Milliseconds.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) input: WindowInput,
    pub(crate) range: i64,
    pub(crate) shift: Shift,
}

#[derive(Debug)]
pub(crate) enum WindowInput {
    Selector(usize),
    Subquery { inner: Box<Node>, step: i64 },
}

#[derive(Debug)]
pub(crate) enum Node {
    Number(f64),
    Text(Box<str>),
    Clock(Clock),
    /// `min_of`, `max_of`.
    Extreme {
        largest: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    Select(Fetch),
    /// `timestamp(selector)`: the samples' own times.
    SampleTime(Fetch),
    /// Only as the whole expression.
    Window(Box<Window>),
    OverWindow {
        function: WindowFunction,
        window: Box<Window>,
        parameters: Vec<Node>,
        /// Of the first argument.
        place: Option<Place>,
    },
    Absent {
        inner: Box<Node>,
        labels: Labels,
    },
    AbsentOverTime {
        window: Box<Window>,
        labels: Labels,
    },
    Each {
        function: EachFunction,
        input: Box<Node>,
        parameters: Vec<Node>,
    },
    Scalar(Box<Node>),
    Vector(Box<Node>),
    Replace(Box<Replace>),
    Join(Box<Join>),
    Sort {
        input: Box<Node>,
        descending: bool,
    },
    HistogramQuantile {
        quantile: Box<Node>,
        input: Box<Node>,
        /// Of both arguments.
        places: [Option<Place>; 2],
    },
    HistogramFraction {
        bounds: Box<[Node; 2]>,
        input: Box<Node>,
        place: Option<Place>,
    },
    Negate(Box<Node>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
}

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Number(_) | Self::Clock(_) | Self::Extreme { .. } | Self::Scalar(_) => Kind::Scalar,
            Self::Text(_) => Kind::Text,
            Self::Window(_) => Kind::Matrix,
            Self::Negate(inner) => inner.kind(),
            Self::Binary(binary) => match (binary.left.kind(), binary.right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            _ => Kind::Vector,
        }
    }
}

/// Scalars that come from the evaluation itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    Now,
    Start,
    End,
    Step,
    Range,
}

/// Functions of a window of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Deriv,
    PredictLinear,
    Changes,
    Resets,
    Avg,
    Sum,
    Min,
    Max,
    Count,
    First,
    Last,
    Present,
    Quantile,
    Stddev,
    Stdvar,
    Mad,
    TimeOfFirst,
    TimeOfLast,
    TimeOfMin,
    TimeOfMax,
    Smooth,
}

impl WindowFunction {
    /// The result of these is the series' own sample, so it keeps the series' name.
    pub(crate) fn keeps_name(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }

    /// What growth is asked for, if any.
    pub(crate) fn growth(self) -> Option<Growth> {
        match self {
            Self::Rate => Some(Growth { counter: true, per_second: true }),
            Self::Increase => Some(Growth { counter: true, per_second: false }),
            Self::Delta => Some(Growth { counter: false, per_second: false }),
            _ => None,
        }
    }
}

/// Functions of one value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EachFunction {
    Plain(fn(f64) -> f64),
    Round,
    Clamp,
    ClampMin,
    ClampMax,
    /// `timestamp()` of anything but a selector: the time of the step.
    StepTime,
}

/// `label_replace`.
#[derive(Debug)]
pub(crate) struct Replace {
    pub(crate) input: Node,
    pub(crate) target: Box<str>,
    pub(crate) replacement: Box<str>,
    pub(crate) source: Box<str>,
    pub(crate) pattern: Regex,
}

/// `label_join`.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) input: Node,
    pub(crate) target: Box<str>,
    pub(crate) separator: Box<str>,
    pub(crate) sources: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    pub(crate) fn is_comparison(self) -> bool {
        use Operator::*;
        matches!(self, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual)
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) operator: Operator,
    pub(crate) left: Node,
    pub(crate) right: Node,
    /// A comparison gives 0 or 1 instead of filtering.
    pub(crate) to_bool: bool,
    pub(crate) matching: Filter,
    pub(crate) many: Many,
    /// Labels copied from the "one" side.
    pub(crate) include: Vec<Box<str>>,
}

/// Which side may have several elements per match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Many {
    Neither,
    Left,
    Right,
}

#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) function: AggregateFunction,
    pub(crate) input: Node,
    /// `k` or the quantile.
    pub(crate) parameter: Option<Node>,
    pub(crate) parameter_place: Option<Place>,
    pub(crate) grouping: Filter,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AggregateFunction {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues(Box<str>),
}
