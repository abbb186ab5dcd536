//! Time without rows or without numbers, and rows that come late.
//!
//! Time without rows neither counts for a `for` nor starts it again. When the rows come after all, the rules run over
//! them on a copy (`evaluate::hole`), and here the live alerts take over what is true: what began and ended among late
//! rows is recorded and pages nobody; what still holds and has met its `for` fires now, once, with its true start.
//! Nothing is resolved here: the live rows alone are evidence that something is over now.

use std::collections::{BTreeMap, HashMap};

use tocsin_shared::alert::{Alert, AlertSource, Condition};
use tocsin_shared::event::{EventKind, Hole, Subject};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;

use super::Filled;
use crate::state::Refusal;
use crate::state::decide::Decision;

/// Alerts that a hole keeps: five of each bundled rule. Of a host with more, those that ended first are left out.
const HOLE_ALERTS_MAX: usize = 200;

/// Moves what waits over the time without rows, once: the mark is `last_true`, which lies behind that time then.
pub(crate) fn rows_missing(d: &mut Decision<'_>, agent: Option<AgentId>, from: Timestamp, to: Timestamp) {
    let of_rule = |alert: &&Alert| alert.agent == agent && alert.source == AlertSource::Rule;
    for alert in d.state.active_alerts().filter(of_rule) {
        move_over(d, alert, from, to);
    }
}

/// An alert waits on over time in which a number that is none said nothing of it.
pub(super) fn waits_on(d: &mut Decision<'_>, key: &str, from: Timestamp, to: Timestamp) {
    if let Some(alert) = d.state.alert(key) {
        move_over(d, alert, from, to);
    }
}

/// What is fulfilled already, or has been moved over this time, stays.
fn move_over(d: &mut Decision<'_>, alert: &Alert, from: Timestamp, to: Timestamp) {
    let before_next = to.minus(std::time::Duration::from_millis(1)); // The row at `to` is still to be heard.
    let over = |at: Timestamp| at.plus(to.since(from)).min(before_next);
    let pending = alert.condition == Condition::Pending;
    let recovers = alert.condition == Condition::Firing && alert.recovering_since.is_some();
    if !(pending || recovers) || alert.last_true > from {
        return;
    }
    let moved = Alert {
        active_since: if pending { over(alert.active_since) } else { alert.active_since },
        recovering_since: alert.recovering_since.map(over),
        last_true: before_next,
        ..alert.clone()
    };
    d.by_system(unannounced(&moved), to, None, Subject::Alert(moved));
}

/// What writes an active alert down without telling anyone.
fn unannounced(alert: &Alert) -> EventKind {
    if alert.condition == Condition::Pending { EventKind::AlertPending } else { EventKind::AlertUpdated }
}

/// Keeps the host's alerts as they are before the missing rows; a hole that is open only grows.
pub(crate) fn hole_opened(d: &mut Decision<'_>, agent: AgentId, from: Timestamp) -> Result<(), Refusal> {
    if d.state.hole(agent).is_some() {
        return Ok(());
    }
    d.host_in_service(agent)?;
    let of_host = |alert: &&Alert| alert.agent == Some(agent) && alert.source == AlertSource::Rule;
    let mut alerts: Vec<Alert> = d.state.alerts().filter(of_host).cloned().collect();
    alerts.sort_by_key(|alert| (alert.resolved_at.is_some(), std::cmp::Reverse(alert.resolved_at)));
    alerts.truncate(HOLE_ALERTS_MAX);
    let hole = Hole { agent, from, alerts, closed: false };
    d.by_system(EventKind::HoleOpened, from, None, Subject::Hole(hole));
    Ok(())
}

