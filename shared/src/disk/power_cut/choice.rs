//! Which combinations of fates are gone through.
//!
//! All of them, if there are at most `states_max`. Otherwise these, in this order: everything kept; everything
//! dropped; each change with each of its fates while all others are kept, while all others are dropped, and while
//! those before it are kept and those after it dropped; then combinations drawn by a fixed seed, until there are
//! `states_max`. The first groups grow with the number of changes, not with its power, and are never left out.

use crate::disk::random::Random;

/// Where the drawing starts: always the same, so that a failure comes again.
const SEED: u64 = 0x0070_6f77_6572;

/// Fate 0 is kept, fate 1 is dropped.
const DROPPED: usize = 1;

/// Combinations of as many fates as `fates` has numbers, each below its number.
pub(super) fn choices(fates: &[usize], states_max: usize) -> Vec<Vec<usize>> {
    let all = fates.iter().try_fold(1_usize, |product, count| product.checked_mul(*count));
    match all {
        Some(all) if all <= states_max => every(fates, all),
        _ => selected(fates, states_max),
    }
}

fn every(fates: &[usize], all: usize) -> Vec<Vec<usize>> {
    let combination = |mut number: usize| {
        let digit = |count: &usize| {
            let digit = number % count;
            number /= count;
            digit
        };
        fates.iter().map(digit).collect()
    };
    (0..all).map(combination).collect()
}

fn selected(fates: &[usize], states_max: usize) -> Vec<Vec<usize>> {
    let (kept, dropped) = (vec![0; fates.len()], vec![DROPPED; fates.len()]);
    let mut choices = vec![kept.clone(), dropped.clone()];
    for (at, count) in fates.iter().enumerate() {
        let begun = [&kept[..at], &dropped[at..]].concat();
        for base in [&kept, &dropped, &begun] {
            choices.extend((0..*count).map(|fate| {
                let mut choice = base.clone();
                choice[at] = fate;
                choice
            }));
        }
    }
    let mut random = Random::new(SEED);
    while choices.len() < states_max {
        choices.push(fates.iter().map(|count| random.below(*count)).collect());
    }
    choices
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn few_are_all_gone_through_and_many_are_a_fixed_selection() {
        assert_eq!(choices(&[], 10), [Vec::<usize>::new()]);
        let all: BTreeSet<Vec<usize>> = choices(&[3, 2, 2], 12).into_iter().collect();
        assert_eq!(all.len(), 12);
        let many = choices(&[5; 20], 1000);
        assert_eq!((many.len(), &many), (1000, &choices(&[5; 20], 1000)));
        assert_eq!((many[0].clone(), many[1].clone()), (vec![0; 20], vec![1; 20]));
        for at in 0..20 {
            let begun: Vec<usize> = (0..20)
                .map(|other| match other.cmp(&at) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => 4,
                    std::cmp::Ordering::Greater => 1,
                })
                .collect();
            assert!(many.contains(&begun), "{at}");
        }
    }
}
