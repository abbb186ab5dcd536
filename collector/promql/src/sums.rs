//! Sums and means that do not lose small numbers beside large ones: Kahan summation in Neumaier's form, and the mean
//! and spread Prometheus builds on it. Results equal Prometheus' to the last bits, because the steps are the same.

/// A compensated sum.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    total: f64,
    lost: f64,
}

impl Sum {
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let next = self.total + value;
        if next.is_infinite() {
            self.lost = 0.0;
        } else if self.total.abs() >= value.abs() {
            self.lost += (self.total - next) + value;
        } else {
            self.lost += (value - next) + self.total;
        }
        self.total = next;
    }

    pub(crate) fn total(self) -> f64 {
        if self.total.is_infinite() { self.total } else { self.total + self.lost }
    }
}

/// A mean that survives a sum too large for a float.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mean {
    /// The sum; once it would overflow, the mean itself.
    sum: Sum,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.sum = Sum { total: value, lost: 0.0 };
            return;
        }
        if !self.incremental {
            let mut next = self.sum;
            next.add(value);
            if !next.total.is_infinite() {
                self.sum = next;
                return;
            }
            self.incremental = true;
            self.sum.total /= self.count - 1.0;
            self.sum.lost /= self.count - 1.0;
        }
        let kept = (self.count - 1.0) / self.count;
        self.sum.total *= kept;
        self.sum.lost *= kept;
        self.sum.add(value / self.count);
    }

    pub(crate) fn mean(self) -> f64 {
        if self.incremental {
            self.sum.total + self.sum.lost
        } else {
            self.sum.total / self.count + self.sum.lost / self.count
        }
    }
}

/// Population variance by Welford's method, compensated.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spread {
    mean: Sum,
    squares: Sum,
    count: f64,
}

impl Spread {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - (self.mean.total + self.mean.lost);
        self.mean.add(delta / self.count);
        self.squares.add(delta * (value - (self.mean.total + self.mean.lost)));
    }

    pub(crate) fn variance(self) -> f64 {
        (self.squares.total + self.squares.lost) / self.count
    }
}

/// The quantile of some values, interpolated; NaN sorts below everything. Outside 0..=1 the answer is infinite.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor() as usize).min(last);
    let upper = (lower + 1).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_survive_large_ones() {
        let (mut sum, mut mean) = (Sum::default(), Mean::default());
        for value in [2.0, 8.0, 1e100, -1e100] {
            sum.add(value);
            mean.add(value);
        }
        assert_eq!(sum.total(), 10.0);
        assert_eq!(mean.mean(), 2.5);
        let mut huge = Mean::default();
        [1e308, 1e308, 1e308].into_iter().for_each(|v| huge.add(v));
        assert!((huge.mean() / 1e308 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn quantiles_interpolate_and_put_nan_lowest() {
        for (q, values, expected) in [
            (0.8, vec![1.0, 0.0], 0.8),
            (0.8, vec![0.0, f64::NAN, 1.0], 0.6),
            (-1.0, vec![1.0], f64::NEG_INFINITY),
            (2.0, vec![1.0], f64::INFINITY),
            (1.0, vec![3.0, 7.0], 7.0),
        ] {
            let got = quantile(q, &mut values.clone());
            assert!((got - expected).abs() < 1e-12 || got == expected, "{q} of {values:?}: {got}");
        }
        assert!(quantile(0.2, &mut [0.0, f64::NAN, 1.0]).is_nan());
    }
}
