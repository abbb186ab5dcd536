//! What an expression says of numbers that are none (NaN), to whoever acts on it.
//!
//! PromQL drops an element from a filtering comparison when an operand is NaN, and keeps it for `!=`. That is right for
//! a graph; for an alert it would make "no number" the same as "all is well". So an evaluation notes that a filter met
//! NaN, and `weigh` reads the expression twice more: with every such comparison failing, and with every one holding.
//! What Prometheus gives and both readings give is certain; what only some of them give is doubtful. The right side of
//! `unless` and what `absent` looks at are read the other way round, because less there is more in the result.
//! Promise: whatever numbers stood in the place of NaN, the certain elements would be in the result, and beside them
//! none but doubtful ones; for comparisons of what is computed without a filter, under any `and`, `or`, `unless` and
//! `absent`. Where filters are computed with again (`count(x > 1) > 3`), it holds as far as more elements that pass a
//! filter mean a larger number.
//! Left out, and as in Prometheus: `min`, `max`, `topk` and their like pass NaN over, and `bool` makes a number of it,
//! so that `(x != bool x) == 1` finds it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;

use super::{ABSENT, Element, EvalError, Value, at_instant};
use crate::annotations::Notes;
use crate::expr::Expr;
use crate::source::{Limits, Options, Source};

/// How a filter reads a comparison with NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// As Prometheus does.
    Plain,
    /// As one that does not hold.
    Fails,
    /// As one that holds, of an element whose value is not known.
    Holds,
}

/// How comparisons with NaN are read at this place of the expression, and whether there was one.
#[derive(Debug)]
pub(crate) struct Doubt {
    reading: Cell<Reading>,
    met: Cell<bool>,
}

impl Doubt {
    /// As Prometheus reads NaN.
    pub(super) fn plain() -> Self {
        Self::reading(Reading::Plain)
    }

    fn reading(reading: Reading) -> Self {
        Self { reading: Cell::new(reading), met: Cell::new(false) }
    }

    /// What a filter leaves of an element when an operand is NaN; `plain` is what Prometheus leaves.
    pub(crate) fn filtered(&self, plain: f64) -> f64 {
        self.met.set(true);
        match self.reading.get() {
            Reading::Plain => plain,
            Reading::Fails => ABSENT,
            Reading::Holds => f64::NAN,
        }
    }

    /// Whether a number is to be preferred where `or` has the choice: an element that only may be hides none that is.
    pub(crate) fn prefers_numbers(&self) -> bool {
        self.reading.get() == Reading::Holds
    }

    /// Runs what makes the result smaller when it gets larger itself.
    pub(crate) fn turned<T>(&self, run: impl FnOnce() -> T) -> T {
        let reading = self.reading.get();
        self.reading.set(match reading {
            Reading::Plain => Reading::Plain,
            Reading::Fails => Reading::Holds,
            Reading::Holds => Reading::Fails,
        });
        let result = run();
        self.reading.set(reading);
        result
    }
}

/// A result as Prometheus gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub value: Value,
    /// A filter met NaN, or an element is NaN: not all of it need be so. `weigh` tells what is.
    pub in_doubt: bool,
}

/// Evaluates an expression at one instant and tells whether NaN had a say in it.
pub fn judge(expr: &Expr, source: &dyn Source, at: Timestamp, limits: &Limits) -> Result<Judged, EvalError> {
    let doubt = Doubt::plain();
    let value = at_instant(expr, source, at, (&Options::limited(limits), &Notes::deaf()), &doubt)?;
    let none = match &value {
        Value::Vector(elements) => elements.iter().any(|element| element.value.is_nan()),
        Value::Scalar(value) => value.is_nan(),
        Value::Matrix(_) | Value::Text(_) => false,
    };
    Ok(Judged { value, in_doubt: none || doubt.met.get() })
}

/// The elements of a result, by what is known of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weighed {
    /// So, whatever the numbers are that are none.
    pub certain: Vec<Element>,
    /// So or not: it depends on them. Without metric names.
    pub doubtful: Vec<Labels>,
}

/// Weighs the elements that `judge` gave at the same instant over the same samples.
pub fn weigh(
    expr: &Expr,
    source: &dyn Source,
    at: Timestamp,
    limits: &Limits,
    elements: Vec<Element>,
) -> Result<Weighed, EvalError> {
    let options = Options::limited(limits);
    let read = |reading| {
        let doubt = Doubt::reading(reading);
        at_instant(expr, source, at, (&options, &Notes::deaf()), &doubt).map(by_labels)
    };
    let readings = [read(Reading::Fails)?, read(Reading::Holds)?];
    let number = |reading: &HashMap<Labels, f64>, labels: &Labels| {
        reading.get(labels).is_some_and(|value| !value.is_nan())
    };
    let (mut certain, mut seen, mut doubtful) = (Vec::new(), HashSet::new(), Vec::new());
    for element in elements {
        let labels = nameless(&element.labels);
        let is_certain = !element.value.is_nan() && readings.iter().all(|reading| number(reading, &labels));
        if is_certain {
            certain.push(element);
        } else {
            doubtful.push(labels.clone());
        }
        seen.insert(labels);
    }
    let maybe = readings.into_iter().flat_map(HashMap::into_keys);
    doubtful.extend(maybe.filter(|labels| seen.insert(labels.clone())));
    Ok(Weighed { certain, doubtful })
}

fn by_labels(value: Value) -> HashMap<Labels, f64> {
    match value {
        Value::Vector(elements) => {
            elements.into_iter().map(|element| (nameless(&element.labels), element.value)).collect()
        }
        Value::Scalar(value) => HashMap::from([(Labels::empty(), value)]),
        Value::Matrix(_) | Value::Text(_) => HashMap::new(),
    }
}

/// `a > 1 or b > 1` may say the same of either.
fn nameless(labels: &Labels) -> Labels {
    labels.without(|name| name == METRIC_NAME)
}
