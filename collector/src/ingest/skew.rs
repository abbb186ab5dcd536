//! Whose wall clock is wrong: each host's against the collector's, judged at every heartbeat.
//!
//! Pure. A host is skewed when it stays further than `SKEWED` from what most hosts say; if most hosts are off alike, it
//! is the collector's own clock that is wrong, and no host is blamed. What is found raises and ends an alert; no row is
//! ever refused or dropped for it, because event time does not follow a host's wall clock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tocsin_shared::identity::AgentId;

/// Off by more than this, times in the host's logs mislead whoever compares them.
const SKEWED_MS: i64 = 30_000;
/// A skewed host is right again below this: no flapping at the edge.
const RIGHT_MS: i64 = 20_000;
/// Heartbeats in a row that must agree: a clock that is being set, or a message that was long under way, is no skew.
const IN_A_ROW: u32 = 3;
/// From so many hosts on, most of them are more credible than the collector's one clock.
const QUORUM: usize = 3;

/// What the clocks of all hosts say, as their last heartbeats told.
#[derive(Debug, Default)]
pub struct Skews(Mutex<HashMap<AgentId, Skew>>);

#[derive(Clone, Copy, Debug)]
struct Skew {
    /// The host's wall clock less the collector's.
    off_by: i64,
    /// Heartbeats in a row that contradict what was told.
    against: u32,
    told: Option<bool>,
}

impl Skews {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Skew>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a heartbeat said. When it is news: how far the host is off, in milliseconds, or `None` when it is right.
    pub fn heard(&self, agent: AgentId, off_by: i64) -> Option<Option<i64>> {
        let mut all = self.lock();
        let skew = all.entry(agent).or_insert(Skew { off_by, against: 0, told: None });
        skew.off_by = off_by;
        let told = skew.told;
        let off_by = off_by.saturating_sub(reference(&all));
        let bound = if told == Some(true) { RIGHT_MS } else { SKEWED_MS };
        let skewed = off_by.saturating_abs() > bound;
        let skew = all.get_mut(&agent)?;
        if told == Some(skewed) {
            skew.against = 0;
            return None;
        }
        skew.against += 1;
        if skew.against < IN_A_ROW {
            return None;
        }
        (skew.told, skew.against) = (Some(skewed), 0);
        Some(skewed.then_some(off_by))
    }

    /// A host that is heard no more has no say.
    pub fn forget(&self, agent: AgentId) {
        self.lock().remove(&agent);
    }

    /// How far the collector's own clock seems to be off, if most hosts say that it is.
    pub fn own(&self) -> Option<i64> {
        let off_by = reference(&self.lock()).saturating_neg();
        (off_by.saturating_abs() > SKEWED_MS).then_some(off_by)
    }
}

/// What most hosts say: the median, and zero among few.
fn reference(all: &HashMap<AgentId, Skew>) -> i64 {
    if all.len() < QUORUM {
        return 0;
    }
    let mut off: Vec<i64> = all.values().map(|skew| skew.off_by).collect();
    let middle = off.len() / 2;
    let median = *off.select_nth_unstable(middle).1;
    // What differs by seconds is the network's; only a common error beyond the bound is the collector's.
    if median.saturating_abs() > SKEWED_MS { median } else { 0 }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(Uuid::from_u128(number))
    }

    // Cases: T4
    #[test]
    fn a_host_is_told_once_when_it_is_skewed_and_once_when_it_is_right() {
        let skews = Skews::default();
        let said: Vec<_> = [31, 31, 31, 31, 25, 25, 25, 19, 19, 40, 19, 19, 19, 31]
            .map(|seconds| skews.heard(agent(1), seconds * 1000))
            .into_iter()
            .enumerate()
            .filter_map(|(at, news)| Some((at, news?)))
            .collect();
        assert_eq!(said, [(2, Some(31_000)), (12, None)]);
        let year = 365 * 86_400_000;
        let said: Vec<_> = (0..3).filter_map(|_| skews.heard(agent(2), -year)).collect();
        assert_eq!(said, [Some(-year)]);
        skews.heard(agent(3), i64::MIN);
    }

    // Cases: T1, T2, T4
    #[test]
    fn when_all_hosts_are_off_alike_the_collector_is_wrong() {
        let skews = Skews::default();
        let round = |off: &dyn Fn(u128) -> i64| -> Vec<_> {
            let beats = (0..4).flat_map(|_| (1..=10).map(|host| (host, skews.heard(agent(host), off(host)))));
            beats.filter_map(|(host, news)| Some((host, news?))).collect()
        };
        assert!(round(&|_| 0).iter().all(|(_, news)| news.is_none()), "right, and told once each");
        assert_eq!(skews.own(), None);
        assert_eq!(round(&|host| if host == 4 { 600_000 } else { 0 }), [(4, Some(600_000))]);
        // The collector is set back by an hour: host 4 stays the one that is wrong.
        assert_eq!(round(&|host| if host == 4 { 4_200_000 } else { 3_600_000 }), []);
        assert_eq!(skews.own(), Some(-3_600_000));
        (1..=9).for_each(|host| skews.forget(agent(host)));
        assert_eq!(skews.own(), None, "one host has no majority");
    }
}
