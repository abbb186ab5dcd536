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
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tocsin_shared::alert::Alert;
use tocsin_shared::event::Actor;
use tocsin_shared::host::HostState;
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;
use tokio::sync::watch;

use crate::alert::Evaluation;
use crate::journal::Stopping;
use crate::journal::ledger::{Ledger, Registry};
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

/// What a start found: evaluation goes on from it as if nothing had happened.
#[derive(Default)]
pub struct Found {
    /// Alerts that are pending or firing.
    pub active: Vec<Alert>,
    /// The youngest row of each host that was evaluated.
    pub evaluated_at: HashMap<AgentId, Timestamp>,
    /// Rows that perhaps were not, in order.
    pub unevaluated: Vec<DurableRow>,
}

/// Evaluates what a start found unevaluated, then until the rows' writer has ended.
pub fn run(parts: Parts, mut found: Found, rows: &Receiver<DurableRow>) -> Result<(), Stopping> {
    let unevaluated = std::mem::take(&mut found.unevaluated);
    let mut evaluator = Evaluator::new(parts, found);
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

/// The evaluator's own state; everything in it can be found again.
pub struct Evaluator {
    parts: Parts,
    hosts: HashMap<AgentId, host::HostRules>,
    fleet: fleet::FleetRules,
    /// The plan that `hosts` and `fleet` were made for.
    version: u64,
    /// Rules with alerts that were active at the start, by host.
    active: HashMap<AgentId, Vec<String>>,
    evaluated_at: HashMap<AgentId, Timestamp>,
    newest: Timestamp,
    /// Up to where rules across hosts were looked at.
    looked_at: Option<fleet::Watermark>,
    /// Changes when a host is retired.
    registry: watch::Receiver<Arc<Registry>>,
}

impl Evaluator {
    /// An evaluator that goes on from what a start found.
    pub fn new(parts: Parts, found: Found) -> Self {
        let plan = parts.plan.load_full();
        let mut registry = parts.ledger.registry_changes();
        registry.mark_changed(); // What was retired before the start is found in the blocks.
        let (of_hosts, of_fleet): (Vec<Alert>, Vec<Alert>) =
            found.active.into_iter().partition(|alert| alert.agent.is_some());
        let mut active: HashMap<AgentId, Vec<String>> = HashMap::new();
        for alert in of_hosts {
            if let Some(agent) = alert.agent {
                active.entry(agent).or_default().push(alert.source_id);
            }
        }
        Self {
            hosts: HashMap::new(),
            fleet: fleet::FleetRules::new(&of_fleet, &plan),
            version: plan.version,
            active,
            newest: found.evaluated_at.values().copied().max().unwrap_or(Timestamp::MIN),
            evaluated_at: found.evaluated_at,
            looked_at: None,
            registry,
            parts,
        }
    }

    /// Evaluates the host-local rules over one durable row.
    pub fn row(&mut self, row: DurableRow) -> Result<(), Stopping> {
        let plan = self.plan()?;
        let (active, evaluated_at) = (&mut self.active, &mut self.evaluated_at);
        let host = self.hosts.entry(row.agent).or_insert_with(|| {
            let last_at = evaluated_at.remove(&row.agent).unwrap_or(Timestamp::MIN);
            host::HostRules::new(&plan, last_at, &active.remove(&row.agent).unwrap_or_default())
        });
        if row.at <= host.last_at {
            self.parts.statistics.late_row();
        } else {
            host.last_at = row.at;
            self.newest = self.newest.max(row.at);
            let (evaluations, derived) = host.evaluate(&plan, &self.parts.store, row, &self.parts.statistics);
            self.publish(evaluations, derived)?;
            self.parts.statistics.evaluated(row.received.elapsed());
        }
        self.parts.statistics.evaluated_row(row.samples_seq);
        Ok(())
    }

    /// The rules in force; what is known of hosts is made to fit them. The ledger is told here, after the last
    /// evaluation of the old rules: an alert of a rule that is no more can't come after its end.
    fn plan(&mut self) -> Result<Arc<Plan>, Stopping> {
        let plan = self.parts.plan.load_full();
        if plan.version != self.version {
            let command = Command::RulesChanged { rule_ids: plan.rule_ids() };
            self.parts.ledger.post_blocking(command, Actor::System)?;
            self.version = plan.version;
            self.hosts.values_mut().for_each(|host| host.adopt(&plan));
            self.fleet.adopt(&plan);
            self.looked_at = None;
        }
        Ok(plan)
    }

    /// Evaluates the rules across hosts whose tick all sending hosts have passed.
    pub fn fleet(&mut self) -> Result<(), Stopping> {
        self.forget_retired()?;
        let plan = self.plan()?;
        if !plan.has_fleet_rules() || self.hosts.is_empty() {
            return Ok(());
        }
        // A host that sent before the start and not yet again is waited for, and then silent, like any other.
        let seen = self.hosts.values().map(|host| host.last_at).chain(self.evaluated_at.values().copied());
        let watermark = fleet::watermark(seen, self.newest);
        if watermark == self.looked_at {
            return Ok(());
        }
        self.looked_at = watermark;
        let Some(watermark) = watermark else { return Ok(()) };
        let (evaluations, derived) =
            self.fleet.evaluate(&plan, &self.parts.store, watermark, &self.parts.statistics);
        self.publish(evaluations, derived)
    }

    /// Hosts that are no longer in service leave: their silence holds nothing up.
    fn forget_retired(&mut self) -> Result<(), Stopping> {
        if !self.registry.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.registry.mark_unchanged();
        let retired = self.parts.ledger.read_blocking(|state| {
            let retired = state.hosts().filter(|host| host.state == HostState::Retired);
            retired.map(|host| host.agent).collect::<HashSet<AgentId>>()
        })?;
        self.hosts.retain(|agent, _| !retired.contains(agent));
        self.evaluated_at.retain(|agent, _| !retired.contains(agent));
        Ok(())
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
