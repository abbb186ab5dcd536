//! Rules over rows: a durable row in, what its host's rules say of it out.
//!
//! One thread. A host-local rule runs for a host as soon as a row of that host is durable, at the row's event time;
//! a rule across hosts runs at its own ticks, behind the slowest host that still sends. What an alerting rule gives
//! goes to the ledger, which decides; what a recording rule gives goes to the sample store and its journal. A rule
//! that fails says so in the list of rules and moves no alert: an error is no evidence.
//! Rows older than the last one evaluated for their host (a filled hole) are kept as samples and raise nothing.

mod fleet;
mod host;
pub mod plan;
pub mod statistics;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tocsin_shared::event::Actor;
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;

use crate::alert::Evaluation;
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::journal::rows::{Derived, DurableRow, Rows};
use crate::samples::Store;
use crate::state::Command;
use plan::Plan;
use statistics::Statistics;

/// Durable rows that wait for evaluation; when it is full the rows' writer waits, and with it the agents.
pub const QUEUE: usize = 16_384;
/// How often rules across hosts are looked at when no row comes.
const IDLE: Duration = Duration::from_millis(500);

/// What evaluation needs of the rest.
pub struct Parts {
    pub plan: Arc<ArcSwap<Plan>>,
    pub store: Arc<Store>,
    pub rows: Rows,
    pub ledger: Ledger,
    pub statistics: Arc<Statistics>,
}

/// Evaluates what a start found unevaluated, then until the rows' writer has ended.
pub fn run(
    parts: Parts,
    unevaluated: Vec<DurableRow>,
    rows: &Receiver<DurableRow>,
    active: Vec<(String, AgentId)>,
) -> Result<(), Stopping> {
    let mut evaluator = Evaluator::new(parts, active);
    for row in unevaluated {
        evaluator.row(row)?;
    }
    loop {
        match rows.recv_timeout(IDLE) {
            Ok(row) => evaluator.row(row)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        evaluator.fleet()?;
    }
}

/// The evaluator's own state; everything in it can be lost.
pub struct Evaluator {
    parts: Parts,
    hosts: HashMap<AgentId, host::HostRules>,
    fleet: fleet::FleetRules,
    /// The plan that `hosts` and `fleet` were made for.
    version: u64,
    /// Alerts that were active at the start, by rule and host.
    active: HashMap<AgentId, Vec<String>>,
    newest: Timestamp,
}

impl Evaluator {
    /// An evaluator that knows which rules have active alerts on which hosts.
    pub fn new(parts: Parts, active: Vec<(String, AgentId)>) -> Self {
        let mut by_agent: HashMap<AgentId, Vec<String>> = HashMap::new();
        for (rule, agent) in active {
            by_agent.entry(agent).or_default().push(rule);
        }
        Self {
            parts,
            hosts: HashMap::new(),
            fleet: fleet::FleetRules::default(),
            version: 0,
            active: by_agent,
            newest: Timestamp::MIN,
        }
    }

    /// Evaluates the host-local rules over one durable row.
    pub fn row(&mut self, row: DurableRow) -> Result<(), Stopping> {
        let plan = self.parts.plan.load_full();
        if plan.version != self.version {
            self.version = plan.version;
            self.hosts.values_mut().for_each(|host| host.adopt(&plan));
            self.fleet.adopt(&plan);
        }
        let active = &mut self.active;
        let host = self
            .hosts
            .entry(row.agent)
            .or_insert_with(|| host::HostRules::new(&plan, &active.remove(&row.agent).unwrap_or_default()));
        if row.at <= host.last_at {
            self.parts.statistics.late_row();
            return Ok(());
        }
        host.last_at = row.at;
        self.newest = self.newest.max(row.at);
        let (evaluations, derived) = host.evaluate(&plan, &self.parts.store, row, &self.parts.statistics);
        self.publish(evaluations, derived)?;
        self.parts.statistics.evaluated(row.received.elapsed());
        Ok(())
    }

    /// Evaluates the rules across hosts whose tick all sending hosts have passed.
    pub fn fleet(&mut self) -> Result<(), Stopping> {
        let plan = self.parts.plan.load_full();
        if !plan.has_fleet_rules() || self.hosts.is_empty() {
            return Ok(());
        }
        let seen = self.hosts.values().map(|host| host.last_at);
        let Some(watermark) = fleet::watermark(seen, self.newest) else { return Ok(()) };
        let started = Instant::now();
        let (evaluations, derived) =
            self.fleet.evaluate(&plan, &self.parts.store, watermark, &self.parts.statistics);
        if !evaluations.is_empty() || !derived.is_empty() {
            tracing::debug!(
                elapsed_us = started.elapsed().as_micros() as u64,
                "rules across hosts evaluated"
            );
        }
        self.publish(evaluations, derived)
    }

    fn publish(&mut self, evaluations: Vec<Evaluation>, derived: Vec<Derived>) -> Result<(), Stopping> {
        for evaluation in evaluations {
            self.parts.ledger.post_blocking(Command::Evaluated(evaluation), Actor::System)?;
        }
        if !derived.is_empty() && !self.parts.rows.derived(derived) {
            self.parts.statistics.derived_not_kept();
        }
        Ok(())
    }
}
