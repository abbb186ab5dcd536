//! When a breached rule becomes an alert, and when that alert ends: the condition axis.
//!
//! Pure. Promises: an alert fires only after its rule held for `for`, by event time; it is resolved only on evidence
//! (rows came and the expression did not hold, a job succeeded, a host was heard) or for a named reason; an evaluation
//! that comes a second time says nothing twice. No evaluation moves nothing: silence is an alert of its own.
//! Not here: what counts as breached (the rules), who handles it (`incident`), who is told (the feed).

pub mod evaluation;
mod identity;
mod late;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use tocsin_shared::alert::{Alert, AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::identity::{AgentId, Env};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

use crate::incident;
use crate::state::DraftCause;
use crate::state::decide::Decision;

pub use evaluation::{Breach, Evaluation, Filled, RuleSpec};
pub use identity::dedup_key;
pub(crate) use late::{hole_closed, hole_opened, rows_missing};
pub(crate) use step::{ELEMENTS_MAX, evaluated};

/// Something that fires without waiting: a failed job, a silent host.
pub(crate) struct Raised {
    pub(crate) source: AlertSource,
    pub(crate) source_id: String,
    /// What tells alerts of this source and agent apart.
    pub(crate) identity: Labels,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) severity: Severity,
    pub(crate) env: Env,
    pub(crate) agent: Option<AgentId>,
    /// Since when it is so.
    pub(crate) since: Timestamp,
    /// When it was seen.
    pub(crate) at: Timestamp,
    pub(crate) value: f64,
}

/// Raises an alert, or gives one that fires its new evidence. New evidence opens a new or the same incident when an
/// operator has resolved the last one meanwhile.
pub(crate) fn raise_now(d: &mut Decision<'_>, raised: Raised, cause: Option<DraftCause>) {
    let Raised { source, source_id, identity, labels, annotations, severity, env, agent, since, at, value } =
        raised;
    let key = dedup_key(source, &source_id, agent, &identity);
    let old = d.alert(&key).cloned();
    let fires = old.as_ref().is_some_and(|alert| alert.condition == Condition::Firing);
    let mut alert = Alert {
        dedup_key: key,
        generation: old.as_ref().map_or(0, |alert| alert.generation) + u32::from(!fires),
        key_seq: old.as_ref().map_or(0, |alert| alert.key_seq),
        source,
        source_id,
        labels,
        annotations,
        severity,
        env,
        agent,
        condition: Condition::Firing,
        active_since: since,
        fired_at: Some(at),
        last_true: at,
        recovering_since: None,
        resolved_at: None,
        resolve_reason: None,
        value,
        opens_incident: severity >= d.config.incident_from,
        incident: None,
        late: false,
    };
    match old.filter(|_| fires) {
        Some(old) => {
            (alert.active_since, alert.fired_at, alert.incident) =
                (old.active_since, old.fired_at, old.incident);
            let open = old.incident.and_then(|number| d.incident(number)).is_some_and(|i| i.status.is_open());
            change(d, alert, !open, cause);
        }
        None => fire(d, alert, cause),
    }
}

/// An alert whose record says Firing begins to fire.
pub(crate) fn fire(d: &mut Decision<'_>, mut alert: Alert, cause: Option<DraftCause>) {
    let opens = alert.opens_incident && !d.incidents_wait_for(&alert);
    let place = opens.then(|| incident::place(d, &alert));
    alert.incident = place.as_ref().map(incident::Place::number);
    let at = alert.last_true;
    let cause = d.by_system(EventKind::AlertTriggered, at, cause, Subject::Alert(alert.clone()));
    if let Some(place) = place {
        incident::enter(d, place, &alert, cause);
    }
}

/// A firing alert changed. With `announce` its incident is told as if it had just fired: it got worse, or has none.
pub(crate) fn change(d: &mut Decision<'_>, mut alert: Alert, announce: bool, cause: Option<DraftCause>) {
    let announce = announce && alert.opens_incident && !d.incidents_wait_for(&alert);
    let place = announce.then(|| incident::place(d, &alert));
    let left = alert.incident;
    if let Some(place) = &place {
        alert.incident = Some(place.number());
    }
    let at = alert.recovering_since.unwrap_or(alert.last_true);
    let cause = d.by_system(EventKind::AlertUpdated, at, cause, Subject::Alert(alert.clone()));
    if let Some(place) = place {
        if let Some(left) = left.filter(|left| *left != place.number()) {
            incident::leave(d, left, &alert.dedup_key, cause);
        }
        incident::enter(d, place, &alert, cause);
    }
}

/// Ends an alert: a firing one is resolved, a pending one was nothing.
pub(crate) fn settle(
    d: &mut Decision<'_>,
    key: &str,
    reason: ResolveReason,
    at: Timestamp,
    cause: Option<DraftCause>,
) {
    let Some(mut alert) = d.alert(key).cloned() else { return };
    alert.resolved_at = Some(at);
    alert.recovering_since = None;
    match alert.condition {
        Condition::Firing => {
            alert.condition = Condition::Resolved;
            alert.resolve_reason = Some(reason);
            let cause = d.by_system(EventKind::AlertResolved, at, cause, Subject::Alert(alert.clone()));
            if !d.incidents_wait_for(&alert) {
                incident::alert_ended(d, &alert, reason, cause);
            }
        }
        Condition::Pending => {
            alert.condition = Condition::Inactive;
            d.by_system(EventKind::AlertInactive, at, cause, Subject::Alert(alert));
        }
        Condition::Resolved | Condition::Inactive => {}
    }
}

/// Ends the alerts of rules that are no more.
pub(crate) fn rules_changed(d: &mut Decision<'_>, rule_ids: &BTreeSet<String>) {
    let gone = d.state.alerts.rules().filter(|(rule, _)| !rule_ids.contains(*rule));
    let keys: Vec<String> =
        gone.flat_map(|(_, alerts)| alerts.map(|alert| alert.dedup_key.clone())).collect();
    for key in keys {
        settle(d, &key, ResolveReason::RuleRemoved, d.now, None);
    }
}

/// The host's event time jumped by `delta_ms`: its alerts' times jump with it, so that a `for` neither ends early nor
/// waits for the clock to come back to where it was.
pub(crate) fn shift(d: &mut Decision<'_>, agent: AgentId, delta_ms: i64, cause: DraftCause) {
    let moved = |at: Timestamp| Timestamp::from_millis(at.as_millis().saturating_add(delta_ms));
    // A host's presence is told by the collector's own clock.
    let of_agent = d.state.alerts().filter(|a| a.agent == Some(agent) && a.source != AlertSource::Host);
    for alert in of_agent.cloned() {
        let shifted = Alert {
            active_since: moved(alert.active_since),
            fired_at: alert.fired_at.map(moved),
            last_true: moved(alert.last_true),
            recovering_since: alert.recovering_since.map(moved),
            resolved_at: alert.resolved_at.map(moved),
            ..alert
        };
        d.by_system(EventKind::AlertUpdated, d.now, Some(cause), Subject::Alert(shifted));
    }
}

/// The event time of an alert's last move: evidence that is not younger has been heard already.
pub(crate) fn moved_at(alert: &Alert) -> Timestamp {
    let moves = [alert.fired_at, alert.recovering_since, alert.resolved_at];
    moves.into_iter().flatten().fold(alert.active_since.max(alert.last_true), Timestamp::max)
}
