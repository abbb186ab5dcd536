//! Rules over rows: a durable row in, what its host's rules say of it out.
//!
//! One thread. A host-local rule runs for a host as soon as a row of that host is durable, at the row's event time;
//! a rule across hosts runs at its own ticks, behind the slowest host that still sends. What an alerting rule gives
//! goes to the ledger, which decides; what a recording rule gives goes to the sample store and its journal. A rule
//! that fails says so in the list of rules and moves no alert: an error is no evidence.
//! Rows older than the last one evaluated for their host raise nothing when they come. Once none of their spool is
//! missing, the rules run over them on a copy (`hole`), and the alerts take over what is true.

pub mod burden;
mod fleet;
mod hole;
mod host;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod nan_tests;
#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod received_tests;
pub mod plan;
pub mod statistics;
mod stopwatch;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tocsin_shared::alert::Alert;
use tocsin_shared::event::Actor;
use tocsin_shared::host::HostState;
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;
use tokio::sync::watch;

use crate::alert::{Evaluation, Filled};
use crate::journal::Stopping;
use crate::journal::ledger::{Ledger, Registry};
use crate::journal::rows::{Derived, DurableRow, Rows};
use crate::samples::Store;
use crate::state::{Command, Defaults};
use burden::Burden;
use fleet::Over;
use hole::Filling;
use plan::Plan;
use statistics::Statistics;

/// Durable rows that wait for evaluation; when it is full the rows' writer waits, and with it the agents.
pub const QUEUE: usize = 16_384;
/// How often rules across hosts are looked at when no row comes.
const IDLE: Duration = Duration::from_millis(500);
/// Late rows that are evaluated after a live one: half of the time is the live rows' when there are many.
const LATE_ROWS_BUSY: usize = 1;
/// Late rows that are evaluated when no live one waits: milliseconds, so that the next one need not.
const LATE_ROWS_IDLE: usize = 64;
/// The time without any host's row that counts for no `for` of a rule across hosts.
const BLIND: Duration = Duration::from_secs(180);
/// How often it is told what groups of rules took.
const TELL: Duration = Duration::from_secs(1);

/// What evaluation needs of the rest.
pub struct Parts {
    pub plan: Arc<ArcSwap<Plan>>,
    pub store: Arc<Store>,
    pub rows: Rows,
    pub ledger: Ledger,
    pub statistics: Arc<Statistics>,
    /// The ledger's settings.
    pub defaults: Defaults,
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
    /// Where holes begin that are not filled yet.
    pub holes: HashMap<AgentId, Timestamp>,
}

