//! Aggregations that need all values of a group together: `topk`, `bottomk`, `quantile`, `count_values`.

use std::collections::HashMap;

use tocsin_shared::labels::Labels;
use tocsin_shared::sample::is_stale;

use crate::eval::{ABSENT, Block, EvalError, Scalars};
use crate::functions::math::order;
use crate::labelling::{Filter, Index};
use crate::sums::quantile;

/// The rows of each group, and the groups' labels.
fn groups(block: &Block, grouping: &Filter) -> (Vec<Labels>, Vec<Vec<usize>>) {
    let mut index = Index::new(grouping);
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (at, labels) in block.labels.iter().enumerate() {
        let group = index.find_or_add(labels);
        if group == members.len() {
            members.push(Vec::new());
        }
        members[group].push(at);
    }
    (index.into_labels(), members)
}

/// The k largest or smallest elements of each group, NaN after all others; at an instant in that order. Of equal
/// values the labels decide, so that the choice does not depend on the order a source has its series in.
pub(super) fn pick(block: &Block, grouping: &Filter, k: &Scalars, largest: bool) -> Result<Block, EvalError> {
    if (0..block.steps).any(|step| k.at(step).is_nan()) {
        return Err(EvalError::Parameter(
            "Parameter value is NaN: topk and bottomk want a number".to_owned(),
        ));
    }
    let (_, members) = groups(block, grouping);
    let mut values = vec![ABSENT; block.values.len()];
    let mut picked_order = Vec::new();
    for step in 0..block.steps {
        let k = k.at(step).max(0.0) as usize; // A float-to-int `as` saturates.
        for members in &members {
            let mut rows: Vec<usize> = members.clone();
            rows.retain(|at| !is_stale(block.row(*at)[step]));
            rows.sort_by(|a, b| {
                let by_value = order(block.row(*a)[step], block.row(*b)[step], largest);
                by_value.then_with(|| block.labels[*a].cmp(&block.labels[*b]))
            });
            for at in rows.into_iter().take(k) {
                values[at * block.steps + step] = block.row(at)[step];
                if block.steps == 1 {
                    picked_order.push(at);
                }
            }
        }
    }
    if block.steps == 1 {
        let labels = picked_order.iter().map(|at| block.labels[*at].clone()).collect();
        let values = picked_order.iter().map(|at| values[*at]).collect();
        return Ok(Block { steps: 1, labels, values, nameless: block.nameless });
    }
    let (steps, labels, nameless) = (block.steps, block.labels.clone(), block.nameless);
    let mut result = Block { steps, labels, values, nameless };
    result.compact();
    Ok(result)
}

/// The quantile of each group's values.
pub(super) fn quantiles(block: &Block, grouping: &Filter, q: &Scalars) -> Block {
    let (labels, members) = groups(block, grouping);
    let mut result = Block::new(block.steps);
    for (labels, members) in labels.into_iter().zip(members) {
        let row = (0..block.steps).map(|step| {
            let values = members.iter().map(|at| block.row(*at)[step]);
            let mut values: Vec<f64> = values.filter(|value| !is_stale(*value)).collect();
            if values.is_empty() { ABSENT } else { quantile(q.at(step), &mut values) }
        });
        result.push(labels, row);
    }
    result
}

/// How many elements of each group have each value; the value becomes a label.
pub(super) fn count_values(
    block: &Block,
    grouping: &Filter,
    label: &str,
    charge: &dyn Fn(usize) -> Result<(), EvalError>,
) -> Result<Block, EvalError> {
    // The new label is set before grouping, so it may be one of the labels grouped by.
    let filter = match grouping {
        Filter::Only(names) => Filter::Only(names.iter().cloned().chain([label.into()]).collect()),
        without => without.clone(),
    };
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut result = Block::new(block.steps);
    for (labels, row) in block.rows() {
        for (step, value) in row.iter().enumerate().filter(|(_, value)| !is_stale(**value)) {
            let group = filter.project(&labels.with([(label, text(*value).as_str())]));
            let next = result.len();
            let place = *places.entry(group.clone()).or_insert(next);
            if place == next {
                charge(block.steps)?;
                result.labels.push(group);
                result.values.resize(result.values.len() + block.steps, ABSENT);
            }
            let count = &mut result.values[place * block.steps + step];
            *count = if is_stale(*count) { 1.0 } else { *count + 1.0 };
        }
    }
    Ok(result)
}

/// A value as Prometheus writes it into labels: never with an exponent.
fn text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value < 0.0 { "-Inf".to_owned() } else { "+Inf".to_owned() }
    } else {
        value.to_string()
    }
}
