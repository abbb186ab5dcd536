//! Alerts.

use tocsin_shared::alert::Alert;

use super::{InvalidMessage, Number, labels_in, labels_out, parse, time, time_in, time_out};
use crate::pb;

impl From<&Alert> for pb::Alert {
    fn from(alert: &Alert) -> Self {
        let Alert {
            dedup_key,
            generation,
            key_seq,
            source,
            source_id,
            labels,
            annotations,
            severity,
            env,
            agent,
            condition,
            active_since,
            fired_at,
            last_true,
            recovering_since,
            resolved_at,
            resolve_reason,
            value,
            opens_incident,
            incident,
            late,
        } = alert;
        Self {
            dedup_key: dedup_key.clone(),
            generation: *generation,
            key_seq: *key_seq,
            source: source.number(),
            source_id: source_id.clone(),
            labels: labels_out(labels),
            annotations: labels_out(annotations),
            severity: severity.number(),
            env: env.number(),
            agent: agent.map(|agent| agent.to_string()).unwrap_or_default(),
            condition: condition.number(),
            active_since_ms: active_since.as_millis(),
            fired_at_ms: time_out(*fired_at),
            last_true_ms: last_true.as_millis(),
            recovering_since_ms: time_out(*recovering_since),
            resolved_at_ms: time_out(*resolved_at),
            resolve_reason: resolve_reason.map_or(0, Number::number),
            value: *value,
            opens_incident: *opens_incident,
            incident: incident.unwrap_or(0),
            late: *late,
        }
    }
}

impl TryFrom<pb::Alert> for Alert {
    type Error = InvalidMessage;
    fn try_from(alert: pb::Alert) -> Result<Self, InvalidMessage> {
        let pb::Alert {
            dedup_key,
            generation,
            key_seq,
            source,
            source_id,
            labels,
            annotations,
            severity,
            env,
            agent,
            condition,
            active_since_ms,
            fired_at_ms,
            last_true_ms,
            recovering_since_ms,
            resolved_at_ms,
            resolve_reason,
            value,
            opens_incident,
            incident,
            late,
        } = alert;
        Ok(Self {
            dedup_key,
            generation,
            key_seq,
            source: Number::from_number(source)?,
            source_id,
            labels: labels_in(labels),
            annotations: labels_in(annotations),
            severity: Number::from_number(severity)?,
            env: Number::from_number(env)?,
            agent: if agent.is_empty() { None } else { Some(parse("alert.agent", &agent)?) },
            condition: Number::from_number(condition)?,
            active_since: time(active_since_ms),
            fired_at: time_in(fired_at_ms),
            last_true: time(last_true_ms),
            recovering_since: time_in(recovering_since_ms),
            resolved_at: time_in(resolved_at_ms),
            resolve_reason: if resolve_reason == 0 {
                None
            } else {
                Some(Number::from_number(resolve_reason)?)
            },
            value,
            opens_incident,
            incident: (incident != 0).then_some(incident),
            late,
        })
    }
}
