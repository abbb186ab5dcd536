//! Functions of one value, and the order of a vector.

use tocsin_shared::sample::is_stale;

use crate::eval::{ABSENT, Block, Grid, Scalars};
use crate::plan::EachFunction;

/// The functions that need nothing but the value.
pub(crate) fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sqrt" => f64::sqrt,
        "sgn" => sign,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => f64::to_degrees,
        "rad" => f64::to_radians,
        _ => return None,
    })
}

/// Applies a function to every value of a block; what has no result is absent.
pub(crate) fn each(function: EachFunction, block: &mut Block, parameters: &[Scalars], grid: Grid) {
    let parameter = |at: usize, step: usize| parameters[at].at(step);
    match function {
        EachFunction::Plain(f) => block.map(|_, value| f(value)),
        EachFunction::StepTime => block.map(|step, _| grid.at(step) as f64 / 1000.0),
        EachFunction::ClampMin => block.map(|step, value| max(value, parameter(0, step))),
        EachFunction::ClampMax => block.map(|step, value| min(value, parameter(0, step))),
        EachFunction::Clamp => block.map(|step, value| {
            let (low, high) = (parameter(0, step), parameter(1, step));
            if high < low { ABSENT } else { max(low, min(high, value)) }
        }),
        EachFunction::Round => block.map(|step, value| {
            // Dividing by the inverse rounds 0.1 and its like better than multiplying.
            let inverse = 1.0 / parameter(0, step);
            (value * inverse + 0.5).floor() / inverse
        }),
    }
}

fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if 0.0 < value {
        1.0
    } else {
        value
    }
}

/// The larger one; NaN if either is.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller one; NaN if either is.
pub(crate) fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Ascending or descending, NaN last either way.
pub(crate) fn order(a: f64, b: f64, descending: bool) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) if descending => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
        (a, b) => a.cmp(&b),
    }
}

/// Sorts a vector by value. A range has no one order, so it stays as it is.
pub(crate) fn sort(block: Block, descending: bool) -> Block {
    if block.steps != 1 {
        return block;
    }
    let nameless = block.nameless;
    let mut rows: Vec<_> =
        block.labels.into_iter().zip(block.values).filter(|(_, v)| !is_stale(*v)).collect();
    rows.sort_by(|a, b| order(a.1, b.1, descending));
    let (labels, values) = rows.into_iter().unzip();
    Block { steps: 1, labels, values, nameless }
}
