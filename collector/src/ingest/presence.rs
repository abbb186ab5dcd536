//! Who is heard: sessions by agent, the last sign of life of each, and who has been silent for too long.
//!
//! Measured on the monotonic clock. After a start every host gets a grace in which its agent can come back: the
//! collector was blind, and its own silence is nobody's fault. The same holds for a collector that stood still while it
//! ran (stopped, starved, its machine suspended): `watch` notices that nobody has looked at the clock for a while, and
//! that while does not count. Everything that an agent says is a sign of life, not only its heartbeats.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::processes::{Entry, Processes, Seen};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// Missed heartbeats after which a host is unreachable.
const MISSED: u32 = 3;
/// What a host gets on top after the collector's own start: the longest wait of an agent that could not connect, 30 s,
/// and the time to connect.
const GRACE: Duration = Duration::from_secs(35);

/// Between two looks at the clock more than this means that the collector stood still; looks come every second.
const BLIND: Duration = Duration::from_secs(3);
/// What connections survive: an agent that hears nothing for longer leaves, and waits before it comes back.
const SURVIVED: Duration = Duration::from_secs(20);
/// Heartbeats that every host gets at least after the collector was blind.
const GRACE_BEATS: u32 = 2;

/// Signs of life, by agent.
#[derive(Debug)]
pub struct Presence {
    heartbeat: Duration,
    heard: Mutex<HashMap<AgentId, Heard>>,
    looks: Mutex<Looks>,
    processes: Mutex<HashMap<AgentId, Processes>>,
}

/// When the clock was looked at last, and how long it could not be.
#[derive(Debug)]
struct Looks {
    last: Option<Instant>,
    blind: Duration,
}

#[derive(Debug)]
struct Heard {
    deadline: Instant,
    at: Option<Timestamp>,
    session: Option<(u64, CancellationToken)>,
    /// Whether its silence has been told.
    told: bool,
}

impl Presence {
    /// Nobody was heard yet; these hosts were online when the collector stopped.
    pub fn new(heartbeat: Duration, online: impl IntoIterator<Item = AgentId>, now: Instant) -> Self {
        let deadline = now + GRACE + heartbeat * MISSED;
        let heard = |agent| (agent, Heard { deadline, at: None, session: None, told: false });
        let looks = Mutex::new(Looks { last: None, blind: Duration::ZERO });
        let heard = Mutex::new(online.into_iter().map(heard).collect());
        Self { heartbeat, heard, looks, processes: Mutex::default() }
    }

    /// A process of an agent says Hello: whether it may come in.
    pub fn enters(&self, agent: AgentId, seen: Seen, now: Instant) -> Entry {
        let mut all = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(agent).or_default().enter(seen, now)
    }

