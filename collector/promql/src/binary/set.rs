//! `and`, `or`, `unless`: elements kept or dropped by what the other side has at the same step.

use tocsin_shared::sample::is_stale;

use crate::eval::{ABSENT, Block, EvalError};
use crate::labelling::{Filter, Index};
use crate::plan::{Binary, Operator};

pub(super) fn combine(node: &Binary, left: Block, right: Block) -> Result<Block, EvalError> {
    match node.operator {
        Operator::And => Ok(filtered(left, &right, &node.matching, true)),
        Operator::Unless => Ok(filtered(left, &right, &node.matching, false)),
        _ => {
            let rest = filtered(right, &left, &node.matching, false);
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

/// The elements of `block` that meet, or do not meet, an element of `other` at the same step.
fn filtered(mut block: Block, other: &Block, matching: &Filter, meeting: bool) -> Block {
    if block.len() == 0 || other.len() == 0 && !meeting {
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
            if met != meeting {
                *value = ABSENT;
            }
        }
    }
    block.compact();
    block
}
