//! The rules over rows that came late, on a copy of the host's alerts as they were before those rows.
//!
//! A host's hole opens with a row that came before older ones of its spool, and is filled when none is missing. Then
//! the rules run over all its rows since, those that came in time too, because what they said was said without the late
//! ones. The copy's ledger is a `State` of its own: the same decisions, in memory. What the live alerts take over is
//! decided in `alert::late`. One hole is filled at a time, a few rows between two live ones.
//! Left out: rules across hosts; they see late rows as samples only.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tocsin_shared::alert::{Alert, AlertSource};
use tocsin_shared::event::{Actor, EventKind, Hole, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;

use super::Parts;
use super::burden::Burden;
use super::host::HostRules;
use super::plan::Plan;
use crate::alert::Filled;
use crate::journal::rows::{Derived, DurableRow};
use crate::samples::SelectError;
use crate::state::{Command, State, decide};

/// How far back late rows are evaluated: what an agent's spool may hold.
const LATE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Event time whose rows are listed at once: 2,160 rows of 10 s.
const LISTED: Duration = Duration::from_secs(6 * 3_600);

/// One hole being filled.
pub(super) struct Filling {
    pub(super) agent: AgentId,
    /// The plan that it runs.
    pub(super) version: u64,
    state: State,
    rules: HostRules,
    /// Late rows are all evaluated: they wait for live ones, and none for them.
    burden: Burden,
    ended: Vec<Alert>,
    /// Rows that come next, and up to where they are listed.
    next: VecDeque<Timestamp>,
    listed_to: Timestamp,
}

impl Filling {
    /// A run that begins where the hole does; `to` is the host's youngest row.
    pub(super) fn new(plan: &Plan, parts: &Parts, host: Host, hole: Hole, to: Timestamp) -> Self {
        let Hole { agent, from, alerts, closed: _ } = hole;
        let active: Vec<String> = alerts.iter().map(|alert| alert.source_id.clone()).collect();
        let rules = HostRules::new(plan, &parts.store, agent, from, &active);
        let records = std::iter::once(Subject::Host(host)).chain(alerts.into_iter().map(Subject::Alert));
        Self {
            agent,
            version: plan.version,
            state: State::restore(0, 0, records),
            rules,
            burden: Burden::new(plan.groups.len()),
            ended: Vec::new(),
            next: VecDeque::new(),
            listed_to: from.max(to.minus(LATE_MAX)),
        }
    }

    /// Runs over the next rows, at most `count` and up to `to`; whether it is through.
    pub(super) fn step(
        &mut self,
        plan: &Plan,
        parts: &Parts,
        to: Timestamp,
        count: usize,
    ) -> Result<bool, SelectError> {
        for _ in 0..count {
            while self.next.is_empty() {
                if self.listed_to >= to {
                    return Ok(true);
                }
                let until = self.listed_to.plus(LISTED).min(to);
                self.next = parts.store.row_times(self.agent, self.listed_to, until)?.into();
                self.listed_to = until;
            }
            if let Some(at) = self.next.pop_front() {
                let derived = self.row(plan, parts, at);
                parts.statistics.filled_row();
                super::keep(parts, derived);
            }
        }
        Ok(false)
    }

    fn row(&mut self, plan: &Plan, parts: &Parts, at: Timestamp) -> Vec<Derived> {
        let row = DurableRow {
            agent: self.agent,
            at,
            samples_seq: 0,
            received: Instant::now(),
            follows: true,
            complete: true,
        };
        if let Some(missing) = self.rules.rows_missing(&row) {
            self.decide(parts, &missing, at);
        }
        self.rules.last_at = at;
        let (evaluations, derived) =
            self.rules.evaluate(plan, &parts.store, row, (&parts.statistics, &mut self.burden));
        for evaluation in evaluations {
            self.decide(parts, &Command::Evaluated(evaluation), at);
        }
        derived
    }

    fn decide(&mut self, parts: &Parts, command: &Command, at: Timestamp) {
        // What the ledger refuses of a live row it refuses here, and has said so.
        let drafts = decide(&self.state, command, &Actor::System, at, &parts.defaults).unwrap_or_default();
        let first = self.state.last_seq() + 1;
        for (number, draft) in drafts.into_iter().enumerate() {
            let event = draft.into_event(first, number, at);
            if let (EventKind::AlertResolved, Subject::Alert(alert)) = (event.kind, &event.subject) {
                self.ended.push(alert.clone());
            }
            self.state.apply(&event);
        }
    }

    /// What the copy came to at `at`, of the rules that are still in force.
    pub(super) fn finish(self, plan: &Plan, at: Timestamp, samples_seq: u64) -> Filled {
        let rules = plan.rule_ids();
        let wanted = |alert: &Alert| alert.source == AlertSource::Rule && rules.contains(&alert.source_id);
        let active = self.state.active_alerts().filter(|alert| wanted(alert)).cloned().collect();
        let ended = self.ended.into_iter().filter(wanted).collect();
        Filled { agent: self.agent, at, samples_seq, ended, active }
    }
}
