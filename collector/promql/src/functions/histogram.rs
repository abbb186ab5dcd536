//! `histogram_quantile` and `histogram_fraction` over classic histograms: series that differ in `le`, each the count of
//! all at or below it.

use std::collections::HashMap;

use tocsin_shared::labels::Labels;
use tocsin_shared::sample::is_stale;

use crate::annotations::{Lift, Notes};
use crate::eval::{ABSENT, Block, EvalError, Grid, Scalars};
use crate::labelling::{Filter, Index};
use crate::places::Place;

const BUCKET: &str = "le";

/// Differences between buckets this small, relatively, are noise of adding floats.
const NOISE: f64 = 1e-12;

#[derive(Clone, Copy)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// Where what is to be said of the histograms goes, and who may end the work.
pub(crate) struct Scope<'a> {
    pub(crate) notes: &'a Notes,
    pub(crate) place: Option<Place>,
    pub(crate) go_on: &'a dyn Fn(usize) -> Result<(), EvalError>,
}

/// One histogram: its labels without `le`, its name, and the row of each bucket.
struct Histogram {
    labels: Labels,
    metric: String,
    rows: Vec<(f64, usize)>,
}

/// The quantile of each histogram at each step.
pub(crate) fn quantiles(
    quantile: &Scalars,
    block: &Block,
    grid: Grid,
    scope: &Scope<'_>,
) -> Result<Block, EvalError> {
    let lifted =
        |lift, step: usize, metric: &str| scope.notes.lifted(lift, grid.at(step), metric, scope.place);
    of_each(block, scope, |buckets, step, metric| {
        let (value, lift) = of_buckets(quantile.at(step), buckets);
        if let Some(lift) = lift {
            lifted(lift, step, metric);
        }
        value
    })
}

/// The share of each histogram's observations between two bounds.
pub(crate) fn fractions(bounds: &[Scalars; 2], block: &Block, scope: &Scope<'_>) -> Result<Block, EvalError> {
    of_each(block, scope, |buckets, step, _| between(bounds[0].at(step), bounds[1].at(step), buckets))
}

fn of_each(
    block: &Block,
    scope: &Scope<'_>,
    of: impl Fn(Vec<Bucket>, usize, &str) -> f64,
) -> Result<Block, EvalError> {
    let mut result = Block::new(block.steps);
    for Histogram { labels, metric, rows } in histograms(block, scope) {
        (scope.go_on)(rows.len() * block.steps)?;
        let row = (0..block.steps).map(|step| {
            let present = rows.iter().filter(|(_, at)| !is_stale(block.row(*at)[step]));
            let bucket = |(upper, at): &(f64, usize)| Bucket { upper: *upper, count: block.row(*at)[step] };
            let buckets: Vec<Bucket> = present.map(bucket).collect();
            if buckets.is_empty() { ABSENT } else { of(in_order(buckets), step, &metric) }
        });
        result.push(labels, row);
    }
    // Histograms that only differ in their names may not be told apart any more.
    result.merge_same()
}

/// The group of labels, the name, the rows.
type Found<'a> = (usize, &'a str, Vec<(f64, usize)>);

fn histograms(block: &Block, scope: &Scope<'_>) -> Vec<Histogram> {
    let filter = Filter::AllBut([BUCKET.into()].into());
    let mut index = Index::new(&filter);
    // The filter sees no names, and histograms of two names are two.
    let mut places: HashMap<(usize, &str), usize> = HashMap::new();
    let mut found: Vec<Found<'_>> = Vec::new();
    for (at, labels) in block.labels.iter().enumerate() {
        let label = labels.get(BUCKET).unwrap_or("");
        let Some(upper) = parse_bound(label) else {
            let metric = if block.nameless { "" } else { labels.metric() };
            scope.notes.bad_bucket(label, metric, scope.place);
            continue;
        };
        let (group, metric) = (index.find_or_add(labels), labels.metric());
        let place = *places.entry((group, metric)).or_insert(found.len());
        if place == found.len() {
            found.push((group, metric, Vec::new()));
        }
        found[place].2.push((upper, at));
    }
    let labels = index.into_labels();
    let named = |(group, metric, rows): (usize, &str, _)| Histogram {
        labels: labels[group].clone(),
        metric: metric.to_owned(),
        rows,
    };
    found.into_iter().map(named).collect()
}

fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// By their bounds; buckets of one bound become one.
fn in_order(mut buckets: Vec<Bucket>) -> Vec<Bucket> {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|later, earlier| {
        let same = later.upper == earlier.upper;
        if same {
            earlier.count += later.count;
        }
        same
    });
    buckets
}

/// The quantile, and by how much a falling count had to be lifted for it.
fn of_buckets(quantile: f64, mut buckets: Vec<Bucket>) -> (f64, Option<Lift>) {
    if quantile.is_nan() {
        return (f64::NAN, None);
    }
    if quantile < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if 1.0 < quantile {
        return (f64::INFINITY, None);
    }
    let reaches_all = buckets.last().is_some_and(|bucket| bucket.upper == f64::INFINITY);
    if !reaches_all || buckets.len() < 2 {
        return (f64::NAN, None);
    }
    let lift = make_monotonic(&mut buckets);
    match interpolate(quantile, &buckets) {
        Some(value) => (value, lift),
        None => (f64::NAN, None),
    }
}