/// Takes over what the copy came to.
pub(crate) fn hole_closed(d: &mut Decision<'_>, filled: &Filled) {
    let Some(hole) = d.state.hole(filled.agent) else { return };
    let before = hole.alerts.iter().map(|alert| (alert.dedup_key.as_str(), alert)).collect();
    for late in unheard(d, filled, &before) {
        record(d, late);
    }
    for copy in &filled.active {
        let unmoved = before.get(copy.dedup_key.as_str()).is_some_and(|alert| *alert == copy);
        if !unmoved {
            take_over(d, copy, filled.at);
        }
    }
    let hole = Hole { agent: filled.agent, from: hole.from, alerts: Vec::new(), closed: true };
    d.by_system(EventKind::HoleClosed, filled.at, None, Subject::Hole(hole));
}

/// Of what fired and ended on the copy, what the live alerts never said: they fired less often, and what they missed
/// came first.
fn unheard<'a>(d: &Decision<'_>, filled: &'a Filled, before: &HashMap<&str, &Alert>) -> Vec<&'a Alert> {
    let fired_before = |key: &str| before.get(key).map_or(0, |alert| alert.generation);
    let mut by_key: BTreeMap<&str, Vec<&Alert>> = BTreeMap::new();
    for ended in &filled.ended {
        if ended.generation > fired_before(&ended.dedup_key) {
            by_key.entry(&ended.dedup_key).or_default().push(ended);
        }
    }
    let heard = |key: &str| {
        let Some(live) = d.alert(key) else { return 0 };
        let fired = live.generation.saturating_sub(fired_before(key));
        fired.saturating_sub(u32::from(live.condition == Condition::Firing)) // That one has not ended.
    };
    let missed = by_key.into_iter().flat_map(|(key, ended)| {
        let missed = ended.len().saturating_sub(heard(key) as usize);
        ended.into_iter().take(missed)
    });
    missed.collect()
}

/// Records what is over, without touching what is live.
fn record(d: &mut Decision<'_>, late: &Alert) {
    let live = d.alert(&late.dedup_key).cloned();
    let (generation, key_seq) = live.as_ref().map_or((0, 0), |live| (live.generation, live.key_seq));
    let record = Alert { generation, key_seq, incident: None, late: true, ..late.clone() };
    let at = record.fired_at.unwrap_or(record.active_since);
    let cause = d.by_system(EventKind::AlertLate, at, None, Subject::Alert(record));
    let Some(live) = live.filter(|live| matches!(live.condition, Condition::Pending | Condition::Firing))
    else {
        return;
    };
    let live = Alert { key_seq: key_seq + 1, ..live };
    d.by_system(unannounced(&live), live.last_true, Some(cause), Subject::Alert(live));
}

/// What holds on the copy at its end holds since then, also for people.
fn take_over(d: &mut Decision<'_>, copy: &Alert, at: Timestamp) {
    let live = d.alert(&copy.dedup_key).cloned();
    let (generation, key_seq) = live.as_ref().map_or((0, 0), |live| (live.generation, live.key_seq));
    let condition = live.as_ref().map(|live| live.condition);
    let since = copy.active_since;
    match (copy.condition, condition, live) {
        (_, Some(Condition::Firing), Some(live)) if since < live.active_since => {
            super::change(d, Alert { active_since: since, ..live }, false, None);
        }
        (_, Some(Condition::Firing), _) => {}
        (Condition::Firing, _, live) => {
            let alert = Alert {
                generation: generation + 1,
                key_seq,
                fired_at: Some(at),
                last_true: live.map_or(copy.last_true, |live| live.last_true.max(copy.last_true)),
                incident: None,
                ..copy.clone()
            };
            super::fire(d, alert, None);
        }
        (_, Some(Condition::Pending), Some(live)) if since != live.active_since => {
            let kept = Alert { active_since: since, ..live };
            d.by_system(EventKind::AlertPending, since, None, Subject::Alert(kept));
        }
        (_, Some(Condition::Pending), _) => {}
        (_, _, _) => {
            let kept = Alert { generation, key_seq, incident: None, ..copy.clone() };
            d.by_system(EventKind::AlertPending, since, None, Subject::Alert(kept));
        }
    }
}
