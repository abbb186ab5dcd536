//! Which incident an alert belongs to, and what an alert's coming and going does to it.

use tocsin_shared::alert::{Alert, AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{Actor, EventKind, Subject};
use tocsin_shared::incident::{AlertRef, Incident, IncidentStatus, Level, Priority, Resolution};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;

use super::rating;
use crate::state::DraftCause;
use crate::state::decide::Decision;

/// How long a title may be: one line on a pager and in a list.
const TITLE_CHARS_MAX: usize = 200;

/// Where an alert goes.
pub(crate) enum Place {
    /// Into the open incident of its key.
    Join(u64),
    /// Into the one that was resolved a short time ago.
    Reopen(u64),
    /// Into a new one.
    Open(u64),
}

impl Place {
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Join(number) | Self::Reopen(number) | Self::Open(number) => *number,
        }
    }
}

/// What is one incident: environment, alertname and instance; for jobs also the job, because another job's failure is
/// another trouble. Parts are escaped, so that different parts give different keys.
pub fn incident_key(alert: &Alert) -> String {
    let escaped = |text: &str| text.replace('%', "%25").replace('/', "%2F");
    let instance = alert.labels.get("instance").unwrap_or("");
    let mut key = format!("{}/{}/{}", alert.env, escaped(alert.name()), escaped(instance));
    if alert.source == AlertSource::Job {
        key.push('/');
        key.push_str(&escaped(alert.labels.get("job_name").unwrap_or("")));
    }
    key
}

/// Where an alert that fires, or became worse, goes.
pub(crate) fn place(d: &Decision<'_>, alert: &Alert) -> Place {
    let Some(newest) = d.newest_incident(&incident_key(alert)) else { return Place::Open(d.next_incident()) };
    if newest.status.is_open() {
        return Place::Join(newest.number);
    }
    let resolved_at = newest.resolution.as_ref().map_or(newest.opened_at, |resolution| resolution.at);
    match d.now <= resolved_at.plus(d.config.reopen_window) {
        true => Place::Reopen(newest.number),
        false => Place::Open(d.next_incident()),
    }
}

/// An alert fires in its place, or became worse there.
pub(crate) fn enter(d: &mut Decision<'_>, place: Place, alert: &Alert, cause: DraftCause) {
    match place {
        Place::Open(number) => {
            let incident = opened(d, number, alert);
            d.by_system(EventKind::IncidentTriggered, d.now, Some(cause), Subject::Incident(incident));
        }
        Place::Join(number) => join(d, number, alert, cause),
        Place::Reopen(number) => reopen(d, number, alert, cause),
    }
}

fn opened(d: &Decision<'_>, number: u64, alert: &Alert) -> Incident {
    let mut incident = Incident {
        number,
        incident_key: incident_key(alert),
        key_seq: 0,
        title: title(alert),
        env: alert.env,
        labels: alert.labels.clone(),
        status: IncidentStatus::Triggered,
        severity: alert.severity,
        impact: Level::Medium,
        urgency: Level::Low,
        priority: Priority::from_matrix(Level::Medium, Level::Low),
        pages: false,
        alerts: Vec::new(),
        opened_at: d.now,
        ack: None,
        resolution: None,
        auto_resolve_at: None,
        reopen_count: 0,
        rev: 0,
    };
    rating::rate(&mut incident, alert.severity);
    list(&mut incident, alert);
    incident
}

pub(super) fn title(alert: &Alert) -> String {
    let mut title = alert.name().to_owned();
    if let Some(instance) = alert.labels.get("instance") {
        title.push_str(&format!(" on {instance}"));
    }
    if let Some(summary) = alert.annotations.get("summary") {
        // Many summaries begin with the host, for readers who see nothing else.
        let instance = alert.labels.get("instance").unwrap_or_default();
        let rest = summary.strip_prefix(instance).filter(|_| !instance.is_empty());
        let rest = rest.and_then(|rest| rest.strip_prefix(": "));
        title.push_str(&format!(": {}", rest.unwrap_or(summary)));
    }
    title.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TITLE_CHARS_MAX).collect()
}

fn join(d: &mut Decision<'_>, number: u64, alert: &Alert, cause: DraftCause) {
    let Some(mut incident) = d.incident(number).cloned() else { return };
    list(&mut incident, alert);
    incident.auto_resolve_at = None;
    if alert.severity <= incident.severity {
        d.by_system(EventKind::IncidentUpdated, d.now, Some(cause), Subject::Incident(incident));
        return;
    }
    rating::rate(&mut incident, alert.severity);
    d.by_system(EventKind::IncidentPriorityChanged, d.now, Some(cause), Subject::Incident(incident));
    let Some(mut incident) = d.incident(number).filter(|incident| incident.ack.is_some()).cloned() else {
        return;
    };
    incident.status = IncidentStatus::Triggered;
    incident.ack = None;
    d.by_system(EventKind::IncidentUnacknowledged, d.now, Some(cause), Subject::Incident(incident));
}

