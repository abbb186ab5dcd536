//! Samples to ask about: counters with resets, gauges, classic histograms, of several jobs and instances, with gaps,
//! staleness markers and a series that ends.

use tocsin_promql::MemorySource;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::Timestamp;

use crate::dice::Dice;

/// The first instant of the grid, a whole hour, and the grid's step. Milliseconds.
pub const START: i64 = 1_700_002_800_000;
pub const STEP: i64 = 15_000;
/// An hour and a half: a block of Prometheus is two, and what is older than an hour is only taken in order.
pub const STEPS: i64 = 360;

/// Series with their samples, oldest first.
pub struct Data {
    pub series: Vec<(Labels, Vec<(i64, f64)>)>,
}

const JOBS: [&str; 2] = ["api", "db"];
const INSTANCES: [&str; 3] = ["a:1", "b:1", "c:1"];
const BOUNDS: [&str; 6] = ["0.1", "0.25", "0.5", "1", "5", "+Inf"];

impl Data {
    /// The same for the same seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut data = Self { series: Vec::new() };
        for job in JOBS {
            for instance in INSTANCES {
                let labels = |metric: &str, more: &[(&str, &str)]| {
                    let pairs: Vec<(&str, &str)> = [("job", job), ("instance", instance)]
                        .into_iter()
                        .chain(more.iter().copied())
                        .collect();
                    Labels::series(metric, &pairs)
                };
                for code in ["200", "404", "500"] {
                    data.add(&mut dice, labels("requests_total", &[("code", code)]), counter);
                }
                data.add(&mut dice, labels("memory_bytes", &[]), |dice| walk(dice, 5e8, 1e7));
                data.add(&mut dice, labels("limit_bytes", &[]), |dice| walk(dice, 9e8, 0.0));
                data.add(&mut dice, labels("up", &[]), |dice| {
                    let mut dice = dice.split();
                    Box::new(move || if dice.once_in(20) { 0.0 } else { 1.0 })
                });
                for sensor in ["in", "out"] {
                    data.add(&mut dice, labels("temperature", &[("sensor", sensor)]), |dice| {
                        walk(dice, 5.0, 3.0)
                    });
                }
                data.histogram(&mut dice, &labels("target", &[]));
            }
        }
        data
    }

    fn add(
        &mut self,
        dice: &mut Dice,
        labels: Labels,
        values: impl Fn(&mut Dice) -> Box<dyn FnMut() -> f64>,
    ) {
        let mut next = values(dice);
        let present = Presence::draw(dice);
        let samples = (1..=STEPS).filter_map(|step| {
            let value = next();
            present.at(step, value).map(|value| (START + step * STEP - 1, value))
        });
        self.series.push((labels, samples.collect()));
    }

    /// Buckets grow together, so that their counts never fall from one to the next.
    fn histogram(&mut self, dice: &mut Dice, target: &Labels) {
        let named = |metric: &str| target.with([("__name__", metric)]);
        let present = Presence::draw(dice);
        let mut counts = [1000.0; BOUNDS.len()];
        let mut rows = vec![Vec::new(); BOUNDS.len()];
        let mut sums = Vec::new();
        for step in 1..=STEPS {
            let mut below = 0.0;
            for (at, count) in counts.iter_mut().enumerate() {
                below += dice.below(9) as f64;
                *count += below;
                let time = START + step * STEP - 1;
                rows[at].extend(present.at(step, *count).map(|value| (time, value)));
                if at + 1 == BOUNDS.len() {
                    sums.extend(present.at(step, *count * 0.375).map(|value| (time, value)));
                }
            }
        }
        self.series.push((named("latency_seconds_sum"), sums));
        self.series.push((named("latency_seconds_count"), rows[BOUNDS.len() - 1].clone()));
        for (bound, samples) in BOUNDS.into_iter().zip(rows) {
            self.series.push((named("latency_seconds_bucket").with([("le", bound)]), samples));
        }
    }

    /// As the engine in this process reads it.
    pub fn source(&self) -> MemorySource {
        let mut source = MemorySource::new();
        for (labels, samples) in &self.series {
            samples.iter().for_each(|(at, value)| source.push(labels, Timestamp::from_millis(*at), *value));
        }
        source
    }
}

/// When a series has samples: all of it, all but gaps, or until it ends.
struct Presence {
    gaps: Vec<(i64, i64)>,
    /// Whether a gap begins with a staleness marker, as that of a target that is gone does.
    marks: bool,
}

impl Presence {
    fn draw(dice: &mut Dice) -> Self {
        let mut gaps = Vec::new();
        if dice.once_in(3) {
            let from = 40 + draw(dice, 200);
            gaps.push((from, from + 1 + draw(dice, 50)));
        }
        if dice.once_in(4) {
            let from = 260 + draw(dice, 60);
            gaps.push((from, if dice.once_in(2) { STEPS } else { from + 2 }));
        }
        Self { gaps, marks: dice.once_in(2) }
    }

    fn at(&self, step: i64, value: f64) -> Option<f64> {
        match self.gaps.iter().find(|(from, to)| (*from..=*to).contains(&step)) {
            None => Some(value),
            Some((from, _)) => (self.marks && step == *from).then_some(STALE_NAN),
        }
    }
}

fn draw(dice: &mut Dice, end: u64) -> i64 {
    i64::try_from(dice.below(end)).expect("a small number fits")
}

/// A counter far from zero, also after its resets.
fn counter(dice: &mut Dice) -> Box<dyn FnMut() -> f64> {
    let mut dice = dice.split();
    let mut value = 50_000.0 + dice.below(1000) as f64;
    let pace = 1 + dice.below(40);
    Box::new(move || {
        value = if dice.once_in(90) {
            20_000.0 + dice.below(100) as f64
        } else {
            value + dice.below(pace) as f64
        };
        value
    })
}

fn walk(dice: &mut Dice, start: f64, step: f64) -> Box<dyn FnMut() -> f64> {
    let mut dice = dice.split();
    let mut value = start * (1.0 + dice.below(1000) as f64 / 1000.0);
    Box::new(move || {
        value += step * (dice.below(2001) as f64 / 1000.0 - 1.0);
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_repeat_and_have_all_that_may_go_wrong() {
        let data = Data::draw(1);
        let again = Data::draw(1);
        assert!(data.series.iter().zip(&again.series).all(|(a, b)| a.0 == b.0 && a.1.len() == b.1.len()));
        let any = |is: fn(&[(i64, f64)]) -> bool| data.series.iter().any(|(_, samples)| is(samples));
        let markers =
            |samples: &[(i64, f64)]| samples.iter().any(|(_, v)| v.to_bits() == STALE_NAN.to_bits());
        assert!(any(markers), "staleness markers");
        assert!(any(|samples| samples.windows(2).any(|pair| pair[1].1 < pair[0].1)), "resets");
        assert!(any(|samples| samples.len() < 340), "gaps");
        assert!(any(|samples| samples.len() == 360), "whole series");
        assert_eq!(data.series.len(), 6 * 16);
    }
}
