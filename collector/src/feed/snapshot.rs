//! A snapshot: what is open now, written as events so that a consumer needs one kind of item only.

use tocsin_shared::alert::Condition;
use tocsin_shared::event::{Actor, Event, EventKind, Subject};
use tocsin_shared::incident::IncidentStatus;
use tocsin_shared::time::Timestamp;

use super::Filter;
use crate::state::State;

/// Firing alerts and open incidents as of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub as_of: u64,
    /// Alerts in the order of their keys, then incidents, oldest first.
    pub records: Vec<Event>,
}

/// Takes a snapshot at `now`. Alerts are in it if the filter wants anything about alerts, incidents alike.
pub fn snapshot(state: &State, filter: &Filter, now: Timestamp) -> Snapshot {
    let as_of = state.last_seq();
    let record = |kind, occurred_at, subject| Event {
        seq: as_of,
        kind,
        actor: Actor::System,
        occurred_at,
        recorded_at: now,
        cause: None,
        samples_seq: None,
        note: String::new(),
        subject,
    };
    let mut records = Vec::new();
    if filter.takes_family("alert.") {
        let firing = state.active_alerts().filter(|alert| alert.condition == Condition::Firing);
        records.extend(firing.map(|alert| {
            let at = alert.fired_at.unwrap_or(alert.active_since);
            record(EventKind::AlertTriggered, at, Subject::Alert(alert.clone()))
        }));
    }
    if filter.takes_family("incident.") {
        records.extend(state.open_incidents().map(|incident| {
            let (kind, at) = match (incident.status, &incident.ack) {
                (IncidentStatus::Acknowledged, Some(ack)) => (EventKind::IncidentAcknowledged, ack.at),
                _ => (EventKind::IncidentTriggered, incident.opened_at),
            };
            record(kind, at, Subject::Incident(incident.clone()))
        }));
    }
    Snapshot { as_of, records }
}

#[cfg(test)]
mod tests {
    use tocsin_shared::identity::Env;

    use super::*;
    use crate::state::Command;
    use crate::state::testing::{Desk, on, rule};

    #[test]
    fn a_snapshot_holds_what_is_open() {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        desk.now = 10;
        desk.evaluate(&rule("one", 0, 0), &[("sda", "critical")]);
        desk.evaluate(&rule("two", 0, 0), &[("sdb", "critical")]);
        desk.evaluate(&rule("slow", 600, 0), &[("sdc", "critical")]);
        desk.done(Command::Acknowledge(on(1, "mine")));
        desk.done(Command::Resolve { on: on(2, "done"), code: "fixed".into() });
        for (kinds, expected) in [
            (&[][..], &["alert.triggered", "alert.triggered", "incident.acknowledged"][..]),
            (&["incident.resolved"], &["incident.acknowledged"]),
            (&["alert."], &["alert.triggered", "alert.triggered"]),
            (&["job."], &[]),
        ] {
            let snapshot = snapshot(&desk.state, &Filter::parse(kinds).unwrap(), Timestamp::from_millis(5));
            let found: Vec<_> = snapshot.records.iter().map(|event| event.kind.as_str()).collect();
            assert_eq!(found, expected, "{kinds:?}");
            assert!(snapshot.records.iter().all(|event| event.seq == desk.state.last_seq()));
        }
    }
}
