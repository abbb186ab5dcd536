//! What people and timers do to an incident.
//!
//! An act on an incident that is resolved already is accepted and changes nothing, as PagerDuty has it: two people who
//! press the same button both succeed. Only a note is taken then too.

use tocsin_shared::event::{Actor, EventKind, Subject};
use tocsin_shared::incident::{Ack, Incident, IncidentStatus};

use super::membership::close;
use super::rating;
use crate::state::Refusal;
use crate::state::command::OnIncident;
use crate::state::decide::Decision;

/// The codes with which a person may resolve. The others (`auto`, `rule_removed`, `host_retired`) are the collector's.
pub const RESOLVE_CODES: [&str; 5] = ["fixed", "workaround", "false_positive", "duplicate", "other"];

/// How many incidents one tick moves: a storm that ends at once is then a few hundred batches, not one of megabytes.
pub const TIMERS_PER_TICK: usize = 100;

/// How long a note may be; longer things belong in a document that the note names.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The incident that a command is about.
fn addressed<'a>(d: &Decision<'a>, on: &OnIncident) -> Result<&'a Incident, Refusal> {
    let number = on.number;
    let incident = d.state.incident(number).ok_or_else(|| Refusal::not_found("incident", number))?;
    if on.expected_rev.is_some_and(|expected| expected != incident.rev) {
        return Err(Refusal::Conflict { current: incident.rev });
    }
    if on.text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::invalid(format!("the text is longer than {TEXT_BYTES_MAX} bytes: shorten it")));
    }
    Ok(incident)
}

/// Takes an incident. Who takes one that is taken has it then, for another full time.
pub(crate) fn acknowledge(d: &mut Decision<'_>, on: &OnIncident) -> Result<(), Refusal> {
    let mut incident = addressed(d, on)?.clone();
    if !incident.status.is_open() {
        return Ok(());
    }
    let expires_at = d.now.plus(rating::ack_lasts(d.config, incident.priority));
    incident.status = IncidentStatus::Acknowledged;
    incident.ack = Some(Ack { by: d.actor.clone(), at: d.now, expires_at, note: on.text.clone() });
    d.by_actor(EventKind::IncidentAcknowledged, d.now, &on.text, Subject::Incident(incident));
    Ok(())
}

pub(crate) fn unacknowledge(d: &mut Decision<'_>, on: &OnIncident) -> Result<(), Refusal> {
    let mut incident = addressed(d, on)?.clone();
    if incident.status != IncidentStatus::Acknowledged {
        return Ok(());
    }
    incident.status = IncidentStatus::Triggered;
    incident.ack = None;
    d.by_actor(EventKind::IncidentUnacknowledged, d.now, &on.text, Subject::Incident(incident));
    Ok(())
}

/// Resolves an incident, also one whose alerts still fire.
pub(crate) fn resolve(d: &mut Decision<'_>, on: &OnIncident, code: &str) -> Result<(), Refusal> {
    let mut incident = addressed(d, on)?.clone();
    if !RESOLVE_CODES.contains(&code) {
        let codes = RESOLVE_CODES.join(", ");
        return Err(Refusal::invalid(format!("not a resolution code: {code:?}; it is one of {codes}")));
    }
    if on.text.trim().is_empty() {
        return Err(Refusal::invalid("a resolution needs words: say what was done"));
    }
    if !incident.status.is_open() {
        return Ok(());
    }
    close(d, &mut incident, d.actor.clone(), code, &on.text);
    d.by_actor(EventKind::IncidentResolved, d.now, &on.text, Subject::Incident(incident));
    Ok(())
}

pub(crate) fn note(d: &mut Decision<'_>, on: &OnIncident) -> Result<(), Refusal> {
    let incident = addressed(d, on)?.clone();
    if on.text.trim().is_empty() {
        return Err(Refusal::invalid("a note needs words"));
    }
    d.by_actor(EventKind::IncidentNoted, d.now, &on.text, Subject::Incident(incident));
    Ok(())
}

/// Lets happen what is due.
pub(crate) fn tick(d: &mut Decision<'_>) {
    if d.state.is_degraded() {
        return;
    }
    let due: Vec<u64> = d.state.incidents.due(d.now).take(TIMERS_PER_TICK).collect();
    for number in due {
        let Some(mut incident) = d.incident(number).cloned() else { continue };
        let kind = if incident.auto_resolve_at.is_some_and(|at| at <= d.now) {
            close(d, &mut incident, Actor::System, "auto", "all its alerts are resolved");
            EventKind::IncidentResolved
        } else {
            incident.status = IncidentStatus::Triggered;
            incident.ack = None;
            EventKind::IncidentUnacknowledged
        };
        d.by_system(kind, d.now, None, Subject::Incident(incident));
    }
}
