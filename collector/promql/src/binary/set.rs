//! `and`, `or`, `unless`: elements kept or dropped by what the other side has at the same step.

use tocsin_shared::sample::is_stale;

use crate::eval::{ABSENT, Block, Doubt, EvalError};
use crate::labelling::{Filter, Index};
use crate::plan::{Binary, Operator};

pub(super) fn combine(node: &Binary, left: Block, right: Block, doubt: &Doubt) -> Result<Block, EvalError> {
    let meets = |met, _| met;
    let misses = |met: bool, _| !met;
    match node.operator {
        Operator::And => Ok(filtered(left, &right, &node.matching, meets)),
        Operator::Unless => Ok(filtered(left, &right, &node.matching, misses)),
        _ => {
            let number_or_alone = |met: bool, value: f64| !(met && value.is_nan());
            let left = match doubt.prefers_numbers() {
                true => filtered(left, &right, &node.matching, number_or_alone),
                false => left,
            };
            let rest = filtered(right, &left, &node.matching, misses);
            if rest.len() == 0 || left.len() == 0 {
                return Ok(if rest.len() == 0 { left } else { rest });
            }
            let (mut all, rest) = (left.settle(), rest.settle());
            all.labels.extend(rest.labels);
            all.values.extend(rest.values);
            // What overlaps has the same labels on both sides and was dropped; what does not becomes one series.
            if all.steps == 1 { Ok(all) } else { all.merge_same() }
        }
    }
}

/// The elements of `block` that stay, by their value and by whether they meet an element of `other` at the same step.
fn filtered(mut block: Block, other: &Block, matching: &Filter, stays: impl Fn(bool, f64) -> bool) -> Block {
    if block.len() == 0 || other.len() == 0 && stays(false, 0.0) {
        return block;
    }
    let mut index = Index::new(matching);
    let groups: Vec<usize> = other.labels.iter().map(|labels| index.find_or_add(labels)).collect();
    let mut present = vec![false; index.len() * other.steps];
    for (at, group) in groups.into_iter().enumerate() {
        let flags = &mut present[group * other.steps..(group + 1) * other.steps];
        for (flag, value) in flags.iter_mut().zip(other.row(at)) {
            *flag |= !is_stale(*value);
        }
    }
    for at in 0..block.len() {
        let group = index.find(&block.labels[at]);
        let row = &mut block.values[at * block.steps..(at + 1) * block.steps];
        for (step, value) in row.iter_mut().enumerate() {
            let met = group.is_some_and(|group| present[group * other.steps + step]);
            if !stays(met, *value) {
                *value = ABSENT;
            }
        }
    }
    block.compact();
    block
}
