//! `histogram_quantile` over classic histograms: series that differ in `le`, each the count of all at or below it.

use tocsin_shared::sample::is_stale;

use crate::eval::{Block, EvalError, Scalars};
use crate::labelling::{Filter, Index};

const BUCKET: &str = "le";

/// Differences between buckets this small, relatively, are noise of adding floats.
const NOISE: f64 = 1e-12;

#[derive(Clone, Copy)]
struct Bucket {
    upper: f64,
    count: f64,
}

pub(crate) fn quantiles(quantile: &Scalars, block: &Block) -> Result<Block, EvalError> {
    let filter = Filter::AllBut([BUCKET.into()].into());
    let mut index = Index::new(&filter);
    let mut members: Vec<Vec<(f64, usize)>> = Vec::new();
    for (at, labels) in block.labels.iter().enumerate() {
        let Some(upper) = labels.get(BUCKET).and_then(parse_bound) else { continue };
        let group = index.find_or_add(labels);
        if group == members.len() {
            members.push(Vec::new());
        }
        members[group].push((upper, at));
    }
    let mut result = Block::new(block.steps);
    for (labels, members) in index.into_labels().into_iter().zip(members) {
        let row = (0..block.steps).map(|step| {
            let present = members.iter().filter(|(_, at)| !is_stale(block.row(*at)[step]));
            let buckets =
                present.map(|(upper, at)| Bucket { upper: *upper, count: block.row(*at)[step] }).collect();
            of_buckets(quantile.at(step), buckets)
        });
        result.push(labels, row);
    }
    Ok(result)
}

fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

fn of_buckets(quantile: f64, mut buckets: Vec<Bucket>) -> f64 {
    if buckets.is_empty() {
        return crate::eval::ABSENT;
    }
    if quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if 1.0 < quantile {
        return f64::INFINITY;
    }
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|later, earlier| {
        let same = later.upper == earlier.upper;
        if same {
            earlier.count += later.count;
        }
        same
    });
    make_monotonic(&mut buckets);
    interpolate(quantile, &buckets)
}

/// Buckets scraped while they moved, or summed in floats, can shrink a little: a count never falls.
fn make_monotonic(buckets: &mut [Bucket]) {
    let mut before = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let noise = (bucket.count - before).abs() <= NOISE * (bucket.count.abs() + before.abs());
        if noise || bucket.count < before {
            bucket.count = before;
        }
        before = bucket.count;
    }
}

/// Within the bucket that holds the rank, observations are taken as evenly spread.
fn interpolate(quantile: f64, buckets: &[Bucket]) -> f64 {
    let ([first, ..], [.., before_last, last]) = (buckets, buckets) else { return f64::NAN };
    let total = last.count;
    if last.upper != f64::INFINITY || total == 0.0 || total.is_nan() {
        return f64::NAN;
    }
    let rank = quantile * total;
    let at = buckets[..buckets.len() - 1].partition_point(|bucket| bucket.count < rank);
    if at == buckets.len() - 1 {
        return before_last.upper;
    }
    if at == 0 && first.upper <= 0.0 {
        return first.upper;
    }
    let below = if at == 0 { Bucket { upper: 0.0, count: 0.0 } } else { buckets[at - 1] };
    let share = (rank - below.count) / (buckets[at].count - below.count);
    below.upper + (buckets[at].upper - below.upper) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_within_the_bucket_of_their_rank() {
        let inf = f64::INFINITY;
        for (quantile, buckets, expected, why) in [
            (0.5, vec![(1.0, 10.0), (2.0, 20.0), (inf, 20.0)], 1.0, "at a bound"),
            (0.75, vec![(1.0, 10.0), (2.0, 20.0), (inf, 20.0)], 1.5, "inside a bucket"),
            (0.5, vec![(1.0, 20.0), (inf, 20.0)], 0.5, "the first bucket starts at zero"),
            (0.99, vec![(1.0, 10.0), (inf, 20.0)], 1.0, "beyond the last bound"),
            (0.5, vec![(1.0, 10.0), (2.0, 9.0), (inf, 20.0)], 1.0, "a count never falls"),
            (2.0, vec![(1.0, 10.0), (inf, 20.0)], inf, "outside 0 to 1"),
            (0.1, vec![(-1.0, 10.0), (inf, 20.0)], -1.0, "a first bound below zero"),
        ] {
            let buckets = buckets.into_iter().map(|(upper, count)| Bucket { upper, count }).collect();
            assert_eq!(of_buckets(quantile, buckets), expected, "{why}");
        }
        let no_infinity = vec![Bucket { upper: 1.0, count: 1.0 }, Bucket { upper: 2.0, count: 2.0 }];
        assert!(of_buckets(0.5, no_infinity).is_nan());
    }
}
