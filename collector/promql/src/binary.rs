//! Binary operators: on floats here, between vectors in `matching`, `and`, `or` and `unless` in `set`.

mod matching;
mod set;

use tocsin_shared::labels::METRIC_NAME;

use crate::eval::{ABSENT, Block, Doubt, EvalError, Scalars};
use crate::plan::{Binary, Operator};

/// An operator between two scalars; comparisons give 0 or 1.
pub(crate) fn scalar(operator: Operator, a: f64, b: f64) -> f64 {
    if operator.is_comparison() { f64::from(compare(operator, a, b)) } else { arithmetic(operator, a, b) }
}

fn arithmetic(operator: Operator, a: f64, b: f64) -> f64 {
    match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Modulo => a % b,
        Operator::Power => a.powf(b),
        Operator::Atan2 => a.atan2(b),
        // The planner sends comparisons to `compare` and set operators to `set`.
        _ => f64::NAN,
    }
}

fn compare(operator: Operator, a: f64, b: f64) -> bool {
    match operator {
        Operator::Equal => a == b,
        Operator::NotEqual => a != b,
        Operator::Less => a < b,
        Operator::LessOrEqual => a <= b,
        Operator::Greater => a > b,
        Operator::GreaterOrEqual => a >= b,
        _ => false,
    }
}

/// What a filter leaves of an element with this value.
fn filtered(operator: Operator, (left, right): (f64, f64), value: f64, doubt: &Doubt) -> f64 {
    let kept = if compare(operator, left, right) { value } else { ABSENT };
    if left.is_nan() || right.is_nan() { doubt.filtered(kept) } else { kept }
}

/// What an operator gives for two elements: a value, or `ABSENT` where a filter drops the element.
fn elements(node: &Binary, left: f64, right: f64, doubt: &Doubt) -> f64 {
    match (node.operator.is_comparison(), node.to_bool) {
        (false, _) => arithmetic(node.operator, left, right),
        (true, true) => f64::from(compare(node.operator, left, right)),
        (true, false) => filtered(node.operator, (left, right), left, doubt),
    }
}

/// Whether the result is something else than the left element, so that its metric name goes.
fn changes_meaning(node: &Binary) -> bool {
    node.to_bool || !node.operator.is_comparison()
}

/// Whether metric names decide what meets, or are copied from one side to the other.
pub(crate) fn reads_names(node: &Binary) -> bool {
    node.include.iter().any(|name| **name == *METRIC_NAME) || node.matching.keeps(METRIC_NAME)
}

/// A vector and a scalar. A filter keeps the vector's value, whichever side it is on.
pub(crate) fn with_scalar(
    node: &Binary,
    mut block: Block,
    (scalars, scalar_left): (&Scalars, bool),
    doubt: &Doubt,
) -> Result<Block, EvalError> {
    let filters = node.operator.is_comparison() && !node.to_bool;
    block.map(|step, value| {
        let other = scalars.at(step);
        let (left, right) = if scalar_left { (other, value) } else { (value, other) };
        match filters {
            false => elements(node, left, right, doubt),
            true => filtered(node.operator, (left, right), value, doubt),
        }
    });
    if filters {
        block.compact();
    }
    if changes_meaning(node) { block.drop_names() } else { Ok(block) }
}

/// Two vectors. `charge` counts the points of results that can have more series than either side.
pub(crate) fn vectors(
    node: &Binary,
    (left, right): (Block, Block),
    charge: &dyn Fn(usize) -> Result<(), EvalError>,
    doubt: &Doubt,
) -> Result<Block, EvalError> {
    if node.operator.is_set() {
        set::combine(node, left, right, doubt)
    } else {
        matching::combine(node, left, right, (charge, doubt))
    }
}
