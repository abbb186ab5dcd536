//! What evaluation counts of itself, for `tocsin status`, the list of rules and the self-metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tocsin_shared::time::Timestamp;

use super::burden::GroupTime;
use super::plan::Plan;

/// Delays kept for the quantiles: some seconds of a busy collector.
const DELAYS: usize = 4096;
/// Between two looks whether evaluation moves.
const LOOK: Duration = Duration::from_millis(50);

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
    moves: AtomicU64,
    skipped: AtomicU64,
    /// When the row came that is being evaluated.
    in_hand: Mutex<Option<Instant>>,
    groups: Mutex<Vec<GroupStanding>>,
}

/// What a group of rules took since its rules were loaded.
#[derive(Clone, Debug)]
pub struct GroupStanding {
    pub file: String,
    pub group: String,
    pub time: GroupTime,
    /// When it was last seen to have run.
    pub last_run: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Delays {
    micros: Vec<u64>,
    next: usize,
}

impl Statistics {
    /// Evaluation gets on: a rule ran, or there is nothing to do.
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until evaluation gets on; for ever when it hangs.
    pub async fn moves(&self) {
        let before = self.moves.load(Ordering::Relaxed);
        while self.moves.load(Ordering::Relaxed) == before {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A row that came then is evaluated next, or none waits.
    pub(super) fn takes(&self, received: Option<Instant>) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = received;
    }

    /// How far evaluation is behind the rows: how long ago the one came that it is at.
    pub fn lag(&self, now: Instant) -> Duration {
        let in_hand = *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        in_hand.map_or(Duration::ZERO, |received| now.duration_since(received))
    }

    pub(super) fn skipped(&self, runs: u64) {
        self.skipped.fetch_add(runs, Ordering::Relaxed);
    }

    /// Runs of rules that were left out because evaluation was behind, and ticks of rules across hosts that were
    /// passed over.
    pub fn skipped_runs(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    pub(super) fn took(&self, plan: &Plan, times: Vec<GroupTime>, now: Timestamp) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *groups);
        let standing =
            |(at, ((file, group), time)): (usize, (&(std::sync::Arc<str>, Box<str>), GroupTime))| {
                let known = known.get(at).filter(|known| *known.file == **file && *known.group == **group);
                let last_run = match known {
                    Some(known) if known.time.runs == time.runs => known.last_run,
                    _ => (0 < time.runs).then_some(now),
                };
                GroupStanding { file: file.to_string(), group: group.to_string(), time, last_run }
            };
        *groups = plan.groups.iter().zip(times).enumerate().map(standing).collect();
    }

    /// What each group of rules took, in the order of the rules.
    pub fn groups(&self) -> Vec<GroupStanding> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: C12
    #[tokio::test]
    async fn a_pulse_is_felt_when_evaluation_gets_on_and_not_before() {
        let statistics = Statistics::default();
        statistics.moved(); // Before anyone asked: says nothing of now.
        let mut felt = std::pin::pin!(statistics.moves());
        for _ in 0..3 {
            let looked = tokio::time::timeout(LOOK * 2, &mut felt).await;
            assert!(looked.is_err(), "it hangs");
        }
        statistics.moved();
        tokio::time::timeout(Duration::from_secs(30), felt).await.expect("it gets on");
    }

    // Cases: T9
    #[test]
    fn the_lag_is_the_age_of_the_row_in_hand() {
        let (statistics, now) = (Statistics::default(), Instant::now());
        assert_eq!(statistics.lag(now), Duration::ZERO);
        statistics.takes(Some(now));
        assert_eq!(
            statistics.lag(now + Duration::from_secs(20)),
            Duration::from_secs(20),
            "also when it hangs"
        );
        statistics.takes(None);
        assert_eq!(statistics.lag(now + Duration::from_secs(20)), Duration::ZERO, "no row waits");
    }
}