    /// Nothing is known of an agent's processes any more: an operator has settled which of two is the host.
    pub fn forget_processes(&self, agent: AgentId) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).remove(&agent);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often agents send.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// How long a host that was not heard since the start has been silent when that is told.
    pub fn silent_after_start(&self) -> Duration {
        GRACE + self.heartbeat * MISSED
    }

    /// A new session of an agent. The newest one stays, whichever of two gets here first; the other is ended.
    pub fn begin(&self, agent: AgentId, session: u64, end: CancellationToken, now: Instant, at: Timestamp) {
        let mut all = self.lock();
        let mut told = false;
        if let Some(known) = all.get_mut(&agent) {
            told = known.told; // Its next heartbeat has to say that it is heard again.
            match known.session.take() {
                Some(newer) if newer.0 > session => {
                    known.session = Some(newer);
                    return end.cancel();
                }
                Some((_, older)) => older.cancel(),
                None => {}
            }
        }
        let deadline = now + self.heartbeat * MISSED;
        all.insert(agent, Heard { deadline, at: Some(at), session: Some((session, end)), told });
    }

    /// The host was told silent: its next heartbeat says that it is heard, even if it came in between.
    pub fn told(&self, agent: AgentId) {
        if let Some(heard) = self.lock().get_mut(&agent) {
            heard.told = true;
        }
    }

    /// A sign of life in a session; whether the host had been told silent before.
    pub fn beat(&self, agent: AgentId, session: u64, now: Instant, at: Timestamp) -> bool {
        match self.lock().get_mut(&agent) {
            Some(heard) if heard.session.as_ref().is_some_and(|(known, _)| *known == session) => {
                (heard.deadline, heard.at) = (now + self.heartbeat * MISSED, Some(at));
                std::mem::take(&mut heard.told)
            }
            _ => false,
        }
    }

    /// A session ended. The host keeps its deadline: it may come back.
    pub fn end(&self, agent: AgentId, session: u64) {
        if let Some(heard) = self.lock().get_mut(&agent)
            && heard.session.as_ref().is_some_and(|(known, _)| *known == session)
        {
            heard.session = None;
        }
    }

    /// How long the collector stood still since its start.
    pub fn blind(&self) -> Duration {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).blind
    }

    /// Notes that the collector runs; to be called every second by who never waits for anything, so that being busy
    /// is not taken for standing still.
    pub fn watch(&self, now: Instant) {
        if let Some(blind) = self.look(now) {
            tracing::warn!(
                blind_ms = u64::try_from(blind.as_millis()).unwrap_or(u64::MAX),
                "the collector stood still; no host is called silent for that time"
            );
            self.forgive(blind, now);
        }
    }

    /// Notes a look at the clock; how long the collector was blind since the last one, if it was.
    fn look(&self, now: Instant) -> Option<Duration> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(looks.last.replace(now)?);
        let blind = (since > BLIND).then_some(since)?;
        looks.blind += blind;
        Some(blind)
    }

    /// What was not seen while the collector stood still is nobody's silence.
    fn forgive(&self, blind: Duration, now: Instant) {
        let least = match blind {
            short if short < SURVIVED => self.heartbeat * GRACE_BEATS,
            _ => GRACE + self.heartbeat * MISSED,
        };
        for heard in self.lock().values_mut() {
            heard.deadline = (heard.deadline + blind).max(now + least);
        }
    }

    /// Hosts that are silent for too long since the last call, and when they were heard last.
    pub fn silent(&self, now: Instant) -> Vec<(AgentId, Option<Timestamp>)> {
        self.watch(now); // First, whoever of the two wakes first after a standstill.
        let mut heard = self.lock();
        let silent = heard.iter_mut().filter(|(_, heard)| !heard.told && heard.deadline <= now);
        silent
            .map(|(agent, heard)| {
                heard.told = true;
                (*agent, heard.at)
            })
            .collect()
    }

    /// When an agent was last heard since the start, and whether it has a session.
    pub fn of(&self, agent: AgentId) -> (Option<Timestamp>, bool) {
        self.lock().get(&agent).map_or((None, false), |heard| (heard.at, heard.session.is_some()))
    }

    /// Ends the sessions of an agent.
    pub fn cut(&self, agent: AgentId) {
        if let Some((_, session)) = self.lock().get(&agent).and_then(|heard| heard.session.as_ref()) {
            session.cancel();
        }
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.lock().values().filter(|heard| heard.session.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(5);
    const AGENT: AgentId = AgentId(Uuid::nil());

    // Cases: N1
    #[test]
    fn three_missed_heartbeats_are_silence_told_once() {
        let (start, at) = (Instant::now(), Timestamp::from_millis(7));
        let presence = Presence::new(HEARTBEAT, [], start);
        presence.begin(AGENT, 1, CancellationToken::new(), start, at);
        assert!(presence.silent(start + HEARTBEAT * 3 - Duration::from_millis(1)).is_empty());
        assert!(!presence.beat(AGENT, 1, start + HEARTBEAT, at));
        assert!(presence.silent(start + HEARTBEAT * 3).is_empty(), "a heartbeat moves the deadline");
        (15..20).for_each(|second| presence.watch(start + Duration::from_secs(second)));
        assert_eq!(presence.silent(start + HEARTBEAT * 4), [(AGENT, Some(at))]);
        (20..45).for_each(|second| presence.watch(start + Duration::from_secs(second)));
        assert!(presence.silent(start + HEARTBEAT * 9).is_empty(), "told once");
        assert!(presence.beat(AGENT, 1, start + HEARTBEAT * 9, at), "it is back");
    }

    // Cases: N19, C-S4
    #[test]
    fn a_restart_gives_agents_the_time_to_come_back() {
        let start = Instant::now();
        let presence = Presence::new(HEARTBEAT, [AGENT], start);
        assert!(presence.silent(start + Duration::from_millis(49_999)).is_empty());
        assert_eq!(presence.silent(start + Duration::from_secs(50)), [(AGENT, None)]);
        assert_eq!(presence.silent_after_start(), Duration::from_secs(50));
    }

    // Cases: N16, N17, C-S4
    #[test]
    fn the_collectors_own_standstill_is_nobodys_silence() {
        let (start, at, second) = (Instant::now(), Timestamp::from_millis(7), Duration::from_secs(1));
        // Heard at 0; silence is looked for every second but for a standstill; told at, against what is expected.
        for (from, stood, told, why) in [
            (100, 0, 15, "no standstill: three heartbeats"),
            (5, 3, 15, "a look that is a little late means nothing"),
            (
                10,
                10,
                30,
                "ten seconds are forgiven: fifteen were silent, and at least two heartbeats come after it",
            ),
            (14, 10, 34, "the same, just before it would have been told"),
            (2, 300, 352, "agents have left meanwhile, and get the time to come back"),
        ] {
            let presence = Presence::new(HEARTBEAT, [], start);
            presence.begin(AGENT, 1, CancellationToken::new(), start, at);
            let stands_still = |look: u32| look > from && look < from + stood;
            let looks = (0..1_000).filter(|look| !stands_still(*look));
            let first = looks.into_iter().find(|look| !presence.silent(start + second * *look).is_empty());
            assert_eq!(first, Some(told), "{why}");
            assert_eq!(presence.blind() > Duration::ZERO, stood > 3, "{why}");
        }
    }

    // Cases: N12
    #[test]
    fn the_newest_session_wins() {
        let (start, at) = (Instant::now(), Timestamp::from_millis(7));
        let presence = Presence::new(HEARTBEAT, [], start);
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        presence.begin(AGENT, 1, first.clone(), start, at);
        presence.begin(AGENT, 2, second.clone(), start, at);
        assert!(first.is_cancelled() && !second.is_cancelled());
        let late = CancellationToken::new();
        presence.begin(AGENT, 1, late.clone(), start, at);
        assert!(late.is_cancelled() && !second.is_cancelled(), "an older one that comes late does not win");
        presence.end(AGENT, 1);
        assert!(presence.of(AGENT).1, "the older session's end does not end the newer");
        presence.beat(AGENT, 1, start + HEARTBEAT, at);
        assert_eq!(
            presence.silent(start + HEARTBEAT * 3).len(),
            1,
            "an old session's heartbeat does not count"
        );
        presence.cut(AGENT);
        assert!(second.is_cancelled());
    }
}
