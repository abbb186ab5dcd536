//! What the rows of a host call for, told by the simplest model there is, against what the feed told.
//!
//! A restart, however it came, changes neither the rows at which an alert fires and ends nor how often it does.

use std::collections::BTreeMap;

use tocsin_proto::pb;

use super::rows::{HostBook, Row};

/// A rule of the load: its alert's name, its `for` and its `keep_firing_for` in milliseconds. A slot has the rule of its
/// number, modulo their count.
pub const RULES: [(&str, i64, i64); 5] =
    [("AtOnce", 0, 0), ("Held", 300, 0), ("Kept", 0, 300), ("Both", 200, 400), ("Long", 2_000, 0)];

/// Fired or ended, and at which row's time.
type Transition = (&'static str, i64);

/// The transitions of one slot over rows in order.
fn transitions(rows: &[Row], slot: usize, (hold, keep): (i64, i64)) -> Vec<Transition> {
    let (mut told, mut since, mut fires, mut recovering) = (Vec::new(), None, false, None);
    for Row { at_ms: at, levels } in rows {
        match (levels[slot], fires) {
            (true, true) => recovering = None,
            (true, false) => {
                if at - *since.get_or_insert(*at) >= hold {
                    fires = true;
                    told.push(("alert.triggered", *at));
                }
            }
            (false, true) if keep > 0 && at - *recovering.get_or_insert(*at) < keep => {}
            (false, true) => {
                (fires, since, recovering) = (false, None, None);
                told.push(("alert.resolved", *at));
            }
            (false, false) => since = None,
        }
    }
    told
}

/// What a host's rows call for against what was told of it.
pub(super) fn check(book: &HostBook, events: &[&pb::Event]) -> Vec<String> {
    let mut told: BTreeMap<String, Vec<(&str, i64)>> = BTreeMap::new();
    for event in events {
        let Some(pb::event::Subject::Alert(alert)) = &event.subject else { continue };
        let label =
            |name: &str| alert.labels.iter().find(|label| label.name == name).map(|label| &*label.value);
        if let (Some(slot), true) = (label("slot"), label("instance") == Some(&*book.hostname)) {
            told.entry(slot.to_owned()).or_default().push((&event.kind, event.occurred_at_ms));
        }
    }
    let slots = book.rows.first().map_or(0, |row| row.levels.len());
    let wrong = (0..slots).filter_map(|slot| {
        let (rule, hold, keep) = RULES[slot % RULES.len()];
        let called_for = transitions(&book.rows, slot, (hold, keep));
        let told = told.get(&slot.to_string()).cloned().unwrap_or_default();
        let at = (0..called_for.len().max(told.len())).find(|at| told.get(*at) != called_for.get(*at))?;
        let (is, wanted) = (told.get(at), called_for.get(at));
        Some(format!(
            "{}: {rule} in slot {slot}: transition {at} is {is:?}, the rows call for {wanted:?}",
            book.hostname
        ))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter for each 100 ms: x breached, . clear. Out: F fires, E ends, - nothing.
    fn play(levels: &str, rule: (i64, i64)) -> String {
        let rows: Vec<Row> = levels
            .chars()
            .enumerate()
            .map(|(at, level)| Row { at_ms: at as i64 * 100, levels: vec![level == 'x'] })
            .collect();
        let mut out = vec!['-'; levels.len()];
        for (kind, at) in transitions(&rows, 0, rule) {
            out[at as usize / 100] = if kind == "alert.triggered" { 'F' } else { 'E' };
        }
        out.into_iter().collect()
    }

    #[test]
    fn rows_call_for_transitions() {
        for (levels, rule, told, why) in [
            ("x.xx.", (0, 0), "FEF-E", "at once"),
            ("xxxx.x", (300, 0), "---FE-", "after the hold"),
            ("xx.xxxxx", (300, 0), "------F-", "a blip starts the wait again"),
            ("x..x....", (0, 300), "F------E", "kept, and the wait starts again"),
        ] {
            assert_eq!(play(levels, rule), told, "{why}");
        }
    }
}