/// Buckets scraped while they moved, or summed in floats, can shrink a little: a count never falls.
fn make_monotonic(buckets: &mut [Bucket]) -> Option<Lift> {
    let mut before = buckets.first()?.count;
    let mut lift: Option<Lift> = None;
    for bucket in &mut buckets[1..] {
        let noise = (bucket.count - before).abs() <= NOISE * (bucket.count.abs() + before.abs());
        if !noise && bucket.count < before {
            let by = before - bucket.count;
            let old = lift.unwrap_or(Lift { lowest: bucket.upper, highest: bucket.upper, most: by });
            lift = Some(Lift { highest: bucket.upper, most: old.most.max(by), ..old });
        }
        if noise || bucket.count < before {
            bucket.count = before;
        }
        before = bucket.count;
    }
    lift
}

/// Within the bucket that holds the rank, observations are taken as evenly spread. Nothing without observations.
fn interpolate(quantile: f64, buckets: &[Bucket]) -> Option<f64> {
    let ([first, ..], [.., before_last, last]) = (buckets, buckets) else { return None };
    let total = last.count;
    if total == 0.0 || total.is_nan() {
        return None;
    }
    let rank = quantile * total;
    let at = buckets[..buckets.len() - 1].partition_point(|bucket| bucket.count < rank);
    if at == buckets.len() - 1 {
        return Some(before_last.upper);
    }
    if at == 0 && first.upper <= 0.0 {
        return Some(first.upper);
    }
    let below = if at == 0 { Bucket { upper: 0.0, count: 0.0 } } else { buckets[at - 1] };
    let share = (rank - below.count) / (buckets[at].count - below.count);
    Some(below.upper + (buckets[at].upper - below.upper) * share)
}

/// The share of observations above `lower` and not above `upper`.
fn between(lower: f64, upper: f64, buckets: Vec<Bucket>) -> f64 {
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else { return f64::NAN };
    let total = last.count;
    if last.upper != f64::INFINITY || total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if upper <= lower {
        return 0.0;
    }
    // Observations are positive when the first bound is.
    let lowest = if 0.0 < first.upper { 0.0 } else { f64::NEG_INFINITY };
    (rank_of(upper, lowest, &buckets).min(total) - rank_of(lower, lowest, &buckets).min(total)) / total
}

/// How many observations are not above a value.
fn rank_of(value: f64, lowest: f64, buckets: &[Bucket]) -> f64 {
    let mut below = Bucket { upper: lowest, count: 0.0 };
    for bucket in buckets {
        if value <= below.upper {
            return below.count;
        }
        if value < bucket.upper {
            // Where in an endless bucket its observations are is not known: all of them count as at its known end.
            let share = match (below.upper.is_infinite(), bucket.upper.is_infinite()) {
                (true, _) => 1.0,
                (_, true) => 0.0,
                _ => (value - below.upper) / (bucket.upper - below.upper),
            };
            return below.count + (bucket.count - below.count) * share;
        }
        below = *bucket;
    }
    below.count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_interpolate_within_the_buckets_of_their_bounds() {
        let inf = f64::INFINITY;
        let positive = [(1.0, 10.0), (2.0, 20.0), (inf, 40.0)];
        let around_zero = [(-1.0, 10.0), (1.0, 30.0), (inf, 40.0)];
        for (lower, upper, buckets, expected, why) in [
            (0.0, 1.0, &positive, 0.25, "one bucket"),
            (0.5, 1.5, &positive, 0.25, "halves of two"),
            (-inf, inf, &positive, 1.0, "all"),
            (-5.0, 0.0, &positive, 0.0, "nothing is below zero"),
            (3.0, 4.0, &positive, 0.0, "all beyond the last bound are taken to be at it"),
            (1.5, inf, &positive, 0.625, "from within a bucket on"),
            (2.0, 1.0, &positive, 0.0, "bounds the wrong way round"),
            (-inf, -1.0, &around_zero, 0.25, "the lowest bucket"),
            (-3.0, -2.0, &around_zero, 0.0, "all below the first bound are taken to be low"),
            (-inf, 0.0, &around_zero, 0.5, "half of the middle"),
        ] {
            let buckets = buckets.iter().map(|&(upper, count)| Bucket { upper, count }).collect();
            assert_eq!(between(lower, upper, buckets), expected, "{why}");
        }
        assert!(between(0.0, f64::NAN, vec![Bucket { upper: inf, count: 1.0 }]).is_nan());
        assert!(between(0.0, 1.0, vec![Bucket { upper: 1.0, count: 1.0 }]).is_nan());
    }

    #[test]
    fn what_had_to_be_lifted_is_told() {
        let buckets = |counts: [f64; 5]| {
            let uppers = [1.0, 2.0, 3.0, 4.0, f64::INFINITY];
            uppers.into_iter().zip(counts).map(|(upper, count)| Bucket { upper, count }).collect()
        };
        let lift = |lowest, highest, most| Some(Lift { lowest, highest, most });
        for (counts, expected) in [
            ([1.0, 2.0, 3.0, 4.0, 5.0], None),
            ([1.0, 2.0, 1.0, 2.0, 5.0], lift(3.0, 3.0, 1.0)),
            ([1.0, 4.0, 1.0, 2.0, 5.0], lift(3.0, 4.0, 3.0)),
            ([1.0, 2.0, 2.0 - 1e-13, 4.0, 5.0], None),
            ([0.0; 5], None),
        ] {
            assert_eq!(of_buckets(0.5, buckets(counts)).1, expected, "{counts:?}");
        }
        assert_eq!(of_buckets(2.0, buckets([5.0, 4.0, 3.0, 2.0, 1.0])).1, None);
    }

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
            assert_eq!(of_buckets(quantile, in_order(buckets)).0, expected, "{why}");
        }
        let no_infinity = vec![Bucket { upper: 1.0, count: 1.0 }, Bucket { upper: 2.0, count: 2.0 }];
        assert!(of_buckets(0.5, no_infinity).0.is_nan());
    }
}
