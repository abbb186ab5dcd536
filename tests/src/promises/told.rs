//! What must hold of any feed, whatever was done to its collector: dense counts, one incident for each trouble, nobody
//! unreachable only because the collector was away.

use std::collections::{BTreeMap, BTreeSet};

use tocsin_proto::pb;
use tocsin_proto::pb::event::Subject;

/// What is wrong with a feed read from its beginning.
pub(super) fn check(events: &[&pb::Event], silenced: &BTreeSet<String>) -> Vec<String> {
    let mut broken = Vec::new();
    if !events.is_sorted_by(|a, b| a.seq < b.seq) {
        broken.push("the feed is not in order".to_owned());
    }
    let mut counts: BTreeMap<String, (u64, u32, &str)> = BTreeMap::new();
    let mut triggered: BTreeMap<u64, u32> = BTreeMap::new();
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    let mut unreachable: BTreeSet<&str> = BTreeSet::new();
    let mut enrolled: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events {
        let (seq, kind) = (event.seq, event.kind.as_str());
        match &event.subject {
            Some(Subject::Alert(alert)) => {
                let last = counts.entry(alert.dedup_key.clone()).or_insert((0, 0, "alert.resolved"));
                let fires = kind == "alert.triggered";
                let next = (last.0 + 1, last.1 + u32::from(fires));
                if (alert.key_seq, alert.generation) != next || last.2 == kind {
                    let is = (alert.key_seq, alert.generation);
                    broken.push(format!("event {seq}: {kind} of an alert counts {is:?} after {last:?}"));
                }
                *last = (alert.key_seq, alert.generation, kind);
            }
            Some(Subject::Incident(incident)) => {
                let last = counts.entry(format!("incident {}", incident.number)).or_insert((0, 0, ""));
                if incident.key_seq != last.0 + 1 {
                    let number = incident.number;
                    broken.push(format!(
                        "event {seq}: {kind} of incident {number} counts {} after {}",
                        incident.key_seq, last.0
                    ));
                }
                last.0 = incident.key_seq;
                *triggered.entry(incident.number).or_default() += u32::from(kind == "incident.triggered");
                // Within the reopen window a trouble has one number.
                let number = *numbers.entry(&incident.incident_key).or_insert(incident.number);
                if number != incident.number {
                    broken.push(format!(
                        "{} has incidents {number} and {}",
                        incident.incident_key, incident.number
                    ));
                }
            }
            Some(Subject::Host(host))
                if kind == "host.unreachable"
                    && !(silenced.contains(&host.instance) && unreachable.insert(&host.instance)) =>
            {
                broken.push(format!("event {seq}: {} is called unreachable", host.instance));
            }
            Some(Subject::Host(host)) if kind == "host.enrolled" => {
                *enrolled.entry(&host.instance).or_default() += 1;
            }
            _ => {}
        }
    }
    broken.extend(missing_incidents(events, &triggered));
    let twice = enrolled.iter().filter(|(_, times)| **times != 1);
    broken.extend(twice.map(|(host, times)| format!("{host} is enrolled {times} times")));
    broken
}

/// Every alert that opens an incident has it, and every incident was opened once.
fn missing_incidents(events: &[&pb::Event], triggered: &BTreeMap<u64, u32>) -> Vec<String> {
    let opened = triggered.iter().filter(|(_, times)| **times != 1);
    let mut broken: Vec<String> =
        opened.map(|(number, times)| format!("incident {number} was opened {times} times")).collect();
    for event in events.iter().filter(|event| event.kind == "alert.triggered") {
        let Some(Subject::Alert(alert)) = &event.subject else { continue };
        if alert.opens_incident && !triggered.contains_key(&alert.incident) {
            broken.push(format!("event {}: an alert's incident {} is not there", event.seq, alert.incident));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(seq: u64, kind: &str, key_seq: u64, generation: u32) -> pb::Event {
        let alert = pb::Alert { dedup_key: "a".into(), key_seq, generation, ..Default::default() };
        pb::Event { seq, kind: kind.into(), subject: Some(Subject::Alert(alert)), ..Default::default() }
    }

    fn incident(seq: u64, kind: &str, number: u64, key_seq: u64) -> pb::Event {
        let incident = pb::Incident { number, key_seq, incident_key: "i".into(), ..Default::default() };
        pb::Event { seq, kind: kind.into(), subject: Some(Subject::Incident(incident)), ..Default::default() }
    }

    #[test]
    fn what_is_said_twice_or_not_at_all_is_found() {
        let (fires, ends) = ("alert.triggered", "alert.resolved");
        for (events, broken, why) in [
            (vec![alert(1, fires, 1, 1), alert(2, ends, 2, 1), alert(3, fires, 3, 2)], 0, "as it should be"),
            (vec![alert(1, fires, 1, 1), alert(2, fires, 2, 2)], 1, "a second page"),
            (vec![alert(1, fires, 1, 1), alert(2, ends, 3, 1)], 1, "a count that skips"),
            (vec![alert(2, fires, 1, 1), alert(1, ends, 2, 1)], 1, "out of order"),
            (
                vec![incident(1, "incident.triggered", 1, 1), incident(2, "incident.noted", 1, 2)],
                0,
                "one incident",
            ),
            (vec![incident(1, "incident.noted", 1, 1)], 1, "never opened"),
            (
                vec![incident(1, "incident.triggered", 1, 1), incident(2, "incident.triggered", 2, 1)],
                1,
                "two for one trouble",
            ),
        ] {
            let events: Vec<&pb::Event> = events.iter().collect();
            let found = check(&events, &BTreeSet::new());
            assert_eq!(found.len(), broken, "{why}: {found:?}");
        }
    }
}
