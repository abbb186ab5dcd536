//! What one agent may send: messages, bytes, outcomes, and series that were never seen before.
//!
//! Pure but for its lock. An allowance is of the agent, whatever number of sessions it opens. Promises: nothing that
//! was sent is dropped for a quota: a session that is over one is read more slowly, which its agent is told; only one
//! that goes on with small messages for a long time is ended. Series beyond the quota keep their place in their table
//! and lose their labels. Not here: bounds on a single message (`limits`, and the wire's own).

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::{Labels, METRIC_NAME};

use crate::rate::{Allowance, Rate};

/// A heartbeat and a row a second are 2; a backlog comes in few large ones.
const MESSAGES: Rate = Rate { burst: 2_000.0, per_second: 100.0 };
/// A host at work sends some 100 bytes a second; this is for backlogs.
const BYTES: Rate = Rate { burst: 16.0 * MIB, per_second: MIB };
const MIB: f64 = 1024.0 * 1024.0;
/// Outcomes of jobs: 200 a minute, after those of a long night without a network.
const OUTCOMES: Rate = Rate { burst: 2_000.0, per_second: 200.0 / 60.0 };
/// Series that the agent has not sent before: 5,000 in ten minutes, after a first table that is free.
const FRESH_SERIES: Rate = Rate { burst: 5_000.0, per_second: 5_000.0 / 600.0 };
/// Series that are remembered as known; beyond it those of the newest table are.
const KNOWN_MAX: usize = 40_000;
/// A session's begin reads and writes the ledger.
const SESSION_MESSAGES: f64 = 20.0;
/// An agent that is over its messages for so long does not listen to a throttle.
const FLOOD_MAX: Duration = Duration::from_secs(30);
/// How long an agent counts as over a quota after it was.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    Messages,
    Bytes,
    Outcomes,
    Series,
}

impl Limited {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 4] = [Self::Messages, Self::Bytes, Self::Outcomes, Self::Series];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Outcomes => "outcomes",
            Self::Series => "new_series",
        }
    }

    /// The limit in words, and what to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Messages => "more than 100 messages a second; look at its log, it should send a few",
            Self::Bytes => {
                "more than 1 MiB a second; it may have a backlog, which takes its time, or too many series"
            }
            Self::Outcomes => "more than 200 outcomes of jobs a minute; a job may be started in a loop",
            Self::Series => {
                "more than 5,000 new series in 10 minutes; take the label that keeps changing out of its metrics"
            }
        }
    }
}

/// That a session has to wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttled {
    pub wait: Duration,
    pub limited: Limited,
    /// It does not listen: the session ends.
    pub ends: bool,
}

/// Series that were not taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Their places in the table, ascending.
    pub places: Vec<usize>,
    /// The label whose values differ most among them.
    pub label: String,
    /// The metric that has most of them.
    pub metric: String,
}

/// One agent's allowances.
#[derive(Debug)]
struct Usage {
    messages: Allowance,
    bytes: Allowance,
    outcomes: Allowance,
    fresh_series: Allowance,
    known: HashSet<u64>,
    flooding_since: Option<Instant>,
    over: [Option<Instant>; 4],
}

impl Usage {
    fn new(now: Instant) -> Self {
        Self {
            messages: Allowance::new(MESSAGES, now),
            bytes: Allowance::new(BYTES, now),
            outcomes: Allowance::new(OUTCOMES, now),
            fresh_series: Allowance::new(FRESH_SERIES, now),
            known: HashSet::new(),
            flooding_since: None,
            over: [None; 4],
        }
    }
}

