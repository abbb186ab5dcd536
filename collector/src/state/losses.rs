//! Events of the journal that cannot be read, and what waits while nobody has decided to go on without them.
//!
//! While a loss is open the state is *degraded*: what the lost events said about incidents is not known, so incidents
//! stay as they are (`alert` and `incident` ask), commands about them are refused, and nobody new is let in, because a
//! revocation may be among what is lost. Everything that is seen goes on: rows, outcomes, alerts, hosts. Those records
//! are whole and replace older ones, so they hold whatever the lost events said. No checkpoint is written meanwhile:
//! with the file put back, a start folds what was lost and what came after.
//! Afterwards incidents are brought up to the alerts, some at each tick. Their new numbers begin after all that lost
//! events can have used.

use std::collections::BTreeMap;

use tocsin_shared::alert::Condition;
use tocsin_shared::event::{Actor, EventKind, Loss, LossState, Subject};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;

use super::decide::Decision;
use super::own::Own;
use super::{Command, Refusal, State};
use crate::alert;
use crate::incident;

/// The source of the alert; which events are lost tells one from another.
pub(crate) const SOURCE: &str = "collector/journal";
const ALERTNAME: &str = "JournalDamaged";

/// How many losses are remembered: each is a failure of a disk or of a person. The oldest that are done with go.
const LOSSES_KEPT: usize = 256;
/// Alerts and incidents that one tick settles: a decision of some hundred kilobytes.
const SETTLED_PER_TICK: usize = 200;

/// Losses by their first event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Losses(BTreeMap<u64, Loss>);

impl Losses {
    pub(crate) fn put(&mut self, loss: Loss) {
        self.0.insert(loss.first, loss);
        if self.0.len() > LOSSES_KEPT {
            let done = |loss: &&Loss| {
                !matches!(loss.state, LossState::Open | LossState::Accepted | LossState::Restored)
            };
            if let Some(oldest) = self.0.values().find(done).map(|loss| loss.first) {
                self.0.remove(&oldest);
            }
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Loss> {
        self.0.values()
    }

    /// Those that nobody has decided about.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Loss> {
        self.all().filter(|loss| loss.state == LossState::Open)
    }

    /// Those after which incidents are not settled with the alerts yet.
    pub(crate) fn owed(&self) -> impl Iterator<Item = &Loss> {
        self.all().filter(|loss| matches!(loss.state, LossState::Accepted | LossState::Restored))
    }

    /// The lowest number of a new incident.
    pub(crate) fn incidents_from(&self) -> u64 {
        self.all().map(|loss| loss.incidents_from).max().unwrap_or(0)
    }
}

/// What a start has found about the journal that is not known yet. Ranges are closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Torn off at the end, before anyone was told.
    pub torn: Vec<(u64, u64)>,
    /// Lost, but a checkpoint holds what they came to.
    pub covered: Vec<(u64, u64)>,
    /// Lost.
    pub open: Vec<(u64, u64)>,
    /// Lost ones, by their first event, that could be read this time.
    pub restored: Vec<u64>,
}

