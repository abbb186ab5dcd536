//! One evaluation of one rule against the alerts it had: Prometheus' states, by event time.

use std::collections::HashSet;
use std::time::Duration;

use tocsin_shared::alert::{Alert, AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::Env;
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

use super::{Breach, Evaluation, dedup_key, moved_at};
use crate::state::Refusal;
use crate::state::decide::Decision;

/// How many elements a rule may have for one host, or across hosts: more says that the rule is wrong, and each one
/// would be an alert.
pub(crate) const ELEMENTS_MAX: usize = 1_000;

/// How often the value and the annotations of a firing alert are written down when only they change. They change at
/// every row; people read them in minutes.
const REFRESH_AFTER: Duration = Duration::from_secs(300);

pub(crate) fn evaluated(d: &mut Decision<'_>, evaluation: &Evaluation) -> Result<(), Refusal> {
    let Evaluation { agent, rule, samples_seq, elements, .. } = evaluation;
    if elements.is_empty() && d.state.active_of_rule(&rule.rule_id, *agent).next().is_none() {
        return Ok(()); // By far the most evaluations.
    }
    if elements.len() > ELEMENTS_MAX {
        let what = format!("alerts of the rule {} at once: make its expression narrower", rule.rule_id);
        return Err(Refusal::Exhausted { what, max: ELEMENTS_MAX });
    }
    let host = match agent {
        Some(agent) => Some(d.state.host(*agent).ok_or_else(|| Refusal::not_found("agent", agent))?),
        None => None,
    };
    if host.is_some_and(|host| host.state == HostState::Retired) {
        return Ok(());
    }
    d.samples_seq = Some(*samples_seq);
    let held = keys(evaluation, host)?;
    let doubtful = doubtful_keys(evaluation, host);
    let clear = d.state.active_of_rule(&rule.rule_id, *agent).map(|alert| alert.dedup_key.clone());
    let clear: Vec<String> =
        clear.filter(|key| !held.iter().any(|held| held == key) && !doubtful.contains(key)).collect();
    for (key, breach) in held.into_iter().zip(elements) {
        holds(d, evaluation, host, key, breach);
    }
    for key in clear {
        is_clear(d, evaluation, &key);
    }
    if let Some(before) = evaluation.before {
        for key in doubtful {
            super::late::waits_on(d, &key, before, evaluation.at);
        }
    }
    Ok(())
}

/// The dedup keys of all elements.
fn keys(evaluation: &Evaluation, host: Option<&Host>) -> Result<Vec<String>, Refusal> {
    let Evaluation { rule, elements, .. } = evaluation;
    let target = host.map(Host::target_labels).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut keys = Vec::with_capacity(elements.len());
    for breach in elements {
        let key = key_of(evaluation, &target, &breach.labels);
        if !seen.insert(key.clone()) {
            let labels = &breach.labels;
            let what = format!("the rule {} has two elements with the labels {labels}", rule.rule_id);
            return Err(Refusal::invalid(what));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The dedup keys of what depends on numbers that are none: their alerts stay as they are.
fn doubtful_keys(evaluation: &Evaluation, host: Option<&Host>) -> HashSet<String> {
    if evaluation.doubtful.is_empty() {
        return HashSet::new();
    }
    let target = host.map(Host::target_labels).unwrap_or_default();
    evaluation.doubtful.iter().map(|labels| key_of(evaluation, &target, labels)).collect()
}

/// The labels of the host itself tell nothing apart, and relabelling it shall not end its alerts.
fn key_of(evaluation: &Evaluation, target: &Labels, labels: &Labels) -> String {
    let own = labels.without(|name| target.get(name) == labels.get(name));
    dedup_key(AlertSource::Rule, &evaluation.rule.rule_id, evaluation.agent, &own)
}

/// The expression holds for an element.
fn holds(d: &mut Decision<'_>, evaluation: &Evaluation, host: Option<&Host>, key: String, breach: &Breach) {
    let (rule, at) = (&evaluation.rule, evaluation.at);
    let old = d.alert(&key).cloned();
    if old.as_ref().is_some_and(|alert| at <= moved_at(alert)) {
        return;
    }
    let mut alert = seen(d, evaluation, host, key, breach);
    match old {
        Some(old) if old.condition == Condition::Firing => still_fires(d, old, alert),
        old => {
            alert.generation = old.as_ref().map_or(0, |old| old.generation);
            alert.key_seq = old.as_ref().map_or(0, |old| old.key_seq);
            let pending = old.filter(|old| old.condition == Condition::Pending);
            alert.active_since = pending.as_ref().map_or(at, |old| old.active_since);
            if at.since(alert.active_since) >= rule.hold {
                alert.condition = Condition::Firing;
                alert.generation += 1;
                alert.fired_at = Some(at);
                super::fire(d, alert, None);
            } else if pending.is_none() {
                d.by_system(EventKind::AlertPending, at, None, Subject::Alert(alert));
            }
        }
    }
}

/// The record of an element that holds now, as if it had not held before.
fn seen(
    d: &Decision<'_>,
    evaluation: &Evaluation,
    host: Option<&Host>,
    dedup_key: String,
    breach: &Breach,
) -> Alert {
    let (rule, at) = (&evaluation.rule, evaluation.at);
    let own = |name| breach.alert_labels.get(name);
    let severity = own("severity").and_then(|text| text.parse().ok()).unwrap_or(rule.severity);
    let named =
        own("alertname") == Some(rule.alertname.as_str()) && own("severity") == Some(severity.as_str());
    let labels = match named {
        true => breach.alert_labels.clone(),
        false => breach.alert_labels.with([("alertname", &*rule.alertname), ("severity", severity.as_str())]),
    };
    Alert {
        dedup_key,
        generation: 0,
        key_seq: 0,
        source: AlertSource::Rule,
        source_id: rule.rule_id.clone(),
        env: env_of(d, &labels, host),
        labels,
        annotations: breach.annotations.clone(),
        severity,
        agent: evaluation.agent,
        condition: Condition::Pending,
        active_since: at,
        fired_at: None,
        last_true: at,
        recovering_since: None,
        resolved_at: None,
        resolve_reason: None,
        value: breach.value,
        opens_incident: opens(d, rule.opens_incident, severity),
        incident: None,
        late: false,
    }
}

fn opens(d: &Decision<'_>, of_rule: Option<bool>, severity: Severity) -> bool {
    of_rule.unwrap_or(severity >= d.config.incident_from)
}

/// The host's environment rules; a rule cannot make a test host page.
fn env_of(d: &Decision<'_>, labels: &Labels, host: Option<&Host>) -> Env {
    let labelled = || labels.get("env").and_then(|env| env.parse().ok());
    host.map(|host| host.env).or_else(labelled).unwrap_or(d.config.env_without_label)
}

/// A firing alert is seen again: written down only if people or a restart need it.
fn still_fires(d: &mut Decision<'_>, old: Alert, new: Alert) {
    let worse = new.severity > old.severity;
    let homeless = new.opens_incident && old.incident.is_none() && !d.incidents_wait_for(&old);
    let changed = new.severity != old.severity
        || new.labels != old.labels
        || new.opens_incident != old.opens_incident
        || old.recovering_since.is_some();
    let news = new.annotations != old.annotations || new.value.to_bits() != old.value.to_bits();
    let stale = new.last_true.since(old.last_true) >= REFRESH_AFTER;
    if changed || homeless || (news && stale) {
        let Alert { generation, key_seq, active_since, fired_at, incident, .. } = old;
        let condition = Condition::Firing;
        let kept = Alert { generation, key_seq, active_since, fired_at, incident, condition, ..new };
        super::change(d, kept, worse || homeless, None);
    }
}

/// Rows came, and the expression did not hold for this alert.
fn is_clear(d: &mut Decision<'_>, evaluation: &Evaluation, key: &str) {
    let (keep, at) = (evaluation.rule.keep_firing_for, evaluation.at);
    let Some(alert) = d.alert(key).filter(|alert| at > moved_at(alert)).cloned() else { return };
    if alert.condition == Condition::Firing && !keep.is_zero() {
        match alert.recovering_since {
            None => return recovers(d, alert, at),
            Some(since) if at.since(since) < keep => return,
            Some(_) => {}
        }
    }
    super::settle(d, key, ResolveReason::Source, at, None);
}

fn recovers(d: &mut Decision<'_>, alert: Alert, at: Timestamp) {
    super::change(d, Alert { recovering_since: Some(at), ..alert }, false, None);
}