/// The quotas of all agents. As many entries as agents that were heard since the start.
#[derive(Debug, Default)]
pub struct Quotas {
    usage: Mutex<HashMap<AgentId, Arc<Mutex<Usage>>>>,
    hash: RandomState,
    counts: Mutex<[u64; 4]>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a number half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Quotas {
    fn of(&self, agent: AgentId, now: Instant) -> Arc<Mutex<Usage>> {
        locked(&self.usage).entry(agent).or_insert_with(|| Arc::new(Mutex::new(Usage::new(now)))).clone()
    }

    fn note(&self, usage: &mut Usage, limited: Limited, now: Instant) {
        usage.over[limited as usize] = Some(now);
        locked(&self.counts)[limited as usize] += 1;
    }

    /// A session wants to begin; an error says when it may.
    pub fn session(&self, agent: AgentId, now: Instant) -> Result<(), Duration> {
        let usage = self.of(agent, now);
        let mut usage = locked(&usage);
        let taken = usage.messages.take(SESSION_MESSAGES, now);
        if taken.is_err() {
            self.note(&mut usage, Limited::Messages, now);
        }
        taken
    }

    /// A message was read, with so many outcomes in it; whether the session has to wait before it reads another.
    pub fn message(&self, agent: AgentId, bytes: usize, outcomes: usize, now: Instant) -> Option<Throttled> {
        let usage = self.of(agent, now);
        let usage = &mut *locked(&usage);
        let waits = [
            (Limited::Messages, usage.messages.charge(1.0, now)),
            (Limited::Bytes, usage.bytes.charge(bytes as f64, now)),
            (Limited::Outcomes, usage.outcomes.charge(outcomes as f64, now)),
        ];
        if usage.messages.is_half_full() {
            usage.flooding_since = None;
        }
        let (limited, wait) =
            waits.into_iter().max_by_key(|(_, wait)| *wait).filter(|(_, wait)| !wait.is_zero())?;
        self.note(usage, limited, now);
        let mut ends = false;
        if limited == Limited::Messages {
            let since = *usage.flooding_since.get_or_insert(now);
            ends = FLOOD_MAX < now.saturating_duration_since(since);
        }
        Some(Throttled { wait, limited, ends })
    }

    /// A table came; which of its series are new beyond the quota.
    pub fn table(&self, agent: AgentId, series: &[Labels], now: Instant) -> Option<Refused> {
        let usage = self.of(agent, now);
        let usage = &mut *locked(&usage);
        let hashes: Vec<u64> = series.iter().map(|labels| self.hash.hash_one(labels)).collect();
        let is_first = usage.known.is_empty();
        if KNOWN_MAX < usage.known.len() + series.len() {
            let present: HashSet<u64> =
                hashes.iter().copied().filter(|hash| usage.known.contains(hash)).collect();
            usage.known = present;
        }
        let mut places = Vec::new();
        for (place, hash) in hashes.iter().enumerate() {
            let is_known = usage.known.contains(hash);
            if is_known || is_first || usage.fresh_series.take(1.0, now).is_ok() {
                usage.known.insert(*hash);
            } else {
                places.push(place);
            }
        }
        if places.is_empty() {
            return None;
        }
        self.note(usage, Limited::Series, now);
        let refused = || places.iter().map(|place| &series[*place]);
        let (label, metric) = (most_varied(refused()), most_frequent(refused()));
        Some(Refused { places, label, metric })
    }

    /// How often each limit held somebody back, in the order of `Limited::ALL`.
    pub fn counts(&self) -> [u64; 4] {
        *locked(&self.counts)
    }

    /// Agents that were over a quota lately.
    pub fn over(&self, now: Instant) -> Vec<(AgentId, Limited)> {
        let all: Vec<_> = locked(&self.usage).iter().map(|(agent, usage)| (*agent, usage.clone())).collect();
        let lately =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < REMEMBERED);
        let mut over: Vec<(AgentId, Limited)> = Vec::new();
        for (agent, usage) in all {
            let noted = locked(&usage).over;
            over.extend(Limited::ALL.into_iter().filter(|l| lately(noted[*l as usize])).map(|l| (agent, l)));
        }
        over.sort_by_key(|(agent, limited)| (agent.0, *limited as usize));
        over
    }
}

fn most_varied<'a>(series: impl Iterator<Item = &'a Labels>) -> String {
    let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (name, value) in series.flat_map(Labels::iter).filter(|(name, _)| *name != METRIC_NAME) {
        values.entry(name).or_default().insert(value);
    }
    let most = values.into_iter().max_by(|a, b| (a.1.len(), b.0).cmp(&(b.1.len(), a.0)));
    most.map_or_else(|| METRIC_NAME.to_owned(), |(name, _)| name.to_owned())
}

