//! What evaluation counts of itself, for `tocsin status`, the list of rules and the self-metrics.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Delays kept for the quantiles: some seconds of a busy collector.
const DELAYS: usize = 4096;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Statistics {
    evaluated: AtomicU64,
    through: AtomicU64,
    late: AtomicU64,
    filled: AtomicU64,
    derived_lost: AtomicU64,
    delays: Mutex<Delays>,
    errors: Mutex<HashMap<String, String>>,
}

#[derive(Debug, Default)]
struct Delays {
    micros: Vec<u64>,
    next: usize,
}

impl Statistics {
    pub(super) fn late_row(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn filled_row(&self) {
        self.filled.fetch_add(1, Ordering::Relaxed);
    }

    /// Every row up to this place in the samples journal is evaluated, and the ledger was told before this is.
    pub(super) fn evaluated_row(&self, samples_seq: u64) {
        self.through.fetch_max(samples_seq, Ordering::Release);
    }

    /// Rows up to this place in the samples journal are evaluated; what the ledger is asked from now on comes after
    /// what they said. 0 before the first row of this start.
    pub fn evaluated_through(&self) -> u64 {
        self.through.load(Ordering::Acquire)
    }

    pub(super) fn derived_not_kept(&self) {
        self.derived_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn evaluated(&self, delay: Duration) {
        self.evaluated.fetch_add(1, Ordering::Relaxed);
        let mut delays = self.delays.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (micros, next) = (u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), delays.next);
        match delays.micros.get_mut(next) {
            Some(slot) => *slot = micros,
            None => delays.micros.push(micros),
        }
        delays.next = (next + 1) % DELAYS;
    }

    /// Rules are few and their ids bounded, so the map is.
    pub(super) fn rule_failed(&self, rule: &str, why: String) {
        let mut errors = self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = errors.insert(rule.to_owned(), why.clone());
        if known.as_deref() != Some(why.as_str()) {
            tracing::warn!(rule, why, "a rule failed; its alerts keep their state");
        }
    }

    /// The last error of a rule since the start.
    pub fn error_of(&self, rule: &str) -> Option<String> {
        self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(rule).cloned()
    }

    /// Rules that failed since the start.
    pub fn failing_rules(&self) -> usize {
        self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).len()
    }

    /// Rows evaluated, and rows that came too late for it.
    pub fn rows(&self) -> (u64, u64) {
        (self.evaluated.load(Ordering::Relaxed), self.late.load(Ordering::Relaxed))
    }

    /// Rows that rules ran over a second time, because others had come late.
    pub fn filled_rows(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// p50 and p99 from a row's arrival to the end of its evaluation, in microseconds, over the last rows.
    pub fn delay_quantiles(&self) -> (u64, u64) {
        let mut micros = self.delays.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).micros.clone();
        micros.sort_unstable();
        let at = |quantile: f64| micros.get((micros.len() as f64 * quantile) as usize).copied().unwrap_or(0);
        (at(0.5), at(0.99))
    }
}
