//! The alerts of the state: the active ones, and of those that ended the ones that ended last.
//!
//! An ended alert stays because its key goes on counting generations and `key_seq` when it fires again. When a key
//! is forgotten, both begin again at 1.

use std::collections::{BTreeMap, BTreeSet};

use tocsin_shared::alert::{Alert, AlertSource, Condition};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;

use super::index::Index;

/// How many ended alerts stay: 10 for each of 1,000 hosts, about 10 MB.
pub(crate) const ENDED_ALERTS_MAX: usize = 10_000;

/// Alerts by `dedup_key`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alerts {
    by_key: BTreeMap<String, Alert>,
    /// Active alerts of rules. Nested, so that looking a rule up copies nothing: it happens at every evaluation.
    by_rule: BTreeMap<String, Index<Option<AgentId>, String>>,
    active: BTreeSet<String>,
    by_agent: Index<AgentId, String>,
    firing_by_incident: Index<u64, String>,
    ended: BTreeSet<(Timestamp, String)>,
}

impl Alerts {
    pub(crate) fn put(&mut self, alert: Alert) {
        if let Some(old) = self.by_key.remove(&alert.dedup_key) {
            self.unlist(&old);
        }
        if alert.condition == Condition::Inactive && alert.key_seq == 0 {
            return; // It never fired: nobody was told of it, so nothing has to be remembered.
        }
        self.list(&alert);
        self.by_key.insert(alert.dedup_key.clone(), alert);
        if self.ended.len() > ENDED_ALERTS_MAX
            && let Some((_, oldest)) = self.ended.pop_first()
        {
            self.by_key.remove(&oldest);
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Alert> {
        self.by_key.get(key)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Alert> {
        self.by_key.values()
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = &Alert> {
        self.active.iter().filter_map(|key| self.by_key.get(key))
    }

    pub(crate) fn of_rule(&self, rule_id: &str, agent: Option<AgentId>) -> impl Iterator<Item = &Alert> {
        let keys = self.by_rule.get(rule_id).into_iter().flat_map(move |scopes| scopes.get(&agent));
        keys.filter_map(|key| self.by_key.get(key))
    }

    /// The rules that have active alerts.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Alert>)> {
        self.by_rule.iter().map(|(rule, scopes)| {
            let keys = scopes.iter().flat_map(|(_, keys)| keys);
            (rule.as_str(), keys.filter_map(|key| self.by_key.get(key)))
        })
    }

    pub(crate) fn of_agent(&self, agent: AgentId) -> impl Iterator<Item = &Alert> {
        self.by_agent.get(&agent).filter_map(|key| self.by_key.get(key))
    }

    pub(crate) fn firing_of_incident(&self, number: u64) -> impl Iterator<Item = &Alert> {
        self.firing_by_incident.get(&number).filter_map(|key| self.by_key.get(key))
    }

    fn list(&mut self, alert: &Alert) {
        let key = &alert.dedup_key;
        if !is_active(alert) {
            self.ended.insert((ended_at(alert), key.clone()));
            return;
        }
        self.active.insert(key.clone());
        if alert.source == AlertSource::Rule {
            self.by_rule.entry(alert.source_id.clone()).or_default().insert(alert.agent, key.clone());
        }
        if let Some(agent) = alert.agent {
            self.by_agent.insert(agent, key.clone());
        }
        if let (Condition::Firing, Some(number)) = (alert.condition, alert.incident) {
            self.firing_by_incident.insert(number, key.clone());
        }
    }

    fn unlist(&mut self, alert: &Alert) {
        let key = &alert.dedup_key;
        self.ended.remove(&(ended_at(alert), key.clone()));
        self.active.remove(key);
        if let Some(scopes) = self.by_rule.get_mut(&alert.source_id) {
            scopes.remove(&alert.agent, key);
            if scopes.iter().next().is_none() {
                self.by_rule.remove(&alert.source_id);
            }
        }
        if let Some(agent) = alert.agent {
            self.by_agent.remove(&agent, key);
        }
        if let Some(number) = alert.incident {
            self.firing_by_incident.remove(&number, key);
        }
    }
}

/// Whether an alert is pending or firing.
pub(crate) fn is_active(alert: &Alert) -> bool {
    matches!(alert.condition, Condition::Pending | Condition::Firing)
}

fn ended_at(alert: &Alert) -> Timestamp {
    alert.resolved_at.unwrap_or(alert.last_true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn ended_alerts_are_bounded_and_the_oldest_leave_first() {
        let mut alerts = Alerts::default();
        for n in 0..=ENDED_ALERTS_MAX {
            let mut alert = testing::alert(&format!("key-{n:05}"));
            alert.condition = Condition::Resolved;
            alert.resolved_at = Some(Timestamp::from_millis(n as i64));
            alerts.put(alert);
        }
        assert_eq!(alerts.all().count(), ENDED_ALERTS_MAX);
        assert!(alerts.get("key-00000").is_none());
        assert!(alerts.get("key-00001").is_some());
    }

    #[test]
    fn an_alert_that_ends_leaves_every_index_of_active_ones() {
        let mut alerts = Alerts::default();
        let mut alert = testing::alert("k");
        alert.incident = Some(7);
        alerts.put(alert.clone());
        let agent = alert.agent.unwrap();
        assert_eq!(alerts.of_agent(agent).count(), 1);
        assert_eq!(alerts.firing_of_incident(7).count(), 1);
        assert_eq!(alerts.of_rule(&alert.source_id, alert.agent).count(), 1);
        alert.condition = Condition::Resolved;
        alerts.put(alert.clone());
        assert_eq!(alerts.of_agent(agent).count(), 0);
        assert_eq!(alerts.firing_of_incident(7).count(), 0);
        assert_eq!(alerts.rules().count(), 0);
        assert_eq!(alerts.active().count(), 0);
        assert_eq!(alerts.all().count(), 1);
    }
}