fn most_frequent<'a>(series: impl Iterator<Item = &'a Labels>) -> String {
    let mut metrics: HashMap<&str, usize> = HashMap::new();
    for labels in series {
        *metrics.entry(labels.metric()).or_default() += 1;
    }
    let most = metrics.into_iter().max_by(|a, b| (a.1, b.0).cmp(&(b.1, a.0)));
    most.map_or_else(String::new, |(metric, _)| metric.to_owned())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn agent(number: u128) -> AgentId {
        AgentId(Uuid::from_u128(number))
    }

    // Cases: H10
    #[test]
    fn a_flood_of_small_messages_is_slowed_down_and_then_ended() {
        let (quotas, begun) = (Quotas::default(), Instant::now());
        let mut now = begun;
        let (mut taken, mut ended) = (0u32, None);
        while ended.is_none() && now < begun + Duration::from_secs(60) {
            match quotas.message(agent(1), 30, 0, now) {
                None => now += Duration::from_micros(10), // 100,000 a second, as fast as they are read.
                Some(Throttled { wait, limited, ends }) => {
                    assert_eq!(limited, Limited::Messages);
                    now += wait;
                    ended = ends.then_some(now);
                }
            }
            taken += 1;
        }
        let lasted = ended.expect("it goes on for ever").duration_since(begun);
        assert!(lasted < FLOOD_MAX + Duration::from_secs(2), "{lasted:?}");
        assert!(taken < 2_000 + 100 * 33, "{taken} were read");
        assert!(quotas.session(agent(1), now).is_err(), "nor is another session");
        assert!(quotas.message(agent(2), 30, 0, now).is_none(), "others have their own");
        assert_eq!(quotas.over(now), [(agent(1), Limited::Messages)]);
        assert_eq!(quotas.over(now + REMEMBERED), []);
    }

    #[test]
    fn an_agent_at_work_and_one_with_a_backlog_are_never_ended() {
        let (quotas, begun) = (Quotas::default(), Instant::now());
        for second in 0..3_600 {
            let now = begun + Duration::from_secs(second);
            assert_eq!(quotas.message(agent(1), 1_500, 0, now), None, "a row");
            assert_eq!(quotas.message(agent(1), 30, 0, now), None, "a heartbeat");
            assert_eq!(quotas.message(agent(1), 300, 2, now), None, "an outcome now and then");
        }
        let (mut now, mut sent) = (begun, 0);
        while sent < 512 {
            if let Some(throttled) = quotas.message(agent(2), 1 << 20, 0, now) {
                assert!(!throttled.ends && throttled.limited == Limited::Bytes, "{throttled:?}");
                now += throttled.wait;
            }
            sent += 1;
        }
        assert!(now.duration_since(begun) <= Duration::from_secs(512), "a full spool within nine minutes");
    }

    // Cases: R13
    #[test]
    fn new_series_have_a_rate_and_the_label_that_makes_them_is_named() {
        let (quotas, begun) = (Quotas::default(), Instant::now());
        let host: Vec<Labels> =
            (0..15_000).map(|n| Labels::series("node_x", &[("device", &n.to_string())])).collect();
        assert_eq!(quotas.table(agent(1), &host, begun), None, "the first table is free");
        assert_eq!(quotas.table(agent(1), &host, begun), None, "what is known costs nothing");
        let wild = |from: usize, to: usize| -> Vec<Labels> {
            let odd = |n: usize| ("request_id", format!("{n:x}"));
            let series = (from..to).map(|n| {
                let (name, value) = odd(n);
                Labels::series("app_requests", &[("code", "200"), (name, &value)])
            });
            host.iter().cloned().chain(series).collect()
        };
        assert_eq!(quotas.table(agent(1), &wild(0, 4_000), begun), None);
        let refused = quotas.table(agent(1), &wild(4_000, 8_000), begun).unwrap();
        assert_eq!((refused.label.as_str(), refused.metric.as_str()), ("request_id", "app_requests"));
        assert_eq!(refused.places, (16_000..19_000).collect::<Vec<_>>(), "1,000 were left");
        let later = begun + Duration::from_secs(300);
        assert_eq!(quotas.table(agent(1), &wild(8_000, 10_000), later), None, "some come with time");
        assert_eq!(quotas.over(later), [(agent(1), Limited::Series)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (quotas, begun) = (Quotas::default(), Instant::now());
        for round in 0..20u64 {
            let series: Vec<Labels> =
                (0..5_000).map(|n| Labels::series("m", &[("n", &(n + 5_000 * round).to_string())])).collect();
            quotas.table(agent(1), &series, begun + Duration::from_secs(600 * round));
            let usage = quotas.of(agent(1), begun);
            assert!(locked(&usage).known.len() <= KNOWN_MAX);
        }
    }
}
