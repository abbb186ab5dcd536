//! The hosts of the state.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;

/// How many retired hosts stay: fleets that scale up and down retire some every hour; older ones are in the journal.
pub(crate) const RETIRED_HOSTS_MAX: usize = 10_000;

/// Hosts by agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hosts {
    by_agent: BTreeMap<AgentId, Host>,
    by_instance: HashMap<String, AgentId>,
    retired: BTreeSet<(Timestamp, AgentId)>,
}

impl Hosts {
    pub(crate) fn put(&mut self, host: Host) {
        if let Some(old) = self.by_agent.get(&host.agent) {
            self.retired.remove(&(old.state_since, old.agent));
            if self.by_instance.get(&old.instance) == Some(&old.agent) {
                self.by_instance.remove(&old.instance);
            }
        }
        if host.state == HostState::Retired {
            self.retired.insert((host.state_since, host.agent));
        } else {
            self.by_instance.insert(host.instance.clone(), host.agent);
        }
        self.by_agent.insert(host.agent, host);
        if self.retired.len() > RETIRED_HOSTS_MAX
            && let Some((_, oldest)) = self.retired.pop_first()
        {
            self.by_agent.remove(&oldest);
        }
    }

    pub(crate) fn get(&self, agent: AgentId) -> Option<&Host> {
        self.by_agent.get(&agent)
    }

    pub(crate) fn by_instance(&self, instance: &str) -> Option<&Host> {
        self.by_instance.get(instance).and_then(|agent| self.by_agent.get(agent))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Host> {
        self.by_agent.values()
    }

    /// How many hosts are in service.
    pub(crate) fn in_service(&self) -> usize {
        self.by_instance.len()
    }
}
