//! How measured times spread: the least, the median, the 99th percentile and the most.
//!
//! Percentiles are by nearest rank: every figure is a time that was measured.

use std::fmt;

/// The spread of some times, in their unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub n: usize,
    pub min: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Of these times; none without any.
    pub fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let (min, max) = (*times.first()?, *times.last()?);
        let n = times.len();
        let rank = |percent: usize| times[(n * percent).div_ceil(100).saturating_sub(1)];
        Some(Self { n, min, p50: rank(50), p99: rank(99), max })
    }
}

impl fmt::Display for Spread {
    /// Columns as wide as those of [`HEAD`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, min, p50, p99, max } = self;
        write!(f, "{n:>5} {min:>9.1} {p50:>9.1} {p99:>9.1} {max:>9.1}")
    }
}

/// What stands above the columns.
pub const HEAD: &str = "    n       min       p50       p99       max";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        for (times, expected) in [
            (vec![7.0], (1, 7.0, 7.0, 7.0, 7.0)),
            (vec![2.0, 1.0], (2, 1.0, 1.0, 2.0, 2.0)),
            ((1..=100).rev().map(f64::from).collect(), (100, 1.0, 50.0, 99.0, 100.0)),
            ((1..=200).map(f64::from).collect(), (200, 1.0, 100.0, 198.0, 200.0)),
        ] {
            let Spread { n, min, p50, p99, max } = Spread::of(times).unwrap();
            assert_eq!((n, min, p50, p99, max), expected);
        }
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn figures_stand_below_their_heads() {
        let line = Spread::of(vec![1.25, 1000.0]).unwrap().to_string();
        assert_eq!(line, "    2       1.2       1.2    1000.0    1000.0");
        assert_eq!(line.len(), HEAD.len());
    }
}
