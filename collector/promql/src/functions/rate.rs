//! Counters and slopes: how much something grew over a window, and how fast.
//!
//! `rate`, `increase` and `delta` extrapolate from the samples to the window's ends exactly as Prometheus does: to the
//! end where samples reach near it, else by half a sample interval, and never to before a counter was zero.

use super::window::Samples;
use crate::sums::Sum;

/// A gap to the window's end longer than this many sample intervals means that the series began or ended inside.
const NEAR_INTERVALS: f64 = 1.1;

/// What growth is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// It starts again from zero wherever it falls.
    pub(crate) counter: bool,
    pub(crate) per_second: bool,
}

/// How far growth is stretched from the samples to their window's ends: what depends on times alone, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// What growth is divided by in the end.
    range: f64,
    /// By what growth is multiplied if it reaches all the way to the start.
    factor: f64,
}

impl Reach {
    /// For samples at `times` in the window (start, end]; two of them at least.
    pub(crate) fn of(times: &[i64], (start, end): (i64, i64), growth: Growth) -> Option<Self> {
        let ([first, .., last], true) = (times, times.len() >= 2) else { return None };
        let seconds = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1000.0;
        let sampled = seconds(*first, *last);
        let interval = sampled / (times.len() - 1) as f64;
        let reach = |gap: f64| if interval * NEAR_INTERVALS <= gap { interval / 2.0 } else { gap };
        let (to_start, to_end) = (reach(seconds(start, *first)), reach(seconds(*last, end)));
        let range = if growth.per_second { seconds(start, end) } else { 1.0 };
        let whole = Self { sampled, to_start, to_end, range, factor: 0.0 };
        Some(Self { factor: whole.stretched(to_start), ..whole })
    }

    fn stretched(&self, to_start: f64) -> f64 {
        (self.sampled + to_start + self.to_end) / self.sampled / self.range
    }

    /// The growth of these values, stretched. `monotonic`: known not to fall anywhere.
    pub(crate) fn growth(&self, values: &[f64], counter: bool, monotonic: bool) -> f64 {
        let (first, last) = (values[0], values[values.len() - 1]);
        let mut growth = last - first;
        if counter && !monotonic {
            // After a reset a counter counts from zero, so what it had reached is added.
            growth += values.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]).sum::<f64>();
        }
        if growth == 0.0 {
            return growth; // Much of a host stands still.
        }
        let to_zero = if counter && 0.0 < growth && 0.0 <= first {
            self.sampled * (first / growth)
        } else {
            f64::INFINITY
        };
        growth * if to_zero < self.to_start { self.stretched(to_zero) } else { self.factor }
    }
}

/// The per-second rate between the last two samples of a counter.
pub(crate) fn irate(samples: Samples<'_>) -> Option<f64> {
    let (before, last, milliseconds) = last_two(samples)?;
    let growth = if last < before { last } else { last - before };
    (milliseconds != 0).then(|| growth / (milliseconds as f64 / 1000.0))
}

/// The difference of the last two samples.
pub(crate) fn idelta(samples: Samples<'_>) -> Option<f64> {
    let (before, last, milliseconds) = last_two(samples)?;
    (milliseconds != 0).then_some(last - before)
}

fn last_two(samples: Samples<'_>) -> Option<(f64, f64, i64)> {
    let ([.., a, b], [.., from, to]) = (samples.values, samples.times) else { return None };
    Some((*a, *b, to.saturating_sub(*from)))
}

/// A line through samples: value = slope × seconds since the origin + intercept.
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
}

