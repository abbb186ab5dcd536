//! Allowances: so many at once, and so many a second after that.
//!
//! Pure. Promise: over any span, no more than `burst` and the span's share of `per_second` is given out; what is
//! refused is not taken, and the refusal says how long to wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What may be taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once, after a rest.
    pub burst: f64,
    /// For ever.
    pub per_second: f64,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    rate: Rate,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, at: now }
    }

    /// Takes `cost`, or says after what time there is enough. More than the burst is had when the burst is there,
    /// and paid for afterwards.
    pub fn take(&mut self, cost: f64, now: Instant) -> Result<(), Duration> {
        self.earn(now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second);
        self.at = self.at.max(now);
        let missing = cost.min(self.rate.burst) - self.left;
        if missing > 0.0 {
            return Err(Duration::from_secs_f64(missing / self.rate.per_second));
        }
        self.left -= cost;
        Ok(())
    }

    /// Takes `cost` whatever is left; gives how long to wait until nothing is owed.
    pub fn charge(&mut self, cost: f64, now: Instant) -> Duration {
        self.earn(now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second);
        self.at = self.at.max(now);
        self.left -= cost;
        Duration::from_secs_f64((-self.left).max(0.0) / self.rate.per_second)
    }

    /// Whether at least half of the burst was left at the last call.
    pub fn is_half_full(&self) -> bool {
        self.rate.burst <= 2.0 * self.left
    }

    /// Adds to what is left, up to the burst.
    pub fn earn(&mut self, more: f64) {
        self.left = (self.left + more).min(self.rate.burst);
    }

    fn is_full(&self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second;
        self.left + earned >= self.rate.burst
    }
}

/// Keys with less than a full allowance, at most; beyond it the fullest ones are not remembered.
const KEYS_MAX: usize = 16 * 1024;

/// An allowance for each key.
#[derive(Debug)]
pub struct Allowances<K> {
    rate: Rate,
    by_key: HashMap<K, Allowance>,
}

impl<K: Copy + Eq + Hash> Allowances<K> {
    /// The same rate for each key.
    pub fn new(rate: Rate) -> Self {
        Self { rate, by_key: HashMap::new() }
    }

    /// Takes one for the key. When too many keys are known at once, a new one is refused for a second: a peer that
    /// has so many addresses is not let through for it.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        if self.by_key.len() >= KEYS_MAX && !self.by_key.contains_key(&key) {
            self.by_key.retain(|_, allowance| !allowance.is_full(now));
            if self.by_key.len() >= KEYS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        self.by_key.entry(key).or_insert_with(|| Allowance::new(self.rate, now)).take(1.0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut allowance = Allowance::new(Rate { burst: 3.0, per_second: 2.0 }, begun);
        for (millis, cost, want) in [
            (0, 1.0, Ok(())),
            (0, 2.0, Ok(())),
            (0, 1.0, Err(500)),
            (250, 1.0, Err(250)),
            (500, 1.0, Ok(())),
            (400, 1.0, Err(500)),  // A clock that went back gives nothing.
            (10_000, 9.0, Ok(())), // More than the burst, paid for by the next ones.
            (10_000, 1.0, Err(3_500)),
            (13_500, 1.0, Ok(())),
        ] {
            let got = allowance.take(cost, at(millis)).map_err(|wait| wait.as_millis());
            assert_eq!(got, want, "{millis} ms, {cost}");
        }
    }

    #[test]
    fn keys_have_their_own_and_are_forgotten_when_full() {
        let begun = Instant::now();
        let mut all = Allowances::new(Rate { burst: 1.0, per_second: 1.0 });
        assert!(all.take(0, begun).is_ok());
        assert!(all.take(0, begun).is_err());
        for key in 1..KEYS_MAX {
            assert!(all.take(key, begun).is_ok());
        }
        assert!(all.take(KEYS_MAX, begun).is_err(), "bounded");
        assert!(all.take(KEYS_MAX, begun + Duration::from_secs(2)).is_ok());
        assert_eq!(all.by_key.len(), 1, "what is full again is forgotten");
    }
}
