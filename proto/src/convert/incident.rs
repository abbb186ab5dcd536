//! Incidents and who handles them.

use tocsin_shared::event::Actor;
use tocsin_shared::incident::{Ack, AlertRef, Incident, Priority, Resolution};

use super::{InvalidMessage, Number, labels_in, labels_out, must, parse, time, time_in, time_out};
use crate::pb;

impl From<&Actor> for pb::Actor {
    fn from(actor: &Actor) -> Self {
        use pb::actor::Kind;
        let kind = match actor {
            Actor::System => Kind::System(true),
            Actor::Agent(agent) => Kind::Agent(agent.to_string()),
            Actor::Principal(name) => Kind::Principal(name.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Actor> for Actor {
    type Error = InvalidMessage;
    fn try_from(actor: pb::Actor) -> Result<Self, InvalidMessage> {
        use pb::actor::Kind;
        let pb::Actor { kind } = actor;
        Ok(match must("actor", kind)? {
            Kind::System(_) => Self::System,
            Kind::Agent(agent) => Self::Agent(parse("actor.agent", &agent)?),
            Kind::Principal(name) => Self::Principal(name),
        })
    }
}

impl From<&Ack> for pb::Ack {
    fn from(ack: &Ack) -> Self {
        let Ack { by, at, expires_at, note } = ack;
        Self {
            by: Some(by.into()),
            at_ms: at.as_millis(),
            expires_at_ms: expires_at.as_millis(),
            note: note.clone(),
        }
    }
}

impl TryFrom<pb::Ack> for Ack {
    type Error = InvalidMessage;
    fn try_from(ack: pb::Ack) -> Result<Self, InvalidMessage> {
        let pb::Ack { by, at_ms, expires_at_ms, note } = ack;
        Ok(Self {
            by: must("ack.by", by)?.try_into()?,
            at: time(at_ms),
            expires_at: time(expires_at_ms),
            note,
        })
    }
}

impl From<&Resolution> for pb::Resolution {
    fn from(resolution: &Resolution) -> Self {
        let Resolution { by, at, code, text } = resolution;
        Self { by: Some(by.into()), at_ms: at.as_millis(), code: code.clone(), text: text.clone() }
    }
}

impl TryFrom<pb::Resolution> for Resolution {
    type Error = InvalidMessage;
    fn try_from(resolution: pb::Resolution) -> Result<Self, InvalidMessage> {
        let pb::Resolution { by, at_ms, code, text } = resolution;
        Ok(Self { by: must("resolution.by", by)?.try_into()?, at: time(at_ms), code, text })
    }
}

impl From<&AlertRef> for pb::AlertRef {
    fn from(alert: &AlertRef) -> Self {
        let AlertRef { dedup_key, generation, name, firing } = alert;
        Self { dedup_key: dedup_key.clone(), generation: *generation, name: name.clone(), firing: *firing }
    }
}

impl From<pb::AlertRef> for AlertRef {
    fn from(alert: pb::AlertRef) -> Self {
        let pb::AlertRef { dedup_key, generation, name, firing } = alert;
        Self { dedup_key, generation, name, firing }
    }
}

impl From<&Incident> for pb::Incident {
    fn from(incident: &Incident) -> Self {
        let Incident {
            number,
            incident_key,
            key_seq,
            title,
            env,
            labels,
            status,
            severity,
            impact,
            urgency,
            priority,
            pages,
            alerts,
            opened_at,
            ack,
            resolution,
            auto_resolve_at,
            reopen_count,
            rev,
        } = incident;
        Self {
            number: *number,
            incident_key: incident_key.clone(),
            key_seq: *key_seq,
            title: title.clone(),
            env: env.number(),
            labels: labels_out(labels),
            status: status.number(),
            severity: severity.number(),
            impact: impact.number(),
            urgency: urgency.number(),
            priority: u32::from(priority.number()),
            pages: *pages,
            alerts: alerts.iter().map(Into::into).collect(),
            opened_at_ms: opened_at.as_millis(),
            ack: ack.as_ref().map(Into::into),
            resolution: resolution.as_ref().map(Into::into),
            auto_resolve_at_ms: time_out(*auto_resolve_at),
            reopen_count: *reopen_count,
            rev: *rev,
        }
    }
}

impl TryFrom<pb::Incident> for Incident {
    type Error = InvalidMessage;
    fn try_from(incident: pb::Incident) -> Result<Self, InvalidMessage> {
        let pb::Incident {
            number,
            incident_key,
            key_seq,
            title,
            env,
            labels,
            status,
            severity,
            impact,
            urgency,
            priority,
            pages,
            alerts,
            opened_at_ms,
            ack,
            resolution,
            auto_resolve_at_ms,
            reopen_count,
            rev,
        } = incident;
        let priority = u8::try_from(priority).ok().and_then(Priority::from_number);
        Ok(Self {
            number,
            incident_key,
            key_seq,
            title,
            env: Number::from_number(env)?,
            labels: labels_in(labels),
            status: Number::from_number(status)?,
            severity: Number::from_number(severity)?,
            impact: Number::from_number(impact)?,
            urgency: Number::from_number(urgency)?,
            priority: priority.ok_or_else(|| InvalidMessage::new("incident.priority", "not 1 to 5"))?,
            pages,
            alerts: alerts.into_iter().map(Into::into).collect(),
            opened_at: time(opened_at_ms),
            ack: ack.map(TryInto::try_into).transpose()?,
            resolution: resolution.map(TryInto::try_into).transpose()?,
            auto_resolve_at: time_in(auto_resolve_at_ms),
            reopen_count,
            rev,
        })
    }
}
