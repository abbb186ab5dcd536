//! Aggregations: many elements become one per group, at each step. What picks or counts elements is in `rank`.

mod rank;

use tocsin_shared::sample::is_stale;

use crate::eval::{ABSENT, Block, EvalError, Scalars};
use crate::labelling::{Filter, Index};
use crate::plan::AggregateFunction;
use crate::sums::{Mean, Spread, Sum};

/// Aggregates a block. `parameter` is there for the functions that have one; `charge` counts the points of results
/// that can have more series than the input.
pub(crate) fn aggregate(
    function: &AggregateFunction,
    grouping: &Filter,
    parameter: Option<Scalars>,
    block: Block,
    charge: &dyn Fn(usize) -> Result<(), EvalError>,
) -> Result<Block, EvalError> {
    let parameter = parameter.unwrap_or(Scalars::Same(f64::NAN));
    Ok(match function {
        AggregateFunction::Sum => fold(&block, grouping, Sum::add, Sum::total),
        AggregateFunction::Avg => fold(&block, grouping, Mean::add, Mean::mean),
        AggregateFunction::Stdvar => fold(&block, grouping, Spread::add, Spread::variance),
        AggregateFunction::Stddev => fold(&block, grouping, Spread::add, |spread| spread.variance().sqrt()),
        AggregateFunction::Count => fold(&block, grouping, |count, _| *count += 1.0, |count: f64| count),
        AggregateFunction::Group => fold(&block, grouping, |_: &mut (), _| (), |()| 1.0),
        AggregateFunction::Min => {
            fold(&block, grouping, |least, value| beat(least, value, |a, b| a < b), reached)
        }
        AggregateFunction::Max => {
            fold(&block, grouping, |most, value| beat(most, value, |a, b| a > b), reached)
        }
        AggregateFunction::Topk => rank::pick(&block, grouping, &parameter, true)?,
        AggregateFunction::Bottomk => rank::pick(&block, grouping, &parameter, false)?,
        AggregateFunction::Quantile => rank::quantiles(&block, grouping, &parameter),
        AggregateFunction::CountValues(label) => rank::count_values(&block, grouping, label, charge)?,
    })
}

/// NaN is the extreme only when there is nothing else.
fn beat(extreme: &mut Option<f64>, value: f64, beats: fn(f64, f64) -> bool) {
    match extreme {
        Some(old) if !old.is_nan() && !beats(value, *old) => {}
        _ => *extreme = Some(value),
    }
}

fn reached(extreme: Option<f64>) -> f64 {
    extreme.unwrap_or(ABSENT)
}

/// Runs every value of a group and step through one state.
fn fold<S: Clone + Default>(
    block: &Block,
    grouping: &Filter,
    add: impl Fn(&mut S, f64),
    finish: impl Fn(S) -> f64,
) -> Block {
    let mut index = Index::new(grouping);
    let groups: Vec<usize> = block.labels.iter().map(|labels| index.find_or_add(labels)).collect();
    let mut states: Vec<Option<S>> = vec![None; index.len() * block.steps];
    for (at, group) in groups.into_iter().enumerate() {
        let states = &mut states[group * block.steps..(group + 1) * block.steps];
        for (state, value) in states.iter_mut().zip(block.row(at)).filter(|(_, value)| !is_stale(**value)) {
            add(state.get_or_insert_with(S::default), *value);
        }
    }
    let values = states.into_iter().map(|state| state.map_or(ABSENT, &finish)).collect();
    let mut result = Block { steps: block.steps, labels: index.into_labels(), values, nameless: false };
    result.compact();
    result
}