impl Findings {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Refuses what waits for a decision about lost events.
pub(super) fn check(state: &State, command: &Command, actor: &Actor) -> Result<(), Refusal> {
    let waits = match command {
        Command::Acknowledge(_) | Command::Unacknowledge(_) | Command::Resolve { .. } | Command::Note(_) => {
            true
        }
        Command::Enrol(_) | Command::Recover { .. } | Command::AllowRecovery { .. } => true,
        // The local administrator, whose making may be among what is lost, has to be able to decide.
        Command::CreateToken(_) | Command::CreatePrincipal { .. } => *actor != Actor::System,
        _ => false,
    };
    match state.losses.open().next().filter(|_| waits) {
        Some(&Loss { first, last, .. }) => Err(Refusal::Degraded { first, last }),
        None => Ok(()),
    }
}

/// Takes what a start has found.
pub(super) fn found(d: &mut Decision<'_>, findings: &Findings) {
    let Findings { torn, covered, open, restored } = findings;
    let loss = |&(first, last), state| Loss { first, last, state, incidents_from: 0 };
    for range in torn {
        let torn = loss(range, LossState::Torn);
        d.by_system(EventKind::JournalTorn, d.now, None, Subject::Loss(torn));
    }
    for range in covered {
        let covered = loss(range, LossState::Covered);
        d.by_actor(
            EventKind::EventsLost,
            d.now,
            "a checkpoint has what they came to",
            Subject::Loss(covered),
        );
    }
    let lost: u64 = open.iter().map(|(first, last)| last - first + 1).sum();
    let incidents_from = if lost > 0 { d.next_incident().saturating_add(lost) } else { 0 };
    d.incidents_from = d.incidents_from.max(incidents_from);
    for range in open {
        let lost = Loss { incidents_from, ..loss(range, LossState::Open) };
        let note = "what they said is not known; incidents are read only until an operator decides";
        d.by_actor(EventKind::EventsLost, d.now, note, Subject::Loss(lost));
        alert(d, *range, true);
    }
    for first in restored {
        if let Some(known) = d.state.losses.0.get(first) {
            let read = Loss { state: LossState::Restored, ..known.clone() };
            let (first, last) = (read.first, read.last);
            d.by_actor(EventKind::EventsRestored, d.now, "", Subject::Loss(read));
            alert(d, (first, last), false);
        }
    }
}

/// An operator goes on without what is lost. A second time changes nothing.
pub(super) fn accept(d: &mut Decision<'_>, first: u64, last: u64) -> Result<(), Refusal> {
    let known = d.state.losses.0.get(&first).filter(|loss| loss.last == last);
    match known.map(|loss| loss.state) {
        Some(LossState::Open) => {}
        Some(LossState::Accepted | LossState::Settled) => return Ok(()),
        _ => return Err(Refusal::precondition(not_lost(d.state, first, last))),
    }
    let incidents_from = known.map_or(0, |loss| loss.incidents_from);
    let accepted = Loss { first, last, state: LossState::Accepted, incidents_from };
    let note = format!("goes on without events {first} to {last}");
    d.by_actor(EventKind::LossAccepted, d.now, &note, Subject::Loss(accepted));
    alert(d, (first, last), false);
    Ok(())
}

fn not_lost(state: &State, first: u64, last: u64) -> String {
    let open: Vec<String> =
        state.losses.open().map(|loss| format!("{} to {}", loss.first, loss.last)).collect();
    let lost = if open.is_empty() {
        "none is waited for".to_owned()
    } else {
        format!("lost are {}", open.join(", "))
    };
    format!("events {first} to {last} are no lost events that wait for a decision: {lost}")
}

/// The data is an older copy: from the next event on numbers come a second time.
pub(super) fn rewound(d: &mut Decision<'_>) {
    let first = d.state.last_seq() + 1;
    let rewound = Loss { first, last: first, state: LossState::Rewound, incidents_from: 0 };
    let note = "an older copy of the data was put back: what the feed said after it is void";
    d.by_actor(EventKind::StoreRestored, d.now, note, Subject::Loss(rewound));
}

/// Brings incidents up to the alerts, some at a time: what fires has its incident, and what is over ends.
pub(super) fn settle_incidents(d: &mut Decision<'_>) {
    if d.state.is_degraded() || d.state.losses.owed().next().is_none() {
        return;
    }
    let (state, full) = (d.state, |d: &Decision<'_>| d.drafted() >= SETTLED_PER_TICK);
    for alert in state.active_alerts().filter(|alert| alert.condition == Condition::Firing) {
        let home = alert.incident.and_then(|number| d.incident(number));
        let worse = home.is_some_and(|home| home.status.is_open() && home.severity < alert.severity);
        if alert.opens_incident && (alert.incident.is_none() || worse) && !full(d) {
            alert::change(d, alert.clone(), true, None);
        }
    }
    for incident in state.open_incidents() {
        if !full(d) {
            incident::follow_alerts(d, incident.number);
        }
    }
    if d.drafted() > 0 {
        return; // The next tick looks again.
    }
    for loss in state.losses.owed() {
        let settled = Loss { state: LossState::Settled, ..loss.clone() };
        d.by_system(EventKind::LossSettled, d.now, None, Subject::Loss(settled));
    }
}

/// The alert about a loss: while it is open it pages like any critical one of production, with an incident of its own:
/// new ones about anything else wait.
fn alert(d: &mut Decision<'_>, (first, last): (u64, u64), open: bool) {
    let summary = format!(
        "data loss, events {first} to {last} of the journal: incidents are read only and no new ones open until \
         someone decides"
    );
    let look_first = format!(
        "put the journal's file back from a backup and start again, or go on without it: \
         `tocsin journal accept-loss --from {first} --to {last}`"
    );
    let own = Own {
        source: SOURCE,
        alertname: ALERTNAME,
        identity: Labels::new([("first_event", first.to_string()), ("last_event", last.to_string())]),
        severity: Severity::Critical,
        instance: None,
        look_first: Some(&look_first),
    };
    own.stands(d, open.then_some(&*summary));
}

#[cfg(test)]
mod tests;
