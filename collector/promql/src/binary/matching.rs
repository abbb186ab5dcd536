//! Arithmetic and comparison between vectors: which elements meet, and what the result is called.
//!
//! Elements meet when their labels are equal as `on` or `ignoring` sees them. One side ("one") may have one element
//! per match and step; the other ("many") may have more only with `group_left` or `group_right`.

use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::sample::is_stale;

use super::{changes_meaning, elements, reads_names};
use crate::eval::{ABSENT, Block, Doubt, EvalError, Side};
use crate::labelling::{Filter, Index};
use crate::plan::{Binary, Many};

pub(super) fn combine(
    node: &Binary,
    left: Block,
    right: Block,
    (charge, doubt): (&dyn Fn(usize) -> Result<(), EvalError>, &Doubt),
) -> Result<Block, EvalError> {
    let (many, one) = if node.many == Many::Right { (right, left) } else { (left, right) };
    let drops_name = changes_meaning(node);
    let mut result = Block::new(many.steps);
    result.nameless = many.nameless || (drops_name && !reads_names(node) && many.has_one_name());
    let drops_name = drops_name && !result.nameless;
    if many.len() == 0 || one.len() == 0 {
        return Ok(result);
    }
    let mut index = Index::new(&node.matching);
    let ones = Chains::new(one.labels.iter().map(|labels| index.find_or_add(labels)));
    refuse_twice_in_one(node, (&many, &one), &ones)?;
    let groups: Vec<Option<usize>> = many.labels.iter().map(|labels| index.find(labels)).collect();
    if node.many == Many::Neither {
        refuse_twice_in_many(&many, &one, &ones, &groups)?;
    }
    for (at, group) in groups.iter().enumerate() {
        let Some(group) = group else { continue };
        for other in ones.members(*group) {
            let pairs = many.row(at).iter().zip(one.row(other));
            let row = pairs.map(|(many, one)| match is_stale(*many) || is_stale(*one) {
                true => ABSENT,
                false if node.many == Many::Right => elements(node, *one, *many, doubt),
                false => elements(node, *many, *one, doubt),
            });
            charge(many.steps)?;
            result.push_with(|| name(node, drops_name, &many.labels[at], &one.labels[other]), row);
        }
    }
    // One element per match on both sides, and labels that tell the matches apart: nothing can come up twice.
    let names_tell = changes_meaning(node) && node.matching.keeps(METRIC_NAME);
    if node.many == Many::Neither && !ones.chained && !names_tell && groups_differ(&groups) {
        return Ok(result);
    }
    result.merge_same_or(|labels| match node.many {
        Many::Neither => EvalError::SameLabels { labels },
        _ => EvalError::GroupingNotUnique { labels },
    })
}

fn groups_differ(groups: &[Option<usize>]) -> bool {
    let last = groups.iter().flatten().max().copied();
    let Some(last) = last else { return true };
    let mut seen = vec![false; last + 1];
    groups.iter().flatten().all(|group| !std::mem::replace(&mut seen[*group], true))
}

/// The labels of the result of two elements.
fn name(node: &Binary, drops_name: bool, many: &Labels, one: &Labels) -> Labels {
    let listed = |name: &str| match &node.matching {
        Filter::Only(names) => names.iter().any(|n| **n == *name),
        Filter::AllBut(names) => !names.iter().any(|n| **n == *name),
    };
    let drops =
        |name: &str| (drops_name && name == METRIC_NAME) || (node.many == Many::Neither && !listed(name));
    let all_stay = many.iter().all(|(name, _)| !drops(name));
    let labels = if all_stay { many.clone() } else { many.without(drops) };
    if node.include.is_empty() {
        return labels;
    }
    labels.with(node.include.iter().map(|name| (&**name, one.get(name).unwrap_or(""))))
}

/// The rows of each match group, as linked lists in two vectors.
struct Chains {
    first: Vec<usize>,
    next: Vec<usize>,
    /// Whether any group has more than one row.
    chained: bool,
}

const END: usize = usize::MAX;

impl Chains {
    /// From the group of each row; groups are numbered in the order of first sight.
    fn new(groups: impl Iterator<Item = usize>) -> Self {
        let mut chains = Self { first: Vec::new(), next: Vec::new(), chained: false };
        for (at, group) in groups.enumerate() {
            let before = if group == chains.first.len() {
                chains.first.push(at);
                END
            } else {
                chains.chained = true;
                std::mem::replace(&mut chains.first[group], at)
            };
            chains.next.push(before);
        }
        chains
    }

    fn members(&self, group: usize) -> impl Iterator<Item = usize> {
        let at = |at: usize| (at != END).then_some(at);
        std::iter::successors(at(self.first[group]), move |now| at(self.next[*now]))
    }
}

/// The "one" side may have several rows of a match only at different steps.
fn refuse_twice_in_one(node: &Binary, (many, one): (&Block, &Block), ones: &Chains) -> Result<(), EvalError> {
    if !ones.chained {
        return Ok(());
    }
    for step in 0..one.steps {
        if (0..many.len()).all(|at| is_stale(many.row(at)[step])) {
            continue;
        }
        for group in 0..ones.first.len() {
            let mut present = ones.members(group).filter(|at| !is_stale(one.row(*at)[step]));
            if let (Some(second), Some(first)) = (present.next(), present.next()) {
                let (first, second) = (one.labels[first].clone(), one.labels[second].clone());
                let group = node.matching.project(&first);
                let side = if node.many == Many::Right { Side::Left } else { Side::Right };
                return Err(EvalError::ManyToMany { first, second, group, side });
            }
        }
    }
    Ok(())
}

/// Without `group_left` or `group_right` neither side may; told even of elements that a filter would drop.
fn refuse_twice_in_many(
    many: &Block,
    one: &Block,
    ones: &Chains,
    groups: &[Option<usize>],
) -> Result<(), EvalError> {
    if groups_differ(groups) {
        return Ok(());
    }
    let mut taken_by = vec![END; ones.first.len()];
    for step in 0..many.steps {
        taken_by.fill(END);
        for (at, group) in groups.iter().enumerate() {
            let Some(group) = *group else { continue };
            let met = ones.members(group).any(|other| !is_stale(one.row(other)[step]));
            if !met || is_stale(many.row(at)[step]) {
                continue;
            }
            let before = std::mem::replace(&mut taken_by[group], at);
            if before != END {
                let (first, second) = (many.labels[before].clone(), many.labels[at].clone());
                return Err(EvalError::ManyToOne { first, second });
            }
        }
    }
    Ok(())
}