fn reopen(d: &mut Decision<'_>, number: u64, alert: &Alert, cause: DraftCause) {
    let Some(mut incident) = d.incident(number).cloned() else { return };
    list(&mut incident, alert);
    let severity: Severity = incident.severity.max(alert.severity);
    rating::rate(&mut incident, severity);
    incident.status = IncidentStatus::Triggered;
    (incident.ack, incident.resolution, incident.auto_resolve_at) = (None, None, None);
    incident.reopen_count += 1;
    d.by_system(EventKind::IncidentReopened, d.now, Some(cause), Subject::Incident(incident));
}

/// Names a firing alert in an incident, and keeps of the incident's labels those that the alert shares.
fn list(incident: &mut Incident, alert: &Alert) {
    let entry = AlertRef {
        dedup_key: alert.dedup_key.clone(),
        generation: alert.generation,
        name: alert.name().to_owned(),
        firing: true,
    };
    incident.labels = shared(&incident.labels, &alert.labels);
    match incident.alerts.iter_mut().find(|known| known.dedup_key == entry.dedup_key) {
        Some(known) => *known = entry,
        None => {
            if incident.alerts.len() >= Incident::ALERTS_MAX {
                let Some(ended) = incident.alerts.iter().position(|known| !known.firing) else { return };
                incident.alerts.remove(ended);
            }
            incident.alerts.push(entry);
        }
    }
}

fn shared(some: &Labels, other: &Labels) -> Labels {
    some.without(|name| some.get(name) != other.get(name))
}

/// An alert moved to another incident.
pub(crate) fn leave(d: &mut Decision<'_>, number: u64, dedup_key: &str, cause: DraftCause) {
    let Some(mut incident) = d.incident(number).cloned() else { return };
    incident.alerts.retain(|known| known.dedup_key != dedup_key);
    d.by_system(EventKind::IncidentUpdated, d.now, Some(cause), Subject::Incident(incident));
}

/// An alert of an incident is resolved. After the last one it resolves by itself, for a removed rule or host at once.
pub(crate) fn alert_ended(d: &mut Decision<'_>, alert: &Alert, reason: ResolveReason, cause: DraftCause) {
    let Some(mut incident) = alert.incident.and_then(|number| d.incident(number)).cloned() else { return };
    for known in incident.alerts.iter_mut().filter(|known| known.dedup_key == alert.dedup_key) {
        known.firing = false;
    }
    let mut kind = EventKind::IncidentUpdated;
    if incident.status.is_open() && !d.anything_fires(incident.number) {
        match reason {
            ResolveReason::Source => {
                incident.auto_resolve_at = Some(d.now.plus(d.config.auto_resolve_after));
            }
            ResolveReason::RuleRemoved => {
                kind = EventKind::IncidentResolved;
                close(d, &mut incident, Actor::System, reason.as_str(), "the rule of its last alert is gone");
            }
            ResolveReason::HostRetired => {
                kind = EventKind::IncidentResolved;
                close(d, &mut incident, Actor::System, reason.as_str(), "its host was retired");
            }
        }
    }
    d.by_system(kind, d.now, Some(cause), Subject::Incident(incident));
}

/// Brings an open incident up to its alerts, after a time in which it did not follow them: which of them fire, and
/// that it resolves by itself when none does.
pub(crate) fn follow_alerts(d: &mut Decision<'_>, number: u64) {
    let Some(incident) = d.incident(number) else { return };
    let mut followed = incident.clone();
    for known in &mut followed.alerts {
        let alert = d.alert(&known.dedup_key);
        known.firing = alert.is_some_and(|a| a.condition == Condition::Firing && a.incident == Some(number));
    }
    let over = !followed.alerts.is_empty() && !d.anything_fires(number);
    if over && followed.auto_resolve_at.is_none() {
        followed.auto_resolve_at = Some(d.now.plus(d.config.auto_resolve_after));
    }
    if followed != *incident {
        d.by_system(EventKind::IncidentUpdated, d.now, None, Subject::Incident(followed));
    }
}

/// Makes an incident a resolved one.
pub(super) fn close(d: &Decision<'_>, incident: &mut Incident, by: Actor, code: &str, text: &str) {
    incident.status = IncidentStatus::Resolved;
    (incident.ack, incident.auto_resolve_at) = (None, None);
    incident.resolution = Some(Resolution { by, at: d.now, code: code.into(), text: text.into() });
}
