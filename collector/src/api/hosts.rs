//! Hosts as people ask for them: found by name, and with what is known of them now.

use std::cell::RefCell;
use std::collections::HashMap;

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_shared::alert::Condition;
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::{AgentId, Env};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tonic::Status;

use super::{Api, refusal};
use crate::samples::{Store, Wanted};
use crate::state::State;

/// After all blocks: such a span selects what is in memory, that is the series being sent.
const IN_MEMORY: (Timestamp, Timestamp) = (Timestamp::from_millis(i64::MAX - 1), Timestamp::MAX);

/// A host by its instance or its agent's id; retired hosts by their agent's id only.
pub(super) fn find<'s>(state: &'s State, name: &str) -> Option<&'s Host> {
    let by_agent = || name.parse().ok().and_then(|agent: AgentId| state.host(agent));
    state.host_by_instance(name).or_else(by_agent)
}

impl Api {
    /// The host that a caller names.
    pub(super) async fn host(&self, name: String) -> Result<Host, Status> {
        let unknown = refusal::unknown("host", &name);
        self.read(move |state| find(state, &name).cloned()).await?.ok_or(unknown)
    }

    /// Hosts with their status, by instance; `only` one of them, or those that the filter takes.
    pub(super) async fn statuses(
        &self,
        only: Option<Host>,
        filter: Filter,
    ) -> Result<Vec<pb::HostStatus>, Status> {
        let instance = only.as_ref().map(|host| host.instance.clone());
        let (hosts, firing) = self
            .read(move |state| {
                let hosts = match only {
                    Some(host) => vec![host],
                    None => state.hosts().filter(|host| filter.takes(host)).cloned().collect(),
                };
                (hosts, firing(state))
            })
            .await?;
        let turn = self.calls.queries.turn().await?;
        let find = move |samples: &Store| Ok(sampled(samples, instance.as_deref()));
        let (sampled, _) = self.query(turn, find).await?;
        let mut statuses: Vec<pb::HostStatus> =
            hosts.iter().map(|host| self.status_of(host, &firing, &sampled)).collect();
        statuses.sort_by_cached_key(key);
        Ok(statuses)
    }

    fn status_of(
        &self,
        host: &Host,
        firing: &HashMap<AgentId, u32>,
        sampled: &SampledHosts,
    ) -> pb::HostStatus {
        let heard = self.presence.of(host.agent).0.max(host.last_seen);
        let retired = host.state == HostState::Retired; // Its name may be another host's by now.
        let series = if retired { 0 } else { sampled.series.get(&host.instance).copied().unwrap_or(0) };
        pb::HostStatus {
            host: Some(host.into()),
            last_row_ms: sampled.last_rows.get(&host.agent).map_or(0, |at| at.as_millis()),
            last_heard_ms: heard.map_or(0, Timestamp::as_millis),
            series,
            alerts_firing: firing.get(&host.agent).copied().unwrap_or(0),
        }
    }
}

/// What hosts are listed by: the name, which a retired host may share, then the agent.
pub(super) fn key(status: &pb::HostStatus) -> Vec<u8> {
    let (instance, agent) = status.host.as_ref().map_or(("", ""), |host| (&host.instance, &host.agent));
    [instance.as_bytes(), &[0], agent.as_bytes()].concat()
}

/// Which hosts are listed.
#[derive(Debug, Default)]
pub(super) struct Filter {
    include_retired: bool,
    envs: Vec<Env>,
    states: Vec<HostState>,
    /// In lower case.
    name_contains: String,
    labels: Vec<(String, String)>,
}

impl Filter {
    /// What a caller asks, without size and token of the page.
    pub(super) fn read(asked: pb::ListHostsRequest) -> Result<Self, String> {
        let pb::ListHostsRequest { include_retired, envs, states, name_contains, labels, .. } = asked;
        let env = |number| Env::from_number(number).map_err(|_| format!("there is no environment {number}"));
        let state =
            |number| HostState::from_number(number).map_err(|_| format!("there is no state {number}"));
        Ok(Self {
            include_retired,
            envs: envs.into_iter().map(env).collect::<Result<_, _>>()?,
            states: states.into_iter().map(state).collect::<Result<_, _>>()?,
            name_contains: name_contains.to_lowercase(),
            labels: labels.into_iter().map(|pb::Label { name, value }| (name, value)).collect(),
        })
    }

    fn takes(&self, host: &Host) -> bool {
        let retired = self.include_retired || host.state != HostState::Retired;
        (if self.states.is_empty() { retired } else { self.states.contains(&host.state) })
            && (self.envs.is_empty() || self.envs.contains(&host.env))
            && host.instance.to_lowercase().contains(&self.name_contains)
            && self.labels.iter().all(|(name, value)| host.labels.get(name).unwrap_or("") == value)
    }
}

fn firing(state: &State) -> HashMap<AgentId, u32> {
    let mut counts = HashMap::new();
    for alert in state.active_alerts().filter(|alert| alert.condition == Condition::Firing) {
        if let Some(agent) = alert.agent {
            *counts.entry(agent).or_default() += 1;
        }
    }
    counts
}

/// What the samples say of hosts: rows by agent, series in memory by instance.
struct SampledHosts {
    last_rows: HashMap<AgentId, Timestamp>,
    series: HashMap<String, u64>,
}

fn sampled(samples: &Store, instance: Option<&str>) -> SampledHosts {
    let counts = RefCell::new(HashMap::<String, u64>::new());
    let count = |labels: &Labels| {
        let named = labels.get("instance").filter(|name| instance.is_none_or(|wanted| wanted == *name));
        if let Some(name) = named {
            let mut counts = counts.borrow_mut();
            match counts.get_mut(name) {
                Some(count) => *count += 1,
                None => drop(counts.insert(name.to_owned(), 1)),
            }
        }
        false // Counting is all: no list is made.
    };
    let equals: Vec<(&str, &str)> = instance.iter().map(|instance| ("instance", *instance)).collect();
    samples.view().series(&Wanted { equals: &equals, matches: &count }, IN_MEMORY);
    SampledHosts { last_rows: samples.last_rows().into_iter().collect(), series: counts.into_inner() }
}
