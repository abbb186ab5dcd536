//! Where samples come from, and how much of them one evaluation may take.

use std::collections::HashMap;
use std::time::Duration;

use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use crate::LOOK_BACK;
use crate::selector::Selector;

/// Anything that has samples.
#[expect(
    clippy::type_complexity,
    reason = "an alias would fix the visitor's lifetime and complicate every implementation"
)]
pub trait Source {
    /// Calls `visit(labels, times_ms, values)` once for each matching series that has samples in (from, to], oldest
    /// first, the two slices parallel, times strictly increasing. Staleness markers are included.
    fn select(
        &self,
        selector: &Selector,
        from: Timestamp,
        to: Timestamp,
        visit: &mut dyn FnMut(&Labels, &[i64], &[f64]),
    );

    /// Calls `visit(labels, time_ms, value)` once for each matching series that has samples in (from, to], with the
    /// newest of them, be it a staleness marker. An instant selector at one instant needs no more; a source that has
    /// the newest samples at hand can answer without reading what is before them.
    fn latest(
        &self,
        selector: &Selector,
        from: Timestamp,
        to: Timestamp,
        visit: &mut dyn FnMut(&Labels, i64, f64),
    ) {
        self.select(selector, from, to, &mut |labels, times, values| {
            if let (Some(time), Some(value)) = (times.last(), values.last()) {
                visit(labels, *time, *value);
            }
        });
    }
}

/// What one evaluation may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples read from the source plus points computed.
    pub samples: u64,
    /// Series in any one vector.
    pub series: usize,
    /// Steps of a range evaluation.
    pub steps: usize,
}

impl Default for Limits {
    /// 50 M samples is Prometheus' default and about 0.8 GB at worst; 11,000 steps is what its API allows, a point
    /// for every pixel and a minute's resolution over a week; 500,000 series is every series of 500 hosts.
    fn default() -> Self {
        Self { samples: 50_000_000, series: 500_000, steps: 11_000 }
    }
}

/// How one evaluation is bounded.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub limits: Limits,
    /// How far an instant selector looks back for a sample.
    pub look_back: Duration,
    /// Asked now and then, at least once for some thousand series or a hundred thousand samples: when it says yes, the
    /// evaluation ends with `EvalError::Stopped`. Here a caller's deadline or its leaving comes in; the engine has no clock.
    pub stop: &'a dyn Fn() -> bool,
}

impl Default for Options<'_> {
    /// Nothing stops it.
    fn default() -> Self {
        Self { limits: Limits::default(), look_back: LOOK_BACK, stop: &|| false }
    }
}

impl Options<'_> {
    /// These limits, and nothing stops it.
    pub fn limited(limits: &Limits) -> Self {
        Self { limits: *limits, ..Self::default() }
    }
}

/// A small source in memory, for tests and for `rules test`.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    series: Vec<Series>,
    by_labels: HashMap<Labels, usize>,
}

#[derive(Clone, Debug)]
struct Series {
    labels: Labels,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl MemorySource {
    /// A source without samples.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample, in any order of time; a sample of the same series and time is replaced.
    pub fn push(&mut self, labels: &Labels, at: Timestamp, value: f64) {
        let next = self.series.len();
        let place = *self.by_labels.entry(labels.clone()).or_insert(next);
        if place == next {
            self.series.push(Series { labels: labels.clone(), times: Vec::new(), values: Vec::new() });
        }
        let series = &mut self.series[place];
        match series.times.binary_search(&at.as_millis()) {
            Ok(same) => series.values[same] = value,
            Err(gap) => {
                series.times.insert(gap, at.as_millis());
                series.values.insert(gap, value);
            }
        }
    }
}

impl Source for MemorySource {
    fn select(
        &self,
        selector: &Selector,
        from: Timestamp,
        to: Timestamp,
        visit: &mut dyn FnMut(&Labels, &[i64], &[f64]),
    ) {
        for series in self.series.iter().filter(|series| selector.matches(&series.labels)) {
            let low = series.times.partition_point(|t| *t <= from.as_millis());
            let high = series.times.partition_point(|t| *t <= to.as_millis());
            if low < high {
                visit(&series.labels, &series.times[low..high], &series.values[low..high]);
            }
        }
    }
}