/// Evaluates what a start found unevaluated, then until the rows' writer has ended.
pub fn run(parts: Parts, mut found: Found, rows: &Receiver<DurableRow>) -> Result<(), Stopping> {
    let unevaluated = std::mem::take(&mut found.unevaluated);
    let mut evaluator = Evaluator::new(parts, found);
    for row in unevaluated {
        evaluator.row(DurableRow { received: Instant::now(), ..row })?; // They wait for the start, and not for rules.
    }
    loop {
        let patience = if evaluator.has_late_rows() { Duration::ZERO } else { IDLE };
        evaluator.parts.statistics.moved();
        let late_rows = match rows.recv_timeout(patience) {
            Ok(row) => {
                evaluator.row(row)?;
                LATE_ROWS_BUSY
            }
            Err(RecvTimeoutError::Timeout) => {
                evaluator.parts.statistics.takes(None);
                LATE_ROWS_IDLE
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        evaluator.fill(late_rows)?;
        evaluator.fleet()?;
    }
}

/// The evaluator's own state; everything in it can be found again.
pub struct Evaluator {
    parts: Parts,
    hosts: HashMap<AgentId, host::HostRules>,
    fleet: fleet::FleetRules,
    /// Host-local rules over what sources push.
    received: fleet::FleetRules,
    /// The plan that `hosts` and `fleet` were made for.
    version: u64,
    /// Rules with alerts that were active at the start, by host.
    active: HashMap<AgentId, Vec<String>>,
    evaluated_at: HashMap<AgentId, Timestamp>,
    /// Holes that were open at the start, of hosts that have sent nothing since.
    holes: HashMap<AgentId, Timestamp>,
    /// Hosts whose holes have no row missing any more; the first is being filled. At most one entry for each host.
    complete: VecDeque<AgentId>,
    filling: Option<Filling>,
    newest: Timestamp,
    /// The youngest row's place in the samples journal.
    samples_seq: u64,
    /// Up to where rules across hosts were looked at.
    looked_at: Option<fleet::Watermark>,
    /// The same for what sources push.
    received_looked_at: Option<fleet::Watermark>,
    burden: Burden,
    told: Instant,
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
        let newest = found.evaluated_at.values().copied().max().unwrap_or(Timestamp::MIN);
        let mut active: HashMap<AgentId, Vec<String>> = HashMap::new();
        for alert in of_hosts {
            if let Some(agent) = alert.agent {
                active.entry(agent).or_default().push(alert.source_id);
            }
        }
        Self {
            hosts: HashMap::new(),
            fleet: fleet::FleetRules::new(Over::Hosts, &of_fleet, &plan),
            received: fleet::FleetRules::new(Over::Received, &of_fleet, &plan),
            received_looked_at: None,
            version: plan.version,
            active,
            newest,
            evaluated_at: found.evaluated_at,
            holes: found.holes,
            complete: VecDeque::new(),
            filling: None,
            samples_seq: 0,
            looked_at: (newest > Timestamp::MIN)
                .then_some(fleet::Watermark { at: newest, some_silent: false }),
            burden: Burden::new(plan.groups.len()),
            told: Instant::now(),
            registry,
            parts,
        }
    }

    /// Evaluates the host-local rules over one durable row.
    pub fn row(&mut self, row: DurableRow) -> Result<(), Stopping> {
        let plan = self.plan()?;
        self.parts.statistics.takes(Some(row.received));
        self.burden.behind(row.received.elapsed());
        self.samples_seq = self.samples_seq.max(row.samples_seq);
        let host = self.host(&plan, row.agent);
        if row.at <= host.last_at {
            self.parts.statistics.late_row();
        } else {
            let told = [host.hole_before(&row), host.rows_missing(&row)];
            host.last_at = row.at;
            for command in told.into_iter().flatten() {
                self.parts.ledger.post_blocking(command, Actor::System)?;
            }
            self.newest = self.newest.max(row.at);
            let Some(host) = self.hosts.get_mut(&row.agent) else { return Ok(()) };
            let counts = (&*self.parts.statistics, &mut self.burden);
            let (evaluations, derived) = host.evaluate(&plan, &self.parts.store, row, counts);
            self.publish(evaluations, derived)?;
            self.tell_times(&plan);
            self.parts.statistics.evaluated(row.received.elapsed());
        }
        self.note_completeness(&row);
        self.parts.statistics.evaluated_row(row.samples_seq);
        Ok(())
    }

    fn host(&mut self, plan: &Plan, agent: AgentId) -> &mut host::HostRules {
        let Self { hosts, active, evaluated_at, holes, parts, .. } = self;
        hosts.entry(agent).or_insert_with(|| {
            let last_at = evaluated_at.remove(&agent).unwrap_or(Timestamp::MIN);
            let active = active.remove(&agent).unwrap_or_default();
            let mut host = host::HostRules::new(plan, &parts.store, agent, last_at, &active);
            host.hole = holes.remove(&agent);
            host
        })
    }

    /// A hole is filled once nothing is missing; when something is missing again, it has to begin anew.
    fn note_completeness(&mut self, row: &DurableRow) {
        let Some(host) = self.hosts.get_mut(&row.agent) else { return };
        if !row.complete && host.waits_to_be_filled {
            host.waits_to_be_filled = false;
            self.complete.retain(|agent| *agent != row.agent);
            self.filling.take_if(|filling| filling.agent == row.agent);
        } else if row.complete && host.hole.is_some() && !host.waits_to_be_filled {
            host.waits_to_be_filled = true;
            self.complete.push_back(row.agent);
        }
    }

    /// Whether late rows wait to be evaluated.
    pub fn has_late_rows(&self) -> bool {
        !self.complete.is_empty()
    }

    /// Evaluates late rows, at most `count` of them.
    pub fn fill(&mut self, count: usize) -> Result<(), Stopping> {
        let Some(agent) = self.complete.front().copied() else { return Ok(()) };
        let plan = self.plan()?;
        let Some(to) = self.hosts.get(&agent).map(|host| host.last_at) else {
            return self.filled(agent, None);
        };
        self.filling.take_if(|filling| filling.version != plan.version);
        if self.filling.is_none() {
            let known = self
                .parts
                .ledger
                .read_blocking(move |state| Some((state.host(agent)?.clone(), state.hole(agent)?.clone())))?;
            let Some((host, hole)) = known else { return self.filled(agent, None) };
            self.filling = Some(Filling::new(&plan, &self.parts, host, hole, to));
        }
        let Some(filling) = &mut self.filling else { return Ok(()) };
        match filling.step(&plan, &self.parts, to, count) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let filling = self.filling.take();
                let filled = filling.map(|filling| filling.finish(&plan, to, self.samples_seq));
                self.filled(agent, filled)
            }
            Err(error) => {
                tracing::error!(%agent, %error, "late rows are not evaluated: their samples cannot be read");
                let (at, samples_seq) = (to, self.samples_seq);
                let nothing = Filled { agent, at, samples_seq, ended: Vec::new(), active: Vec::new() };
                self.filled(agent, Some(nothing))
            }
        }
    }

    fn filled(&mut self, agent: AgentId, filled: Option<Filled>) -> Result<(), Stopping> {
        self.complete.pop_front();
        self.filling = None;
        if let Some(host) = self.hosts.get_mut(&agent) {
            (host.hole, host.waits_to_be_filled) = (None, false);
        }
        match filled {
            Some(filled) => self.parts.ledger.post_blocking(Command::HoleClosed(filled), Actor::System),
            None => Ok(()),
        }
    }

    /// The rules in force; what is known of hosts is made to fit them. The ledger is told here, after the last
    /// evaluation of the old rules: an alert of a rule that is no more can't come after its end.
    fn plan(&mut self) -> Result<Arc<Plan>, Stopping> {
        let plan = self.parts.plan.load_full();
        if plan.version != self.version {
            let command = Command::RulesChanged { rule_ids: plan.rule_ids() };
            self.parts.ledger.post_blocking(command, Actor::System)?;
            self.version = plan.version;
            self.burden = Burden::new(plan.groups.len());
            self.hosts.values_mut().for_each(|host| host.adopt(&plan));
            self.fleet.adopt(&plan);
            self.received.adopt(&plan);
            (self.looked_at, self.received_looked_at) = (None, None);
        }
        Ok(plan)
    }

    /// Evaluates the rules across hosts whose tick all sending hosts and sources have passed, and over what sources
    /// push, those that need only one host.
    pub fn fleet(&mut self) -> Result<(), Stopping> {
        self.forget_retired()?;
        let plan = self.plan()?;
        let sources = self.parts.store.sources().into_iter().map(|(_, at)| at).collect::<Vec<_>>();
        if plan.has_fleet_rules() {
            // A host that sent before the start and not yet again is waited for, and then silent, like any other.
            let seen =
                self.hosts.values().map(|host| host.last_at).chain(self.evaluated_at.values().copied());
            let newest = sources.iter().copied().fold(self.newest, Timestamp::max);
            let watermark = fleet::watermark(seen.chain(sources.iter().copied()), newest);
            self.ticks(&plan, Over::Hosts, watermark)?;
        }
        let newest = sources.iter().copied().max().unwrap_or(Timestamp::MIN);
        self.ticks(&plan, Over::Received, fleet::watermark(sources.into_iter(), newest))
    }

    fn ticks(
        &mut self,
        plan: &Plan,
        over: Over,
        watermark: Option<fleet::Watermark>,
    ) -> Result<(), Stopping> {
        let (rules, looked_at) = match over {
            Over::Hosts => (&mut self.fleet, &mut self.looked_at),
            Over::Received => (&mut self.received, &mut self.received_looked_at),
        };
        let Some(watermark) = watermark.filter(|_| watermark != *looked_at) else { return Ok(()) };
        let before = looked_at.replace(watermark).map(|before| before.at);
        if let Some(from) = before.filter(|before| watermark.at.since(*before) > BLIND) {
            let missing = Command::RowsMissing { agent: None, from, to: watermark.at, samples_seq: 0 };
            self.parts.ledger.post_blocking(missing, Actor::System)?;
        }
        let counts = (&*self.parts.statistics, &mut self.burden);
        let (evaluations, derived) = rules.evaluate(plan, &self.parts.store, watermark, counts);
        self.publish(evaluations, derived)
    }

    /// Tells what groups of rules took, and how often they were left out.
    fn tell_times(&mut self, plan: &Plan) {
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            self.parts.statistics.took(plan, self.burden.times(), crate::clock::now());
            self.parts.statistics.skipped(self.burden.take_skipped());
        }
    }

    /// Hosts that are no longer in service leave: their silence holds nothing up.
    fn forget_retired(&mut self) -> Result<(), Stopping> {
        if !self.registry.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let registry = self.registry.borrow_and_update().clone();
        let writes = |source: &str| registry.principals.values().any(|(name, ..)| name == source);
        self.parts.store.forget_sources(|source| !writes(source));
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
        keep(&self.parts, derived);
        Ok(())
    }
}

/// Hands recorded values to the samples journal.
fn keep(parts: &Parts, derived: Vec<Derived>) {
    if !derived.is_empty() && !parts.rows.derived(derived) {
        parts.statistics.derived_not_kept();
    }
}
