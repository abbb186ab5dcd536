//! The incidents of the state: all open ones, the resolved ones with the highest numbers, and their timers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tocsin_shared::incident::Incident;
use tocsin_shared::time::Timestamp;

/// How many resolved incidents stay: a month of 300 a day, about 10 MB. The newest number always stays, because
/// counting goes on from it.
pub(crate) const RESOLVED_INCIDENTS_MAX: usize = 10_000;

/// Incidents by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Incidents {
    by_number: BTreeMap<u64, Incident>,
    newest_by_key: HashMap<String, u64>,
    timers: BTreeSet<(Timestamp, u64)>,
    resolved: BTreeSet<u64>,
}

impl Incidents {
    pub(crate) fn put(&mut self, incident: Incident) {
        let number = incident.number;
        if let Some(due) = self.by_number.get(&number).and_then(due) {
            self.timers.remove(&(due, number));
        }
        if let Some(due) = due(&incident) {
            self.timers.insert((due, number));
        }
        if incident.status.is_open() {
            self.resolved.remove(&number);
        } else {
            self.resolved.insert(number);
        }
        let newest = self.newest_by_key.entry(incident.incident_key.clone()).or_default();
        *newest = number.max(*newest);
        self.by_number.insert(number, incident);
        if self.resolved.len() > RESOLVED_INCIDENTS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.resolved.pop_first().and_then(|number| self.by_number.remove(&number));
        if let Some(oldest) = oldest
            && self.newest_by_key.get(&oldest.incident_key) == Some(&oldest.number)
        {
            self.newest_by_key.remove(&oldest.incident_key);
        }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Incident> {
        self.by_number.get(&number)
    }

    pub(crate) fn newest_of_key(&self, incident_key: &str) -> Option<&Incident> {
        self.newest_by_key.get(incident_key).and_then(|number| self.by_number.get(number))
    }

    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.by_number.values()
    }

    /// The number of the next new incident.
    pub(crate) fn next_number(&self) -> u64 {
        self.by_number.last_key_value().map_or(1, |(number, _)| number + 1)
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The incidents that have something due at `now`, the longest due first.
    pub(crate) fn due(&self, now: Timestamp) -> impl Iterator<Item = u64> {
        self.timers.range(..=(now, u64::MAX)).map(|(_, number)| *number)
    }
}

/// When something happens to an incident by itself.
fn due(incident: &Incident) -> Option<Timestamp> {
    if !incident.status.is_open() {
        return None;
    }
    let ack = incident.ack.as_ref().map(|ack| ack.expires_at);
    incident.auto_resolve_at.into_iter().chain(ack).min()
}

#[cfg(test)]
mod tests {
    use tocsin_shared::incident::IncidentStatus;

    use super::*;
    use crate::state::testing;

    #[test]
    fn resolved_incidents_are_bounded_and_numbers_never_come_again() {
        let mut incidents = Incidents::default();
        let last = RESOLVED_INCIDENTS_MAX as u64 + 5;
        for number in 1..=last {
            let mut incident = testing::incident(number, &format!("key-{number}"));
            incident.status = if number == 2 { IncidentStatus::Triggered } else { IncidentStatus::Resolved };
            incidents.put(incident);
        }
        assert_eq!(incidents.all().count(), RESOLVED_INCIDENTS_MAX + 1);
        assert!(incidents.get(1).is_none() && incidents.newest_of_key("key-1").is_none());
        assert!(incidents.get(2).is_some(), "open ones stay");
        assert_eq!(incidents.next_number(), last + 1);
    }
}
