//! Functions of a window of samples: `…_over_time` and their kin. What follows a counter or a slope is in `rate`.

use super::rate::{self, Reach};
use crate::eval::EvalError;
use crate::plan::WindowFunction;
use crate::sums::{Mean, Spread, Sum, quantile};

/// One series' samples in (start, end], without staleness markers, oldest first. Times in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Samples<'a> {
    pub(crate) times: &'a [i64],
    pub(crate) values: &'a [f64],
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The step evaluated, which `offset` and `@` do not move.
    pub(crate) now: i64,
}

/// Refuses parameters that make no sense, whether or not there are samples.
pub(crate) fn check(function: WindowFunction, parameter: impl Fn(usize) -> f64) -> Result<(), EvalError> {
    if function != WindowFunction::Smooth {
        return Ok(());
    }
    for (at, name) in ["smoothing", "trend"].into_iter().enumerate() {
        let factor = parameter(at);
        if !(0.0 < factor && factor < 1.0) {
            let what = format!("invalid {name} factor: expected more than 0 and less than 1, got {factor}");
            return Err(EvalError::Parameter(what));
        }
    }
    Ok(())
}

/// The function's value over a window; `None` when it has too few samples to have one.
pub(crate) fn apply(
    function: WindowFunction,
    samples: Samples<'_>,
    parameter: impl Fn(usize) -> f64,
) -> Option<f64> {
    let Samples { times, values, start, end, now } = samples;
    let (first, last) = (*values.first()?, *values.last()?);
    let seconds = |at: usize| times[at] as f64 / 1000.0;
    Some(match function {
        WindowFunction::Rate | WindowFunction::Increase | WindowFunction::Delta => {
            let growth = function.growth()?;
            return Some(Reach::of(times, (start, end), growth)?.growth(values, growth.counter, false));
        }
        WindowFunction::Irate => return rate::irate(samples),
        WindowFunction::Idelta => return rate::idelta(samples),
        WindowFunction::Deriv => rate::line(samples, times[0])?.slope,
        WindowFunction::PredictLinear => {
            let line = rate::line(samples, now)?;
            line.slope * parameter(0) + line.intercept
        }
        WindowFunction::Changes => pairs(values, |a, b| a != b && !(a.is_nan() && b.is_nan())),
        WindowFunction::Resets => pairs(values, |a, b| b < a),
        WindowFunction::Avg => values.iter().fold(Mean::default(), added(Mean::add)).mean(),
        WindowFunction::Sum => values.iter().fold(Sum::default(), added(Sum::add)).total(),
        WindowFunction::Min => values[extreme(values, |new, old| new < old)],
        WindowFunction::Max => values[extreme(values, |new, old| new > old)],
        WindowFunction::Count => values.len() as f64,
        WindowFunction::First => first,
        WindowFunction::Last => last,
        WindowFunction::Present => 1.0,
        WindowFunction::Quantile => quantile(parameter(0), &mut values.to_vec()),
        WindowFunction::Stddev => values.iter().fold(Spread::default(), added(Spread::add)).variance().sqrt(),
        WindowFunction::Stdvar => values.iter().fold(Spread::default(), added(Spread::add)).variance(),
        WindowFunction::Mad => median_deviation(values),
        WindowFunction::TimeOfFirst => seconds(0),
        WindowFunction::TimeOfLast => seconds(times.len() - 1),
        WindowFunction::TimeOfMin => seconds(extreme(values, |new, old| new <= old)),
        WindowFunction::TimeOfMax => seconds(extreme(values, |new, old| new >= old)),
        WindowFunction::Smooth => return smooth(values, parameter(0), parameter(1)),
    })
}

fn added<A>(add: impl Fn(&mut A, f64)) -> impl Fn(A, &f64) -> A {
    move |mut sum, value| {
        add(&mut sum, *value);
        sum
    }
}

fn pairs(values: &[f64], counts: impl Fn(f64, f64) -> bool) -> f64 {
    values.windows(2).filter(|pair| counts(pair[0], pair[1])).count() as f64
}

/// Where the extreme is; NaN is it only when there is nothing else.
fn extreme(values: &[f64], beats: impl Fn(f64, f64) -> bool) -> usize {
    (1..values.len())
        .fold(0, |best, at| if beats(values[at], values[best]) || values[best].is_nan() { at } else { best })
}

fn median_deviation(values: &[f64]) -> f64 {
    let median = quantile(0.5, &mut values.to_vec());
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    quantile(0.5, &mut deviations)
}

/// Holt's linear method: a smoothed value and a smoothed trend.
fn smooth(values: &[f64], factor: f64, trend_factor: f64) -> Option<f64> {
    let (mut level, mut trend) = (*values.first()?, *values.get(1)? - values[0]);
    let mut before = 0.0;
    for (at, value) in values.iter().enumerate().skip(1) {
        if 1 < at {
            trend = trend_factor * (level - before) + (1.0 - trend_factor) * trend;
        }
        let next = factor * value + (1.0 - factor) * (level + trend);
        before = std::mem::replace(&mut level, next);
    }
    Some(level)
}