/// The least-squares line, with the origin of time given. Two samples at least.
pub(crate) fn line(samples: Samples<'_>, origin: i64) -> Option<Line> {
    let Samples { times, values, .. } = samples;
    if values.len() < 2 {
        return None;
    }
    if values.iter().all(|value| *value == values[0]) {
        let finite = values[0].is_finite();
        return Some(if finite {
            Line { slope: 0.0, intercept: values[0] }
        } else {
            Line { slope: f64::NAN, intercept: f64::NAN }
        });
    }
    let (mut x_sum, mut y_sum, mut xy_sum, mut xx_sum) =
        (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for (time, y) in times.iter().zip(values) {
        let x = time.saturating_sub(origin) as f64 / 1000.0;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let count = values.len() as f64;
    let (x_sum, y_sum) = (x_sum.total(), y_sum.total());
    let covariance = xy_sum.total() - x_sum * y_sum / count;
    let variance = xx_sum.total() - x_sum * x_sum / count;
    let slope = covariance / variance;
    Some(Line { slope, intercept: y_sum / count - slope * x_sum / count })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples every 10 s from 10 s on, in a window from 0 s to `end` seconds.
    fn samples<'a>(times: &'a mut Vec<i64>, values: &'a [f64], end: i64) -> Samples<'a> {
        *times = (1..=values.len() as i64).map(|at| at * 10_000).collect();
        Samples { times, values, start: 0, end: end * 1000, now: end * 1000 }
    }

    const RATE: Growth = Growth { counter: true, per_second: true };
    const INCREASE: Growth = Growth { counter: true, per_second: false };

    fn extrapolated(samples: Samples<'_>, growth: Growth) -> Option<f64> {
        let reach = Reach::of(samples.times, (samples.start, samples.end), growth)?;
        let falls = samples.values.windows(2).any(|pair| pair[1] < pair[0]);
        let grown = reach.growth(samples.values, growth.counter, false);
        assert!(falls || grown.to_bits() == reach.growth(samples.values, growth.counter, true).to_bits());
        Some(grown)
    }

    // Cases: R6
    #[test]
    fn growth_is_extrapolated_to_the_ends_and_survives_resets() {
        for (values, end, expected, why) in [
            (vec![5.0], 20, None, "one sample has no growth"),
            (vec![100.0, 110.0, 120.0], 30, Some(30.0), "reaches back to the start"),
            (vec![0.0, 10.0, 20.0], 30, Some(20.0), "a counter was not below zero"),
            (vec![5.0, 15.0, 25.0], 30, Some(25.0), "half way to the start it was zero"),
            (vec![100.0, 110.0, 3.0], 30, Some(19.5), "a reset adds what it had reached"),
            (vec![100.0, 110.0, 120.0], 90, Some(35.0), "half an interval beyond the last sample"),
        ] {
            let mut times = Vec::new();
            let got = extrapolated(samples(&mut times, &values, end), INCREASE);
            match (got, expected) {
                (Some(got), Some(expected)) => assert!((got - expected).abs() < 1e-9, "{why}: {got}"),
                (got, expected) => assert_eq!(got, expected, "{why}"),
            }
        }
    }

    proptest::proptest! {
        // Cases: R6
        #[test]
        fn a_counter_never_shrinks_whatever_it_does(
            values in values(),
            steps in proptest::collection::vec(1i64..100_000, 40),
            before in 0i64..100_000,
            after in 0i64..100_000,
        ) {
            let mut now = before;
            let times: Vec<i64> = steps.iter().take(values.len()).map(|step| { now += step; now }).collect();
            let end = now + after;
            let samples = Samples { times: &times, values: &values, start: 0, end, now: end };
            for (name, growth) in [("rate", extrapolated(samples, RATE)), ("increase", extrapolated(samples, INCREASE)), ("irate", irate(samples))] {
                let growth = growth.unwrap();
                proptest::prop_assert!(growth >= 0.0, "{} is {} of {:?}", name, growth, values);
            }
        }
    }

    /// What a counter may show: few small numbers that meet, values around where it wraps, and any size of it.
    fn values() -> impl proptest::strategy::Strategy<Value = Vec<f64>> {
        use proptest::{collection::vec, prop_oneof, strategy::Just, strategy::Strategy as _};
        let around = |wrap: f64| (-3i32..3).prop_map(move |by| wrap + f64::from(by));
        let small = || (0u32..6).prop_map(f64::from);
        let any = prop_oneof![
            small(),
            around(4_294_967_296.0),
            around(18_446_744_073_709_551_616.0),
            0.0..1e300_f64,
            Just(f64::from_bits(1)),
        ];
        prop_oneof![vec(small(), 2..6), vec(any, 2..40)]
    }

    #[test]
    fn lines_have_a_slope_and_an_intercept_at_the_origin() {
        let mut times = Vec::new();
        let line = line(samples(&mut times, &[1.0, 2.0, 3.0], 30), 30_000).unwrap();
        assert!((line.slope - 0.1).abs() < 1e-12 && (line.intercept - 3.0).abs() < 1e-12);
    }
}
