//! Binary operators: on floats here, between vectors in `matching`, `and`, `or` and `unless` in `set`.

mod matching;
mod set;

use tocsin_shared::labels::METRIC_NAME;

use crate::eval::{ABSENT, Block, EvalError, Scalars};
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

/// What an operator gives for two elements: a value, or `ABSENT` where a filter drops the element.
fn elements(node: &Binary, left: f64, right: f64) -> f64 {
    let operator = node.operator;
    if !operator.is_comparison() {
        return arithmetic(operator, left, right);
    }
    match (compare(operator, left, right), node.to_bool) {
        (kept, true) => f64::from(kept),
        (true, false) => left,
        (false, false) => ABSENT,
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
    scalars: &Scalars,
    scalar_left: bool,
) -> Result<Block, EvalError> {
    let filters = node.operator.is_comparison() && !node.to_bool;
    block.map(|step, value| {
        let other = scalars.at(step);
        let (left, right) = if scalar_left { (other, value) } else { (value, other) };
        match filters {
            false => elements(node, left, right),
            true if compare(node.operator, left, right) => value,
            true => ABSENT,
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
    left: Block,
    right: Block,
    charge: &dyn Fn(usize) -> Result<(), EvalError>,
) -> Result<Block, EvalError> {
    if node.operator.is_set() {
        set::combine(node, left, right)
    } else {
        matching::combine(node, left, right, charge)
    }
}
