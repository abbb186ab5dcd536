//! Events: the lines of the journal and the items of the feed.

use tocsin_shared::event::{Event, Subject};

use super::{InvalidMessage, must, parse, time};
use crate::pb;

impl From<&Subject> for pb::event::Subject {
    fn from(subject: &Subject) -> Self {
        match subject {
            Subject::Alert(record) => Self::Alert(record.into()),
            Subject::Incident(record) => Self::Incident(record.into()),
            Subject::Run(record) => Self::Run(record.into()),
            Subject::Host(record) => Self::Host(record.into()),
            Subject::Token(record) => Self::Token(record.into()),
            Subject::Certificate(record) => Self::Certificate(record.into()),
            Subject::Principal(record) => Self::Principal(record.into()),
            Subject::Consumer(record) => Self::Consumer(record.into()),
            Subject::Lane(record) => Self::Lane(record.into()),
            Subject::Sealed(record) => Self::Sealed(record.into()),
            Subject::Hole(record) => Self::Hole(record.into()),
            Subject::Authority(record) => Self::Authority(record.into()),
            Subject::Loss(record) => Self::Loss(record.into()),
        }
    }
}

impl TryFrom<pb::event::Subject> for Subject {
    type Error = InvalidMessage;
    fn try_from(subject: pb::event::Subject) -> Result<Self, InvalidMessage> {
        use pb::event::Subject as Wire;
        Ok(match subject {
            Wire::Alert(record) => Self::Alert(record.try_into()?),
            Wire::Incident(record) => Self::Incident(record.try_into()?),
            Wire::Run(record) => Self::Run(record.try_into()?),
            Wire::Host(record) => Self::Host(record.try_into()?),
            Wire::Token(record) => Self::Token(record.try_into()?),
            Wire::Certificate(record) => Self::Certificate(record.try_into()?),
            Wire::Principal(record) => Self::Principal(record.try_into()?),
            Wire::Consumer(record) => Self::Consumer(record.into()),
            Wire::Lane(record) => Self::Lane(record.try_into()?),
            Wire::Sealed(record) => Self::Sealed(record.try_into()?),
            Wire::Hole(record) => Self::Hole(record.try_into()?),
            Wire::Authority(record) => Self::Authority(record.try_into()?),
            Wire::Loss(record) => Self::Loss(record.try_into()?),
        })
    }
}

impl From<&Event> for pb::Event {
    fn from(event: &Event) -> Self {
        let Event { seq, kind, actor, occurred_at, recorded_at, cause, samples_seq, note, subject } = event;
        Self {
            seq: *seq,
            kind: kind.as_str().to_owned(),
            actor: Some(actor.into()),
            occurred_at_ms: occurred_at.as_millis(),
            recorded_at_ms: recorded_at.as_millis(),
            cause_seq: cause.unwrap_or(0),
            samples_seq: samples_seq.unwrap_or(0),
            note: note.clone(),
            subject: Some(subject.into()),
        }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = InvalidMessage;
    fn try_from(event: pb::Event) -> Result<Self, InvalidMessage> {
        let pb::Event {
            seq,
            kind,
            actor,
            occurred_at_ms,
            recorded_at_ms,
            cause_seq,
            samples_seq,
            note,
            subject,
        } = event;
        Ok(Self {
            seq,
            kind: parse("event.kind", &kind)?,
            actor: must("event.actor", actor)?.try_into()?,
            occurred_at: time(occurred_at_ms),
            recorded_at: time(recorded_at_ms),
            cause: (cause_seq != 0).then_some(cause_seq),
            samples_seq: (samples_seq != 0).then_some(samples_seq),
            note,
            subject: must("event.subject", subject)?.try_into()?,
        })
    }
}
